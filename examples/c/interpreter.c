#include "machine.h"

#include <string.h>

static int64_t interpret(struct frame *frame, int pc);

/*
 * Runs compiled code from a step on: the first one, or the head of a loop. If a guard fails, the interpreter finishes the call.
 */
static int64_t run(struct frame *frame, const struct step *step, int in_loop, uint64_t site) {
  struct machine *machine = frame->machine;
  bw_bailout bailout = {0};
  frame->failed = NULL;
  /* Inside of a native scope safepoints do not state that this thread is in no compiled code: it is. */
  uint32_t depth = bw_mutator_enter_native(machine->mutator);
  while (step) {
    step = step->run(step, frame);
  }
  bw_mutator_unwind_to(machine->mutator, depth);
  if (!frame->failed) {
    return frame->result;
  }
  machine->bailouts++;
  /* What was learned comes first: the bailout may have the function compiled again at once. */
  __atomic_store_n(&frame->function->wide, 1, __ATOMIC_RELAXED);
  bailout.version = frame->failed->version;
  bailout.pc = frame->failed->pc;
  bailout.in_loop = in_loop != 0;
  bailout.osr_site = site;
  bw_engine_bailout(machine->engine, frame->function->bead, &bailout, NULL, NULL);
  return interpret(frame, (int)bailout.pc);
}

int64_t call(struct machine *machine, struct function *function, const int64_t *arguments) {
  struct frame frame = {0};
  const struct step *entry;
  frame.machine = machine;
  frame.function = function;
  frame.top = frame.stack;
  memcpy(frame.locals, arguments, (size_t)function->arguments * sizeof *arguments);
  /* Counts the call, and answers the code if there is some. */
  entry = bw_dispatch(machine->mutator, function->bead);
  if (entry) {
    machine->native_calls++;
    return run(&frame, entry, 0, 0);
  }
  return interpret(&frame, 0);
}

static int64_t interpret(struct frame *frame, int pc) {
  struct machine *machine = frame->machine;
  struct function *function = frame->function;
  int64_t a, b;
#define PUT(value) (*frame->top++ = (value))
#define TAKE() (*--frame->top)
  for (;;) {
    const struct instruction *at = &function->code[pc++];
    switch (at->op) {
    case PUSH:
      PUT(at->arg);
      break;
    case GET:
      PUT(frame->locals[at->arg]);
      break;
    case SET:
      frame->locals[at->arg] = TAKE();
      break;
    case ADD:
      b = TAKE(), a = TAKE();
      PUT((int64_t)((uint64_t)a + (uint64_t)b));
      break;
    case SUB:
      b = TAKE(), a = TAKE();
      PUT((int64_t)((uint64_t)a - (uint64_t)b));
      break;
    case LESS:
      b = TAKE(), a = TAKE();
      PUT(a < b);
      break;
    case JUMP_UNLESS:
      if (!TAKE()) {
        pc = at->arg;
      }
      break;
    case JUMP:
      if (at->arg < pc) {
        /* A loop goes round: counts it, and answers where to go on natively if there is such a place. */
        uint64_t site = (uint64_t)at->arg;
        const struct step *entry = bw_mutator_back_edge(machine->mutator, function->bead, site);
        if (entry) {
          machine->loops_entered++;
          return run(frame, entry, 1, site);
        }
        bw_mutator_safepoint(machine->mutator);
      }
      pc = at->arg;
      break;
    case CALL:
      frame->top -= machine->functions[at->arg].arguments;
      a = call(machine, &machine->functions[at->arg], frame->top);
      PUT(a);
      break;
    case RETURN:
      return TAKE();
    }
  }
}
