//! Every operation: done to the engine, done to the model, and their answers compared.

mod calls;
mod code;
mod functions;
mod requests;

use super::{Inner, entry, site, tier};
use crate::model::TIERS;
use crate::op::Op;
use beadwork::{Bead, Core};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

impl Inner {
    pub(super) fn apply(&self, op: &Op) {
        self.step(op);
        self.compare();
    }

    fn step(&self, op: &Op) {
        self.operations.set(self.operations.get() + 1);
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
            Op::Dispatch { of, calls } => self.dispatch(0, of, calls),
            Op::OtherDispatch { of, calls } => self.dispatch(1, of, calls.into()),
            Op::NativeCall { of, times } => self.on(of, |bead| self.native_call(bead, times % 8)),
            Op::NativeLoop { of, site, times } => self.on(of, |bead| self.native_loop(bead, site, times)),
            Op::BackEdge { of, site, times } => self.on(of, |bead| self.back_edges(0, bead, site, times)),
            Op::Turns { of, times } => self.on(of, |bead| {
                (0..20).for_each(|turn| self.back_edges(0, bead, 2 + turn % 2, times % 64));
            }),
            Op::OtherBackEdge { of, site, times } => {
                self.on(of, |bead| self.back_edges(1, bead, site, times))
            }
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
                self.model.borrow_mut().changed_meaning(bead);
                assert_eq!(self.engine.invalidate(bead).is_ok(), known.is_some());
            }),
            Op::InvalidateVersion { of, held } => self.on(of, |bead| self.invalidate_version(bead, held)),
            Op::InvalidateAll => {
                let all = self.all();
                let took = |&&bead: &&Bead| self.model.borrow_mut().invalidate(bead) == Some(true);
                let expected = all.iter().filter(took).count();
                all.iter().for_each(|&bead| self.model.borrow_mut().changed_meaning(bead));
                assert_eq!(self.engine.invalidate_all(), expected);
            }
            Op::Reload { of } => self.on(of, |bead| self.reload(bead)),
            Op::ReloadAll => {
                let all = self.all();
                let wanted: Vec<_> =
                    all.iter().map(|&bead| (bead, self.model.borrow_mut().wanted(bead))).collect();
                let took = |&&(bead, wanted): &&(Bead, u8)| {
                    let mut model = self.model.borrow_mut();
                    let took = model.reload(bead, wanted) == Some(true);
                    model.changed_meaning(bead);
                    took
                };
                let expected = wanted.iter().filter(took).count();
                assert_eq!(self.engine.reload_all(), expected);
            }
            Op::Demote { of, tier: to } => self.on(of, |bead| {
                let to = to % (TIERS + 1);
                let known = self.model.borrow_mut().demote(bead, to);
                self.model.borrow_mut().changed_meaning(bead);
                assert_eq!(self.engine.demote(bead, tier(to)).is_ok(), known.is_some());
            }),
            Op::Bailout { of, proposal, outdated } => {
                self.on(of, |bead| self.bail_out(bead, proposal, outdated))
            }
            Op::Cap { of, tier: cap } => self.on(of, |bead| {
                let cap = cap % (TIERS + 1);
                let lowered = self.with(bead, |function| cap < function.cap) == Some(true);
                let known = self.model.borrow_mut().restrict(bead, |function| function.cap = cap);
                if lowered {
                    self.model.borrow_mut().changed_meaning(bead);
                }
                assert_eq!(self.engine.set_tier_cap(bead, tier(cap)).is_ok(), known.is_some());
                self.with(bead, |function| function.ask_in = 1);
            }),
            Op::Blacklist { of, on } => self.on(of, |bead| {
                let known = self.model.borrow_mut().restrict(bead, |function| function.blacklisted = on);
                if on {
                    self.model.borrow_mut().changed_meaning(bead);
                }
                let done = if on { self.engine.blacklist(bead) } else { self.engine.unblacklist(bead) };
                assert_eq!(done.is_ok(), known.is_some());
                if !on {
                    self.with(bead, |function| function.ask_in = 1);
                }
            }),
            Op::NewAssumption => {
                let made = self.engine.assumption();
                let number = self.model.borrow_mut().premise();
                self.model.borrow_mut().assumptions.push((made, number));
            }
            Op::Break(number) => self.break_assumption(number),
            Op::Pause => self.pauses.borrow_mut().push(self.engine.pause()),
            Op::Resume => drop(self.pauses.borrow_mut().pop()),
            Op::Enable(on) => {
                self.model.borrow_mut().disabled = !on;
                self.engine.set_enabled(on);
            }
            Op::EnableTier { tier: number, on } => {
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
                } else {
                    self.nothing_done();
                }
            }
            Op::Slot { of } => self.on(of, |bead| self.slot(bead)),
            Op::OsrFailed { of, site: number } => self.on(of, |bead| {
                let site = site(number);
                let wait = self.model.borrow_mut().loop_failed(bead, site);
                assert_eq!(self.engine.osr_failed(bead, site).ok(), wait);
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
                self.with(bead, |function| function.paused_until = 0);
                assert!(self.engine.deopts(bead).is_none());
            }),
            Op::Safepoint => self.safepoint(0),
            Op::OtherSafepoint => self.safepoint(1),
            Op::OtherOffline => {
                // As good as a safepoint, and then as good as none for ever.
                self.answered[1].borrow_mut().clear();
                if let Some(other) = &mut *self.other.borrow_mut() {
                    other.offline(|| self.engine.reclaim());
                }
            }
            Op::Reclaim => {
                self.safepoint(0);
                self.safepoint(1);
                self.engine.reclaim();
                self.back.lock().expect("not poisoned").clear();
                self.compare_freed();
            }
            Op::Deliver => self.deliver(),
            Op::Wait(tenths) => {
                self.clock.fetch_add(u64::from(tenths) * 100, Relaxed);
                self.model.borrow_mut().now = Duration::from_millis(self.clock.load(Relaxed));
            }
        }
    }

    fn on(&self, of: u8, run: impl FnOnce(Bead)) {
        match self.pick(of) {
            Some(bead) => run(bead),
            None => self.nothing_done(),
        }
    }

    /// The operation under way is left out.
    fn nothing_done(&self) {
        self.operations.set(self.operations.get() - 1);
    }

    /// All that are live, in order of indices.
    fn all(&self) -> Vec<Bead> {
        let mut all: Vec<Bead> = self.model.borrow().live.iter().map(|function| function.bead).collect();
        all.sort_by_key(|bead| bead.index());
        all
    }

    fn safepoint(&self, number: usize) {
        self.answered[number].borrow_mut().clear();
        let mutator = [&self.m, &self.other][number];
        if let Some(m) = &mut *mutator.borrow_mut() {
            m.safepoint();
        }
    }
}
