//! The source, the protocol and the list of mutants say the same.

use beadwork_loom_tests::audit::{accesses, edges, mutants, relaxed, root, tables};
use beadwork_loom_tests::mutants::MUTANTS;
use beadwork_loom_tests::reasons::{HELD_OTHERWISE, NOT_BY_ATOMICS, RELAXED};

#[test]
fn every_access_that_is_not_relaxed_names_an_edge_of_the_protocol() {
    let edges = edges();
    let strays: Vec<_> = accesses()
        .into_iter()
        .filter(|access| access.edges.is_empty() || access.edges.iter().any(|edge| !edges.contains(edge)))
        .map(|access| format!("{}:{} {} {:?}", access.file, access.line, access.what, access.edges))
        .collect();
    assert!(strays.is_empty(), "say in a comment which edge these are for:\n{}", strays.join("\n"));
}

#[test]
fn every_edge_has_accesses_on_both_of_its_sides_or_is_one_of_locks() {
    let accesses = accesses();
    for edge in edges() {
        let of_it: Vec<_> = accesses.iter().filter(|access| access.edges.contains(&edge)).collect();
        let both =
            of_it.iter().any(|access| access.releases()) && of_it.iter().any(|access| access.acquires());
        let excused = NOT_BY_ATOMICS.iter().any(|(name, _)| *name == edge);
        assert!(both != excused, "{edge}: on both sides: {both}; listed as not by atomics: {excused}");
    }
}

#[test]
fn every_mutant_in_the_source_is_listed_once_and_every_listed_one_is_in_the_source() {
    let (source, mut listed) = (mutants(), MUTANTS.iter().map(|mutant| mutant.name).collect::<Vec<_>>());
    listed.sort();
    assert_eq!(source, listed);
}

#[test]
fn every_edge_has_a_mutant() {
    for edge in edges() {
        let prefix = format!("{}-", edge.to_lowercase());
        assert!(MUTANTS.iter().any(|mutant| mutant.name.starts_with(&prefix)), "{edge}");
    }
}

#[test]
fn every_access_has_a_mutant_or_a_reason_why_none_could_be_caught() {
    let accesses = accesses();
    let reason = |key: &str| HELD_OTHERWISE.iter().find(|(access, _)| key == *access);
    let bare: Vec<_> = accesses
        .iter()
        .filter(|access| access.mutant.is_none() == reason(&access.key()).is_none())
        .map(|access| format!("{} (mutant: {:?})", access.key(), access.mutant))
        .collect();
    assert!(
        bare.is_empty(),
        "neither a mutant nor a reason in `HELD_OTHERWISE`, or both:\n{}",
        bare.join("\n")
    );
    for (key, _) in HELD_OTHERWISE {
        assert!(accesses.iter().any(|access| access.key() == *key), "no such access: {key}");
    }
}

#[test]
fn every_cell_with_relaxed_accesses_has_a_reason_why_they_are_enough() {
    let mut cells: Vec<_> = relaxed().iter().map(|access| access.cell()).collect();
    cells.sort();
    cells.dedup();
    let mut reasons: Vec<_> = RELAXED.iter().map(|(cell, _)| cell.to_string()).collect();
    reasons.sort();
    let missing: Vec<_> = cells.iter().filter(|cell| !reasons.contains(cell)).collect();
    let gone: Vec<_> = reasons.iter().filter(|reason| !cells.contains(reason)).collect();
    assert!(cells == reasons, "not in `RELAXED`: {missing:?}; in it for nothing: {gone:?}");
}

#[test]
fn the_tables_in_the_protocol_are_those_of_the_source() {
    let (path, table) = (root().join("src/protocol/accesses.md"), tables());
    if std::env::var_os("BEADWORK_RENEW").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    let stale =
        there.lines().find(|line| !table.contains(line)).or(table.lines().find(|line| !there.contains(line)));
    assert!(
        there == table,
        "renew it by `BEADWORK_RENEW=1 cargo test -p beadwork-loom-tests --test audit`; first of all: {stale:?}"
    );
}
