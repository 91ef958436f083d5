//! Probes for native entries into loops: code with four of them asked for one it has, for one it lacks, and code that is not
//! there.

use super::{Case, Made, Row, Sample, Scale, Subject, only};
use crate::contender::{Beadie, Beadwork, Contender, Loops, Setup, Who};
use crate::measure::{PLACES, Places, at, busy_nanos, call, every_place, trivial_entry};
use crate::target::Target;
use std::hint::black_box;

const SITES: [u64; 4] = [0x10, 0x24, 0x58, 0x91];

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let probes = scale.pick(8 << 20, 2 << 20);
    let row = |name, least| vec![Row::nanos(name).target(Target::FasterThan(Who::Beadie, least))];
    let rows = vec![row("hit", 2.5), row("miss", 2.5), row("uncompiled", 1.2)];
    let made = move || vec![(Who::Beadwork, make::<Beadwork>(probes)), (Who::Beadie, make::<Beadie>(probes))];
    vec![Case::new("loop entries", rows, move || only(made(), "knows no loops"))]
}

fn make<C: Loops>(probes: usize) -> Made {
    let contender = C::new(&Setup::unpromoted(2));
    let (compiled, cold) = (contender.register(0), contender.register(1));
    contender.install_with_loops(&compiled, trivial_entry(), &SITES);
    let mutator = contender.mutator();
    Ok(Box::new(Probes::<C> { mutator, compiled, cold, probes }))
}

/// A loop over functions and sites.
type Probing<C> = fn(&<C as Contender>::Mutator, &[(<C as Contender>::Handle, u64)]) -> u64;

/// Probes by which a place is tried out.
const TRIAL: usize = 1 << 18;

/// Probes of functions and sites that are read in sequence; what there is for them is looked up.
struct Probes<C: Loops> {
    mutator: C::Mutator,
    compiled: C::Handle,
    cold: C::Handle,
    probes: usize,
}

/// Calls what a probe finds, or what stands for the interpreter. Answers how many found an entry: the code there adds one.
#[inline(never)]
fn run_probes_at<C: Loops, const PLACE: usize>(m: &C::Mutator, order: &[(C::Handle, u64)]) -> u64 {
    at::<PLACE>();
    let (interpreter, mut found, mut x) = (black_box(trivial_entry()), 0, 0);
    for (handle, site) in order {
        match C::probe(m, handle, *site) {
            Some(entry) => found = call(entry, found),
            None => x = call(interpreter, x),
        }
    }
    black_box(x);
    found
}

impl<C: Loops> Probes<C> {
    fn run(&self, handle: &C::Handle, sites: [u64; 4], finds: bool) -> Sample {
        let order: Vec<_> = (0..4096).map(|number| (handle.clone(), sites[number % sites.len()])).collect();
        let places: [Probing<C>; PLACES] = every_place!(run_probes_at, C);
        let best = Places::try_out(|place| {
            (0..TRIAL / order.len()).for_each(|_| _ = places[place](&self.mutator, &order))
        })
        .best;
        let (rounds, mut found) = (self.probes / order.len(), 0);
        let nanos = busy_nanos(rounds * order.len(), || {
            for _ in 0..rounds {
                found += places[best](&self.mutator, &order);
            }
        });
        match found == if finds { (rounds * order.len()) as u64 } else { 0 } {
            true => Ok(vec![nanos]),
            false => Err(format!("found {found} entries")),
        }
    }
}

impl<C: Loops> Subject for Probes<C> {
    fn sample(&mut self, stage: usize) -> Sample {
        match stage {
            0 => self.run(&self.compiled, SITES, true),
            1 => self.run(&self.compiled, SITES.map(|site| site ^ 1), false),
            _ => self.run(&self.cold, SITES, false),
        }
    }
}
