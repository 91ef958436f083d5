//! A backend that compiles as the operations say, and what the model makes of it.

use super::{CURRENT, Inner};
use crate::faults::panic_on_purpose;
use crate::op::{Made, What};
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
        let [job] = jobs else { panic!("batches are of one") };
        let rig = current();
        let (result, expected) = rig.compile(job, None);
        let Some(result) = result else { return };
        let outcome = job.finish(result);
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
    let result = current().compile(job, Some(number)).0;
    result.unwrap_or(Err(CompileError::Unfinished))
}

impl Inner {
    /// Compiles by the next entry of the script. No result means that the job is left unfinished.
    fn compile(
        &self,
        job: &mut Job<'_>,
        shot: Option<usize>,
    ) -> (Option<Result<CompiledCode, CompileError>>, Expected) {
        let (bead, tier) = (job.bead(), job.tier().get());
        let compile = self.script.borrow_mut().pop_front().unwrap_or_default();
        let claim = self.model.borrow_mut().claim(bead, tier);
        let taken = self.with(bead, |function| function.shot.take()).flatten();
        assert_eq!(taken, shot, "the closure that was submitted is what compiles, once");
        let core = self.with(bead, |function| function.core);
        assert_eq!(job.core().ok(), core.map(Core::new));
        let what = self.begin(job, compile.what);

        self.depth.set(self.depth.get() + 1);
        compile.meanwhile.iter().for_each(|op| self.apply(op));
        self.depth.set(self.depth.get() - 1);

        let current = self.model.borrow_mut().holds(bead, claim);
        assert_eq!(job.is_current(), current, "{bead}");
        match what {
            What::Code(made) => {
                let (piece, code) = self.make(made, &job.osr_sites());
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
                    What::Panic => panic_on_purpose(),
                    What::Unfinished => return (None, expected),
                    _ => Err(CompileError::failed("as the operation says")),
                };
                (Some(result), expected)
            }
        }
    }

    /// Names an assumption at once, if it is to be. Answers what is left to do.
    fn begin(&self, job: &mut Job<'_>, what: What) -> What {
        let What::Code(made @ Made { early: true, assumes: Some(number), .. }) = what else { return what };
        let (assumption, broken, number) = {
            let model = self.model.borrow();
            if model.assumptions.is_empty() {
                return what;
            }
            let number = usize::from(number) % model.assumptions.len();
            (model.assumptions[number].0, model.assumptions[number].1, number)
        };
        let holds = job.assume(assumption);
        assert_eq!(holds, !broken);
        if !holds {
            return What::Code(Made { assumes: None, ..made });
        }
        self.with(job.bead(), |function| function.listed = Some(number));
        // The number stays that of this assumption, however many there are by the end.
        What::Code(Made { assumes: Some(number as u8), ..made })
    }
}
