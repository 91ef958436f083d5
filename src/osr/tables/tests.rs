use super::*;

fn entries(sites: impl IntoIterator<Item = u64>) -> Vec<OsrEntry> {
    sites.into_iter().map(|site| OsrEntry { site, entry: (site & u64::MAX >> 2) + 0x1000 }).collect()
}

#[test]
fn every_site_of_a_table_of_any_length_is_found_and_no_other() {
    let (tables, grace) = (Tables::reserve(16, 1 << 12).unwrap(), Grace::new());
    for len in [1u64, 2, 7, 8, 9, 17, 31, 32, 100, 1000] {
        let bead = Bead::new(len as u32, 3);
        let word = tables.make(bead, entries((0..len).rev().map(|n| n * 3)), &grace, |_| false).unwrap();
        tables.publish(bead.index(), word);
        for site in 0..len * 3 {
            let expected = (site % 3 == 0).then_some(site + 0x1000);
            assert_eq!(tables.find(bead, site), expected, "{site} of {len}");
        }
        assert_eq!(tables.find(bead, u64::MAX), None);
        assert_eq!(tables.find(Bead::new(bead.index(), 2), 0), None, "another generation");
    }
}

#[test]
fn sites_may_be_any_numbers_also_those_that_empty_cells_hold() {
    let (tables, grace) = (Tables::reserve(16, 1 << 12).unwrap(), Grace::new());
    let random = |n: u64| u64::from(crate::clock::random(1, n, 0)) << 32 | n;
    for len in (1..=40).chain([64, 200]) {
        let sites = (0..len - 1).map(random).chain([u64::MAX]);
        let table = sites.map(|site| OsrEntry { site, entry: (site >> 16) + 1 });
        let (table, bead) = (table.collect::<Vec<_>>(), Bead::new(1, 0x7fff - 1));
        let word = tables.make(bead, table.clone(), &grace, |_| false).unwrap();
        tables.publish(1, word);
        assert_eq!(tables.len(bead), len as u32);
        assert!(table.iter().all(|entry| tables.find(bead, entry.site) == Some(entry.entry)), "of {len}");
        let others = (0..1_000).map(|n| random(n + 1_000)).chain([0, u64::MAX - 1]);
        assert_eq!(others.filter_map(|site| tables.find(bead, site)).count(), 0, "of {len}");
        let without = tables.make(bead, entries([7]), &grace, |_| false).unwrap();
        tables.publish(1, without);
        assert_eq!([u64::MAX, 0].map(|site| tables.find(bead, site)), [None; 2]);
    }
}

#[test]
fn the_site_that_empty_cells_hold_is_named_by_a_table_only_if_it_is_an_entry_of_it() {
    let (tables, grace) = (Tables::reserve(16, 1 << 12).unwrap(), Grace::new());
    let bead = Bead::new(1, 0);
    // Several lengths, so that the first look is at an empty cell for some.
    for len in (3..30).filter(|len: &u64| !len.is_power_of_two()) {
        let word = tables.make(bead, entries(0..len), &grace, |_| false).unwrap();
        tables.publish(1, word);
        assert!(tables.names(word, 1) && !tables.names(word, u64::MAX), "{len}");
        tables.suppress(bead, u64::MAX, true);
        assert_eq!(tables.len(bead), len as u32, "{len}");
    }
}

#[test]
fn two_sites_that_differ_in_any_one_bit_need_no_search() {
    let (tables, grace) = (Tables::reserve(16, 1 << 12).unwrap(), Grace::new());
    for bit in 0..64 {
        let word = tables.make(Bead::new(1, 0), entries([5, 5 ^ 1 << bit]), &grace, |_| false).unwrap();
        assert_eq!(word.shape().class(), 1, "bit {bit}");
        assert!(!word.is_sorted(), "bit {bit}");
    }
}

#[test]
fn of_equal_sites_the_first_counts_and_an_empty_table_is_none() {
    let (tables, grace) = (Tables::reserve(16, 16).unwrap(), Grace::new());
    let bead = Bead::new(1, 0);
    assert_eq!(tables.make(bead, vec![], &grace, |_| false), Ok(OsrWord::NONE));
    let twice = vec![OsrEntry { site: 5, entry: 1 }, OsrEntry { site: 5, entry: 2 }];
    let word = tables.make(bead, twice, &grace, |_| false).unwrap();
    tables.publish(1, word);
    assert_eq!((tables.find(bead, 5), tables.len(bead)), (Some(1), 1));
}

#[test]
fn runs_are_used_again_only_after_the_grace_period_and_exhaustion_is_answered() {
    let (tables, grace) = (Tables::reserve(16, 4).unwrap(), Grace::new());
    let (bead, (cell, _)) = (Bead::new(1, 0), grace.enlist(None));
    let make = || tables.make(bead, entries(0..3), &grace, |_| false);
    let word = make().unwrap();
    assert_eq!(make(), Err(Refused));
    tables.retire(word, &grace);
    assert_eq!(make(), Err(Refused), "a mutator may be reading it");
    crate::grace::go_offline(&cell);
    let again = make().unwrap();
    tables.discard(again);
    assert!(make().is_ok(), "never published, so free at once");
}

#[test]
fn a_long_run_that_is_free_makes_room_for_short_ones() {
    let (tables, grace) = (Tables::reserve(16, 16).unwrap(), Grace::new());
    let bead = Bead::new(1, 0);
    let make = |len| tables.make(bead, entries(0..len), &grace, |_| false);
    tables.discard(make(16).unwrap());
    let mut runs: Vec<_> =
        [1, 2, 3, 1, 5].map(|len| make(len).unwrap()).iter().map(|word| word.offset()).collect();
    runs.sort();
    runs.dedup();
    assert_eq!(runs.len(), 5, "each has its own");
    assert_eq!(make(1), Err(Refused));
}

#[test]
fn a_suppressed_entry_is_not_found_until_it_is_allowed_again() {
    let (tables, grace) = (Tables::reserve(16, 16).unwrap(), Grace::new());
    let bead = Bead::new(1, 0);
    let word = tables.make(bead, entries([1, 2, 3]), &grace, |site| site == 3).unwrap();
    tables.publish(1, word);
    tables.suppress(bead, 2, true);
    assert_eq!([1, 2, 3].map(|site| tables.find(bead, site).is_some()), [true, false, false]);
    tables.suppress(bead, 2, false);
    tables.suppress(bead, 3, false);
    assert_eq!([1, 2, 3].map(|site| tables.find(bead, site).is_some()), [true, true, true]);
}
