//! Registration, removal, reuse, groups, and what stale handles may see.

mod common;
use beadwork::*;
use common::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

#[test]
fn a_removed_handle_is_stale_everywhere() {
    let engine = inline(10, |_| Ok(code()));
    let (bead, m) = (engine.register(Core::new(7)).unwrap(), engine.mutator());
    engine.install(bead, TierId::BASELINE, code()).unwrap();
    assert!(m.dispatch(bead).is_some());
    assert_eq!(engine.remove(bead), Ok(Core::new(7)));
    let stale = Stale(bead);
    assert!(m.dispatch(bead).is_none());
    assert!(m.code(bead).is_none());
    m.tick(bead);
    assert!(!engine.is_live(bead));
    assert!(engine.owns(bead), "it was handed out here");
    assert_eq!(engine.remove(bead), Err(stale));
    assert_eq!(engine.core(bead), Err(stale));
    assert_eq!(engine.set_core(bead, Core::new(1)), Err(stale));
    assert_eq!(engine.state(bead), Err(stale));
    assert_eq!(engine.tier(bead), Err(stale));
    assert_eq!(engine.version(bead), Err(stale));
    assert_eq!(engine.invocations(bead), Err(stale));
    assert_eq!(engine.invalidate(bead), Err(stale));
    assert_eq!(engine.slot(bead), Err(stale));
    assert_eq!(engine.promote(bead, TierId::BASELINE), Err(PromoteError::Stale(stale)));
    assert_eq!(engine.install(bead, TierId::BASELINE, code()), Err(InstallError::Stale(stale)));
    assert_eq!((engine.name(bead), engine.key(bead), engine.group_of(bead)), (None, None, None));
}

#[test]
fn p14_a_reused_index_starts_cold_with_its_own_core_and_the_old_handle_stays_stale() {
    let engine = inline(10, |_| Ok(code()));
    let m = engine.mutator();
    let old = engine.register_with(Core::new(7), &BeadInfo::named("old").key(1).size(2)).unwrap();
    (0..9).for_each(|_| m.tick(old));
    engine.install(old, TierId::BASELINE, code()).unwrap();
    engine.remove(old).unwrap();
    drop(m);
    let m = engine.mutator();
    let new = engine.register(Core::new(8)).unwrap();
    assert_eq!((new.index(), new.generation().get()), (old.index(), 2));
    assert_eq!(engine.core(new), Ok(Core::new(8)));
    assert_eq!((engine.name(new), engine.key(new), engine.size(new)), (None, None, None));
    assert_eq!(engine.invocations(new), Ok(0));
    assert_eq!(engine.state(new).unwrap(), engine.state(engine.register(Core::new(0)).unwrap()).unwrap());
    assert!(m.dispatch(new).is_none());
    engine.install(new, TierId::BASELINE, code()).unwrap();
    assert!(m.dispatch(new).is_some());
    assert!(m.dispatch(old).is_none());
    assert!(!engine.is_live(old));
}

#[test]
fn an_index_is_reused_only_after_every_mutator_passed_a_safepoint() {
    let engine = inline(10, |_| Ok(code()));
    let mut m = engine.mutator();
    let old = engine.register(Core::new(0)).unwrap();
    engine.remove(old).unwrap();
    assert_ne!(engine.register(Core::new(0)).unwrap().index(), old.index());
    m.safepoint();
    assert_eq!(engine.register(Core::new(0)).unwrap().index(), old.index());
}

#[test]
fn exhausted_capacity_is_a_typed_error_and_everything_registered_goes_on_working() {
    let engine = Engine::builder().capacity(64).inline().tier(Tier::new(trivial())).build().unwrap();
    let mut m = engine.mutator();
    let all = beads(&engine, 64);
    let full = RegisterError::CapacityExhausted { capacity: 64, waiting: 0 };
    assert_eq!(engine.register(Core::new(0)), Err(full.clone()));
    assert_eq!(engine.register_many([Core::new(0); 2]).unwrap_err(), full);
    for &bead in &all {
        engine.promote(bead, TierId::BASELINE).unwrap();
    }
    engine.run_pending(usize::MAX);
    assert!(all.iter().all(|&bead| m.dispatch(bead).is_some()));
    engine.remove(all[5]).unwrap();
    assert_eq!(
        engine.register(Core::new(0)),
        Err(RegisterError::CapacityExhausted { capacity: 64, waiting: 1 }),
        "the mutator has not passed a safepoint"
    );
    m.safepoint();
    assert_eq!(engine.register(Core::new(0)).unwrap().index(), all[5].index());
}

#[test]
fn bulk_registration_is_all_or_none() {
    let engine = Engine::builder().capacity(64).build().unwrap();
    let first = beads(&engine, 10);
    engine.remove(first[3]).unwrap();
    assert!(engine.register_many((0..56).map(Core::new)).is_err());
    assert_eq!(engine.stats().beads, 9);
    let runs = engine.register_many((100..155).map(Core::new)).unwrap();
    assert_eq!(runs.len(), 55);
    for (position, bead) in runs.iter().enumerate() {
        assert_eq!(engine.core(bead), Ok(Core::new(100 + position)));
    }
    assert_eq!(engine.stats().beads, 64);
}

#[test]
fn a_generation_used_up_retires_the_index_for_good() {
    let engine = Engine::builder().capacity(64).build().unwrap();
    let mut last = engine.register(Core::new(0)).unwrap();
    let index = last.index();
    for _ in 1..MAX_GENERATION {
        engine.remove(last).unwrap();
        last = engine.register(Core::new(0)).unwrap();
        assert_eq!(last.index(), index);
    }
    assert_eq!(last.generation().get(), MAX_GENERATION);
    engine.remove(last).unwrap();
    let other = engine.register(Core::new(0)).unwrap();
    assert_ne!(other.index(), index);
    assert!(!engine.is_live(last));
    assert!(engine.mutator().dispatch(last).is_none());
}

#[test]
fn untrusted_handles_are_answered_as_stale() {
    let engine = inline(10, |_| Ok(code()));
    beads(&engine, 100);
    let mut m = engine.mutator();
    let mut bits = 1u64;
    for _ in 0..200_000 {
        bits = bits.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let Some(bead) = Bead::from_bits(bits & !(0x7fff << 47)) else { continue };
        let known = bead.index() < 100 && bead.generation().get() == 1;
        assert_eq!(engine.owns(bead), known);
        if !known {
            m.dispatch(bead);
            m.tick(bead);
            assert!(!engine.is_live(bead));
            assert!(engine.remove(bead).is_err());
            assert!(engine.slot(bead).is_err());
            assert!(engine.promote(bead, TierId::BASELINE).is_err());
            assert!(engine.install(bead, TierId::BASELINE, code()).is_err());
        }
        m.safepoint();
    }
    assert_eq!(engine.stats().beads, 100);
    let again = engine.register(Core::new(0)).unwrap();
    assert_eq!(again.index(), 100);
}

#[test]
fn of_many_threads_that_remove_a_function_one_succeeds() {
    let engine = inline(10, |_| Ok(code()));
    for _ in 0..500 {
        let bead = engine.register(Core::new(0)).unwrap();
        let wins = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| engine.remove(bead).is_ok().then(|| wins.fetch_add(1, SeqCst)));
            }
        });
        assert_eq!(wins.load(SeqCst), 1);
    }
}

#[test]
fn names_keys_sizes_and_groups_are_kept_and_forgotten_with_the_function() {
    let engine = inline(10, |_| Ok(code()));
    let group = engine.group().unwrap();
    let info = BeadInfo::named("fib").key(0xfeed).size(57).group(group);
    let bead = engine.register_with(Core::new(1), &info).unwrap();
    assert_eq!(engine.name(bead).as_deref(), Some("fib"));
    assert_eq!(
        (engine.key(bead), engine.size(bead), engine.group_of(bead)),
        (Some(0xfeed), Some(57), Some(group))
    );
    engine.remove(bead).unwrap();
    assert_eq!(engine.name(bead), None);
    assert_eq!(engine.group_members(group).unwrap(), []);
}

#[test]
fn removing_a_group_removes_its_live_members_and_nothing_else() {
    let engine = inline(10, |_| Ok(code()));
    let (one, other) = (engine.group().unwrap(), engine.group().unwrap());
    let members: Vec<_> = engine.register_group(one, (0..1000).map(Core::new)).unwrap().iter().collect();
    let late = engine.register_with(Core::new(0), &BeadInfo::new().group(one)).unwrap();
    let bystanders: Vec<_> = engine.register_group(other, (0..10).map(Core::new)).unwrap().iter().collect();
    for &bead in &members[..700] {
        engine.remove(bead).unwrap();
    }
    assert_eq!(engine.group_members(one).unwrap().len(), 301);
    assert_eq!(engine.remove_group(one), 301);
    assert!(!engine.is_live(late));
    assert!(bystanders.iter().all(|&bead| engine.is_live(bead)));
    assert_eq!(engine.group_members(one), None);
    assert_eq!(engine.remove_group(one), 0);
    assert_eq!(
        engine.register_with(Core::new(0), &BeadInfo::new().group(one)),
        Err(RegisterError::NoSuchGroup(one))
    );
    assert_eq!(engine.stats().beads, 10);
}

#[test]
fn the_callback_hears_every_invalidation_once_and_the_removal_last() {
    let heard = Arc::new(std::sync::Mutex::new(vec![]));
    let engine = inline(10, |_| Ok(code()));
    let sink = heard.clone();
    let info = BeadInfo::new().on_invalidate(move |bead, what| sink.lock().unwrap().push((bead, what)));
    let bead = engine.register_with(Core::new(0), &info).unwrap();
    engine.install(bead, TierId::BASELINE, code()).unwrap();
    engine.invalidate(bead).unwrap();
    engine.remove(bead).unwrap();
    let _ = engine.remove(bead);
    assert_eq!(*heard.lock().unwrap(), [(bead, Invalidation::Invalidated), (bead, Invalidation::Removed)]);
}

#[test]
fn p31_a_panicking_callback_or_listener_is_contained() {
    let engine = Engine::builder()
        .inline()
        .tier(Tier::new(trivial()))
        .on_event(|_| panic!("listener"))
        .build()
        .unwrap();
    let info = BeadInfo::new().on_invalidate(|_, _| panic!("callback"));
    let bead = engine.register_with(Core::new(0), &info).unwrap();
    engine.promote(bead, TierId::BASELINE).unwrap();
    assert_eq!(engine.run_pending(usize::MAX), 1);
    assert!(engine.mutator().dispatch(bead).is_some());
    engine.invalidate(bead).unwrap();
    engine.remove(bead).unwrap();
}

#[test]
fn p31_a_callback_or_listener_that_panics_on_a_worker_ends_neither_the_worker_nor_what_it_does() {
    for workers in [1, 4] {
        let (time, here) = (Time::default(), std::thread::current().id());
        let on_workers: Arc<[AtomicUsize; 4]> = Arc::default();
        let count = move |counts: &[AtomicUsize; 4], which: usize| {
            counts[which].fetch_add(usize::from(std::thread::current().id() != here), SeqCst);
        };
        let backend = FnBackend::new(|job: &mut Job<'_>| match job.core()?.get() % 4 {
            3 => Err(CompileError::failed("each fourth")),
            _ => Ok(code().with_bytes(1_024).owner(CodeOwner::boxed(()))),
        });
        let told = on_workers.clone();
        let engine = Engine::builder()
            .workers(workers)
            .clock(time.clock())
            .code_limit(16 * 1_024)
            .evict_after(Duration::from_secs(1))
            .fault_limit(1)
            .tier(Tier::new(backend).policy(Manual).batch(3))
            .on_event(move |event| {
                match event {
                    Event::Installed { .. } => count(&told, 0),
                    Event::GaveUp { .. } => count(&told, 1),
                    Event::Evicted { .. } => count(&told, 2),
                    _ => (),
                }
                panic!("listener")
            })
            .build()
            .unwrap();
        let functions: Vec<_> = (0..48)
            .map(|core| {
                let told = on_workers.clone();
                let info = BeadInfo::new().on_invalidate(move |_, _| {
                    count(&told, 3);
                    panic!("callback")
                });
                engine.register_with(Core::new(core), &info).unwrap()
            })
            .collect();
        let heard = || [0, 1, 2, 3].map(|which: usize| on_workers[which].load(SeqCst));
        let (now, later) = functions.split_at(32);
        let compile = |beads: &[Bead]| {
            beads.iter().for_each(|&bead| engine.promote(bead, TierId::BASELINE).unwrap());
            engine.drain(LONG).unwrap();
        };
        compile(now);
        assert_eq!(heard(), [24, 8, 0, 0], "with {workers}");
        // One of these marks what is there, and another one evicts what was not called since, with a callback for each.
        for (round, beads) in later.chunks(4).enumerate() {
            time.set(1_000 * (round as u64 + 1));
            compile(beads);
        }
        let [installed, gave_up, evicted, called_back] = heard();
        assert_eq!((installed, gave_up), (36, 12), "with {workers}");
        assert!(evicted == called_back && evicted > 10, "{evicted} evicted, {called_back} called back");
        assert_eq!(engine.stats().evicted, evicted as u64);
        let good: Vec<_> = functions
            .iter()
            .copied()
            .filter(|&bead| engine.fault(bead, TierId::BASELINE).is_none())
            .collect();
        let running = good.iter().filter(|&&bead| engine.tier(bead) == Ok(TierId::BASELINE)).count();
        assert_eq!(running, 36 - evicted, "with {workers}");
    }
}

#[test]
fn a_stale_handle_never_sees_another_functions_code_while_the_index_is_recycled() {
    let engine = Engine::builder().capacity(64).inline().tier(Tier::new(trivial())).build().unwrap();
    let done = AtomicBool::new(false);
    let first = engine.register(Core::new(0)).unwrap();
    engine.remove(first).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut m = engine.mutator();
            while !done.load(SeqCst) {
                assert!(m.dispatch(first).is_none());
                m.safepoint();
            }
        });
        let _done = Finally(|| done.store(true, SeqCst));
        let mut cycles = 0;
        while cycles < 20_000 {
            // All indices can be waiting for the reader's next safepoint.
            let Ok(bead) = engine.register(Core::new(0)) else {
                std::thread::yield_now();
                continue;
            };
            engine.install(bead, TierId::BASELINE, code()).unwrap();
            engine.remove(bead).unwrap();
            cycles += 1;
        }
    });
}

#[test]
fn p33_a_million_functions_and_their_code_are_dropped_on_a_small_stack() {
    std::thread::Builder::new()
        .stack_size(64 << 10)
        .spawn(|| {
            let alive = Alive::default();
            let engine = Engine::builder().capacity(1 << 20).build().unwrap();
            let all = engine.register_many((0..1 << 20).map(Core::new)).unwrap();
            for bead in all.iter().step_by(16) {
                engine.install(bead, TierId::BASELINE, alive.code()).unwrap();
            }
            assert_eq!(alive.count(), 1 << 16);
            drop(engine);
            assert_eq!(alive.count(), 0);
        })
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn handles_of_two_engines_do_not_disturb_each_other() {
    let (a, b) = (inline(10, |_| Ok(code())), inline(10, |_| Ok(code())));
    let (bead, _) = (a.register(Core::new(1)).unwrap(), b.register(Core::new(2)).unwrap());
    a.install(bead, TierId::BASELINE, code()).unwrap();
    assert!(a.mutator().dispatch(bead).is_some());
    assert!(b.mutator().dispatch(bead).is_none(), "the same numbers name another function there");
    a.remove(bead).unwrap();
    assert_eq!(b.core(bead), Ok(Core::new(2)));
}

#[test]
fn a_pinned_mutator_holds_back_reuse_only_while_it_is_held() {
    let engine = inline(10, |_| Ok(code()));
    let bead = engine.register(Core::new(0)).unwrap();
    engine.install(bead, TierId::BASELINE, code()).unwrap();
    let pinned = engine.pin();
    let native = pinned.dispatch(bead).unwrap();
    engine.remove(bead).unwrap();
    assert_ne!(engine.register(Core::new(0)).unwrap().index(), bead.index());
    assert_eq!(native.as_ptr(), addr(one));
    drop(pinned);
    assert_eq!(engine.register(Core::new(0)).unwrap().index(), bead.index());
    assert_eq!(engine.stats().mutators, 1);
    drop(engine.pin());
    assert_eq!(engine.stats().mutators, 1, "parked ones are used again");
}

#[test]
fn an_index_everybody_has_passed_is_found_by_a_bulk_registration() {
    let engine = Engine::builder().capacity(16).inline().build().unwrap();
    let mut m = engine.mutator();
    for bead in beads(&engine, 16) {
        engine.remove(bead).unwrap();
    }
    m.safepoint();
    assert_eq!(engine.register_many((0..16).map(Core::new)).map(|runs| runs.len()), Ok(16));
}

#[test]
fn the_cores_of_a_bulk_registration_keep_their_order_over_reused_and_fresh_indices() {
    let engine = Engine::builder().capacity(16).inline().build().unwrap();
    for bead in beads(&engine, 4) {
        engine.remove(bead).unwrap();
    }
    let runs = engine.register_many((0..7).map(Core::new)).unwrap();
    let cores: Vec<_> = runs.iter().map(|bead| engine.core(bead).unwrap().get()).collect();
    assert_eq!(cores, [0, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_bulk_registration_that_is_refused_uses_up_no_generation() {
    let engine = Engine::builder().capacity(2).inline().build().unwrap();
    let old = beads(&engine, 2)[1];
    engine.remove(old).unwrap();
    for _ in 0..=MAX_GENERATION {
        assert!(engine.register_many((0..2).map(Core::new)).is_err());
    }
    let new = engine.register(Core::new(0)).unwrap();
    assert_eq!((new.index(), new.generation().get()), (old.index(), 2));
}

#[test]
fn the_callback_is_not_called_when_there_is_no_code_to_take_back() {
    let heard = Arc::new(AtomicUsize::new(0));
    let counted = heard.clone();
    let engine = inline(10, |_| Ok(code()));
    let info = BeadInfo::new().on_invalidate(move |_, _| _ = counted.fetch_add(1, SeqCst));
    let bead = engine.register_with(Core::new(0), &info).unwrap();
    engine.invalidate(bead).unwrap();
    assert_eq!(heard.load(SeqCst), 0);
    engine.install(bead, TierId::BASELINE, code()).unwrap();
    engine.invalidate(bead).unwrap();
    assert_eq!(heard.load(SeqCst), 1);
}

#[test]
fn a_function_is_live_while_another_thread_sets_its_core_to_zero() {
    const FUNCTIONS: usize = if cfg!(debug_assertions) { 1 << 14 } else { 1 << 18 };
    let engine = Engine::builder().capacity(FUNCTIONS).inline().build().unwrap();
    // Of none of them anything was asked yet.
    let beads: Vec<_> = engine.register_many((1..FUNCTIONS + 1).map(Core::new)).unwrap().iter().collect();
    let (set, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (number, &bead) in beads.iter().enumerate() {
                set.store(number, SeqCst);
                assert_eq!(engine.set_core(bead, Core::ZERO), Ok(()));
            }
            over.store(true, SeqCst);
        });
        while !over.load(SeqCst) {
            assert!(engine.is_live(beads[set.load(SeqCst)]));
        }
    });
}
