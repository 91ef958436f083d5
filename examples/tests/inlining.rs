//! Hot callees that LLVM compiles into their caller's code, as the baseline's counts tell which.
#![cfg(feature = "_llvm")]

use std::sync::Arc;

use beadwork::{EngineBuilder, Manual, Tier, TierId};
use beadwork_cranelift::{CraneliftBackend, OptLevel};
use beadwork_llvm::LlvmBackend;
use strand::llvm::llvm;
use strand::tiering::{BytecodeFrontend, ConnectError, Linking, Tiered, cranelift};
use strand::{FuncIndex, Limits, Program, Value, Vm};

/// `hot` has a loop, so it is none of the leaves whose copies the frontend itself makes.
const SOURCE: &str = "
fn hot(x: int) -> int { let y = x; for i in 0..3 { y = y + 1; } return y; }
fn other(x: int) -> int { let y = x; for i in 0..3 { y = y + 2; } return y; }
fn rare(x: int) -> int { let y = x; for i in 0..5 { y = y * 1; } return y; }
fn work(n: int) -> int { let x = 0; for i in 0..n { x = hot(x); } return rare(x); }
fn main(n: int) -> int { return work(n); }";

const HOT: FuncIndex = FuncIndex(0);
const OTHER: FuncIndex = FuncIndex(1);
const WORK: usize = 3;
const TOP: TierId = TierId::new(2).unwrap();

type Llvm = Arc<LlvmBackend<BytecodeFrontend>>;

/// Baseline code that counts, and LLVM, each when it is asked for.
fn tiered(program: &Arc<Program>, linking: Linking) -> (Tiered, Llvm) {
    let mut kept = None;
    let configure = |builder: EngineBuilder, frontend: BytecodeFrontend| -> Result<_, ConnectError> {
        let options = CraneliftBackend::builder().opt_level(OptLevel::None);
        let first = Tier::new(cranelift(options).build(frontend.clone())?).counts_itself(true);
        let second = kept.insert(Arc::new(llvm(LlvmBackend::builder()).build(frontend)?)).clone();
        let tiers = builder.tier(first.policy(Manual)).tier(Tier::new(second).policy(Manual));
        Ok(tiers.inline().capacity(64))
    };
    let tiered = Tiered::with(program, linking, configure).unwrap();
    (tiered, kept.expect("configured"))
}

fn promote(tiered: &Tiered, function: usize, tier: TierId) {
    let bead = tiered.beads()[function];
    tiered.engine().promote(bead, tier).unwrap();
    tiered.engine().run_pending(usize::MAX);
    assert_eq!(tiered.engine().tier(bead), Ok(tier));
}

#[test]
fn a_hot_callee_is_part_of_its_callers_code_until_it_is_redefined() {
    let program = Arc::new(Program::parse("test", SOURCE).unwrap());
    strand::on_vm_stack(|| {
        let (tiered, backend) = tiered(&program, Linking::Inlined);
        let mut vm = Vm::new(&program, Limits::default(), tiered.hooks()).unwrap();
        for function in 0..program.functions().len() {
            promote(&tiered, function, TierId::BASELINE);
        }
        assert_eq!(vm.run(&[1_000]), Ok(Value::Int(3_000)));
        let callees = tiered.engine().profile(tiered.beads()[WORK]).unwrap().unwrap().callees();
        assert_eq!(callees, [(tiered.beads()[0], 1_000), (tiered.beads()[2], 1)]);

        promote(&tiered, WORK, TOP);
        assert_eq!(backend.stats().included, 1, "`rare` is not hot");
        assert_eq!(vm.run(&[1_000]), Ok(Value::Int(3_000)));
        let calls = tiered.engine().invocations(tiered.beads()[0]).unwrap();
        assert_eq!(calls, 1_000, "it was not called any more");

        // None of this machine's own assumptions is broken by this, so it is the inclusion that takes the code back.
        tiered.engine().invalidate(tiered.beads()[HOT.index()]).unwrap();
        assert_eq!(tiered.engine().tier(tiered.beads()[WORK]), Ok(TierId::INTERPRETER));
        promote(&tiered, WORK, TOP);
        assert_eq!(backend.stats().included, 2);

        assert_eq!(tiered.redefine(HOT, OTHER).unwrap(), 1, "`work` has the old body in it");
        assert_eq!(tiered.engine().tier(tiered.beads()[WORK]), Ok(TierId::INTERPRETER));
        assert_eq!(vm.run(&[1_000]), Ok(Value::Int(6_000)));
        promote(&tiered, WORK, TOP);
        assert_eq!(backend.stats().included, 3);
        assert_eq!(vm.run(&[1_000]), Ok(Value::Int(6_000)));
    })
    .unwrap();
}

#[test]
fn calls_stay_calls_where_nothing_is_to_be_inlined() {
    let program = Arc::new(Program::parse("test", SOURCE).unwrap());
    strand::on_vm_stack(|| {
        let (tiered, backend) = tiered(&program, Linking::Slots);
        let mut vm = Vm::new(&program, Limits::default(), tiered.hooks()).unwrap();
        (0..program.functions().len()).for_each(|function| promote(&tiered, function, TierId::BASELINE));
        assert_eq!(vm.run(&[1_000]), Ok(Value::Int(3_000)));
        assert_eq!(
            tiered.engine().profile(tiered.beads()[WORK]),
            Ok(None),
            "callees are counted for who needs it"
        );
        promote(&tiered, WORK, TOP);
        assert_eq!((vm.run(&[1_000]), backend.stats().included), (Ok(Value::Int(3_000)), 0));
    })
    .unwrap();
}
