//! From the call that makes a function hot to the first call that finds code, when the compile takes no time.

use super::{Case, Made, MakeBroker, Row, Sample, Scale, Subject, brokers};
use crate::contender::{Broker, Setup, Who};
use crate::measure::{percentile, trivial_entry};
use crate::target::Target;
use std::time::{Duration, Instant};

const THRESHOLD: u32 = 100;

/// Between two functions, where the broker is to be asleep.
const PAUSE: Duration = Duration::from_millis(2);

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let rows =
        |median, tail| vec![Row::nanos(median).target(Target::TimesOf(Who::Beadie, 0.6)), Row::nanos(tail)];
    let stages = vec![
        rows("one after the other, median", "one after the other, p99"),
        rows("after 2 ms of silence, median", "after 2 ms of silence, p99"),
    ];
    let functions = scale.pick(400, 100);
    vec![Case::new("threshold to code", stages, move || brokers(&Reaction(functions)))]
}

struct Reaction(usize);

impl MakeBroker for Reaction {
    fn make<C: Broker>(&self) -> Made {
        Ok(Box::new(OneByOne::<C> { functions: self.0, contender: std::marker::PhantomData }))
    }
}

struct OneByOne<C> {
    functions: usize,
    contender: std::marker::PhantomData<C>,
}

impl<C: Broker> Subject for OneByOne<C> {
    fn sample(&mut self, stage: usize) -> Sample {
        let functions = if stage == 0 { self.functions } else { self.functions / 4 };
        let compile = &|_| trivial_entry();
        let contender = C::new(&Setup { functions, threshold: THRESHOLD, workers: 1, queue: None, compile });
        let mut handles = Vec::new();
        contender.register_many(0..functions, &mut handles);
        let m = contender.mutator();
        let mut times: Vec<f64> = handles
            .iter()
            .map(|handle| {
                if stage != 0 {
                    std::thread::sleep(PAUSE);
                }
                (1..THRESHOLD).for_each(|_| assert!(C::count(&m, handle)));
                let crossed = Instant::now();
                while C::dispatch(&m, handle).is_none() {
                    std::hint::spin_loop();
                }
                crossed.elapsed().as_nanos() as f64
            })
            .collect();
        drop(m);
        contender.end(handles);
        Ok(vec![percentile(&mut times, 0.5), percentile(&mut times, 0.99)])
    }
}
