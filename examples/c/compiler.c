#include "machine.h"

#include <stdlib.h>

typedef const struct step *next_step;

static next_step push(const struct step *step, struct frame *frame) {
  *frame->top++ = step->operand.value;
  return step + 1;
}

static next_step get(const struct step *step, struct frame *frame) {
  *frame->top++ = frame->locals[step->operand.value];
  return step + 1;
}

static next_step set(const struct step *step, struct frame *frame) {
  frame->locals[step->operand.value] = *--frame->top;
  return step + 1;
}

static next_step add(const struct step *step, struct frame *frame) {
  frame->top--;
  frame->top[-1] = (int64_t)((uint64_t)frame->top[-1] + (uint64_t)frame->top[0]);
  return step + 1;
}

/* The speculation: numbers are small. The guard leaves everything as the instruction found it. */
static next_step add_small(const struct step *step, struct frame *frame) {
  int64_t sum = (int64_t)((uint64_t)frame->top[-2] + (uint64_t)frame->top[-1]);
  if (sum != (int32_t)sum) {
    frame->failed = step;
    return NULL;
  }
  frame->top--;
  frame->top[-1] = sum;
  return step + 1;
}

static next_step sub(const struct step *step, struct frame *frame) {
  frame->top--;
  frame->top[-1] = (int64_t)((uint64_t)frame->top[-1] - (uint64_t)frame->top[0]);
  return step + 1;
}

static next_step less(const struct step *step, struct frame *frame) {
  frame->top--;
  frame->top[-1] = frame->top[-1] < frame->top[0];
  return step + 1;
}

static next_step jump(const struct step *step, struct frame *frame) {
  (void)frame;
  return step->operand.target;
}

static next_step jump_unless(const struct step *step, struct frame *frame) {
  return *--frame->top ? step + 1 : step->operand.target;
}

static next_step call_function(const struct step *step, struct frame *frame) {
  struct function *callee = step->operand.callee;
  int64_t result;
  frame->top -= callee->arguments;
  result = call(frame->machine, callee, frame->top);
  *frame->top++ = result;
  return step + 1;
}

static next_step finish(const struct step *step, struct frame *frame) {
  (void)step;
  frame->result = *--frame->top;
  return NULL;
}

/* One step for each instruction, so that a step and an instruction have the same number. */
static void translate(const struct instruction *from, struct step *steps, struct step *step, struct machine *machine,
                      int wide) {
  step->operand.value = from->arg;
  switch (from->op) {
  case PUSH:
    step->run = push;
    break;
  case GET:
    step->run = get;
    break;
  case SET:
    step->run = set;
    break;
  case ADD:
    step->run = wide ? add : add_small;
    break;
  case SUB:
    step->run = sub;
    break;
  case LESS:
    step->run = less;
    break;
  case JUMP:
    step->run = jump;
    step->operand.target = &steps[from->arg];
    break;
  case JUMP_UNLESS:
    step->run = jump_unless;
    step->operand.target = &steps[from->arg];
    break;
  case CALL:
    step->run = call_function;
    step->operand.callee = &machine->functions[from->arg];
    break;
  case RETURN:
    step->run = finish;
    break;
  }
}

/* Called on one of the engine's threads. */
void compile(void *data, bw_job *job) {
  struct machine *machine = data;
  bw_code code = {0};
  bw_osr_entry loops[8];
  size_t core;
  struct function *function;
  struct step *steps;
  int i, wide;

  if (bw_job_core(job, &core) != BW_STATUS_OK) {
    bw_job_fail(job, bw_last_error());
    return;
  }
  function = (struct function *)core;
  steps = calloc((size_t)function->length, sizeof *steps);
  if (!steps) {
    bw_job_fail(job, "out of memory");
    return;
  }
  wide = __atomic_load_n(&function->wide, __ATOMIC_RELAXED);
  for (i = 0; i < function->length; i++) {
    const struct instruction *from = &function->code[i];
    steps[i].pc = (uint32_t)i;
    steps[i].version = bw_job_version(job);
    translate(from, steps, &steps[i], machine, wide);
    if (from->op == JUMP && from->arg <= i && code.osr_count < sizeof loops / sizeof *loops) {
      /* A loop: the head is a place to go on at, since values are where the interpreter has them. */
      loops[code.osr_count].site = (uint64_t)from->arg;
      loops[code.osr_count++].entry = &steps[from->arg];
    }
  }
  code.entry = steps;
  code.bytes = (size_t)function->length * sizeof *steps;
  code.osr = loops;
  code.owner = steps; /* freed when no thread can be in it any more */
  code.free_owner = free;
  bw_job_finish(job, &code, NULL);
}
