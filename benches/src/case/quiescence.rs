//! Safepoints, and how long superseded code waits for them. Nobody else frees code.

use super::{Case, Row, Scale, once, only};
use crate::contender::{Beadwork, Contender, Setup, Who};
use crate::measure::{busy_nanos, trivial_entry};
use beadwork::{CodeOwner, CompiledCode, Reclaim, TierId};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let safepoints = scale.pick(1 << 24, 1 << 22);
    let rows = vec![vec![Row::nanos("safepoint"), Row::nanos("superseded until freed, one thread")]];
    let made = move || once(move || Ok(vec![safepoint(safepoints), grace(safepoints / 256)]));
    let why = "frees no code, so it needs none";
    vec![Case::new("safepoints", rows, move || only(vec![(Who::Beadwork, made())], why))]
}

fn safepoint(count: usize) -> f64 {
    let contender = Beadwork::new(&Setup::unpromoted(1));
    let mut m = contender.mutator();
    busy_nanos(count, || (0..count).for_each(|_| Beadwork::safepoint(std::hint::black_box(&mut m))))
}

/// Counts what comes back.
#[derive(Default)]
struct Freed(AtomicUsize);

impl Reclaim for Freed {
    fn reclaim(&self, tokens: &[u32]) {
        self.0.fetch_add(tokens.len(), Relaxed);
    }
}

fn grace(rounds: usize) -> f64 {
    let contender = Beadwork::new(&Setup::unpromoted(1));
    let (bead, engine, freed) = (contender.register(0), contender.engine(), Arc::new(Freed::default()));
    let mut m = contender.mutator();
    let code = || {
        let owner = CodeOwner::token(freed.clone(), 0);
        CompiledCode::new(trivial_entry()).with_bytes(16).owner(owner)
    };
    engine.install(bead, TierId::BASELINE, code()).expect("it is live");
    busy_nanos(rounds, || {
        for round in 1..=rounds {
            engine.install(bead, TierId::BASELINE, code()).expect("it is live");
            while freed.0.load(Relaxed) < round {
                m.safepoint();
                engine.reclaim();
            }
        }
    })
}
