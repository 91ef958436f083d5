//! On-stack replacement: loops are counted, their native entries asked for, found, and taken back with the code.

mod common;
use beadwork::*;
use common::*;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;

const T1: TierId = TierId::BASELINE;
const T2: TierId = TierId::new(2).unwrap();
const SITE: u64 = 0xfeed_0001;

/// The entry the backends here give for a loop; never called.
fn entry_of(site: u64) -> *const u8 {
    std::ptr::without_provenance(0x10_0000 + site as usize % 0x1000 * 16)
}

/// A backend that gives an entry for every loop asked for.
fn with_entries() -> impl Backend {
    FnBackend::new(|job: &mut Job<'_>| {
        Ok(job.osr_sites().into_iter().fold(code(), |code, site| code.osr(site, entry_of(site))))
    })
}

fn inline_with(backend: impl Backend, threshold: u32) -> Engine {
    let tier = Tier::new(backend).policy(Threshold::new(threshold));
    Engine::builder().capacity(1 << 12).inline().tier(tier).build().unwrap()
}

/// Iterations until `back_edge` answers an entry, compiling in between.
fn iterations(engine: &Engine, m: &Mutator, bead: Bead, site: u64, most: u32) -> Option<u32> {
    (1..=most).find(|_| {
        engine.run_pending(usize::MAX);
        m.back_edge(bead, site).is_some()
    })
}

#[test]
fn a_long_loop_asks_for_its_entry_and_finds_it() {
    let engine = inline_with(with_entries(), 100);
    let (bead, m) = (engine.register(Core::ZERO).unwrap(), engine.mutator());
    let found = iterations(&engine, &m, bead, SITE, 10_000).unwrap();
    // A hundred calls' worth, and what the loop counts before it asks again.
    assert!((100 * ITERATIONS_PER_CALL..102 * ITERATIONS_PER_CALL + 2).contains(&found), "{found}");
    assert_eq!(m.back_edge(bead, SITE).unwrap().as_ptr(), entry_of(SITE));
    assert_eq!(m.osr_entry(bead, SITE).unwrap().as_ptr(), entry_of(SITE));
    assert_eq!(engine.osr_entries(bead), Ok(1));
    assert!(m.dispatch(bead).is_some(), "code for calls came with it");
}

#[test]
fn a_short_loop_asks_for_nothing() {
    let engine = inline_with(with_entries(), 1);
    let (bead, m) = (engine.register(Core::ZERO).unwrap(), engine.mutator());
    assert!((0..60).all(|_| m.back_edge(bead, SITE).is_none()));
    assert_eq!(engine.state(bead).unwrap().pending, None);
}

#[test]
fn p24_each_loop_is_counted_for_itself_and_entered_at_its_own_entry() {
    let engine = inline_with(with_entries(), 1_000);
    let (bead, m) = (engine.register(Core::ZERO).unwrap(), engine.mutator());
    // A hundred loops share what would be enough for one.
    for _ in 0..100 {
        assert!((0..100).all(|site| m.back_edge(bead, site).is_none()));
    }
    assert_eq!(engine.state(bead).unwrap().pending, None);
    for site in [7, 8] {
        iterations(&engine, &m, bead, site, 20_000).unwrap();
    }
    assert_eq!(m.osr_entry(bead, 7).unwrap().as_ptr(), entry_of(7), "a later compile keeps earlier loops");
    assert_eq!(m.osr_entry(bead, 8).unwrap().as_ptr(), entry_of(8));
    assert!(m.osr_entry(bead, 9).is_none());
}

#[test]
fn a_loop_of_a_compiled_function_asks_for_its_tier_anew() {
    let engine = inline_with(with_entries(), 100);
    let (bead, m) = (engine.register(Core::ZERO).unwrap(), engine.mutator());
    // Compiled for its calls, while another activation goes on in its loop.
    let version = engine.compile_now(bead, T1, LONG).unwrap();
    assert!(m.osr_entry(bead, SITE).is_none());
    assert!(iterations(&engine, &m, bead, SITE, 10_000).is_some());
    assert!(engine.version(bead).unwrap() > version);
}

#[test]
fn a_backend_without_entries_is_asked_at_doubling_distance() {
    let compiles = Arc::new(AtomicU32::new(0));
    let count = compiles.clone();
    let backend = FnBackend::new(move |_: &mut Job<'_>| {
        count.fetch_add(1, SeqCst);
        Ok(code())
    });
    let engine = inline_with(backend, 100);
    let (bead, m) = (engine.register(Core::ZERO).unwrap(), engine.mutator());
    let mut at = Vec::new();
    for iteration in 0..1_000_000 {
        let before = compiles.load(SeqCst);
        assert!(m.back_edge(bead, SITE).is_none());
        engine.run_pending(usize::MAX);
        if compiles.load(SeqCst) > before {
            at.push(iteration);
        }
    }
    assert!((5..=8).contains(&at.len()), "{at:?}");
    let gaps: Vec<_> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.windows(2).all(|pair| pair[1] > pair[0] * 3 / 2), "{gaps:?}");
    assert_eq!(engine.osr_failures(bead, SITE), compiles.load(SeqCst));
}

#[test]
fn an_entry_that_fails_is_suppressed_twice_as_long_each_time_and_others_are_untouched() {
    let engine = inline_with(with_entries(), 100);
    let (bead, m) = (engine.register(Core::ZERO).unwrap(), engine.mutator());
    for site in [1, 2] {
        iterations(&engine, &m, bead, site, 20_000).unwrap();
    }
    let compiles = engine.stats().installed;
    for expected in [8_000, 16_000, 32_000] {
        assert_eq!(engine.osr_failed(bead, 1), Ok(expected));
        assert!(m.back_edge(bead, 1).is_none());
        assert!(m.osr_entry(bead, 1).is_none());
        assert!(m.back_edge(bead, 2).is_some());
        let waited = 1 + iterations(&engine, &m, bead, 1, 100_000).unwrap();
        // What was counted before the failure and not told yet counts too; the thread asks in steps.
        assert!((expected - 64..expected + 64 + 2).contains(&waited), "{waited} for {expected}");
    }
    assert_eq!(engine.stats().installed, compiles, "the entry was there all the time");
    // A recompile does not bring it back early.
    engine.osr_failed(bead, 1).unwrap();
    engine.install(bead, T1, code().osr(1, entry_of(1)).osr(2, entry_of(2))).unwrap();
    assert!(m.osr_entry(bead, 1).is_none() && m.osr_entry(bead, 2).is_some());
}

#[test]
fn first_install_swap_and_tier_up_all_carry_a_table_and_plain_code_retires_it() {
    let backend = |site: u64| FnBackend::new(move |_: &mut Job<'_>| Ok(code().osr(site, entry_of(site))));
    let engine = Engine::builder().inline().tier(Tier::new(backend(1))).tier(Tier::new(backend(2))).build();
    let engine = engine.unwrap();
    let (bead, m) = (engine.register(Core::ZERO).unwrap(), engine.mutator());
    let sites = || [1, 2, 3].map(|site| m.osr_entry(bead, site).is_some());
    engine.compile_now(bead, T1, LONG).unwrap();
    assert_eq!(sites(), [true, false, false]);
    engine.compile_now(bead, T2, LONG).unwrap();
    assert_eq!(sites(), [false, true, false]);
    engine.install(bead, T1, code().osr(3, entry_of(3))).unwrap();
    assert_eq!(sites(), [false, false, true]);
    engine.install(bead, T1, code()).unwrap();
    assert_eq!(sites(), [false; 3]);
    assert_eq!(engine.osr_entries(bead), Ok(0));
}

#[test]
fn taking_code_back_takes_its_entries_back() {
    let take: [fn(&Engine, Bead); 5] = [
        |engine, bead| engine.invalidate(bead).unwrap(),
        |engine, bead| engine.demote(bead, TierId::INTERPRETER).unwrap(),
        |engine, bead| engine.blacklist(bead).unwrap(),
        |engine, bead| engine.set_tier_cap(bead, TierId::INTERPRETER).unwrap(),
        |engine, bead| {
            engine.remove(bead).unwrap();
        },
    ];
    let engine = inline_with(with_entries(), 100);
    let mut m = engine.mutator();
    for take in take {
        let bead = engine.register(Core::ZERO).unwrap();
        engine.install(bead, T1, code().osr(SITE, entry_of(SITE))).unwrap();
        assert!(m.back_edge(bead, SITE).is_some());
        take(&engine, bead);
        assert!(m.back_edge(bead, SITE).is_none() && m.osr_entry(bead, SITE).is_none());
        m.safepoint();
    }
}

#[test]
fn p14_a_reused_index_has_no_entries_and_no_counts_of_the_function_before() {
    let engine = inline_with(with_entries(), 100);
    let mut m = engine.mutator();
    let old = engine.register(Core::ZERO).unwrap();
    iterations(&engine, &m, old, SITE, 10_000).unwrap();
    engine.osr_failed(old, SITE).unwrap();
    engine.remove(old).unwrap();
    m.safepoint();
    let new = engine.register(Core::ZERO).unwrap();
    assert_eq!(new.index(), old.index());
    assert!(m.osr_entry(new, SITE).is_none());
    assert_eq!(engine.osr_failures(new, SITE), 0);
    let found = iterations(&engine, &m, new, SITE, 10_000).unwrap();
    assert!(found >= 100 * ITERATIONS_PER_CALL);
    assert!(m.osr_entry(old, SITE).is_none(), "the old handle sees nothing");
    assert!((0..100_000).all(|_| m.back_edge(old, SITE).is_none()));
}

#[test]
fn loop_entries_that_cannot_be_published_are_refused_by_name_and_the_owner_dropped() {
    let (engine, alive) = (inline_with(trivial(), 1), Alive::default());
    let bead = engine.register(Core::ZERO).unwrap();
    let null = engine.install(bead, T1, alive.code().osr(1, std::ptr::null()));
    assert_eq!(null, Err(InstallError::Code(CompileError::NullEntry)));
    let wide = engine.install(bead, T1, alive.code().osr(1, std::ptr::without_provenance(1 << 50)));
    assert_eq!(wide, Err(InstallError::Code(CompileError::EntryTooWide { entry: 1 << 50 })));
    let many = (0..70_000).fold(alive.code(), |code, site| code.osr(site, entry_of(site)));
    let many = engine.install(bead, T1, many);
    assert_eq!(many, Err(InstallError::Code(CompileError::TooManyLoopEntries { given: 70_000 })));
    assert_eq!((alive.count(), engine.tier(bead)), (0, Ok(TierId::INTERPRETER)));
}

#[test]
fn code_whose_table_finds_no_room_is_installed_without_and_counted() {
    let engine = Engine::builder().capacity(16).inline().tier(Tier::new(trivial())).build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    let big = || (0..4_000).fold(code(), |code, site| code.osr(site, entry_of(site)));
    let mut m = engine.mutator();
    engine.install(bead, T1, big()).unwrap();
    engine.install(bead, T1, big()).unwrap();
    assert_eq!((engine.stats().loop_tables_refused, engine.osr_entries(bead)), (1, Ok(0)));
    m.safepoint();
    engine.install(bead, T1, big()).unwrap();
    assert_eq!((engine.stats().loop_tables_refused, engine.osr_entries(bead)), (1, Ok(4_000)));
}

#[test]
fn a_loop_request_is_as_urgent_as_the_baseline_even_with_one_worker() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let backend = |order: &Arc<Mutex<Vec<_>>>| {
        let order = order.clone();
        FnBackend::new(move |job: &mut Job<'_>| {
            order.lock().unwrap().push((job.tier(), job.reason()));
            Ok(code())
        })
    };
    let upper = |activity: &Activity| match activity.iterations {
        0 => Verdict::wait(1_000),
        _ => Verdict::Promote,
    };
    let lower = Tier::new(backend(&order)).policy(Manual).batch(1);
    let tiers =
        Engine::builder().inline().tier(lower).tier(Tier::new(backend(&order)).policy(upper).batch(1));
    let engine = tiers.build().unwrap();
    let (all, m) = (beads(&engine, 100), engine.mutator());
    all[..50].iter().for_each(|&bead| engine.promote(bead, T1).unwrap());
    all[50..80].iter().for_each(|&bead| engine.promote(bead, T2).unwrap());
    assert!((0..100).all(|_| m.back_edge(all[99], SITE).is_none()));
    assert_eq!(engine.run_pending(3), 3);
    let first = order.lock().unwrap().clone();
    assert!(first.contains(&(T2, Reason::Osr)), "{first:?}");
    assert!(first.contains(&(T1, Reason::Asked)), "{first:?}");
}

#[test]
fn loops_of_many_threads_add_up_and_are_compiled_once() {
    let compiles = Arc::new(AtomicUsize::new(0));
    let count = compiles.clone();
    let backend = FnBackend::new(move |job: &mut Job<'_>| {
        count.fetch_add(1, SeqCst);
        Ok(job.osr_sites().into_iter().fold(code(), |code, site| code.osr(site, entry_of(site))))
    });
    let tier = Tier::new(backend).policy(Threshold::new(1_000));
    let engine = Engine::builder().capacity(1 << 10).workers(1).tier(tier).build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let m = engine.mutator();
                while m.back_edge(bead, SITE).is_none() {}
            });
        }
    });
    engine.drain(LONG).unwrap();
    assert_eq!(compiles.load(SeqCst), 1);
}

#[test]
fn probes_beside_installs_and_invalidations_see_entries_of_live_code_or_none() {
    let engine = Engine::builder().capacity(16).inline().tier(Tier::new(trivial())).build().unwrap();
    let all = beads(&engine, 4);
    let (stop, seen) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut m = engine.mutator();
                while !stop.load(SeqCst) {
                    for (n, &bead) in all.iter().enumerate() {
                        for site in 0..8 {
                            if let Some(code) = m.back_edge(bead, site) {
                                // Every entry names its function and its loop.
                                assert_eq!(code.addr(), (0x100_0000 + n as u64 * 0x1000 + site * 16));
                                seen.fetch_add(1, SeqCst);
                            }
                        }
                    }
                    m.safepoint();
                }
            });
        }
        let mut rounds = 0u64;
        while rounds < 20_000 || (seen.load(SeqCst) == 0 && rounds < 100_000_000) {
            let n = rounds as usize % all.len();
            let sites = (0..rounds % 9).map(|site| (site, 0x100_0000 + n * 0x1000 + site as usize * 16));
            let code =
                sites.fold(code(), |code, (site, entry)| code.osr(site, std::ptr::without_provenance(entry)));
            engine.install(all[n], T1, code).unwrap();
            if rounds.is_multiple_of(3) {
                engine.invalidate(all[(n + 1) % 4]).unwrap();
            }
            rounds += 1;
        }
        stop.store(true, SeqCst);
    });
    assert!(seen.load(SeqCst) > 0);
}
