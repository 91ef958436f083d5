//! Running loops go native on a real engine: at once when there is an entry, wherever the frame is.

use std::sync::Arc;

use beadwork::{Bead, EngineBuilder, Threshold, Tier};
use beadwork_cranelift::{CraneliftBackend, OptLevel};
use strand::tiering::{Dispatching, Linking, Tiered, cranelift};
use strand::{Calls, Edge, Enter, FuncIndex, InterpretAll, Limits, Program, Value, Vm};

/// An engine that compiles when it is told to.
fn tiered(program: &Arc<Program>, threshold: u32) -> Tiered {
    let configure = |builder: EngineBuilder, frontend| {
        let backend = cranelift(CraneliftBackend::builder().opt_level(OptLevel::Speed)).build(frontend)?;
        let tier = Tier::new(backend).policy(Threshold::new(threshold));
        Ok(builder.tier(tier).inline().capacity(64))
    };
    Tiered::new(program, Linking::Slots, configure).unwrap()
}

/// Compiles what is asked for at every back edge, and keeps what became of the edges.
struct Watching {
    hooks: Dispatching,
    engine: beadwork::Engine,
    beads: Vec<Bead>,
    /// Function, site, whether there was an entry, and whether it went native.
    edges: Vec<(u16, u16, bool, bool)>,
    /// The most native frames below an interpreted one.
    native_frames: u32,
}

impl Watching {
    fn new(tiered: &Tiered) -> Self {
        Watching {
            hooks: tiered.hooks(),
            engine: tiered.engine().clone(),
            beads: tiered.beads().to_vec(),
            edges: Vec::new(),
            native_frames: 0,
        }
    }
}

impl Calls for Watching {
    fn enter(&mut self, callee: FuncIndex) -> Enter {
        self.hooks.enter(callee)
    }
    fn back_edge(&mut self, function: FuncIndex, site: u16) -> Edge {
        let before =
            self.engine.pin().osr_entry(self.beads[function.index()], function.site(site.into())).is_some();
        let edge = self.hooks.back_edge(function, site);
        let native = matches!(edge, Edge::Native(_));
        self.edges.push((function.0, site, before, native));
        self.engine.run_pending(usize::MAX);
        edge
    }
    fn safepoint(&mut self, native_frames: u32) {
        self.native_frames = self.native_frames.max(native_frames);
        self.hooks.safepoint(native_frames);
    }
    fn resolve(&self, callee_bits: u64) -> Option<FuncIndex> {
        self.hooks.resolve(callee_bits)
    }
}

fn interpreted(program: &Program, args: &[i64]) -> Value {
    Vm::new(program, Limits::default(), InterpretAll).unwrap().run(args).unwrap()
}

#[test]
fn the_first_back_edge_that_finds_an_entry_is_native_and_the_last_the_interpreter_sees() {
    let source = "
        fn main(n: int) -> int {
            let sum = 0;
            for i in 0..n { for j in 0..n { sum = sum * 3 + i ^ j; } }
            let k = 0;
            while k < n { sum = sum - k * k; k = k + 1; }
            return sum;
        }";
    let program = Arc::new(Program::parse("nest", source).unwrap());
    let args = [300];
    let expected = interpreted(&program, &args);
    for threshold in [1, 10, 100, 1000] {
        let edges = strand::on_vm_stack(|| {
            let tiered = tiered(&program, threshold);
            let mut vm = Vm::new(&program, Limits::default(), Watching::new(&tiered)).unwrap();
            assert_eq!(vm.run(&args), Ok(expected), "threshold {threshold}");
            assert_eq!(vm.calls().hooks.loops_entered(), 1);
            std::mem::take(&mut vm.calls().edges)
        })
        .unwrap();
        let (last, before) = edges.split_last().unwrap();
        assert!(before.iter().all(|(.., native)| !native));
        assert!(
            last.3,
            "the last edge the interpreter saw went native, and the rest of the function with it"
        );
        assert!(
            before.iter().all(|(_, _, entry, _)| !entry),
            "threshold {threshold}: an entry was not taken"
        );
        assert!(last.2 && before.len() < 20_000, "threshold {threshold}: {} edges", before.len());
    }
}

#[test]
fn a_loop_below_native_frames_goes_native_too() {
    // `outer` is native by its many calls; what it calls last is a function never seen before, with a long loop.
    let source = "
        fn long(n: int) -> int { let x = 1; for i in 0..n { x = x * 7 + i; } return x; }
        fn outer(n: int) -> int { if n > 100 { return long(n) + 1; } return n; }
        fn main(n: int) -> int { let x = 0; for i in 0..90 { x = x + outer(i); } return x + outer(n); }";
    let program = Arc::new(Program::parse("below", source).unwrap());
    let args = [50_000];
    let expected = interpreted(&program, &args);
    let (transfers, native_frames, edges) = strand::on_vm_stack(|| {
        let tiered = tiered(&program, 20);
        let mut vm = Vm::new(&program, Limits::default(), Watching::new(&tiered)).unwrap();
        assert_eq!(vm.run(&args), Ok(expected));
        (vm.calls().hooks.loops_entered(), vm.calls().native_frames, std::mem::take(&mut vm.calls().edges))
    })
    .unwrap();
    assert_eq!((transfers, native_frames), (1, 1));
    let of_long: Vec<_> = edges.iter().filter(|(function, ..)| *function == 0).collect();
    assert!(of_long.len() < 10_000, "{} of 50,000 edges were interpreted", of_long.len());
    assert!(of_long.last().unwrap().3);
}

#[test]
fn each_loop_of_a_function_gets_its_own_entry_when_it_is_its_turn() {
    // The first loop ends before it is hot in the first calls, so that each entry is asked for by itself.
    let source = "
        fn work(n: int, m: int) -> int {
            let x = 1;
            for i in 0..n { x = x * 5 + i; }
            for i in 0..m { x = x ^ i * 3; }
            return x;
        }
        fn main(n: int, m: int) -> int { return work(n, m); }";
    let program = Arc::new(Program::parse("turns", source).unwrap());
    strand::on_vm_stack(|| {
        let tiered = tiered(&program, 1000);
        let mut vm = Vm::new(&program, Limits::default(), Watching::new(&tiered)).unwrap();
        for (args, site) in [([0, 20_000], 1), ([20_000, 0], 0)] {
            assert_eq!(vm.run(&args), Ok(interpreted(&program, &args)));
            let last = vm.calls().edges.last().copied().unwrap();
            assert_eq!((last.1, last.3), (site, true), "{args:?}");
            // The next one begins without code, and asks for its own entry.
            tiered.engine().invalidate(tiered.beads()[0]).unwrap();
        }
        assert_eq!(vm.calls().hooks.loops_entered(), 2);
    })
    .unwrap();
}
