//! A thread that read the clock may be held up before it uses what it read, and a clock may fail: neither makes anything
//! look old that has just begun.

mod common;
use beadwork::*;
use common::*;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const T1: TierId = TierId::BASELINE;

thread_local! {
    /// How many more times this thread reads the clock before it is held up; none if it is not.
    static READINGS: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Has this thread held up after its reading of this number, counted from zero.
fn hold_up_after(reading: u32) {
    READINGS.set(Some(reading));
}

/// What happens between a reading of the clock and its use.
type Meanwhile = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// The clock of a thread that is held up.
fn held_up(time: &Time, meanwhile: &Meanwhile) -> impl Fn() -> Duration + Send + Sync + use<> {
    let (time, meanwhile) = (time.clone(), meanwhile.clone());
    move || {
        let now = time.clock()();
        let left = READINGS.get();
        READINGS.set(left.and_then(|left| left.checked_sub(1)));
        if left == Some(0) {
            let happens = meanwhile.lock().unwrap().take();
            happens.into_iter().for_each(|happens| happens());
        }
        now
    }
}

fn happens(meanwhile: &Meanwhile, what: impl FnOnce() + Send + 'static) {
    *meanwhile.lock().unwrap() = Some(Box::new(what));
}

fn on_another_thread(run: impl FnOnce() + Send + 'static) {
    thread::spawn(run).join().unwrap();
}

#[test]
fn a_request_made_after_the_clock_was_read_has_not_gone_cold() {
    let (time, meanwhile) = (Time::default(), Meanwhile::default());
    time.set(5);
    let engine = Engine::builder()
        .capacity(16)
        .inline()
        .clock(held_up(&time, &meanwhile))
        .cold_after(Duration::from_secs(3_600))
        .tier(Tier::new(trivial()).policy(Threshold::new(10)))
        .build()
        .unwrap();
    // The clock is read only where something waits.
    let other = engine.register(Core::ZERO).unwrap();
    engine.promote(other, T1).unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    let on = engine.clone();
    happens(&meanwhile, move || {
        time.set(6);
        on_another_thread(move || {
            let m = on.mutator();
            (0..10).for_each(|_| m.tick(bead));
            assert!(on.state(bead).unwrap().pending.is_some());
        });
    });
    hold_up_after(0);
    assert_eq!(engine.run_pending(usize::MAX), 2);
    assert_eq!(engine.tier(bead), Ok(T1), "dropped as cold");
}

#[test]
fn a_compile_begun_after_the_clock_was_read_is_not_overdue() {
    let (time, meanwhile) = (Time::default(), Meanwhile::default());
    time.set(5);
    let (backend, inside, go) = held();
    let engine = Engine::builder()
        .capacity(16)
        .workers(1)
        .clock(held_up(&time, &meanwhile))
        .tier(Tier::new(backend).policy(Manual).timeout(Duration::from_secs(60)))
        .build()
        .unwrap();
    let _go = Finally(|| go.open());
    let bead = engine.register(Core::ZERO).unwrap();
    let on = engine.clone();
    let (happened, begun) = (Arc::new(AtomicBool::new(false)), inside.clone());
    let has = happened.clone();
    happens(&meanwhile, move || {
        time.set(6);
        on.promote(bead, T1).unwrap();
        begun.wait();
        has.store(true, SeqCst);
    });
    hold_up_after(0);
    // Whoever has nothing else to do looks for overdue compiles.
    engine.run_pending(1);
    assert!(happened.load(SeqCst));
    assert_eq!(engine.fault(bead, T1), None);
    go.open();
    engine.drain(LONG).unwrap();
    assert_eq!(engine.tier(bead), Ok(T1));
}

#[test]
fn code_another_sweep_has_just_marked_is_not_evicted() {
    let alive = Alive::default();
    let evictions = |reading| {
        let (time, meanwhile, evicted) =
            (Time::default(), Meanwhile::default(), Arc::new(AtomicUsize::new(0)));
        let sink = evicted.clone();
        let engine = Engine::builder()
            .capacity(1 << 8)
            .code_limit(100 * 1024)
            .evict_after(Duration::from_secs(1_000))
            .inline()
            .clock(held_up(&time, &meanwhile))
            .on_event(move |event| {
                if let Event::Evicted { .. } = event {
                    sink.fetch_add(1, SeqCst);
                }
            })
            .build()
            .unwrap();
        for bead in beads(&engine, 99) {
            engine.install(bead, T1, alive.code().with_bytes(1024)).unwrap();
        }
        time.set(1_000_000);
        let on = engine.clone();
        happens(&meanwhile, move || {
            time.set(1_000_001);
            on_another_thread(move || _ = on.run_pending(usize::MAX));
        });
        hold_up_after(reading);
        engine.run_pending(usize::MAX);
        READINGS.set(None);
        let happened = meanwhile.lock().unwrap().take().is_none();
        (happened, evicted.load(SeqCst))
    };
    // Whichever of its readings a sweep is held up after.
    assert_eq!([0, 1].map(evictions), [(true, 0); 2]);
}

#[test]
fn bailouts_that_overtake_each_other_do_not_have_code_kept_for_ever() {
    let (time, meanwhile) = (Time::default(), Meanwhile::default());
    let inner = meanwhile.clone();
    let engine = Engine::builder()
        .capacity(16)
        .clock(time.clock())
        .deopt(Tolerate)
        .snapshot(move |_, _| {
            // Between the reading of the clock and its use.
            let happens = inner.lock().unwrap().take();
            happens.into_iter().for_each(|happens| happens());
            None::<u8>
        })
        .build()
        .unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    let version = engine.install(bead, T1, code()).unwrap();
    let kept = (1..=2_000).take_while(|&now| {
        let (on, time) = (engine.clone(), time.clone());
        happens(&meanwhile, move || {
            time.set(now);
            let _ = on.bailout(bead, BailoutInfo::new(version));
        });
        engine.bailout(bead, BailoutInfo::new(version)) == Ok(DeoptDecision::Keep)
    });
    // Two a round; a hundred at once, and one more every 100 ms.
    let kept = kept.count();
    meanwhile.lock().unwrap().take();
    assert!(kept <= 150, "{kept} rounds of a millisecond each");
}

#[test]
fn nothing_is_taken_after_the_engine_was_paused() {
    let (time, meanwhile) = (Time::default(), Meanwhile::default());
    let tier = Tier::new(trivial()).policy(Manual);
    let clock = held_up(&time, &meanwhile);
    let engine = Engine::builder().capacity(16).inline().clock(clock).tier(tier).build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    engine.promote(bead, T1).unwrap();
    let (on, pause) = (engine.clone(), Arc::new(Mutex::new(None)));
    let kept = pause.clone();
    happens(&meanwhile, move || *kept.lock().unwrap() = Some(on.pause()));
    hold_up_after(0);
    engine.run_pending(1);
    assert!(pause.lock().unwrap().is_some());
    assert_eq!(engine.stats().installed, 0);
}

/// An inline engine with one tier, entered at 10 calls, whose clock fails once told to.
fn failing(policy: impl Policy) -> (Engine, Arc<AtomicBool>) {
    let fails = Arc::new(AtomicBool::new(false));
    let told = fails.clone();
    let clock = move || if told.load(SeqCst) { panic!("clock") } else { Duration::from_secs(3_600) };
    let tier = Tier::new(trivial()).policy(policy);
    (Engine::builder().capacity(16).inline().clock(clock).tier(tier).build().unwrap(), fails)
}

#[test]
fn a_clock_that_panics_lets_nothing_go_cold() {
    let (engine, fails) = failing(Threshold::new(10));
    let (bead, m) = (engine.register(Core::ZERO).unwrap(), engine.mutator());
    (0..10).for_each(|_| m.tick(bead));
    fails.store(true, SeqCst);
    engine.run_pending(1);
    assert_eq!(engine.tier(bead), Ok(T1));
}

#[test]
fn a_clock_that_panics_does_not_unwind_into_the_guest() {
    let (engine, fails) = failing(Threshold::new(10).decay(HalfLife::Time(Duration::from_secs(1))));
    fails.store(true, SeqCst);
    let (bead, m) = (engine.register(Core::ZERO).unwrap(), engine.mutator());
    (0..100).for_each(|_| m.tick(bead));
    assert!(engine.state(bead).unwrap().pending.is_some(), "time stands still, and calls count");
}

/// More milliseconds than 32 bits hold: cut off, they would be 0.
const AGES: Duration = Duration::from_secs(1 << 32);

#[test]
fn what_goes_cold_only_after_ages_is_not_cold_after_a_millisecond() {
    let time = Time::default();
    let tier = Tier::new(trivial()).policy(Threshold::new(10));
    let builder = Engine::builder().capacity(16).inline().clock(time.clock());
    let engine = builder.cold_after(AGES).tier(tier).build().unwrap();
    let (bead, m) = (engine.register(Core::ZERO).unwrap(), engine.mutator());
    (0..10).for_each(|_| m.tick(bead));
    time.set(1);
    engine.run_pending(1);
    assert_eq!(engine.tier(bead), Ok(T1));
}

#[test]
fn a_compile_that_may_take_ages_is_not_overdue_after_milliseconds() {
    let time = Time::default();
    let passes = time.clone();
    let backend = FnBackend::new(move |_: &mut Job<'_>| {
        passes.set(5);
        Ok(code())
    });
    let builder = Engine::builder().capacity(16).inline().clock(time.clock());
    let engine = builder.tier(Tier::new(backend).timeout(AGES)).build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    assert!(engine.compile_now(bead, T1, LONG).is_ok());
}

#[test]
fn what_is_called_once_in_a_half_life_is_never_hot_however_long_the_engine_runs() {
    const MINUTE: u64 = 60_000;
    let time = Time::default();
    let policy = Threshold::new(100).decay(HalfLife::Time(Duration::from_millis(MINUTE)));
    let tier = Tier::new(trivial()).policy(policy);
    let engine = Engine::builder().capacity(16).inline().clock(time.clock()).tier(tier).build().unwrap();
    let (bead, m) = (engine.register(Core::ZERO).unwrap(), engine.mutator());
    // Milliseconds in 32 bits start over after 50 days.
    let hot = (0..60 * 24 * 60).find(|minute| {
        time.set(minute * MINUTE);
        m.tick(bead);
        engine.state(bead).unwrap().pending.is_some()
    });
    assert_eq!(hot, None);
}
