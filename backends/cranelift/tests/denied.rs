//! Executable memory is refused. Alone in its process, which can never get any after this.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)] // The system call that makes the kernel refuse.

use beadwork::{Engine, Event, Manual, Tier, TierId};
use beadwork_cranelift::{CraneliftBackend, FunctionUnit, InstBuilder};
use std::sync::{Arc, Mutex};

#[test]
fn where_executable_memory_is_refused_functions_fail_with_that_reason_and_go_on_interpreted() {
    const PR_SET_MDWE: i32 = 65;
    const PR_MDWE_REFUSE_EXEC_GAIN: u64 = 1;
    // SAFETY: the call takes integers only.
    if unsafe { libc::prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0u64, 0u64, 0u64) } != 0 {
        return; // a kernel before 6.3 cannot refuse in this way
    }
    let frontend = |unit: &mut FunctionUnit<'_, '_>| {
        unit.begin(&unit.new_signature());
        unit.builder().ins().return_(&[]);
        Ok(())
    };
    let backend = Arc::new(CraneliftBackend::builder().build(frontend).unwrap());
    let errors = Arc::new(Mutex::new(Vec::new()));
    let heard = errors.clone();
    let engine = Engine::builder()
        .inline()
        .capacity(64)
        .tier(Tier::new(backend.clone()).policy(Manual))
        .on_event(move |event| {
            if let Event::Failed { error, .. } = event {
                heard.lock().unwrap().push(error.to_string());
            }
        })
        .build()
        .unwrap();
    let beads: Vec<_> = (0..8).map(|n| engine.register(n.into()).unwrap()).collect();
    for &bead in &beads {
        engine.promote(bead, TierId::BASELINE).unwrap();
    }
    engine.run_pending(usize::MAX);

    let errors = errors.lock().unwrap();
    assert_eq!(errors.len(), 8);
    assert!(errors.iter().all(|error| error.contains("executable memory was refused")), "{errors:?}");
    let m = engine.mutator();
    assert!(beads.iter().all(|&bead| m.dispatch(bead).is_none()));
    let stats = backend.stats();
    assert_eq!((stats.failed, stats.split), (8, 0), "the kernel is asked once per batch");
}
