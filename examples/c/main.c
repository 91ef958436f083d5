/*
 * Build and run, from the root of the repository:
 *
 *   cargo build --release -p beadwork-capi
 *   cc -std=c99 -Wall -Wextra -Werror -pedantic -O2 -g -I backends/capi/include \
 *      examples/c/main.c examples/c/interpreter.c examples/c/compiler.c \
 *      target/release/libbeadwork_capi.a -lpthread -ldl -lm -o target/stack_machine
 *   target/stack_machine
 *
 * It ends with 0 if the results are right. With the argument "foreground" it compiles on its own thread, so that every run is the
 * same, and it also wants compiled code called, entered in the middle of a loop, and left by a failed guard.
 */
#include "machine.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* fib(n) = n < 2 ? n : fib(n - 1) + fib(n - 2) */
static const struct instruction fib_code[] = {
    {GET, 0},  {PUSH, 2}, {LESS, 0}, {JUMP_UNLESS, 6}, {GET, 0}, {RETURN, 0}, {GET, 0}, {PUSH, 1},
    {SUB, 0},  {CALL, 0}, {GET, 0},  {PUSH, 2},        {SUB, 0}, {CALL, 0},   {ADD, 0}, {RETURN, 0},
};

/* sum(n): s = 0; for (i = 0; i < n; i++) s += i; */
static const struct instruction sum_code[] = {
    {GET, 1},  {GET, 0}, {LESS, 0}, {JUMP_UNLESS, 13}, {GET, 2},  {GET, 1}, {ADD, 0},
    {SET, 2},  {GET, 1}, {PUSH, 1}, {ADD, 0},          {SET, 1},  {JUMP, 0}, {GET, 2}, {RETURN, 0},
};

static void on_event(void *data, const bw_event *event) {
  (void)data;
  switch (event->kind) {
  case BW_EVENT_KIND_INSTALLED:
    printf("  compiled %" PRIx64 " for tier %u: version %u, %" PRIu64 " bytes\n", event->bead, event->tier,
           event->version, event->bytes);
    break;
  case BW_EVENT_KIND_DEOPTIMIZED:
    printf("  a guard of version %u failed at %" PRIu64 "\n", event->version, event->pc);
    break;
  case BW_EVENT_KIND_FAILED:
    printf("  a compile failed: %s\n", event->message);
    break;
  default:
    break;
  }
}

static int failed(const char *what) {
  fprintf(stderr, "%s: %s\n", what, bw_last_error());
  return 1;
}

static int is(struct machine *machine, int number, int64_t argument, int64_t expected) {
  struct function *function = &machine->functions[number];
  int64_t result = call(machine, function, &argument);
  /* This thread is in no compiled code and holds no entry: what was superseded may be freed. */
  bw_mutator_safepoint(machine->mutator);
  printf("%s(%" PRId64 ") = %" PRId64 "%s\n", function->name, argument, result,
         result == expected ? "" : ", which is WRONG");
  return result == expected;
}

int main(int argc, char **argv) {
  struct function functions[] = {
      {"fib", fib_code, sizeof fib_code / sizeof *fib_code, 1, 0, 0},
      {"sum", sum_code, sizeof sum_code / sizeof *sum_code, 1, 0, 0},
  };
  struct machine machine = {0};
  bw_tier tier = {0};
  bw_engine_options options = {0};
  bw_stats stats;
  int i, right = 1, foreground = argc > 1 && strcmp(argv[1], "foreground") == 0;

  tier.name = "steps";
  tier.compile = compile;
  tier.data = &machine;
  tier.threshold = 100;
  options.abi = BW_ABI;
  options.tiers = &tier;
  options.tier_count = 1;
  options.workers = 1;
  options.foreground = foreground != 0;
  options.on_event = on_event;
  machine.functions = functions;
  if (bw_engine_new(&options, &machine.engine) != BW_STATUS_OK) {
    return failed("no engine");
  }
  for (i = 0; i < 2; i++) {
    bw_bead_info info = {0};
    info.name = functions[i].name;
    if (bw_engine_register(machine.engine, (size_t)&functions[i], &info, &functions[i].bead) != BW_STATUS_OK) {
      return failed(functions[i].name);
    }
  }
  if (bw_mutator_new(machine.engine, "main", &machine.mutator) != BW_STATUS_OK) {
    return failed("no mutator");
  }

  for (i = 0; i < 4; i++) {
    right &= is(&machine, 0, 18, 2584);
  }
  /* One call: it is compiled while it runs, goes on natively, meets a sum beyond 32 bits, and is compiled again without that guard. */
  right &= is(&machine, 1, 1000000, INT64_C(499999500000));
  right &= is(&machine, 1, 10, 45);

  if (bw_engine_drain(machine.engine, 60000) != BW_STATUS_OK || bw_engine_stats(machine.engine, &stats) != BW_STATUS_OK) {
    return failed("the end");
  }
  printf("%u native calls, %u loops entered, %u bailouts; %" PRIu64 " compiles installed, %" PRIu64 " pieces of code freed\n",
         machine.native_calls, machine.loops_entered, machine.bailouts, stats.installed, stats.reclaimed);
  right &= !foreground || (machine.native_calls > 1000 && machine.loops_entered == 2 && machine.bailouts == 1);

  bw_mutator_free(machine.mutator);
  bw_engine_free(machine.engine);
  return right ? 0 : 1;
}
