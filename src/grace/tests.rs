use super::*;
use crate::code::CodeWord;
use crate::owner::{CodeOwner, Piece, Reclaim};

struct Nothing;
impl Reclaim for Nothing {
    fn reclaim(&self, _: &[u32]) {}
}

/// A grace period and owners, with code of 32 bytes.
struct World {
    grace: Grace,
    owners: Owners,
    reclaimer: Arc<dyn Reclaim>,
}

impl World {
    fn new() -> World {
        World { grace: Grace::new(), owners: Owners::new(), reclaimer: Arc::new(Nothing) }
    }

    fn code(&self, entry: u64, bytes: usize, pieces: Vec<Piece>) -> Unlinked {
        let owner = CodeOwner::token(self.reclaimer.clone(), entry as u32);
        let owner = self.owners.intern(owner, bytes, vec![], pieces);
        Unlinked { index: 3, word: CodeWord::ready(4, entry, false), owner }
    }

    fn retire(&self, entry: u64) {
        self.grace.retire(self.code(entry, 32, vec![]));
    }

    fn expired(&self) -> Vec<u64> {
        self.grace.expired(&self.owners).iter().map(Unlinked::entry).collect()
    }

    fn pass(&self, member: &Member) {
        pass(member, self.grace.epoch.load(Acquire));
    }

    fn pass_with(&self, member: &Member, addresses: &[usize]) {
        member.hold(addresses);
        self.pass(member);
    }
}

#[test]
fn retired_code_waits_for_every_online_mutator() {
    let world = World::new();
    let grace = &world.grace;
    let ((a, _), (b, _)) = (grace.enlist(None), grace.enlist(None));
    world.retire(0x100);
    assert_eq!(grace.waiting(), (1, 32));
    assert!(world.expired().is_empty());
    world.pass(&a);
    assert!(world.expired().is_empty(), "b has not passed");
    world.retire(0x200);
    world.pass(&b);
    assert_eq!(world.expired(), [0x100], "a has not passed the second");
    go_offline(&a);
    assert_eq!(world.expired(), [0x200]);
    assert_eq!(grace.waiting(), (0, 0));
}

#[test]
fn nothing_waits_when_no_mutator_is_online() {
    let world = World::new();
    let (cell, _) = world.grace.enlist(None);
    go_offline(&cell);
    world.retire(0x100);
    assert_eq!(world.expired(), [0x100]);
    world.grace.delist(&cell);
    assert_eq!(world.grace.mutators(), 0);
}

#[test]
fn a_mutator_that_comes_online_later_does_not_hold_back_what_was_retired_before() {
    let world = World::new();
    world.retire(0x100);
    let (_late, _) = world.grace.enlist(None);
    assert_eq!(world.expired(), [0x100]);
}

#[test]
fn retired_code_says_whose_it_was() {
    let world = World::new();
    assert_eq!(world.code(0x100, 32, vec![]).bead(), crate::Bead::new(3, 4));
}

#[test]
fn code_with_an_address_of_any_mutator_inside_or_just_behind_it_is_kept_until_that_is_gone() {
    for (address, keeps) in [(0xff, false), (0x100, true), (0x110, true), (0x120, true), (0x121, false)] {
        let world = World::new();
        let ((a, _), (b, _)) = (world.grace.enlist(None), world.grace.enlist(None));
        world.retire(0x100);
        world.pass(&a);
        world.pass_with(&b, &[0x9000, address, 0x8]);
        assert_eq!(world.expired().is_empty(), keeps, "{address:#x}");
        assert_eq!(world.grace.holder().map(|by| by.addresses), keeps.then_some(3));
        world.pass_with(&b, &[]);
        assert_eq!(world.expired().len(), usize::from(keeps));
    }
}

#[test]
fn code_in_pieces_is_kept_for_an_address_in_any_and_code_of_unknown_size_for_any_address() {
    let piece = |start| Piece { start, bytes: 16 };
    for (bytes, pieces, address, keeps) in [
        (32, vec![piece(0x400), piece(0x500)], 0x508, true),
        (32, vec![piece(0x400), piece(0x500)], 0x108, false),
        (0, vec![], 0x9000, true),
        (usize::MAX, vec![], 0x9000, true),
    ] {
        let world = World::new();
        let (a, _) = world.grace.enlist(None);
        world.grace.retire(world.code(0x100, bytes, pieces));
        world.pass_with(&a, &[address]);
        assert_eq!(world.expired().is_empty(), keeps, "{bytes} bytes, {address:#x}");
        world.pass_with(&a, &[]);
        assert_eq!(world.expired().len(), usize::from(keeps));
    }
}

#[test]
fn a_survey_from_before_frees_nothing_that_a_later_one_kept() {
    let world = World::new();
    let (a, _) = world.grace.enlist(None);
    let before = world.grace.survey();
    world.retire(0x100);
    world.pass_with(&a, &[0x110]);
    assert!(world.expired().is_empty());
    let mut limbo = lock(&world.grace.limbo);
    assert!(limbo.expired(&before, &world.owners, &world.grace.leases).is_empty());
}

#[test]
fn leased_code_is_set_aside_and_freed_after_the_last_lease_alone() {
    let world = World::new();
    world.grace.lease(0x100);
    world.grace.lease(0x100);
    world.retire(0x100);
    world.retire(0x200);
    assert_eq!(world.expired(), [0x200]);
    assert!(!world.grace.end_lease(0x100));
    assert!(world.expired().is_empty() && !world.grace.is_anything_to_look_at());
    assert_eq!(world.grace.waiting(), (1, 32));
    assert!(world.grace.end_lease(0x100));
    assert_eq!(world.expired(), [0x100]);
    assert!(world.expired().is_empty());
}

#[test]
fn the_end_of_a_lease_does_not_free_code_that_has_frames() {
    let world = World::new();
    let (a, _) = world.grace.enlist(None);
    world.grace.lease(0x100);
    world.retire(0x100);
    world.pass(&a);
    assert!(world.expired().is_empty());
    world.pass_with(&a, &[0x108]);
    assert!(world.grace.end_lease(0x100));
    assert!(world.expired().is_empty());
    world.pass_with(&a, &[]);
    assert_eq!(world.expired(), [0x100]);
}

#[test]
fn the_furthest_behind_is_named_first_and_unnamed_mutators_go_by_their_thread() {
    let world = World::new();
    let (far, _) = world.grace.enlist(Some("far".into()));
    world.retire(0x100);
    let near = std::thread::scope(|scope| {
        let enlist = || world.grace.enlist(None).0;
        std::thread::Builder::new().name("near".into()).spawn_scoped(scope, enlist).unwrap().join().unwrap()
    });
    assert_eq!(world.grace.laggards().len(), 1, "near is not behind");
    world.retire(0x200);
    let behind: Vec<_> = world.grace.laggards().iter().map(|by| (by.name.to_string(), by.epochs)).collect();
    assert_eq!(behind, [("far".to_string(), 2), ("near".to_string(), 1)]);
    assert_eq!(&*world.grace.holder().unwrap().name, "far");
    world.pass(&far);
    go_offline(&near);
    assert!(world.grace.laggards().is_empty());
}

#[test]
fn code_that_is_handed_back_waits_for_leases_only_and_comes_without_an_owner_too() {
    let mut world = World::new();
    world.grace.hand_back();
    let (_busy, _) = world.grace.enlist(None);
    world.grace.lease(0x100);
    world.retire(0x100);
    world.retire(0x200);
    world.grace.retire(Unlinked { owner: OwnerWord::NONE, ..world.code(0x300, 0, vec![]) });
    world.grace.retire(Unlinked { index: 0, word: CodeWord(0), owner: OwnerWord::NONE });
    assert_eq!(world.expired(), [0x200, 0x300]);
    assert!(world.grace.end_lease(0x100));
    assert_eq!(world.expired(), [0x100]);
}
