//! Every operation: done to the engine, done to the model, and their answers compared.

use super::compile::{Shot, run_shot};
use super::look::shown;
use super::{DEPTH, Inner, MOST_SLOTS, PROPOSAL, SITES, entry, tier};
use crate::model::{Asked, Delivered, Function, Pending, THRESHOLDS, TIERS};
use crate::op::{Compile, Made, Op, Proposal};
use beadwork::{
    BailoutInfo, Bead, BeadInfo, CompileNowError, Core, Delivery, DeoptDecision, Invalidation, PromoteError,
    Recovery, Reloaded, TierId,
};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(60);

/// Iterations of all loops of a function; from 8,000 on an entry that was no good is used again, which the model leaves out.
const MOST_ITERATIONS: u32 = 7_000;

impl Inner {
    pub(super) fn apply(&self, op: &Op) {
        self.step(op);
        self.compare();
    }

    fn step(&self, op: &Op) {
        match *op {
            Op::Register { grouped } => self.register(grouped),
            Op::RegisterMany(count) => self.register_many(count % 6),
            Op::Remove { of } => self.on(of, |bead| self.remove(bead)),
            Op::NewGroup => {
                let group = self.engine.group().expect("a group");
                self.model.borrow_mut().groups.push((group, Vec::new()));
            }
            Op::RemoveGroup(group) => self.remove_group(group),
            Op::SetCore { of, core } => self.on(of, |bead| {
                let known = self.with(bead, |function| function.core = core.into()).ok_or(());
                assert_eq!(self.engine.set_core(bead, Core::new(core.into())).map_err(drop), known);
            }),
            Op::Dispatch { of, calls } => self.dispatch(of, calls),
            Op::BackEdge { of, site, times } => self.on(of, |bead| self.back_edge(bead, site, times % 100)),
            Op::Promote { of, tier } => self.on(of, |bead| self.promote(bead, tier % (TIERS + 2))),
            Op::PromoteGroup { group, tier } => self.promote_group(group, tier % (TIERS + 2)),
            Op::Submit { of, tier } => self.on(of, |bead| self.submit(bead, tier % (TIERS + 2))),
            Op::Run { all, ref compiles } => self.run(all, compiles),
            Op::CompileNow { of, tier, ref compiles } => {
                self.on(of, |bead| self.compile_now(bead, tier % (TIERS + 2), compiles));
            }
            Op::Install { of, tier, made } => {
                self.on(of, |bead| self.install(bead, tier % (TIERS + 2), made))
            }
            Op::SwapAll { tier } => self.swap_all(tier % (TIERS + 2)),
            Op::Invalidate { of } => self.on(of, |bead| {
                let known = self.model.borrow_mut().invalidate(bead);
                assert_eq!(self.engine.invalidate(bead).is_ok(), known.is_some());
            }),
            Op::InvalidateVersion { of, held } => self.on(of, |bead| self.invalidate_version(bead, held)),
            Op::InvalidateAll => {
                let all = self.all();
                let took = |&&bead: &&Bead| self.model.borrow_mut().invalidate(bead) == Some(true);
                let expected = all.iter().filter(took).count();
                assert_eq!(self.engine.invalidate_all(), expected);
            }
            Op::Reload { of } => self.on(of, |bead| self.reload(bead)),
            Op::ReloadAll => {
                let all = self.all();
                let took = |&&bead: &&Bead| self.model.borrow_mut().reload(bead) == Some(true);
                let expected = all.iter().filter(took).count();
                assert_eq!(self.engine.reload_all(), expected);
            }
            Op::Demote { of, tier: to } => self.on(of, |bead| {
                let to = to % (TIERS + 1);
                let known = self.model.borrow_mut().demote(bead, to);
                assert_eq!(self.engine.demote(bead, tier(to)).is_ok(), known.is_some());
            }),
            Op::Bailout { of, proposal, outdated } => {
                self.on(of, |bead| self.bail_out(bead, proposal, outdated))
            }
            Op::Cap { of, tier: cap } => self.on(of, |bead| {
                let cap = cap % (TIERS + 1);
                let known = self.model.borrow_mut().restrict(bead, |function| function.cap = cap);
                assert_eq!(self.engine.set_tier_cap(bead, tier(cap)).is_ok(), known.is_some());
            }),
            Op::Blacklist { of, on } => self.on(of, |bead| {
                let known = self.model.borrow_mut().restrict(bead, |function| function.blacklisted = on);
                let done = if on { self.engine.blacklist(bead) } else { self.engine.unblacklist(bead) };
                assert_eq!(done.is_ok(), known.is_some());
            }),
            Op::NewAssumption => {
                let made = self.engine.assumption();
                self.model.borrow_mut().assumptions.push((made, false));
            }
            Op::Break(number) => self.break_assumption(number),
            Op::Pause => self.pauses.borrow_mut().push(self.engine.pause()),
            Op::Resume => drop(self.pauses.borrow_mut().pop()),
            Op::Enable(on) => {
                self.disturb();
                self.model.borrow_mut().disabled = !on;
                self.engine.set_enabled(on);
            }
            Op::EnableTier { tier: number, on } => {
                self.disturb();
                let number = number % TIERS;
                self.model.borrow_mut().tiers_off[usize::from(number)] = !on;
                self.engine.set_tier_enabled(tier(number + 1), on).expect("there is such a tier");
            }
            Op::Lease { of } => self.on(of, |bead| {
                let lease = self.engine.lease(bead);
                let code = self.with(bead, |function| function.code).flatten();
                assert_eq!(lease.as_ref().map(|lease| lease.addr()), code.map(entry));
                self.leases.borrow_mut().extend(lease.zip(code));
            }),
            Op::EndLease(number) => {
                let mut leases = self.leases.borrow_mut();
                if !leases.is_empty() {
                    let number = usize::from(number) % leases.len();
                    drop(leases.swap_remove(number));
                }
            }
            Op::Slot { of } => self.on(of, |bead| self.slot(bead)),
            Op::OsrFailed { of, site } => self.on(of, |bead| {
                let site = 1 + u64::from(site) % SITES;
                let known = self.with(bead, |function| function.suppressed.insert(site));
                assert_eq!(self.engine.osr_failed(bead, site).is_ok(), known.is_some());
            }),
            Op::DropKept { of } => self.on(of, |bead| {
                let kept = self.with(bead, |function| function.kept.take()).flatten();
                assert_eq!(self.engine.drop_kept(bead), kept.is_some());
            }),
            Op::DropAllKept => {
                let mut model = self.model.borrow_mut();
                let kept = model.live.iter_mut().filter_map(|function| function.kept.take()).count();
                assert_eq!(self.engine.drop_all_kept(), kept);
            }
            Op::ForgetDeopts { of } => self.on(of, |bead| {
                self.engine.forget_deopts(bead);
                assert!(self.engine.deopts(bead).is_none());
            }),
            Op::Safepoint => self.safepoint(),
            Op::Reclaim => {
                self.safepoint();
                self.engine.reclaim();
                self.compare_freed();
            }
            Op::Deliver => self.deliver(),
        }
    }

    fn on(&self, of: u8, run: impl FnOnce(Bead)) {
        if let Some(bead) = self.pick(of) {
            self.with(bead, |function| function.undisturbed = false);
            run(bead);
        }
    }

    /// All that are live, in order of indices.
    fn all(&self) -> Vec<Bead> {
        self.disturb();
        let mut all: Vec<Bead> = self.model.borrow().live.iter().map(|function| function.bead).collect();
        all.sort_by_key(|bead| bead.index());
        all
    }

    fn disturb(&self) {
        self.model.borrow_mut().live.iter_mut().for_each(|function| function.undisturbed = false);
    }

    fn safepoint(&self) {
        if let Some(m) = &mut *self.m.borrow_mut() {
            m.safepoint();
        }
    }

    // ---- functions come and go

    fn register(&self, grouped: bool) {
        let group = self.model.borrow().groups.last().map(|(group, _)| *group).filter(|_| grouped);
        let heard = self.heard.clone();
        let info = BeadInfo::new().on_invalidate(move |_, what| {
            heard[usize::from(what == Invalidation::Removed)].fetch_add(1, Relaxed);
        });
        let info = match group {
            Some(group) => info.group(group),
            None => info,
        };
        let Ok(bead) = self.engine.register_with(Core::new(7), &info) else { return self.is_full(1) };
        self.registered(bead, 7);
        let mut model = self.model.borrow_mut();
        if let Some((_, members)) = model.groups.last_mut().filter(|_| grouped) {
            members.push(bead);
        }
        assert_eq!(self.engine.group_of(bead), group);
    }

    fn register_many(&self, count: u8) {
        let cores = (0..usize::from(count)).map(Core::new);
        let Ok(beads) = self.engine.register_many(cores) else { return self.is_full(count.into()) };
        assert_eq!(beads.len(), usize::from(count));
        for (core, bead) in beads.iter().enumerate() {
            self.registered(bead, core);
            // Functions of a bulk registration have no callback: nobody is told of them.
            self.with(bead, |function| function.silent = true);
        }
    }

    fn registered(&self, bead: Bead, core: usize) {
        let mut model = self.model.borrow_mut();
        let again = model.live.iter().any(|function| function.bead.index() == bead.index());
        let before = model
            .gone
            .iter()
            .any(|gone| gone.index() == bead.index() && gone.generation() >= bead.generation());
        let slotted = self.slots.borrow().iter().any(|(slotted, _)| slotted.index() == bead.index());
        assert!(!again && !before && !slotted, "{bead} is somebody's already");
        model.live.push(Function::new(bead, core));
    }

    fn is_full(&self, wanted: usize) {
        let model = self.model.borrow();
        let taken = model.live.len() + model.gone.len() + wanted;
        assert!(taken > self.engine.capacity() as usize, "there was room");
    }

    fn remove(&self, bead: Bead) {
        let removed = self.model.borrow_mut().remove(bead);
        let core = removed.map(|function| Core::new(function.core));
        assert_eq!(self.engine.remove(bead).ok(), core);
    }

    fn remove_group(&self, group: u8) {
        let (group, members) = {
            let mut model = self.model.borrow_mut();
            if model.groups.is_empty() {
                return;
            }
            let at = usize::from(group) % model.groups.len();
            model.groups.swap_remove(at)
        };
        let live = self.members(&members);
        assert_eq!(self.engine.group_members(group), Some(live.clone()));
        assert_eq!(self.engine.remove_group(group), live.len());
        live.iter().for_each(|&bead| drop(self.model.borrow_mut().remove(bead)));
        assert_eq!(self.engine.group_members(group), None);
    }

    fn members(&self, members: &[Bead]) -> Vec<Bead> {
        let mut model = self.model.borrow_mut();
        members.iter().copied().filter(|&bead| model.get(bead).is_some()).collect()
    }

    fn slot(&self, bead: Bead) {
        let mut slots = self.slots.borrow_mut();
        if slots.len() >= MOST_SLOTS && slots.iter().all(|(slotted, _)| *slotted != bead) {
            return;
        }
        let slot = self.engine.slot(bead);
        let known = self.with(bead, |function| function.slotted = true);
        assert_eq!(slot.is_ok(), known.is_some());
        if let Ok(slot) = slot {
            slots.push((bead, slot));
        }
    }

    // ---- calls

    fn dispatch(&self, of: u8, calls: u8) {
        let Some(bead) = self.pick(of) else { return };
        for _ in 0..calls {
            let m = self.m.borrow();
            let Some(m) = m.as_ref() else { return };
            let code = m.dispatch(bead).map(|code| code.addr());
            let expected = self.with(bead, |function| {
                function.calls += u32::from(function.tier < TIERS);
                function.code.map(entry)
            });
            assert_eq!(code, expected.flatten());
            if expected.is_some() {
                self.adopt(bead, None);
            }
        }
    }

    /// A policy may have asked for a compile: whether it was right to, or to leave it.
    fn adopt(&self, bead: Bead, iterations: Option<u32>) {
        let pending = shown(&self.engine.state(bead).expect("it is live"));
        let mut model = self.model.borrow_mut();
        let (disabled, off) = (model.disabled, model.tiers_off);
        let Some(function) = model.get(bead) else { return };
        function.undisturbed &= !disabled && off == [false; TIERS as usize];
        let calls = function.calls + iterations.unwrap_or(0) / beadwork::ITERATIONS_PER_CALL;
        let due =
            function.undisturbed && iterations.is_none() && calls == THRESHOLDS[0] && function.tier == 0;
        assert!(!due || pending == Pending::Queued(1), "{bead} is hot at {calls} calls and {pending:?}");
        if pending == function.pending {
            return;
        }
        let Some(target) = pending.target() else {
            panic!("a call of {bead} cancelled {:?}", function.pending)
        };
        let may = |tier: u8| {
            let above = if iterations.is_some() { tier >= function.tier } else { tier > function.tier };
            above
                && tier <= function.highest()
                && !off[usize::from(tier) - 1]
                && calls >= THRESHOLDS[usize::from(tier) - 1]
                && !function.is_pausing(tier)
        };
        assert!(!disabled && may(target), "{bead} is asked for at {target} by {calls} calls: {function:?}");
        assert!(function.pending.target().is_none_or(|before| before < target));
        function.pending = pending;
        function.shot = None;
    }

    fn back_edge(&self, bead: Bead, site: u8, times: u8) {
        let site = 1 + u64::from(site) % SITES;
        let used_up = self.with(bead, |function| {
            function.iterations += u32::from(times);
            function.iterations > MOST_ITERATIONS
        });
        if used_up == Some(true) {
            return;
        }
        for _ in 0..times {
            let m = self.m.borrow();
            let Some(m) = m.as_ref() else { return };
            let found = m.back_edge(bead, site).map(|code| code.addr());
            let mut model = self.model.borrow_mut();
            let function = model.live.iter().find(|function| function.bead == bead);
            let code = function.and_then(|function| Some((function, function.code?)));
            let code = code.filter(|(function, piece)| {
                model.pieces[*piece].sites.contains(&site) && !function.suppressed.contains(&site)
            });
            assert_eq!(found, code.map(|(_, piece)| entry(piece) + site));
            let iterations = model.get(bead).map(|function| function.iterations);
            drop(model);
            if let Some(iterations) = iterations {
                self.adopt(bead, Some(iterations));
            }
        }
    }

    // ---- requests

    /// Whether the engine answered a request as the model did.
    fn same(&self, bead: Bead, expected: Option<Asked>, answer: Result<(), PromoteError>) {
        match (expected, answer) {
            (None, Err(PromoteError::Stale(stale))) => assert_eq!(stale.0, bead),
            (Some(Asked::NoSuchTier), Err(PromoteError::NoSuchTier { .. })) => (),
            // What is wrong in two ways is refused for one of them.
            (None, Err(PromoteError::NoSuchTier { .. } | PromoteError::Disabled)) => (),
            (Some(Asked::Disabled), Err(PromoteError::Disabled)) => (),
            (Some(Asked::Barred(highest)), Err(PromoteError::Barred { cap, .. })) => {
                assert_eq!(cap.get().min(15), highest);
            }
            (Some(Asked::Already | Asked::Queued), Ok(())) => (),
            (expected, answer) => panic!("{bead}: {answer:?} where {expected:?} was expected"),
        }
    }

    fn promote(&self, bead: Bead, to: u8) {
        let expected = self.model.borrow_mut().ask(bead, to);
        self.same(bead, expected, self.engine.promote(bead, tier(to)));
    }

    fn promote_group(&self, group: u8, to: u8) {
        let (group, members) = {
            let model = self.model.borrow();
            if model.groups.is_empty() {
                return;
            }
            model.groups[usize::from(group) % model.groups.len()].clone()
        };
        self.disturb();
        let refused = self.engine.promote_group(group, tier(to)).expect("the group is there");
        for bead in self.members(&members) {
            let expected = self.model.borrow_mut().ask(bead, to);
            let answer = refused.iter().find(|(of, _)| *of == bead).map_or(Ok(()), |(_, error)| Err(*error));
            self.same(bead, expected, answer);
        }
    }

    fn submit(&self, bead: Bead, to: u8) {
        let number = self.shots_made.get();
        self.shots_made.set(number + 1);
        let expected = self.model.borrow_mut().ask(bead, to);
        let shot = Shot::new(&self.shots);
        let answer = self.engine.submit(bead, tier(to), move |job| run_shot(shot, number, job));
        let answer = answer.map_err(|refused| refused.reason);
        if expected == Some(Asked::Already) {
            assert!(matches!(answer, Err(PromoteError::Pending { .. })), "{answer:?}");
            return;
        }
        if answer.is_ok() {
            self.with(bead, |function| function.shot = Some(number));
        }
        self.same(bead, expected, answer);
    }

    fn run(&self, all: bool, compiles: &[Compile]) {
        if self.depth.get() >= DEPTH {
            return;
        }
        let outer = self.script.replace(compiles.iter().cloned().collect());
        self.engine.run_pending(if all { usize::MAX } else { 1 });
        self.script.replace(outer);
        if all && self.pauses.borrow().is_empty() && self.depth.get() == 0 {
            let model = self.model.borrow();
            for function in &model.live {
                let waits =
                    function.pending.target().is_some_and(|tier| !model.tiers_off[usize::from(tier) - 1]);
                assert!(!waits, "{} waits for ever: {:?}", function.bead, function.pending);
            }
        }
    }

    fn compile_now(&self, bead: Bead, to: u8, compiles: &[Compile]) {
        if self.depth.get() > 0 {
            return;
        }
        let expected = self.model.borrow_mut().ask(bead, to);
        let stands = !self.pauses.borrow().is_empty() || self.model.borrow().tiers_off.contains(&true);
        // Nothing happens meanwhile that could make it wait for ever.
        let plain = compiles.iter().map(|compile| Compile { meanwhile: Vec::new(), what: compile.what });
        self.script.replace(plain.collect());
        let answer = self.engine.compile_now(bead, tier(to), if stands { Duration::ZERO } else { LONG });
        self.script.take();
        match answer {
            Ok(version) => {
                let model = self.model.borrow();
                let function = model.live.iter().find(|function| function.bead == bead).expect("it is live");
                let piece = function.code.expect("it has code");
                assert!(function.tier >= to && model.pieces[piece].version == version);
            }
            Err(CompileNowError::Refused(error))
                if !matches!(expected, Some(Asked::Already | Asked::Queued)) =>
            {
                self.same(bead, expected, Err(error));
            }
            Err(CompileNowError::Timeout { .. }) => assert!(stands),
            // It failed, or a failure at a lower tier has capped it.
            Err(
                CompileNowError::Compile(_) | CompileNowError::Superseded(_) | CompileNowError::Refused(_),
            ) => {
                assert!(matches!(expected, Some(Asked::Already | Asked::Queued)));
            }
            Err(other) => panic!("{other}"),
        }
    }

    // ---- code comes and goes

    fn install(&self, bead: Bead, to: u8, made: Made) {
        let (piece, code) = self.make(made, &[]);
        let live = self.with(bead, |_| ()).is_some();
        let broken = {
            let model = self.model.borrow();
            model.pieces[piece].assumes.is_some_and(|assumed| model.assumptions[assumed].1)
        };
        let good = live && !broken && (1..=TIERS).contains(&to);
        match self.engine.install(bead, tier(to), code) {
            Ok(version) => {
                assert!(good, "{bead} at {to}");
                self.model.borrow_mut().install(bead, to, piece, version);
                assert_eq!(self.engine.version(bead), Ok(version));
            }
            Err(error) => {
                assert!(!good, "{error}");
                assert_eq!(self.was_freed(piece), 1, "what is refused is freed");
            }
        }
    }

    fn swap_all(&self, to: u8) {
        let all = self.all();
        let mut made = Vec::new();
        let swapped = self.engine.swap_matching(tier(to), |bead| {
            let (piece, code) = self.make(Made::default(), &[]);
            made.push((bead, piece));
            Some(code)
        });
        assert_eq!(made.iter().map(|(bead, _)| *bead).collect::<Vec<_>>(), all);
        if !(1..=TIERS).contains(&to) {
            assert_eq!((swapped.refused.len(), swapped.superseded.len()), (all.len(), 0));
            return;
        }
        for ((bead, piece), superseded) in made.into_iter().zip(&swapped.superseded) {
            let mut model = self.model.borrow_mut();
            let old = model.get(bead).and_then(|function| function.code).map(|old| model.pieces[old].version);
            assert_eq!((superseded.bead, superseded.old_version), (bead, old));
            model.install(bead, to, piece, superseded.version);
        }
    }

    fn invalidate_version(&self, bead: Bead, held: bool) {
        let version_of = |piece: Option<usize>| Some(self.model.borrow().pieces[piece?].version);
        let (code, kept) = self.with(bead, |function| (function.code, function.kept)).unwrap_or_default();
        let version = version_of(if held { kept } else { code }).unwrap_or(u32::MAX);
        let answer = self.engine.invalidate_version(bead, version);
        if version != u32::MAX && version_of(code) == Some(version) {
            self.model.borrow_mut().invalidate(bead);
            assert_eq!(answer, Ok(true));
        } else if version != u32::MAX {
            self.with(bead, |function| function.kept = None);
            assert_eq!(answer, Ok(false));
        } else {
            assert_ne!(answer, Ok(true));
        }
    }

    fn reload(&self, bead: Bead) {
        let answer = self.engine.reload(bead);
        let expected = self.model.borrow_mut().reload(bead);
        let pending = self.with(bead, |function| function.pending);
        match (answer, expected) {
            (Err(_), None) => (),
            (Ok(Reloaded::Nothing), Some(false)) => (),
            (Ok(Reloaded::Queued(to)), Some(true)) => assert_eq!(pending, Some(Pending::Queued(to.get()))),
            (Ok(Reloaded::Refused(_)), Some(true)) => assert_eq!(pending, Some(Pending::None)),
            (answer, expected) => panic!("{answer:?} where {expected:?} was expected"),
        }
    }

    fn bail_out(&self, bead: Bead, proposal: Proposal, outdated: bool) {
        let proposal = match proposal {
            Proposal::Keep => Recovery::Keep,
            Proposal::Recompile => Recovery::Recompile,
            Proposal::Pause(calls) => Recovery::Pause { calls: calls.into() },
            Proposal::Revert => Recovery::Revert,
            Proposal::Cap(cap) => Recovery::Cap(tier(cap % (TIERS + 1))),
            Proposal::Blacklist => Recovery::Blacklist,
        };
        PROPOSAL.set(proposal);
        let code = self.with(bead, |function| (function.tier, function.code));
        let (at, code) = code.unwrap_or_default();
        let version = code.map(|piece| self.model.borrow().pieces[piece].version).filter(|_| !outdated);
        let decision = self.engine.bailout(bead, BailoutInfo::new(version.unwrap_or(u32::MAX)).guard(1));
        if self.with(bead, |_| ()).is_none() {
            assert!(decision.is_err());
            return;
        }
        if version.is_none() {
            assert_eq!(decision, Ok(DeoptDecision::Outdated));
            return;
        }
        let bailed = self.model.borrow_mut().bail_out(bead, proposal).expect("it runs");
        let below = TierId::new(at - 1).expect("it runs");
        let expected = match proposal {
            Recovery::Keep => DeoptDecision::Keep,
            Recovery::Recompile if bailed.queued => DeoptDecision::Recompile,
            Recovery::Revert if bailed.queued && at == 1 => DeoptDecision::Recompile,
            Recovery::Recompile | Recovery::Revert if bailed.queued || bailed.reverted => {
                DeoptDecision::Revert { at_once: bailed.reverted }
            }
            Recovery::Recompile | Recovery::Revert => DeoptDecision::Pause { calls: 0 },
            Recovery::Pause { calls } => DeoptDecision::Pause { calls },
            Recovery::Cap(cap) => DeoptDecision::Cap(cap.min(below)),
            _ => DeoptDecision::Blacklist,
        };
        assert_eq!(decision, Ok(expected));
    }

    fn break_assumption(&self, number: u8) {
        let (assumption, number) = {
            let model = self.model.borrow();
            if model.assumptions.is_empty() {
                return;
            }
            let number = usize::from(number) % model.assumptions.len();
            (model.assumptions[number].0, number)
        };
        self.disturb();
        let expected = self.model.borrow_mut().break_assumption(number);
        assert_eq!(self.engine.invalidate_assumption(assumption), expected, "functions that relied on it");
        assert!(!self.engine.is_valid(assumption));
    }

    fn deliver(&self) {
        let mut expected = std::mem::take(&mut self.model.borrow_mut().deliveries);
        let mut delivered = Vec::new();
        self.engine.deliver(|delivery| {
            delivered.push(match delivery {
                Delivery::Installed { bead, tier, version, .. } => {
                    Delivered::Installed(bead, tier.get(), version)
                }
                Delivery::Invalidated { bead } => Delivered::Invalidated(bead),
                Delivery::Reverted { bead, version } => Delivered::Reverted(bead, version),
                Delivery::Removed { bead } => Delivered::Removed(bead),
                other => panic!("{other:?}"),
            });
        });
        // The order is that of each function's own history.
        delivered.sort_by_key(Delivered::bead);
        expected.sort_by_key(Delivered::bead);
        assert_eq!(delivered, expected);
    }
}
