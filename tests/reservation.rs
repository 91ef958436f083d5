//! Address space that is refused.

#![allow(unsafe_code)]
#![cfg(target_os = "linux")]

use beadwork::*;

/// Runs `check` in a child process that may have `limit` more bytes of address space than now.
fn with_little_address_space(limit: u64, check: impl FnOnce() -> bool) {
    let now: u64 = std::fs::read_to_string("/proc/self/statm")
        .unwrap()
        .split(' ')
        .next()
        .and_then(|pages| pages.parse::<u64>().ok())
        .unwrap()
        * 4096;
    // SAFETY: the child runs only `check`, which takes no lock of the parent's other threads but the allocator's
    // (which the C library keeps usable in a child), and leaves by `_exit`.
    unsafe {
        match libc::fork() {
            0 => {
                let limit = libc::rlimit { rlim_cur: now + limit, rlim_max: now + limit };
                let limited = libc::setrlimit(libc::RLIMIT_AS, &limit) == 0;
                libc::_exit(if limited && check() { 0 } else { 1 });
            }
            child => {
                assert!(child > 0);
                let mut status = 0;
                assert_eq!(libc::waitpid(child, &mut status, 0), child);
                assert_eq!(status, 0, "the check failed in the child");
            }
        }
    }
}

#[test]
fn a_capacity_that_was_asked_for_and_is_refused_is_a_typed_error_that_says_what_to_set() {
    with_little_address_space(256 << 20, || {
        let Err(error @ BuildError::Reserve { .. }) = Engine::builder().capacity(1 << 28).build() else {
            return false;
        };
        let text = error.to_string();
        text.contains("268435456 beads") && text.contains("ulimit -v") && text.contains(".capacity()")
    });
}

#[test]
fn a_default_capacity_that_is_refused_falls_back_to_a_smaller_one_that_works() {
    with_little_address_space(256 << 20, || {
        let Ok(engine) = Engine::builder().build() else { return false };
        let small = (engine.capacity() as usize) < DEFAULT_CAPACITY;
        small && engine.register(Core::new(1)).is_ok()
    });
}

#[test]
fn a_capacity_out_of_range_is_refused() {
    for capacity in [0, MAX_CAPACITY + 1] {
        assert!(matches!(
            Engine::builder().capacity(capacity).build(),
            Err(BuildError::Capacity { capacity: refused }) if refused == capacity
        ));
    }
}

#[test]
fn too_many_tiers_and_a_null_fallback_are_refused() {
    let tier = || Tier::new(FnBackend::new(|_| Err(CompileError::Unfinished)));
    let full = (0..15).fold(Engine::builder().capacity(64), |builder, _| builder.tier(tier()));
    assert!(full.build().is_ok());
    let over = (0..16).fold(Engine::builder().capacity(64), |builder, _| builder.tier(tier()));
    assert!(matches!(over.build(), Err(BuildError::TooManyTiers { tiers: 16 })));
    assert!(matches!(Engine::builder().fallback(std::ptr::null()).build(), Err(BuildError::NullFallback)));
}
