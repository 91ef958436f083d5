//! Values that a VM keeps for an engine, or takes out of it: numbers for native code, pointers, errors, owners.

mod common;
use beadwork::*;
use common::*;
use std::sync::{Arc, Mutex};

const T1: TierId = TierId::BASELINE;

#[test]
fn an_assumption_is_named_by_its_number_and_another_number_holds_nothing() {
    let engine = Engine::builder().capacity(4).inline().build().unwrap();
    let [one, other] = [engine.assumption(), engine.assumption()];
    assert_eq!(Assumption::from_number(one.get()), Some(one));
    assert_eq!(Assumption::from_number(0), None);
    engine.invalidate_assumption(Assumption::from_number(one.get()).unwrap());
    assert!(!engine.is_valid(one) && engine.is_valid(other));
    assert!(!engine.is_valid(Assumption::from_number(u64::MAX).unwrap()));
}

#[test]
fn a_group_is_named_by_its_number_until_it_ends() {
    let engine = Engine::builder().capacity(4).inline().build().unwrap();
    let group = engine.group().unwrap();
    let bead = engine.register_with(Core::ZERO, &BeadInfo::new().group(group)).unwrap();
    let named = Group::from_bits(group.to_bits()).unwrap();
    assert_eq!(engine.group_members(named).unwrap(), [bead]);
    assert_eq!(Group::from_bits(0), None);
    engine.remove_group(named);
    assert!(!engine.is_live(bead));
}

#[test]
fn a_core_that_is_a_pointer_comes_back_as_that_pointer() {
    let engine = Engine::builder().capacity(4).inline().build().unwrap();
    let value = 7_u32;
    let bead = engine.register(Core::from_ptr(&raw const value)).unwrap();
    let core = engine.core(bead).unwrap();
    assert_eq!(core.as_ptr::<u32>(), &raw const value);
    assert_eq!(core.get(), (&raw const value).addr());
}

#[test]
fn a_backends_own_error_reaches_the_listener_as_what_it_was() {
    #[derive(Debug, PartialEq, Eq, thiserror::Error)]
    #[error("number {0}")]
    struct Own(u32);
    let heard: Arc<Mutex<Vec<CompileError>>> = Arc::default();
    let hears = heard.clone();
    let engine = Engine::builder()
        .capacity(4)
        .inline()
        .on_event(move |event| {
            if let Event::Failed { error, .. } = event {
                hears.lock().unwrap().push(error.clone());
            }
        })
        .tier(Tier::new(FnBackend::new(|_: &mut Job<'_>| Err(CompileError::because(Own(3))))))
        .build()
        .unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    engine.promote(bead, T1).unwrap();
    engine.run_pending(1);
    let heard = heard.lock().unwrap();
    let [CompileError::Backend(error)] = heard.as_slice() else { panic!("{heard:?}") };
    assert_eq!(error.get().downcast_ref(), Some(&Own(3)));
    // The record of the fault has the very same; another one that reads alike is another one.
    assert_eq!(engine.fault(bead, T1).map(|fault| fault.last), Some(heard[0].clone()));
    assert_ne!(heard[0], CompileError::because(Own(3)));
}

#[test]
fn baseline_code_given_up_for_memory_is_freed_and_no_revert_brings_it_back() {
    let alive = Alive::default();
    let unused = || Tier::new(FnBackend::new(|_: &mut Job<'_>| Err(CompileError::Unfinished)));
    let engine = Engine::builder().capacity(4).inline().tier(unused()).tier(unused());
    let engine = engine.deopt(|_: &DeoptHistory| Recovery::Revert).build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    engine.install(bead, T1, alive.code()).unwrap();
    let version = engine.install(bead, TierId::new(2).unwrap(), alive.code()).unwrap();
    assert_eq!((engine.stats().deopts.held, alive.count()), (1, 2));
    assert_eq!((engine.drop_all_kept(), engine.drop_all_kept()), (1, 0));
    engine.reclaim();
    assert_eq!((engine.stats().deopts.held, alive.count()), (0, 1));
    let decision = engine.bailout(bead, BailoutInfo::new(version)).unwrap();
    assert_eq!(decision, DeoptDecision::Revert { at_once: false });
    assert!(decision.took_code() && engine.mutator().code(bead).is_none());
}
