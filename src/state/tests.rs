use super::*;

const T1: TierId = TierId::BASELINE;
const T2: TierId = TierId::from_low_bits(2);
const B: Bead = Bead::new(0, 0);

/// The cells of a bead.
#[derive(Default)]
struct Word(AtomicU64, AtomicUsize);

impl Word {
    fn cell(&self) -> StateCell<'_> {
        StateCell { word: &self.0, core: &self.1 }
    }
}

fn word(change: impl FnOnce(&mut Snapshot)) -> Word {
    let mut snapshot = Snapshot::UNTOUCHED;
    change(&mut snapshot);
    Word(AtomicU64::new(snapshot.0), AtomicUsize::new(0))
}

fn claimed(word: &Word) -> Ticket {
    assert!(matches!(word.cell().request(B, T1, None), Requested::Queued(_)));
    word.cell().claim(0, T1).unwrap()
}

#[test]
fn every_field_keeps_what_was_set_and_leaves_the_others_alone() {
    let all: [fn(&Snapshot) -> u64; 10] = [
        |s| s.tag().into(),
        |s| s.version().into(),
        |s| s.tier().get().into(),
        |s| s.target().get().into(),
        |s| s.cap().get().into(),
        |s| s.pending() as u64,
        |s| s.blacklisted().into(),
        |s| s.publishing().into(),
        |s| s.live().into(),
        |s| s.slotted().into(),
    ];
    let sets: [fn(&mut Snapshot, u64); 10] = [
        |s, bits| s.set_tag(bits as u16 & RETIRED_TAG),
        |s, bits| s.set_version(bits as u32 & VERSION_MAX),
        |s, bits| s.set_tier(TierId::from_low_bits(bits)),
        |s, bits| s.set_target(TierId::from_low_bits(bits)),
        |s, bits| s.set_cap(TierId::from_low_bits(bits)),
        |s, bits| s.set_pending(Pending::from_bits(bits & 3)),
        |s, bits| s.set_blacklisted(bits & 1 != 0),
        |s, bits| s.set_publishing(bits & 1 != 0),
        |s, bits| s.set_live(bits & 1 != 0),
        |s, bits| s.set_slotted(bits & 1 != 0),
    ];
    const BITS: [u32; 10] = [15, 31, 4, 4, 4, 2, 1, 1, 1, 1];
    let mut bits = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = || {
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        bits
    };
    for _ in 0..1_000 {
        let mut word = Snapshot(next());
        let field = next() as usize % 10;
        let (mut expected, value) = (all.map(|get| get(&word)), next());
        sets[field](&mut word, value);
        expected[field] = value & ((1 << BITS[field]) - 1);
        assert_eq!(all.map(|get| get(&word)), expected);
    }
}

#[test]
fn zero_is_an_index_never_used_with_no_cap() {
    let zero = Snapshot(0);
    assert!(!zero.live() && zero.tag() == 0 && zero.version() == 0);
    assert_eq!((zero.tier(), zero.cap(), zero.pending()), (TierId::INTERPRETER, TierId::MAX, Pending::None));
}

#[test]
fn register_fresh_makes_the_first_generation_live_with_any_core() {
    for core in [0, 1, usize::MAX] {
        let w = Word::default();
        assert!(w.cell().live(B).is_none());
        w.cell().register_fresh(core);
        assert_eq!(w.cell().live(B), Some(Snapshot::UNTOUCHED));
        assert_eq!(w.1.load(Relaxed), core);
    }
}

#[test]
fn a_word_that_was_never_written_takes_part_in_everything() {
    let untouched = || {
        let w = Word::default();
        w.cell().register_fresh(7);
        assert_eq!(w.0.load(Relaxed), 0);
        w
    };
    let w = untouched();
    assert_eq!(claimed(&w).version, 2);
    let w = untouched();
    w.cell().publish(B, |_| true).unwrap().release(|_| ());
    w.1.store(0, Relaxed);
    assert_eq!(w.cell().live(B), Some(Snapshot::UNTOUCHED), "it was touched, and its core may be zero");
    assert!(w.cell().publish(B, |_| true).is_some(), "in its other form, too");
    let w = untouched();
    w.cell().publish(B, |_| true).unwrap().release(|s| *s = s.next_generation());
    assert!(w.cell().live(B).is_none());
}

#[test]
fn request_queues_once_and_a_higher_target_replaces_a_queued_one() {
    let w = word(|_| ());
    let cell = w.cell();
    assert!(matches!(cell.request(B, T1, None), Requested::Queued(_)));
    assert_eq!(cell.request(B, T1, None), Requested::Already);
    assert!(matches!(cell.request(B, T2, None), Requested::Queued(_)));
    assert_eq!(cell.request(B, T1, None), Requested::Already);
    assert_eq!(cell.load().target(), T2);
    assert_eq!(cell.claim(0, T1), None, "the token of the lower tier finds nothing to do");
    assert!(cell.claim(0, T2).is_some());
}

#[test]
fn request_follows_a_compile_and_is_queued_when_it_ends() {
    let w = word(|_| ());
    let cell = w.cell();
    let ticket = claimed(&w);
    assert_eq!(cell.request(B, T1, None), Requested::Already);
    assert!(matches!(cell.request(B, T2, None), Requested::Follows(_)));
    assert_eq!(cell.request(B, T2, None), Requested::Already);
    assert_eq!(cell.abandon(ticket), Ended::Requeue(T2));
    assert_eq!(cell.abandon(ticket), Ended::Superseded);
    assert_eq!(cell.load().pending(), Pending::Queued);
}

#[test]
fn request_is_refused_for_what_is_barred_stale_busy_or_there_already() {
    let w = word(|s| s.set_blacklisted(true));
    assert_eq!(w.cell().request(B, T1, None), Requested::Barred(TierId::INTERPRETER));
    let w = word(|s| s.set_cap(T1));
    assert_eq!(w.cell().request(B, T2, None), Requested::Barred(T1));
    let w = word(|s| s.set_tier(T1));
    assert_eq!(w.cell().request(B, T1, None), Requested::Already);
    let w = word(|s| s.set_publishing(true));
    assert_eq!(w.cell().request(B, T1, None), Requested::Busy);
    assert_eq!(w.cell().load().pending(), Pending::None);
    let w = word(|s| s.set_live(false));
    assert_eq!(w.cell().request(B, T1, None), Requested::Stale);
    let w = word(|s| s.set_tag(1));
    assert_eq!(w.cell().request(B, T1, None), Requested::Stale);
}

#[test]
fn p2_a_claim_lasts_until_it_is_installed_or_failed() {
    let w = word(|_| ());
    let cell = w.cell();
    let ticket = claimed(&w);
    assert_eq!(cell.claim(0, T1), None);
    assert_eq!(
        cell.request(B, T1, None),
        Requested::Already,
        "no second compile between dequeue and install"
    );
    assert_eq!(cell.abandon(ticket), Ended::Idle);
    assert!(matches!(cell.request(B, T1, None), Requested::Queued(_)));
}

#[test]
fn every_start_and_end_of_a_claim_raises_the_version() {
    let w = word(|_| ());
    let cell = w.cell();
    let first = claimed(&w);
    assert_eq!(cell.requeue(first), Ended::Requeue(T1));
    let second = cell.claim(0, T1).unwrap();
    assert!(second.version > first.version);
    assert!(cell.publish(B, |s| s.is_claimed_by(first)).is_none());
    let held = cell.publish(B, |s| s.is_claimed_by(second)).unwrap();
    assert_eq!(held.next_version(), second.version + 1);
}

#[test]
fn a_released_publishing_bit_carries_the_change() {
    let w = word(|_| ());
    let held = w.cell().publish(B, |_| true).unwrap();
    assert!(w.cell().load().publishing());
    let version = held.next_version();
    held.release(|s| {
        s.set_tier(T2);
        s.raise_version();
    });
    let now = w.cell().load();
    assert_eq!((now.tier(), now.version(), now.publishing()), (T2, version, false));
}

#[test]
fn a_publishing_bit_that_is_dropped_leaves_the_word_as_it_was() {
    let w = word(|s| s.set_version(7));
    let before = w.cell().load();
    drop(w.cell().publish(B, |_| true).unwrap());
    assert_eq!(w.cell().load(), before);
}

#[test]
fn publish_is_refused_for_a_stale_bead() {
    let w = word(|_| ());
    assert!(w.cell().publish(Bead::new(0, 1), |_| true).is_none());
}

#[test]
fn a_next_generation_starts_cold_and_keeps_only_the_slot() {
    let w = word(|s| {
        s.set_version(9);
        s.set_tier(T2);
        s.set_cap(T2);
        s.set_blacklisted(true);
        s.set_slotted(true);
    });
    let cell = w.cell();
    cell.publish(B, |_| true).unwrap().release(|s| *s = s.next_generation());
    let free = cell.load();
    assert_eq!(
        free,
        Snapshot::default().with(|s| {
            s.set_tag(1);
            s.set_slotted(true);
        })
    );
    assert_eq!(cell.register_again(), 1);
    assert_eq!(cell.load(), Snapshot::UNTOUCHED.with(|s| s.set_tag(1)));
}

#[test]
fn the_generation_after_the_last_is_the_retired_one_and_stays() {
    let last = Snapshot::UNTOUCHED.with(|s| s.set_tag(RETIRED_TAG - 1));
    let retired = last.next_generation();
    assert_eq!(retired.tag(), RETIRED_TAG);
    assert_eq!(retired.next_generation().tag(), RETIRED_TAG);
}

#[test]
fn a_bead_at_the_end_of_its_versions_gets_no_ticket() {
    let w = word(|s| s.set_version(VERSION_MAX - 3));
    let ticket = claimed(&w);
    assert_eq!(ticket.version, VERSION_MAX - 1);
    assert_eq!(w.cell().abandon(ticket), Ended::Idle);
    assert_eq!(w.cell().request(B, T1, None), Requested::Barred(TierId::INTERPRETER));
    let w = word(|s| {
        s.set_version(VERSION_MAX - 1);
        s.set_pending(Pending::Queued);
        s.set_target(T1);
    });
    assert_eq!(w.cell().claim(0, T1), None);
    assert_eq!(w.cell().load().pending(), Pending::None);
}

#[test]
fn a_request_for_the_tier_that_is_there_is_taken_only_if_it_is_wanted_anew() {
    let w = word(|s| s.set_tier(T2));
    let cell = w.cell();
    assert_eq!(cell.request(B, T1, Some(0)), Requested::Already, "lower");
    assert_eq!(cell.request(B, T2, None), Requested::Already);
    assert_eq!(cell.request(B, T2, Some(1)), Requested::Already, "installed since");
    assert!(matches!(cell.request(B, T2, Some(0)), Requested::Queued(_)));
    assert_eq!(cell.request(B, T2, Some(1)), Requested::Already, "once");
}
