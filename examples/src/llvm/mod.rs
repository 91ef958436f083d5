//! The LLVM frontend: bytecode of one function to LLVM IR, with the convention of [`native`](crate::native).
//!
//! The same translation as [`jit`](crate::jit)'s, instruction by instruction, in the words of the other compiler: registers are variables on the
//! stack, which LLVM's first passes turn into values, and what only LLVM can use is told to it: that lengths never change, that words and
//! floats of arrays lie apart, and which branches are never taken.

mod arith;
mod control;
mod frontend;
mod hints;
mod memory;
mod num;

use beadwork::Bead;
use beadwork_llvm::inkwell::AddressSpace;
use beadwork_llvm::inkwell::basic_block::BasicBlock;
use beadwork_llvm::inkwell::builder::Builder;
use beadwork_llvm::inkwell::types::{BasicMetadataTypeEnum, FloatType, FunctionType, IntType, PointerType};
use beadwork_llvm::inkwell::values::{FloatValue, IntValue, PointerValue};
use beadwork_llvm::{BuildError, FunctionUnit};

use crate::bytecode::{Op, Reg, Target};
use crate::counting;
use crate::flow::Flow;
use crate::function::{Function, LoopSite};
use crate::jit::Speculation;
use crate::liveness::Liveness;
use crate::lower::MAX_REGISTERS;
use crate::native::{Context, REGISTER_ARGS};
use crate::program::Program;
use crate::redefine::Definitions;
use crate::runtime::TrapCode;
use crate::tiering::Linking;
use crate::types::Type;

pub use frontend::llvm;

type Result<T> = std::result::Result<T, BuildError>;

/// Where the code goes and what it may rely on.
struct Setting<'t> {
    program: &'t Program,
    beads: &'t [Bead],
    linking: Linking,
    definitions: &'t Definitions,
    speculation: Speculation,
    /// How often branches went each way at a lower tier, if that counted.
    flow: Option<Flow>,
}

struct Translation<'t, 'c, 'e> {
    function: &'t Function,
    setting: Setting<'t>,
    unit: &'t mut FunctionUnit<'c, 'e>,
    /// Stands at the end of the entry block, which holds the variables of the registers.
    variables: Builder<'c>,
    ints: [Option<PointerValue<'c>>; MAX_REGISTERS],
    floats: [Option<PointerValue<'c>>; MAX_REGISTERS],
    context: PointerValue<'c>,
    /// Frames left for callees, once the prologue has run.
    depth: IntValue<'c>,
    /// Returns a status that is not 0. Every callee's failure goes here.
    failed: BasicBlock<'c>,
    /// Where the code begins, behind the variables.
    start: BasicBlock<'c>,
    /// The block of each instruction that starts one.
    blocks: Vec<Option<BasicBlock<'c>>>,
    /// The instruction being translated.
    pc: usize,
    /// What is live in the function, once a guard needs it.
    liveness: Option<Liveness>,
}

/// Context, depth and `params` words, and a pair of words back: what is guest in a signature, without the callee's bits.
fn signature<'c>(unit: &FunctionUnit<'c, '_>, params: usize) -> FunctionType<'c> {
    words(unit, 1 + params.min(REGISTER_ARGS))
}

/// A context and `params` words, and a pair of words back.
fn words<'c>(unit: &FunctionUnit<'c, '_>, params: usize) -> FunctionType<'c> {
    let word = unit.context().i64_type();
    let context: PointerType<'c> = unit.context().ptr_type(AddressSpace::default());
    let mut types: Vec<BasicMetadataTypeEnum<'c>> = vec![context.into()];
    types.resize(1 + params, word.into());
    unit.context().struct_type(&[word.into(), word.into()], false).fn_type(&types, false)
}

/// Fills the unit with the code of `function`.
fn build(function: &Function, setting: Setting<'_>, unit: &mut FunctionUnit<'_, '_>) -> Result<()> {
    let params = function.signature.params.len();
    let (mut translation, params) = Translation::new(function, setting, unit, params)?;
    if let Some(flow) = &translation.setting.flow {
        translation.unit.set_entry_count(flow.calls)?;
    }
    translation.unit.count_call(counting::CALL, &[translation.context.into()])?;
    translation.prologue(&params)?;
    translation.code(0)?;
    translation.finish()
}

/// The same for a loop entry of `function`.
fn build_loop(
    function: &Function,
    site: &LoopSite,
    setting: Setting<'_>,
    unit: &mut FunctionUnit<'_, '_>,
) -> Result<()> {
    let (mut translation, params) = Translation::new(function, setting, unit, 1)?;
    let registers = translation.pointer(params[0])?;
    for &(register, ty) in &site.live {
        let place = translation.at(registers, 8 * register.index() as i64)?;
        if ty.is_float() {
            let value = translation.b().build_load(translation.float(), place, "")?.into_float_value();
            translation.set_float(register, value)?;
        } else {
            let value = translation.b().build_load(translation.word(), place, "")?.into_int_value();
            translation.set(register, value)?;
        }
    }
    translation.code(site.header.index())?;
    translation.finish()
}

impl<'t, 'c, 'e> Translation<'t, 'c, 'e> {
    /// Starts a function: answers what will translate it, and its parameters behind context and depth.
    fn new(
        function: &'t Function,
        setting: Setting<'t>,
        unit: &'t mut FunctionUnit<'c, 'e>,
        params: usize,
    ) -> Result<(Self, Vec<IntValue<'c>>)> {
        let signature = signature(unit, params);
        let params = unit.begin(signature);
        let [context, depth, params @ ..] = &params[..] else {
            return Err(BuildError::failed("the convention has a context and a depth"));
        };
        let (context, depth) = (context.into_pointer_value(), depth.into_int_value());
        let params = params.iter().map(|param| param.into_int_value()).collect();
        let variables = unit.context().create_builder();
        if let Some(entry) = unit.builder().get_insert_block() {
            variables.position_at_end(entry);
        }
        let (start, failed) = (unit.append_block("start")?, unit.append_block("failed")?);
        unit.builder().position_at_end(start);
        let translation = Translation {
            function,
            setting,
            unit,
            variables,
            ints: [None; MAX_REGISTERS],
            floats: [None; MAX_REGISTERS],
            context,
            depth,
            failed,
            start,
            blocks: Vec::new(),
            pc: 0,
            liveness: None,
        };
        Ok((translation, params))
    }

    fn finish(&mut self) -> Result<()> {
        self.b().position_at_end(self.failed);
        self.leave(crate::native::FAILED)?;
        self.variables.build_unconditional_branch(self.start)?;
        Ok(())
    }

    fn b(&self) -> &Builder<'c> {
        self.unit.builder()
    }

    fn word(&self) -> IntType<'c> {
        self.unit.context().i64_type()
    }

    fn float(&self) -> FloatType<'c> {
        self.unit.context().f64_type()
    }

    fn number(&self, n: i64) -> IntValue<'c> {
        self.word().const_int(n.cast_unsigned(), true)
    }

    fn new_block(&self, name: &str) -> Result<BasicBlock<'c>> {
        Ok(self.unit.append_block(name)?)
    }

    fn pointer(&self, word: IntValue<'c>) -> Result<PointerValue<'c>> {
        Ok(self.b().build_int_to_ptr(word, self.context.get_type(), "")?)
    }

    /// The address `bytes` behind another.
    fn at(&self, pointer: PointerValue<'c>, bytes: i64) -> Result<PointerValue<'c>> {
        self.unit.offset(pointer, self.number(bytes))
    }

    /// Checks the depth and brings the parameters into registers.
    fn prologue(&mut self, in_registers: &[IntValue<'c>]) -> Result<()> {
        let function = self.function;
        for (i, ty) in function.signature.params.iter().enumerate() {
            let word = match in_registers.get(i) {
                Some(&word) => word,
                None => {
                    let place =
                        self.at(self.context, (Context::ARGS_OFFSET + 8 * (i - REGISTER_ARGS)) as i64)?;
                    self.b().build_load(self.word(), place, "")?.into_int_value()
                }
            };
            self.set_param(Reg(i as u8), *ty, word)?;
        }
        let index = self.number(i64::from(function.index.0));
        self.enter(index, function.signature.line)?;
        self.depth = self.b().build_int_sub(self.depth, self.number(1), "")?;
        Ok(())
    }

    fn set_param(&mut self, register: Reg, ty: Type, word: IntValue<'c>) -> Result<()> {
        if ty.is_float() { self.set_float_bits(register, word) } else { self.set(register, word) }
    }

    /// Fails if there is no frame left for the function with this index.
    fn enter(&mut self, index: IntValue<'c>, line: u32) -> Result<()> {
        let depth = self.depth;
        let left = self.truth_of(depth)?;
        let zero = self.number(0);
        self.trap_unless(left, TrapCode::RecursionTooDeep, line, [index, zero])
    }

    /// Translates all instructions reachable from `start`, block by block in the order of the bytecode.
    fn code(&mut self, start: usize) -> Result<()> {
        let function = self.function;
        let reachable = function.reachable_from(start);
        let starts = function.block_starts().into_iter().zip(&reachable);
        let blocks = starts.map(
            |(start, reachable)| {
                if start && *reachable { self.new_block("").map(Some) } else { Ok(None) }
            },
        );
        self.blocks = blocks.collect::<Result<_>>()?;
        let site_of = |pc| function.loops.iter().position(|site| site.header.index() == pc);
        let first = self.block(Target(start as u16));
        self.b().build_unconditional_branch(first)?;
        let mut open = false;
        for (pc, op) in function.code.iter().enumerate().filter(|(pc, _)| reachable[*pc]) {
            self.pc = pc;
            if let Some(block) = self.blocks[pc] {
                if open {
                    self.b().build_unconditional_branch(block)?;
                }
                self.b().position_at_end(block);
                if let Some(site) = site_of(pc) {
                    let context = self.context.into();
                    let site = function.index.site(site as u64);
                    self.unit.count_iteration(site, counting::ITERATIONS, &[context])?;
                }
            }
            self.instruction(op)?;
            // Conditional branches have filled their block; the next instruction starts another.
            open = op.target().is_none() && !op.is_terminator();
        }
        Ok(())
    }

    fn line(&self) -> u32 {
        self.function.line(self.pc)
    }

    /// The variable of a register as an integer or as a float.
    fn variable(&mut self, register: Reg, float: bool) -> Result<PointerValue<'c>> {
        let known = if float { &mut self.floats } else { &mut self.ints };
        if let Some(variable) = known[register.index()] {
            return Ok(variable);
        }
        let variable = if float {
            self.variables.build_alloca(self.unit.context().f64_type(), "")?
        } else {
            self.variables.build_alloca(self.unit.context().i64_type(), "")?
        };
        let known = if float { &mut self.floats } else { &mut self.ints };
        known[register.index()] = Some(variable);
        Ok(variable)
    }

    fn get(&mut self, register: Reg) -> Result<IntValue<'c>> {
        let variable = self.variable(register, false)?;
        Ok(self.b().build_load(self.word(), variable, "")?.into_int_value())
    }

    fn set(&mut self, register: Reg, value: IntValue<'c>) -> Result<()> {
        let variable = self.variable(register, false)?;
        self.b().build_store(variable, value)?;
        Ok(())
    }

    fn get_float(&mut self, register: Reg) -> Result<FloatValue<'c>> {
        let variable = self.variable(register, true)?;
        Ok(self.b().build_load(self.float(), variable, "")?.into_float_value())
    }

    fn set_float(&mut self, register: Reg, value: FloatValue<'c>) -> Result<()> {
        let variable = self.variable(register, true)?;
        self.b().build_store(variable, value)?;
        Ok(())
    }

    /// A float register as an integer, as calls and arrays' initial values need it.
    fn get_float_bits(&mut self, register: Reg) -> Result<IntValue<'c>> {
        let value = self.get_float(register)?;
        self.bits(value)
    }

    fn set_float_bits(&mut self, register: Reg, bits: IntValue<'c>) -> Result<()> {
        let value = self.float_of(bits)?;
        self.set_float(register, value)
    }

    fn bits(&self, value: FloatValue<'c>) -> Result<IntValue<'c>> {
        Ok(self.b().build_bit_cast(value, self.word(), "")?.into_int_value())
    }

    fn float_of(&self, bits: IntValue<'c>) -> Result<FloatValue<'c>> {
        Ok(self.b().build_bit_cast(bits, self.float(), "")?.into_float_value())
    }
}
