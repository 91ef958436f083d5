//! The cases: each is one piece of work, written once for all contenders that can do it.

mod code_memory;
mod dispatch;
mod ends;
mod layout;
mod lifecycle;
mod loops;
mod memory;
mod native;
mod pauses;
mod pipeline;
mod quiescence;
mod reaction;
pub(crate) mod resident;
mod threads;
mod throughput;

use crate::child;
use crate::contender::{Beadie, Beadwork, Broker, Contender, DashMapShape, Raw, RwLockShape, Who};
use crate::target::Target;

/// How much is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scale {
    /// Less of everything, for a look within a minute.
    pub quick: bool,
}

impl Scale {
    /// `full`, or `quick` on a quick run.
    pub fn pick(self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }
}

/// A number of functions, as it stands in names.
fn size(functions: usize) -> String {
    match functions {
        many if many >= 1_000_000 && many.is_multiple_of(1_000_000) => format!("{} M", many / 1_000_000),
        some if some >= 1_000 && some.is_multiple_of(1_000) => format!("{} K", some / 1_000),
        few => few.to_string(),
    }
}

/// A figure for each contender, less being better.
#[derive(Clone, Debug)]
pub struct Row {
    /// What is measured.
    pub name: String,
    /// In what.
    pub unit: &'static str,
    /// What beadwork has to reach.
    pub targets: Vec<Target>,
    /// Whether the contenders' figures are of the same work, so that their ratio says something.
    pub compared: bool,
}

impl Row {
    /// In nanoseconds.
    pub fn nanos(name: impl Into<String>) -> Row {
        Row::of(name, "ns")
    }

    /// In another unit.
    pub fn of(name: impl Into<String>, unit: &'static str) -> Row {
        Row { name: name.into(), unit, targets: Vec::new(), compared: true }
    }

    /// With figures that are of different work for each.
    #[must_use]
    pub fn not_compared(mut self) -> Row {
        self.compared = false;
        self
    }

    /// With a target.
    #[must_use]
    pub fn target(mut self, target: Target) -> Row {
        self.targets.push(target);
        self
    }
}

/// One sample of a stage: a figure for each of its rows, or why there is none.
pub type Sample = Result<Vec<f64>, String>;

/// One contender in one case.
pub trait Subject {
    /// Makes ready for a stage; called once, in order.
    fn enter(&mut self, _stage: usize) {}
    /// Does the work once and answers the figures of the stage's rows.
    fn sample(&mut self, stage: usize) -> Sample;
}

/// A subject that can't take part says why.
pub type Made = Result<Box<dyn Subject>, String>;

/// One piece of work.
pub struct Case {
    /// As given to `--case`.
    pub name: String,
    /// What is measured one after the other with the same subjects.
    pub stages: Vec<Vec<Row>>,
    /// Repetitions there is no use in exceeding.
    pub most_runs: usize,
    /// Whether a quick run has made it smaller than its targets are meant for: not merely shorter.
    pub smaller: bool,
    /// Makes the subjects.
    pub subjects: Box<dyn Fn() -> Vec<(Who, Made)>>,
}

impl Case {
    fn new(
        name: impl Into<String>,
        stages: Vec<Vec<Row>>,
        subjects: impl Fn() -> Vec<(Who, Made)> + 'static,
    ) -> Case {
        Case {
            name: name.into(),
            stages,
            most_runs: usize::MAX,
            smaller: false,
            subjects: Box::new(subjects),
        }
    }

    /// With fewer repetitions than the rest.
    #[must_use]
    fn at_most(mut self, runs: usize) -> Case {
        self.most_runs = runs;
        self
    }

    /// With fewer functions on a quick run.
    #[must_use]
    fn smaller_on(mut self, scale: Scale) -> Case {
        self.smaller = scale.quick;
        self
    }
}

/// All cases, in the order in which they run.
pub fn all(scale: Scale) -> Vec<Case> {
    [
        dispatch::cases(scale),
        threads::cases(scale),
        loops::cases(scale),
        lifecycle::cases(scale),
        memory::cases(scale),
        ends::cases(scale),
        pipeline::cases(scale),
        reaction::cases(scale),
        pauses::cases(scale),
        throughput::cases(scale),
        quiescence::cases(scale),
        native::cases(scale),
        code_memory::cases(scale),
        layout::cases(scale),
        resident::cases(scale),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Makes a subject of any contender.
trait Make {
    fn make<C: Contender>(&self) -> Made;
}

/// Makes a subject of contenders that compile in the background.
trait MakeBroker {
    fn make<C: Broker>(&self) -> Made;
}

fn everyone(of: &impl Make) -> Vec<(Who, Made)> {
    Who::ALL.map(|who| (who, made(who, of))).into()
}

fn brokers(of: &impl MakeBroker) -> Vec<(Who, Made)> {
    let mut made = vec![(Who::Beadwork, of.make::<Beadwork>()), (Who::Beadie, of.make::<Beadie>())];
    for who in [Who::Raw, Who::DashMap, Who::RwLock] {
        made.push((who, Err("compiles nothing by itself".to_owned())));
    }
    made
}

fn made(who: Who, of: &impl Make) -> Made {
    match who {
        Who::Raw => of.make::<Raw>(),
        Who::Beadwork => of.make::<Beadwork>(),
        Who::Beadie => of.make::<Beadie>(),
        Who::DashMap => of.make::<DashMapShape>(),
        Who::RwLock => of.make::<RwLockShape>(),
    }
}

/// One sample of one contender.
fn sample_of(who: Who, of: &impl Make) -> Sample {
    made(who, of)?.sample(0)
}

/// Figures of a process of its own, by what it does and to how many functions.
struct InChild(&'static str, usize);

impl Make for InChild {
    fn make<C: Contender>(&self) -> Made {
        let InChild(what, functions) = *self;
        once(move || child::figures(what, C::WHO, functions))
    }
}

/// The child's side.
pub fn in_child(what: &str, who: Who, functions: usize) -> Sample {
    match what {
        memory::CHILD => sample_of(who, &memory::Stages(functions)),
        ends::DROP => sample_of(who, &ends::EndAll { functions, survives: false }),
        ends::END => sample_of(who, &ends::EndAll { functions, survives: true }),
        lifecycle::SINGLE => sample_of(who, &lifecycle::OneByOne(functions)),
        lifecycle::BULK => sample_of(who, &lifecycle::Bulk(functions)),
        _ => Err(format!("nothing is called {what}")),
    }
}

/// A case that only some take part in.
fn only(mut made: Vec<(Who, Made)>, why_others_do_not: &str) -> Vec<(Who, Made)> {
    for who in Who::ALL {
        if made.iter().all(|(other, _)| *other != who) {
            made.push((who, Err(why_others_do_not.to_owned())));
        }
    }
    made
}

/// A subject that is one closure.
struct Once<F>(F);

impl<F: FnMut() -> Sample> Subject for Once<F> {
    fn sample(&mut self, _: usize) -> Sample {
        (self.0)()
    }
}

fn once(sample: impl FnMut() -> Sample + 'static) -> Made {
    Ok(Box::new(Once(sample)))
}
