//! One round: an engine of some kind, threads that use it, and its end.

use crate::backend::{Faulty, snapshot};
use crate::control::{Controller, register};
use crate::runner::{FALLBACK, Runner};
use crate::stage::{FUNCTIONS, Stage, below, drop_quietly, once_in, step};
use crate::tally::{Fault, Tally};
use beadwork::{
    Activity, Candidate, DeoptHistory, DeoptPolicy, Engine, EngineBuilder, HalfLife, Policy, Recovery,
    Threshold, Tier, TierId, TieredDeopt, Verdict,
};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

/// Longer than anything takes that is not stuck.
const LONG: Duration = Duration::from_secs(60);

/// Pieces of code for one round.
const PIECES: usize = 1 << 20;

/// A policy that panics now and then.
struct Moody<P>(P, Arc<Stage>);

impl<P: Policy> Policy for Moody<P> {
    fn decide(&self, activity: &Activity) -> Verdict {
        if self.1.fails(2_000) {
            self.1.tally.panic(Fault::PolicyPanic);
        }
        self.0.decide(activity)
    }

    fn half_life(&self) -> Option<HalfLife> {
        self.0.half_life()
    }
}

/// The same for bailouts; proposes everything there is.
struct MoodyDeopt(TieredDeopt, Arc<Stage>);

impl DeoptPolicy for MoodyDeopt {
    fn decide(&self, history: &DeoptHistory) -> Recovery {
        if self.1.fails(200) {
            self.1.tally.panic(Fault::DeoptPolicyPanic);
        }
        match below(24) {
            0 => Recovery::Keep,
            1 => Recovery::Pause { calls: below(100) as u32 },
            2 => Recovery::Cap(TierId::BASELINE),
            3 => Recovery::Blacklist,
            4..12 => Recovery::Revert,
            _ => self.0.decide(history),
        }
    }

    fn keeps_baseline(&self) -> bool {
        true
    }
}

/// What is to be done.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) length: Duration,
    pub(crate) runners: usize,
    pub(crate) controllers: usize,
    pub(crate) forks: bool,
}

pub(crate) fn round(tally: &Arc<Tally>, plan: Plan) {
    let stage = Arc::new(Stage::new(tally.clone(), PIECES));
    let (tiers, workers) = (1 + below(3) as u8, below(4));
    let engine = match build(&stage, tiers, workers).build() {
        Ok(engine) => engine,
        Err(error) => return tally.violation(|| format!("no engine: {error}")),
    };
    stage.premises.start(&engine);
    for number in 0..FUNCTIONS {
        if let Some(bead) = register(&stage, &engine, number, None) {
            stage.put(number, bead);
        }
    }
    let shuts_down = once_in(8);
    std::thread::scope(|scope| {
        for _ in 0..plan.runners {
            scope.spawn(|| Runner::new(&stage, &engine).run());
        }
        for _ in 0..plan.controllers {
            scope.spawn(|| Controller::new(&stage, &engine, tiers).run());
        }
        let start = Instant::now();
        while start.elapsed() < plan.length && !stage.is_over() {
            if workers == 0 {
                step(&stage, "inline work", || {
                    engine.run_pending(64);
                });
            }
            std::thread::sleep(Duration::from_millis(5));
            #[cfg(unix)]
            if plan.forks && once_in(40) {
                step(&stage, "a fork", || crate::forks::fork_once(&stage, &engine, tiers));
            }
            if shuts_down && start.elapsed() > plan.length * 3 / 4 {
                step(&stage, "a shutdown", || {
                    let ended = engine.shutdown(LONG);
                    stage.tally.expect(ended.is_ok(), || format!("{ended:?}"));
                });
            }
        }
        stage.stop.store(true, Relaxed);
    });
    end(&stage, engine, tiers);
}

/// Everything asked for comes to an end, and everything made is freed once.
fn end(stage: &Arc<Stage>, engine: Engine, tiers: u8) {
    let tally = &stage.tally;
    engine.set_enabled(true);
    for tier in (1..=tiers).filter_map(TierId::new) {
        let _ = engine.set_tier_enabled(tier, true);
    }
    let drained = engine.drain(LONG);
    tally.expect(drained.is_ok(), || format!("requests were lost: {drained:?}"));
    engine.walk(|bead| {
        let state = engine.state(bead);
        let pending = state.as_ref().is_ok_and(|state| state.pending.is_some());
        tally.expect(!pending, || format!("{bead} waits for ever: {state:?}"));
    });
    let ended = engine.shutdown(LONG);
    tally.expect(ended.is_ok(), || format!("{ended:?}"));
    let handed_back = std::mem::take(&mut *stage.handed_back.lock().expect("not poisoned"));
    handed_back.into_iter().for_each(drop_quietly);
    engine.reclaim();
    let stats = engine.stats();
    tally.expect(stats.retired == 0, || {
        format!("without mutators {} pieces are retired still", stats.retired)
    });
    step(stage, "the end of an engine", || drop(engine));
    let (made, freed) = (stage.pieces.made(), stage.pieces.freed());
    tally.expect(made == freed, || {
        format!("{made} pieces were made, {freed} freed; not {:?}", stage.pieces.first_left())
    });
    let things = stage.things.0.load(SeqCst);
    tally.expect(things == 0, || format!("{things} payloads, snapshots or closures were never dropped"));
}

/// An engine whose kind is left to chance.
fn build(stage: &Arc<Stage>, tiers: u8, workers: usize) -> EngineBuilder {
    let (heard, noted, back) = (stage.clone(), stage.clone(), stage.clone());
    let mut builder = Engine::builder()
        // Little room, so that indices are used again soon.
        .capacity(FUNCTIONS + below(FUNCTIONS))
        .workers(workers)
        .seed(below(1 << 30) as u64)
        .fallback(std::ptr::without_provenance(FALLBACK))
        .sampling(if once_in(4) { 7 } else { 1 })
        .eager_baseline(once_in(8))
        .fault_limit(1 + below(1_000) as u32)
        .deopt_governor(!once_in(4))
        .deopt(MoodyDeopt(TieredDeopt::default(), stage.clone()))
        .on_event(move |_| {
            if heard.fails(5_000) {
                heard.tally.panic(Fault::ListenerPanic);
            }
        });
    if once_in(2) {
        builder = builder.snapshot(move |bead, core| snapshot(&noted, bead, core));
    }
    if once_in(2) {
        builder = builder.delivery(true);
        builder = if once_in(2) { builder.delivery_limit(1 + below(100)) } else { builder };
    }
    if once_in(6) {
        builder = builder.hand_back(move |piece| {
            // Another thread's lock may be held for ever in a forked child.
            if !back.in_child.load(Relaxed) {
                back.handed_back.lock().expect("not poisoned").push(piece);
            }
        });
    }
    if once_in(4) {
        builder = builder.code_limit(16 * 64).evict_after(Duration::from_millis(1));
    }
    if once_in(4) {
        builder = builder.retired_limit(below(4_096));
    }
    if once_in(4) {
        builder = builder.cold_after(Duration::from_micros(below(5_000) as u64));
    }
    if once_in(8) {
        builder = builder.foreground();
    }
    (1..=tiers).fold(builder, |builder, number| builder.tier(tier(stage, number)))
}

fn tier(stage: &Arc<Stage>, number: u8) -> Tier {
    let threshold = Threshold::new(20 * 5_u32.pow(u32::from(number))).queue_ahead(below(50) as u32);
    let tier = Tier::new(Faulty(stage.clone()));
    let tier = match below(4) {
        0 => tier.policy(Moody(threshold.decay(HalfLife::Ticks(2)).jitter(0.2), stage.clone())),
        1 => tier.policy(Moody(threshold.scaled_by_load(3), stage.clone())),
        2 => tier.policy(Moody(threshold.scaled_by_code_memory(0.5).scaled_by_size(100), stage.clone())),
        _ => tier.policy(Moody(threshold, stage.clone())),
    };
    let tier = tier.batch(1 + below(8)).max_parallel(1 + below(4)).counts_itself(once_in(4));
    let tier = if once_in(4) { tier.timeout(Duration::from_micros(500)) } else { tier };
    let asked = stage.clone();
    tier.speculate_on_callees(below(3)).filter(move |_: &Candidate| {
        if asked.fails(5_000) {
            asked.tally.panic(Fault::FilterPanic);
        }
        asked.in_child.load(Relaxed) || !once_in(20)
    })
}
