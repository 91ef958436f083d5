//! Profiles across runs: what is remembered, what is made of it, and what is refused.
#![cfg(unix)]

mod common;

use beadwork::{
    BailoutInfo, Bead, BeadInfo, CompiledCode, Core, Engine, Event, FnBackend, Job, ProfileRefusal,
    SavedProfile, Threshold, Tier, TierId,
};
use std::sync::{Arc, Mutex};

extern "C" fn body() {}

const TAG: u64 = 7;

struct Run {
    engine: Engine,
    beads: Vec<Bead>,
    queued: Arc<Mutex<Vec<(Bead, TierId)>>>,
}

/// Two tiers, entered at 100 and 1,000 calls; four functions with the keys 1 to 4.
fn run() -> Run {
    let tier = |at| {
        let backend = FnBackend::new(|_: &mut Job<'_>| Ok(CompiledCode::new(body as *const u8)));
        Tier::new(backend).policy(Threshold::new(at))
    };
    let queued = Arc::new(Mutex::new(Vec::new()));
    let heard = queued.clone();
    let engine = Engine::builder().inline().capacity(64).tier(tier(100)).tier(tier(1_000));
    let engine = engine.on_event(move |event| {
        if let Event::Queued { bead, tier, .. } = event {
            heard.lock().unwrap().push((*bead, *tier));
        }
    });
    let engine = engine.build().unwrap();
    let register = |key| engine.register_with(Core::new(key as usize), &BeadInfo::new().key(key)).unwrap();
    let beads = (1..=4).map(register).collect();
    Run { engine, beads, queued }
}

impl Run {
    /// Calls a function so often; answers after how many it was native.
    fn call(&self, number: usize, calls: u32) -> Option<u32> {
        let mut m = self.engine.mutator();
        let mut first = None;
        for call in 0..calls {
            if m.dispatch(self.beads[number]).is_some() {
                first.get_or_insert(call);
            }
            m.safepoint();
            self.engine.run_pending(usize::MAX);
        }
        first
    }

    fn tier(&self, number: usize) -> u8 {
        self.engine.tier(self.beads[number]).unwrap().get()
    }
}

/// A run in which the first function got to tier 2, the second to tier 1, and the third was called a little.
fn first_run() -> SavedProfile {
    let run = run();
    run.call(0, 3_000);
    run.call(1, 500);
    run.call(2, 50);
    assert_eq!([0, 1, 2, 3].map(|number| run.tier(number)), [2, 1, 0, 0]);
    run.engine.remember(&SavedProfile::empty(TAG))
}

#[test]
fn what_was_hot_is_asked_for_at_once_at_its_tier_the_hottest_first() {
    let profile = first_run();
    assert_eq!(profile.len(), 3, "what was never called is not worth a record");
    let run = run();
    let recalled = run.engine.recall(&profile);
    assert_eq!((recalled.promoted, recalled.delayed, recalled.unknown), (2, 0, 1));
    let asked = run.queued.lock().unwrap().clone();
    assert_eq!(asked, [(run.beads[0], TierId::new(2).unwrap()), (run.beads[1], TierId::BASELINE)]);
    run.engine.run_pending(usize::MAX);
    assert_eq!(run.call(0, 1), Some(0));
    assert!(run.call(2, 150).unwrap() >= 90, "the others start as always");
}

#[test]
fn what_bailed_out_is_left_to_warm_up_for_longer() {
    let before = run();
    before.call(0, 200);
    for _ in 0..2 {
        let version = before.engine.version(before.beads[0]).unwrap();
        before.engine.bailout(before.beads[0], BailoutInfo::new(version)).unwrap();
        before.call(0, 5_000);
    }
    let profile = before.engine.remember(&SavedProfile::empty(TAG));
    assert_eq!(profile.get(1).unwrap().bailouts, 2);
    let after = run();
    assert_eq!(after.engine.recall(&profile).delayed, 1);
    assert!(after.queued.lock().unwrap().is_empty());
    let native = after.call(0, 3_000).unwrap();
    assert!((2_000..=2_100).contains(&native), "{native}");
}

#[test]
fn runs_are_merged_and_what_is_not_called_any_more_fades_away() {
    let mut profile = first_run();
    let (first, second) = (profile.get(1).unwrap().calls, profile.get(2).unwrap().calls);
    let mut runs = 0;
    while profile.get(2).is_some() {
        let run = run();
        run.call(0, 40);
        profile = run.engine.remember(&profile);
        runs += 1;
    }
    assert_eq!(runs, second.ilog2() + 1, "halved until nothing is left");
    let kept = profile.get(1).unwrap();
    assert!(kept.calls < first && kept.calls >= 40 && kept.tier.get() == 2, "{kept:?}");
}

#[test]
fn d12_a_function_that_stays_less_hot_than_it_was_is_asked_for_at_the_tier_it_has_now() {
    let mut profile = first_run();
    let tiers = (0..20).map(|_| {
        let run = run();
        run.call(0, 300);
        profile = run.engine.remember(&profile);
        profile.get(1).unwrap().tier.get()
    });
    let tiers: Vec<_> = tiers.collect();
    assert_eq!((tiers[0], tiers[19]), (2, 1), "one run is no reason: {tiers:?}");
    assert!(tiers.is_sorted_by(|one, next| one >= next), "{tiers:?}");
}

#[test]
fn d12_a_profile_of_many_functions_is_merged_in_order_in_one_pass() {
    let tier = || Tier::new(FnBackend::new(|_: &mut Job<'_>| Ok(CompiledCode::new(body as *const u8))));
    let remember = |before: &SavedProfile, keys: &[u64]| {
        let engine = Engine::builder().inline().capacity(1 << 19).tier(tier()).build().unwrap();
        let m = engine.mutator();
        for &key in keys {
            let bead = engine.register_with(Core::ZERO, &BeadInfo::new().key(key)).unwrap();
            (0..20).for_each(|_| _ = m.dispatch(bead));
        }
        engine.remember(before)
    };
    // As many again, each between two of those that are known: inserting one by one would move 30 GB.
    const MANY: u64 = 50_000;
    let even: Vec<_> = (1..MANY).map(|n| 2 * n).chain([u64::MAX]).collect();
    let odd: Vec<_> = (0..MANY).rev().map(|n| 2 * n + 1).chain([4, u64::MAX]).collect();
    let first = remember(&SavedProfile::empty(TAG), &even);
    let both = remember(&first, &odd);
    assert_eq!((first.len() as u64, both.len() as u64), (MANY, MANY + 1 + 1), "the others have faded");
    let calls = |key| both.get(key).map(|known| known.calls);
    assert_eq!([calls(1), calls(2), calls(3), calls(4)], [Some(20), None, Some(20), Some(30)]);
    assert_eq!([calls(2 * MANY - 1), calls(u64::MAX)], [Some(20), Some(30)]);
    SavedProfile::from_bytes(both.as_bytes(), TAG).unwrap();
}

#[test]
fn a_function_that_comes_later_is_recalled_by_itself() {
    let profile = first_run();
    let run = run();
    assert_eq!(run.engine.recall_one(&profile, run.beads[1]).promoted, 1);
    let stranger = run.engine.register(Core::ZERO).unwrap();
    assert_eq!(run.engine.recall_one(&profile, stranger).unknown, 1);
    let gone = run.beads[0];
    run.engine.remove(gone).unwrap();
    assert_eq!(run.engine.recall_one(&profile, gone).unknown, 1);
}

#[test]
fn a_profile_is_the_same_after_it_was_saved_and_opened() {
    let path =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("profile-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    assert_eq!(SavedProfile::open(&path, TAG).unwrap_err(), ProfileRefusal::Missing);
    let profile = first_run();
    profile.save(&path).unwrap();
    let opened = SavedProfile::open(&path, TAG).unwrap();
    assert_eq!(opened.as_bytes(), profile.as_bytes());
    SavedProfile::empty(TAG).save(&path).unwrap();
    assert_eq!(opened.as_bytes(), profile.as_bytes(), "what is mapped stays as it is");
    assert!(SavedProfile::open(&path, TAG).unwrap().is_empty());
    std::fs::write(&path, b"").unwrap();
    assert_eq!(SavedProfile::open(&path, TAG).unwrap_err(), ProfileRefusal::Damaged);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_profile_is_saved_whatever_killed_writers_left_and_however_many_save_at_once() {
    let directory =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("profiles-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("profile");
    // By a process of the same number, as in containers: there every one is the first.
    for left in [format!("profile.{}", std::process::id()), "profile.unfinished-1-2-3".to_string()] {
        std::fs::write(directory.join(left), b"half of a prof").unwrap();
    }
    let unrelated = directory.join("profile.other");
    std::fs::write(&unrelated, b"").unwrap();
    let profile = first_run();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..20).for_each(|_| profile.save(&path).unwrap()));
        }
    });
    profile.save(&path).unwrap();
    assert_eq!(SavedProfile::open(&path, TAG).unwrap().as_bytes(), profile.as_bytes());
    let unfinished = |file: std::fs::DirEntry| file.file_name().to_string_lossy().contains("unfinished");
    assert!(!std::fs::read_dir(&directory).unwrap().any(|file| unfinished(file.unwrap())), "left behind");
    assert!(unrelated.exists());
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_damaged_strange_or_stale_profile_is_refused_with_the_reason() {
    let profile = first_run();
    let bytes = profile.as_bytes();
    let open = |bytes: &[u8]| SavedProfile::from_bytes(bytes, TAG).map(|_| ());
    open(bytes).unwrap();
    for at in 0..bytes.len() {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << (at % 8);
        let expected = if at < 16 { ProfileRefusal::Format } else { ProfileRefusal::Damaged };
        assert_eq!(open(&flipped), Err(expected), "byte {at}");
        assert_eq!(open(&bytes[..at]), Err(ProfileRefusal::Damaged), "cut to {at}");
    }
    assert_eq!(open(&[bytes, &[0]].concat()), Err(ProfileRefusal::Damaged));
    assert_eq!(open(b"ELF"), Err(ProfileRefusal::Format));
    let stale = SavedProfile::from_bytes(bytes, 8).unwrap_err();
    assert_eq!(stale, ProfileRefusal::Stale { expected: 8, found: TAG });
}
