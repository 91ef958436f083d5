//! What ends leaves nothing behind, wherever it was: owners, pins, held code. And code that is in use is not taken for cold.

#![allow(unsafe_code, reason = "promises that an address was forgotten")]

mod common;
use beadwork::*;
use common::*;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const T1: TierId = TierId::BASELINE;
const T2: TierId = TierId::new(2).unwrap();

/// Notes which tokens came back. Unlike a boxed owner, a token has nobody else who would free it.
#[derive(Default)]
struct Tokens(Mutex<Vec<u32>>);

impl Reclaim for Tokens {
    fn reclaim(&self, tokens: &[u32]) {
        self.0.lock().unwrap().extend(tokens);
    }
}

#[test]
fn the_end_of_an_engine_gives_every_token_back_wherever_its_code_is() {
    const FUNCTIONS: usize = 3 * 4_096;
    let tokens = Arc::new(Tokens::default());
    let mut given = 0..;
    let mut owned = || {
        let token = given.next().unwrap_or_default();
        code().owner(CodeOwner::token(tokens.clone(), token)).with_bytes(16)
    };
    let engine = Engine::builder()
        .capacity(1 << 14)
        .inline()
        .deopt(TieredDeopt::default())
        .tier(Tier::new(trivial()).policy(Manual))
        .tier(Tier::new(trivial()).policy(Manual))
        .build()
        .unwrap();
    let all = beads(&engine, FUNCTIONS);
    let m = engine.mutator();
    // Running, at both ends and between.
    for at in [0, 4_095, 4_096, 8_191, 8_192, FUNCTIONS - 1] {
        engine.install(all[at], T1, owned()).unwrap();
    }
    // Held for a revert, below the code that runs.
    engine.install(all[1], T1, owned()).unwrap();
    engine.install(all[1], T2, owned()).unwrap();
    assert_eq!(engine.stats().deopts.held, 1);
    // Retired, and held back by the mutator.
    engine.install(all[2], T1, owned()).unwrap();
    engine.invalidate(all[2]).unwrap();
    assert_eq!(engine.stats().retired, 1);
    // Leased and retired.
    engine.install(all[3], T1, owned()).unwrap();
    let lease = engine.lease(all[3]).unwrap();
    engine.invalidate(all[3]).unwrap();
    assert!(tokens.0.lock().unwrap().is_empty());
    drop((m, lease, engine));
    let mut back = tokens.0.lock().unwrap().clone();
    back.sort_unstable();
    assert_eq!(back, (0..10).collect::<Vec<_>>());
}

/// A compile that names this callee.
type Names = fn(&mut Job<'_>, Bead) -> Result<CompiledCode, CompileError>;

#[test]
fn an_index_that_a_job_named_in_vain_is_used_again() {
    // Each names the callee, and no code comes of it that would embed it.
    let named: [Names; 5] = [
        |job, callee| {
            job.slot(callee)?;
            Err(CompileError::failed("after it named one"))
        },
        |job, callee| {
            job.slot(callee)?;
            Ok(CompiledCode::new(std::ptr::null()))
        },
        |job, callee| {
            job.slot(callee)?;
            panic!("after it named one");
        },
        |_, callee| Ok(CompiledCode::new(std::ptr::null()).embeds(callee)),
        // Two, one of which was never there.
        |_, callee| Ok(code().embeds(callee).embeds(Bead::from_bits(callee.to_bits() + 1).unwrap_or(callee))),
    ];
    for (number, name) in named.into_iter().enumerate() {
        let callee_of = Arc::new(Mutex::new(None));
        let inner = callee_of.clone();
        let backend = FnBackend::new(move |job: &mut Job<'_>| {
            let callee = *inner.lock().unwrap();
            callee.map_or(Err(CompileError::Unfinished), |callee| name(job, callee))
        });
        let engine = Engine::builder().capacity(2).inline().tier(Tier::new(backend).policy(Manual)).build();
        let engine = engine.unwrap();
        let all = beads(&engine, 2);
        *callee_of.lock().unwrap() = Some(all[1]);
        assert!(engine.compile_now(all[0], T1, LONG).is_err(), "{number}");
        engine.remove(all[1]).unwrap();
        let next = engine.register(Core::new(9));
        assert_eq!(next.map(Bead::index), Ok(all[1].index()), "{number}");
    }
}

#[test]
fn asking_for_the_slot_of_a_function_that_is_gone_keeps_its_index_from_nobody() {
    let callee_of = Arc::new(Mutex::new(None));
    let inner = callee_of.clone();
    let backend = FnBackend::new(move |job: &mut Job<'_>| {
        let callee = inner.lock().unwrap().unwrap_or(job.bead());
        job.slot(callee)?;
        Ok(code())
    });
    let engine =
        Engine::builder().capacity(2).inline().tier(Tier::new(backend).policy(Manual)).build().unwrap();
    let all = beads(&engine, 2);
    // It has a slot, which nobody knows any more.
    engine.slot(all[1]).unwrap();
    // SAFETY: the address was dropped at once.
    unsafe { engine.release_slot(all[1]) };
    engine.remove(all[1]).unwrap();
    assert!(engine.slot(all[1]).is_err());
    *callee_of.lock().unwrap() = Some(all[1]);
    assert!(engine.compile_now(all[0], T1, LONG).is_err());
    assert_eq!(engine.register(Core::new(9)).map(Bead::index), Ok(all[1].index()));
}

#[test]
fn taking_one_version_back_takes_the_baseline_held_below_it_and_another_version_takes_nothing() {
    let mut rig = rig::Rig::new(&[10, 100], |b| b);
    rig.compile(T1);
    let optimized = rig.compile(T2);
    assert_eq!(rig.engine.invalidate_version(rig.bead, optimized + 1), Ok(false));
    assert_eq!((rig.tier(), rig.stats().held), (T2, 1));
    assert_eq!(rig.engine.invalidate_version(rig.bead, optimized), Ok(true));
    assert_eq!(rig.stats().held, 0);
    rig.m.safepoint();
    rig.engine.reclaim();
    assert_eq!(rig.alive.count(), 0);
}

#[test]
fn a_reload_takes_the_baseline_held_for_a_revert_too() {
    let mut rig = rig::Rig::new(&[10, 100], |b| b);
    rig.compile(T1);
    rig.compile(T2);
    assert_eq!(rig.stats().held, 1);
    assert_eq!(rig.engine.reload(rig.bead), Ok(Reloaded::Queued(T2)));
    assert_eq!(rig.stats().held, 0, "code of the old source");
    rig.m.safepoint();
    rig.engine.reclaim();
    assert_eq!(rig.alive.count(), 0);
}

#[test]
fn a_loop_whose_time_came_while_higher_code_ran_is_entered_again_after_a_revert() {
    let rig = rig::Rig::new(&[10, 100], |b| b);
    let with_loop = |entry| code().osr(1, entry);
    rig.engine.install(rig.bead, T1, with_loop(addr(one))).unwrap();
    let rounds = rig.engine.osr_failed(rig.bead, 1).unwrap();
    let optimized = rig.engine.install(rig.bead, T2, with_loop(addr(two))).unwrap();
    let answered = || rig.m.osr_entry(rig.bead, 1).map(|code| code.as_ptr());
    assert_eq!(answered(), None);
    assert!((0..=rounds).any(|_| rig.m.back_edge(rig.bead, 1).is_some()));
    assert_eq!(answered(), Some(addr(two)));
    let bailout = BailoutInfo::new(optimized).guard(7);
    assert_eq!(rig.engine.bailout(rig.bead, bailout), Ok(rig::REVERT_AT_ONCE));
    assert_eq!(
        answered(),
        Some(addr(one)),
        "what was held was put aside while the loop was not to be entered"
    );
}

#[test]
fn a_bailout_that_its_policy_was_too_slow_for_does_not_count() {
    let replaced = Arc::new(Mutex::new(None::<(Engine, Bead)>));
    let policy = {
        let replaced = replaced.clone();
        move |_: &DeoptHistory| {
            if let Some((engine, bead)) = replaced.lock().unwrap().take() {
                engine.install(bead, T1, code()).unwrap();
            }
            Recovery::Recompile
        }
    };
    let builder = Engine::builder().capacity(16).inline().deopt(policy);
    let engine = builder.tier(Tier::new(trivial()).policy(Manual)).build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    let bail = || {
        let version = engine.compile_now(bead, T1, LONG).unwrap();
        engine.bailout(bead, BailoutInfo::new(version).guard(1)).unwrap()
    };
    assert_eq!(bail(), rig::RECOMPILE);
    *replaced.lock().unwrap() = Some((engine.clone(), bead));
    assert_eq!(bail(), DeoptDecision::Outdated);
    assert_eq!(bail(), rig::pause(DEOPT_REENTRY_CALLS), "the second, and not the third");
    assert_eq!(engine.deopts(bead).map(|history| history.bailouts), Some(2));
}

#[test]
fn code_that_is_not_installed_uses_up_no_room_for_loop_entries() {
    // More than there is room for.
    const TIMES: usize = 5_000;
    let given = Arc::new(Mutex::new(None::<Engine>));
    let inner = given.clone();
    let backend = FnBackend::new(move |job: &mut Job<'_>| {
        if let Some(engine) = &*inner.lock().unwrap() {
            engine.invalidate(job.bead())?;
        }
        Ok(code().osr(1, addr(one)))
    });
    let builder = Engine::builder().capacity(16).inline();
    let engine = builder.tier(Tier::new(backend).policy(Manual)).build().unwrap();
    let all = beads(&engine, 2);
    engine.remove(all[1]).unwrap();
    for _ in 0..TIMES {
        assert!(engine.install(all[1], T1, code().osr(1, addr(one))).is_err());
    }
    *given.lock().unwrap() = Some(engine.clone());
    for _ in 0..TIMES {
        assert!(engine.compile_now(all[0], T1, LONG).is_err(), "taken back while it is compiled");
    }
    *given.lock().unwrap() = None;
    engine.compile_now(all[0], T1, LONG).unwrap();
    assert_eq!((engine.osr_entries(all[0]), engine.stats().loop_tables_refused), (Ok(1), 0));
}

#[test]
fn code_cannot_embed_a_function_that_is_gone_and_never_had_a_slot() {
    let engine = inline(10, |_| Ok(code()));
    let all = beads(&engine, 2);
    engine.remove(all[1]).unwrap();
    assert!(engine.install(all[0], T1, code().embeds(all[1])).is_err());
    assert_eq!(
        engine.register(Core::ZERO).map(Bead::index),
        Ok(all[1].index()),
        "nor is it pinned by the try"
    );
}

#[test]
fn retired_code_is_freed_when_who_held_it_back_goes() {
    let engine = Engine::builder().capacity(64).workers(1).tier(Tier::new(trivial()).policy(Manual));
    let engine = engine.build().unwrap();
    let (alive, all) = (Alive::default(), beads(&engine, 2));
    // Since there was a request, workers are who frees.
    engine.compile_now(all[0], T1, LONG).unwrap();
    engine.drain(LONG).unwrap();
    let retired = || {
        engine.install(all[1], T1, alive.code()).unwrap();
        engine.invalidate(all[1]).unwrap();
        engine.drain(LONG).unwrap();
        assert_eq!(alive.count(), 1);
    };
    let mutator = engine.mutator();
    retired();
    drop(mutator);
    eventually("nobody frees what the last mutator held back", || alive.count() == 0);
    let visit = engine.pin();
    retired();
    drop(visit);
    eventually("nobody frees what the last visit held back", || alive.count() == 0);
}

#[test]
fn where_nothing_was_ever_asked_for_code_that_is_taken_back_is_freed_at_once() {
    let engine = Engine::builder().capacity(64).workers(1).tier(Tier::new(trivial()).policy(Manual));
    let engine = engine.build().unwrap();
    let (alive, bead) = (Alive::default(), engine.register(Core::ZERO).unwrap());
    let takes: [fn(&Engine, Bead); 4] = [
        |engine, bead| engine.invalidate(bead).unwrap(),
        |engine, bead| engine.set_tier_cap(bead, TierId::INTERPRETER).unwrap(),
        |engine, bead| {
            engine.set_tier_cap(bead, TierId::MAX).unwrap();
            engine.install(bead, T1, code()).map(drop).unwrap();
        },
        |engine, bead| engine.blacklist(bead).unwrap(),
    ];
    for take in takes {
        let _ = engine.install(bead, T1, alive.code());
        take(&engine, bead);
        assert_eq!(alive.count(), 0);
    }
}

#[test]
fn a_visit_goes_by_the_name_of_its_own_thread() {
    let engine = Engine::builder().capacity(64).inline().build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    // Leaves something behind that later visits use.
    drop(engine.pin());
    let named = std::thread::Builder::new().name("visitor".to_string());
    let on = engine.clone();
    let visit = named.spawn(move || {
        let _pin = on.pin();
        on.install(bead, T1, Alive::default().code()).unwrap();
        on.invalidate(bead).unwrap();
        on.laggards().iter().map(|laggard| laggard.name.to_string()).collect::<Vec<_>>()
    });
    assert_eq!(visit.unwrap().join().unwrap(), ["visitor"]);
}

/// An inline engine of two tiers that is short of memory from seven eighths of the limit on, and its clock.
fn short_of_memory(limit: u64) -> (Engine, Time) {
    let time = Time::default();
    let tier = || {
        // Code without an owner has no size.
        let backend = |_: &mut Job<'_>| Ok(code().owner(CodeOwner::boxed(())).with_bytes(1_024));
        Tier::new(FnBackend::new(backend)).policy(Manual)
    };
    let builder = Engine::builder()
        .capacity(64)
        .inline()
        .clock(time.clock())
        .code_limit(limit)
        .deopt(TieredDeopt::default());
    let engine = builder.evict_after(Duration::from_secs(1)).tier(tier()).tier(tier()).build().unwrap();
    (engine, time)
}

/// Looks for cold code many times, long enough apart.
fn sweep(engine: &Engine, time: &Time) {
    for round in 1..20 {
        time.set(round * 1_000);
        engine.run_pending(usize::MAX);
    }
}

#[test]
fn code_that_may_be_called_through_its_slot_is_not_taken_for_cold() {
    let (engine, time) = short_of_memory(1_024);
    let all = beads(&engine, 2);
    all.iter().for_each(|&bead| _ = engine.compile_now(bead, T1, LONG).unwrap());
    engine.slot(all[0]).unwrap();
    sweep(&engine, &time);
    assert_eq!([engine.tier(all[0]), engine.tier(all[1])], [Ok(T1), Ok(TierId::INTERPRETER)]);
}

#[test]
fn code_that_waits_for_a_higher_tier_is_not_taken_for_cold() {
    let (engine, time) = short_of_memory(1_024);
    let all = beads(&engine, 2);
    all.iter().for_each(|&bead| _ = engine.compile_now(bead, T1, LONG).unwrap());
    let pause = engine.pause();
    engine.promote(all[0], T2).unwrap();
    sweep(&engine, &time);
    assert_eq!([engine.tier(all[0]), engine.tier(all[1])], [Ok(T1), Ok(TierId::INTERPRETER)]);
    drop(pause);
    engine.drain(LONG).unwrap();
    assert_eq!(engine.tier(all[0]), Ok(T2));
}

#[test]
fn code_that_only_waits_for_a_revert_goes_before_code_that_runs() {
    let (engine, time) = short_of_memory(2_048);
    let bead = engine.register(Core::ZERO).unwrap();
    engine.compile_now(bead, T1, LONG).unwrap();
    engine.compile_now(bead, T2, LONG).unwrap();
    assert_eq!(engine.stats().deopts.held, 1);
    sweep(&engine, &time);
    assert_eq!((engine.tier(bead), engine.stats().deopts.held, engine.stats().evicted), (Ok(T2), 0, 0));
}

#[test]
fn a_call_that_finds_too_much_retired_code_has_a_worker_look_at_it() {
    let (alive, told) = (Alive::default(), Arc::new(AtomicUsize::new(0)));
    let tell = told.clone();
    let engine = Engine::builder()
        .capacity(64)
        .workers(1)
        .retired_limit(16)
        .tier(Tier::new(trivial()).policy(Threshold::new(10)))
        .on_event(move |event| {
            _ = tell.fetch_add(usize::from(matches!(event, Event::HeldBack { .. })), SeqCst)
        })
        .build()
        .unwrap();
    let all = beads(&engine, 3);
    engine.compile_now(all[0], T1, LONG).unwrap();
    engine.drain(LONG).unwrap();
    let (_stuck, m) = (engine.mutator(), engine.mutator());
    // Not so much that somebody looks for that reason alone.
    (0..3).for_each(|_| _ = engine.install(all[1], T1, alive.code()).unwrap());
    engine.drain(LONG).unwrap();
    assert_eq!(told.load(SeqCst), 0);
    m.tick(all[2]);
    eventually("too much waits, and nobody looks", || told.load(SeqCst) == 1);
}
