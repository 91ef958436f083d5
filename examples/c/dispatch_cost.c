/*
 * What a dispatch costs from C, with code there and a call of it. Build like main.c, alone; the figures depend on the machine.
 */
#define _POSIX_C_SOURCE 199309L
#include "beadwork.h"

#include <stdio.h>
#include <time.h>

#define ROUNDS 20000000

/* Not static, and not inlined, as compiled code is not. */
__attribute__((noinline)) uint64_t native(uint64_t x) { return x + 1; }

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

typedef uint64_t (*compiled)(uint64_t);

/* Entries are pointers to data in the header; this gives the function back without a cast C99 does not know. */
static compiled function_at(const void *entry) {
  union {
    const void *data;
    compiled function;
  } both;
  both.data = entry;
  return both.function;
}

#define MEASURE(name, entry)                                                                                            \
  do {                                                                                                                 \
    double best = 1e9;                                                                                                 \
    for (int run = 0; run < 7; run++) {                                                                                \
      double start = now();                                                                                            \
      for (int i = 0; i < ROUNDS; i++) {                                                                               \
        sum = function_at(entry)(sum);                                                                                 \
        __asm__ volatile("" ::: "memory");                                                                             \
      }                                                                                                                \
      double each = (now() - start) / ROUNDS;                                                                          \
      best = each < best ? each : best;                                                                                \
    }                                                                                                                  \
    printf("%-40s %6.2f ns\n", name, best);                                                                            \
  } while (0)

int main(void) {
  bw_engine_options options = {0};
  bw_engine *engine;
  bw_mutator *mutator;
  bw_bead bead;
  bw_code code = {0};
  union {
    compiled function;
    const void *data;
  } both;
  const void *volatile slot;
  uint64_t sum = 0;
  both.function = native;
  options.abi = BW_ABI;
  code.entry = slot = both.data;
  if (bw_engine_new(&options, &engine) != BW_STATUS_OK || bw_engine_register(engine, 0, NULL, &bead) != BW_STATUS_OK ||
      bw_mutator_new(engine, NULL, &mutator) != BW_STATUS_OK ||
      bw_engine_install(engine, bead, 1, &code, NULL) != BW_STATUS_OK) {
    fprintf(stderr, "%s\n", bw_last_error());
    return 1;
  }
  MEASURE("a function pointer", slot);
  MEASURE("bw_dispatch (inline)", bw_dispatch(mutator, bead));
  MEASURE("bw_mutator_dispatch (a call)", bw_mutator_dispatch(mutator, bead));
  MEASURE("bw_dispatch, and bw_mutator_safepoint", (bw_mutator_safepoint(mutator), bw_dispatch(mutator, bead)));
  bw_mutator_free(mutator);
  bw_engine_free(engine);
  return sum == 4 * 7 * (uint64_t)ROUNDS ? 0 : 1;
}
