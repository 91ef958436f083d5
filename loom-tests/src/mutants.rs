//! The list of mutants: deliberate faults in the crate's source, each with the model that has to catch it.
//!
//! A mutant's name begins with the edge or the rule it breaks. The audit sees to it that every mutant in the source is here,
//! every one here is in the source, and no edge is without one.

/// A deliberate fault, see `src/mutant.rs`.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// Its name, which begins with the edge or rule it breaks.
    pub name: &'static str,
    /// The model that has to catch it.
    pub model: &'static str,
    /// Preemptions that are enough to catch it.
    pub preemptions: usize,
}

const fn mutant(name: &'static str, model: &'static str) -> Mutant {
    Mutant { name, model, preemptions: 2 }
}

/// Every mutant.
pub const MUTANTS: &[Mutant] = &[
    mutant("register-store", "publish::who_meets_a_function_on_a_walk_sees_its_core"),
    mutant("publish-code", "publish::who_dispatches_code_sees_all_of_it"),
    mutant("publish-dispatch", "publish::who_dispatches_code_sees_all_of_it"),
    mutant("publish-slot", "publish::who_calls_through_a_slot_sees_all_of_the_code"),
    mutant("publish-lease", "publish::who_leases_code_sees_all_of_it"),
    mutant("publish-finish", "publish::who_sees_the_tier_sees_the_code"),
    mutant("publish-state-load", "publish::who_sees_the_tier_sees_the_code"),
    mutant("publish-loops", "osr::who_finds_a_loop_entry_sees_all_of_its_code"),
    mutant("publish-probe", "osr::who_finds_a_loop_entry_sees_all_of_its_code"),
    mutant("claim-swap", "claim::who_claims_a_request_finds_the_compile_that_came_with_it"),
    mutant("claim-token", "claim::a_function_that_gets_hot_beside_a_token_left_over_is_compiled"),
    mutant("claim-token-popped", "claim::a_function_that_gets_hot_beside_a_token_left_over_is_compiled"),
    mutant("claim-before-token", "claim::who_claims_a_request_finds_the_compile_that_came_with_it"),
    mutant("s1-any-version", "claim::a_result_of_a_cancelled_claim_never_ends_a_newer_one"),
    mutant("s2-two-publishers", "publish::install_and_invalidate_leave_code_and_state_agreeing"),
    mutant("s3-free-first", "reuse::an_index_that_is_used_again_as_it_is_removed_is_a_live_function"),
    mutant("wake-late-look", "claim::a_request_that_meets_a_worker_going_idle_is_not_lost"),
    mutant("wake-place-given-back", "claim::a_request_that_meets_a_helper_in_a_full_lane_is_not_lost"),
    mutant("wake-seen-busy", "life::who_waits_for_a_helper_that_finds_nothing_to_do_is_woken"),
    mutant("retire-stamp", "publish::superseded_code_is_not_freed_while_a_mutator_can_be_in_it"),
    mutant("retire-safepoint", "publish::superseded_code_is_not_freed_while_a_mutator_can_be_in_it"),
    mutant(
        "retire-safepoint-with",
        "publish::superseded_code_is_not_freed_before_a_safepoint_that_names_frames",
    ),
    mutant("retire-pass", "publish::superseded_code_is_not_freed_while_a_mutator_can_be_in_it"),
    mutant("retire-offline", "publish::superseded_code_is_not_freed_before_a_mutator_goes_offline"),
    mutant("retire-scan-cell", "publish::superseded_code_is_not_freed_while_a_mutator_can_be_in_it"),
    mutant("retire-unbounded", "publish::code_is_not_freed_under_a_mutator_that_comes_online_during_a_scan"),
    mutant("retire-held", "grace::code_that_was_kept_for_a_frame_is_freed_after_its_last_use"),
    mutant("retire-scan-held", "grace::code_that_was_kept_for_a_frame_is_freed_after_its_last_use"),
    mutant("retire-run", "osr::a_probe_beside_swaps_that_use_runs_of_cells_again_finds_live_code"),
    mutant("g1-stamp-before", "publish::superseded_code_is_not_freed_while_a_mutator_can_be_in_it"),
    mutant("g2-epoch-first", "grace::code_with_a_frame_is_not_freed_by_safepoints_that_name_it"),
    mutant("g4-addresses-first", "grace::code_with_a_frame_is_not_freed_by_safepoints_that_name_it"),
    mutant(
        "g4-older-survey",
        "grace::a_scan_with_an_older_list_of_addresses_frees_nothing_that_a_newer_one_keeps",
    ),
    mutant("online-cell", "publish::superseded_code_is_not_freed_before_a_mutator_goes_offline"),
    mutant(
        "online-fence",
        "publish::an_offline_mutator_that_comes_back_sees_what_was_unlinked_or_is_waited_for",
    ),
    mutant("lease-unlooked", "grace::a_lease_taken_without_a_mutator_holds_what_it_names"),
    mutant("lease-unseen", "grace::leased_code_is_not_freed_before_the_last_lease_is_dropped"),
    mutant("reuse-old-budget", "reuse::a_late_count_of_a_stale_handle_is_not_inherited"),
    mutant(
        "reuse-pinned",
        "reuse::code_that_calls_through_a_slot_never_calls_the_next_function_of_the_index",
    ),
    mutant("reuse-old-tag", "reuse::a_late_count_of_a_stale_handle_is_not_inherited"),
    mutant("reuse-probe-untagged", "osr::a_stale_handle_never_finds_the_next_functions_loop"),
    mutant("reuse-at-once", "reuse::a_late_count_of_a_stale_handle_is_not_inherited"),
    mutant("budget-unsigned", "native::a_budget_that_native_code_overdraws_is_a_spent_one_to_a_dispatch"),
    mutant("core-load", "reuse::a_reader_of_a_stale_core_never_gets_the_next_functions"),
    mutant("core-unchecked", "reuse::a_reader_of_a_stale_core_never_gets_the_next_functions"),
    mutant("core-key-load", "reuse::a_reader_of_a_stale_key_never_gets_the_next_functions"),
    mutant("pause-unsignalled", "life::a_request_made_during_a_pause_is_compiled_after_it"),
    mutant(
        "assume-unchecked",
        "assumption::code_of_the_vms_own_is_never_found_after_its_assumption_is_broken",
    ),
    mutant(
        "assume-uncounted",
        "assumption::code_of_the_vms_own_is_never_found_after_its_assumption_is_broken",
    ),
    mutant(
        "assume-second-breaker",
        "assumption::of_two_threads_that_break_an_assumption_neither_returns_before_the_code_is_gone",
    ),
    mutant(
        "assume-claim-stays",
        "assumption::code_that_names_an_assumption_when_it_is_finished_is_never_found_after_that_is_broken",
    ),
    mutant(
        "assume-vm-version",
        "assumption::code_of_the_vms_own_outlives_the_assumption_of_the_compile_whose_claim_it_ended",
    ),
    mutant("fault-noted", "claim::a_failed_compile_of_a_removed_function_leaves_no_fault"),
    mutant("fault-forgotten", "claim::a_failed_compile_of_a_removed_function_leaves_no_fault"),
    mutant("fault-counters-given", "native::counters_asked_for_while_the_function_is_removed_are_not_lost"),
    mutant("deopt-version-of-state", "deopt::failing_code_is_taken_whatever_is_asked_for_meanwhile"),
    mutant("deopt-record-late", "deopt::who_finds_the_code_gone_finds_the_pause_that_goes_with_it"),
    mutant("k1-unlocked", "deopt::a_revert_never_brings_back_what_was_invalidated"),
    mutant("k2-unlocked", "deopt::a_tier_up_against_an_invalidation_holds_nothing_that_was_taken_back"),
    mutant("close-fence", "life::nothing_stays_queued_on_an_engine_that_was_shut_down"),
    mutant("close-push", "life::nothing_stays_queued_on_an_engine_that_was_shut_down"),
    mutant("settle-announce", "life::who_waits_for_a_compile_that_somebody_else_asked_for_is_woken"),
    mutant("settle-change", "life::who_waits_for_a_compile_that_somebody_else_asked_for_is_woken"),
    mutant("fork-enter", "life::a_fork_cuts_no_section_in_two_and_sections_see_what_its_handler_mended"),
    mutant("fork-leave", "life::a_fork_cuts_no_section_in_two_and_sections_see_what_its_handler_mended"),
    mutant("fork-close", "life::a_fork_cuts_no_section_in_two_and_sections_see_what_its_handler_mended"),
    mutant("fork-wait", "life::a_fork_cuts_no_section_in_two_and_sections_see_what_its_handler_mended"),
    mutant("fork-open", "life::a_fork_cuts_no_section_in_two_and_sections_see_what_its_handler_mended"),
    mutant("fork-unwaited", "life::a_fork_cuts_no_section_in_two_and_sections_see_what_its_handler_mended"),
    mutant("pause-fence", "life::a_request_that_meets_a_pause_is_compiled_after_it"),
    mutant("wake-waiting-look", "life::who_waits_for_the_drain_is_woken"),
    mutant("wake-busy-look", "life::who_waits_for_the_drain_is_woken"),
    mutant("core-set", "publish::who_reads_a_core_that_was_moved_sees_the_object_there"),
    mutant("wake-seat-fence", "life::who_waits_for_a_helper_that_finds_nothing_to_do_is_woken"),
    mutant("unit-asked", "units::a_compile_that_meets_a_redefinition_never_has_the_old_body_installed"),
    mutant("unit-unbroken", "units::of_two_redefinitions_neither_returns_before_the_old_body_is_gone"),
];
