//! Dispatch in random order: first of functions without code, then of the same functions with code.

use super::{Case, Made, Make, Row, Sample, Scale, Subject, everyone, size};
use crate::contender::{Contender, Setup, Who};
use crate::measure::{
    PLACES, Places, Run, busy_nanos, every_place, run_cold_at, run_compiled_at, shuffled, trivial_entry,
};
use crate::target::Target;
use std::ops::Range;

const COLD: usize = 0;

/// Calls by which a place is tried out, and up to how many functions: where memory is waited for, places do not show.
const TRIAL: usize = 1 << 18;
const PLACED: usize = 1_000;

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
    let mut rows = vec![vec![cold], vec![compiled]];
    if functions == 1 {
        // Where nothing is waited for, a loop's place shows.
        rows[0].push(Row::nanos("cold, at the third best of 4 places"));
        rows[1].push(Row::nanos("compiled, at the third best of 4 places"));
    }
    Case::new(format!("dispatch {}", size(functions)), rows, move || everyone(&make))
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
        let places = Places { best: 0, third: 0 };
        let subject = Dispatch {
            contender: Some(contender),
            mutator,
            order,
            next: 0,
            places,
            window: self.window,
            functions: self.functions,
        };
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
    functions: usize,
    places: Places,
}

impl<C: Contender> Dispatch<C> {
    fn run(&self, stage: usize, place: usize, part: Range<usize>) {
        let runs: [Run<C>; PLACES] =
            if stage == COLD { every_place!(run_cold_at, C) } else { every_place!(run_compiled_at, C) };
        runs[place](&self.mutator, &self.order[part]);
    }

    fn time(&self, stage: usize, place: usize, part: Range<usize>) -> f64 {
        let rounds = self.window.div_ceil(part.len());
        busy_nanos(rounds * part.len(), || {
            for _ in 0..rounds {
                self.run(stage, place, part.clone());
            }
        })
    }

    fn advance(&mut self) -> Range<usize> {
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
        self.run(stage, 0, 0..self.order.len());
        if self.functions <= PLACED {
            let rounds = TRIAL / self.order.len();
            let all = || 0..self.order.len();
            self.places = Places::try_out(|place| (0..rounds).for_each(|_| self.run(stage, place, all())));
        }
    }

    fn sample(&mut self, stage: usize) -> Sample {
        let Places { best, third } = self.places;
        let warm_up = self.advance();
        self.run(stage, best, warm_up);
        let part = self.advance();
        let mut nanos = vec![self.time(stage, best, part.clone())];
        if self.functions == 1 {
            nanos.push(self.time(stage, third, part));
        }
        Ok(nanos)
    }
}

impl<C: Contender> Drop for Dispatch<C> {
    fn drop(&mut self) {
        if let Some(contender) = self.contender.take() {
            contender.end(std::mem::take(&mut self.order));
        }
    }
}
