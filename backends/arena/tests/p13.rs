//! P13: code freed while a thread runs it. Real code, in memory that becomes inaccessible when it is freed.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(unsafe_code)]

mod common;

use beadwork::{
    BailoutInfo, Bead, CodeOwner, CompiledCode, Core, Engine, FnBackend, Job, Mutator, Reclaim, Reentered,
    Threshold, Tier, TierId, TieredDeopt,
};
use beadwork_arena::{Aliasing, Arena, BlockToken};
use common::{call, function, line_of, place_one, returns};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

const FUNCTIONS: usize = 1_000;
const T1: TierId = TierId::BASELINE;

/// Changes of code in all; a million with `BEADWORK_STRESS=1000000`, which takes a minute or so.
const CHANGES: usize = 100_000;

/// Retired pieces at which the test's threads wait for those that free, as a VM would.
const MOST_RETIRED: u64 = 20_000;

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn freed_memory_becomes_inaccessible_and_its_address_is_not_used_again() {
    for aliasing in [Aliasing::DualMapped, Aliasing::Private] {
        let builder = Arena::builder().aliasing(aliasing).poison_freed(true).region_bytes(1 << 16);
        let (arena, mut freed) = (builder.build().expect("Linux"), Vec::new());
        for value in 0..100 {
            let block = place_one(&arena, &returns(value, 40));
            assert_eq!(call(block.entry()), value);
            assert!(!freed.contains(&block.entry()), "an address was used again");
            freed.push(block.entry());
        }
        let live = place_one(&arena, &returns(7, 5_000));
        for entry in freed {
            assert_eq!(&line_of(entry).expect("kept").access[..3], "---", "{aliasing:?}");
        }
        assert_eq!(call(live.entry()), 7);
        let stats = arena.stats();
        assert_eq!((stats.live_blocks, stats.resident_bytes), (1, 8192), "{aliasing:?}");
    }
}

/// Frees to the arena, and counts. The arena refuses a token that was freed before.
struct Frees {
    arena: Arena,
    placed: AtomicUsize,
    freed: AtomicUsize,
    refused: AtomicUsize,
}

impl Reclaim for Frees {
    fn reclaim(&self, tokens: &[u32]) {
        let blocks: Vec<_> = tokens.iter().copied().map(BlockToken::from_bits).collect();
        match self.arena.free_many(&blocks) {
            Ok(_) => self.freed.fetch_add(blocks.len(), SeqCst),
            Err(_) => self.refused.fetch_add(1, SeqCst),
        };
    }
}

impl Frees {
    /// Code that answers `value`.
    fn compile(self: &Arc<Self>, value: usize) -> CompiledCode {
        let code = returns(value as u32, 32);
        let block = self.arena.place(&[function("f", &code)]).expect("room").remove(0);
        self.placed.fetch_add(1, SeqCst);
        let entry = block.entry();
        let owner = CodeOwner::token(self.clone(), block.into_token().to_bits());
        CompiledCode::new(entry).with_bytes(32).owner(owner)
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % end
    }
}

/// Tiers up, reloads, bails out, takes back; waits when much is waiting to be freed.
fn change(engine: &Engine, frees: &Arc<Frees>, beads: &[Bead], mut random: Random, changes: usize) {
    let t2 = TierId::new(2).expect("in range");
    for done in 0..changes {
        let at = random.below(FUNCTIONS);
        match random.below(10) {
            0 => engine.invalidate(beads[at]).expect("live"),
            8 => drop(engine.reload(beads[at]).expect("live")),
            9 => {
                // Often that of the code; if not, nothing happens.
                let version = engine.version(beads[at]).expect("live");
                engine.bailout(beads[at], BailoutInfo::new(version)).expect("live");
            }
            1 => engine.promote(beads[at], T1).expect("live"),
            2 => engine.promote(beads[at], t2).expect("live"),
            3..5 => drop(engine.install(beads[at], t2, frees.compile(at))),
            _ => drop(engine.install(beads[at], T1, frees.compile(at))),
        }
        if done % 64 == 0 && engine.stats().retired > MOST_RETIRED {
            let start = Instant::now();
            while engine.stats().retired > MOST_RETIRED / 2 {
                engine.reclaim();
                assert!(start.elapsed() < LONG, "retired code is not freed: {:?}", engine.laggards());
                thread::yield_now();
            }
        }
    }
}

/// Dispatches and runs, with safepoints between.
fn run(m: &mut Mutator, beads: &[Bead], random: &mut Random) -> usize {
    let mut ran = 0;
    for _ in 0..=random.below(4) {
        let at = random.below(FUNCTIONS);
        if let Some(code) = m.dispatch(beads[at]) {
            assert_eq!(call(code.as_ptr()) as usize, at);
            ran += 1;
        }
    }
    m.safepoint();
    ran
}

/// Stays in code across safepoints that name it, as a frame does whose callee calls back.
fn run_with_frames(m: &mut Mutator, beads: &[Bead], random: &mut Random) -> usize {
    let (outer, inner) = (random.below(FUNCTIONS), random.below(FUNCTIONS));
    let Some(frame) = m.dispatch(beads[outer]) else { return 0 };
    m.native_scope(|raw| {
        // SAFETY: `m` is borrowed by the scope, this is its thread, and the only frame is named below.
        let mut back = unsafe { Reentered::from_raw(raw) };
        // What the others free now and then is freed under this frame for certain.
        back.engine().invalidate(beads[outer]).expect("live");
        for _ in 0..4 {
            if let Some(code) = back.dispatch(beads[inner]) {
                assert_eq!(call(code.as_ptr()) as usize, inner);
            }
            back.safepoint_with(&[frame.addr() as usize + 5]);
            back.safepoint();
            back.engine().reclaim();
            assert_eq!(call(frame.as_ptr()) as usize, outer, "the frame returns into its code");
        }
    });
    m.safepoint();
    1
}

/// Keeps code by leases while safepoints pass.
fn run_leased(m: &mut Mutator, beads: &[Bead], random: &mut Random) -> usize {
    let at = random.below(FUNCTIONS);
    let Some(lease) = m.lease(beads[at]) else { return 0 };
    m.engine().invalidate(beads[at]).expect("live");
    for _ in 0..4 {
        run(m, beads, random);
        m.engine().reclaim();
        assert_eq!(call(lease.as_ptr()) as usize, at);
    }
    1
}

/// What the process holds in memory.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number") * 4096
}

/// Four threads change code, two run it; answers how often it was run.
fn one_round(engine: &Engine, frees: &Arc<Frees>, beads: &[Bead], changes: usize, round: u64) -> usize {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let runners = [11, 12].map(|seed| {
            let done = &done;
            scope.spawn(move || {
                let (mut m, mut random, mut ran) = (engine.mutator(), Random(seed + round * 100), 0);
                while !done.load(SeqCst) {
                    ran += match random.below(16) {
                        0 => run_leased(&mut m, beads, &mut random),
                        1 => run_with_frames(&mut m, beads, &mut random),
                        _ => run(&mut m, beads, &mut random),
                    };
                }
                ran
            })
        });
        let changers = [1, 2, 3, 4].map(|seed| {
            let random = Random(seed + round * 100);
            scope.spawn(move || change(engine, frees, beads, random, changes / 4))
        });
        let changed = changers.map(|changer| changer.join());
        done.store(true, SeqCst);
        assert!(changed.iter().all(Result::is_ok));
        runners.map(|runner| runner.join().expect("ran its own code")).iter().sum()
    })
}

#[test]
fn p13_no_thread_runs_freed_code_under_promotion_reloads_and_bailouts_and_every_owner_is_freed_once() {
    let changes =
        std::env::var("BEADWORK_STRESS").ok().and_then(|count| count.parse().ok()).unwrap_or(CHANGES);
    let arena = Arena::builder().poison_freed(true).unwind(false).build().expect("Linux");
    let frees = Arc::new(Frees {
        arena,
        placed: AtomicUsize::new(0),
        freed: AtomicUsize::new(0),
        refused: AtomicUsize::new(0),
    });
    let tier = || {
        let frees = frees.clone();
        FnBackend::new(move |job: &mut Job<'_>| Ok(frees.compile(job.core()?.get())))
    };
    let engine = Engine::builder()
        .workers(1)
        // Reverts without end, so that baseline code is held and brought back all the time.
        .deopt(TieredDeopt::new(u32::MAX, u32::MAX))
        .deopt_governor(false)
        .tier(Tier::new(tier()).policy(Threshold::new(50)))
        .tier(Tier::new(tier()).policy(Threshold::new(500)))
        .build()
        .expect("address space");
    let beads: Vec<Bead> =
        engine.register_many((0..FUNCTIONS).map(Core::new)).expect("room").iter().collect();
    // A first round, after which memory has the size it needs, and a second.
    let (mut ran, mut resident) = (0, Vec::new());
    for round in 0..2 {
        ran += one_round(&engine, &frees, &beads, changes / 2, round);
        engine.drain(LONG).expect("ends");
        engine.reclaim();
        let live = {
            let m = engine.mutator();
            beads.iter().filter(|&&bead| m.code(bead).is_some()).count()
        };
        let (placed, freed) = (frees.placed.load(SeqCst), frees.freed.load(SeqCst));
        let live = live + engine.stats().deopts.held as usize;
        assert_eq!(
            (placed - freed, engine.stats().retired),
            (live, 0),
            "memory is what is installed or held"
        );
        let stats = frees.arena.stats();
        assert_eq!((stats.live_blocks, stats.resident_bytes), (live, live * 4096));
        resident.push(resident_bytes());
    }
    assert!(resident[1] < resident[0] + (16 << 20), "memory grows: {resident:?}");
    let deopts = engine.stats().deopts;
    assert!(deopts.bailouts > 100 && deopts.reverts > 10, "{deopts:?}");
    let placed = frees.placed.load(SeqCst);
    assert!(ran > 1_000 && placed > changes / 2, "ran {ran}, placed {placed}");
    drop(engine);
    assert_eq!((frees.freed.load(SeqCst), frees.refused.load(SeqCst)), (placed, 0), "each owner once");
}
