//! Asking for compiles: a request goes into the state word, a token into a lane, and a worker is woken.

use crate::clock;
#[cfg(not(beadwork_loom))]
use crate::contain::contain;
use crate::drain::Crew;
use crate::event::Event;
use crate::id::{Bead, Reason, TierId};
use crate::queue::Request;
use crate::shared::Shared;
use crate::snapshot::{Given, Kept, Snapshot};
use crate::state::{Pending, Requested};
use crate::stats::add;
use crate::sync::fence;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering::SeqCst;

impl Shared {
    /// Asks for a compile; the token is in its lane and a worker is awake when this answers `Queued`.
    pub(crate) fn request(&self, bead: Bead, tier: TierId, reason: Reason, calls: u32) -> Requested {
        self.request_anew(bead, tier, reason, calls, None, None)
    }

    /// As `request`, and if `anew` is the version still, also for the tier that runs: its code lacks something.
    pub(crate) fn request_anew(
        &self,
        bead: Bead,
        tier: TierId,
        reason: Reason,
        calls: u32,
        anew: Option<u32>,
        given: Given<'_>,
    ) -> Requested {
        if bead.index() >= self.table.capacity() {
            return Requested::Stale;
        }
        let asked = self.now();
        let snapshot = match self.snapshot_for(bead, tier, anew, given) {
            Ok(snapshot) => snapshot,
            Err(busy) => return busy,
        };
        let (answer, pushed, replaced, dropped) = {
            let _no_fork = self.gate.enter();
            let state = self.table.state(bead.index());
            let (answer, dropped) = match self.snapshots.is_on() {
                true => self.attach(bead, tier, snapshot, || state.request(bead, tier, anew)),
                false => (state.request(bead, tier, anew), Vec::new()),
            };
            let replaced = match answer {
                Requested::Queued(_) | Requested::Follows(_) if !self.one_shots.is_empty() => {
                    replaced(answer).map(|versions| self.one_shots.purge(bead, tier.below(), versions))
                }
                Requested::Already if !reason.is_a_guess() => {
                    // It may have been asked for as merely hot; now somebody insists. What comes with a request was never
                    // merely hot.
                    let now = state.load();
                    if !self.one_shots.has(bead, now.target()) {
                        self.snapshots.rebind(bead, now.target(), || state.insist(bead, now));
                    }
                    if reason == Reason::Now {
                        self.hasten(bead, reason, calls, asked);
                    }
                    None
                }
                _ => None,
            };
            let queued = matches!(answer, Requested::Queued(_));
            (answer, queued && self.push(bead, tier, reason, calls, asked), replaced, dropped)
        };
        if replaced.is_some() || !dropped.is_empty() {
            self.dispose((replaced, dropped));
        }
        if matches!(answer, Requested::Queued(_)) {
            self.say_queued(bead, tier, reason, calls);
        }
        if pushed {
            self.wake();
        }
        answer
    }

    /// Makes a request, and keeps the snapshot with it if it is queued; inside a section. Answers what is to be dropped.
    fn attach(
        &self,
        bead: Bead,
        tier: TierId,
        snapshot: Option<Snapshot>,
        request: impl FnOnce() -> Requested,
    ) -> (Requested, Vec<Snapshot>) {
        self.snapshots.replace(bead, snapshot, request, |&answer| {
            let replaces = replaced(answer)?;
            Some(Kept { tier, version: *replaces.end(), replaces: Some(replaces) })
        })
    }

    /// Puts a token into a lane, inside a section. `asked` is the time, read before the section began.
    pub(crate) fn push(&self, bead: Bead, tier: TierId, reason: Reason, calls: u32, asked: u32) -> bool {
        let stamp = self.table.state(bead.index()).load().stamp();
        self.drain.lanes.push(Request { index: bead.index(), calls, asked, stamp, tier, reason })
    }

    /// A request that waits cannot wait any more; inside a section. The caller wakes.
    pub(crate) fn hasten(&self, bead: Bead, reason: Reason, calls: u32, asked: u32) {
        let Ok(now) = self.table.live(bead) else { return };
        if now.pending() == Pending::Queued {
            let (index, stamp, tier) = (bead.index(), now.stamp(), now.target());
            self.drain.lanes.hasten(Request { index, calls, asked, stamp, tier, reason });
        }
    }

    /// A request is queued.
    pub(crate) fn say_queued(&self, bead: Bead, tier: TierId, reason: Reason, calls: u32) {
        add(&self.counters.requested, 1);
        self.emit(&Event::Queued { bead, tier, reason, calls });
    }

    /// A request that followed a compile is queued now.
    pub(crate) fn resumed(&self, bead: Bead, tier: Option<TierId>, pushed: bool) {
        if let Some(tier) = tier {
            self.say_queued(bead, tier, Reason::Resumed, 0);
        }
        if pushed {
            self.wake();
        }
    }

    /// A number nobody had before.
    pub(crate) fn next_number(&self) -> u64 {
        // Relaxed: only a number.
        self.numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }

    /// A seed for the next mutator.
    pub(crate) fn next_seed(&self) -> u64 {
        let number = self.next_number();
        self.settings.seed ^ u64::from(clock::random(self.settings.seed, number, 1)) << 32 ^ number
    }

    /// There is work: makes sure that somebody looks.
    pub(crate) fn wake(&self) {
        // SeqCst, edges CLOSE and PAUSE: between the push before this and the look at whether the engine is closed, and a worker's at
        // whether anything holds the request back. Partners are the fences in `close` and `wake_for`.
        fence(mutant!("close-push", SeqCst));
        if self.is_closed() {
            // Whoever closed the engine may have dropped what was queued before this was.
            self.drop_queued();
            return;
        }
        if self.settings.foreground {
            self.drain.work_in_foreground(self);
            return;
        }
        if self.drain.workers == 0 {
            // Those who wait do the work.
            self.idle();
            return;
        }
        if !self.drain.wake.signal(self.drain.workers) {
            return;
        }
        let spawned = {
            let _no_fork = self.gate.enter();
            match self.me.upgrade() {
                Some(shared) => self.executor.spawn(move || shared.work()),
                // The engine is being dropped.
                None => Err(String::new()),
            }
        };
        if let Err(error) = spawned {
            self.drain.wake.quit();
            if !error.is_empty() {
                self.emit(&Event::PoolFailed { error });
            }
        }
    }

    /// A worker's life on a pool thread. Nothing unwinds into the pool, whose answer to a panic is to abort.
    pub(crate) fn work(&self) {
        #[cfg(beadwork_loom)]
        return self.drain.work(self);
        #[cfg(not(beadwork_loom))]
        if contain(|| self.drain.work(self)).is_err() {
            // Not reachable: what is foreign is caught nearer. Keeps the count right all the same.
            self.drain.wake.quit();
        }
    }
}

/// At which versions requests were queued that are replaced by one that got this answer: up to its own. If it follows a compile, only one
/// that followed it too: the claim in flight may be about to take what came with its own.
fn replaced(answer: Requested) -> Option<RangeInclusive<u32>> {
    match answer {
        Requested::Queued(version) => Some(0..=version),
        Requested::Follows(version) => Some(version..=version),
        _ => None,
    }
}

#[cfg(all(test, not(beadwork_loom)))]
mod tests {
    use crate::code::CompiledCode;
    use crate::error::CompileError;
    use crate::id::{Bead, Core, TierId};
    use crate::queue::Lane;
    use crate::{Engine, FnBackend, Job, Threshold, Tier};
    use std::sync::mpsc;
    use std::time::Duration;

    const T1: TierId = TierId::BASELINE;
    const T2: TierId = TierId::new(2).unwrap();

    #[test]
    fn p32_requests_from_many_threads_need_no_lock_that_a_drain_holds() {
        let tier = |calls| {
            let code =
                |_: &mut Job<'_>| Ok::<_, CompileError>(CompiledCode::new(std::ptr::without_provenance(16)));
            Tier::new(FnBackend::new(code)).policy(Threshold::new(calls))
        };
        let engine =
            Engine::builder().capacity(4_096).workers(2).tier(tier(50)).tier(tier(500)).build().unwrap();
        let all: Vec<Bead> = engine.register_many((0..4_000).map(Core::new)).unwrap().iter().collect();
        // As if a drain had stopped in the middle of taking a batch, in every lane; what it wakes waits for these.
        let held: Vec<_> = engine.shared().drain.lanes.all.iter().map(Lane::hold).collect();
        let (tells, told) = mpsc::channel();
        for part in all.chunks(1_000).map(<[Bead]>::to_vec) {
            let (engine, tells) = (engine.clone(), tells.clone());
            std::thread::spawn(move || {
                let m = engine.mutator();
                for (number, &bead) in part.iter().enumerate() {
                    match number % 4 {
                        // Asked for, and asked for higher while it waits.
                        0 => assert!([T1, T2].iter().all(|&tier| engine.promote(bead, tier).is_ok())),
                        // Hot.
                        1 => (0..60).for_each(|_| m.tick(bead)),
                        // Urgent: a loop runs.
                        2 => (0..4_000).for_each(|_| assert!(m.back_edge(bead, 1).is_none())),
                        // Cancelled, and asked for again.
                        _ => {
                            engine.promote(bead, T1).unwrap();
                            engine.invalidate(bead).unwrap();
                            engine.promote(bead, T1).unwrap();
                        }
                    }
                }
                tells.send(()).unwrap();
            });
        }
        for _ in 0..4 {
            told.recv_timeout(Duration::from_secs(60)).expect("a request waits for a drain");
        }
        drop(held);
        engine.drain(Duration::from_secs(60)).unwrap();
        assert!(all.iter().all(|&bead| engine.tier(bead).unwrap() >= T1));
    }
}
