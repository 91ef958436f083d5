//! What a function costs in resident memory. One test in a binary of its own, so that nothing else moves the figure.
#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "asks the allocator to give back what is free")]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use beadwork::{Bead, CodeOwner, CompiledCode, Core, Engine, FnBackend, Reclaim, Threshold, Tier, TierId};

const FUNCTIONS: usize = 1_000_000;
/// Calls at which a function is compiled.
const CALLS: u32 = 3;
/// The most a registered function may take, in bytes.
const REGISTERED: usize = 24;
/// The most a compiled function may take in all, in bytes, without its code.
const COMPILED: usize = 48;

/// Counts what comes back.
#[derive(Default)]
struct Freed(AtomicU32);

impl Reclaim for Freed {
    fn reclaim(&self, tokens: &[u32]) {
        self.0.fetch_add(tokens.len() as u32, Relaxed);
    }
}

fn resident() -> usize {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// What the requests took is free by now, but the allocator may keep it: that is no part of a function.
fn give_back_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[test]
fn a_registered_bead_takes_at_most_24_bytes_and_a_compiled_one_48() {
    let freed = Arc::new(Freed::default());
    let owner: Arc<dyn Reclaim> = freed.clone();
    let backend = FnBackend::new(move |job| {
        let number = job.core()?.get();
        // Never called, so any address will do.
        let entry = std::ptr::without_provenance(0x1000 + 16 * number);
        Ok(CompiledCode::new(entry).owner(CodeOwner::token(owner.clone(), number as u32)).with_bytes(16))
    });
    let engine = Engine::builder()
        .capacity(FUNCTIONS)
        .tier(Tier::new(backend).policy(Threshold::new(CALLS)))
        // On a busy machine the first requests wait long for the last ones.
        .cold_after(Duration::MAX)
        .inline()
        .build()
        .unwrap();
    // The test's own memory, touched before anything is measured.
    let mut beads: Vec<Option<Bead>> = vec![None; FUNCTIONS];
    let stray = Bead::from_bits(1 << 32);
    beads.fill(stray);
    // Whatever is allocated at the first request, at the first compile, or by asking.
    let first = engine.register(Core::new(0)).unwrap();
    engine.promote(first, TierId::BASELINE).unwrap();
    assert_eq!(engine.run_pending(usize::MAX), 1);

    let start = resident();
    let runs = engine.register_many((1..FUNCTIONS).map(Core::new)).unwrap();
    let registered = resident().saturating_sub(start);
    for (place, bead) in beads.iter_mut().zip(runs.iter()) {
        *place = Some(bead);
    }
    assert!(registered > FUNCTIONS, "{registered} bytes in all: that was not measured");
    assert!(registered <= REGISTERED * FUNCTIONS, "registered: {} bytes each", registered / FUNCTIONS);

    // Every function gets hot, and none is compiled before all are: what the requests leave behind is found, too.
    let m = engine.mutator();
    for _ in 0..CALLS {
        assert!(beads.iter().take(FUNCTIONS - 1).flatten().all(|&bead| m.dispatch(bead).is_none()));
    }
    drop(m);
    let queued = resident().saturating_sub(start);
    assert_eq!(engine.run_pending(usize::MAX), FUNCTIONS - 1);
    give_back_free_memory();
    let compiled = resident().saturating_sub(start);
    assert_eq!(engine.stats().installed as usize, FUNCTIONS);
    println!(
        "bytes each: {:.1} registered, {:.1} queued, {:.1} compiled",
        registered as f64 / FUNCTIONS as f64,
        queued as f64 / FUNCTIONS as f64,
        compiled as f64 / FUNCTIONS as f64
    );
    assert!(
        compiled <= COMPILED * FUNCTIONS,
        "compiled: {} bytes each ({} while all were queued)",
        compiled / FUNCTIONS,
        queued / FUNCTIONS
    );
    drop(engine);
    assert_eq!(freed.0.load(Relaxed) as usize, FUNCTIONS, "owners are left");
}
