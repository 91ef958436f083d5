//! Probes for native entries into loops: code with four of them asked for one it has, for one it lacks, and code that is not
//! there.

use super::{Case, Made, Row, Sample, Scale, Subject, only};
use crate::contender::{Beadie, Beadwork, Loops, Setup, Who};
use crate::measure::{busy_nanos, trivial_entry};
use crate::target::Target;
use std::hint::black_box;

const SITES: [u64; 4] = [0x10, 0x24, 0x58, 0x91];
const MISSING: u64 = 0x33;

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

struct Probes<C: Loops> {
    mutator: C::Mutator,
    compiled: C::Handle,
    cold: C::Handle,
    probes: usize,
}

impl<C: Loops> Probes<C> {
    fn run(&self, handle: &C::Handle, sites: [u64; 4], found: bool) -> f64 {
        let rounds = self.probes / sites.len();
        busy_nanos(rounds * sites.len(), || {
            for _ in 0..rounds {
                for site in black_box(sites) {
                    assert_eq!(C::probe(&self.mutator, black_box(handle), site).is_some(), found);
                }
            }
        })
    }
}

impl<C: Loops> Subject for Probes<C> {
    fn sample(&mut self, stage: usize) -> Sample {
        Ok(vec![match stage {
            0 => self.run(&self.compiled, SITES, true),
            1 => self.run(&self.compiled, [MISSING, MISSING + 0x20, MISSING - 0x30, MISSING + 0x80], false),
            _ => self.run(&self.cold, SITES, false),
        }])
    }
}
