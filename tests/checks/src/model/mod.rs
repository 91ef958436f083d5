//! The model: what an engine promises, in plain code without an atomic.

mod function;

use beadwork::{Assumption, Bead, Group, Recovery};
pub(crate) use function::{Function, Pending, Piece};

/// Compiled tiers of the engine.
pub(crate) const TIERS: u8 = 3;

/// Calls at which each is entered.
pub(crate) const THRESHOLDS: [u32; TIERS as usize] = [6, 30, 120];

/// Calls until a function is looked at again that waits for its compile, or while nothing is promoted.
const RECHECK: u32 = 1_000;

/// The same where a tier it is hot enough for is switched off or barred.
const RECHECK_BARRED: u32 = 10_000;

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
    pub(crate) claims: u32,
}

/// What a request came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    NoSuchTier,
    Disabled,
    Barred(u8),
    Already,
    Queued,
}

impl Model {
    pub(crate) fn get(&mut self, bead: Bead) -> Option<&mut Function> {
        self.live.iter_mut().find(|function| function.bead == bead)
    }

    /// Whether a request would be refused.
    pub(crate) fn check(&mut self, bead: Bead, tier: u8) -> Option<Result<(), Asked>> {
        let disabled = self.disabled;
        let highest = self.get(bead)?.highest();
        Some(match tier {
            _ if tier == 0 || tier > TIERS => Err(Asked::NoSuchTier),
            _ if disabled => Err(Asked::Disabled),
            _ if tier > highest => Err(Asked::Barred(highest)),
            _ => Ok(()),
        })
    }

    /// Asks for a compile; `None` if the function is not live.
    pub(crate) fn ask(&mut self, bead: Bead, tier: u8) -> Option<Asked> {
        if let Err(refused) = self.check(bead, tier)? {
            return Some(refused);
        }
        let function = self.get(bead)?;
        if tier <= function.tier || function.pending.target().is_some_and(|target| tier <= target) {
            return Some(Asked::Already);
        }
        function.shot = None;
        function.pending = match function.pending {
            Pending::None | Pending::Queued(_) => Pending::Queued(tier),
            Pending::Compiling(_) | Pending::Followed(_) => Pending::Followed(tier),
        };
        Some(Asked::Queued)
    }

    /// A dispatch: counted where a higher tier can come, and at the end of a budget the policies are asked.
    pub(crate) fn call(&mut self, bead: Bead) {
        let Some(function) = self.get(bead) else { return };
        if function.tier >= TIERS {
            return;
        }
        function.calls += 1;
        if function.ask_in > 1 {
            function.ask_in -= 1;
        } else {
            self.consult(bead);
        }
    }

    /// The policies are asked: the highest tier that is allowed, hot and not paused is asked for.
    pub(crate) fn consult(&mut self, bead: Bead) {
        let (disabled, off) = (self.disabled, self.tiers_off);
        let Some(function) = self.get(bead) else { return };
        if disabled {
            function.ask_in = RECHECK;
            return;
        }
        let above = function.tier.max(function.pending.target().unwrap_or(0));
        let mut wait = if function.pending == Pending::None { u32::MAX } else { RECHECK };
        for tier in (above + 1..=TIERS).rev() {
            let missing = THRESHOLDS[usize::from(tier) - 1].saturating_sub(function.calls);
            let pause = function.pause(tier, function.calls);
            if tier > function.highest() || off[usize::from(tier) - 1] {
                wait = wait.min(RECHECK_BARRED);
            } else if missing > 0 || pause > 0 {
                wait = wait.min(if missing > 0 { missing } else { pause });
            } else {
                function.ask_in = wait.min(RECHECK);
                assert_eq!(self.ask(bead, tier), Some(Asked::Queued));
                return;
            }
        }
        function.ask_in = wait;
    }

    fn took_code(&mut self, bead: Bead) {
        self.deliveries.push(Delivered::Invalidated(bead));
        self.told.0 += usize::from(self.get(bead).is_some_and(|function| !function.silent));
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
        let code = function.clear_code();
        if allowed {
            function.pending = Pending::Queued(wanted);
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
            function.pending = Pending::Queued(tier);
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
        (function.code, function.tier) = (Some(piece), tier);
        self.deliveries.push(Delivered::Installed(bead, tier, version));
        Some(())
    }

    /// The VM installs code of its own.
    pub(crate) fn install(&mut self, bead: Bead, tier: u8, piece: usize, version: u32) -> Option<()> {
        let function = self.get(bead)?;
        match function.pending {
            Pending::Queued(target) | Pending::Followed(target) if target > tier => {
                function.pending = Pending::Queued(target);
                function.claim = None;
                function.listed.clear();
            }
            _ => function.cancel(),
        }
        self.publish(bead, tier, piece, version)
    }

    /// A compile begins; answers its claim.
    pub(crate) fn claim(&mut self, bead: Bead, tier: u8) -> u32 {
        self.claims += 1;
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
            function.pending = function.pending.without_compile();
            function.claim = None;
            function.listed.clear();
            return false;
        }
        function.faults[usize::from(tier) - 1] = (0, 0);
        function.claim = None;
        function.listed.clear();
        function.pending = match function.pending {
            Pending::Followed(target) if target > tier => Pending::Queued(target),
            _ => Pending::None,
        };
        self.publish(bead, tier, piece, version).is_some()
    }

    /// A compile ends because something does not hold; answers whether it was still wanted.
    pub(crate) fn in_vain(&mut self, bead: Bead, claim: u32, tier: u8) -> bool {
        if !self.holds(bead, claim) {
            return false;
        }
        let Some(function) = self.get(bead) else { return false };
        function.abandon(tier);
        function.start_over();
        true
    }

    /// A compile fails; answers whether it was still wanted.
    pub(crate) fn failed(&mut self, bead: Bead, claim: u32, tier: u8) -> bool {
        if !self.holds(bead, claim) {
            return false;
        }
        let Some(function) = self.get(bead) else { return false };
        function.abandon(tier);
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
                function.abandon(tier);
                function.start_over();
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
        function.undisturbed = false;
        if let Some(piece) = back {
            (function.code, function.tier) = (Some(piece), 1);
        }
        let queued = queue.filter(|&tier| tier > function.tier && tier <= function.highest());
        function.pending = queued.map_or(Pending::None, Pending::Queued);
        self.took_code(bead);
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
