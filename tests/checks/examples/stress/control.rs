//! Threads that control the engine: everything a VM can ask for, in any order, at any time.

use crate::backend::{compile, own_code};
use crate::pieces::{Content, Pieces, SITES};
use crate::runner::running;
use crate::stage::{FUNCTIONS, IMMORTAL, Stage, Thing, below, once_in, refused, step};
use crate::tally::Fault;
use beadwork::{BailoutInfo, Bead, BeadInfo, Engine, Group, Job, Mutator, TierId};
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering::Acquire, Ordering::Relaxed};
use std::time::Duration;

pub(crate) struct Controller<'s> {
    stage: &'s Arc<Stage>,
    engine: &'s Engine,
    m: Mutator,
    tiers: u8,
    group: Option<Group>,
}

impl<'s> Controller<'s> {
    pub(crate) fn new(stage: &'s Arc<Stage>, engine: &'s Engine, tiers: u8) -> Controller<'s> {
        Controller { stage, engine, m: engine.mutator(), tiers, group: engine.group().ok() }
    }

    pub(crate) fn run(mut self) {
        while !self.stage.is_over() {
            let stage = self.stage.clone();
            match below(100) {
                0..20 => step(&stage, "a request", || self.request()),
                20..30 => step(&stage, "an install", || self.install()),
                30..45 => step(&stage, "code taken back", || self.take_back()),
                45..55 => step(&stage, "a bailout", || self.bail_out()),
                55..60 => step(&stage, "a limit", || self.limit()),
                60..75 => step(&stage, "a function replaced", || self.replace()),
                75..80 => step(&stage, "a premise broken", || stage.premises.break_one(self.engine)),
                80..85 => step(&stage, "a collection", || self.collect()),
                85..88 => step(&stage, "a knob", || self.turn_a_knob()),
                88..90 => step(&stage, "all of them", || self.all_of_them()),
                90..98 => step(&stage, "a question", || self.ask()),
                _ => step(&stage, "a pause", || self.pause()),
            }
            self.m.safepoint();
        }
        step(self.stage, "the end of a mutator", || drop(self.m));
    }

    fn tier(&self) -> TierId {
        // Now and then one that is not there.
        TierId::new(below(usize::from(self.tiers) + 2) as u8).unwrap_or(TierId::MAX)
    }

    fn request(&self) {
        let (Some((_, bead)), tier) = (self.stage.any(), self.tier()) else { return };
        match below(6) {
            0..3 => drop(self.engine.promote(bead, tier)),
            3 => drop(self.engine.compile_now(bead, tier, Duration::from_millis(2))),
            _ => {
                let stage = self.stage.clone();
                let mut thing = Thing::new(&stage, stage.fails(200).then_some(Fault::ClosurePanic));
                refused(self.engine.submit(bead, tier, move |job: &mut Job<'_>| {
                    // Here it would take the result with it: a value that is being returned is not dropped when a local's drop
                    // panics (rust-lang/rust issue 47949).
                    thing.defuse();
                    compile(&stage, job)
                }));
            }
        }
    }

    fn install(&self) {
        let Some((_, bead)) = self.stage.any() else { return };
        if let Some((number, code)) = own_code(self.stage, bead)
            && let Ok(version) = self.engine.install(bead, self.tier(), code)
        {
            self.stage.pieces.note_installed(number, version);
        }
    }

    /// Takes code back, and sees that it is gone.
    fn take_back(&self) {
        let Some((at, bead)) = self.stage.any() else { return };
        let (before, ran) = (self.stage.pieces.made(), running(self.stage, &self.m, bead));
        let what = below(6);
        let gone = match what {
            0 => self.engine.invalidate(bead).is_ok(),
            1 => self.engine.reload(bead).is_ok(),
            2 => self.engine.blacklist(bead).is_ok() && self.engine.unblacklist(bead).is_ok(),
            3 => {
                // A compile in flight goes on where there is no code.
                let _ = self.engine.demote(bead, self.tier());
                return;
            }
            _ => {
                // Only that version, wherever it is.
                let version = ran.and_then(|(number, content)| self.stage.pieces.version(number, content));
                let taken = version.map(|version| self.engine.invalidate_version(bead, version));
                if taken.is_some_and(|taken| taken.is_ok()) {
                    self.went(at, bead, ran, "its version was invalidated");
                }
                return;
            }
        };
        if gone {
            self.went(at, bead, ran, ["an invalidation", "a reload", "a blacklisting"][what]);
            // Nor anything else that there was; but what the VM installed itself may have come later than it was made.
            if let Some((number, content)) = running(self.stage, &self.m, bead) {
                let old = number < before && content.version != 0;
                self.stage.tally.expect(!old, || {
                    format!("{bead} still answers code {number} of version {} after {what}", content.version)
                });
            }
        }
    }

    /// A piece that ran was taken back, and nobody is answered it again: no dispatch, no slot, no loop.
    #[allow(unsafe_code)]
    fn went(&self, at: usize, bead: Bead, ran: Option<(usize, Content)>, why: &str) {
        let Some((number, _)) = ran else { return };
        let tally = &self.stage.tally;
        tally.checked.fetch_add(1, Relaxed);
        let entry = Pieces::entry(number);
        let dispatched = self.m.code(bead).map(|code| code.addr() as usize);
        tally.expect(dispatched != Some(entry.addr()), || {
            format!("{bead} answers piece {number} after {why}")
        });
        if at < IMMORTAL
            && let Ok(slot) = self.engine.slot(bead)
        {
            // SAFETY: the engine lives, and its slots stay where they are.
            let cell: &AtomicPtr<u8> = unsafe { &*slot.as_ptr() };
            let called = cell.load(Acquire).addr();
            tally
                .expect(called != entry.addr(), || format!("{bead}'s slot holds piece {number} after {why}"));
        }
        for site in 1..SITES {
            let entered = self.m.osr_entry(bead, site).map(|code| code.addr() as usize);
            let gone = entered != Some(Pieces::loop_entry(number, site).addr());
            tally.expect(gone, || format!("loop {site} of {bead} enters piece {number} after {why}"));
        }
    }

    fn bail_out(&self) {
        let Some((at, bead)) = self.stage.any() else { return };
        let Some((number, content)) = running(self.stage, &self.m, bead) else { return };
        let Some(version) = self.stage.pieces.version(number, content) else { return };
        let info = BailoutInfo::new(version).guard(below(3) as u32).pc(below(3) as u64);
        let info = if once_in(8) { info.osr_site(1) } else { info };
        let Ok(decision) = self.engine.bailout(bead, info) else { return };
        if decision.took_code() {
            self.went(at, bead, Some((number, content)), &format!("{decision:?}"));
        }
        if once_in(16) {
            self.engine.forget_deopts(bead);
        }
    }

    fn limit(&self) {
        let Some((_, bead)) = self.stage.any() else { return };
        match below(5) {
            0 => drop(self.engine.set_tier_cap(bead, self.tier())),
            1 => drop(self.engine.set_tier_cap(bead, TierId::MAX)),
            2 => drop(self.engine.blacklist(bead)),
            3 => drop(self.engine.unblacklist(bead)),
            _ => drop(self.engine.osr_failed(bead, 1 + below(7) as u64)),
        }
    }

    /// Removes a function, sees that it is gone, and registers it anew.
    fn replace(&mut self) {
        let number = IMMORTAL + below(FUNCTIONS - IMMORTAL);
        if let Some(bead) = self.stage.take(number) {
            self.remove(bead, may_join(number));
            if once_in(2) {
                return;
            }
        }
        if let Some(bead) = register(self.stage, self.engine, number, self.group)
            && !self.stage.put(number, bead)
        {
            // Somebody else was quicker.
            self.remove(bead, may_join(number));
        }
        if once_in(64)
            && let Some(group) = self.group.take()
        {
            self.end_group(group);
        }
    }

    /// `may_be_gone` if it was in a group that somebody may have ended.
    fn remove(&self, bead: Bead, may_be_gone: bool) {
        match self.engine.remove(bead) {
            Ok(core) => self.stage.heap.discard(core),
            Err(stale) => self.stage.tally.expect(may_be_gone, || stale.to_string()),
        }
        self.stage.tally.removed.fetch_add(1, Relaxed);
        let answers = self.m.dispatch(bead).is_some() || self.engine.is_live(bead);
        self.stage.tally.expect(!answers, || format!("{bead} is removed and answers"));
        self.stage.note_gone(bead);
    }

    fn end_group(&mut self, group: Group) {
        let members = self.engine.group_members(group).unwrap_or_default();
        match below(3) {
            0 => drop(self.engine.reload_group(group)),
            1 => drop(self.engine.invalidate_group(group)),
            _ => drop(self.engine.promote_group(group, self.tier())),
        }
        self.engine.remove_group(group);
        for bead in members {
            let lives = self.engine.is_live(bead);
            self.stage.tally.expect(!lives, || format!("{bead} has survived its group"));
            self.stage.note_gone(bead);
        }
        self.group = self.engine.group().ok();
    }

    fn collect(&self) {
        let moves: Vec<_> = (0..below(16)).filter_map(|_| self.stage.any()).collect();
        self.stage.heap.collect(self.engine, &moves, &self.stage.tally);
    }

    fn turn_a_knob(&self) {
        let tier = self.tier();
        match below(6) {
            0 => self.engine.set_enabled(!once_in(4)),
            1 => drop(self.engine.set_tier_enabled(tier, !once_in(4))),
            2 => drop(self.engine.set_max_parallel(tier, below(4))),
            3 => drop(self.engine.set_batch(tier, below(9))),
            4 => self.engine.set_threshold_scale([0.1, 1.0, 4.0, f64::NAN][below(4)]),
            _ => self.engine.decay_tick(),
        }
    }

    fn all_of_them(&self) {
        match below(6) {
            0 => drop(self.engine.invalidate_matching(|_| once_in(8))),
            1 => drop(self.engine.reload_matching(|_| once_in(8))),
            2 => drop(self.engine.drop_all_kept()),
            3 => {
                let stage = self.stage;
                let swap = |bead| if once_in(16) { Some(own_code(stage, bead)?.1) } else { None };
                drop(self.engine.swap_matching(TierId::BASELINE, swap));
            }
            4 => self.engine.walk(|bead| {
                let _ = self.engine.state(bead);
            }),
            _ => {
                drop(self.engine.promote_many((0..8).filter_map(|_| Some(self.stage.any()?.1)), self.tier()))
            }
        }
    }

    fn ask(&self) {
        let Some((_, bead)) = self.stage.any() else { return };
        match below(8) {
            0 => drop(self.engine.reclaim()),
            1 => drop(self.engine.run_pending(4)),
            2 => drop((self.engine.stats().to_string(), self.engine.laggards())),
            3 => drop((self.engine.fault(bead, self.tier()), self.engine.deopts(bead))),
            4 => {
                drop((self.engine.profile(bead), self.engine.callees(bead), self.engine.reset_profile(bead)))
            }
            5 => drop(self.engine.drain(Duration::from_millis(1))),
            6 => drop((self.engine.name(bead), self.engine.invocations(bead), self.engine.osr_entries(bead))),
            _ => drop(self.engine.drop_kept(bead)),
        }
    }

    fn pause(&mut self) {
        let pause = self.engine.pause();
        self.m.offline(|| std::thread::sleep(Duration::from_micros(below(2_000) as u64)));
        drop(pause);
    }
}

/// Whether the function may be in a group.
fn may_join(number: usize) -> bool {
    number % 4 == 3
}

/// Registers a function anew; `None` where there is no room until somebody passes a safepoint.
pub(crate) fn register(
    stage: &Arc<Stage>,
    engine: &Engine,
    number: usize,
    group: Option<Group>,
) -> Option<Bead> {
    let core = stage.heap.place(number)?;
    let name = number.to_string();
    let made = if once_in(2) {
        engine.register(core)
    } else {
        let info = BeadInfo::named(&name).key(number as u64).size(below(1_000) as u32);
        let info = match group {
            Some(group) if may_join(number) => info.group(group),
            _ => info,
        };
        let callback = stage.clone();
        engine.register_with(
            core,
            &info.on_invalidate(move |_, _| {
                if callback.fails(200) {
                    callback.tally.panic(Fault::CallbackPanic);
                }
            }),
        )
    };
    if made.is_err() {
        stage.heap.discard(core);
    }
    made.ok()
}
