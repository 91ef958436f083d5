//! A backend that compiles as the operations say, and what the model makes of it.

use super::{CURRENT, Inner, Note};
use crate::faults::panic_on_purpose;
use crate::op::What;
use beadwork::{Backend, CompileError, CompiledCode, Core, Job, Outcome};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The backend of all tiers.
pub(super) struct Scripted;

/// A submitted closure, counted until it is run or dropped.
pub(super) struct Shot(Arc<AtomicUsize>);

/// What is to come of a compile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expected {
    Installed(usize),
    Discarded(Option<usize>),
    Failed,
}

impl Shot {
    pub(super) fn new(count: &Arc<AtomicUsize>) -> Shot {
        count.fetch_add(1, Relaxed);
        Shot(count.clone())
    }
}

impl Drop for Shot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

fn current() -> Rc<Inner> {
    CURRENT.with_borrow(|current| current.clone()).expect("a rig is running")
}

impl Backend for Scripted {
    fn compile(&self, jobs: &mut [Job<'_>]) {
        let rig = current();
        let alone = jobs.len() == 1;
        // All are claimed before any is compiled.
        let claims: Vec<_> = jobs.iter().map(|job| rig.claim(job)).collect();
        for (job, claim) in jobs.iter_mut().zip(claims) {
            rig.compile_one(job, claim, alone);
        }
    }
}

impl Inner {
    fn compile_one(&self, job: &mut Job<'_>, claim: u32, alone: bool) {
        let (result, expected) = self.compile(job, claim, None, alone);
        let Some(result) = result else { return };
        let outcome = job.finish(result);
        let rig = self;
        match expected {
            Expected::Installed(piece) => {
                let version = rig.model.borrow().pieces[piece].version;
                assert_eq!(outcome, Outcome::Installed { version });
            }
            Expected::Discarded(piece) => {
                assert_eq!(outcome, Outcome::Discarded);
                assert!(piece.is_none_or(|piece| rig.was_freed(piece) == 1), "what is discarded is freed");
            }
            Expected::Failed => assert_eq!(outcome, Outcome::Failed),
        }
    }
}

/// Runs a submitted closure.
pub(super) fn run_shot(shot: Shot, number: usize, job: &mut Job<'_>) -> Result<CompiledCode, CompileError> {
    drop(shot);
    let rig = current();
    let claim = rig.claim(job);
    let result = rig.compile(job, claim, Some(number), true).0;
    result.unwrap_or(Err(CompileError::Unfinished))
}

impl Inner {
    /// The claim of a job that begins. Of a batch they may all have been met before: by a comparison, or before a panic.
    fn claim(&self, job: &Job<'_>) -> u32 {
        let (bead, tier) = (job.bead(), job.tier().get());
        if !job.is_current() {
            // Something that was compiled before it in its batch has ended it. That nobody holds its claim is compared.
            let mut model = self.model.borrow_mut();
            model.claims += 1;
            return model.claims;
        }
        let known =
            self.with(bead, |function| function.claim.filter(|_| function.compiling == tier)).flatten();
        let claim = known.unwrap_or_else(|| {
            // The first of a batch: there was a sweep before it.
            let mut model = self.model.borrow_mut();
            model.sweep();
            model.claim(bead, tier)
        });
        self.meet_claims();
        claim
    }

    /// Compiles by the next entry of the script. No result means that the job is left unfinished.
    fn compile(
        &self,
        job: &mut Job<'_>,
        claim: u32,
        shot: Option<usize>,
        alone: bool,
    ) -> (Option<Result<CompiledCode, CompileError>>, Expected) {
        let (bead, tier) = (job.bead(), job.tier().get());
        let compile = self.script.borrow_mut().pop_front().unwrap_or_default();
        let was_current = self.model.borrow_mut().holds(bead, claim);
        assert_eq!(job.is_current(), was_current, "{bead}");
        if was_current {
            let taken = self.with(bead, |function| function.shot.take_if(|_| shot.is_some())).flatten();
            assert_eq!(taken, shot, "the closure that was submitted is what compiles, once");
        }
        let core = self.with(bead, |function| function.core);
        assert_eq!(job.core().ok(), core.map(Core::new));
        let note = job.snapshot::<Note>();
        assert!(note.is_some() == self.setup.snapshots, "what was noted comes with the request");
        assert!(note.is_none_or(|note| note.bead == bead && note.core.get() < 1 << 16));
        let (what, relies) = self.begin(job, compile.what, was_current);
        if matches!(what, What::Panic) && !alone {
            // Which of them it was is found out by trying each alone.
            panic_on_purpose();
        }

        self.depth.set(self.depth.get() + 1);
        compile.meanwhile.iter().for_each(|op| self.apply(op));
        self.depth.set(self.depth.get() - 1);

        let current = self.model.borrow_mut().holds(bead, claim);
        assert_eq!(job.is_current(), current, "{bead}");
        match what {
            What::Code(made) => {
                let asked = job.osr_sites();
                if was_current {
                    assert_eq!(asked, self.model.borrow_mut().asked_sites(bead, claim), "loops of {bead}");
                }
                let (piece, code) = self.make(made, if made.lacks { &[] } else { &asked }, &relies);
                let installed = self.model.borrow_mut().compiled(bead, claim, tier, piece, job.version());
                let expected =
                    if installed { Expected::Installed(piece) } else { Expected::Discarded(Some(piece)) };
                (Some(Ok(code)), expected)
            }
            What::InVain(number) if !self.model.borrow().assumptions.is_empty() => {
                let mut model = self.model.borrow_mut();
                let assumption = model.assumptions[usize::from(number) % model.assumptions.len()].0;
                model.in_vain(bead, claim, tier);
                (Some(Err(CompileError::AssumptionBroken(assumption))), Expected::Discarded(None))
            }
            _ => {
                let failed = self.model.borrow_mut().failed(bead, claim, tier);
                let expected = if failed { Expected::Failed } else { Expected::Discarded(None) };
                let result = match what {
                    What::Null => Ok(CompiledCode::new(std::ptr::null())),
                    What::Wide => Ok(CompiledCode::new(std::ptr::without_provenance(1 << 50))),
                    // The rest of a batch is tried once more after a panic, which what is alone here may be.
                    What::Panic if self.setup.batch.is_multiple_of(4) || shot.is_some() => panic_on_purpose(),
                    // In a batch, that is found out at the end of the batch.
                    What::Unfinished if alone => return (None, expected),
                    _ => Err(CompileError::failed("as the operation says")),
                };
                (Some(result), expected)
            }
        }
    }

    /// Names an assumption and includes a body at once, if that is to be. Answers what is left to do, and what the code relies on.
    fn begin(&self, job: &mut Job<'_>, what: What, is_current: bool) -> (What, Vec<usize>) {
        let (bead, mut relies) = (job.bead(), Vec::new());
        let What::Code(mut made) = what else { return (what, relies) };
        let early = made.assumes.filter(|_| made.early).and_then(|number| self.assumption(number));
        if let Some(number) = early {
            made.assumes = None;
            let (assumption, broken) = {
                let model = self.model.borrow();
                let named =
                    model.assumptions.iter().find(|(_, known)| *known == number).expect("it was made");
                (named.0, model.broken[number])
            };
            assert_eq!(job.assume(assumption), !broken);
            relies.extend((!broken).then_some(number));
        }
        if let Some(callee) = made.includes.and_then(|of| self.pick(of)).filter(|&callee| callee != bead) {
            let standing = self.model.borrow_mut().standing(callee, job.tier().get());
            let lives = self.with(callee, |_| ()).is_some();
            assert_eq!(job.include(callee).ok(), lives.then_some(standing.is_some()), "{callee} in {bead}");
            relies.extend(standing);
        }
        if is_current {
            self.with(bead, |function| function.listed.extend(&relies));
        }
        (What::Code(made), relies)
    }
}
