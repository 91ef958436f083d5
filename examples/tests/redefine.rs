//! Functions redefined by the host: calls that begin afterwards see the new body, wherever they come from.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use beadwork::{EngineBuilder, Threshold, Tier, TierId};
use beadwork_cranelift::{CraneliftBackend, OptLevel};
use strand::redefine::RedefineError;
use strand::tiering::{Linking, Tiered, cranelift};
use strand::{Calls, Edge, FuncIndex, Limits, Program, Value, Vm};

const SOURCE: &str = "
fn step(x: int) -> int { return x + 1; }
fn other(x: int) -> int { return x + 2; }
fn slow(x: int) -> int { let y = x; for i in 0..3 { y = y + 1; } return y; }
fn float(x: float) -> float { return x; }
fn main(n: int) -> int { let x = 0; for i in 0..n { x = step(x); } return x; }";

const STEP: FuncIndex = FuncIndex(0);
const OTHER: FuncIndex = FuncIndex(1);
const SLOW: FuncIndex = FuncIndex(2);
const OF_FLOATS: FuncIndex = FuncIndex(3);
const LINKINGS: [Linking; 3] = [Linking::Slots, Linking::Inlined, Linking::Dispatch];

fn program() -> Arc<Program> {
    Arc::new(Program::parse("test", &SOURCE.replace("fn float", "fn of_floats")).unwrap())
}

fn tiered(
    program: &Arc<Program>,
    linking: Linking,
    executor: impl FnOnce(EngineBuilder) -> EngineBuilder,
) -> Tiered {
    let configure = |builder: EngineBuilder, frontend| {
        let backend = cranelift(CraneliftBackend::builder().opt_level(OptLevel::Speed)).build(frontend)?;
        Ok(executor(builder.tier(Tier::new(backend).policy(Threshold::new(10))).capacity(64)))
    };
    Tiered::new(program, linking, configure).unwrap()
}

#[test]
fn a_redefinition_is_seen_by_interpreted_compiled_and_copied_calls() {
    let program = program();
    for linking in LINKINGS {
        strand::on_vm_stack(|| {
            let tiered = tiered(&program, linking, EngineBuilder::inline);
            let engine = tiered.engine();
            let mut vm = Vm::new(&program, Limits::default(), tiered.hooks()).unwrap();
            let compile_all = || {
                for &bead in tiered.beads() {
                    let _ = engine.promote(bead, TierId::BASELINE);
                }
                engine.run_pending(usize::MAX);
            };
            // Interpreted, then compiled, each with the body of the moment.
            for (by, each) in [(STEP, 1), (OTHER, 2), (SLOW, 3), (OTHER, 2), (STEP, 1)] {
                let lost = tiered.redefine(STEP, by).unwrap();
                assert_eq!(vm.run(&[7]), Ok(Value::Int(7 * each)), "{linking:?}, interpreted");
                compile_all();
                assert!(engine.tier(tiered.beads()[4]).unwrap() > TierId::INTERPRETER);
                assert_eq!(vm.run(&[7]), Ok(Value::Int(7 * each)), "{linking:?}, compiled");
                // Before the first round nothing was compiled, and a function with a loop is not copied.
                let copied = linking == Linking::Inlined && lost > 0;
                assert!(lost <= 1 && (lost == 0 || copied), "{linking:?}: {lost}");
            }
            if linking == Linking::Inlined {
                // Since `slow` it calls; compiled anew, it has a copy.
                engine.invalidate(tiered.beads()[4]).unwrap();
                compile_all();
                assert_eq!(tiered.redefine(STEP, OTHER).unwrap(), 1, "main has a copy of `step`");
            }
        })
        .unwrap();
    }
}

#[test]
fn another_signature_or_an_unknown_function_is_refused_by_name() {
    let program = program();
    let tiered = tiered(&program, Linking::Inlined, EngineBuilder::inline);
    let error = tiered.redefine(STEP, OF_FLOATS).unwrap_err();
    assert_eq!(error.to_string(), "`of_floats` takes or returns other types than `step`");
    for (function, by) in [(FuncIndex(99), STEP), (STEP, FuncIndex(99))] {
        assert!(matches!(tiered.redefine(function, by), Err(RedefineError::Unknown(FuncIndex(99)))));
    }
}

#[test]
fn redefinitions_while_the_program_runs_never_mix_up_more_than_the_calls_in_between() {
    const ROUNDS: usize = 60;
    let program = program();
    for linking in LINKINGS {
        let tiered = tiered(&program, linking, |builder| builder.workers(1));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..ROUNDS {
                    let by = [OTHER, STEP][round % 2];
                    tiered.redefine(STEP, by).unwrap();
                    let main = tiered.beads()[4];
                    let _ = tiered.engine().promote(main, TierId::BASELINE);
                }
                tiered.redefine(STEP, OTHER).unwrap();
                done.store(true, Relaxed);
            });
            strand::on_vm_stack(|| {
                let mut vm = Vm::new(&program, Limits::default(), tiered.hooks()).unwrap();
                let n = 2_000;
                while !done.load(Relaxed) {
                    let Ok(Value::Int(x)) = vm.run(&[n]) else { panic!("{linking:?}: no result") };
                    assert!((n..=2 * n).contains(&x), "{linking:?}: {x}");
                }
                // The last redefinition returned before this began.
                for _ in 0..50 {
                    assert_eq!(vm.run(&[n]), Ok(Value::Int(2 * n)), "{linking:?}");
                }
            })
            .unwrap();
        });
    }
}

/// What runs a loop of the function's own body may find the function redefined and its code compiled, and then redefined back.
#[test]
fn a_running_loop_goes_on_in_code_of_its_own_body_only() {
    let source = "
fn count(n: int) -> int { let sum = 0; for i in 0..n { sum = sum + 1; } return sum; }
fn other(n: int) -> int { let a = 3.5; let i = n; while i > 0 { i = i - 1; } return int(a); }
fn main(n: int) -> int { return count(n); }";
    let (count, other) = (FuncIndex(0), FuncIndex(1));
    let program = Arc::new(Program::parse("test", source).unwrap());
    let offered = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (sink, itself) = (offered.clone(), Arc::new(std::sync::OnceLock::<Arc<Tiered>>::new()));
    let known = itself.clone();
    let tiered = tiered(&program, Linking::Slots, move |builder| {
        builder.inline().on_event(move |event| {
            // In the middle of a redefinition: the function has another body already, and its old code still.
            if let (Some(tiered), beadwork::Event::AssumptionBroken { .. }) = (known.get(), event) {
                let edge = tiered.hooks().back_edge(count, 0);
                sink.lock().unwrap().push(matches!(edge, Edge::Native(_)));
            }
        })
    });
    let tiered = Arc::new(tiered);
    tiered.redefine(count, other).unwrap();
    let mut hooks = tiered.hooks();
    for _ in 0..200_000 {
        assert!(matches!(hooks.back_edge(count, 0), Edge::Continue));
        tiered.engine().run_pending(usize::MAX);
    }
    assert!(tiered.engine().tier(tiered.beads()[0]).unwrap() > TierId::INTERPRETER);
    assert!(itself.set(tiered.clone()).is_ok());
    tiered.redefine(count, count).unwrap();
    assert_eq!(*offered.lock().unwrap(), [false]);
    // And afterwards it does.
    let native = (0..200_000).any(|_| {
        tiered.engine().run_pending(usize::MAX);
        matches!(hooks.back_edge(count, 0), Edge::Native(_))
    });
    assert!(native);
}
