//! What a frontend builds one function with.

use crate::count::Counting;
use crate::env::Environment;
use crate::include::Bodies;
use crate::name;
use beadwork::{Bead, CompileError, Job};
use beadwork_object::{Embed, Entry, Of};
use cranelift_codegen::ir::{
    AbiParam, ExtFuncData, ExternalName, FuncRef, Function, GlobalValueData, Inst, InstBuilder, MemFlagsData,
    SigRef, Signature, Type, UserExternalName, Value, types,
};
use cranelift_codegen::isa::TargetIsa;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;

/// One function under construction: a [`FunctionBuilder`], and what the VM's code needs beyond it.
///
/// Mistakes that show only here (a callee that was removed, an unknown runtime symbol) are remembered and fail the
/// function after the frontend returns, so that calls can be written without an error path at each.
pub struct FunctionUnit<'u, 'e> {
    env: &'u Environment,
    job: &'u mut Job<'e>,
    builder: FunctionBuilder<'u>,
    /// Guest signatures imported for calls of beads.
    signatures: Vec<(Signature, SigRef)>,
    slots: &'u mut Slots,
    pub(crate) entry: Entry,
    /// The frontend knows which entry this is.
    pub(crate) looked: Cell<bool>,
    /// The function whose body this is; another than the job's if it is included in that one's code.
    pub(crate) body: Bead,
    pub(crate) bodies: &'u mut Bodies,
    /// Loop entries to be built after this one.
    pub(crate) loops: Vec<u64>,
    pub(crate) counting: Counting,
    data: Vec<Constant>,
    embeds: Vec<Embedded>,
    deferred: Option<CompileError>,
}

/// Slots by callee, for all entries of a function: asking the engine again would pin again.
pub(crate) type Slots = HashMap<Bead, usize>;

/// What all entries and bodies of a function's code share.
#[derive(Default)]
pub(crate) struct Common {
    pub(crate) slots: Slots,
    pub(crate) bodies: Bodies,
}

/// Which body, and which entry of it, is to be built.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) body: Bead,
    pub(crate) entry: Entry,
}

/// What else came of building an entry.
pub(crate) struct Built {
    pub(crate) data: Vec<Constant>,
    pub(crate) embeds: Vec<Embedded>,
    pub(crate) loops: Vec<u64>,
}

/// An address or number of the engine's, by a name that means the same in another process.
pub(crate) struct Embedded {
    pub(crate) name: String,
    pub(crate) now: u64,
}

/// Read-only data that will follow the code.
pub(crate) struct Constant {
    pub(crate) bytes: Vec<u8>,
    pub(crate) align: usize,
}

impl<'u, 'e> FunctionUnit<'u, 'e> {
    pub(crate) fn new(
        env: &'u Environment,
        job: &'u mut Job<'e>,
        function: &'u mut Function,
        context: &'u mut FunctionBuilderContext,
        common: &'u mut Common,
        wanted: Wanted,
    ) -> Self {
        let Common { slots, bodies } = common;
        let Wanted { body, entry } = wanted;
        FunctionUnit {
            env,
            job,
            builder: FunctionBuilder::new(function, context),
            signatures: Vec::new(),
            slots,
            entry,
            looked: Cell::new(false),
            body,
            bodies,
            loops: Vec::new(),
            counting: Counting::default(),
            data: Vec::new(),
            embeds: Vec::new(),
            deferred: None,
        }
    }

    /// The function to compile: its bead, core, name, tier, and why it is compiled. While the body of another is built that is
    /// [included](FunctionUnit::include), still the one whose code it becomes part of.
    pub fn job(&mut self) -> &mut Job<'e> {
        self.job
    }

    pub(crate) fn bead_of_job(&self) -> Bead {
        self.job.bead()
    }

    /// Cranelift's own builder, for everything else.
    pub fn builder(&mut self) -> &mut FunctionBuilder<'u> {
        &mut self.builder
    }

    /// The code generator: processor, flags, calling convention.
    pub fn isa(&self) -> &'u dyn TargetIsa {
        &*self.env.isa
    }

    /// The type of addresses.
    pub fn pointer_type(&self) -> Type {
        self.isa().pointer_type()
    }

    /// An empty signature with the platform's calling convention.
    pub fn new_signature(&self) -> Signature {
        Signature::new(self.isa().default_call_conv())
    }

    /// Sets the function's signature, opens its entry block, and answers the parameters.
    ///
    /// If the backend [passes callee bits](crate::CraneliftBuilder::pass_callee_bits), the hidden first parameter is
    /// added here and is not among the answered ones; for a loop entry, too. Call it once, first.
    pub fn begin(&mut self, signature: &Signature) -> Vec<Value> {
        self.builder.func.signature = self.native_signature(signature);
        let entry = self.builder.create_block();
        self.builder.append_block_params_for_function_params(entry);
        self.builder.switch_to_block(entry);
        let hidden = usize::from(self.env.pass_callee_bits);
        self.builder.block_params(entry)[hidden..].to_vec()
    }

    /// What a function of the guest signature looks like natively: with the hidden first parameter, if the backend
    /// [passes callee bits](crate::CraneliftBuilder::pass_callee_bits). Stubs of the VM have to look the same.
    pub fn native_signature(&self, signature: &Signature) -> Signature {
        let mut native = signature.clone();
        if self.env.pass_callee_bits {
            native.params.insert(0, AbiParam::new(types::I64));
        }
        native
    }

    /// Calls a function of the engine through its slot: whatever code is installed when the call runs, or the
    /// engine's [fallback](beadwork::EngineBuilder::fallback) while there is none. Recursion is such a call, too. Functions that are
    /// [included](FunctionUnit::include) are called directly.
    ///
    /// `signature` and `args` are the guest's. If the backend
    /// [passes callee bits](crate::CraneliftBuilder::pass_callee_bits), `callee.to_bits()` is passed before them. The
    /// call costs a load of a constant address more than a direct one.
    ///
    /// **Without a fallback the slot of a function without code holds null**, and this call jumps there. Give the engine
    /// one, or check [`code_pointer`](FunctionUnit::code_pointer) first.
    ///
    /// A callee that is not live any more fails this function after the frontend returned.
    pub fn call_bead(&mut self, callee: Bead, signature: &Signature, args: &[Value]) -> Inst {
        let native = self.native_signature(signature);
        if let Some(part) = self.part(callee, &native) {
            let bits = self
                .env
                .pass_callee_bits
                .then(|| self.builder.ins().iconst(types::I64, callee.to_bits().cast_signed()));
            let args: Vec<_> = bits.into_iter().chain(args.iter().copied()).collect();
            return self.builder.ins().call(part, &args);
        }
        let target = self.code_pointer(callee);
        let signature = self.import_native(signature);
        if !self.env.pass_callee_bits {
            return self.builder.ins().call_indirect(signature, target, args);
        }
        let bits = self.bits(callee);
        let mut with_bits = Vec::with_capacity(args.len() + 1);
        with_bits.push(bits);
        with_bits.extend_from_slice(args);
        self.builder.ins().call_indirect(signature, target, &with_bits)
    }

    /// Loads the callee's code pointer, which can change at any time: its code, or else the engine's fallback, or else
    /// null. Use it at once; a pointer kept across a safepoint may have been freed.
    pub fn code_pointer(&mut self, callee: Bead) -> Value {
        let slot = self.slot(callee);
        let of = Of::bead(callee, self.job);
        let slot = self.embed(Embed::Slot { of }, slot as u64);
        let pointer = self.pointer_type();
        // Aligned and never trapping, but not read-only: installs change it.
        self.builder.ins().load(pointer, MemFlagsData::trusted(), slot, 0)
    }

    /// A function's handle as a number of 64 bits. Code that is to be [kept](crate::CraneliftBuilder::archive) takes it from here: it is
    /// another number in another process.
    pub fn bits(&mut self, bead: Bead) -> Value {
        let of = Of::bead(bead, self.job);
        self.embed(Embed::Bits { of }, bead.to_bits())
    }

    /// The [version](beadwork::Job::version) the code will have, as a number of 64 bits. Code that is to be
    /// [kept](crate::CraneliftBuilder::archive) takes it from here.
    pub fn version(&mut self) -> Value {
        let version = self.job.version();
        self.embed(Embed::Version, version.into())
    }

    /// An address or number that is another one in another process.
    pub(crate) fn embed(&mut self, embed: Embed, now: u64) -> Value {
        if self.env.keeper.is_none() {
            let pointer = self.pointer_type();
            return self.builder.ins().iconst(pointer, now.cast_signed());
        }
        let name = embed.named().to_string();
        let number = self.embeds.iter().position(|known| known.name == name && known.now == now);
        let number = number.unwrap_or_else(|| {
            self.embeds.push(Embedded { name, now });
            self.embeds.len() - 1
        });
        let name = self.declare(name::EMBEDS, number as u32);
        self.address_of(name)
    }

    fn slot(&mut self, callee: Bead) -> usize {
        if let Some(&slot) = self.slots.get(&callee) {
            return slot;
        }
        match self.job.slot(callee) {
            Ok(slot) => {
                self.slots.insert(callee, slot.addr());
                slot.addr()
            }
            Err(stale) => {
                // Not kept: who builds the function again has to fail, too.
                self.defer(CompileError::failed(format_args!("a callee cannot be called: {stale}")));
                0
            }
        }
    }

    fn import_native(&mut self, signature: &Signature) -> SigRef {
        if let Some((_, known)) = self.signatures.iter().find(|(known, _)| known == signature) {
            return *known;
        }
        let native = self.native_signature(signature);
        let imported = self.builder.import_signature(native);
        self.signatures.push((signature.clone(), imported));
        imported
    }

    /// A function of the VM's runtime, given to the backend under `name`, to be called with
    /// `builder().ins().call(…)`. The signature is taken as it is; nothing hidden is passed.
    ///
    /// An unknown name fails this function after the frontend returned.
    pub fn symbol(&mut self, name: &str, signature: &Signature) -> FuncRef {
        let name = self.symbol_name(name);
        let signature = self.builder.import_signature(signature.clone());
        let data = ExtFuncData { name, signature, colocated: false, patchable: false };
        self.builder.import_function(data)
    }

    /// The address of a runtime symbol, as a value.
    ///
    /// An unknown name fails this function after the frontend returned.
    pub fn symbol_address(&mut self, name: &str) -> Value {
        let name = self.symbol_name(name);
        self.address_of(name)
    }

    fn symbol_name(&mut self, symbol: &str) -> ExternalName {
        let number = self.env.symbols.number(symbol).unwrap_or_else(|| {
            self.defer(CompileError::failed(format_args!(
                "unknown runtime symbol `{symbol}`; give its address with CraneliftBuilder::symbol"
            )));
            u32::MAX
        });
        self.declare(name::SYMBOLS, number)
    }

    /// The address of read-only data that lives as long as the function's code: a string, a table. `align` is a power
    /// of two of at most 4096 bytes.
    ///
    /// Another alignment fails this function after the frontend returned.
    pub fn data(&mut self, bytes: &[u8], align: usize) -> Value {
        if !align.is_power_of_two() || align > 4096 {
            self.defer(CompileError::failed(format_args!(
                "data cannot be aligned to {align}; use a power of two of at most 4096"
            )));
        }
        let number = self.data.len() as u32;
        self.data.push(Constant { bytes: bytes.to_vec(), align });
        let name = self.declare(name::DATA, number);
        self.address_of(name)
    }

    pub(crate) fn declare(&mut self, namespace: u32, number: u32) -> ExternalName {
        let name = UserExternalName::new(namespace, number);
        ExternalName::user(self.builder.func.declare_imported_user_function(name))
    }

    fn address_of(&mut self, name: ExternalName) -> Value {
        let pointer = self.pointer_type();
        let symbol = GlobalValueData::Symbol { name, offset: 0.into(), colocated: false, tls: false };
        let symbol = self.builder.create_global_value(symbol);
        self.builder.ins().symbol_value(pointer, symbol)
    }

    /// The first mistake is what the VM's author wants to see.
    pub(crate) fn defer(&mut self, error: CompileError) {
        self.deferred.get_or_insert(error);
    }

    /// Ends the construction. On an error the builder's context is left unusable.
    pub(crate) fn finish(mut self, built: Result<(), CompileError>) -> Result<Built, CompileError> {
        built?;
        if self.entry == Entry::Function {
            self.built_body();
        }
        if let Some(error) = self.deferred {
            return Err(error);
        }
        if let (Entry::Loop(site), false) = (self.entry, self.looked.get()) {
            return Err(CompileError::failed(format_args!(
                "the frontend asked for an entry into loop {site} and built the function once more; \
                 ask FunctionUnit::entry which of them to build"
            )));
        }
        self.check_blocks()?;
        self.builder.seal_all_blocks();
        self.builder.finalize(self.env.isa.frontend_config());
        Ok(Built { data: self.data, embeds: self.embeds, loops: self.loops })
    }

    /// The builder asserts these in debug builds only, and in release builds what follows would go wrong.
    fn check_blocks(&self) -> Result<(), CompileError> {
        let (layout, dfg) = (&self.builder.func.layout, &self.builder.func.dfg);
        if layout.entry_block().is_none() {
            return Err(CompileError::failed(if dfg.num_blocks() == 0 {
                "the frontend built no block; start with FunctionUnit::begin"
            } else {
                "the frontend built no instruction; the block that FunctionUnit::begin opened is empty"
            }));
        }
        for block in layout.blocks() {
            let last = layout.last_inst(block).map(|inst| dfg.insts[inst]);
            let Some(last) = last.filter(|last| last.opcode().is_terminator()) else {
                return Err(CompileError::failed(format_args!(
                    "{block} has no terminator; end it with a jump, branch, return or trap"
                )));
            };
            let targets = last.branch_destination(&dfg.jump_tables, &dfg.exception_tables);
            let mut targets = targets.iter().map(|to| to.block(&dfg.value_lists));
            if let Some(empty) = targets.find(|&to| !layout.is_block_inserted(to)) {
                return Err(CompileError::failed(format_args!(
                    "{block} goes to {empty}, which is empty; give it instructions, after switch_to_block"
                )));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for FunctionUnit<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionUnit")
            .field("job", &self.job)
            .field("function", &format_args!("{}", self.builder.func.display()))
            .finish_non_exhaustive()
    }
}
