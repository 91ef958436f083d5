//! Deliberate faults, for the models to catch.
//!
//! `mutant!` marks where an ordering or a check holds up an edge or a rule, which its name begins with. In every build but
//! that of the models it is what belongs there, and nothing else. In a build of the models, the one mutant that
//! `BEADWORK_MUTANT` names is broken at run time, and a model has to fail; `loom-tests/src/mutants.rs` says which.

/// `mutant!("edge-what", Release)` is the ordering, and Relaxed in the mutant. `mutant!("edge-what")` is false, and true in the
/// mutant.
#[cfg(not(beadwork_loom))]
macro_rules! mutant {
    ($name:literal, $ordering:expr) => {
        $ordering
    };
    ($name:literal) => {
        false
    };
}

#[cfg(beadwork_loom)]
macro_rules! mutant {
    ($name:literal, $ordering:expr) => {
        if $crate::mutant::is_on($name) { std::sync::atomic::Ordering::Relaxed } else { $ordering }
    };
    ($name:literal) => {
        $crate::mutant::is_on($name)
    };
}

/// Whether the environment names this mutant.
#[cfg(beadwork_loom)]
pub(crate) fn is_on(name: &str) -> bool {
    static ON: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    ON.get_or_init(|| std::env::var("BEADWORK_MUTANT").ok()).as_deref() == Some(name)
}
