//! Retired code that waits: who is named, what waits with it; and code that goes back to the VM.

mod common;
use beadwork::*;
use common::*;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

const T1: TierId = TierId::BASELINE;

/// Who held back how much, each time.
type Told = Arc<Mutex<Vec<(Option<String>, usize)>>>;

/// An inline engine that lets 64 bytes wait.
fn limited() -> (Engine, Told, Alive) {
    let (told, alive) = (Told::default(), Alive::default());
    let (tell, compiled) = (told.clone(), alive.clone());
    let engine = Engine::builder()
        .inline()
        .retired_limit(64)
        .tier(Tier::new(FnBackend::new(move |_| Ok(compiled.code()))).policy(Threshold::new(10)))
        .on_event(move |event| {
            if let Event::HeldBack { mutator, retired_bytes, .. } = event {
                tell.lock().unwrap().push((mutator.as_ref().map(|name| name.to_string()), *retired_bytes));
            }
        })
        .build()
        .unwrap();
    (engine, told, alive)
}

fn replace(engine: &Engine, bead: Bead, alive: &Alive, times: usize) {
    (0..times).for_each(|_| _ = engine.install(bead, T1, alive.code()).unwrap());
}

#[test]
fn while_too_much_retired_code_waits_policies_promote_nothing_and_one_event_names_the_mutator() {
    let (engine, told, alive) = limited();
    let (mut stuck, mut m) = (engine.mutator_named("stuck"), engine.mutator_named("busy"));
    let [held, hot] = beads(&engine, 2)[..] else { unreachable!() };
    replace(&engine, held, &alive, 5);
    m.safepoint();
    (0..50).for_each(|_| m.tick(hot));
    assert!(engine.state(hot).unwrap().pending.is_some(), "64 bytes may wait");
    engine.run_pending(usize::MAX);
    engine.invalidate(hot).unwrap();
    m.safepoint();
    (0..5_000).for_each(|_| m.tick(hot));
    engine.run_pending(usize::MAX);
    replace(&engine, held, &alive, 3);
    engine.reclaim();
    assert_eq!(engine.state(hot).unwrap().pending, None);
    assert_eq!(*told.lock().unwrap(), [(Some("stuck".to_string()), 80)]);
    let laggards = engine.laggards();
    assert_eq!((laggards.len(), &*laggards[0].name, &*laggards[1].name), (2, "stuck", "busy"));
    assert!(laggards[0].epochs >= 5 && laggards[1].epochs == 3);

    // It resumes by itself.
    stuck.safepoint();
    m.safepoint();
    engine.run_pending(usize::MAX);
    assert_eq!((engine.stats().retired, engine.laggards().len()), (0, 0));
    (0..2_000).for_each(|_| m.tick(hot));
    assert!(engine.state(hot).unwrap().pending.is_some());

    // And tells again when it happens again.
    replace(&engine, held, &alive, 6);
    engine.run_pending(usize::MAX);
    assert_eq!(told.lock().unwrap().len(), 2);
}

#[test]
fn what_the_vm_itself_asks_for_is_not_refused_while_much_waits() {
    let (engine, _, alive) = limited();
    let [held, other] = beads(&engine, 2)[..] else { unreachable!() };
    let _stuck = engine.mutator();
    replace(&engine, held, &alive, 20);
    engine.promote(other, T1).unwrap();
    engine.run_pending(usize::MAX);
    assert_eq!(engine.tier(other), Ok(T1));
}

#[test]
fn a_thread_with_frames_is_named_and_leases_name_nobody() {
    let (engine, told, alive) = limited();
    let (bead, mut m) = (engine.register(Core::new(0)).unwrap(), engine.mutator_named("deep"));
    replace(&engine, bead, &alive, 6);
    m.safepoint_with(&[addr(one).addr()]);
    engine.reclaim();
    assert_eq!(told.lock().unwrap().last(), Some(&(Some("deep".to_string()), 80)));
    m.safepoint();
    assert_eq!(engine.reclaim(), 5);

    let lease = m.lease(bead).unwrap();
    m.offline(|| replace(&engine, bead, &alive, 6));
    assert_eq!(told.lock().unwrap().last(), Some(&(None, 80)));
    drop(lease);
    engine.run_pending(usize::MAX);
    assert_eq!(engine.stats().retired_bytes, 0);
}

#[test]
fn a_mutator_goes_by_its_threads_name_unless_it_is_given_one() {
    let engine = inline(10, |_| Ok(code()));
    let bead = engine.register(Core::new(0)).unwrap();
    let worker = std::thread::Builder::new().name("interpreter 3".to_string());
    let m = worker.spawn({
        let engine = engine.clone();
        move || engine.mutator()
    });
    let _m = m.unwrap().join().unwrap();
    replace(&engine, bead, &Alive::default(), 2);
    assert_eq!(&*engine.laggards()[0].name, "interpreter 3");
}

/// What was handed back.
type Back = Arc<Mutex<Vec<HandedBack>>>;

fn handing(log: &Back) -> Engine {
    let log = log.clone();
    Engine::builder()
        .inline()
        .tier(Tier::new(trivial()))
        .hand_back(move |code| log.lock().unwrap().push(code))
        .build()
        .unwrap()
}

#[test]
fn code_is_handed_back_as_soon_as_it_is_unlinked_each_owner_once() {
    let (back, alive) = (Back::default(), Alive::default());
    let engine = handing(&back);
    let bead = engine.register(Core::new(0)).unwrap();
    let mut never_passes = engine.mutator();
    engine.install(bead, T1, alive.code()).unwrap();
    assert!(back.lock().unwrap().is_empty());
    engine.install(bead, T1, alive.code()).unwrap();
    assert_eq!(back.lock().unwrap().len(), 1, "superseded");
    engine.invalidate(bead).unwrap();
    assert_eq!(back.lock().unwrap().len(), 2, "taken back");
    engine.install(bead, T1, alive.code()).unwrap();
    engine.remove(bead).unwrap();
    assert_eq!(back.lock().unwrap().len(), 3, "removed");
    assert_eq!(engine.stats().code_bytes, 0);
    for code in back.lock().unwrap().iter() {
        assert_eq!((code.bead(), code.entry(), code.bytes()), (bead, addr(one), 16));
    }
    assert_eq!(alive.count(), 3);
    let mut last = back.lock().unwrap().pop().unwrap();
    let owner = last.take_owner().into_boxed().unwrap();
    assert!(last.owner().is_none());
    drop(last);
    assert_eq!(alive.count(), 3);
    drop(owner);
    assert_eq!(alive.count(), 2);
    never_passes.safepoint();
    engine.reclaim();
    back.lock().unwrap().clear();
    assert_eq!(alive.count(), 0);
}

#[test]
fn a_tier_up_hands_back_the_lower_tiers_code_and_results_that_came_too_late_are_dropped() {
    let (back, alive) = (Back::default(), Alive::default());
    let compiled = alive.clone();
    let log = back.clone();
    let engine = Engine::builder()
        .inline()
        .tier(Tier::new(trivial()))
        .tier(Tier::new(FnBackend::new(move |job: &mut Job<'_>| {
            let _ = job;
            Ok(compiled.code())
        })))
        .hand_back(move |code| log.lock().unwrap().push(code))
        .build()
        .unwrap();
    let bead = engine.register(Core::new(0)).unwrap();
    let t2 = TierId::new(2).unwrap();
    engine.promote(bead, T1).unwrap();
    engine.run_pending(usize::MAX);
    engine.promote(bead, t2).unwrap();
    engine.run_pending(usize::MAX);
    {
        let back = back.lock().unwrap();
        assert_eq!(back.len(), 1, "code without an owner comes back too");
        assert_eq!((back[0].entry(), back[0].bytes(), back[0].owner().is_none()), (addr(one), 0, true));
    }
    drop(engine);
    assert_eq!((back.lock().unwrap().len(), alive.count()), (1, 0), "installed code is dropped at the end");
}

#[test]
fn leased_code_is_handed_back_when_the_lease_ends() {
    let (back, alive) = (Back::default(), Alive::default());
    let engine = handing(&back);
    let bead = engine.register(Core::new(0)).unwrap();
    engine.install(bead, T1, alive.code()).unwrap();
    let lease = engine.lease(bead).unwrap();
    engine.invalidate(bead).unwrap();
    engine.reclaim();
    assert!(back.lock().unwrap().is_empty());
    drop(lease);
    assert_eq!(back.lock().unwrap().len(), 1);
}

#[test]
fn code_handed_back_pins_the_slots_it_embeds_until_it_is_dropped() {
    let back = Back::default();
    let engine = handing(&back);
    let [caller, callee] = beads(&engine, 2)[..] else { unreachable!() };
    engine.slot(callee).unwrap();
    engine.install(caller, T1, code().embeds(callee)).unwrap();
    // SAFETY: no code of this test uses the address.
    #[allow(unsafe_code)]
    unsafe {
        engine.release_slot(callee);
    }
    engine.invalidate(caller).unwrap();
    engine.remove(callee).unwrap();
    assert_eq!(back.lock().unwrap().len(), 1);
    assert_ne!(engine.register(Core::new(2)).unwrap().index(), callee.index());
    back.lock().unwrap().clear();
    assert_eq!(engine.register(Core::new(3)).unwrap().index(), callee.index());
}

#[test]
fn a_panic_while_handing_back_is_told_and_drops_that_piece_alone() {
    let (alive, panics) = (Alive::default(), Arc::new(AtomicUsize::new(0)));
    let count = panics.clone();
    let engine = Engine::builder()
        .inline()
        .tier(Tier::new(trivial()))
        .hand_back(|_code| panic!("no"))
        .on_event(move |event| {
            if let Event::FreePanicked { count: more } = event {
                count.fetch_add(*more, SeqCst);
            }
        })
        .build()
        .unwrap();
    let bead = engine.register(Core::new(0)).unwrap();
    replace(&engine, bead, &alive, 3);
    assert_eq!((alive.count(), panics.load(SeqCst)), (1, 2));
}
