//! No input panics, overflows the stack or goes on for ever: everything wrong is a message.

mod common;

use common::{Output, Tier};
use strand::lexer::{KEYWORDS, SYMBOLS};
use strand::{Calls, Limits, Program, Vm};

/// xorshift64*: the same sequence in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// Parses; if that works, prints the listing and runs with bounded steps, memory and frames. Answers whether it parsed.
fn survive(source: &str) -> bool {
    match Program::parse("fuzz.strand", source) {
        Err(error) => {
            assert!(error.to_string().starts_with("fuzz.strand:"), "{error}");
            assert!(error.to_string().len() < 500, "the message grows with the source: {error}");
            false
        }
        Ok(program) => {
            assert!(program.to_string().contains("fn main"));
            let limits = Limits { frames: 100, array_bytes: 1 << 16 };
            let mut vm = Vm::new(&program, limits, Tier { fuel: 2_000, ..Tier::new(None) }).unwrap();
            vm.set_output(Output::default());
            let args = vec![5; program.main().signature.params.len()];
            if let Err(error) = vm.run(&args) {
                assert!(error.to_string().starts_with("fuzz.strand:"), "{error}");
            }
            true
        }
    }
}

#[test]
fn random_bytes_never_panic() {
    let mut random = Random(1);
    for _ in 0..3_000 {
        let bytes: Vec<u8> = (0..random.below(200)).map(|_| random.next() as u8).collect();
        survive(&String::from_utf8_lossy(&bytes));
        let printable: String = bytes.iter().map(|b| char::from(b % 95 + 32)).collect();
        survive(&printable);
    }
}

#[test]
fn random_tokens_never_panic() {
    let words = [
        "main", "x", "y", "int", "float", "bool", "[int]", "array", "len", "0", "1.5", "9e300", "\n",
        "// c\n",
    ];
    let mut random = Random(2);
    for _ in 0..20_000 {
        let mut source = String::new();
        if random.below(2) == 0 {
            source.push_str("fn main(x: int) -> int { let y = 1.0; ");
        }
        for _ in 0..random.below(60) {
            source.push_str(match random.below(3) {
                0 => KEYWORDS[random.below(KEYWORDS.len())],
                1 => SYMBOLS[random.below(SYMBOLS.len())],
                _ => words[random.below(words.len())],
            });
            source.push(' ');
        }
        survive(&source);
    }
}

#[test]
fn mutated_programs_never_panic_and_many_still_run() {
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/programs")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            sources.push(std::fs::read_to_string(path).unwrap());
        }
    }
    let mut random = Random(3);
    let mut parsed = 0;
    for _ in 0..6_000 {
        let mut tokens: Vec<&str> =
            sources[random.below(sources.len())].split_inclusive([' ', '(', ')', ';', ',', '[']).collect();
        for _ in 0..1 + random.below(3) {
            let (from, to) = (random.below(tokens.len()), random.below(tokens.len()));
            match random.below(4) {
                0 => tokens[to] = tokens[from],
                1 => tokens.swap(from, to),
                2 => drop(tokens.remove(from)),
                _ => tokens.insert(to, ["0 ", "-1 ", "n ", "1 << 62 ", "!", "0.0 "][random.below(6)]),
            }
        }
        parsed += usize::from(survive(&tokens.concat()));
    }
    assert!(parsed > 300, "only {parsed} mutated programs parsed, so this tests little");
}

#[test]
fn deep_nesting_is_an_error_and_not_a_stack_overflow() {
    let n = 100_000;
    let main = |body: String| format!("fn main() -> int {{ {body} }}");
    let sources = [
        main(format!("return {}1{};", "(".repeat(n), ")".repeat(n))),
        main(format!("return {}", "(".repeat(n))),
        main(format!("return {}1;", "-".repeat(n))),
        main(format!("return {}true;", "!".repeat(n))),
        main(format!("return 1{};", " + 1".repeat(n))),
        main(format!("return 1{};", " + (1".repeat(n))),
        main(format!("return 1{};", " || 1 && 1 == 1 | 1".repeat(n))),
        main(format!("return a{};", "[0]".repeat(n))),
        main(format!("return a{};", "[a".repeat(n))),
        main(format!("return {};", "f(".repeat(n))),
        main("if true { ".repeat(n)),
        main("while true { for i in 0..1 { ".repeat(n)),
        format!("fn main(a: {}int", "[".repeat(n)),
        format!("fn main{}", "(".repeat(n)),
    ];
    for source in sources {
        assert!(!survive(&source));
    }
}

#[test]
fn long_flat_programs_are_fine() {
    let n = 3_000;
    let chain: String = (0..n).map(|i| format!("if n == {i} {{ return {i}; }} else ")).collect();
    assert!(survive(&format!("fn main(n: int) -> int {{ {chain} {{ return -1; }} }}")));
    let functions: String =
        (0..n).map(|i| format!("fn f{i}() -> int {{ return f{}(); }}\n", (i + 1) % n)).collect();
    assert!(survive(&format!("{functions} fn main() -> int {{ return f0(); }}")));
    let names: String = (0..60_000).map(|_| 'a').collect();
    assert!(survive(&format!("fn {names}() {{ }} fn main() -> int {{ {names}(); return 1; }}")));
}

#[test]
fn more_functions_than_an_index_can_name_are_an_error() {
    let functions: String = (0..65_536).map(|i| format!("fn f{i}() {{ }} ")).collect();
    assert!(!survive(&format!("{functions} fn main() -> int {{ return 0; }}")));
}

/// A hook that never stops, to see that a trap leaves no suspended frames behind.
#[derive(Debug)]
struct Plain;

impl Calls for Plain {
    fn enter(&mut self, _: strand::FuncIndex) -> strand::Enter {
        strand::Enter::Interpret
    }
}

#[test]
fn a_trap_inside_many_frames_leaves_the_machine_as_it_was() {
    let source = "fn f(n: int) -> int { if n == 0 { return 1 / n; } return f(n - 1) + 1; }
        fn main(n: int) -> int { if n < 0 { return 7; } return f(n); }";
    let program = Program::parse("t", source).unwrap();
    let mut vm = Vm::new(&program, Limits { frames: 100, ..Limits::default() }, Plain).unwrap();
    for _ in 0..5 {
        assert_eq!(vm.run(&[90]).unwrap_err().to_string(), "t:1: division by zero");
        assert_eq!(vm.run(&[99]).unwrap_err().to_string(), "t:1: recursion too deep in `f` (limit 100)");
        assert_eq!(vm.run(&[-1]).unwrap().to_string(), "7");
    }
    assert!(format!("{vm:?}").contains("frames: 0"), "{vm:?}");
}
