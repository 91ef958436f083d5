//! Deliveries come in the order of versions; a collector's pause and a look at a core exclude each other; snapshots go with
//! their requests.

use beadwork::{Bead, Core, Delivery, Engine, FnBackend, Job, Manual, Threshold, Tier, TierId};
use beadwork_loom_tests::*;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::thread;

const T1: TierId = TierId::BASELINE;

/// What the VM's tables say after everything was delivered: the version of the code there is.
fn table(engine: &Engine) -> Option<u32> {
    let (mut last, mut have) = (0, None);
    engine.deliver(|delivery| match delivery {
        Delivery::Installed { version, .. } => {
            assert!(last < version, "{version} after {last}");
            (last, have) = (version, Some(version));
        }
        Delivery::Invalidated { .. } => have = None,
        other => panic!("{other:?}"),
    });
    have
}

fn delivering() -> (Engine, Bead) {
    let tier = Tier::new(FnBackend::new(|_| Ok(at(1))));
    match Engine::builder().capacity(2).workers(1).tier(tier).delivery(true).build() {
        Ok(engine) => {
            let bead = bead(&engine);
            (engine, bead)
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn what_is_delivered_last_is_what_happened_last() {
    for swapped in [false, true] {
        model(move || {
            let (engine, bead) = delivering();
            engine.promote(bead, T1).unwrap();
            let work = |engine: &Engine| _ = engine.work_if_started();
            let take = move |engine: &Engine| engine.invalidate(bead).unwrap();
            let other = {
                let engine = engine.clone();
                thread::spawn(move || if swapped { work(&engine) } else { take(&engine) })
            };
            if swapped {
                take(&engine)
            } else {
                work(&engine)
            }
            other.join().unwrap();
            let there = engine.tier(bead).unwrap() == T1;
            assert_eq!(table(&engine).is_some(), there);
        });
    }
}

#[test]
fn of_two_installs_the_one_that_stays_is_delivered_last() {
    model(|| {
        let (engine, bead) = delivering();
        let other = {
            let engine = engine.clone();
            thread::spawn(move || engine.install(bead, T1, at(2)).unwrap())
        };
        engine.install(bead, T1, at(3)).unwrap();
        other.join().unwrap();
        assert_eq!(table(&engine), Some(engine.version(bead).unwrap()));
    });
}

/// An object of the VM's heap: loom reports a look at it while it moves.
struct Object(UnsafeCell<usize>);

// SAFETY: every access goes through loom, which reports those that race; finding them is what the models are for.
#[allow(unsafe_code)]
unsafe impl Send for Object {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Object {}

#[test]
fn no_job_looks_at_an_object_while_a_collector_moves_it() {
    for swapped in [false, true] {
        model(move || {
            let object = Arc::new(Object(UnsafeCell::new(1)));
            let looked = object.clone();
            let engine = engine(1, move |job| {
                job.with_core(|core| {
                    // SAFETY: loom checks that no write happens at the same time.
                    #[allow(unsafe_code)]
                    looked.0.with(|at| assert_eq!(unsafe { *at }, core.get(), "not where its core says"));
                })?;
                Ok(at(1))
            });
            let bead = bead(&engine);
            engine.promote(bead, T1).unwrap();
            let work = |engine: &Engine| _ = engine.work_if_started();
            let collect = move |engine: &Engine| {
                let _pause = engine.gc_pause().unwrap();
                // SAFETY: as above.
                #[allow(unsafe_code)]
                object.0.with_mut(|at| unsafe { *at = 7 });
                engine.set_core(bead, Core::new(7)).unwrap();
            };
            if swapped {
                let other = thread::spawn({
                    let engine = engine.clone();
                    move || collect(&engine)
                });
                work(&engine);
                other.join().unwrap();
            } else {
                let other = thread::spawn({
                    let engine = engine.clone();
                    move || work(&engine)
                });
                collect(&engine);
                other.join().unwrap();
            }
            assert_eq!(engine.tier(bead), Ok(T1));
            assert_eq!(engine.stats().failed, 0);
        });
    }
}

/// An engine that counts compiles, and of them those without a snapshot.
fn noting() -> (Engine, Bead, Arc<[AtomicUsize; 2]>) {
    let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let counted = counts.clone();
    let backend = FnBackend::new(move |job| {
        counted[0].fetch_add(1, Relaxed);
        counted[1].fetch_add(usize::from(job.snapshot::<u8>().is_none()), Relaxed);
        Ok(at(1))
    });
    let tier = Tier::new(backend).policy(Threshold::new(1));
    match Engine::builder().capacity(2).workers(1).tier(tier).snapshot(|_, _| Some(1u8)).build() {
        Ok(engine) => {
            let bead = bead(&engine);
            (engine, bead, counts)
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_compile_finds_the_snapshot_of_its_request_whoever_insists_or_helps_meanwhile() {
    for swapped in [false, true] {
        model(move || {
            let (engine, bead, counts) = noting();
            // Merely hot.
            engine.mutator().tick(bead);
            let work = |engine: &Engine| _ = engine.run_pending(1);
            let insist = move |engine: &Engine| engine.promote(bead, T1).unwrap();
            let other = {
                let engine = engine.clone();
                thread::spawn(move || if swapped { work(&engine) } else { insist(&engine) })
            };
            if swapped {
                insist(&engine)
            } else {
                work(&engine)
            }
            other.join().unwrap();
            while engine.work_if_started() {}
            assert_eq!([counts[0].load(Relaxed), counts[1].load(Relaxed)], [1, 0]);
        });
    }
}

#[test]
fn a_compile_finds_the_snapshot_of_a_request_that_is_just_being_made() {
    for swapped in [false, true] {
        model(move || {
            let (engine, bead, counts) = noting();
            // Its token stays, and serves the next request as soon as that is made.
            engine.promote(bead, T1).unwrap();
            engine.invalidate(bead).unwrap();
            let work = |engine: &Engine| _ = engine.run_pending(1);
            let ask = move |engine: &Engine| engine.promote(bead, T1).unwrap();
            let other = {
                let engine = engine.clone();
                thread::spawn(move || if swapped { work(&engine) } else { ask(&engine) })
            };
            if swapped {
                ask(&engine)
            } else {
                work(&engine)
            }
            other.join().unwrap();
            while engine.work_if_started() {}
            assert_eq!([counts[0].load(Relaxed), counts[1].load(Relaxed)], [1, 0]);
        });
    }
}

#[test]
fn a_request_that_is_lowered_as_the_compile_before_it_ends_comes_with_its_snapshot() {
    const T2: TierId = TierId::new(2).unwrap();
    const T3: TierId = TierId::new(3).unwrap();
    both_ways(
        || {
            let without = Arc::new(AtomicUsize::new(0));
            let asks: std::sync::Arc<std::sync::Mutex<Option<Engine>>> = Default::default();
            let tier = || {
                let (without, asks) = (without.clone(), asks.clone());
                let backend = FnBackend::new(move |job: &mut Job<'_>| {
                    without.fetch_add(usize::from(job.snapshot::<u8>().is_none()), Relaxed);
                    let engine = asks.lock().unwrap().take();
                    if let Some(engine) = engine {
                        engine.promote(job.bead(), T3).unwrap();
                    }
                    Ok(at(1))
                });
                Tier::new(backend).policy(Manual)
            };
            let builder = Engine::builder().capacity(2).workers(1).snapshot(|_, _| Some(1u8));
            let engine = builder.tier(tier()).tier(tier()).tier(tier()).build().unwrap();
            let bead = bead(&engine);
            engine.promote(bead, T1).unwrap();
            *asks.lock().unwrap() = Some(engine.clone());
            (engine, bead, without)
        },
        |(engine, ..)| _ = engine.run_pending(2),
        |(engine, bead, _)| engine.set_tier_cap(*bead, T2).unwrap(),
        |(engine, _, without)| {
            while engine.work_if_started() {}
            assert_eq!(without.load(Relaxed), 0, "compiled without what was noted");
        },
    );
}
