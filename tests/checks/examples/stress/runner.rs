//! Threads that run the guest program: they dispatch, and look at what they are answered.

use crate::pieces::{Content, SITES};
use crate::stage::{FUNCTIONS, IMMORTAL, Stage, below, once_in, step};
use beadwork::{Bead, Code, Engine, Lease, Mutator, Reentered};
use std::sync::atomic::{AtomicPtr, Ordering::Acquire, Ordering::Relaxed};

/// Leases a thread keeps at once.
const LEASES: usize = 8;

/// What slots hold where there is no code.
pub(crate) const FALLBACK: usize = 0x0f0f_0000;

pub(crate) struct Runner<'s> {
    stage: &'s Stage,
    engine: &'s Engine,
    m: Mutator,
    leases: Vec<(Lease, usize)>,
    /// The last handle and version seen of each function: versions never fall.
    seen: Vec<(u64, u32)>,
    dispatched: u64,
}

impl<'s> Runner<'s> {
    pub(crate) fn new(stage: &'s Stage, engine: &'s Engine) -> Runner<'s> {
        let m = engine.mutator();
        Runner { stage, engine, m, leases: Vec::new(), seen: vec![(0, 0); FUNCTIONS], dispatched: 0 }
    }

    pub(crate) fn run(mut self) {
        while !self.stage.is_over() {
            let stage = self.stage;
            match below(40) {
                0..20 => step(stage, "calls", || self.calls()),
                20..24 => step(stage, "loops", || self.loops()),
                24..28 => step(stage, "native frames", || self.frames()),
                28 => step(stage, "offline", || self.m.offline(std::thread::yield_now)),
                29 => step(stage, "leases", || self.lease()),
                38 => step(stage, "a look at leases", || self.look_at_leases()),
                30 => step(stage, "ends of leases", || self.end_lease()),
                31 => step(stage, "slots", || self.slot()),
                32 => step(stage, "stale handles", || self.stale()),
                33 => step(stage, "native counts", || self.native()),
                34 => step(stage, "versions", || self.versions()),
                35 => step(stage, "deliveries", || {
                    self.m.deliver(|delivery| stage.deliver(delivery));
                }),
                36 if once_in(8) => step(stage, "a new mutator", || self.m = self.engine.mutator()),
                37 => step(stage, "a pin", || self.pinned()),
                _ => self.m.safepoint(),
            }
            if once_in(64) {
                std::thread::yield_now();
            }
        }
        while !self.leases.is_empty() {
            self.end_lease();
        }
        self.stage.tally.dispatched.fetch_add(self.dispatched, Relaxed);
        step(self.stage, "the end of a mutator", || drop(self.m));
    }

    fn calls(&mut self) {
        let Some((_, bead)) = self.stage.any() else { return };
        let held = {
            let mut last = None;
            for _ in 0..=below(100) {
                self.dispatched += 1;
                let time = self.stage.premises.now();
                let code = self.m.dispatch(bead);
                last = code.and_then(|code| look(self.stage, "a dispatch", bead, code.addr(), 0, time));
            }
            last
        };
        if let Some((number, content)) = held {
            self.still(number, content, "before the safepoint");
        }
        self.m.safepoint();
    }

    /// The piece is still what it was.
    fn still(&self, number: usize, was: Content, when: &str) {
        std::thread::yield_now();
        let entry = crate::pieces::Pieces::entry(number).addr() as u64;
        let now = self.stage.pieces.read(entry, 0).map(|(_, content)| content.bead);
        self.stage.tally.expect(now.as_ref() == Ok(&was.bead), || format!("code went {when}: {now:?}"));
    }

    fn loops(&mut self) {
        let Some((_, bead)) = self.stage.any() else { return };
        let site = 1 + below(SITES as usize - 1) as u64;
        for _ in 0..below(2_000) {
            let time = self.stage.premises.now();
            if let Some(entry) = self.m.back_edge(bead, site) {
                look(self.stage, "a loop", bead, entry.addr(), site, time);
                break;
            }
        }
        self.m.safepoint();
    }

    /// Stays in code across safepoints that name it.
    #[allow(unsafe_code)]
    fn frames(&mut self) {
        let (Some((_, outer)), Some((_, inner))) = (self.stage.any(), self.stage.any()) else { return };
        let time = self.stage.premises.now();
        let Some(frame) = self.m.dispatch(outer) else { return };
        let Some((number, content)) = look(self.stage, "a frame", outer, frame.addr(), 0, time) else {
            return;
        };
        self.m.native_scope(|raw| {
            // SAFETY: the mutator is borrowed by the scope, this is its thread, and the only frame is named below.
            let mut back = unsafe { Reentered::from_raw(raw) };
            for _ in 0..1 + below(3) {
                let time = self.stage.premises.now();
                if let Some(code) = back.dispatch(inner) {
                    look(self.stage, "a call in a frame", inner, code.addr(), 0, time);
                }
                back.safepoint();
                back.safepoint_with(&[frame.addr() as usize + 5]);
                if once_in(4) {
                    back.engine().reclaim();
                }
                self.still(number, content, "under a frame that was named");
            }
        });
        self.m.safepoint();
    }

    fn lease(&mut self) {
        let Some((_, bead)) = self.stage.any() else { return };
        if self.leases.len() >= LEASES {
            self.end_lease();
        }
        let time = self.stage.premises.now();
        if let Some(lease) = self.m.lease(bead)
            && let Some((number, _)) = look(self.stage, "a lease", bead, lease.addr(), 0, time)
        {
            self.leases.push((lease, number));
        }
    }

    /// Leased code stays what it was, long after it was taken back, and whatever is reclaimed.
    fn look_at_leases(&mut self) {
        self.m.safepoint();
        if once_in(8) {
            self.engine.reclaim();
        }
        self.leases.iter().for_each(|(lease, number)| self.is_kept(lease, *number));
    }

    fn is_kept(&self, lease: &Lease, number: usize) {
        let found = self.stage.pieces.read(lease.addr(), 0);
        let right =
            found.as_ref().is_ok_and(|(at, content)| *at == number && content.bead == lease.bead().to_bits());
        self.stage.tally.expect(right, || format!("leased code went: {:?}", found.err()));
    }

    fn end_lease(&mut self) {
        if self.leases.is_empty() {
            return;
        }
        let (lease, number) = self.leases.swap_remove(below(self.leases.len()));
        self.is_kept(&lease, number);
        let _ = lease.is_current();
    }

    /// Reads a slot as native code would.
    #[allow(unsafe_code)]
    fn slot(&mut self) {
        let Some(bead) = self.stage.function(below(IMMORTAL)) else { return };
        let Ok(slot) = self.engine.slot(bead) else {
            return self.stage.tally.violation(|| format!("{bead} is never removed, and is stale"));
        };
        // SAFETY: the engine lives, and its slots stay where they are.
        let cell: &AtomicPtr<u8> = unsafe { &*slot.as_ptr() };
        let time = self.stage.premises.now();
        let entry = cell.load(Acquire).addr();
        if entry != FALLBACK {
            look(self.stage, "a slot", bead, entry as u64, 0, time);
        }
        self.m.safepoint();
    }

    fn stale(&mut self) {
        let Some(bead) = self.stage.any_gone() else { return };
        let answers = [
            self.m.dispatch(bead).is_some(),
            self.m.code(bead).is_some(),
            self.m.osr_entry(bead, 1).is_some(),
            self.engine.is_live(bead),
            self.engine.core(bead).is_ok(),
            self.engine.state(bead).is_ok(),
            self.engine.remove(bead).is_ok(),
            self.engine.lease(bead).is_some(),
        ];
        let none = answers == [false; 8];
        self.stage.tally.expect(none, || format!("{bead} was removed, and answers {answers:?}"));
    }

    fn native(&mut self) {
        let Some((_, bead)) = self.stage.any() else { return };
        self.m.native_call(bead);
        self.m.native_iterations(bead, 1 + below(SITES as usize - 1) as u64, below(4_096) as u32);
    }

    fn versions(&mut self) {
        let Some((number, bead)) = self.stage.any() else { return };
        let Ok(state) = self.engine.state(bead) else { return };
        let (handle, version) = self.seen[number];
        let falls = handle == bead.to_bits() && state.version < version;
        self.stage
            .tally
            .expect(!falls, || format!("{bead} fell from version {version} to {}", state.version));
        self.seen[number] = (bead.to_bits(), state.version);
    }

    fn pinned(&mut self) {
        let Some((_, bead)) = self.stage.any() else { return };
        let pin = self.engine.pin();
        let time = self.stage.premises.now();
        if let Some(code) = pin.dispatch(bead) {
            look(self.stage, "a pin", bead, code.addr(), 0, time);
        }
    }
}

/// Looks at what an engine answered for a function, at a time since which no premise of it was broken.
pub(crate) fn look(
    stage: &Stage,
    who: &str,
    bead: Bead,
    entry: u64,
    site: u64,
    time: u64,
) -> Option<(usize, Content)> {
    let (number, content) = match stage.pieces.read(entry, site) {
        Ok(found) => found,
        Err(wrong) => {
            stage.tally.violation(|| format!("{who} of {bead} answered {entry:#x}: {wrong}"));
            return None;
        }
    };
    stage.tally.expect(content.bead == bead.to_bits(), || {
        format!("{who} of {bead} answered code of {:?}", Bead::from_bits(content.bead))
    });
    let broken = content.premise != 0 && stage.premises.was_broken(content.premise, time);
    stage.tally.expect(!broken, || format!("{who} of {bead} answered code whose assumption was broken"));
    Some((number, content))
}

/// The number and content of the piece a dispatch answers, without counting.
pub(crate) fn running(stage: &Stage, m: &Mutator, bead: Bead) -> Option<(usize, Content)> {
    let time = stage.premises.now();
    let code: Code<'_> = m.code(bead)?;
    look(stage, "a look", bead, code.addr(), 0, time)
}
