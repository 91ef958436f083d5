//! What a frontend builds one function with.

use crate::count::Counting;
use crate::embed::Embedded;
use crate::env::Environment;
use crate::include::Bodies;
use crate::worker::Worker;
use beadwork::{Bead, CompileError, Job};
use beadwork_object::Entry;
use inkwell::attributes::{Attribute, AttributeLoc};
use inkwell::basic_block::BasicBlock;
use inkwell::builder::Builder;
use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::targets::{TargetData, TargetTriple};
use inkwell::types::{BasicMetadataTypeEnum, BasicType, FunctionType};
use inkwell::values::{BasicValueEnum, FunctionValue};
use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;

/// One function under construction: a [`Module`] and a [`Builder`] of a [`Context`], and what the VM's code needs beyond them.
///
/// Modules, builders, types and values borrow the context, which belongs to the worker thread, so none of them can leave the
/// frontend:
///
/// ```compile_fail
/// # use std::sync::Mutex;
/// # use beadwork_llvm::{inkwell, BuildError, Frontend, FunctionUnit};
/// struct Hoarder<'c>(Mutex<Vec<inkwell::values::FunctionValue<'c>>>);
/// impl Frontend for Hoarder<'static> {
///     fn build(&self, unit: &mut FunctionUnit<'_, '_>) -> Result<(), BuildError> {
///         unit.begin(unit.context().void_type().fn_type(&[], false));
///         self.0.lock().unwrap().push(unit.function()?);
///         Ok(())
///     }
/// }
/// ```
///
/// Mistakes that show only here (a callee that was removed, an unknown runtime symbol) are remembered and fail the
/// function after the frontend returns.
///
/// inkwell checks little of what is built, and LLVM as Debian and others ship it nothing; the verifier does it afterwards. Take
/// values of this unit's context only, of the types the instruction takes.
pub struct FunctionUnit<'c, 'e> {
    pub(crate) env: &'c Environment,
    job: &'c mut Job<'e>,
    context: &'c Context,
    data: &'c TargetData,
    module: Module<'c>,
    builder: Builder<'c>,
    function: Option<FunctionValue<'c>>,
    pub(crate) slots: &'c mut Slots,
    pub(crate) entry: Entry,
    /// The frontend knows which entry this is.
    pub(crate) looked: Cell<bool>,
    /// The function whose body this is; another than the job's if it is included in that one's code.
    pub(crate) body: Bead,
    /// Whether it is the job's function, or an entry into one of its loops.
    pub(crate) is_root: bool,
    pub(crate) bodies: Bodies,
    /// The function calls itself directly.
    pub(crate) direct_recursion: bool,
    /// Loop entries to be built after this one.
    pub(crate) loops: Vec<u64>,
    pub(crate) counting: Counting<'c>,
    pub(crate) embeds: Vec<Embedded>,
    deferred: Option<CompileError>,
}

/// Slots by callee, for all entries of a function: asking the engine again would pin again.
pub(crate) type Slots = HashMap<Bead, usize>;

/// What came of building an entry.
pub(crate) struct Built<'c> {
    pub(crate) module: Module<'c>,
    /// What its code refers to by number.
    pub(crate) embeds: Vec<Embedded>,
    pub(crate) loops: Vec<u64>,
}

/// The function's name in its module. Names of the C library's functions mean those to LLVM, so the VM's name is no good.
pub(crate) const SYMBOL: &str = "beadwork.entry";

impl<'c, 'e> FunctionUnit<'c, 'e> {
    pub(crate) fn new(
        env: &'c Environment,
        job: &'c mut Job<'e>,
        worker: &'c Worker,
        slots: &'c mut Slots,
        entry: Entry,
        bodies: Bodies,
    ) -> Self {
        let context = worker.session.context();
        let module = context.create_module("beadwork");
        module.set_triple(&TargetTriple::create(&env.triple));
        module.set_data_layout(&worker.data.get_data_layout());
        let body = job.bead();
        FunctionUnit {
            env,
            job,
            context,
            data: &worker.data,
            builder: context.create_builder(),
            module,
            function: None,
            slots,
            entry,
            looked: Cell::new(false),
            body,
            is_root: true,
            bodies,
            direct_recursion: false,
            loops: Vec::new(),
            counting: Counting::default(),
            embeds: Vec::new(),
            deferred: None,
        }
    }

    /// Goes on to the body of a function that is included and called and has none yet, if there is one.
    pub(crate) fn next_body(&mut self) -> bool {
        let without =
            |symbol: &str| self.module.get_function(symbol).is_some_and(|f| f.count_basic_blocks() == 0);
        let Some((bead, _)) = self.bodies.all().find(|(_, symbol)| without(symbol)) else { return false };
        (self.body, self.is_root, self.entry, self.function) = (bead, false, Entry::Function, None);
        self.counting = Counting::default();
        true
    }

    /// The function to compile: its bead, core, name, tier, and why it is compiled. While the body of another is built that is
    /// [included](FunctionUnit::include), still the one whose code it becomes part of.
    pub fn job(&mut self) -> &mut Job<'e> {
        self.job
    }

    /// The context, for types and constants.
    pub fn context(&self) -> &'c Context {
        self.context
    }

    /// The module, which is the function's alone. It may get helper functions (make them `internal` or `private`), read-only
    /// globals, and bodies read from bitcode; whatever is left of it is placed and freed with the function.
    ///
    /// Data that is written belongs to the VM: give its address as a [runtime symbol](crate::LlvmBuilder::symbol).
    pub fn module(&self) -> &Module<'c> {
        &self.module
    }

    /// inkwell's own builder, for everything else.
    pub fn builder(&self) -> &Builder<'c> {
        &self.builder
    }

    /// Sizes and alignments of types on this machine.
    pub fn target_data(&self) -> &TargetData {
        self.data
    }

    /// Declares the function, opens its entry block, and answers the parameters.
    ///
    /// If the backend [passes callee bits](crate::LlvmBuilder::pass_callee_bits), the hidden first parameter is
    /// added here and is not among the answered ones; for a loop entry, too. Call it once, first: a second call fails this function
    /// after the frontend returned.
    pub fn begin(&mut self, signature: FunctionType<'c>) -> Vec<BasicValueEnum<'c>> {
        let function = match self.function {
            Some(function) => {
                self.defer(CompileError::failed("FunctionUnit::begin was called twice for one function"));
                function
            }
            None => self.declare(signature),
        };
        function.get_param_iter().skip(usize::from(self.env.pass_callee_bits)).collect()
    }

    fn declare(&mut self, signature: FunctionType<'c>) -> FunctionValue<'c> {
        let native = self.native_signature(signature);
        let included = self.bodies.all().find(|(bead, _)| !self.is_root && *bead == self.body);
        let function = match included {
            Some((_, symbol)) => self.declared(&symbol, native),
            None => self.module.add_function(SYMBOL, native, None),
        };
        self.attribute(function, "uwtable", 2);
        // Large frames touch each page, so that a runaway recursion meets the guard page and cannot jump over it.
        let probe = self.context.create_string_attribute("probe-stack", "inline-asm");
        function.add_attribute(AttributeLoc::Function, probe);
        if let Some(limit) = self.env.max_frame_bytes {
            // LLVM takes 32 bits.
            let limit = u32::try_from(limit).unwrap_or(u32::MAX).to_string();
            let limit = self.context.create_string_attribute("warn-stack-size", &limit);
            function.add_attribute(AttributeLoc::Function, limit);
        }
        self.builder.position_at_end(self.context.append_basic_block(function, "entry"));
        self.function = Some(function);
        function
    }

    pub(crate) fn attribute(&self, function: FunctionValue<'c>, name: &str, value: u64) {
        function.add_attribute(AttributeLoc::Function, self.enum_attribute(name, value));
    }

    pub(crate) fn enum_attribute(&self, name: &str, value: u64) -> Attribute {
        self.context.create_enum_attribute(Attribute::get_named_enum_kind_id(name), value)
    }

    /// The function, to add attributes or blocks to. Its linkage, and that it has a body, are to be left alone.
    ///
    /// # Errors
    /// Before [`begin`](FunctionUnit::begin).
    pub fn function(&self) -> Result<FunctionValue<'c>, CompileError> {
        self.function.ok_or_else(|| {
            CompileError::failed("the function has no signature; call FunctionUnit::begin first")
        })
    }

    /// A new block at the function's end.
    ///
    /// # Errors
    /// Before [`begin`](FunctionUnit::begin).
    pub fn append_block(&self, name: &str) -> Result<BasicBlock<'c>, CompileError> {
        Ok(self.context.append_basic_block(self.function()?, name))
    }

    /// What a function of the guest signature looks like natively: with the hidden first parameter, if the backend
    /// [passes callee bits](crate::LlvmBuilder::pass_callee_bits). Stubs of the VM have to look the same.
    pub fn native_signature(&self, signature: FunctionType<'c>) -> FunctionType<'c> {
        if !self.env.pass_callee_bits {
            return signature;
        }
        let mut params: Vec<BasicMetadataTypeEnum<'c>> = vec![self.context.i64_type().into()];
        params.extend(signature.get_param_types());
        match signature.get_return_type() {
            Some(result) => result.fn_type(&params, signature.is_var_arg()),
            None => self.context.void_type().fn_type(&params, signature.is_var_arg()),
        }
    }

    /// The first mistake is what the VM's author wants to see.
    pub(crate) fn defer(&mut self, error: CompileError) {
        self.deferred.get_or_insert(error);
    }

    /// Whether a function was built, and the entry that was wanted.
    pub(crate) fn check(&mut self) -> Result<(), CompileError> {
        if let (Entry::Loop(site), false) = (self.entry, self.looked.get()) {
            return Err(CompileError::failed(format_args!(
                "the frontend asked for an entry into loop {site} and built the function once more; \
                 ask FunctionUnit::entry which of them to build"
            )));
        }
        match self.deferred.take() {
            Some(error) => Err(error),
            None => self.function().map(|_| ()),
        }
    }

    /// Ends the construction.
    pub(crate) fn finish(self) -> Built<'c> {
        Built { module: self.module, embeds: self.embeds, loops: self.loops }
    }
}

impl fmt::Debug for FunctionUnit<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionUnit")
            .field("job", &self.job)
            .field("module", &format_args!("{}", self.module.print_to_string().to_string_lossy()))
            .finish_non_exhaustive()
    }
}
