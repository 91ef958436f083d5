//! Moving collectors: cores move while compiles run, and no compile looks at one that moves.

mod common;
use beadwork::*;
use common::*;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const T1: TierId = TierId::BASELINE;
const NO_TIME: Duration = Duration::ZERO;

/// An engine whose compiles stop inside `with_core` until the second latch opens.
fn stopping(workers: usize) -> (Engine, Latch, Latch) {
    let (inside, go) = (Latch::default(), Latch::default());
    let (at, until) = (inside.clone(), go.clone());
    let backend = FnBackend::new(move |job: &mut Job<'_>| {
        job.with_core(|_| {
            at.open();
            until.wait();
            // Again while a pause may wait for the outer one.
            job.with_core(|_| ())
        })??;
        Ok(code())
    });
    let engine = Engine::builder().capacity(64).workers(workers).tier(Tier::new(backend).batch(1));
    (engine.build().unwrap(), inside, go)
}

#[test]
fn a_pause_waits_for_jobs_inside_and_keeps_new_ones_out_and_looking_may_nest() {
    let (engine, inside, go) = stopping(2);
    let all = beads(&engine, 2);
    engine.promote(all[0], T1).unwrap();
    inside.wait();
    let early = engine.try_gc_pause(NO_TIME);
    assert!(matches!(early, Err(GcPauseError::Timeout { inside: 1, .. })), "{early:?}");
    let collector = std::thread::spawn({
        let engine = engine.clone();
        move || engine.gc_pause().unwrap()
    });
    go.open();
    let pause = collector.join().unwrap();
    engine.promote(all[1], T1).unwrap();
    while !matches!(engine.state(all[1]).unwrap().pending, Some(PendingState::Compiling(_))) {
        std::thread::yield_now();
    }
    assert!(engine.drain(Duration::from_millis(20)).is_err(), "it waits for the collector");
    engine.set_core(all[1], Core::new(99)).unwrap();
    drop(pause);
    engine.drain(LONG).unwrap();
    assert!(all.iter().all(|&bead| engine.tier(bead) == Ok(T1)));
}

#[test]
fn a_pause_asked_for_inside_is_a_typed_error_and_no_deadlock() {
    let slot: Arc<Mutex<Option<Engine>>> = Arc::default();
    let inner = slot.clone();
    let engine = inline(10, move |job| {
        let engine = inner.lock().unwrap().clone().unwrap();
        job.with_core(|_| {
            assert_eq!(engine.gc_pause().unwrap_err(), GcPauseError::Inside);
            assert_eq!(engine.try_gc_pause(LONG).unwrap_err(), GcPauseError::Inside);
        })?;
        drop(engine.gc_pause().map_err(CompileError::because)?);
        Ok(code())
    });
    *slot.lock().unwrap() = Some(engine.clone());
    let bead = beads(&engine, 1)[0];
    assert!(engine.compile_now(bead, T1, LONG).is_ok());
    slot.lock().unwrap().take();
}

#[test]
fn a_compile_on_the_thread_that_holds_a_pause_is_a_typed_error_and_no_deadlock() {
    let engine = inline(10, |job| {
        assert_eq!(job.with_core(|_| ()), Err(CoreError::Paused));
        job.with_core(|_| code()).map_err(CompileError::from)
    });
    let bead = beads(&engine, 1)[0];
    let pause = engine.gc_pause().unwrap();
    let error = engine.compile_now(bead, T1, LONG).unwrap_err();
    assert!(matches!(error, CompileNowError::Compile(CompileError::Backend(_))), "{error}");
    drop(pause);
}

#[test]
fn pauses_nest_and_jobs_go_on_after_the_last() {
    let engine = Engine::builder()
        .capacity(64)
        .workers(1)
        .tier(Tier::new(FnBackend::new(|job| Ok(job.with_core(|_| code())?))))
        .build()
        .unwrap();
    let bead = beads(&engine, 1)[0];
    let (first, second) = (engine.gc_pause().unwrap(), engine.try_gc_pause(LONG).unwrap());
    engine.promote(bead, T1).unwrap();
    drop(first);
    assert!(engine.drain(Duration::from_millis(10)).is_err());
    // A pause may end on another thread than it began on.
    std::thread::spawn(move || drop(second)).join().unwrap();
    engine.drain(LONG).unwrap();
    assert_eq!(engine.tier(bead), Ok(T1));
}

#[test]
fn a_panic_inside_and_a_removed_function_leave_no_pause_waiting() {
    let engine = inline(10, |job| {
        job.with_core(|core| match core.get() {
            0 => panic!("inside"),
            _ => Ok(code()),
        })?
    });
    let all = beads(&engine, 2);
    assert!(engine.compile_now(all[0], T1, LONG).is_err());
    drop(engine.try_gc_pause(NO_TIME).unwrap());
    let slot = Arc::new(Mutex::new(None::<(Engine, Bead)>));
    let inner = slot.clone();
    let engine = inline(10, move |job| {
        let (engine, bead) = inner.lock().unwrap().take().unwrap();
        engine.remove(bead).unwrap();
        assert_eq!(job.with_core(|_| ()), Err(CoreError::Stale(Stale(bead))));
        drop(engine.try_gc_pause(NO_TIME).map_err(CompileError::because)?);
        Err(Stale(bead).into())
    });
    let bead = beads(&engine, 1)[0];
    *slot.lock().unwrap() = Some((engine.clone(), bead));
    assert!(engine.compile_now(bead, T1, LONG).is_err());
}

/// A heap of two spaces. A core is an address in it; an object is the number of its function.
struct Heap {
    cells: Vec<AtomicUsize>,
    functions: usize,
}

const NOTHING: usize = usize::MAX;

impl Heap {
    fn new(functions: usize) -> Heap {
        let cell = |at| AtomicUsize::new(if at < functions { at } else { NOTHING });
        Heap { cells: (0..2 * functions).map(cell).collect(), functions }
    }

    /// Moves every object into the other space, in another order.
    fn collect(&self, engine: &Engine, all: &[Bead], round: usize) {
        let (from, to) = if round.is_multiple_of(2) { (0, self.functions) } else { (self.functions, 0) };
        for offset in 0..self.functions {
            let object = self.cells[from + offset].swap(NOTHING, SeqCst);
            let target = to + (offset + round) % self.functions;
            self.cells[target].store(object, SeqCst);
            engine.set_core(all[object], Core::new(target)).unwrap();
        }
    }
}

#[test]
fn a_compile_never_sees_an_object_that_a_moving_collector_moves() {
    let heap = Arc::new(Heap::new(8));
    let (seen, moved) = (Arc::new(AtomicUsize::new(0)), AtomicBool::new(false));
    let (objects, looks) = (heap.clone(), seen.clone());
    let backend = FnBackend::new(move |job: &mut Job<'_>| {
        job.with_core(|core| {
            for _ in 0..4 {
                let object = objects.cells[core.get()].load(SeqCst);
                assert_eq!(object, job.bead().index() as usize, "moved away under a compile");
                assert_eq!(job.core().unwrap(), core);
                std::thread::yield_now();
            }
        })?;
        looks.fetch_add(1, SeqCst);
        Ok(code())
    });
    let engine = Engine::builder().capacity(64).workers(2).tier(Tier::new(backend)).build().unwrap();
    let all = beads(&engine, heap.functions);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0;
            // Both get their turn, so this comes to an end.
            while round < 200 || seen.load(SeqCst) < 200 {
                let pause = engine.gc_pause().unwrap();
                heap.collect(&engine, &all, round);
                drop(pause);
                round += 1;
            }
            moved.store(true, SeqCst);
        });
        let mut m = engine.mutator();
        while !moved.load(SeqCst) {
            for &bead in &all {
                engine.promote(bead, T1).unwrap();
                engine.reload(bead).unwrap();
            }
            m.safepoint();
        }
    });
    engine.drain(LONG).unwrap();
    assert_eq!(engine.stats().failed, 0, "a wrong object fails its compile");
}
