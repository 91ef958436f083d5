//! Two threads at once: on functions of their own, on the same one, and on neighbours.

use super::{Case, Made, Make, Row, Sample, Scale, Subject, everyone};
use crate::contender::{Contender, Setup, Who};
use crate::measure::{Together, run_cold, run_compiled, shuffled, together, trivial_entry};
use crate::target::Target;

/// Functions of each thread, where it has its own.
const OWN: usize = 1_000;

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let calls = scale.pick(4 << 20, 1 << 20);
    let rows = |same: Row, shared: Row| {
        vec![vec![same], vec![Row::nanos("neighbours")], vec![Row::nanos("distinct"), shared]]
    };
    let beside = Row::of("distinct, against one thread alone", "×");
    let cold = rows(Row::nanos("same function").target(Target::FasterThan(Who::Beadie, 2.5)), beside.clone());
    // Two threads are to do at least 1.9 times as much as one.
    let compiled = rows(Row::nanos("same function"), beside.target(Target::AtMost(2.0 / 1.9)));
    let case = |name: &str, rows, compiled| {
        Case::new(name, rows, move || everyone(&MakeThreads { calls, compiled }))
    };
    vec![case("two threads, cold", cold, false), case("two threads, compiled", compiled, true)]
}

struct MakeThreads {
    calls: usize,
    compiled: bool,
}

impl Make for MakeThreads {
    fn make<C: Contender>(&self) -> Made {
        let contender = C::new(&Setup::unpromoted(2 * OWN));
        let mut handles = Vec::new();
        contender.register_many(0..2 * OWN, &mut handles);
        if self.compiled {
            handles.iter().for_each(|handle| contender.install(handle, trivial_entry()));
        }
        let (calls, compiled) = (self.calls, self.compiled);
        Ok(Box::new(Threads { contender: Some(contender), handles, calls, compiled }))
    }
}

struct Threads<C: Contender> {
    contender: Option<C>,
    handles: Vec<C::Handle>,
    calls: usize,
    compiled: bool,
}

impl<C: Contender> Threads<C> {
    fn run(&self, m: &C::Mutator, order: &[C::Handle]) {
        if self.compiled { run_compiled::<C>(m, order) } else { run_cold::<C>(m, order) }
    }

    /// As many threads as there are orders, at once; answers what a call took on average.
    fn all(&self, orders: &[Vec<C::Handle>]) -> Together {
        let contender = self.contender.as_ref().expect("there until the end");
        let (rounds, each) = (self.calls.div_ceil(orders[0].len()), orders[0].len());
        let prepare = |order: &Vec<C::Handle>| {
            let m = contender.mutator();
            // Everything is touched, and has its first budget.
            self.run(&m, order);
            (m, order.clone())
        };
        let took = together(orders, prepare, |(m, order)| (0..rounds).for_each(|_| self.run(m, order)));
        let calls = (rounds * each) as f64;
        Together { busy: took.busy / calls, wall: took.wall / calls }
    }

    /// Handles from `first` on, every `step`th.
    fn part(&self, first: usize, count: usize, step: usize) -> Vec<C::Handle> {
        shuffled(self.handles.iter().skip(first).step_by(step).take(count).cloned().collect())
    }
}

impl<C: Contender> Subject for Threads<C> {
    fn sample(&mut self, stage: usize) -> Sample {
        Ok(match stage {
            0 => vec![self.all(&[self.part(0, 1, 1), self.part(0, 1, 1)]).busy],
            1 => vec![self.all(&[self.part(0, 1, 1), self.part(1, 1, 1)]).busy],
            _ => {
                let own = [self.part(0, OWN, 1), self.part(OWN, OWN, 1)];
                let (alone, together) = (self.all(&own[..1]), self.all(&own));
                // By the clock on the wall: two threads that take turns on a core do not do twice as much.
                vec![together.busy, together.wall / alone.wall]
            }
        })
    }
}

impl<C: Contender> Drop for Threads<C> {
    fn drop(&mut self) {
        if let Some(contender) = self.contender.take() {
            contender.end(std::mem::take(&mut self.handles));
        }
    }
}
