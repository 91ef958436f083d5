//! Counting in native code: the VM's runtime, and what comes of engines of two tiers, the first of which counts itself.

use beadwork::{
    Bead, CallSite, Core, Engine, ITERATIONS_PER_CALL, Mutator, Profile, RawMutator, Reentered, TierId,
};
use beadwork_object::ITERATIONS_PER_REPORT;
use std::sync::Mutex;

pub const T1: TierId = TierId::BASELINE;

pub fn t2() -> TierId {
    TierId::new(2).unwrap()
}

pub extern "C" fn count_call(context: RawMutator, bits: u64) {
    // SAFETY: the native code of these tests passes on what it got inside `native_scope`.
    unsafe { Reentered::from_raw(context) }.native_call(Bead::from_bits(bits).unwrap());
}

pub extern "C" fn count_loop(context: RawMutator, bits: u64, site: u64, iterations: u32) {
    assert_eq!((site, iterations), (7, ITERATIONS_PER_REPORT));
    // SAFETY: as above.
    let m = unsafe { Reentered::from_raw(context) };
    m.native_iterations(Bead::from_bits(bits).unwrap(), site, iterations);
}

pub extern "C" fn count_target(context: RawMutator, site: u32, callee: u64) {
    // SAFETY: as above.
    let m = unsafe { Reentered::from_raw(context) };
    m.native_target(CallSite::from_bits(site), Bead::from_bits(callee).unwrap());
}

pub fn compile(engine: &Engine, bead: Bead, tier: TierId) {
    engine.promote(bead, tier).unwrap();
    engine.run_pending(usize::MAX);
    assert_eq!(engine.tier(bead), Ok(tier), "{:?}", engine.fault(bead, tier));
}

/// Calls native code of the type `(context, x) -> x`.
pub fn call(m: &Mutator, bead: Bead, x: i64) -> i64 {
    let code = m.code(bead).unwrap();
    // SAFETY: the frontends of these tests declare functions of this type, and `code` borrows the mutator.
    let native: extern "C" fn(RawMutator, i64) -> i64 = unsafe { std::mem::transmute(code.as_ptr()) };
    m.native_scope(|raw| native(raw, x))
}

/// Function 0 is the identity, and the other one adds up what that answers for 1 to x. The threshold is 1,000.
pub fn called_by_native_code_only_it_reaches_the_next_tier_and_its_caller_calls_that(engine: &Engine) {
    let beads: Vec<_> = engine.register_many((0..2).map(Core::new)).unwrap().iter().collect();
    beads.iter().for_each(|&bead| compile(engine, bead, T1));
    let m = engine.mutator();
    assert_eq!(call(&m, beads[1], 999), 999 * 1_000 / 2);
    engine.run_pending(usize::MAX);
    assert_eq!((engine.tier(beads[0]), engine.invocations(beads[0])), (Ok(T1), Ok(999)));
    assert_eq!(call(&m, beads[1], 1), 1);
    engine.run_pending(usize::MAX);
    assert_eq!(engine.tier(beads[0]), Ok(t2()));
    assert_eq!(call(&m, beads[1], 10), 55);
}

/// A function adds up 1 to x. The threshold is 1,000 calls.
pub fn a_native_loop_promotes_its_function_during_its_first_call(engine: &Engine) {
    let bead = engine.register(Core::new(0)).unwrap();
    compile(engine, bead, T1);
    let m = engine.mutator();
    let enough = i64::from((1_000 * ITERATIONS_PER_CALL).next_multiple_of(ITERATIONS_PER_REPORT));
    let half = enough / 2;
    assert_eq!(call(&m, bead, half), half * (half + 1) / 2);
    assert_eq!(engine.run_pending(usize::MAX), 0);
    assert_eq!(call(&m, bead, enough), enough * (enough + 1) / 2);
    engine.run_pending(usize::MAX);
    assert_eq!(engine.tier(bead), Ok(t2()));
    assert_eq!(call(&m, bead, enough), enough * (enough + 1) / 2);
}

/// A function adds up 1 to x, counts each in block 1 of 2, and at two sites a call of function 2 and of the function with the index x.
/// `seen` has the profile that was there for the last compile.
pub fn blocks_and_callees_are_read_by_the_next_tier(engine: &Engine, seen: &Mutex<Option<Profile>>) {
    let bead = engine.register(Core::new(0)).unwrap();
    compile(engine, bead, T1);
    let m = engine.mutator();
    assert_eq!([3, 3, 5].map(|x| call(&m, bead, x)), [6, 6, 15]);
    compile(engine, bead, t2());
    let profile = seen.lock().unwrap().clone().unwrap();
    assert_eq!(profile.blocks(), [0, 11]);
    assert_eq!(profile.call_sites()[0].only(), Some((Bead::from_bits(2 << 32).unwrap(), 11)));
    let other = profile.call_sites()[1];
    assert!(other.is_megamorphic() && other.calls() == 11);
    assert_eq!(other.targets().map(|(_, calls)| calls).collect::<Vec<_>>(), [3, 3, 3, 1]);
    assert_eq!(call(&m, bead, 5), 15);
    assert_eq!(engine.profile(bead).unwrap().unwrap().blocks(), [0, 11], "the highest tier does not count");
}
