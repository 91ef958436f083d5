//! The Cranelift frontend: bytecode of one function to Cranelift IR, with the convention of [`native`](crate::native).
//!
//! Independent of how code is compiled, placed and linked: whoever does that supplies a [`CallEmitter`].
//!
//! Each register of the bytecode becomes up to two Cranelift variables, one integer and one float, because an instruction always
//! reads a register as the class it was last written as. Everything that ends in an error is in cold blocks out of line.

mod arith;
mod control;
mod memory;
mod num;

use cranelift_codegen::ir::types::{F64, I64};
use cranelift_codegen::ir::{AbiParam, Block, InstBuilder, MemFlagsData, Signature, Type as ClifType, Value};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::{FunctionBuilder, Variable};

use crate::bytecode::{Op, Reg, Target};
use crate::function::{Function, LoopSite};
use crate::hir::FuncIndex;
use crate::liveness::Liveness;
use crate::lower::MAX_REGISTERS;
use crate::native::{Context, REGISTER_ARGS};
use crate::program::Program;
use crate::runtime::{Helper, TrapCode};
use crate::types::Type;

pub use num::Speculation;

/// Value and status, the two results of everything native code calls.
pub type Results = [Value; 2];

/// Where the code goes. It knows how callees are found: a direct call, a call through a slot, a call of an absolute address.
pub trait CallEmitter<'f> {
    /// The builder of the function.
    fn builder(&mut self) -> &mut FunctionBuilder<'f>;

    /// Emits a call of `callee` in the builder's current block. `args` are what follows `callee_bits` in the convention: context,
    /// depth, and up to three parameters, all `I64`; the emitter puts `callee_bits` in front. The signature to import is
    /// [`signature`] of as many parameters. Answers the two `I64` results.
    fn call_bead(&mut self, callee: FuncIndex, args: &[Value]) -> Results;

    /// Counts a call of the function, where the tier wants that. Called in its entry block.
    fn count_call(&mut self, context: Value) {
        let _ = context;
    }

    /// Counts an iteration of loop `site`, where the tier wants that. Called at the loop's header.
    fn count_iteration(&mut self, site: u64, context: Value) {
        let _ = (site, context);
    }

    /// Counts an execution of a [block](Function::blocks), where that is wanted. Called at its beginning.
    fn count_block(&mut self, block: usize) {
        let _ = block;
    }

    /// Loads values of these types from these offsets in the interpreter's registers, whose address is `registers`.
    fn load_live(&mut self, registers: Value, places: &[(ClifType, i32)]) -> Vec<Value> {
        let load = |&(ty, offset): &(ClifType, i32)| {
            self.builder().ins().load(ty, MemFlagsData::trusted(), registers, offset)
        };
        places.iter().map(load).collect()
    }

    /// The version that guards name, as a value of 64 bits; `known` is what it is now.
    fn version(&mut self, known: u64) -> Value {
        self.builder().ins().iconst(I64, known.cast_signed())
    }

    /// Stores values of these types to these offsets from an address, before the code is left.
    fn store_live(&mut self, address: Value, places: &[(ClifType, i32)], values: &[Value]) {
        for (&(_, offset), &value) in places.iter().zip(values) {
            self.builder().ins().store(MemFlagsData::trusted(), value, address, offset);
        }
    }

    /// The function whose body may stand in for a call of `callee`, if one may: a
    /// [small leaf](Function::is_small_leaf) of the same signature. `None`: calls stay calls.
    fn inline(&mut self, callee: FuncIndex) -> Option<FuncIndex> {
        let _ = callee;
        None
    }

    /// What the code may speculate on. `None`: nothing, it has no guards.
    fn speculation(&self) -> Option<Speculation> {
        None
    }

    /// Emits a call of a runtime function. `args` are all its arguments, the context first; [`helper_signature`] is the signature.
    fn call_runtime(&mut self, helper: Helper, args: &[Value]) -> Results;
}

fn integers(params: usize, call_conv: CallConv) -> Signature {
    let mut signature = Signature::new(call_conv);
    signature.params = vec![AbiParam::new(I64); params];
    signature.returns = vec![AbiParam::new(I64); 2];
    signature
}

/// The Cranelift signature of a function with `params` parameters. `call_conv` is the platform's C convention.
#[must_use]
pub fn signature(params: usize, call_conv: CallConv) -> Signature {
    integers(3 + params.min(REGISTER_ARGS), call_conv)
}

/// The Cranelift signature of a runtime function.
#[must_use]
pub fn helper_signature(helper: Helper, call_conv: CallConv) -> Signature {
    integers(helper.params(), call_conv)
}

/// The Cranelift signature of a loop entry.
#[must_use]
pub fn loop_signature(call_conv: CallConv) -> Signature {
    signature(1, call_conv)
}

/// Fills the emitter's builder, that of an empty Cranelift function with the [`signature`] of `function`, with its code. All
/// blocks are sealed; the caller finalizes the builder. Takes time linear in the bytecode.
pub fn build(function: &Function, program: &Program, calls: &mut dyn CallEmitter<'_>) {
    let (mut translation, params) = Translation::new(function, program, calls);
    translation.calls.count_call(params[1]);
    translation.prologue(&params[3..]);
    translation.code(0);
    translation.finish();
}

/// The same with the [`loop_signature`], for a loop entry of `function`.
pub fn build_loop(function: &Function, site: &LoopSite, program: &Program, calls: &mut dyn CallEmitter<'_>) {
    let (mut translation, params) = Translation::new(function, program, calls);
    translation.load_live(params[3], &site.live);
    let preheader = translation.calls.builder().create_block();
    translation.preheader = Some((site.header.index(), preheader));
    translation.code(site.header.index());
    translation.finish();
}

impl<'t, 'f> Translation<'t, 'f> {
    /// Starts a function: answers what will translate it, and its parameters.
    fn new(
        function: &'t Function,
        program: &'t Program,
        calls: &'t mut dyn CallEmitter<'f>,
    ) -> (Self, Vec<Value>) {
        let speculation = calls.speculation();
        let b = calls.builder();
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        b.seal_block(entry);
        let params = b.block_params(entry).to_vec();
        let failed = b.create_block();
        b.set_cold_block(failed);
        let translation = Translation {
            function,
            program,
            calls,
            ints: [None; MAX_REGISTERS],
            floats: [None; MAX_REGISTERS],
            context: params[1],
            depth: params[2],
            failed,
            blocks: Vec::new(),
            pc: 0,
            preheader: None,
            speculation,
            liveness: None,
        };
        (translation, params)
    }

    fn finish(&mut self) {
        self.epilogue();
        self.calls.builder().seal_all_blocks();
    }
}

struct Translation<'t, 'f> {
    function: &'t Function,
    program: &'t Program,
    calls: &'t mut dyn CallEmitter<'f>,
    ints: [Option<Variable>; MAX_REGISTERS],
    floats: [Option<Variable>; MAX_REGISTERS],
    context: Value,
    /// Frames left for callees, once the prologue has run.
    depth: Value,
    /// Returns a status that is not 0. Every callee's failure goes here.
    failed: Block,
    /// The block of each instruction that starts one.
    blocks: Vec<Option<Block>>,
    /// The instruction being translated.
    pc: usize,
    /// The header of the loop that a loop entry goes to, and the block before it, where the ways in from outside meet. Were
    /// that the header itself, all that is alive there would look as if the loop changed it.
    preheader: Option<(usize, Block)>,
    speculation: Option<Speculation>,
    /// What is live in the function, once a guard needs it.
    liveness: Option<Liveness>,
}

impl Translation<'_, '_> {
    /// Checks the depth and brings the parameters into registers.
    fn prologue(&mut self, in_registers: &[Value]) {
        let types = &self.function.signature.params;
        for (i, ty) in types.iter().enumerate() {
            let word = match in_registers.get(i) {
                Some(word) => *word,
                None => {
                    let offset = Context::ARGS_OFFSET + 8 * (i - REGISTER_ARGS);
                    self.calls.builder().ins().load(I64, MemFlagsData::trusted(), self.context, offset as i32)
                }
            };
            let register = Reg(i as u8);
            if ty.is_float() { self.set_float_bits(register, word) } else { self.set(register, word) }
        }
        let index = i64::from(self.function.index.0);
        let line = self.function.signature.line;
        let depth = self.depth;
        let too_deep = self.trap_unless(depth);
        self.trap(too_deep, TrapCode::RecursionTooDeep, line, |t| {
            let zero = t.calls.builder().ins().iconst(I64, 0);
            let index = t.calls.builder().ins().iconst(I64, index);
            (index, zero)
        });
        self.depth = self.calls.builder().ins().iadd_imm_s(depth, -1);
    }

    /// Brings the registers that are live at a loop header in from the interpreter's.
    fn load_live(&mut self, registers: Value, live: &[(Reg, Type)]) {
        let places: Vec<_> = live
            .iter()
            .map(|(register, ty)| (if ty.is_float() { F64 } else { I64 }, 8 * register.index() as i32))
            .collect();
        let values = self.calls.load_live(registers, &places);
        for ((register, ty), value) in live.iter().zip(values) {
            if ty.is_float() { self.set_float(*register, value) } else { self.set(*register, value) }
        }
    }

    /// Translates all instructions reachable from `start`, block by block in the order of the bytecode.
    fn code(&mut self, start: usize) {
        let function = self.function;
        let reachable = function.reachable_from(start);
        let starts = function.block_starts().into_iter().zip(&reachable);
        self.blocks = starts
            .map(|(start, reachable)| (start && *reachable).then(|| self.calls.builder().create_block()))
            .collect();
        let numbers = function.blocks();
        let mut header_of = vec![None; function.code.len()];
        for (site, header) in function.loops.iter().map(|site| site.header.index()).enumerate() {
            header_of[header] = Some(function.index.site(site as u64));
        }
        let first = self.block(Target(start as u16));
        self.calls.builder().ins().jump(first, &[]);
        let mut open = false;
        for (pc, op) in function.code.iter().enumerate().filter(|(pc, _)| reachable[*pc]) {
            self.pc = pc;
            if let Some(block) = self.blocks[pc] {
                if open {
                    let block = self.block(Target(pc as u16));
                    self.calls.builder().ins().jump(block, &[]);
                }
                if let Some((_, preheader)) = self.preheader.filter(|(header, _)| *header == pc) {
                    self.calls.builder().switch_to_block(preheader);
                    self.calls.builder().seal_block(preheader);
                    self.calls.builder().ins().jump(block, &[]);
                }
                self.calls.builder().switch_to_block(block);
                // Control goes forward except to loop headers, so all jumps to it have been seen, unless it is a header;
                // then `finish` seals it.
                match header_of[pc] {
                    None => self.calls.builder().seal_block(block),
                    Some(site) => self.calls.count_iteration(site, self.context),
                }
                if let Some(number) = numbers[pc] {
                    self.calls.count_block(number);
                }
            }
            self.instruction(op);
            // Conditional branches have filled their block; the next instruction starts another.
            open = op.target().is_none() && !op.is_terminator();
        }
    }

    fn epilogue(&mut self) {
        self.calls.builder().switch_to_block(self.failed);
        let status = self.calls.builder().ins().iconst(I64, 1);
        self.calls.builder().ins().return_(&[status, status]);
    }

    fn line(&self) -> u32 {
        self.function.line(self.pc)
    }

    fn variable(&mut self, register: Reg, ty: ClifType) -> Variable {
        let variables = if ty == F64 { &mut self.floats } else { &mut self.ints };
        *variables[register.index()].get_or_insert_with(|| self.calls.builder().declare_var(ty))
    }

    fn get(&mut self, register: Reg) -> Value {
        let variable = self.variable(register, I64);
        self.calls.builder().use_var(variable)
    }

    fn set(&mut self, register: Reg, value: Value) {
        let variable = self.variable(register, I64);
        self.calls.builder().def_var(variable, value);
    }

    fn get_float(&mut self, register: Reg) -> Value {
        let variable = self.variable(register, F64);
        self.calls.builder().use_var(variable)
    }

    fn set_float(&mut self, register: Reg, value: Value) {
        let variable = self.variable(register, F64);
        self.calls.builder().def_var(variable, value);
    }

    /// A float register as an integer, as calls and arrays' initial values need it.
    fn get_float_bits(&mut self, register: Reg) -> Value {
        let value = self.get_float(register);
        self.calls.builder().ins().bitcast(I64, MemFlagsData::new(), value)
    }

    fn set_float_bits(&mut self, register: Reg, bits: Value) {
        let value = self.calls.builder().ins().bitcast(F64, MemFlagsData::new(), bits);
        self.set_float(register, value);
    }
}
