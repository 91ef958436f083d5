//! Dispatch in random order: first of functions without code, then of the same functions with code.

use super::{Case, Made, Make, Row, Sample, Scale, Subject, everyone, size};
use crate::contender::{Contender, Setup, Who};
use crate::measure::{busy_nanos, run_cold, run_compiled, shuffled, trivial_entry};
use crate::target::Target;

const COLD: usize = 0;

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let window = scale.pick(1 << 20, 1 << 17);
    [1, 1_000, 100_000, 1_000_000, 4_000_000]
        .map(|functions| {
            let case = case(functions, MakeDispatch { functions, window, quick: scale.quick });
            // As many functions on a quick run, but of more than its window holds not all are called again and again.
            if functions > window { case.smaller_on(scale) } else { case }
        })
        .into()
}

fn case(functions: usize, make: MakeDispatch) -> Case {
    let mut cold = Row::nanos("cold");
    let mut compiled = Row::nanos("compiled");
    match functions {
        1 => {
            cold = cold.target(Target::TimesOf(Who::Raw, 1.9)).target(Target::FasterThan(Who::Beadie, 2.0));
            compiled = compiled.target(Target::TimesOf(Who::Raw, 1.1));
        }
        1_000_000 => {
            cold = cold.target(Target::TimesOf(Who::Raw, 3.0)).target(Target::FasterThan(Who::Beadie, 5.0));
            compiled =
                compiled.target(Target::TimesOf(Who::Raw, 1.35)).target(Target::FasterThan(Who::Beadie, 6.0));
        }
        4_000_000 => compiled = compiled.target(Target::TimesOf(Who::Raw, 1.35)),
        _ => (),
    }
    Case::new(format!("dispatch {}", size(functions)), vec![vec![cold], vec![compiled]], move || {
        everyone(&make)
    })
}

struct MakeDispatch {
    functions: usize,
    window: usize,
    quick: bool,
}

impl Make for MakeDispatch {
    fn make<C: Contender>(&self) -> Made {
        if self.quick && self.functions > 1_000_000 && matches!(C::WHO, Who::DashMap | Who::RwLock) {
            return Err("filling the map takes too long for a quick run".to_owned());
        }
        let contender = C::new(&Setup::unpromoted(self.functions));
        let mut handles = Vec::with_capacity(self.functions);
        contender.register_many(0..self.functions, &mut handles);
        let mutator = contender.mutator();
        let order = shuffled(handles);
        let subject = Dispatch { contender: Some(contender), mutator, order, next: 0, window: self.window };
        Ok(Box::new(subject))
    }
}

struct Dispatch<C: Contender> {
    contender: Option<C>,
    mutator: C::Mutator,
    order: Vec<C::Handle>,
    /// Where the next window begins. Samples go round, so that all functions have their turn however many there are.
    next: usize,
    window: usize,
}

impl<C: Contender> Dispatch<C> {
    fn run(&self, stage: usize, part: std::ops::Range<usize>) {
        let (m, order) = (&self.mutator, &self.order[part]);
        if stage == COLD { run_cold::<C>(m, order) } else { run_compiled::<C>(m, order) }
    }

    fn advance(&mut self) -> std::ops::Range<usize> {
        let first = if self.next >= self.order.len() { 0 } else { self.next };
        self.next = (first + self.window).min(self.order.len());
        first..self.next
    }
}

impl<C: Contender> Subject for Dispatch<C> {
    fn enter(&mut self, stage: usize) {
        if stage != COLD {
            let contender = self.contender.as_ref().expect("there until the end");
            self.order.iter().for_each(|handle| contender.install(handle, trivial_entry()));
        }
        // Everything is touched, and has its first budget.
        self.run(stage, 0..self.order.len());
    }

    fn sample(&mut self, stage: usize) -> Sample {
        let warm_up = self.advance();
        self.run(stage, warm_up);
        let part = self.advance();
        let rounds = self.window.div_ceil(part.len());
        let nanos = busy_nanos(rounds * part.len(), || {
            for _ in 0..rounds {
                self.run(stage, part.clone());
            }
        });
        Ok(vec![nanos])
    }
}

impl<C: Contender> Drop for Dispatch<C> {
    fn drop(&mut self) {
        if let Some(contender) = self.contender.take() {
            contender.end(std::mem::take(&mut self.order));
        }
    }
}
