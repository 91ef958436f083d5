//! Very many functions become hot at once, and their compile takes no time: what is left is the broker's own work.

use super::{Case, Made, MakeBroker, Row, Scale, brokers, once};
use crate::contender::{Broker, Setup, Who};
use crate::measure::{run_cold, thread_time, trivial_entry};
use crate::target::Target;
use std::time::{Duration, Instant};

const THRESHOLD: u32 = 3;

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let functions = scale.pick(100_000, 50_000);
    let rows = || {
        vec![vec![
            Row::nanos("per function, until it has code").target(Target::FasterThan(Who::Beadie, 3.0)),
            Row::nanos("the mutator's share").target(Target::FasterThan(Who::Beadie, 1.5)),
        ]]
    };
    let case = |name: &str, queue| {
        Case::new(name, rows(), move || brokers(&Pipeline { functions, queue })).smaller_on(scale)
    };
    vec![
        case("promotion pipeline", None),
        // beadie's queue refuses what is more than 256; here it holds all.
        case("promotion pipeline, beadie with a long queue", Some(functions)),
    ]
}

struct Pipeline {
    functions: usize,
    queue: Option<usize>,
}

impl MakeBroker for Pipeline {
    fn make<C: Broker>(&self) -> Made {
        let (functions, queue) = (self.functions, self.queue);
        once(move || {
            let compile = &|_| trivial_entry();
            let contender = C::new(&Setup { functions, threshold: THRESHOLD, workers: 1, queue, compile });
            let mut handles = Vec::with_capacity(functions);
            contender.register_many(0..functions, &mut handles);
            let m = contender.mutator();
            (1..THRESHOLD).for_each(|_| run_cold::<C>(&m, &handles));
            let (wall, share) = promote_all(&contender, &m, &handles);
            drop(m);
            contender.end(handles);
            Ok([wall, share].map(|time| time.as_nanos() as f64 / functions as f64).into())
        })
    }
}

/// Calls all functions, and those again that have no code when the broker has nothing more to do, until all have. Answers how
/// long that took, and the mutator's time in rounds in which some had none.
fn promote_all<C: Broker>(contender: &C, m: &C::Mutator, handles: &[C::Handle]) -> (Duration, Duration) {
    let mut waiting = handles.to_vec();
    let mut left = waiting.len();
    let (start, mut share) = (Instant::now(), Duration::ZERO);
    loop {
        let (round, mut without) = (thread_time(), 0);
        for place in 0..left {
            if C::dispatch(m, &waiting[place]).is_none() {
                // Sorted out without dropping any, which is no part of the work.
                waiting.swap(without, place);
                without += 1;
            }
        }
        if without == 0 {
            return (start.elapsed(), share);
        }
        share += thread_time() - round;
        left = without;
        contender.settle(&waiting[..left]);
    }
}
