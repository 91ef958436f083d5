/* What the header promises, one function for each promise. Exits with 0 if all of it holds, and names the line if not. */
#include "beadwork.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int code_a, code_b, loop_a; /* nobody runs code here, so any address will do */

#define HOLDS(condition)                                                                                                \
  do {                                                                                                                 \
    if (!(condition)) {                                                                                                \
      fprintf(stderr, "%s:%d: %s does not hold; last error: %s\n", __FILE__, __LINE__, #condition, bw_last_error());    \
      exit(1);                                                                                                         \
    }                                                                                                                  \
  } while (0)
#define OK(call) HOLDS((call) == BW_STATUS_OK)
#define SAYS(text) HOLDS(strstr(bw_last_error(), text))

/* Counts what is let go of. Only the inline engines of this file call it, on one thread. */
static int freed;
static void count_free(void *data) {
  (void)data;
  freed++;
}

static void compile(void *data, bw_job *job) {
  bw_code code = {0};
  bw_osr_entry osr = {7, &loop_a};
  code.entry = data;
  code.bytes = 64;
  code.osr = &osr;
  code.osr_count = 1;
  code.free_owner = count_free;
  bw_job_finish(job, &code, NULL);
}

static bw_engine *engine_with(bw_engine_options options, bw_tier *tiers, size_t count) {
  bw_engine *engine;
  options.abi = BW_ABI;
  options.capacity = 1 << 10;
  options.tiers = tiers;
  options.tier_count = count;
  OK(bw_engine_new(&options, &engine));
  return engine;
}

/* One tier of `compile`, compiled where it is asked for or by bw_engine_run_pending. */
static bw_engine *simple_engine(int foreground) {
  bw_engine_options options = {0};
  bw_tier tier = {0};
  options.is_inline = true;
  options.foreground = foreground != 0;
  tier.compile = compile;
  tier.data = &code_a;
  tier.threshold = 10;
  return engine_with(options, &tier, 1);
}

static bw_bead function_of(bw_engine *engine) {
  bw_bead bead;
  OK(bw_engine_register(engine, 42, NULL, &bead));
  return bead;
}

static bw_mutator *mutator_of(bw_engine *engine) {
  bw_mutator *mutator;
  OK(bw_mutator_new(engine, NULL, &mutator));
  return mutator;
}

static void wrong_arguments_are_errors_with_messages(void) {
  bw_engine_options options = {0};
  bw_tier tiers[16];
  bw_engine *engine = (bw_engine *)&code_a, *good = simple_engine(0);
  bw_mutator *mutator = mutator_of(good);
  bw_bead bead = function_of(good);
  bw_code code = {0};

  HOLDS(bw_engine_new(NULL, &engine) == BW_STATUS_NULL);
  HOLDS(bw_engine_new(&options, &engine) == BW_STATUS_ABI);
  SAYS("BW_ABI");
  HOLDS(bw_abi() == BW_ABI);
  options.abi = BW_ABI;
  HOLDS(bw_engine_new(&options, NULL) == BW_STATUS_NULL);
  options.tier_count = 1;
  HOLDS(bw_engine_new(&options, &engine) == BW_STATUS_NULL);
  memset(tiers, 0, sizeof tiers);
  options.tiers = tiers;
  HOLDS(bw_engine_new(&options, &engine) == BW_STATUS_ARGUMENT && !engine);
  SAYS("compile_batch");
  for (int i = 0; i < 16; i++) {
    tiers[i].compile = compile;
    tiers[i].free_data = count_free;
  }
  freed = 0;
  options.tier_count = 16;
  HOLDS(bw_engine_new(&options, &engine) == BW_STATUS_ARGUMENT);
  HOLDS(freed == 16);
  options.tier_count = 0;
  options.preset = 99;
  HOLDS(bw_engine_new(&options, &engine) == BW_STATUS_ARGUMENT);
  SAYS("99");
  options.preset = 0;
  options.deopt = 99;
  HOLDS(bw_engine_new(&options, &engine) == BW_STATUS_ARGUMENT);

  HOLDS(bw_engine_register(NULL, 0, NULL, &bead) == BW_STATUS_NULL && bead == 0);
  bead = function_of(good);
  HOLDS(bw_engine_promote((bw_engine *)(void *)mutator, bead, 1) == BW_STATUS_HANDLE);
  HOLDS(bw_mutator_safepoint((bw_mutator *)(void *)good) == BW_STATUS_HANDLE);
  HOLDS(bw_job_fail((bw_job *)(void *)good, "no") == BW_STATUS_HANDLE);
  HOLDS(bw_engine_promote((bw_engine *)((char *)good + 1), bead, 1) == BW_STATUS_HANDLE);
  HOLDS(!bw_mutator_dispatch(NULL, bead));
  HOLDS(bw_engine_promote(good, 0, 1) == BW_STATUS_STALE);
  HOLDS(bw_engine_promote(good, UINT64_MAX, 1) == BW_STATUS_STALE);
  HOLDS(bw_engine_promote(good, bead, 16) == BW_STATUS_ARGUMENT);
  HOLDS(bw_engine_promote(good, bead, 2) == BW_STATUS_NO_SUCH_TIER);
  HOLDS(bw_engine_promote(good, bead, 0) == BW_STATUS_NO_SUCH_TIER);
  HOLDS(bw_engine_install(good, bead, 1, NULL, NULL) == BW_STATUS_NULL);
  HOLDS(bw_engine_install(good, bead, 1, &code, NULL) == BW_STATUS_COMPILE_FAILED);
  SAYS("null entry");
  freed = 0;
  code.entry = &code_a;
  code.free_owner = count_free;
  code.osr_count = 1;
  HOLDS(bw_engine_install(good, bead, 1, &code, NULL) == BW_STATUS_NULL);
  code.osr_count = SIZE_MAX;
  code.osr = (const bw_osr_entry *)(const void *)&freed;
  HOLDS(bw_engine_install(good, bead, 1, &code, NULL) != BW_STATUS_OK);
  HOLDS(freed == 2);
  HOLDS(bw_engine_free(NULL) == BW_STATUS_OK && bw_mutator_free(NULL) == BW_STATUS_OK);
  OK(bw_mutator_free(mutator));
  OK(bw_engine_free(good));
}

/* The inline dispatch answers what the call does, whatever the word says. */
static void both_dispatches_agree(void) {
  bw_engine_options options = {0};
  bw_tier tiers[2] = {{0}, {0}};
  options.is_inline = true;
  tiers[0].compile = tiers[1].compile = compile;
  tiers[0].data = &code_a;
  tiers[1].data = &code_b;
  tiers[0].threshold = tiers[1].threshold = BW_MANUAL;
  bw_engine *engine = engine_with(options, tiers, 2);
  bw_mutator *mutator = mutator_of(engine);
  for (uint64_t generation = 1; generation < 4; generation++) {
    bw_bead bead = function_of(engine);
    HOLDS(bead >> 32 == generation);
    HOLDS(!bw_dispatch(mutator, bead) && !bw_mutator_dispatch(mutator, bead));
    OK(bw_engine_compile_now(engine, bead, 1, 1000, NULL)); /* counted, for the second tier */
    HOLDS(bw_dispatch(mutator, bead) == &code_a && bw_mutator_dispatch(mutator, bead) == &code_a);
    OK(bw_engine_compile_now(engine, bead, 2, 1000, NULL)); /* not counted */
    HOLDS(bw_dispatch(mutator, bead) == &code_b && bw_mutator_dispatch(mutator, bead) == &code_b);
    HOLDS(bw_mutator_code(mutator, bead) == &code_b);
    /* Forged ones reach nothing outside. */
    HOLDS(!bw_dispatch(mutator, 0) && !bw_dispatch(mutator, bead + (UINT64_C(1) << 32)));
    bw_dispatch(mutator, bead | 0xffffffff);
    OK(bw_mutator_go_offline(mutator));
    HOLDS(!bw_dispatch(mutator, bead) && !bw_mutator_dispatch(mutator, bead));
    SAYS("offline");
    HOLDS(bw_mutator_safepoint(mutator) == BW_STATUS_OFFLINE);
    OK(bw_mutator_come_online(mutator));
    HOLDS(bw_dispatch(mutator, bead) == &code_b);
    OK(bw_engine_remove(engine, bead, NULL));
    HOLDS(!bw_dispatch(mutator, bead) && !bw_mutator_dispatch(mutator, bead));
    OK(bw_mutator_safepoint(mutator));
    bw_engine_reclaim(engine);
  }
  OK(bw_mutator_free(mutator));
  OK(bw_engine_free(engine));
}

static void functions_are_promoted_and_their_code_is_freed_once(void) {
  bw_engine *engine = simple_engine(0);
  bw_mutator *mutator = mutator_of(engine);
  bw_bead bead = function_of(engine);
  bw_state state;
  bw_stats stats;
  int calls = 0;
  freed = 0;
  while (!bw_dispatch(mutator, bead)) {
    calls++;
    bw_engine_run_pending(engine, SIZE_MAX);
  }
  HOLDS(calls == 10);
  OK(bw_engine_state(engine, bead, &state));
  HOLDS(state.tier == 1 && state.pending == BW_PENDING_NONE && state.calls == 10 && bw_engine_tier(engine, bead) == 1);
  HOLDS(bw_mutator_osr_entry(mutator, bead, 7) == &loop_a && !bw_mutator_osr_entry(mutator, bead, 8));
  OK(bw_engine_invalidate(engine, bead));
  bw_engine_reclaim(engine);
  HOLDS(freed == 0);
  uint32_t depth = bw_mutator_enter_native(mutator);
  HOLDS(depth == 0 && bw_mutator_depth(mutator) == 1);
  OK(bw_mutator_safepoint(mutator));
  bw_engine_reclaim(engine);
  HOLDS(freed == 0); /* native frames may be in it */
  size_t frame = (size_t)&code_a + 8;
  OK(bw_mutator_safepoint_with(mutator, &frame, 1));
  bw_engine_reclaim(engine);
  HOLDS(freed == 0); /* one is */
  OK(bw_mutator_unwind_to(mutator, depth));
  OK(bw_mutator_safepoint(mutator));
  bw_engine_reclaim(engine);
  HOLDS(freed == 1);
  OK(bw_engine_stats(engine, &stats));
  HOLDS(stats.beads == 1 && stats.installed == 1 && stats.reclaimed == 1 && stats.mutators == 1);

  OK(bw_engine_compile_now(engine, bead, 1, 1000, NULL));
  bw_lease *lease;
  OK(bw_engine_lease(engine, bead, &lease));
  HOLDS(bw_lease_entry(lease) == &code_a && bw_lease_is_current(lease));
  OK(bw_engine_invalidate(engine, bead));
  OK(bw_mutator_safepoint(mutator));
  bw_engine_reclaim(engine);
  HOLDS(freed == 1 && !bw_lease_is_current(lease));
  OK(bw_lease_free(lease));
  bw_engine_reclaim(engine);
  HOLDS(freed == 2);
  OK(bw_engine_lease(engine, bead, &lease));
  HOLDS(!lease);

  OK(bw_engine_compile_now(engine, bead, 1, 1000, NULL));
  OK(bw_engine_free(engine));
  HOLDS(freed == 2 && bw_dispatch(mutator, bead)); /* the mutator keeps the engine */
  OK(bw_mutator_free(mutator));
  HOLDS(freed == 3);
}

static void on_event_free(void *data, const bw_event *event) {
  bw_mutator *mutator = *(bw_mutator **)data;
  if (event->kind == BW_EVENT_KIND_INSTALLED) {
    /* Inside of a dispatch that holds the code it is about to answer. */
    HOLDS(bw_mutator_free(mutator) == BW_STATUS_BUSY);
    HOLDS(bw_mutator_go_offline(mutator) == BW_STATUS_BUSY);
    OK(bw_mutator_safepoint(mutator));
    HOLDS(bw_dispatch(mutator, event->bead));
  }
}

static void what_comes_back_in_finds_its_handles_in_use(void) {
  bw_mutator *mutator = NULL;
  bw_engine_options options = {0};
  bw_tier tier = {0};
  options.foreground = true;
  options.on_event = on_event_free;
  options.data = &mutator;
  tier.compile = compile;
  tier.data = &code_a;
  tier.threshold = 3;
  bw_engine *engine = engine_with(options, &tier, 1);
  bw_bead bead = function_of(engine);
  mutator = mutator_of(engine);
  for (int i = 0; i < 3; i++) {
    HOLDS(!bw_dispatch(mutator, bead));
  }
  HOLDS(bw_dispatch(mutator, bead));
  OK(bw_mutator_free(mutator));
  OK(bw_engine_free(engine));
}

static void look(void *data, size_t core) {
  bw_job *job = data;
  HOLDS(core == 42 && bw_job_core(job, &core) == BW_STATUS_BUSY);
}

static uint64_t broken;
static bw_engine *batch_engine;

static void compile_batch(void *data, bw_job *const *jobs, size_t count) {
  HOLDS(data == &code_b && count > 1);
  for (size_t i = 0; i < count; i++) {
    bw_job *job = jobs[i];
    bw_code code = {0};
    const void *const *slot;
    int32_t *budget;
    size_t core;
    bool holds;
    uint32_t version, promised = bw_job_version(job);
    OK(bw_job_core(job, &core));
    HOLDS(core == 42 && bw_job_tier(job) == 1 && bw_job_reason(job) == BW_REASON_ASKED && bw_job_is_current(job));
    OK(bw_job_with_core(job, look, job));
    OK(bw_job_slot(job, bw_job_bead(job), &slot));
    HOLDS(*slot == NULL);
    OK(bw_job_budget_slot(job, bw_job_bead(job), &budget));
    HOLDS(bw_job_osr_sites(job, NULL, 0) == 0 && !bw_job_counts(job));
    code.entry = &code_b;
    if (i == 0) {
      OK(bw_job_fail(job, "not this one"));
      HOLDS(bw_job_finish(job, &code, NULL) == BW_STATUS_FINISHED);
    } else if (i == 1) {
      OK(bw_job_assume(job, broken, &holds));
      HOLDS(!holds);
      OK(bw_job_give_up(job, broken));
    } else if (i == 2) {
      OK(bw_engine_invalidate(batch_engine, bw_job_bead(job)));
      HOLDS(!bw_job_is_current(job) && bw_job_finish(job, &code, NULL) == BW_STATUS_SUPERSEDED);
    } else {
      OK(bw_job_finish(job, &code, &version));
      HOLDS(version == promised && *slot == (const void *)&code_b);
    }
  }
}

static bool not_by_name(void *data, const bw_candidate *candidate) {
  HOLDS(data == &code_b && candidate->tier == 1);
  return !candidate->name || strcmp(candidate->name, "barred") != 0;
}

static void batches_filters_and_groups(void) {
  bw_engine_options options = {0};
  bw_tier tier = {0};
  bw_bead beads[8], barred;
  size_t cores[8], accepted, count;
  bw_group group;
  bw_bead_info info = {0};
  char name[4];
  options.is_inline = true;
  tier.compile_batch = compile_batch;
  tier.filter = not_by_name;
  tier.data = &code_b;
  tier.threshold = BW_MANUAL;
  bw_engine *engine = batch_engine = engine_with(options, &tier, 1);
  broken = bw_engine_assumption(engine);
  HOLDS(bw_engine_is_valid(engine, broken) && bw_engine_invalidate_assumption(engine, broken) == 0);
  HOLDS(!bw_engine_is_valid(engine, broken));

  for (int i = 0; i < 8; i++) {
    cores[i] = 42;
  }
  OK(bw_engine_group(engine, &group));
  OK(bw_engine_register_many(engine, cores, 8, group, beads));
  OK(bw_engine_promote_many(engine, beads, 8, 1, &accepted));
  HOLDS(accepted == 8 && bw_engine_run_pending(engine, SIZE_MAX) == 8);
  OK(bw_engine_drain(engine, 1000));
  bw_stats stats;
  OK(bw_engine_stats(engine, &stats));
  HOLDS(stats.installed == 5 && stats.failed == 1 && stats.discarded == 2);

  info.name = "barred";
  info.group = group;
  info.free_data = count_free;
  freed = 0;
  OK(bw_engine_register(engine, 42, &info, &barred));
  HOLDS(bw_engine_promote(engine, barred, 1) == BW_STATUS_FILTERED);
  HOLDS(bw_engine_name(engine, barred, name, sizeof name) == 6 && strcmp(name, "bar") == 0);
  OK(bw_engine_group_members(engine, group, NULL, 0, &count));
  HOLDS(count == 9);
  HOLDS(bw_engine_remove_group(engine, group) == 9 && !bw_engine_is_live(engine, beads[0]) && freed == 1);
  HOLDS(bw_engine_register(engine, 42, &info, &barred) == BW_STATUS_NO_SUCH_GROUP && freed == 2);
  HOLDS(bw_engine_owns(engine, beads[0]) && !bw_engine_owns(engine, UINT64_MAX));
  OK(bw_engine_free(engine));
}

static int removed, taken;
static void on_invalidate(void *data, bw_bead bead, bool is_removed) {
  HOLDS(data == &code_a && bead);
  *(is_removed ? &removed : &taken) += 1;
}

static uint32_t cap_it(void *data, const bw_deopt_history *history, uint32_t *value) {
  HOLDS(data == &code_b && history->guard == 5 && history->pc == 9 && history->bailouts == 1);
  *value = 0;
  return BW_RECOVERY_CAP;
}

static void recovery(void) {
  bw_engine_options options = {0};
  bw_tier tier = {0};
  bw_bead_info info = {0};
  bw_bead bead;
  bw_bailout bailout = {0};
  bw_decision decision;
  bw_deopt_history history;
  bw_code code = {0};
  uint32_t version, value, queued;
  size_t core;
  options.is_inline = true;
  options.on_deopt = cap_it;
  options.data = &code_b;
  tier.compile = compile;
  tier.data = &code_a;
  bw_engine *engine = engine_with(options, &tier, 1);
  info.on_invalidate = on_invalidate;
  info.data = &code_a;
  OK(bw_engine_register(engine, 1, &info, &bead));
  OK(bw_engine_compile_now(engine, bead, 1, 1000, &version));
  bailout.version = version;
  bailout.guard = 5;
  bailout.pc = 9;
  HOLDS(!bw_engine_deopts(engine, bead, &history));
  OK(bw_engine_bailout(engine, bead, &bailout, &decision, &value));
  HOLDS(decision == BW_DECISION_CAP && value == 0 && taken == 1);
  OK(bw_engine_bailout(engine, bead, &bailout, &decision, NULL));
  HOLDS(decision == BW_DECISION_OUTDATED);
  HOLDS(bw_engine_deopts(engine, bead, &history) && history.bailouts == 1);
  HOLDS(bw_engine_promote(engine, bead, 1) == BW_STATUS_BARRED);
  OK(bw_engine_set_tier_cap(engine, bead, 15));
  OK(bw_engine_forget_deopts(engine, bead));

  uint64_t assumption = bw_engine_assumption(engine);
  code.entry = &code_b;
  code.assumptions = &assumption;
  code.assumptions_count = 1;
  OK(bw_engine_install(engine, bead, 1, &code, &version));
  HOLDS(bw_engine_invalidate_assumption(engine, assumption) == 1 && bw_engine_tier(engine, bead) == 0 && taken == 2);
  HOLDS(bw_engine_install(engine, bead, 1, &code, NULL) == BW_STATUS_ASSUMPTION_BROKEN);

  OK(bw_engine_compile_now(engine, bead, 1, 1000, NULL));
  OK(bw_engine_reload(engine, bead, &queued));
  HOLDS(queued == 1 && taken == 3 && bw_engine_run_pending(engine, SIZE_MAX) == 1 && bw_engine_tier(engine, bead) == 1);
  OK(bw_engine_blacklist(engine, bead, true));
  HOLDS(bw_engine_tier(engine, bead) == 0 && bw_engine_promote(engine, bead, 1) == BW_STATUS_BARRED);
  OK(bw_engine_blacklist(engine, bead, false));
  OK(bw_engine_set_core(engine, bead, 2));
  OK(bw_engine_remove(engine, bead, &core));
  HOLDS(core == 2 && removed == 1 && bw_engine_remove(engine, bead, NULL) == BW_STATUS_STALE);
  OK(bw_engine_free(engine));
}

static void one_shot(void *data, bw_job *job) {
  bw_code code = {0};
  code.entry = data;
  HOLDS(bw_job_finish(job, &code, NULL) == BW_STATUS_OK);
}

static void control(void) {
  bw_engine *engine = simple_engine(0), *clone;
  bw_mutator *mutator = mutator_of(engine);
  bw_bead bead = function_of(engine);
  bw_pause *pause;
  bw_gc_pause *gc_pause;
  freed = 0;
  OK(bw_engine_submit(engine, bead, 1, one_shot, &code_b, count_free));
  OK(bw_engine_pause(engine, &pause));
  HOLDS(bw_engine_drain(engine, 1) == BW_STATUS_TIMEOUT);
  OK(bw_pause_free(pause));
  OK(bw_engine_drain(engine, 1000));
  HOLDS(bw_dispatch(mutator, bead) == &code_b && freed == 1);
  OK(bw_engine_gc_pause(engine, 1000, &gc_pause));
  OK(bw_gc_pause_free(gc_pause));
  OK(bw_engine_set_enabled(engine, false));
  HOLDS(bw_engine_submit(engine, bead, 1, one_shot, &code_b, count_free) == BW_STATUS_DISABLED && freed == 2);
  OK(bw_engine_set_enabled(engine, true));
  OK(bw_engine_set_tier_enabled(engine, 1, true));
  HOLDS(bw_engine_set_max_parallel(engine, 2, 1) == BW_STATUS_NO_SUCH_TIER);
  OK(bw_engine_set_threshold_scale(engine, 2.0));
  OK(bw_engine_clone(engine, &clone));
  OK(bw_engine_free(engine));
  HOLDS(bw_engine_is_live(clone, bead));
  OK(bw_engine_shutdown(clone, 1000));
  HOLDS(bw_engine_promote(clone, function_of(clone), 1) == BW_STATUS_CLOSED);
  OK(bw_mutator_free(mutator));
  OK(bw_engine_free(clone));
}

static uint32_t at_the_fifth(void *data, const bw_activity *activity) {
  HOLDS(data == &code_a && activity->target == 1);
  return activity->calls < 5 ? 5 - activity->calls : 0;
}

static void policies_and_presets(void) {
  bw_engine_options options = {0};
  bw_tier tier = {0};
  int calls;
  for (int preset = 0; preset < 2; preset++) {
    options.foreground = true;
    options.preset = preset ? BW_PRESET_DEVELOPMENT : BW_PRESET_NONE;
    tier.compile = compile;
    tier.data = &code_a;
    tier.policy = preset ? NULL : at_the_fifth;
    bw_engine *engine = engine_with(options, &tier, 1);
    bw_mutator *mutator = mutator_of(engine);
    bw_bead bead = function_of(engine);
    for (calls = 0; !bw_dispatch(mutator, bead); calls++) {
    }
    HOLDS(calls == (preset ? 10 : 5));
    OK(bw_mutator_free(mutator));
    OK(bw_engine_free(engine));
  }
}

/* The clock of a VM of our own. */
static uint64_t now;
static uint64_t clock_of(void *data) {
  (void)data;
  return now;
}

static int payload, lost_payloads;
static void lose_payload(void *data) {
  HOLDS(data == &payload);
  lost_payloads++;
}

static bw_status install(bw_engine *engine, bw_bead bead, uint32_t tier, void *entry, void *along) {
  bw_code code = {0};
  code.entry = entry;
  code.bytes = 64;
  code.payload = along;
  code.free_payload = lose_payload;
  code.free_owner = count_free;
  return bw_engine_install(engine, bead, tier, &code, NULL);
}

static bw_delivery delivered[8];
static size_t deliveries;
static void take_delivery(void *data, const bw_delivery *delivery) {
  HOLDS(data == &code_b && deliveries < 8);
  delivered[deliveries++] = *delivery;
}

static void what_happened_to_code_is_delivered_once_and_in_order(void) {
  bw_engine_options options = {0};
  bw_engine *engine;
  bw_bead bead;
  bw_tier tier = {0};
  options.is_inline = true;
  options.delivery = true;
  options.delivery_limit = 3;
  tier.compile = compile;
  tier.data = &code_a;
  engine = engine_with(options, &tier, 1);
  bead = function_of(engine);
  freed = lost_payloads = 0;
  OK(install(engine, bead, 1, &code_a, &payload));
  OK(bw_engine_invalidate(engine, bead));
  OK(bw_engine_remove(engine, bead, NULL));
  HOLDS(bw_engine_deliveries(engine) == 3);
  HOLDS(bw_engine_deliver(engine, take_delivery, &code_b) == 3 && deliveries == 3);
  HOLDS(delivered[0].kind == BW_DELIVERY_KIND_INSTALLED && delivered[0].bead == bead && delivered[0].tier == 1);
  HOLDS(delivered[0].payload == &payload && delivered[0].version != 0);
  HOLDS(delivered[1].kind == BW_DELIVERY_KIND_INVALIDATED && !delivered[1].payload);
  HOLDS(delivered[2].kind == BW_DELIVERY_KIND_REMOVED && delivered[2].bead == bead);
  HOLDS(bw_engine_deliver(engine, take_delivery, &code_b) == 0 && lost_payloads == 0);

  /* Where a payload is not delivered, it is let go of: not installed, too many, nobody takes it. */
  HOLDS(install(engine, bead, 1, &code_a, &payload) == BW_STATUS_STALE && lost_payloads == 1);
  for (int n = 0; n < 4; n++) {
    OK(install(engine, function_of(engine), 1, &code_a, &payload));
  }
  HOLDS(lost_payloads == 2);
  deliveries = 0;
  HOLDS(bw_engine_deliver(engine, take_delivery, &code_b) == 3 && deliveries == 4 && lost_payloads == 2);
  HOLDS(delivered[0].kind == BW_DELIVERY_KIND_LOST && delivered[0].count == 1 && delivered[0].bead == 0);
  OK(install(engine, function_of(engine), 1, &code_a, &payload));
  HOLDS(bw_engine_deliver(engine, NULL, NULL) == 1 && lost_payloads == 3);
  OK(install(engine, function_of(engine), 1, &code_a, &payload));
  OK(bw_engine_free(engine));
  HOLDS(lost_payloads == 4 && freed == 8);
  deliveries = 0;

  /* An engine that delivers nothing. */
  engine = simple_engine(0);
  OK(install(engine, function_of(engine), 1, &code_a, &payload));
  HOLDS(lost_payloads == 5 && bw_engine_deliver(engine, take_delivery, &code_b) == 0);
  OK(bw_engine_free(engine));
}

static bw_handed_back *handed_back;
static void take_back(void *data, bw_handed_back *code) {
  HOLDS(data == &code_b && !handed_back);
  handed_back = code;
}

static void code_is_handed_back_to_a_vm_that_frees_it_itself(void) {
  bw_engine_options options = {0};
  bw_tier tier = {0};
  bw_engine *engine;
  bw_bead bead;
  options.is_inline = true;
  options.on_hand_back = take_back;
  options.data = &code_b;
  tier.compile = compile;
  engine = engine_with(options, &tier, 1);
  bead = function_of(engine);
  freed = 0;
  OK(install(engine, bead, 1, &code_a, NULL));
  OK(bw_engine_invalidate(engine, bead));
  bw_engine_reclaim(engine);
  HOLDS(handed_back && freed == 0);
  HOLDS(bw_handed_back_bead(handed_back) == bead && bw_handed_back_entry(handed_back) == &code_a);
  HOLDS(bw_handed_back_bytes(handed_back) == 64);
  HOLDS(bw_handed_back_free((bw_handed_back *)engine) == BW_STATUS_HANDLE);
  OK(bw_engine_free(engine));
  HOLDS(freed == 0);
  OK(bw_handed_back_free(handed_back));
  OK(bw_handed_back_free(NULL));
  HOLDS(freed == 1);
}

/* New code for the functions whose core is even; for every fourth what is no code. */
static bool swap_even(void *data, bw_bead function, bw_code *code) {
  size_t core;
  OK(bw_engine_core(data, function, &core));
  HOLDS(!code->entry && !code->owner);
  code->entry = core % 4 ? &code_b : NULL;
  code->free_owner = count_free;
  return core % 2 == 0;
}

static void code_is_swapped_in_place(void) {
  bw_engine *engine = simple_engine(0);
  bw_mutator *mutator = mutator_of(engine);
  bw_bead beads[4];
  size_t superseded, refused;
  freed = 0;
  for (size_t core = 0; core < 4; core++) {
    OK(bw_engine_register(engine, core, NULL, &beads[core]));
    OK(install(engine, beads[core], 1, &code_a, NULL));
  }
  OK(bw_engine_swap_matching(engine, 1, swap_even, engine, &superseded, &refused));
  HOLDS(superseded == 1 && refused == 1);
  for (size_t core = 0; core < 4; core++) {
    HOLDS(bw_dispatch(mutator, beads[core]) == (core == 2 ? &code_b : &code_a));
  }
  HOLDS(bw_engine_swap_matching(engine, 1, NULL, NULL, NULL, NULL) == BW_STATUS_NULL);
  HOLDS(bw_engine_swap_matching(engine, 16, swap_even, engine, NULL, NULL) == BW_STATUS_ARGUMENT);
  OK(bw_mutator_free(mutator));
  OK(bw_engine_free(engine));
  HOLDS(freed == 6);
}

static void a_clock_of_its_own_and_reports(void) {
  bw_engine_options options = {0};
  bw_tier tier = {0};
  bw_engine *engine;
  bw_mutator *mutator;
  bw_bead cold, hot;
  bw_state state;
  bw_hot_function functions[2];
  char text[2000], start[10];
  size_t length;
  options.is_inline = true;
  options.clock = clock_of;
  options.cold_after_ms = 10;
  tier.compile = compile;
  tier.data = &code_a;
  tier.threshold = 5;
  engine = engine_with(options, &tier, 1);
  mutator = mutator_of(engine);
  cold = function_of(engine);
  hot = function_of(engine);
  for (int calls = 0; calls < 20; calls++) {
    bw_dispatch(mutator, hot);
    if (calls < 5) {
      bw_dispatch(mutator, cold);
    }
  }
  HOLDS(bw_engine_hot_functions(engine, functions, 2) == 2);
  HOLDS(functions[0].bead == hot && functions[0].calls > functions[1].calls && functions[0].tier == 0);
  HOLDS(bw_engine_hot_functions(engine, functions, 1) == 1 && bw_engine_hot_functions(engine, NULL, 0) == 0);
  length = bw_engine_report(engine, text, sizeof text);
  HOLDS(length == strlen(text) && strstr(text, "2 functions"));
  HOLDS(bw_engine_report(engine, start, sizeof start) == length && strlen(start) == 9 && !strncmp(text, start, 9));
  HOLDS(bw_engine_report(engine, NULL, 0) == length);

  /* Nobody called either for ten milliseconds of our clock, so what waits is dropped. */
  now = 11 * 1000 * 1000;
  bw_engine_run_pending(engine, 100);
  OK(bw_engine_state(engine, cold, &state));
  HOLDS(state.tier == 0 && state.pending == BW_PENDING_NONE);
  OK(bw_mutator_free(mutator));
  OK(bw_engine_free(engine));
}

/* What is heard of a function, and when. */
typedef struct {
  bw_event_kind kinds[8];
  uint64_t times[8];
  uint32_t guard;
  int count, said_why;
} heard;

static uint64_t minutes(void *data) {
  return *(uint64_t *)data * 60 * UINT64_C(1000000000);
}

static void hear(void *data, uint64_t at, const bw_event *event) {
  heard *all = data;
  HOLDS(all->count < 8);
  all->times[all->count] = at;
  all->kinds[all->count++] = event->kind;
  all->guard += event->guard;
  all->said_why |= event->message && strstr(event->message, "not today");
}

static void refuse(void *data, bw_job *job) {
  (void)data;
  bw_job_fail(job, "not today");
}

static void a_functions_history_is_told_oldest_first(void) {
  bw_engine_options options = {0};
  bw_tier tiers[2] = {{0}, {0}};
  bw_bailout bailout = {0};
  uint64_t now = 3;
  heard all = {{0}, {0}, 0, 0, 0};
  options.is_inline = true;
  options.history = 3;
  options.clock = minutes;
  options.data = &now;
  tiers[0].compile = refuse;
  tiers[1].compile = compile;
  tiers[1].data = &code_a;
  tiers[0].threshold = tiers[1].threshold = BW_MANUAL;
  bw_engine *engine = engine_with(options, tiers, 2), *silent = simple_engine(0);
  bw_bead bead = function_of(engine), other = function_of(silent);

  OK(bw_engine_history(engine, bead, hear, &all));
  HOLDS(all.count == 0);
  OK(bw_engine_promote(engine, bead, 1)); /* the oldest of four, which is forgotten */
  bw_engine_run_pending(engine, 1);
  now = 4;
  OK(bw_engine_promote(engine, bead, 2));
  bw_engine_run_pending(engine, 1);
  OK(bw_engine_history(engine, bead, hear, &all));
  HOLDS(all.count == 3 && all.said_why);
  HOLDS(all.kinds[0] == BW_EVENT_KIND_FAILED && all.kinds[1] == BW_EVENT_KIND_QUEUED && all.kinds[2] == BW_EVENT_KIND_INSTALLED);
  HOLDS(all.times[0] == UINT64_C(180000000000) && all.times[2] == UINT64_C(240000000000));
  bailout.guard = 9;
  bw_state state;
  OK(bw_engine_state(engine, bead, &state));
  bailout.version = state.version;
  OK(bw_engine_bailout(engine, bead, &bailout, NULL, NULL));
  OK(bw_engine_history(engine, bead, hear, &all));
  HOLDS(all.guard == 9);

  HOLDS(bw_engine_history(engine, bead, NULL, NULL) == BW_STATUS_NULL);
  OK(bw_engine_promote(silent, other, 1));
  all.count = 0;
  OK(bw_engine_history(silent, other, hear, &all));
  HOLDS(all.count == 0);
  OK(bw_engine_remove(engine, bead, NULL));
  HOLDS(bw_engine_history(engine, bead, hear, &all) == BW_STATUS_STALE);
  bw_engine_free(engine);
  bw_engine_free(silent);
}

static int noted, seen;

static void *note(void *data, bw_bead bead, size_t core) {
  HOLDS(bead && core == 42);
  noted++;
  return *(int *)data ? malloc(1) : NULL;
}

static void let_go(void *snapshot) {
  free(snapshot);
  count_free(NULL);
}

static void compile_with_snapshot(void *data, bw_job *job) {
  seen += bw_job_snapshot(job) != NULL;
  compile(data, job);
}

static void what_is_noted_comes_with_the_job_and_is_let_go_of_once(void) {
  bw_engine_options options = {0};
  bw_tier tier = {0};
  int notes = 1;
  options.is_inline = true;
  options.snapshot = note;
  options.free_snapshot = let_go;
  options.data = &notes;
  tier.compile = compile_with_snapshot;
  tier.data = &code_a;
  tier.threshold = BW_MANUAL;
  bw_engine *engine = engine_with(options, &tier, 1);
  bw_bead bead = function_of(engine), without = function_of(engine), cancelled = function_of(engine);

  noted = seen = freed = 0;
  OK(bw_engine_promote(engine, bead, 1));
  HOLDS(noted == 1 && freed == 0);
  bw_engine_run_pending(engine, 1);
  HOLDS(seen == 1 && freed == 1);
  OK(bw_engine_promote(engine, cancelled, 1));
  OK(bw_engine_remove(engine, cancelled, NULL));
  bw_engine_run_pending(engine, 1);
  HOLDS(noted == 2 && seen == 1 && freed == 2);
  notes = 0;
  OK(bw_engine_promote(engine, without, 1));
  bw_engine_run_pending(engine, 1);
  HOLDS(noted == 3 && seen == 1 && freed == 2);
  HOLDS(!bw_job_snapshot(NULL));
  bw_engine_free(engine);
}

int main(void) {
  wrong_arguments_are_errors_with_messages();
  both_dispatches_agree();
  functions_are_promoted_and_their_code_is_freed_once();
  what_comes_back_in_finds_its_handles_in_use();
  batches_filters_and_groups();
  recovery();
  control();
  policies_and_presets();
  what_happened_to_code_is_delivered_once_and_in_order();
  code_is_handed_back_to_a_vm_that_frees_it_itself();
  code_is_swapped_in_place();
  a_clock_of_its_own_and_reports();
  a_functions_history_is_told_oldest_first();
  what_is_noted_comes_with_the_job_and_is_let_go_of_once();
  puts("all of it holds");
  return 0;
}
