/*
 * A small stack machine, to show how an interpreter in C goes through tiers with beadwork.
 *
 * machine.h      what a program is, and a frame that interpreter and compiled code share
 * interpreter.c  the interpreter: where it counts, dispatches, enters loops, and takes over again
 * compiler.c     the backend: turns bytecode into chains of steps, and frees them
 * main.c         the engine, two functions, and a look at what happened
 */
#ifndef MACHINE_H
#define MACHINE_H

#include "beadwork.h"

enum op { PUSH, GET, SET, ADD, SUB, LESS, JUMP, JUMP_UNLESS, CALL, RETURN };

struct instruction {
  enum op op;
  int32_t arg; /* a constant, a local, a target, or a function's number */
};

struct function {
  const char *name;
  const struct instruction *code;
  int length, arguments;
  bw_bead bead;
  /* Numbers of this function were once found not to fit 32 bits, so its code does not count on it again. Written by the thread that
     interprets and read by the one that compiles. */
  int wide;
};

struct machine {
  struct function *functions;
  bw_engine *engine;
  bw_mutator *mutator; /* of the one thread that runs programs */
  /* What happened, for main. */
  unsigned native_calls, loops_entered, bailouts;
};

enum { LOCALS = 4, STACK = 16 };

/* One call. Compiled code keeps its values exactly where the interpreter does, so each can go on where the other stops. */
struct frame {
  struct machine *machine;
  struct function *function;
  int64_t locals[LOCALS], stack[STACK];
  int64_t *top; /* the next free place of the stack */
  int64_t result;
  const struct step *failed; /* the step whose guard did not hold, after a bailout */
};

/*
 * Compiled code is a chain of steps, each a C function with its operand, so this machine is portable and has no assembler. beadwork
 * never calls code: an entry is whatever the machine knows how to run, here the address of a step.
 */
struct step {
  const struct step *(*run)(const struct step *, struct frame *); /* answers the next step, NULL at the end */
  union {
    int64_t value;
    const struct step *target;
    struct function *callee;
  } operand;
  uint32_t pc;      /* the instruction it was made of: where the interpreter goes on if a guard fails */
  uint32_t version; /* of the code, which a bailout names */
};

int64_t call(struct machine *machine, struct function *function, const int64_t *arguments);

/* For bw_tier. */
void compile(void *machine, bw_job *job);

#endif
