//! beadwork's hot paths, watched by criterion: `cargo bench -p beadwork-bench`. `compare` shows them beside others.

use beadwork_bench::contender::{Beadwork, Contender, Loops, Setup};
use beadwork_bench::measure::{run_cold, run_compiled, shuffled, trivial_entry};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const MANY: usize = 1_000_000;

fn dispatch(c: &mut Criterion) {
    let mut group = c.benchmark_group("dispatch");
    for functions in [1, MANY] {
        let contender = Beadwork::new(&Setup::unpromoted(functions));
        let mut handles = Vec::new();
        contender.register_many(0..functions, &mut handles);
        let (m, order) = (contender.mutator(), shuffled(handles));
        group.throughput(Throughput::Elements(order.len() as u64));
        group.bench_function(format!("cold {functions}"), |b| b.iter(|| run_cold::<Beadwork>(&m, &order)));
        order.iter().for_each(|handle| contender.install(handle, trivial_entry()));
        group.bench_function(format!("compiled {functions}"), |b| {
            b.iter(|| run_compiled::<Beadwork>(&m, &order))
        });
    }
}

fn loops(c: &mut Criterion) {
    let contender = Beadwork::new(&Setup::unpromoted(1));
    let bead = contender.register(0);
    let m = contender.mutator();
    let mut group = c.benchmark_group("loops");
    group.bench_function("back_edge, no entry", |b| b.iter(|| m.back_edge(black_box(bead), black_box(7))));
    contender.install_with_loops(&bead, trivial_entry(), &[3, 5, 7, 9]);
    group.bench_function("osr_entry, hit", |b| b.iter(|| m.osr_entry(black_box(bead), black_box(7))));
}

fn lifecycle(c: &mut Criterion) {
    let mut group = c.benchmark_group("lifecycle");
    group.throughput(Throughput::Elements(10_000));
    let engine = || Beadwork::new(&Setup::unpromoted(10_000));
    group.bench_function("register 10 K in bulk", |b| {
        let fresh = || (engine(), Vec::with_capacity(10_000));
        let register = |(contender, mut beads): (Beadwork, Vec<_>)| {
            contender.register_many(0..10_000, &mut beads);
            // Answered, since dropping an engine takes longer than registering, and is not to be timed.
            (contender, beads)
        };
        b.iter_batched(fresh, register, BatchSize::PerIteration);
    });
    let contender = engine();
    let mut m = contender.mutator();
    group.throughput(Throughput::Elements(1));
    group.bench_function("safepoint", |b| b.iter(|| black_box(&mut m).safepoint()));
}

criterion_group!(benches, dispatch, loops, lifecycle);
criterion_main!(benches);
