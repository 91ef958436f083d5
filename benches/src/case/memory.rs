//! Resident memory of a function at each stage of its life, in a process of its own.

use super::{Case, InChild, Made, Make, Row, Scale, everyone, once};
use crate::contender::{Contender, Setup};
use crate::measure::{resident, run_cold, trivial_entry};
use crate::target::Target;

pub(super) const CHILD: &str = "memory";

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let functions = scale.pick(1_000_000, 200_000);
    let bytes = |name| Row::of(name, "bytes");
    let rows = vec![vec![
        bytes("registered").target(Target::AtMost(24.0)),
        bytes("called, no code yet"),
        bytes("compiled").target(Target::AtMost(48.0)),
    ]];
    vec![Case::new("memory", rows, move || everyone(&InChild(CHILD, functions))).at_most(1).smaller_on(scale)]
}

/// The stages of one contender, in this process.
pub(super) struct Stages(pub(super) usize);

impl Make for Stages {
    fn make<C: Contender>(&self) -> Made {
        let functions = self.0;
        once(move || Ok(stages::<C>(functions)))
    }
}

fn stages<C: Contender>(functions: usize) -> Vec<f64> {
    let contender = C::new(&Setup::unpromoted(functions + 1));
    let first = contender.register(functions);
    let mut handles = vec![first; functions];
    handles.clear();
    let m = contender.mutator();
    let before = resident();
    let each = || resident().saturating_sub(before) as f64 / functions as f64;
    contender.register_many(0..functions, &mut handles);
    let registered = each();
    run_cold::<C>(&m, &handles);
    let called = each();
    handles.iter().for_each(|handle| contender.install(handle, trivial_entry()));
    let compiled = each();
    drop(m);
    contender.end(handles);
    vec![registered, called, compiled]
}
