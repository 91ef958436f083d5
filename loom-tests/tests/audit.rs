//! The source, the protocol and the list of mutants say the same.

use beadwork_loom_tests::audit::{accesses, edges, models, mutants, relaxed, root, rules, sources, tables};
use beadwork_loom_tests::mutants::{MUTANTS, Mutant, PROMISES};
use beadwork_loom_tests::reasons::{HELD_OTHERWISE, NOT_BY_ATOMICS, NOT_OF_ORDER, RELAXED};

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
fn every_edge_and_every_rule_has_a_mutant_and_every_mutant_breaks_one() {
    let rules = rules();
    let named = rules.iter().map(|(name, _)| name.clone()).chain(edges());
    let promises = PROMISES.iter().map(|(name, _)| name.to_string());
    let all: Vec<_> = named.map(|name| name.to_lowercase()).chain(promises).collect();
    let breaks = |mutant: &Mutant, name: &str| mutant.name.split('-').next() == Some(name);
    let excused = |name: &str| NOT_OF_ORDER.iter().any(|(rule, _)| rule.to_lowercase() == name);
    for name in &all {
        let mutant = MUTANTS.iter().any(|mutant| breaks(mutant, name));
        assert!(mutant != excused(name), "{name}: has a mutant: {mutant}; excused: {}", excused(name));
    }
    let strays: Vec<_> = MUTANTS
        .iter()
        .filter(|mutant| !all.iter().any(|name| breaks(mutant, name)))
        .map(|mutant| mutant.name)
        .collect();
    assert_eq!(strays, [""; 0], "neither an edge nor a rule nor a promise");
}

#[test]
fn every_promise_is_of_a_module_that_there_is() {
    for (name, file) in PROMISES {
        assert!(sources().iter().any(|(there, _)| there == file), "{name}: {file}");
    }
}

#[test]
fn every_model_catches_a_mutant_and_every_mutant_is_caught_by_models_that_there_are() {
    let models = models();
    let catches: Vec<_> = MUTANTS.iter().flat_map(|mutant| mutant.caught).map(|catch| catch.model).collect();
    let idle: Vec<_> = models.iter().filter(|model| !catches.contains(&model.as_str())).collect();
    let gone: Vec<_> = catches.iter().filter(|model| !models.iter().any(|there| there == **model)).collect();
    assert!(idle.is_empty() && gone.is_empty(), "catch no mutant: {idle:?}; are not there: {gone:?}");
    for mutant in MUTANTS {
        assert!(!mutant.caught.is_empty(), "{}", mutant.name);
        assert!(mutant.caught.iter().all(|catch| !catch.complaint.is_empty()), "{}", mutant.name);
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
fn every_relaxed_access_has_a_reason_why_that_is_enough() {
    let mut keys: Vec<_> = relaxed().iter().map(|access| access.key()).collect();
    keys.sort();
    let mut reasons: Vec<_> = RELAXED.iter().map(|(key, _)| key.to_string()).collect();
    reasons.sort();
    let missing: Vec<_> = keys.iter().filter(|key| !reasons.contains(key)).collect();
    let gone: Vec<_> = reasons.iter().filter(|key| !keys.contains(key)).collect();
    assert!(keys == reasons, "not in `RELAXED`: {missing:#?}; in it for nothing: {gone:#?}");
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
