//! What the hooks of a host get to see.

mod common;

use common::{Linking, Tier, compile};
use strand::bytecode::Op;
use strand::{Calls, Edge, Enter, FuncIndex, InterpretAll, Limits, Program, RuntimeError, Trap, Value, Vm};

const FIB: &str = "fn fib(n: int) -> int { if n < 2 { return n; } return fib(n - 1) + fib(n - 2); }
fn main(n: int) -> int { return fib(n); }";

#[derive(Debug, Default)]
struct Log {
    entered: Vec<FuncIndex>,
    edges: Vec<(FuncIndex, u16)>,
    safepoints: Vec<u32>,
    stop_at: usize,
}

impl Calls for Log {
    fn enter(&mut self, callee: FuncIndex) -> Enter {
        self.entered.push(callee);
        if self.entered.len() == self.stop_at { Enter::Stop } else { Enter::Interpret }
    }
    fn back_edge(&mut self, function: FuncIndex, site: u16) -> Edge {
        self.edges.push((function, site));
        if self.edges.len() == self.stop_at { Edge::Stop } else { Edge::Continue }
    }
    fn safepoint(&mut self, native_frames: u32) {
        self.safepoints.push(native_frames);
    }
}

#[test]
fn every_interpreted_call_is_seen_exactly_once() {
    let program = Program::parse("fib", FIB).unwrap();
    let mut vm = Vm::new(&program, Limits::default(), Log::default()).unwrap();
    assert_eq!(vm.run(&[10]), Ok(Value::Int(55)));
    let log = vm.calls();
    // fib(10) makes 177 calls of fib.
    assert_eq!(log.entered.len(), 178);
    assert_eq!(log.entered[0], program.main().index);
    assert!(log.entered[1..].iter().all(|f| *f == FuncIndex(0)));
    assert_eq!(log.safepoints, [0, 0], "before and after the run");
}

#[test]
fn calls_from_native_code_through_the_stub_are_seen_exactly_once_and_others_not() {
    let source = "fn a(n: int) -> int { if n == 0 { return 0; } return 1 + b(n - 1); }
        fn b(n: int) -> int { if n == 0 { return 0; } return 1 + a(n - 1); }
        fn main(n: int) -> int { return a(n); }";
    let program = Program::parse("test", source).unwrap();
    let stub = strand::entry_stub();
    // `main` and `b` interpreted, `a` native: each call crosses.
    let code = compile(&program, Linking::Slots, stub, |f| f.signature.name == "a");
    let counts = strand::on_vm_stack(|| {
        let mut vm = Vm::new(&program, Limits::default(), Tier::new(Some(&code))).unwrap();
        assert_eq!(vm.run(&[9]), Ok(Value::Int(9)));
        (vm.calls().entered, vm.calls().safepoints)
    });
    // main, a(9), b(8), …, b(0); five of them native, each with a safepoint after it.
    assert_eq!(counts.unwrap(), (11, 5 + 2));
    // All native: only `main` is entered from outside.
    let code = compile(&program, Linking::Slots, stub, |_| true);
    let entered = strand::on_vm_stack(|| {
        let mut vm = Vm::new(&program, Limits::default(), Tier::new(Some(&code))).unwrap();
        assert_eq!(vm.run(&[9]), Ok(Value::Int(9)));
        vm.calls().entered
    });
    assert_eq!(entered.unwrap(), 1);
}

#[test]
fn native_code_is_left_with_a_failed_status_when_an_inner_interpreter_fails() {
    let source = "fn fails(a: [int]) -> int { return a[7]; }
        fn main() -> int { let x = fails(array(2, 0)); print(x); return x; }";
    let program = Program::parse("test", source).unwrap();
    let code = compile(&program, Linking::Slots, strand::entry_stub(), |f| f.signature.name == "main");
    let error = strand::on_vm_stack(|| {
        let mut vm = Vm::new(&program, Limits::default(), Tier::new(Some(&code))).unwrap();
        let first = vm.run(&[]).unwrap_err();
        assert_eq!(vm.run(&[]).unwrap_err(), first, "the VM stays usable");
        first
    });
    assert_eq!(error.unwrap().to_string(), "test:1: index 7 out of range for length 2");
}

#[test]
fn back_edges_name_their_loop_and_are_safepoints() {
    let source = "fn main(n: int) -> int {
            let sum = 0;
            for i in 0..n { let j = 0; while j < 2 { j = j + 1; } sum = sum + j; }
            return sum;
        }";
    let program = Program::parse("test", source).unwrap();
    let mut vm = Vm::new(&program, Limits::default(), Log::default()).unwrap();
    assert_eq!(vm.run(&[3]), Ok(Value::Int(6)));
    let main = FuncIndex(0);
    // Two back edges of the inner loop in each iteration, and one of the outer loop between iterations.
    let sites: Vec<u16> = vm.calls().edges.iter().map(|e| e.1).collect();
    assert_eq!(sites, [1, 1, 0, 1, 1, 0, 1, 1]);
    assert!(vm.calls().edges.iter().all(|e| e.0 == main));
    assert_eq!(vm.calls().safepoints.len(), 8 + 2);
    let function = program.main();
    for (pc, op) in function.code.iter().enumerate() {
        if let Op::Back { site, target } | Op::ForBack { site, target, .. } = *op {
            let site = &function.loops[usize::from(site)];
            assert_eq!(site.header, target, "at {pc}");
        }
    }
    // n, sum, i and the hidden limit; in the inner loop j as well.
    assert_eq!(function.loops.iter().map(|l| l.live.len()).collect::<Vec<_>>(), [4, 5]);
}

#[test]
fn a_host_can_stop_calls_and_loops() {
    let program = Program::parse("fib", FIB).unwrap();
    let mut vm = Vm::new(&program, Limits::default(), Log { stop_at: 50, ..Log::default() }).unwrap();
    assert!(matches!(vm.run(&[30]), Err(RuntimeError::Trap { trap: Trap::Stopped, line: 1, .. })));
    let program = Program::parse("loop", "fn main() -> int {\n while true { } }").unwrap();
    let mut vm = Vm::new(&program, Limits::default(), Log { stop_at: 50, ..Log::default() }).unwrap();
    assert!(matches!(vm.run(&[]), Err(RuntimeError::Trap { trap: Trap::Stopped, line: 2, .. })));
}

#[test]
fn instructions_are_eight_bytes_and_the_listing_shows_lines_and_loops() {
    assert_eq!(size_of::<Op>(), 8);
    let source = "fn main(n: int) -> float {\n  let x = 0.5;\n  for i in 0..n {\n    x = x * 3000000000.0;\n  }\n  return x;\n}";
    let program = Program::parse("test", source).unwrap();
    let listing = program.to_string();
    let expected = "\
fn main(r0: int) -> float  // line 1, 5 registers
  =>    0  L2    PoolF { dst: r1, index: 0 }  // 0.5
        1  L3    Const { dst: r2, value: 0 }
        2  L3    Move { dst: r3, src: r0 }
        3  L3    BrLe { a: r3, b: r2, target: @7 }
  =>    4  L4    PoolF { dst: r4, index: 1 }  // 3000000000.0  // loop 0
        5  L4    MulF { dst: r1, a: r1, b: r4 }
        6  L3    ForBack { i: r2, limit: r3, site: 0, target: @4 }
  =>    7  L6    RetF { src: r1 }
  =>    8  L6    RetUnit

";
    assert_eq!(listing, expected);
    let mut vm = Vm::new(&program, Limits::default(), InterpretAll).unwrap();
    assert_eq!(vm.run(&[2]), Ok(Value::Float(4.5e18)));
}
