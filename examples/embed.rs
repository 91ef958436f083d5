//! All that it takes to tier an interpreter, in one file: a stack machine for a language like C, compiled by Cranelift while it
//! runs, with entries in the middle of loops and one speculation that fails. Read it from top to bottom; it uses nothing of the
//! other examples.
//!
//! `cargo run --release --example embed`
#![allow(unsafe_code, reason = "calls the code it had compiled")]

use std::collections::BTreeMap;
use std::error::Error;
use std::mem::{offset_of, transmute};
use std::ops::Deref;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use beadwork::{
    BailoutInfo, Bead, BeadInfo, CompileError, Core, Engine, Mutator, RawMutator, Reentered, Threshold, Tier,
};
use beadwork_cranelift::cranelift_frontend::Variable;
use beadwork_cranelift::ir::condcodes::IntCC;
use beadwork_cranelift::ir::{StackSlotData, StackSlotKind, Value};
use beadwork_cranelift::{
    AbiParam, CraneliftBackend, Entry, FunctionUnit, InstBuilder, LiveValue, types::I64,
};

// ---- The language: functions of one int, with eight locals. Jumps are relative; the stack is empty where one lands.

const LOCALS: usize = 8;

#[derive(Clone, Copy)]
enum Op {
    Push(i64),
    Load(usize),
    Store(usize),
    Add,
    Mul,
    And,
    Shift,
    Less,
    Jump(isize),
    /// The interpreter notes which of these have ever not jumped; the compiler bets on those that always have.
    JumpIfZero(isize),
    Call(usize),
    Return,
}
use Op::*;

struct Function {
    name: &'static str,
    ops: Vec<Op>,
    /// By position: a `JumpIfZero` has gone straight on.
    went_on: Vec<AtomicBool>,
}

impl Function {
    fn new(name: &'static str, ops: Vec<Op>) -> Function {
        Function { name, went_on: ops.iter().map(|_| AtomicBool::new(false)).collect(), ops }
    }
}

fn while_(condition: &[Op], body: &[Op]) -> Vec<Op> {
    let out = body.len() as isize + 2;
    let back = condition.len() as isize + out - 1;
    [condition, &[JumpIfZero(out)], body, &[Jump(-back)]].concat()
}

fn if_(condition: &[Op], then: &[Op], otherwise: &[Op]) -> Vec<Op> {
    let (to_else, to_end) = (then.len() as isize + 2, otherwise.len() as isize + 1);
    [condition, &[JumpIfZero(to_else)], then, &[Jump(to_end)], otherwise].concat()
}

/// `int collatz(int n) { int count = 0; while (1 < n) { n = n & 1 ? 3 * n + 1 : n >> 1; count++; if (340 < count) return -1; } return count; }`
fn collatz() -> Vec<Op> {
    let (n, count) = (0, 1);
    let odd = [Push(3), Load(n), Mul, Push(1), Add, Store(n)];
    let even = [Load(n), Push(1), Shift, Store(n)];
    let step = if_(&[Load(n), Push(1), And], &odd, &even);
    let raise = [Load(count), Push(1), Add, Store(count)];
    let give_up = if_(&[Push(340), Load(count), Less], &[Push(-1), Return], &[]);
    let steps = while_(&[Push(1), Load(n), Less], &[&step[..], &raise, &give_up].concat());
    [&[Push(0), Store(count)], &steps[..], &[Load(count), Return]].concat()
}

/// `int main(int n) { int i = 1, best = 0; while (i < n) { int c = collatz(i); if (best < c) best = c; i++; } return best; }`
fn main_function() -> Vec<Op> {
    let (n, i, best, c) = (0, 1, 2, 3);
    let call = [Load(i), Call(0), Store(c)];
    let better = if_(&[Load(best), Load(c), Less], &[Load(c), Store(best)], &[]);
    let raise = [Load(i), Push(1), Add, Store(i)];
    let all = while_(&[Load(i), Load(n), Less], &[&call, &better[..], &raise].concat());
    [&[Push(1), Store(i), Push(0), Store(best)], &all[..], &[Load(best), Return]].concat()
}

// ---- The machine.

/// A frame of the interpreter, as native code sees it.
#[repr(C)]
struct Frame {
    locals: [i64; LOCALS],
    /// Set by native code whose guard failed: where to go on, and the version of that code. 0: it has returned.
    resume: i64,
    version: i64,
}

/// All native code of this machine, function entries and loop entries alike: callee bits, the mutator on its way through, and
/// the argument, or the address of a frame.
type Native = unsafe extern "C-unwind" fn(u64, RawMutator, i64) -> i64;

/// A thread that interprets: the mutator itself at the top level, a `Reentered` where native code has called back. Both
/// are a `&Mutator` for all else; only their safepoints differ.
trait Thread: Deref<Target = Mutator> {
    fn safepoint(&mut self);
}
impl Thread for &mut Mutator {
    fn safepoint(&mut self) {
        Mutator::safepoint(self);
    }
}
impl Thread for Reentered<'_> {
    fn safepoint(&mut self) {
        Reentered::safepoint(self);
    }
}

struct Machine {
    functions: Vec<Function>,
    /// By function. Filled once the engine is there, which needs a compiler, which needs the functions.
    beads: OnceLock<Vec<Bead>>,
}
static MACHINE: OnceLock<Machine> = OnceLock::new();

impl Machine {
    fn get() -> &'static Machine {
        MACHINE.get_or_init(|| Machine {
            functions: vec![Function::new("collatz", collatz()), Function::new("main", main_function())],
            beads: OnceLock::new(),
        })
    }

    fn bead(&self, function: usize) -> Bead {
        self.beads.get().expect("the compiler runs after registration")[function]
    }

    fn call(&self, m: &mut impl Thread, callee: usize, argument: i64) -> i64 {
        let bead = self.bead(callee);
        if let Some(code) = m.dispatch(bead) {
            // SAFETY: `compile` makes functions of this type; `code` borrows `m`, and inside the scope safepoints free nothing.
            return m.native_scope(|raw| unsafe {
                transmute::<*const u8, Native>(code.as_ptr())(bead.to_bits(), raw, argument)
            });
        }
        let mut frame = Frame { locals: [0; LOCALS], resume: 0, version: 0 };
        frame.locals[0] = argument;
        self.interpret(m, callee, 0, &mut frame)
    }

    fn interpret(&self, m: &mut impl Thread, index: usize, mut pc: usize, frame: &mut Frame) -> i64 {
        let function = &self.functions[index];
        let mut stack = Vec::new();
        let pop = |stack: &mut Vec<i64>| stack.pop().expect("bytecode is well formed");
        loop {
            let at = pc;
            pc += 1;
            let to = |jump: isize| at.wrapping_add_signed(jump);
            match function.ops[at] {
                Push(number) => stack.push(number),
                Load(local) => stack.push(frame.locals[local]),
                Store(local) => frame.locals[local] = pop(&mut stack),
                op @ (Add | Mul | And | Shift | Less) => {
                    let (b, a) = (pop(&mut stack), pop(&mut stack));
                    stack.push(match op {
                        Add => a.wrapping_add(b),
                        Mul => a.wrapping_mul(b),
                        And => a & b,
                        Shift => a >> (b & 63),
                        _ => i64::from(a < b),
                    });
                }
                JumpIfZero(jump) if pop(&mut stack) == 0 => pc = to(jump),
                JumpIfZero(_) => function.went_on[at].store(true, Relaxed),
                Jump(jump) if jump > 0 => pc = to(jump),
                Jump(jump) => match self.back_edge(m, index, to(jump), frame) {
                    Some(result) => return result,
                    None if frame.resume != 0 => pc = self.bail_out(m.engine(), index, frame),
                    None => pc = to(jump),
                },
                Call(callee) => {
                    let argument = pop(&mut stack);
                    stack.push(self.call(m, callee, argument));
                }
                Return => return pop(&mut stack),
            }
        }
    }

    /// Goes round a loop; answers the result of the function if native code took over and came to its end. If a guard failed
    /// there, native code has come back with the frame as it was then, and the interpreter goes on: no native frame is left.
    fn back_edge(&self, m: &mut impl Thread, index: usize, header: usize, frame: &mut Frame) -> Option<i64> {
        m.safepoint(); // this thread holds no code pointer
        let bead = self.bead(index);
        let code = m.back_edge(bead, header as u64)?;
        let address = &raw mut *frame as i64;
        // SAFETY: as in `call`; a loop entry takes the frame of an interpreter that is at its loop's header.
        let result = m.native_scope(|raw| unsafe {
            transmute::<*const u8, Native>(code.as_ptr())(bead.to_bits(), raw, address)
        });
        (frame.resume == 0).then_some(result)
    }

    /// A guard has failed. Answers where to go on.
    fn bail_out(&self, engine: &Engine, index: usize, frame: &mut Frame) -> usize {
        let pc = std::mem::take(&mut frame.resume) as usize;
        // First, so that the compile which the next line may ask for knows: it would make the same bet again.
        self.functions[index].went_on[pc - 1].store(true, Relaxed);
        let info = BailoutInfo::new(frame.version as u32).guard(pc as u32).pc(pc as u64);
        // Whatever is decided, this call goes on in the interpreter.
        let _ = engine.bailout(self.bead(index), info);
        pc
    }
}

// ---- What native code calls.

/// What the slots of functions without code hold: native code has called a function that is to be interpreted.
unsafe extern "C-unwind" fn fallback(callee: u64, raw: RawMutator, argument: i64) -> i64 {
    // SAFETY: native code is called in scopes only, and passes on what it got.
    let mut m = unsafe { Reentered::from_raw(raw) };
    let core = Bead::from_bits(callee).and_then(|bead| m.engine().core(bead).ok());
    core.map_or(0, |core| Machine::get().call(&mut m, core.get(), argument))
}

/// A guard has failed in a function that was called: answers what it would have returned. Its native frame stays below.
unsafe extern "C-unwind" fn finish(raw: RawMutator, index: i64, frame: *mut Frame) -> i64 {
    // SAFETY: as above; the frame lies in the native frame that calls this.
    let (mut m, frame) = unsafe { (Reentered::from_raw(raw), &mut *frame) };
    let pc = Machine::get().bail_out(m.engine(), index as usize, frame);
    Machine::get().interpret(&mut m, index as usize, pc, frame)
}

// ---- The compiler. It is called once for the function, and again for each loop entry that it asks for.

fn compile(unit: &mut FunctionUnit<'_, '_>) -> Result<(), CompileError> {
    for site in unit.job().osr_sites() {
        unit.add_loop_entry(site);
    }
    let index = unit.core()?.get();
    let function = &Machine::get().functions[index];
    let mut signature = unit.new_signature();
    signature.params.extend([AbiParam::new(I64); 2]);
    signature.returns.push(AbiParam::new(I64));
    let parameters = unit.begin(&signature); // without the callee bits, which are added by themselves
    let (raw, argument) = (parameters[0], parameters[1]);

    let live: Vec<_> = (0..LOCALS).map(|local| LiveValue::new(I64, 8 * local as i32)).collect();
    let locals: Vec<Variable> = live.iter().map(|_| unit.builder().declare_var(I64)).collect();
    let (start, values) = match unit.entry() {
        Entry::Function => {
            let zero = unit.builder().ins().iconst(I64, 0);
            (0, [argument].into_iter().chain([zero; LOCALS - 1]).collect())
        }
        Entry::Loop(site) => (site as usize, unit.load_live(argument, &live)),
    };
    for (&local, value) in locals.iter().zip(values) {
        unit.builder().def_var(local, value);
    }
    let reached = reached(&function.ops, start);
    let to = |pc: usize, jump: isize| pc.wrapping_add_signed(jump);
    let jumps = function.ops.iter().enumerate().filter(|&(pc, _)| reached[pc]);
    let targets =
        jumps.filter_map(|(pc, op)| if let Jump(j) | JumpIfZero(j) = *op { Some(to(pc, j)) } else { None });
    let blocks: BTreeMap<_, _> = targets.map(|pc| (pc, unit.builder().create_block())).collect();

    let mut open = true; // control comes here from the instruction before
    if start != 0 {
        unit.builder().ins().jump(blocks[&start], &[]);
        open = false;
    }
    let mut stack: Vec<Value> = Vec::new();
    for (pc, &op) in function.ops.iter().enumerate().filter(|&(pc, _)| reached[pc]) {
        let b = unit.builder();
        if let Some(&block) = blocks.get(&pc) {
            if open {
                b.ins().jump(block, &[]);
            }
            b.switch_to_block(block);
            open = true;
        } else if !open {
            continue; // only a guard that failed would come here
        }
        let mut pop = || stack.pop().ok_or_else(|| CompileError::failed("the stack is empty"));
        match op {
            Push(number) => stack.push(b.ins().iconst(I64, number)),
            Load(local) => stack.push(b.use_var(locals[local])),
            Store(local) => b.def_var(locals[local], pop()?),
            Add | Mul | And | Shift | Less => {
                let (y, x) = (pop()?, pop()?);
                stack.push(match op {
                    Add => b.ins().iadd(x, y),
                    Mul => b.ins().imul(x, y),
                    And => b.ins().band(x, y),
                    Shift => b.ins().sshr(x, y),
                    _ => {
                        let less = b.ins().icmp(IntCC::SignedLessThan, x, y);
                        b.ins().uextend(I64, less)
                    }
                });
            }
            Jump(jump) => {
                b.ins().jump(blocks[&to(pc, jump)], &[]);
                open = false;
            }
            JumpIfZero(jump) => {
                let (condition, go_on) = (pop()?, b.create_block());
                b.ins().brif(condition, go_on, &[], blocks[&to(pc, jump)], &[]);
                b.switch_to_block(go_on);
                if !function.went_on[pc].load(Relaxed) {
                    let now: Vec<_> = locals.iter().map(|&local| b.use_var(local)).collect();
                    guard_failed(unit, index, pc + 1, (raw, argument), (&live, &now));
                    open = false;
                }
            }
            Call(callee) => {
                let passed = pop()?;
                let call = unit.call_bead(Machine::get().bead(callee), &signature, &[raw, passed]);
                stack.push(unit.builder().inst_results(call)[0]);
            }
            Return => {
                b.ins().return_(&[pop()?]);
                open = false;
            }
        }
    }
    Ok(())
}

/// Writes the interpreter's frame, and hands over: a loop entry returns to the interpreter it came from, which owns the frame. A
/// function may have been called by native code, so it has the rest interpreted and answers the result.
fn guard_failed(
    unit: &mut FunctionUnit<'_, '_>,
    index: usize,
    pc: usize,
    (raw, argument): (Value, Value),
    (live, now): (&[LiveValue], &[Value]),
) {
    let called = unit.entry() == Entry::Function;
    let b = unit.builder();
    let frame = if called {
        let slot = StackSlotData::new(StackSlotKind::ExplicitSlot, size_of::<Frame>() as u32, 3);
        let slot = b.create_sized_stack_slot(slot);
        b.ins().stack_addr(I64, slot, 0)
    } else {
        argument
    };
    let (resume, index) = (b.ins().iconst(I64, pc as i64), b.ins().iconst(I64, index as i64));
    let version = unit.version();
    unit.store_live(frame, live, now);
    let rest =
        [offset_of!(Frame, resume), offset_of!(Frame, version)].map(|at| LiveValue::new(I64, at as i32));
    unit.store_live(frame, &rest, &[resume, version]);
    let result = if called {
        let mut signature = unit.new_signature();
        signature.params.extend([AbiParam::new(I64); 3]);
        signature.returns.push(AbiParam::new(I64));
        let finish = unit.symbol("finish", &signature);
        let call = unit.builder().ins().call(finish, &[raw, index, frame]);
        unit.builder().inst_results(call)[0]
    } else {
        index // nobody looks at it
    };
    unit.builder().ins().return_(&[result]);
}

/// What can be reached from a place: a loop entry leaves out what only comes before the loop.
fn reached(ops: &[Op], start: usize) -> Vec<bool> {
    let (mut reached, mut next) = (vec![false; ops.len()], vec![start]);
    while let Some(pc) = next.pop() {
        if pc < ops.len() && !std::mem::replace(&mut reached[pc], true) {
            match ops[pc] {
                Jump(jump) => next.push(pc.wrapping_add_signed(jump)),
                JumpIfZero(jump) => next.extend([pc + 1, pc.wrapping_add_signed(jump)]),
                Return => {}
                _ => next.push(pc + 1),
            }
        }
    }
    reached
}

// ---- All of it together.

fn run(engine: &Engine, n: i64, what: &str) -> i64 {
    let start = Instant::now();
    let main = Machine::get().functions.len() - 1;
    let result = Machine::get().call(&mut &mut engine.mutator(), main, n);
    println!("main({n}) = {result} in {:7.1} ms, {what}", 1e3 * start.elapsed().as_secs_f64());
    result
}

fn main() -> Result<(), Box<dyn Error>> {
    let n = std::env::args().nth(1).map_or(Ok(100_000), |n| n.parse())?;
    let backend = CraneliftBackend::builder().pass_callee_bits(true).symbol("finish", finish as *const u8);
    let engine = Engine::builder()
        .tier(Tier::new(backend.build(compile)?).policy(Threshold::new(1_000)))
        .fallback(fallback as *const u8)
        .history(100)
        .build()?;
    let mut beads = Vec::new();
    for (index, function) in Machine::get().functions.iter().enumerate() {
        beads.push(engine.register_with(Core::new(index), &BeadInfo::named(function.name))?);
    }
    let beads = Machine::get().beads.get_or_init(|| beads);

    let tiered = run(&engine, n, "compiled while it runs");
    for (&bead, function) in beads.iter().zip(&Machine::get().functions) {
        println!("{}:", function.name);
        for entry in engine.history(bead)? {
            println!("  {:7.1} ms  {:?}", 1e3 * entry.at.as_secs_f64(), entry.event);
        }
        engine.blacklist(bead)?;
    }
    let interpreted = run(&engine, n, "interpreted");
    if tiered != interpreted {
        return Err("the two differ".into());
    }
    println!("\n{}", engine.report());
    Ok(())
}
