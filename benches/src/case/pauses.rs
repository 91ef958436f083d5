//! What a mutator feels of compiles: every single dispatch is timed while thousands of functions become hot and are compiled.

use super::{Case, Made, MakeBroker, Row, Scale, brokers, once, size};
use crate::contender::{Broker, Setup, Who};
use crate::measure::{percentile, shuffled, spin, trivial_entry};
use crate::target::Target;
use std::time::{Duration, Instant};

const THRESHOLD: u32 = 20;

/// What a compile takes.
const COMPILE: Duration = Duration::from_micros(10);

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let functions = scale.pick(10_000, 4_000);
    let rows = || {
        vec![vec![
            Row::nanos("p50"),
            Row::nanos("p99"),
            Row::nanos("p99.9").target(Target::TimesOf(Who::Beadie, 1.1)),
            Row::nanos("longest"),
        ]]
    };
    let case = |name: String, queue| {
        Case::new(name, rows(), move || brokers(&Pauses { functions, queue })).smaller_on(scale)
    };
    let name = format!("dispatch while {} compile", size(functions));
    vec![
        case(name.clone(), None),
        // beadie's queue refuses what is more than 256, and is asked again at each call; here it holds all.
        case(format!("{name}, beadie with a long queue"), Some(functions)),
    ]
}

struct Pauses {
    functions: usize,
    queue: Option<usize>,
}

impl MakeBroker for Pauses {
    fn make<C: Broker>(&self) -> Made {
        let (functions, queue) = (self.functions, self.queue);
        once(move || {
            let compile = &|_| {
                spin(COMPILE);
                trivial_entry()
            };
            let contender = C::new(&Setup { functions, threshold: THRESHOLD, workers: 1, queue, compile });
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
