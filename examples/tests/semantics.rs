//! What the language promises about values, in every tier alike.

mod common;

use common::Tiers;
use strand::{ErrorKind, Limits, Program, RuntimeError, Trap, Value, Vm};

fn program(source: &str) -> Program {
    Program::parse("test.strand", source).unwrap_or_else(|e| panic!("{e}\n{source}"))
}

/// Runs `main` in every tier and expects the same result and output everywhere.
fn everywhere(source: &str, args: &[i64], expected: &str, printed: &str) {
    for (tier, (result, output)) in Tiers::new(&program(source)).run(args) {
        let result = result.map_or_else(|e| e.to_string(), |v| v.to_string());
        assert_eq!((result.as_str(), output.as_str()), (expected, printed), "{tier}, {args:?}\n{source}");
    }
}

/// An expression of ints `a` and `b`, once with the operands as variables and once as literals.
fn int_expression(expression: &str, a: i64, b: i64, expected: i64) {
    let source = format!("fn main(a: int, b: int) -> int {{ return {expression}; }}");
    everywhere(&source, &[a, b], &expected.to_string(), "");
    let source = format!("fn main(a: int) -> int {{ let c = {expression}; return c; }}");
    everywhere(&source.replace('b', &format!("({b})")), &[a], &expected.to_string(), "");
}

#[test]
fn int_arithmetic_wraps_and_division_rounds_towards_zero() {
    int_expression("a + b", i64::MAX, 1, i64::MIN);
    int_expression("a - b", i64::MIN, 1, i64::MAX);
    int_expression("a * b", i64::MAX, 2, -2);
    int_expression("a / b", -7, 2, -3);
    int_expression("a % b", -7, 2, -1);
    int_expression("a / b", i64::MIN, -1, i64::MIN);
    int_expression("a % b", i64::MIN, -1, 0);
    int_expression("a / b", 7, -1, -7);
    int_expression("a / b", i64::MIN, 1_000_000_007, i64::MIN / 1_000_000_007);
    int_expression("-a + b", i64::MIN, 0, i64::MIN);
    int_expression("a - b", 5, i64::from(i32::MIN), 5 - i64::from(i32::MIN));
}

#[test]
fn shifts_use_the_low_six_bits_and_keep_the_sign() {
    int_expression("a << b", 1, 63, i64::MIN);
    int_expression("a << b", 3, 64, 3);
    int_expression("a << b", 3, -1, i64::MIN);
    int_expression("a >> b", -8, 1, -4);
    int_expression("a >> b", -8, 67, -1);
    int_expression("a & b | 1 ^ b", 12, 10, 12 & 10 | 1 ^ 10);
}

#[test]
fn comparisons_hold_at_the_ends_of_the_range() {
    for (a, b) in [(0, 0), (-1, 1), (i64::MIN, i64::MAX), (i64::from(i32::MAX), i64::from(i32::MAX)), (3, -2)]
    {
        for (op, holds) in
            [("<", a < b), ("<=", a <= b), (">", a > b), (">=", a >= b), ("==", a == b), ("!=", a != b)]
        {
            int_expression(&format!("int(a {op} b)"), a, b, i64::from(holds));
            int_expression(&format!("int(!(b {op} a))"), b, a, i64::from(!holds));
            int_expression(&format!("int(a {op} b && true || false)"), a, b, i64::from(holds));
        }
    }
}

#[test]
fn nan_is_unequal_to_everything_in_every_form_of_condition() {
    let source = "fn bit(x: bool) -> int { if x { return 1; } return 0; }
        fn main(a: int) -> int {
            let zero = float(a);
            let nan = zero / zero;
            let m = 0;
            if nan < zero { m = m + 1; }
            if !(nan < zero) { m = m + 2; }
            if nan <= zero || nan > zero || nan >= zero || nan == nan { m = m + 4; }
            if nan != nan { m = m + 8; }
            while !(nan >= zero) { m = m + 16; break; }
            let kept = !(nan <= zero);
            return m + 32 * bit(kept) + 64 * bit(!(zero > nan)) + 128 * bit(!(nan == nan)) + 256 * bit(!(nan != nan));
        }";
    everywhere(source, &[0], &(2 + 8 + 16 + 32 + 64 + 128).to_string(), "");
}

#[test]
fn float_to_int_saturates_and_nan_is_zero() {
    let source = "fn main(e: int) -> int {
            let x = 1.0;
            for i in 0..e { x = x * 10.0; }
            print(int(-x));
            print(int(x - x * 2.0 + 0.7));
            print(int(sqrt(-x)));
            print(-x / 0.0);
            print(sqrt(x));
            return int(x);
        }";
    everywhere(source, &[2], "100", "-100\n-99\n0\n-inf\n10.0\n");
    everywhere(
        source,
        &[30],
        "9223372036854775807",
        &format!("{0}\n{0}\n0\n-inf\n1000000000000000.0\n", i64::MIN),
    );
}

#[test]
fn logic_is_short_circuit_and_operands_go_left_to_right() {
    let source = "fn say(n: int, answer: bool) -> bool { print(n); return answer; }
        fn number(n: int) -> int { print(n); return n; }
        fn main() -> int {
            let a = say(1, false) && say(2, true);
            let b = say(3, true) || say(4, true);
            if !(say(5, true) && !say(6, true)) || say(7, true) { print(a); }
            a = !a && b;
            print(a);
            return number(10) - number(20) * number(30);
        }";
    everywhere(source, &[], "-590", "1\n3\n5\n6\nfalse\ntrue\n10\n20\n30\n");
}

#[test]
fn loops_break_continue_and_evaluate_their_limit_once() {
    let source = "fn limit(n: int) -> int { print(n); return n; }
        fn main(n: int) -> int {
            let sum = 0;
            for i in 0..limit(n) {
                if i % 2 == 0 { continue; }
                let j = 0;
                while true {
                    j = j + 1;
                    if j == i { continue; }
                    if j > i + 2 { break; }
                    sum = sum + j;
                }
                if i == 7 { break; }
            }
            for i in 5..2 { sum = -1; }
            for i in 9223372036854775806..9223372036854775807 { sum = sum + 1000; }
            return sum;
        }";
    everywhere(source, &[100], "1078", "100\n");
    everywhere(source, &[0], "1000", "0\n");
}

#[test]
fn shadowing_scopes_and_registers_keep_values_apart() {
    let source = "fn mix(a: int, b: float, c: int, d: float, e: [int], f: bool, g: float, h: int) -> float {
            if f { return b * 1000.0 + d * 100.0 + g * 10.0 + float(a + c + e[0] + h); }
            return 0.0;
        }
        fn main(n: int) -> float {
            let x = n;
            if n > 0 { let x = 0.5; let y = x + 1.0; print(y); if y > 1.0 { let x = array(1, true); print(x[0]); } }
            let y = x + 1;
            return mix(x, float(y), y + 1, 0.25, array(1, 5), y > x, 0.125, x * (x + (x * (x + 1))));
        }";
    everywhere(source, &[2], "3053.25", "1.5\ntrue\n");
}

#[test]
fn arrays_are_shared_by_reference() {
    let source = "fn fill(a: [[bool]], n: int) { for i in 0..n { a[i] = array(i + 1, false); a[i][i] = i % 2 == 0; } return; }
        fn main(n: int) -> int {
            let a = array(n, array(0, true));
            let same = a;
            fill(a, n);
            let count = 0;
            for i in 0..len(same) { if same[i][len(same[i]) - 1] { count = count + 1; } }
            return count;
        }";
    everywhere(source, &[9], "5", "");
    everywhere(source, &[0], "0", "");
}

#[test]
fn the_frame_limit_is_exact_in_every_tier() {
    let source = "fn down(n: int) -> int { if n == 0 { return 0; } return 1 + down(n - 1); }
        fn main(n: int) -> int { return down(n); }";
    // `main` and `down(9998)`, …, `down(0)` are 10,000 frames.
    everywhere(source, &[9998], "9998", "");
    everywhere(source, &[9999], "test.strand:1: recursion too deep in `down` (limit 10000)", "");
}

#[test]
fn a_vm_can_run_again_after_an_error_and_frees_its_arrays() {
    let source = "fn main(n: int) -> int { let a = array(1000, n); return a[n]; }";
    let program = program(source);
    let limits = Limits { array_bytes: 10_000, ..Limits::default() };
    let mut vm = Vm::new(&program, limits, strand::InterpretAll).unwrap();
    for _ in 0..3 {
        assert_eq!(vm.run(&[999]), Ok(Value::Int(999)));
        let error = vm.run(&[1000]).unwrap_err();
        assert_eq!(error.to_string(), "test.strand:1: index 1000 out of range for length 1000");
    }
    assert_eq!(vm.run(&[]), Err(RuntimeError::Arguments { expected: 1, given: 0 }));
}

#[test]
fn output_that_fails_ends_the_run_with_its_line() {
    #[derive(Debug)]
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("disk full"))
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let program = program("fn main() -> int {\n print(1);\n return 0; }");
    let mut vm = Vm::new(&program, Limits::default(), strand::InterpretAll).unwrap();
    vm.set_output(Full);
    let Err(RuntimeError::Trap { line: 2, trap: Trap::Output(reason), .. }) = vm.run(&[]) else { panic!() };
    assert_eq!(reason, "disk full");
}

#[test]
fn limits_that_cannot_be_reserved_are_an_error() {
    let program = program("fn main() -> int { return 0; }");
    let limits = Limits { frames: u64::MAX, ..Limits::default() };
    assert!(matches!(Vm::new(&program, limits, strand::InterpretAll), Err(RuntimeError::Registers { .. })));
}

#[test]
fn a_function_with_too_many_values_at_once_is_a_source_error() {
    let lets: String = (0..190).map(|i| format!("let v{i} = x;")).collect();
    let calls = "f(x, x, x, x, x, x, x, ".repeat(10) + "x" + &")".repeat(10);
    let f = "fn f(a: int, b: int, c: int, d: int, e: int, g: int, h: int, i: int) -> int { return i; }";
    let source = format!("{f} fn main(x: int) -> int {{ {lets} return {calls}; }}");
    let error = Program::parse("test.strand", &source).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::TooMany { limit: 256, .. }), "{error}");
    let lets: String = (0..201).map(|i| format!("let v{i} = x;")).collect();
    let error =
        Program::parse("test.strand", &format!("fn main(x: int) -> int {{ {lets} return x; }}")).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::TooMany { limit: 200, .. }), "{error}");
}

#[test]
fn a_function_with_too_much_code_is_a_source_error() {
    let source = format!("fn main(x: int) -> int {{ let y = 0; {} return y; }}", "y = y + x;".repeat(70_000));
    let error = Program::parse("test.strand", &source).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::TooMany { limit: 65_536, .. }), "{error}");
}

#[test]
fn the_largest_possible_native_frame_is_within_what_the_stack_is_made_for() {
    let all = |f: &dyn Fn(usize) -> String| (0..95).map(f).collect::<String>();
    let source = format!(
        "fn f(n: int) -> int {{ return n + 1; }}
        fn main(n: int) -> float {{
            let a = array(200, 1.0);
            {}
            for j in 0..f(n) {{ {} }}
            let sum = 0.0;
            {}
            return sum;
        }}",
        all(&|i| format!("let i{i} = f({i}); let x{i} = a[i{i}] + float(i{i});\n")),
        all(&|i| format!("i{i} = f(i{i}) + n; x{i} = a[i{i}] * x{i} + float(len(a));\n")),
        all(&|i| format!("sum = sum * 0.5 + x{i} + float(i{i});\n")),
    );
    let program = program(&source);
    let stub = strand::entry_stub();
    let frame = common::compile(&program, common::Linking::Direct, stub, |_| true).largest_frame;
    // 190 values are alive across each call, so this is a real worst case; `compile` asserts the limit.
    assert!(frame >= 190 * 8, "{frame}");
    let outcomes = Tiers::new(&program).run(&[3]);
    let expected = outcomes[0].1.clone();
    assert!(expected.0.is_ok(), "{expected:?}");
    assert!(outcomes.iter().all(|o| o.1 == expected), "{outcomes:?}");
}
