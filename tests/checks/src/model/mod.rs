//! The model: what an engine promises, in plain code without an atomic.

mod eviction;
mod function;
mod loops;
mod requests;

use beadwork::{Assumption, Bead, Group, Reason, Recovery};
use eviction::Eviction;
pub(crate) use eviction::Limits;
pub(crate) use function::{Function, Pending, Piece};
use loops::Counts;
pub(crate) use requests::{Asked, Request, THRESHOLDS};
use std::time::Duration;

/// Compiled tiers of the engine.
pub(crate) const TIERS: u8 = 3;

/// Failures at a tier after which it is given up.
pub(crate) const FAULT_LIMIT: u32 = 3;

/// What is delivered: which function, and what became of its code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Delivered {
    Installed(Bead, u8, u32),
    Invalidated(Bead),
    Reverted(Bead, u32),
    Removed(Bead),
}

impl Delivered {
    /// Whose it is.
    pub(crate) fn bead(&self) -> u64 {
        match self {
            Delivered::Installed(bead, ..)
            | Delivered::Invalidated(bead)
            | Delivered::Reverted(bead, _)
            | Delivered::Removed(bead) => bead.to_bits(),
        }
    }
}

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) live: Vec<Function>,
    /// Handles of functions that are gone.
    pub(crate) gone: Vec<Bead>,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) groups: Vec<(Group, Vec<Bead>)>,
    /// Made by the VM, each with its number.
    pub(crate) assumptions: Vec<(Assumption, usize)>,
    /// By number: whether it was broken.
    pub(crate) broken: Vec<bool>,
    /// What code that contains the body of a function relies on, by number.
    pub(crate) standings: Vec<(Bead, usize)>,
    /// Nothing is held for a revert, since the VM frees code itself.
    pub(crate) hands_back: bool,
    pub(crate) disabled: bool,
    pub(crate) tiers_off: [bool; TIERS as usize],
    pub(crate) deliveries: Vec<Delivered>,
    /// Invalidations told to callbacks, and removals.
    pub(crate) told: (usize, usize),
    /// Compiles that began, whether their functions want them still or not.
    pub(crate) claims: u32,
    /// Queued since the last comparison.
    pub(crate) requests: Vec<Request>,
    /// The loops each mutator counts, and those of the first in native code.
    loops: [Counts; 2],
    native_loops: Counts,
    pub(crate) eviction: Eviction,
    pub(crate) now: Duration,
    /// Indices ever used.
    pub(crate) used: u32,
    pub(crate) requested: u64,
    /// Of these, because of a loop.
    pub(crate) for_loops: u64,
    pub(crate) installed: u64,
    pub(crate) failed: u64,
    /// Compiles for which there was a claim, and those whose code was installed.
    pub(crate) begun: u64,
    pub(crate) compiled: u64,
}

impl Model {
    pub(crate) fn get(&mut self, bead: Bead) -> Option<&mut Function> {
        self.live.iter_mut().find(|function| function.bead == bead)
    }

    fn took_code(&mut self, bead: Bead) {
        self.deliveries.push(Delivered::Invalidated(bead));
        self.told.0 += usize::from(self.get(bead).is_some_and(|function| !function.silent));
        self.loops_start_over(bead);
    }

    pub(crate) fn invalidate(&mut self, bead: Bead) -> Option<bool> {
        let function = self.get(bead)?;
        let pending = function.pending != Pending::None;
        function.cancel();
        function.start_over();
        let code = function.clear_code();
        if code {
            self.took_code(bead);
        }
        Some(code || pending)
    }

    /// The tier the function has or waits for.
    pub(crate) fn wanted(&mut self, bead: Bead) -> u8 {
        self.get(bead).map_or(0, |function| function.tier.max(function.pending.target().unwrap_or(0)))
    }

    /// Reloads a function that had or waited for `earlier`. Answers whether it had code or waited for some.
    pub(crate) fn reload(&mut self, bead: Bead, earlier: u8) -> Option<bool> {
        let wanted = self.wanted(bead).max(earlier);
        self.get(bead)?;
        if wanted == 0 {
            return Some(false);
        }
        let allowed = self.check(bead, wanted)?.is_ok();
        let function = self.get(bead)?;
        function.cancel();
        let (code, calls) = (function.clear_code(), function.calls);
        if allowed {
            self.queue(bead, wanted, Reason::Reload, calls);
        }
        if code {
            self.took_code(bead);
        }
        Some(true)
    }

    pub(crate) fn demote(&mut self, bead: Bead, tier: u8) -> Option<()> {
        let wanted = self.check(bead, tier)?.is_ok();
        let function = self.get(bead)?;
        if function.tier <= tier {
            return Some(());
        }
        function.cancel();
        function.start_over();
        function.clear_code();
        if wanted {
            self.queue(bead, tier, Reason::Asked, 0);
        }
        self.took_code(bead);
        Some(())
    }

    /// Changes what the function may be compiled at.
    pub(crate) fn restrict(&mut self, bead: Bead, change: impl Fn(&mut Function)) -> Option<()> {
        let function = self.get(bead)?;
        change(function);
        let highest = function.highest();
        let barred = function.pending.target().is_some_and(|target| target > highest);
        if barred && matches!(function.pending, Pending::Followed(_)) && highest > 0 {
            function.pending = Pending::Followed(highest);
            function.shot = None;
        } else if barred {
            function.cancel();
        }
        if function.tier > highest {
            function.clear_code();
            self.took_code(bead);
        }
        Some(())
    }

    /// Publishes a piece: at `tier`, with the version the engine gave it.
    fn publish(&mut self, bead: Bead, tier: u8, piece: usize, version: u32) -> Option<()> {
        self.pieces[piece].version = version;
        let hands_back = self.hands_back;
        let function = self.get(bead)?;
        if function.tier == 1 && tier > 1 {
            function.kept = function.code.filter(|_| !hands_back);
        } else if tier <= 1 {
            function.kept = None;
        }
        (function.code, function.tier, function.watched) = (Some(piece), tier, false);
        self.suppress_loops(bead);
        self.installed += 1;
        self.deliveries.push(Delivered::Installed(bead, tier, version));
        Some(())
    }

    /// The VM installs code of its own.
    pub(crate) fn install(&mut self, bead: Bead, tier: u8, piece: usize, version: u32) -> Option<()> {
        let function = self.get(bead)?;
        match function.pending {
            // Said again, since what it was compiled for before may have been lower.
            Pending::Queued(target) | Pending::Followed(target) if target > tier => {
                self.end_claim(bead, Pending::Queued(target));
            }
            _ => function.cancel(),
        }
        self.publish(bead, tier, piece, version)
    }

    /// A compile begins; answers its claim.
    pub(crate) fn claim(&mut self, bead: Bead, tier: u8) -> u32 {
        (self.claims, self.begun) = (self.claims + 1, self.begun + 1);
        let claim = self.claims;
        let function = self.get(bead).expect("what is compiled is live");
        assert_eq!(function.pending, Pending::Queued(tier), "{bead} is compiled for what it waits for");
        (function.pending, function.claim) = (Pending::Compiling(tier), Some(claim));
        function.listed.clear();
        function.compiling = tier;
        claim
    }

    pub(crate) fn holds(&mut self, bead: Bead, claim: u32) -> bool {
        self.get(bead).is_some_and(|function| function.claim == Some(claim))
    }

    /// A compile ends with code; answers whether that is installed.
    pub(crate) fn compiled(&mut self, bead: Bead, claim: u32, tier: u8, piece: usize, version: u32) -> bool {
        if !self.holds(bead, claim) {
            return false;
        }
        if self.is_in_vain(piece) {
            self.in_vain(bead, claim, tier);
            return false;
        }
        let Some(function) = self.get(bead) else { return false };
        if tier > function.highest() {
            let rest = function.pending.without_compile();
            self.end_claim(bead, rest);
            return false;
        }
        function.faults[usize::from(tier) - 1] = (0, 0);
        let rest = match function.pending {
            Pending::Followed(target) if target > tier => Pending::Queued(target),
            _ => Pending::None,
        };
        for site in self.asked_sites(bead, claim) {
            if !self.pieces[piece].sites.contains(&site) {
                self.loop_failed(bead, site);
            }
        }
        self.end_claim(bead, rest);
        self.compiled += 1;
        self.publish(bead, tier, piece, version).is_some()
    }

    /// A compile ends because something does not hold; answers whether it was still wanted.
    pub(crate) fn in_vain(&mut self, bead: Bead, claim: u32, tier: u8) -> bool {
        if !self.holds(bead, claim) {
            return false;
        }
        self.abandon(bead, tier);
        self.get(bead).expect("it is live").start_over();
        true
    }

    /// A compile fails; answers whether it was still wanted.
    pub(crate) fn failed(&mut self, bead: Bead, claim: u32, tier: u8) -> bool {
        if !self.holds(bead, claim) {
            return false;
        }
        self.failed += 1;
        self.abandon(bead, tier);
        let function = self.get(bead).expect("it is live");
        let fault = &mut function.faults[usize::from(tier) - 1];
        *fault = (fault.0 + 1, function.calls);
        if fault.0 >= FAULT_LIMIT && function.tier < tier {
            self.restrict(bead, |function| function.cap = function.cap.min(tier - 1));
        }
        true
    }

    /// A new thing to rely on.
    pub(crate) fn premise(&mut self) -> usize {
        self.broken.push(false);
        self.broken.len() - 1
    }

    /// Whether code relies on what does not hold.
    pub(crate) fn is_in_vain(&self, piece: usize) -> bool {
        self.pieces[piece].assumes.iter().any(|&number| self.broken[number])
    }

    /// What code relies on that contains the body of a function; `None` if code of the tier may not.
    pub(crate) fn standing(&mut self, bead: Bead, tier: u8) -> Option<usize> {
        if tier > self.get(bead)?.highest() {
            return None;
        }
        if let Some((_, number)) = self.standings.iter().find(|(of, _)| *of == bead) {
            return Some(*number);
        }
        let number = self.premise();
        self.standings.push((bead, number));
        Some(number)
    }

    /// A call of the function means something else: what contains its body goes.
    pub(crate) fn changed_meaning(&mut self, bead: Bead) {
        if let Some(at) = self.standings.iter().position(|(of, _)| *of == bead) {
            let (_, number) = self.standings.swap_remove(at);
            self.break_premise(number);
        }
    }

    /// What code relied on does not hold any more; answers how many functions lost code or a compile.
    pub(crate) fn break_premise(&mut self, number: usize) -> usize {
        if std::mem::replace(&mut self.broken[number], true) {
            return 0;
        }
        let relies = |pieces: &[Piece], code: Option<usize>| {
            code.is_some_and(|piece| pieces[piece].assumes.contains(&number))
        };
        let mut functions = 0;
        for bead in self.live.iter().map(|function| function.bead).collect::<Vec<_>>() {
            let pieces = std::mem::take(&mut self.pieces);
            let Some(function) = self.get(bead) else { continue };
            let runs = relies(&pieces, function.code);
            let compiles = function.listed.contains(&number);
            if relies(&pieces, function.kept) {
                function.kept = None;
            }
            if compiles && !runs {
                let tier = function.compiling;
                function.start_over();
                self.abandon(bead, tier);
            }
            self.pieces = pieces;
            if runs {
                self.invalidate(bead);
            }
            functions += usize::from(runs || compiles);
        }
        functions
    }

    /// What a bailout of the running version comes to.
    pub(crate) fn bail_out(&mut self, bead: Bead, proposal: Recovery) -> Option<Bailed> {
        let open = |model: &Model, tier: u8| !model.disabled && !model.tiers_off[usize::from(tier) - 1];
        let (own, baseline) = {
            let tier = self.get(bead)?.tier;
            (open(self, tier), open(self, 1))
        };
        let function = self.get(bead)?;
        let tier = function.tier;
        let proposal = match proposal {
            Recovery::Revert if tier == 1 => Recovery::Recompile,
            Recovery::Cap(cap) => Recovery::Cap(cap.min(beadwork::TierId::new(tier - 1)?)),
            other => other,
        };
        let (returns, queue) = match proposal {
            Recovery::Keep => return Some(Bailed { kept: true, ..Bailed::default() }),
            Recovery::Recompile => (true, own.then_some(tier)),
            Recovery::Revert => (true, baseline.then_some(1)),
            Recovery::Cap(cap) => {
                function.cap = function.cap.min(cap.get());
                (true, baseline.then_some(1))
            }
            Recovery::Blacklist => {
                function.blacklisted = true;
                (false, None)
            }
            _ => (false, None),
        };
        function.paused_until = if let Recovery::Pause { calls } = proposal { calls } else { 0 };
        let back = function.kept.filter(|_| returns && function.highest() >= 1);
        function.cancel();
        function.start_over();
        function.clear_code();
        if let Some(piece) = back {
            (function.code, function.tier) = (Some(piece), 1);
        }
        let queued = queue.filter(|&tier| tier > function.tier && tier <= function.highest());
        if let Some(tier) = queued {
            self.queue(bead, tier, Reason::Deopt, 0);
        }
        self.took_code(bead);
        self.suppress_loops(bead);
        if let Some(piece) = back {
            self.deliveries.push(Delivered::Reverted(bead, self.pieces[piece].version));
        }
        Some(Bailed { kept: false, queued: queued.is_some(), reverted: back.is_some() })
    }

    pub(crate) fn remove(&mut self, bead: Bead) -> Option<Function> {
        let at = self.live.iter().position(|function| function.bead == bead)?;
        self.gone.push(bead);
        self.deliveries.push(Delivered::Removed(bead));
        let function = self.live.remove(at);
        self.told.1 += usize::from(!function.silent);
        Some(function)
    }
}

/// What a bailout did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Bailed {
    pub(crate) kept: bool,
    pub(crate) queued: bool,
    pub(crate) reverted: bool,
}
