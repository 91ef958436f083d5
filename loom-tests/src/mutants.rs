//! The list of mutants: deliberate faults in the crate's source, each with the models that have to catch it, and the complaint they
//! make then.
//!
//! A mutant's name begins with the edge, the rule or the promise it breaks. The audit sees to it that every mutant in the source is
//! here, every one here is in the source, no edge and no rule is without one, and no model without one that it catches.

/// A deliberate fault, see `src/mutant.rs`.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// Its name, which begins with what it breaks.
    pub name: &'static str,
    /// The models that catch it. Each was seen to.
    pub caught: &'static [Catch],
}

/// A model that catches a mutant.
#[derive(Clone, Copy, Debug)]
pub struct Catch {
    /// Its module and name.
    pub model: &'static str,
    /// Part of what it says of its property then. A model that fails in another way, by a limit of loom's, say, has caught nothing.
    /// *Causality violation* is loom's word for memory that is used before it was written or after it was freed, *deadlock* its word
    /// for a thread that nobody wakes.
    pub complaint: &'static str,
}

/// Preemptions that are enough to catch each of them.
pub const PREEMPTIONS: usize = 2;

const fn mutant(name: &'static str, caught: &'static [Catch]) -> Mutant {
    Mutant { name, caught }
}

const fn caught(model: &'static str, complaint: &'static str) -> Catch {
    Catch { model, complaint }
}

/// What a module promises beside the edges and the rules: the first word of its mutants' names, and where it is stated.
pub const PROMISES: &[(&str, &str)] =
    &[("order", "src/delivery.rs"), ("moving", "src/moving.rs"), ("snapshot", "src/snapshot.rs")];

/// Every mutant.
pub const MUTANTS: &[Mutant] = &[
    mutant(
        "register-store",
        &[caught("publish::who_meets_a_function_on_a_walk_sees_its_core_and_its_name", "left: None")],
    ),
    mutant(
        "register-load",
        &[caught("publish::who_meets_a_function_on_a_walk_sees_its_core_and_its_name", "left: None")],
    ),
    mutant(
        "register-word",
        &[caught("publish::who_meets_a_function_whose_core_is_zero_sees_its_name", "left: None")],
    ),
    mutant("publish-code", &[caught("publish::who_dispatches_code_sees_all_of_it", "Causality violation")]),
    mutant(
        "publish-dispatch",
        &[caught("publish::who_dispatches_code_sees_all_of_it", "Causality violation")],
    ),
    mutant(
        "publish-slot",
        &[caught("publish::who_calls_through_a_slot_sees_all_of_the_code", "Causality violation")],
    ),
    mutant(
        "publish-mark",
        &[caught("publish::who_dispatches_code_that_a_sweep_marked_sees_all_of_it", "Causality violation")],
    ),
    mutant("publish-lease", &[caught("publish::who_leases_code_sees_all_of_it", "Causality violation")]),
    mutant(
        "publish-finish",
        &[
            caught("publish::who_sees_the_tier_sees_the_code", "left: 0"),
            caught("claim::code_the_vm_installs_wins_over_a_claim_in_flight", "left: 1"),
            caught(
                "deopt::of_two_bailouts_of_one_version_one_counts_and_neither_thread_is_answered_that_code_again",
                "left: 1",
            ),
        ],
    ),
    mutant("publish-state-load", &[caught("publish::who_sees_the_tier_sees_the_code", "left: 0")]),
    mutant(
        "publish-loops",
        &[caught("osr::who_finds_a_loop_entry_sees_all_of_its_code", "Causality violation")],
    ),
    mutant(
        "publish-probe",
        &[caught("osr::who_finds_a_loop_entry_sees_all_of_its_code", "Causality violation")],
    ),
    mutant(
        "claim-swap",
        &[caught("claim::who_claims_a_request_finds_the_compile_that_came_with_it", "left: 1")],
    ),
    mutant(
        "claim-token",
        &[caught(
            "claim::a_function_that_gets_hot_beside_a_token_left_over_is_compiled",
            "queued, and nobody comes",
        )],
    ),
    mutant(
        "claim-token-popped",
        &[caught(
            "claim::a_function_that_gets_hot_beside_a_token_left_over_is_compiled",
            "queued, and nobody comes",
        )],
    ),
    mutant(
        "claim-before-token",
        &[caught("claim::who_claims_a_request_finds_the_compile_that_came_with_it", "left: 0")],
    ),
    mutant(
        "claim-bit-kept",
        &[caught(
            "claim::a_request_that_meets_an_invalidation_is_compiled_or_cancelled_and_can_be_asked_again",
            "left: T0",
        )],
    ),
    mutant(
        "claim-asked-again",
        &[caught("claim::two_threads_that_ask_together_get_one_compile", "left: (1, 2)")],
    ),
    mutant(
        "claim-evicted-unasked",
        &[caught("claim::a_request_that_meets_an_eviction_is_compiled", "asked for, and evicted")],
    ),
    mutant("claim-twice", &[caught("claim::two_workers_never_compile_the_same_request", "left: 2")]),
    mutant(
        "s1-any-version",
        &[caught("claim::a_result_of_a_cancelled_claim_never_ends_a_newer_one", "of the source before")],
    ),
    mutant(
        "s1-reload-spares",
        &[caught(
            "assumption::p25_a_reload_that_meets_a_compile_ends_with_the_new_code_and_never_with_a_null_entry",
            "asked for again, and of the new source",
        )],
    ),
    mutant(
        "s1-deopt-spares",
        &[caught(
            "deopt::a_bailout_ends_a_compile_in_flight_or_comes_too_late_for_its_code",
            "held while the code above it runs",
        )],
    ),
    mutant(
        "s1-result-kept",
        &[caught(
            "reuse::a_compile_of_a_removed_function_is_dropped_and_its_memory_freed",
            "nobody frees it any more",
        )],
    ),
    mutant(
        "s2-two-publishers",
        &[
            caught("publish::install_and_invalidate_leave_code_and_state_agreeing", "left: true"),
            caught(
                "assumption::an_install_that_another_overtakes_is_listed_under_the_version_it_gets",
                "it was listed under another version",
            ),
            caught(
                "assumption::a_reload_that_meets_an_install_of_the_vms_leaves_code_and_state_agreeing",
                "left: true",
            ),
            caught(
                "assumption::a_reload_that_meets_an_invalidation_leaves_code_and_state_agreeing",
                "left: true",
            ),
            caught("claim::code_the_vm_installs_wins_over_a_claim_in_flight", "left: 1"),
            caught(
                "reuse::a_reload_of_a_function_that_ends_asks_for_no_compile_of_the_next_one",
                "code of a function that has ended",
            ),
            caught(
                "reuse::an_invalidation_of_a_function_that_ends_leaves_nothing_of_it",
                "engine.state(*old).is_err()",
            ),
            caught(
                "reuse::code_the_vm_installs_as_its_function_ends_is_freed_and_found_by_nobody",
                "an owner was lost",
            ),
            caught("reuse::a_slot_asked_for_during_an_install_holds_what_was_installed", "left: 0"),
            caught(
                "reuse::the_core_of_a_removed_function_never_lands_in_the_next_one",
                "left: Err(Stale(0v2))",
            ),
        ],
    ),
    mutant(
        "s3-free-first",
        &[caught(
            "reuse::an_index_that_is_used_again_as_it_is_removed_is_a_live_function",
            "called `Result::unwrap()` on an `Err` value: Stale(Stale(0v1))",
        )],
    ),
    mutant("wake-look", &[caught("claim::a_request_that_meets_a_worker_going_idle_is_not_lost", "left: 1")]),
    mutant(
        "wake-late-look",
        &[caught("claim::a_request_that_meets_a_worker_going_idle_is_not_lost", "left: 1")],
    ),
    mutant(
        "wake-place-given-back",
        &[caught(
            "claim::a_request_that_meets_a_helper_in_a_full_lane_is_not_lost",
            "queued, and nobody comes",
        )],
    ),
    mutant(
        "wake-seen-busy",
        &[caught("life::who_waits_for_a_helper_that_finds_nothing_to_do_is_woken", "deadlock")],
    ),
    mutant("wake-waiting-look", &[caught("life::who_waits_for_the_drain_is_woken", "left: Ok(T0)")]),
    mutant("wake-busy-look", &[caught("life::who_waits_for_the_drain_is_woken", "left: Ok(T0)")]),
    mutant(
        "wake-seat-fence",
        &[caught("life::who_waits_for_a_helper_that_finds_nothing_to_do_is_woken", "deadlock")],
    ),
    mutant(
        "wake-put-back",
        &[caught(
            "claim::what_a_helper_that_meets_a_pause_puts_back_is_not_lost",
            "queued, and nobody comes",
        )],
    ),
    mutant(
        "wake-place-unsignalled",
        &[caught(
            "claim::a_request_that_meets_a_helper_in_a_full_lane_is_not_lost",
            "queued, and nobody comes",
        )],
    ),
    mutant(
        "wake-leave-unseen",
        &[caught("claim::a_request_that_meets_a_worker_going_idle_is_not_lost", "left: 1")],
    ),
    mutant(
        "wake-taken",
        &[caught(
            "life::who_waits_for_the_drain_of_an_engine_that_is_shut_down_finds_everything_dropped",
            "still queued",
        )],
    ),
    mutant(
        "retire-stamp",
        &[caught(
            "publish::superseded_code_is_not_freed_while_a_mutator_can_be_in_it",
            "Causality violation",
        )],
    ),
    mutant(
        "retire-safepoint",
        &[caught(
            "publish::superseded_code_is_not_freed_while_a_mutator_can_be_in_it",
            "Causality violation",
        )],
    ),
    mutant(
        "retire-safepoint-with",
        &[
            caught(
                "publish::superseded_code_is_not_freed_before_a_safepoint_that_names_frames",
                "Causality violation",
            ),
            caught(
                "grace::code_that_was_left_before_a_safepoint_with_other_addresses_is_freed",
                "Causality violation",
            ),
        ],
    ),
    mutant(
        "retire-pass",
        &[
            caught(
                "publish::superseded_code_is_not_freed_while_a_mutator_can_be_in_it",
                "Causality violation",
            ),
            caught("publish::dispatch_after_invalidate_returned_is_cold", "Causality violation"),
        ],
    ),
    mutant(
        "retire-offline",
        &[caught(
            "publish::superseded_code_is_not_freed_before_a_mutator_goes_offline",
            "Causality violation",
        )],
    ),
    mutant(
        "retire-scan-cell",
        &[caught(
            "publish::superseded_code_is_not_freed_while_a_mutator_can_be_in_it",
            "Causality violation",
        )],
    ),
    mutant(
        "retire-unbounded",
        &[
            caught(
                "publish::code_is_not_freed_under_a_mutator_that_comes_online_during_a_scan",
                "Causality violation",
            ),
            caught(
                "publish::code_is_not_freed_under_a_mutator_that_comes_online_during_a_scan_by_the_spawner",
                "Causality violation",
            ),
        ],
    ),
    mutant(
        "retire-held",
        &[caught("grace::code_that_was_kept_for_a_frame_is_freed_after_its_last_use", "Causality violation")],
    ),
    mutant(
        "retire-scan-held",
        &[
            caught(
                "grace::code_that_was_kept_for_a_frame_is_freed_after_its_last_use",
                "Causality violation",
            ),
            caught(
                "grace::two_mutators_with_frames_keep_code_until_both_have_left_it",
                "Causality violation",
            ),
        ],
    ),
    mutant(
        "retire-in-scope",
        &[caught(
            "grace::a_safepoint_frees_nothing_before_the_scope_a_longjmp_left_open_is_closed",
            "Causality violation",
        )],
    ),
    mutant(
        "o1-run-at-once",
        &[caught(
            "osr::a_probe_beside_swaps_that_use_runs_of_cells_again_finds_live_code",
            "run_loop(&mut engine.mutator(), bead, memory) > 0",
        )],
    ),
    mutant(
        "g1-stamp-before",
        &[
            caught(
                "publish::superseded_code_is_not_freed_while_a_mutator_can_be_in_it",
                "Causality violation",
            ),
            caught("publish::dispatch_after_invalidate_returned_is_cold", "Causality violation"),
            caught("osr::a_probe_after_invalidate_returned_finds_nothing", "Causality violation"),
        ],
    ),
    mutant(
        "g2-epoch-first",
        &[
            caught("grace::code_with_a_frame_is_not_freed_by_safepoints_that_name_it", "Causality violation"),
            caught(
                "grace::two_mutators_with_frames_keep_code_until_both_have_left_it",
                "Causality violation",
            ),
        ],
    ),
    mutant(
        "g4-addresses-first",
        &[
            caught("grace::code_with_a_frame_is_not_freed_by_safepoints_that_name_it", "Causality violation"),
            caught(
                "grace::two_mutators_with_frames_keep_code_until_both_have_left_it",
                "Causality violation",
            ),
        ],
    ),
    mutant(
        "g4-older-survey",
        &[caught(
            "grace::a_scan_with_an_older_list_of_addresses_frees_nothing_that_a_newer_one_keeps",
            "Causality violation",
        )],
    ),
    mutant(
        "online-cell",
        &[caught(
            "publish::superseded_code_is_not_freed_before_a_mutator_goes_offline",
            "Causality violation",
        )],
    ),
    mutant(
        "online-fence",
        &[caught(
            "publish::an_offline_mutator_that_comes_back_sees_what_was_unlinked_or_is_waited_for",
            "Causality violation",
        )],
    ),
    mutant(
        "lease-unlooked",
        &[caught("grace::a_lease_taken_without_a_mutator_holds_what_it_names", "Causality violation")],
    ),
    mutant(
        "lease-unseen",
        &[caught("grace::leased_code_is_not_freed_before_the_last_lease_is_dropped", "Causality violation")],
    ),
    mutant(
        "reuse-old-budget",
        &[
            caught("reuse::a_late_count_of_a_stale_handle_is_not_inherited", "left: Ok(2)"),
            caught(
                "native::a_late_native_count_is_not_inherited_by_the_next_function_of_the_index",
                "never asked for a budget",
            ),
        ],
    ),
    mutant(
        "reuse-pinned",
        &[
            caught(
                "reuse::code_that_calls_through_a_slot_never_calls_the_next_function_of_the_index",
                "left: 3",
            ),
            caught(
                "native::code_below_a_callback_that_counts_once_more_counts_for_no_other_function",
                "nobody stores there any more",
            ),
        ],
    ),
    mutant(
        "reuse-old-tag",
        &[
            caught("reuse::a_late_count_of_a_stale_handle_is_not_inherited", "its own handle counts"),
            caught(
                "claim::the_pause_after_a_failed_compile_is_not_inherited_by_the_next_function",
                "its first call meets its threshold",
            ),
        ],
    ),
    mutant(
        "reuse-probe-untagged",
        &[caught("osr::a_stale_handle_never_finds_the_next_functions_loop", "left: 2")],
    ),
    mutant(
        "reuse-at-once",
        &[caught("reuse::a_late_count_of_a_stale_handle_is_not_inherited", "its own handle counts")],
    ),
    mutant(
        "reuse-own-unpinned",
        &[caught(
            "native::code_below_a_callback_that_counts_once_more_counts_for_no_other_function",
            "nobody stores there any more",
        )],
    ),
    mutant(
        "reuse-known-unchecked",
        &[caught(
            "reuse::a_job_of_a_removed_function_never_reads_the_name_of_the_next_one",
            "!wrong.load(Relaxed)",
        )],
    ),
    mutant(
        "reuse-untagged",
        &[caught("reuse::a_stale_handle_never_sees_the_next_functions_code", "left: 2")],
    ),
    mutant(
        "reuse-callback-late",
        &[caught(
            "reuse::an_invalidation_of_a_stale_handle_never_calls_the_next_functions_callback",
            "!called.load(Relaxed)",
        )],
    ),
    mutant(
        "budget-unsigned",
        &[caught(
            "native::a_budget_that_native_code_overdraws_is_a_spent_one_to_a_dispatch",
            "0: spent, and nobody grants another",
        )],
    ),
    mutant(
        "budget-overdrawn",
        &[caught(
            "native::a_budget_that_threads_overdraw_at_the_same_time_is_granted_anew_and_none_is_stuck",
            "0: spent, and nobody grants another",
        )],
    ),
    mutant(
        "budget-busy",
        &[caught(
            "claim::a_function_that_gets_hot_while_another_thread_publishes_is_asked_for_by_its_next_call",
            "hot, and not asked for",
        )],
    ),
    mutant(
        "core-load",
        &[caught("reuse::a_reader_of_a_stale_core_never_gets_the_next_functions", "left: Ok(Core(0x9))")],
    ),
    mutant(
        "core-unchecked",
        &[caught("reuse::a_reader_of_a_stale_core_never_gets_the_next_functions", "left: Ok(Core(0x9))")],
    ),
    mutant(
        "core-key-load",
        &[caught("reuse::a_reader_of_a_stale_key_never_gets_the_next_functions", "left: Some(2)")],
    ),
    mutant(
        "core-set",
        &[caught("publish::who_reads_a_core_that_was_moved_sees_the_object_there", "Causality violation")],
    ),
    mutant(
        "pause-unsignalled",
        &[caught("life::a_request_made_during_a_pause_is_compiled_after_it", "queued, and nobody comes")],
    ),
    mutant(
        "pause-fence",
        &[
            caught("life::a_request_that_meets_a_pause_is_compiled_after_it", "queued, and nobody comes"),
            caught(
                "life::a_compile_submitted_as_the_engine_is_paused_is_the_one_that_is_run_after_it",
                "queued, and nobody comes",
            ),
            caught(
                "life::a_request_that_meets_its_tier_being_switched_on_is_compiled",
                "queued, and nobody comes",
            ),
        ],
    ),
    mutant(
        "assume-unchecked",
        &[caught(
            "assumption::code_of_the_vms_own_is_never_found_after_its_assumption_is_broken",
            "left: (T1, None)",
        )],
    ),
    mutant(
        "assume-uncounted",
        &[caught(
            "assumption::code_of_the_vms_own_is_never_found_after_its_assumption_is_broken",
            "left: (T1, None)",
        )],
    ),
    mutant(
        "assume-second-breaker",
        &[caught(
            "assumption::of_two_threads_that_break_an_assumption_neither_returns_before_the_code_is_gone",
            "found after it was broken",
        )],
    ),
    mutant(
        "assume-claim-stays",
        &[
            caught(
                "assumption::code_that_names_an_assumption_when_it_is_finished_is_never_found_after_that_is_broken",
                "left: (T1, None)",
            ),
            caught(
                "assumption::a_compile_that_names_an_assumption_early_is_never_found_after_that_is_broken",
                "left: (T1, None)",
            ),
        ],
    ),
    mutant(
        "assume-vm-version",
        &[caught(
            "assumption::code_of_the_vms_own_outlives_the_assumption_of_the_compile_whose_claim_it_ended",
            "taken for what the compile relied on",
        )],
    ),
    mutant(
        "assume-struck-before",
        &[caught(
            "assumption::a_dependent_that_is_about_to_be_installed_is_not_struck_off",
            "one was struck off",
        )],
    ),
    mutant(
        "assume-old-version",
        &[caught(
            "assumption::code_that_names_an_assumption_when_it_is_finished_is_never_found_after_that_is_broken",
            "found after it was broken",
        )],
    ),
    mutant(
        "assume-superseded",
        &[caught(
            "assumption::a_dependent_that_is_just_being_superseded_is_not_struck_off_before_it_is_gone",
            "found after it was broken",
        )],
    ),
    mutant(
        "fault-noted",
        &[
            caught(
                "claim::a_failed_compile_of_a_removed_function_leaves_no_fault",
                "nobody would ever forget it",
            ),
            caught(
                "claim::a_failed_compile_of_a_removed_function_leaves_no_fault_when_the_remover_is_spawned",
                "nobody would ever forget it",
            ),
        ],
    ),
    mutant(
        "fault-forgotten",
        &[caught(
            "claim::a_failed_compile_of_a_removed_function_leaves_no_fault",
            "nobody would ever forget it",
        )],
    ),
    mutant(
        "fault-loop-noted",
        &[caught(
            "osr::a_count_of_a_loop_of_a_removed_function_is_kept_nowhere",
            "nobody would ever forget it",
        )],
    ),
    mutant(
        "fault-counters-given",
        &[caught(
            "native::counters_asked_for_while_the_function_is_removed_are_not_lost",
            "left: Some(false)",
        )],
    ),
    mutant(
        "deopt-version-of-state",
        &[caught("deopt::failing_code_is_taken_whatever_is_asked_for_meanwhile", "left: Outdated")],
    ),
    mutant(
        "deopt-record-late",
        &[
            caught(
                "deopt::who_finds_the_code_gone_finds_the_pause_that_goes_with_it",
                "left: Ok(Some(Queued(T1)))",
            ),
            caught(
                "deopt::a_kept_bailout_against_removal_leaves_nothing_behind",
                "left: (1, Some(DeoptHistory { bead: 0v1, tier: T1, last: Bai",
            ),
        ],
    ),
    mutant(
        "deopt-any-version",
        &[caught("deopt::a_late_bailout_leaves_newer_code_alone", "newer code was taken for an old failure")],
    ),
    mutant(
        "k1-unlocked",
        &[
            caught("deopt::a_revert_never_brings_back_what_was_invalidated", "left: (0, 1)"),
            caught(
                "deopt::a_revert_against_removal_loses_no_owner_and_leaves_nothing_behind",
                "memory[0].is_freed() && memory[1].is_freed()",
            ),
            caught(
                "deopt::a_revert_of_newer_code_never_brings_back_what_was_invalidated_before_it",
                "memory[0].is_freed() && memory[1].is_freed()",
            ),
        ],
    ),
    mutant(
        "k1-version-unlocked",
        &[
            caught(
                "assumption::code_held_for_a_revert_never_comes_back_once_its_assumption_is_broken",
                "it came back",
            ),
            caught(
                "deopt::a_version_that_moves_between_running_and_held_is_taken_back_all_the_same",
                "left: (1, 0)",
            ),
        ],
    ),
    mutant(
        "k1-left-held",
        &[
            caught("deopt::a_revert_against_dropping_what_is_held_runs_it_or_frees_it", "left: true"),
            caught(
                "deopt::a_revert_against_a_tier_up_holds_the_baseline_once",
                "!memory[0].is_freed() && memory[1].is_freed()",
            ),
        ],
    ),
    mutant(
        "k2-unlocked",
        &[caught("deopt::a_tier_up_against_an_invalidation_holds_nothing_that_was_taken_back", "left: 1")],
    ),
    mutant(
        "close-fence",
        &[
            caught("life::nothing_stays_queued_on_an_engine_that_was_shut_down", "left: Some(Queued(T1))"),
            caught(
                "life::a_compile_submitted_as_the_engine_is_shut_down_is_dropped_and_stays_nowhere",
                "queued on a closed engine",
            ),
        ],
    ),
    mutant(
        "close-push",
        &[
            caught("life::nothing_stays_queued_on_an_engine_that_was_shut_down", "left: Some(Queued(T1))"),
            caught(
                "life::a_compile_submitted_as_the_engine_is_shut_down_is_dropped_and_stays_nowhere",
                "queued on a closed engine",
            ),
        ],
    ),
    mutant(
        "close-unwoken",
        &[caught("life::a_shutdown_that_waits_is_woken_by_a_helper_that_leaves", "deadlock")],
    ),
    mutant(
        "close-seat-left",
        &[caught("life::a_shutdown_that_waits_is_woken_by_a_helper_that_leaves", "deadlock")],
    ),
    mutant(
        "close-seat-uncounted",
        &[caught("life::no_compile_begins_after_a_shutdown_has_returned", "a compile began afterwards")],
    ),
    mutant(
        "settle-announce",
        &[caught("life::who_waits_for_a_compile_that_somebody_else_asked_for_is_woken", "deadlock")],
    ),
    mutant(
        "settle-change",
        &[caught("life::who_waits_for_a_compile_that_somebody_else_asked_for_is_woken", "deadlock")],
    ),
    mutant(
        "settle-reason-unlocked",
        &[caught("life::who_waits_for_a_compile_that_fails_is_told_why", "not told why")],
    ),
    mutant("settle-unwoken", &[caught("life::who_waits_for_a_compile_is_woken", "deadlock")]),
    mutant(
        "fork-enter",
        &[caught(
            "life::a_fork_cuts_no_section_in_two_and_sections_see_what_its_handler_mended",
            "Causality violation",
        )],
    ),
    mutant(
        "fork-leave",
        &[caught(
            "life::a_fork_cuts_no_section_in_two_and_sections_see_what_its_handler_mended",
            "Causality violation",
        )],
    ),
    mutant(
        "fork-close",
        &[caught(
            "life::a_fork_cuts_no_section_in_two_and_sections_see_what_its_handler_mended",
            "Causality violation",
        )],
    ),
    mutant(
        "fork-wait",
        &[caught(
            "life::a_fork_cuts_no_section_in_two_and_sections_see_what_its_handler_mended",
            "Causality violation",
        )],
    ),
    mutant(
        "fork-open",
        &[caught(
            "life::a_fork_cuts_no_section_in_two_and_sections_see_what_its_handler_mended",
            "Causality violation",
        )],
    ),
    mutant(
        "fork-unwaited",
        &[caught(
            "life::a_fork_cuts_no_section_in_two_and_sections_see_what_its_handler_mended",
            "Causality violation",
        )],
    ),
    mutant(
        "unit-asked",
        &[
            caught("units::a_compile_that_meets_a_redefinition_never_has_the_old_body_installed", "left: 1"),
            caught(
                "units::a_compile_that_meets_the_removal_of_what_it_includes_never_has_that_installed",
                "left: 1",
            ),
        ],
    ),
    mutant(
        "unit-unbroken",
        &[
            caught(
                "units::of_two_redefinitions_neither_returns_before_the_old_body_is_gone",
                "the old body is found",
            ),
            caught(
                "units::a_compile_that_meets_the_removal_of_what_it_includes_never_has_that_installed",
                "the body of a removed function is found",
            ),
        ],
    ),
    mutant(
        "g3-scan-fence",
        &[caught(
            "publish::code_is_not_freed_under_a_mutator_that_comes_online_while_one_takes_it_back_and_another_scans",
            "Causality violation",
        )],
    ),
    mutant(
        "n1-pinned",
        &[caught("native::counters_of_code_below_a_callback_are_not_given_out_again", "left: [1, 0, 0, 0]")],
    ),
    mutant(
        "n1-at-once",
        &[caught(
            "native::counters_of_code_that_was_handed_back_are_not_given_out_again_before_a_safepoint",
            "left: [1, 0, 0, 0]",
        )],
    ),
    mutant(
        "n2-cleared-early",
        &[caught(
            "native::counters_given_out_again_are_not_raised_by_code_of_the_function_before",
            "left: [1, 0, 0, 0]",
        )],
    ),
    mutant(
        "o2-without-bit",
        &[caught("osr::an_entry_that_failed_is_suppressed_also_in_code_installed_meanwhile", "left: 2")],
    ),
    mutant(
        "s5-unregistered",
        &[caught(
            "publish::who_meets_a_function_on_a_walk_sees_its_core_and_its_name",
            "left: Ok(Core(0x0))",
        )],
    ),
    mutant(
        "s5-one-look",
        &[caught("publish::a_function_whose_core_becomes_zero_is_live_all_the_time", "not live")],
    ),
    mutant(
        "s4-generation-first",
        &[caught(
            "reuse::who_sees_a_function_gone_finds_no_code_of_it",
            "the code of a function that has ended",
        )],
    ),
    mutant(
        "order-noted-late",
        &[
            caught("turns::what_is_delivered_last_is_what_happened_last", "left: true"),
            caught("turns::of_two_installs_the_one_that_stays_is_delivered_last", "1 after 2"),
        ],
    ),
    mutant(
        "moving-let-in",
        &[caught("turns::no_job_looks_at_an_object_while_a_collector_moves_it", "Causality violation")],
    ),
    mutant(
        "moving-unwaited",
        &[caught("turns::no_job_looks_at_an_object_while_a_collector_moves_it", "Causality violation")],
    ),
    mutant(
        "snapshot-late",
        &[caught("turns::a_compile_finds_the_snapshot_of_a_request_that_is_just_being_made", "left: [1, 1]")],
    ),
    mutant(
        "snapshot-lowered-late",
        &[caught(
            "turns::a_request_that_is_lowered_as_the_compile_before_it_ends_comes_with_its_snapshot",
            "compiled without what was noted",
        )],
    ),
    mutant(
        "snapshot-unbound",
        &[caught(
            "turns::a_compile_finds_the_snapshot_of_its_request_whoever_insists_or_helps_meanwhile",
            "left: [1, 1]",
        )],
    ),
];
