//! Profiles: counters of blocks and call sites, and what is made of them.

#![allow(unsafe_code)]

mod common;
use beadwork::*;
use common::*;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

const T1: TierId = TierId::BASELINE;

fn t2() -> TierId {
    TierId::new(2).unwrap()
}

/// What a compile got and saw.
#[derive(Clone, Debug)]
struct Seen {
    bead: Bead,
    reason: Reason,
    blocks: Option<BlockCounters>,
    sites: Option<CallSites>,
    profile: Option<Profile>,
}

type Log = Arc<Mutex<Vec<Seen>>>;

/// Two tiers; the code of the first counts so many blocks and call sites.
fn profiling(blocks: u32, sites: u32, configure: impl Fn(Tier) -> Tier) -> (Engine, Log) {
    let log = Log::default();
    let tier = |sink: Log, counts: bool| {
        let compile = FnBackend::new(move |job: &mut Job<'_>| {
            let profile = job.profile();
            let (blocks, sites) =
                if counts { (job.block_counters(blocks), job.call_sites(sites)) } else { (None, None) };
            let (bead, reason) = (job.bead(), job.reason());
            sink.lock().unwrap().push(Seen { bead, reason, blocks, sites, profile });
            Ok(code())
        });
        configure(Tier::new(compile).policy(Threshold::new(100)))
    };
    let (first, second) = (tier(log.clone(), true), tier(log.clone(), false));
    let engine = Engine::builder().capacity(64).inline().tier(first).tier(second).build().unwrap();
    (engine, log)
}

fn compiled(engine: &Engine, log: &Log, bead: Bead, tier: TierId) -> Seen {
    engine.promote(bead, tier).unwrap();
    engine.run_pending(usize::MAX);
    log.lock().unwrap().iter().rev().find(|seen| seen.bead == bead).unwrap().clone()
}

/// What emitted code does at the head of a block.
fn native_block(counters: BlockCounters, block: u32, times: u64) {
    // SAFETY: the engine that owns the counters is alive in every test that calls this.
    let cell = unsafe { &*std::ptr::with_exposed_provenance::<AtomicU64>(counters.addr(block).unwrap()) };
    cell.store(cell.load(Relaxed) + times, Relaxed);
}

#[test]
fn what_blocks_count_is_read_by_the_next_tier_and_by_the_vm() {
    let (engine, log) = profiling(3, 0, |tier| tier);
    let bead = engine.register(Core::new(0)).unwrap();
    assert_eq!(engine.profile(bead), Ok(None));
    let first = compiled(&engine, &log, bead, T1);
    assert_eq!(first.profile, None);
    let counters = first.blocks.unwrap();
    assert_eq!((counters.len(), counters.addr(3), counters.addr(0).unwrap() % 8), (3, None, 0));
    for (block, times) in [(0, 100), (1, 90), (2, 10)] {
        native_block(counters, block, times);
    }
    let profile = compiled(&engine, &log, bead, t2()).profile.unwrap();
    assert_eq!(profile.blocks(), [100, 90, 10]);
    assert_eq!(profile.bias(1, 2), Some(0.9));
    assert_eq!(engine.profile(bead), Ok(Some(profile)));
    engine.reset_profile(bead).unwrap();
    assert_eq!(engine.profile(bead).unwrap().unwrap().blocks(), [0; 3]);
}

#[test]
fn counts_outlive_an_invalidation_and_end_with_the_source() {
    let (engine, log) = profiling(2, 0, |tier| tier);
    let bead = engine.register(Core::new(0)).unwrap();
    let counters = compiled(&engine, &log, bead, T1).blocks.unwrap();
    native_block(counters, 1, 7);
    engine.invalidate(bead).unwrap();
    let again = compiled(&engine, &log, bead, T1);
    assert_eq!((again.blocks, again.profile.unwrap().block(1)), (Some(counters), 7));
    assert_eq!(engine.reload(bead), Ok(Reloaded::Queued(T1)));
    assert_eq!(engine.profile(bead).unwrap().unwrap().blocks(), [0, 0]);
}

#[test]
fn counters_of_a_removed_function_are_used_again_only_when_its_code_is_gone() {
    let (engine, log) = profiling(4, 0, |tier| tier);
    let mut m = engine.mutator();
    let old = engine.register(Core::new(0)).unwrap();
    let counters = compiled(&engine, &log, old, T1).blocks.unwrap();
    engine.remove(old).unwrap();
    assert_eq!(engine.profile(old), Err(Stale(old)));
    native_block(counters, 0, 5);
    let register = || engine.register(Core::new(0)).unwrap();
    assert_ne!(compiled(&engine, &log, register(), T1).blocks, Some(counters), "a thread may be in its code");
    m.safepoint();
    native_block(counters, 0, 5);
    engine.reclaim();
    let next = register();
    assert_eq!(compiled(&engine, &log, next, T1).blocks, Some(counters));
    assert_eq!(engine.profile(next).unwrap().unwrap().blocks(), [0; 4]);
}

#[test]
fn leased_code_keeps_its_counters_though_every_mutator_has_passed() {
    let (engine, log) = profiling(4, 0, |tier| tier);
    let mut m = engine.mutator();
    let old = engine.register(Core::new(0)).unwrap();
    let counters = compiled(&engine, &log, old, T1).blocks.unwrap();
    let lease = m.lease(old).unwrap();
    engine.remove(old).unwrap();
    m.safepoint();
    engine.reclaim();
    let register = || engine.register(Core::new(0)).unwrap();
    assert_ne!(compiled(&engine, &log, register(), T1).blocks, Some(counters));
    drop(lease);
    m.safepoint();
    engine.reclaim();
    assert_eq!(compiled(&engine, &log, register(), T1).blocks, Some(counters));
}

#[test]
fn exhausted_counters_are_answered_and_the_function_is_compiled_without() {
    let (engine, log) = profiling(3_000, 0, |tier| tier);
    let beads = beads(&engine, 2);
    assert!(compiled(&engine, &log, beads[0], T1).blocks.is_some());
    assert!(compiled(&engine, &log, beads[1], T1).blocks.is_none());
    assert_eq!(engine.tier(beads[1]), Ok(T1));
    assert_eq!(engine.profile(beads[1]), Ok(None));
}

#[test]
fn a_compile_of_a_function_removed_meanwhile_gets_no_counters_and_leaves_none() {
    let engine_of = Arc::<std::sync::OnceLock<Engine>>::default();
    let inner = engine_of.clone();
    let engine = inline(10, move |job| {
        inner.get().unwrap().remove(job.bead())?;
        assert_eq!((job.block_counters(3), job.call_sites(3), job.profile()), (None, None, None));
        Ok(code())
    });
    assert!(engine_of.set(engine.clone()).is_ok());
    let bead = engine.register(Core::new(0)).unwrap();
    engine.promote(bead, T1).unwrap();
    engine.run_pending(usize::MAX);
    assert!(!engine.is_live(bead));
}

#[test]
fn callees_are_told_most_called_first_and_without_those_that_are_gone() {
    let (engine, log) = profiling(1, 2, |tier| tier);
    let (beads, m) = (beads(&engine, 4), engine.mutator());
    let sites = compiled(&engine, &log, beads[0], T1).sites.unwrap();
    assert_eq!(sites.len(), 2);
    assert_eq!(sites.site(2), None);
    for (site, callee, calls) in [(0, 1, 10), (0, 2, 30), (1, 1, 50), (1, 3, 99)] {
        let site = CallSite::from_bits(sites.site(site).unwrap().to_bits());
        (0..calls).for_each(|_| m.native_target(site, beads[callee]));
    }
    engine.remove(beads[3]).unwrap();
    assert_eq!(engine.callees(beads[0]), Ok(vec![(beads[1], 60), (beads[2], 30)]));
    assert_eq!(engine.callees(beads[1]), Ok(vec![]));
    let profile = compiled(&engine, &log, beads[0], t2()).profile.unwrap();
    assert_eq!(profile.call_sites()[0].targets().next(), Some((beads[2], 30)));
}

/// Functions of which the first has called the second 90 times, the third 60 times, and the fourth once; all in tier 1.
fn caller_and_callees(configure: impl Fn(Tier) -> Tier) -> (Engine, Log, Vec<Bead>) {
    let (engine, log) = profiling(1, 1, configure);
    let (beads, m) = (beads(&engine, 5), engine.mutator());
    engine.promote_many(beads.iter().copied(), T1);
    engine.run_pending(usize::MAX);
    let sites = log.lock().unwrap().iter().find(|seen| seen.bead == beads[0]).unwrap().sites.unwrap();
    for (callee, calls) in [(1, 90), (2, 60), (3, 1)] {
        (0..calls).for_each(|_| m.native_target(sites.site(0).unwrap(), beads[callee]));
    }
    log.lock().unwrap().clear();
    (engine, log, beads)
}

fn reasons(log: &Log) -> Vec<(u32, Reason)> {
    log.lock().unwrap().iter().map(|seen| (seen.bead.index(), seen.reason)).collect()
}

#[test]
fn callees_of_a_promoted_function_are_promoted_behind_everything_else_if_the_tier_wants_that() {
    let (engine, log, beads) = caller_and_callees(|tier| tier.speculate_on_callees(3));
    let m = engine.mutator();
    (0..100).for_each(|_| m.tick(beads[0]));
    engine.promote(beads[4], t2()).unwrap();
    engine.run_pending(usize::MAX);
    let mut order = reasons(&log);
    order[..2].sort_unstable_by_key(|&(index, _)| index);
    order[2..].sort_unstable_by_key(|&(index, _)| index);
    use Reason::{Asked, Hot, Speculative};
    assert_eq!(order, [(0, Hot), (4, Asked), (1, Speculative), (2, Speculative)], "the rare one is left out");
}

#[test]
fn callees_are_left_alone_by_a_tier_that_does_not_ask_for_them() {
    let (engine, log, beads) = caller_and_callees(|tier| tier);
    let m = engine.mutator();
    (0..100).for_each(|_| m.tick(beads[0]));
    engine.run_pending(usize::MAX);
    assert_eq!(reasons(&log), [(0, Reason::Hot)]);
}

#[test]
fn a_callee_that_the_tiers_filter_refuses_is_not_promoted_speculatively() {
    let (engine, log, beads) = caller_and_callees(|tier| {
        tier.speculate_on_callees(3).filter(|candidate| candidate.tier == T1 || candidate.bead.index() != 1)
    });
    let m = engine.mutator();
    (0..100).for_each(|_| m.tick(beads[0]));
    engine.run_pending(usize::MAX);
    assert_eq!(reasons(&log), [(0, Reason::Hot), (2, Reason::Speculative)]);
}

/// An engine whose first tier's code calls the first function's callees at sites of one callee each, by the addresses it answers.
fn direct_callers(callees: Arc<Mutex<Vec<Bead>>>) -> (Engine, Arc<Mutex<Vec<usize>>>) {
    let counts = Arc::<Mutex<Vec<usize>>>::default();
    let sink = counts.clone();
    let compile = FnBackend::new(move |job: &mut Job<'_>| {
        let callees = callees.lock().unwrap();
        let sites = job.call_sites(callees.len() as u32).unwrap();
        let sites =
            callees.iter().zip(0..).map(|(&callee, n)| job.direct_call(sites.site(n).unwrap(), callee));
        *sink.lock().unwrap() = sites.collect();
        Ok(code())
    });
    let tier = |compile| Tier::new(compile).policy(Manual);
    let second = Tier::new(FnBackend::new(|_: &mut Job<'_>| Ok(code()))).policy(Manual);
    (Engine::builder().capacity(64).inline().tier(tier(compile)).tier(second).build().unwrap(), counts)
}

/// What emitted code does at a call of one callee.
fn native_calls(counter: usize, calls: u64) {
    // SAFETY: the engine that owns the counters is alive in every test that calls this.
    let cell = unsafe { &*std::ptr::with_exposed_provenance::<AtomicU64>(counter) };
    cell.store(cell.load(Relaxed) + calls, Relaxed);
}

#[test]
fn calls_of_code_that_goes_on_are_counted_for_their_callees_after_a_reset() {
    let callees = Arc::<Mutex<Vec<Bead>>>::default();
    let (engine, counts) = direct_callers(callees.clone());
    let beads = beads(&engine, 3);
    *callees.lock().unwrap() = beads[1..].to_vec();
    engine.promote(beads[0], T1).unwrap();
    engine.run_pending(usize::MAX);
    let counts = counts.lock().unwrap().clone();
    native_calls(counts[0], 7);
    engine.reset_profile(beads[0]).unwrap();
    assert_eq!(engine.callees(beads[0]), Ok(vec![]));
    native_calls(counts[0], 3);
    native_calls(counts[1], 9);
    assert_eq!(engine.callees(beads[0]), Ok(vec![(beads[2], 9), (beads[1], 3)]));
}

#[test]
fn a_reset_makes_room_for_other_callees_at_sites_that_see_several() {
    let (engine, log) = profiling(1, 1, |tier| tier);
    let (beads, m) = (beads(&engine, 12), engine.mutator());
    let site = compiled(&engine, &log, beads[0], T1).sites.unwrap().site(0).unwrap();
    beads[1..6].iter().for_each(|&callee| m.native_target(site, callee));
    engine.reset_profile(beads[0]).unwrap();
    beads[6..10].iter().for_each(|&callee| m.native_target(site, callee));
    let profile = engine.profile(beads[0]).unwrap().unwrap();
    assert!(!profile.call_sites()[0].is_megamorphic());
    assert_eq!(profile.call_sites()[0].targets().count(), 4);
}

#[test]
fn a_direct_call_at_any_number_reaches_nothing_outside() {
    let bits = [0, 1, 1 << 12, u32::MAX - 8, u32::MAX - 1, u32::MAX];
    let engine = inline(10, move |job| {
        for bits in bits {
            job.direct_call(CallSite::from_bits(bits), job.bead());
        }
        Ok(code())
    });
    let bead = engine.register(Core::new(0)).unwrap();
    engine.promote(bead, T1).unwrap();
    engine.run_pending(usize::MAX);
    assert_eq!(engine.tier(bead), Ok(T1));
}

#[test]
fn callees_that_are_gone_take_no_live_ones_place_in_speculation() {
    let (engine, log, beads) = caller_and_callees(|tier| tier.speculate_on_callees(1));
    engine.remove(beads[1]).unwrap();
    let m = engine.mutator();
    (0..100).for_each(|_| m.tick(beads[0]));
    engine.run_pending(usize::MAX);
    assert_eq!(reasons(&log), [(0, Reason::Hot), (2, Reason::Speculative)]);
}

/// Somebody else takes the request as soon as there is one, which is before the reload returns.
#[test]
fn a_compile_that_a_reload_asks_for_sees_no_counts_of_the_old_source_and_keeps_its_own() {
    let engine_of = Arc::<std::sync::OnceLock<(Engine, [Bead; 2])>>::default();
    let (known, compiles) = (engine_of.clone(), engine_of.clone());
    let seen = Arc::<Mutex<Vec<Option<Profile>>>>::default();
    let sink = seen.clone();
    let compile = FnBackend::new(move |job: &mut Job<'_>| {
        let (_, [container, callee]) = compiles.get().unwrap();
        if job.bead() == *container {
            assert!(job.include(*callee)?);
            return Ok(code());
        }
        sink.lock().unwrap().push(job.profile());
        native_block(job.block_counters(1).unwrap(), 0, 5);
        let site = job.call_sites(1).unwrap().site(0).unwrap();
        native_calls(job.direct_call(site, *container), 6);
        Ok(code())
    });
    let tier = Tier::new(compile).policy(Manual);
    let engine = Engine::builder().capacity(64).inline().tier(tier).on_event(move |event| {
        if let (Some((engine, [container, _])), Event::Invalidated { bead }) = (known.get(), event)
            && bead == container
        {
            engine.run_pending(usize::MAX);
        }
    });
    let engine = engine.build().unwrap();
    let [container, callee] = beads(&engine, 2)[..] else { panic!() };
    assert!(engine_of.set((engine.clone(), [container, callee])).is_ok());
    for bead in [container, callee] {
        engine.promote(bead, T1).unwrap();
        engine.run_pending(usize::MAX);
    }
    engine.reload(callee).unwrap();
    engine.run_pending(usize::MAX);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].as_ref().map(|profile| (profile.block(0), profile.callees())), Some((0, vec![])));
    assert_eq!(engine.profile(callee).unwrap().unwrap().blocks(), [5]);
    assert_eq!(engine.callees(callee), Ok(vec![(container, 6)]));
}
