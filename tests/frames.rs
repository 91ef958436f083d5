//! Frames, scopes and leases: what keeps retired code, and what does not.

#![allow(unsafe_code, reason = "gets a mutator back from a raw handle, as native code's callbacks do")]

mod common;
use beadwork::*;
use common::*;
use std::panic::{AssertUnwindSafe, catch_unwind};

const T1: TierId = TierId::BASELINE;

/// An engine with one function whose code is at `at`, 16 bytes of it.
struct World {
    engine: Engine,
    bead: Bead,
    alive: Alive,
}

impl World {
    fn new() -> World {
        let engine = inline(10, |_| Ok(code()));
        let bead = engine.register(Core::new(0)).unwrap();
        let world = World { engine, bead, alive: Alive::default() };
        world.engine.install(bead, T1, world.alive.code()).unwrap();
        world
    }

    fn invalidate(&self) {
        self.engine.invalidate(self.bead).unwrap();
    }

    fn freed(&self) -> bool {
        self.engine.reclaim();
        self.alive.count() == 0
    }
}

/// An address to which a call inside the function would return.
fn inside() -> usize {
    addr(one).addr() + 8
}

#[test]
fn safepoint_with_frees_all_but_code_that_an_address_lies_in_and_a_plain_safepoint_lets_go_of_it() {
    let world = World::new();
    let mut m = world.engine.mutator();
    world.invalidate();
    m.safepoint_with(&[1, inside(), usize::MAX]);
    assert!(!world.freed());
    m.safepoint_with(&[addr(one).addr() + 16]);
    assert!(!world.freed(), "a call can be the last instruction");
    // No epoch has passed since: the plain safepoint has to look all the same.
    m.safepoint();
    assert!(world.freed());
    world.engine.install(world.bead, T1, world.alive.code()).unwrap();
    world.invalidate();
    m.safepoint_with(&[addr(one).addr() + 17, addr(one).addr() - 1]);
    assert!(world.freed());
}

#[test]
fn the_addresses_of_another_mutator_count_and_end_with_it() {
    let world = World::new();
    let (mut m, mut other) = (world.engine.mutator(), world.engine.mutator());
    world.invalidate();
    other.safepoint_with(&[inside()]);
    m.safepoint_with(&[]);
    assert!(!world.freed());
    other.offline(|| assert!(world.freed(), "offline means no frames"));

    world.engine.install(world.bead, T1, world.alive.code()).unwrap();
    world.invalidate();
    other.safepoint_with(&[inside()]);
    m.safepoint();
    assert!(!world.freed());
    drop(other);
    assert!(world.freed());
}

#[test]
fn inside_a_native_scope_safepoints_only_poll_and_safepoint_with_frees() {
    let world = World::new();
    let mut m = world.engine.mutator();
    let code = m.dispatch(world.bead).unwrap();
    m.native_scope(|raw| {
        // SAFETY: `m` is borrowed by the scope, and this is its thread.
        let mut back = unsafe { Reentered::from_raw(raw) };
        assert_eq!((back.depth(), code.as_ptr()), (1, addr(one)));
        world.invalidate();
        assert!(back.dispatch(world.bead).is_none());
        back.safepoint();
        assert!(!world.freed());
        back.offline(|| assert!(!world.freed()));
        back.native_scope(|raw| {
            // SAFETY: as above.
            let mut deeper = unsafe { Reentered::from_raw(raw) };
            assert_eq!(deeper.depth(), 2);
            deeper.safepoint_with(&[inside(), 77]);
            assert!(!world.freed());
        });
        assert_eq!(back.depth(), 1);
        back.safepoint_with(&[77]);
        assert!(world.freed());
    });
    assert_eq!(m.depth(), 0);
    m.safepoint();
}

#[test]
fn a_raw_handle_survives_a_trip_through_c() {
    let world = World::new();
    let m = world.engine.mutator();
    assert_eq!(RawMutator::from_ptr(std::ptr::null_mut()), None);
    let raw = RawMutator::from_ptr(m.as_raw().as_ptr()).unwrap();
    assert_eq!(raw, m.as_raw());
    // SAFETY: `m` is there and stays where it is, and this is its thread.
    let back = unsafe { Reentered::from_raw(raw) };
    assert!(back.code(world.bead).is_some());
}

#[test]
fn a_callback_from_an_offline_wait_is_online_until_it_returns() {
    let world = World::new();
    let mut m = world.engine.mutator();
    m.offline_native(|raw| {
        // SAFETY: the mutator is only used through `raw` until this returns, and this is its thread.
        let back = unsafe { Reentered::from_raw(raw) };
        assert!(back.dispatch(world.bead).is_some());
        world.invalidate();
        assert!(!world.freed());
        drop(back);
        assert!(world.freed());
    });
}

#[test]
fn p13_a_panic_that_unwinds_native_scopes_closes_them() {
    let world = World::new();
    let mut m = world.engine.mutator();
    world.invalidate();
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        m.native_scope(|_| m.native_scope(|_| panic!("{}", m.depth())));
    }));
    assert_eq!(unwound.unwrap_err().downcast_ref::<String>().unwrap(), "2");
    assert_eq!(m.depth(), 0);
    m.safepoint();
    assert!(world.freed());
}

#[test]
fn scopes_left_open_hold_everything_back_until_they_are_unwound() {
    let world = World::new();
    let mut m = world.engine.mutator();
    let outside = m.enter_native();
    let _ = (m.enter_native(), m.enter_native());
    assert_eq!((outside, m.depth()), (0, 3));
    world.invalidate();
    m.safepoint();
    m.offline(|| assert!(!world.freed()));
    m.unwind_to(7);
    assert_eq!(m.depth(), 3, "never opens any");
    m.unwind_to(1);
    m.safepoint();
    assert!(!world.freed());
    m.unwind_to(outside);
    m.safepoint();
    assert!(world.freed());
}

#[test]
fn a_scope_closes_what_was_left_open_inside_it() {
    let world = World::new();
    let m = world.engine.mutator();
    m.native_scope(|_| {
        let _ = (m.enter_native(), m.enter_native());
    });
    assert_eq!(m.depth(), 0);
}

#[test]
fn a_lease_keeps_code_across_safepoints_and_threads_and_its_last_clone_lets_it_go() {
    let world = World::new();
    let mut m = world.engine.mutator();
    let lease = m.lease(world.bead).unwrap();
    assert!(lease.is_current());
    world.invalidate();
    m.safepoint();
    assert!(!world.freed() && !lease.is_current());
    assert_eq!((lease.as_ptr(), lease.bead()), (addr(one), world.bead));
    let clone = lease.clone();
    std::thread::spawn(move || drop(lease)).join().unwrap();
    assert!(!world.freed());
    drop(clone);
    assert!(world.freed());
    assert!(m.lease(world.bead).is_none() && world.engine.lease(world.bead).is_none());
}

#[test]
fn dropping_the_last_lease_wakes_a_worker_that_frees() {
    let alive = Alive::default();
    let compiled = alive.clone();
    let engine = Engine::builder()
        .workers(1)
        .tier(Tier::new(FnBackend::new(move |_| Ok(compiled.code()))))
        .build()
        .unwrap();
    let bead = engine.register(Core::new(0)).unwrap();
    engine.promote(bead, T1).unwrap();
    engine.drain(LONG).unwrap();
    let lease = engine.lease(bead).unwrap();
    engine.invalidate(bead).unwrap();
    engine.drain(LONG).unwrap();
    assert_eq!((engine.reclaim(), alive.count()), (0, 1));
    drop(lease);
    let start = std::time::Instant::now();
    while alive.count() > 0 && start.elapsed() < LONG {
        std::thread::yield_now();
    }
    assert_eq!(alive.count(), 0);
}

#[test]
fn a_lease_keeps_its_engine_and_the_code_outlives_every_other_handle() {
    let world = World::new();
    let (lease, alive) = (world.engine.lease(world.bead).unwrap(), world.alive.clone());
    drop(world);
    assert_eq!(alive.count(), 1);
    assert!(lease.is_current());
    drop(lease);
    assert_eq!(alive.count(), 0);
}

#[test]
fn a_lease_of_a_removed_function_keeps_its_code_and_is_not_of_the_next_one() {
    let world = World::new();
    let lease = world.engine.lease(world.bead).unwrap();
    world.engine.remove(world.bead).unwrap();
    let next = world.engine.register(Core::new(1)).unwrap();
    assert_eq!(next.index(), world.bead.index());
    assert!(!world.freed() && !lease.is_current());
    assert!(world.engine.lease(world.bead).is_none());
    drop(lease);
    assert!(world.freed());
}
