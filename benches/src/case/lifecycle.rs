//! Functions come and go: registering one by one and in bulk, removing, registering again, the end of all. In a process of its
//! own, since memory that somebody used before costs less than what a virtual machine starts with.

use super::{Case, InChild, Made, Make, Row, Scale, everyone, once};
use crate::contender::{Contender, Setup, Who};
use crate::measure::busy_nanos;
use crate::target::Target;

pub(super) const SINGLE: &str = "register";
pub(super) const BULK: &str = "bulk";

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let functions = scale.pick(1_000_000, 200_000);
    let faster = |name, least| Row::nanos(name).target(Target::FasterThan(Who::Beadie, least));
    let single = vec![vec![
        faster("register, one by one", 12.0),
        Row::nanos("remove every second"),
        Row::nanos("register again"),
        Row::nanos("remove the rest"),
    ]];
    let bulk = vec![vec![faster("register in bulk", 25.0)]];
    vec![
        Case::new("register", single, move || everyone(&InChild(SINGLE, functions)))
            .at_most(7)
            .smaller_on(scale),
        Case::new("register in bulk", bulk, move || everyone(&InChild(BULK, functions)))
            .at_most(7)
            .smaller_on(scale),
    ]
}

pub(super) struct OneByOne(pub(super) usize);

impl Make for OneByOne {
    fn make<C: Contender>(&self) -> Made {
        let functions = self.0;
        once(move || {
            let contender = C::new(&Setup::unpromoted(functions * 3 / 2));
            let mut handles: Vec<Option<C::Handle>> = touched(functions);
            let register = busy_nanos(functions, || {
                for (core, handle) in handles.iter_mut().enumerate() {
                    *handle = Some(contender.register(core));
                }
            });
            let half = functions.div_ceil(2);
            let remove = |every: usize, handles: &mut [Option<C::Handle>]| {
                handles
                    .iter_mut()
                    .step_by(every)
                    .filter_map(Option::take)
                    .for_each(|handle| contender.remove(handle));
                contender.collect();
            };
            let removed = busy_nanos(half, || remove(2, &mut handles));
            let again = busy_nanos(half, || {
                for (core, handle) in handles.iter_mut().enumerate().step_by(2) {
                    *handle = Some(contender.register(core));
                }
            });
            let rest = busy_nanos(functions, || remove(1, &mut handles));
            Ok(vec![register, removed, again, rest])
        })
    }
}

pub(super) struct Bulk(pub(super) usize);

impl Make for Bulk {
    fn make<C: Contender>(&self) -> Made {
        let functions = self.0;
        once(move || {
            let contender = C::new(&Setup::unpromoted(functions));
            // Room that was touched before.
            let mut handles: Vec<C::Handle> = Vec::with_capacity(functions);
            let first = contender.register(0);
            handles.resize(functions, first);
            handles.clear();
            let nanos = busy_nanos(functions, || contender.register_many(1..functions, &mut handles));
            contender.end(handles);
            Ok(vec![nanos])
        })
    }
}

/// Room for handles, in memory that was touched before.
fn touched<T>(len: usize) -> Vec<Option<T>> {
    (0..len).map(|_| std::hint::black_box(None)).collect()
}
