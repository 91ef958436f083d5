//! What a mutator feels of compiles: every single dispatch is timed while ten thousand functions become hot and are compiled.

use super::{Case, Made, MakeBroker, Row, Scale, brokers, once};
use crate::contender::{Broker, Setup, Who};
use crate::measure::{percentile, shuffled, spin, trivial_entry};
use crate::target::Target;
use std::time::{Duration, Instant};

const THRESHOLD: u32 = 20;

/// What a compile takes.
const COMPILE: Duration = Duration::from_micros(10);

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let functions = scale.pick(10_000, 4_000);
    let rows = vec![
        Row::nanos("p50"),
        Row::nanos("p99"),
        Row::nanos("p99.9").target(Target::TimesOf(Who::Beadie, 1.1)),
        Row::nanos("longest"),
    ];
    vec![Case::new("dispatch while 10 K compile", vec![rows], move || brokers(&Pauses(functions)))]
}

struct Pauses(usize);

impl MakeBroker for Pauses {
    fn make<C: Broker>(&self) -> Made {
        let functions = self.0;
        once(move || {
            let compile = &|_| {
                spin(COMPILE);
                trivial_entry()
            };
            let contender =
                C::new(&Setup { functions, threshold: THRESHOLD, workers: 1, queue: None, compile });
            let mut handles = Vec::new();
            contender.register_many(0..functions, &mut handles);
            let m = contender.mutator();
            let order = shuffled(handles);
            let mut times = Vec::with_capacity(1 << 24);
            let mut cold = true;
            while cold && times.len() + order.len() < times.capacity() {
                cold = false;
                for handle in &order {
                    let start = Instant::now();
                    cold |= C::dispatch(&m, handle).is_none();
                    times.push(start.elapsed().as_nanos() as f64);
                }
            }
            drop(m);
            contender.end(order);
            Ok([0.5, 0.99, 0.999, 1.0].map(|share| percentile(&mut times, share)).into())
        })
    }
}
