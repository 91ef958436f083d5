//! The end of very many functions at once, and what starting and ending costs when nothing is in between.

use super::{Case, InChild, Made, Make, Row, Scale, everyone, once, size};
use crate::contender::{Contender, Setup, Who};
use crate::measure::{busy_nanos, wall_nanos};
use crate::target::Target;

pub(super) const DROP: &str = "drop";
pub(super) const END: &str = "end";

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let functions = scale.pick(10_000_000, 2_000_000);
    let all = vec![vec![Row::nanos("drop all").target(Target::TimesOf(Who::Raw, 2.0))]];
    // beadie survives it if all are invalidated and pruned before. The others are dropped.
    let survived = vec![vec![Row::nanos("end all, in a way that is survived")]];
    let empty = vec![vec![Row::of("start", "µs"), Row::of("drop", "µs")]];
    let case = |what: &str, rows, child| {
        let name = format!("{what} {}", size(functions));
        let case = Case::new(name, rows, move || everyone(&InChild(child, functions)));
        case.at_most(scale.pick(3, 1)).smaller_on(scale)
    };
    vec![
        case("drop", all, DROP),
        case("end", survived, END),
        Case::new("start and drop", empty, || everyone(&Empty)),
    ]
}

/// If the contender crashes it takes its process along, and the parent says so.
pub(super) struct EndAll {
    pub(super) functions: usize,
    /// In the contender's own way.
    pub(super) survives: bool,
}

impl Make for EndAll {
    fn make<C: Contender>(&self) -> Made {
        let EndAll { functions, survives } = *self;
        once(move || {
            let contender = C::new(&Setup::unpromoted(functions));
            let mut handles = Vec::with_capacity(functions);
            contender.register_many(0..functions, &mut handles);
            Ok(vec![busy_nanos(functions, || {
                if survives {
                    contender.end(handles);
                } else {
                    drop(handles);
                    drop(contender);
                }
            })])
        })
    }
}

/// With room for a million functions, none of which is there yet. For raw that is what it takes to map its three arrays and to unmap
/// them, always by the system, as beadwork does with its columns. The map of `DashMap` is what the allocator has at hand or gets.
struct Empty;

impl Make for Empty {
    fn make<C: Contender>(&self) -> Made {
        once(|| {
            let mut contender = None;
            let start = wall_nanos(1_000, || contender = Some(C::new(&Setup::unpromoted(1 << 20))));
            let end = wall_nanos(1_000, || drop(contender));
            Ok(vec![start, end])
        })
    }
}
