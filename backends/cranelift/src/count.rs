//! Counting in native code: calls, loop iterations, blocks, callees.

use crate::unit::FunctionUnit;
use beadwork::{Bead, BlockCounters, CallSite, CallSites};
use beadwork_object::{Embed, Entry, ITERATIONS_PER_REPORT, Of};
use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    AbiParam, Block, InstBuilder, MemFlagsData, StackSlotData, StackSlotKind, Value, types,
};
use cranelift_codegen::settings::RegallocAlgorithm;
use cranelift_frontend::Variable;

/// Records of call sites are numbered by the process.
const CALL_SITES: Embed = Embed::Nameless("call sites");

/// What counting a function needs while it is built.
#[derive(Default)]
pub(crate) struct Counting {
    /// How often loops went round since the function was entered.
    iterations: Iterations,
    blocks: Option<BlockCounters>,
}

/// Where iterations are counted.
#[derive(Clone, Copy, Default)]
enum Iterations {
    /// No loop was there yet.
    #[default]
    Unknown,
    /// Nowhere: the tier does not count itself.
    Off,
    /// In a value, and so in a register.
    In(Variable),
    /// In the frame, at this address: an allocator that gives registers block by block would store and load the value in each.
    ///
    /// The address is computed where the function is entered and nowhere else. Instructions on x86-64 name a place in the frame
    /// by themselves, but Cranelift leaves a computation they could do without, in the block where it stands.
    Frame(Value),
}

/// Counting. What is emitted here costs a few plain instructions; everything else is out of line, in cold blocks, and calls a
/// function of the VM's runtime, known to the backend by its [name](crate::CraneliftBuilder::symbol). That function gets the values
/// given as `context` first, whatever the VM needs to find its [`Mutator`](beadwork::Mutator).
///
/// ```
/// use beadwork::{Bead, RawMutator, Reentered};
///
/// /// Called by `count_call`: a budget is spent.
/// unsafe extern "C" fn vm_call(context: RawMutator, function: u64) {
///     if let Some(bead) = Bead::from_bits(function) {
///         // SAFETY: native code is called inside `native_scope`, and passes on what it got there.
///         unsafe { Reentered::from_raw(context) }.native_call(bead);
///     }
/// }
///
/// /// Called by `count_iteration`.
/// unsafe extern "C" fn vm_loop(context: RawMutator, function: u64, site: u64, iterations: u32) {
///     if let Some(bead) = Bead::from_bits(function) {
///         // SAFETY: as above.
///         unsafe { Reentered::from_raw(context) }.native_iterations(bead, site, iterations);
///     }
/// }
/// ```
impl FunctionUnit<'_, '_> {
    /// Counts the call, if the tier [counts for itself](beadwork::Tier::counts_itself) and there is a higher one; else, and in loop
    /// entries, emits nothing. Call it once, after [`begin`](FunctionUnit::begin).
    ///
    /// On x86-64 six instructions, one of them a load and one a store (see [`BudgetSlot`](beadwork::BudgetSlot)). When the budget is spent, `symbol` is called with `context` and the
    /// function's bits, 64 of them; it calls [`Mutator::native_call`](beadwork::Mutator::native_call).
    ///
    /// An unknown symbol fails this function after the frontend returned.
    pub fn count_call(&mut self, symbol: &str, context: &[Value]) {
        if !self.job().counts() || self.entry() != Entry::Function {
            return;
        }
        let bead = self.bead();
        let budget = match self.job().budget_slot(bead) {
            Ok(slot) => slot.addr(),
            Err(stale) => return self.defer(stale.into()),
        };
        let of = Of::bead(bead, self.job());
        let budget = self.embed(Embed::Budget { of }, budget as u64);
        let builder = self.builder();
        let left = builder.ins().load(types::I32, MemFlagsData::trusted(), budget, 0);
        let less = builder.ins().iadd_imm_s(left, -1);
        // All in one block, since a value that lives in two can cost a store and a load.
        builder.ins().store(MemFlagsData::trusted(), less, budget, 0);
        let enough = builder.ins().icmp_imm_s(IntCC::SignedGreaterThan, less, 0);
        let (slow, done) = (builder.create_block(), builder.create_block());
        builder.set_cold_block(slow);
        builder.ins().brif(enough, done, &[], slow, &[]);
        self.report(slow, done, symbol, context, |unit| vec![unit.bits(bead)]);
    }

    /// Counts an iteration of the loop the VM calls `site`, under the same conditions as [`count_call`](FunctionUnit::count_call), loop
    /// entries included. Call it at the beginning of the loop's header.
    ///
    /// Iterations of all loops of a call are counted together: on x86-64 by three instructions and perhaps a move, in a register (which
    /// can cost another value its own); by four, in the frame, and two where the function is entered, if registers are allocated in a
    /// [single pass](crate::CraneliftBuilder::opt_level). Every [`ITERATIONS_PER_REPORT`]th calls `symbol` with `context`, the function's bits, the site (64 bits each),
    /// and that number (32 bits); it calls [`Mutator::native_iterations`](beadwork::Mutator::native_iterations).
    ///
    /// An unknown symbol fails this function after the frontend returned.
    pub fn count_iteration(&mut self, site: u64, symbol: &str, context: &[Value]) {
        let count = match self.iterations() {
            Iterations::Unknown | Iterations::Off => return,
            Iterations::In(variable) => {
                let builder = self.builder();
                let before = builder.use_var(variable);
                let count = builder.ins().iadd_imm_s(before, 1);
                builder.def_var(variable, count);
                count
            }
            Iterations::Frame(place) => {
                let builder = self.builder();
                let before = builder.ins().load(types::I32, MemFlagsData::trusted(), place, 0);
                let count = builder.ins().iadd_imm_s(before, 1);
                // One instruction with the load and the addition, as long as the sum is used for nothing else.
                builder.ins().store(MemFlagsData::trusted(), count, place, 0);
                builder.ins().load(types::I32, MemFlagsData::trusted(), place, 0)
            }
        };
        let builder = self.builder();
        let low = builder.ins().band_imm_u(count, i64::from(ITERATIONS_PER_REPORT - 1));
        let (slow, done) = (builder.create_block(), builder.create_block());
        builder.set_cold_block(slow);
        builder.ins().brif(low, done, &[], slow, &[]);
        let bead = self.bead();
        self.report(slow, done, symbol, context, |unit| {
            let every = unit.builder().ins().iconst(types::I32, i64::from(ITERATIONS_PER_REPORT));
            let site = unit.builder().ins().iconst(types::I64, site.cast_signed());
            vec![unit.bits(bead), site, every]
        });
    }

    /// Has the function's blocks counted: asks for `count` [counters](beadwork::Job::block_counters). Answers whether
    /// there is room for them; if not, and in [included](FunctionUnit::include) bodies, [`count_block`](FunctionUnit::count_block) emits
    /// nothing.
    pub fn count_blocks(&mut self, count: u32) -> bool {
        if !self.is_root() {
            return false;
        }
        self.counting.blocks = self.job().block_counters(count);
        self.counting.blocks.is_some()
    }

    /// Counts an execution of the block that the frontend numbers `block`, here. Two instructions on x86-64. Emits nothing if there is
    /// no counter of that number.
    pub fn count_block(&mut self, block: u32) {
        let Some(counters) = self.counting.blocks else { return };
        if let Some(counter) = counters.addr(block) {
            self.raise(Embed::Block { count: counters.len(), index: block }, counter);
        }
    }

    /// [Records](beadwork::Job::call_sites) for `count` call sites of the function, if there is room for them. `None` in
    /// [included](FunctionUnit::include) bodies: the job's records are of the job's function.
    pub fn call_sites(&mut self, count: u32) -> Option<CallSites> {
        if self.is_root() { self.job().call_sites(count) } else { None }
    }

    /// Counts a call of `callee` at a site that calls nothing else. Two instructions on x86-64.
    pub fn count_direct_call(&mut self, site: CallSite, callee: Bead) {
        let counter = self.job().direct_call(site, callee);
        self.raise(CALL_SITES, counter);
    }

    /// Counts a call at a site whose callee is known at run time only: `callee` is its bits. Calls `symbol` with `context`, the site
    /// (32 bits) and the callee's bits; it calls [`Mutator::native_target`](beadwork::Mutator::native_target).
    ///
    /// An unknown symbol fails this function after the frontend returned.
    pub fn count_target(&mut self, site: CallSite, callee: Value, symbol: &str, context: &[Value]) {
        let site = self.embed(CALL_SITES, site.to_bits().into());
        let site = self.builder().ins().ireduce(types::I32, site);
        self.call_runtime(symbol, context, &[site, callee]);
    }

    /// Where iterations of this function are counted.
    fn iterations(&mut self) -> Iterations {
        if let Iterations::Unknown = self.counting.iterations {
            self.counting.iterations = if !self.job().counts() {
                Iterations::Off
            } else if self.isa().flags().regalloc_algorithm() == RegallocAlgorithm::SinglePass {
                self.open_slot().map_or(Iterations::Off, Iterations::Frame)
            } else {
                // Never defined outside of loops, which for the builder means that it is 0 there.
                Iterations::In(self.builder().declare_var(types::I32))
            };
        }
        self.counting.iterations
    }

    /// Makes the place for iterations in the frame, and clears it where the function is entered. Answers its address; `None` only if
    /// there is no entry, and so no code.
    fn open_slot(&mut self) -> Option<Value> {
        let pointer = self.pointer_type();
        let func = &mut self.builder().func;
        let entry = func.layout.entry_block()?;
        let slot = func.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, 4, 2));
        let mut cursor = FuncCursor::new(func).at_first_insertion_point(entry);
        let place = cursor.ins().stack_addr(pointer, slot, 0);
        let none = cursor.ins().iconst(types::I32, 0);
        cursor.ins().store(MemFlagsData::trusted(), none, place, 0);
        Some(place)
    }

    /// Fills a cold block that calls the runtime and goes on in `done`, where building goes on too.
    fn report(
        &mut self,
        slow: Block,
        done: Block,
        symbol: &str,
        context: &[Value],
        args: impl FnOnce(&mut Self) -> Vec<Value>,
    ) {
        self.builder().seal_block(slow);
        self.builder().switch_to_block(slow);
        let args = args(self);
        self.call_runtime(symbol, context, &args);
        self.builder().ins().jump(done, &[]);
        self.builder().seal_block(done);
        self.builder().switch_to_block(done);
    }

    fn call_runtime(&mut self, symbol: &str, context: &[Value], args: &[Value]) {
        let args = [context, args].concat();
        let mut signature = self.new_signature();
        let dfg = &self.builder().func.dfg;
        signature.params.extend(args.iter().map(|&arg| AbiParam::new(dfg.value_type(arg))));
        let function = self.symbol(symbol, &signature);
        self.builder().ins().call(function, &args);
    }

    /// Raises a 64-bit counter. Threads that do so at once can lose a count, as everywhere.
    fn raise(&mut self, embed: Embed, counter: usize) {
        let counter = self.embed(embed, counter as u64);
        let builder = self.builder();
        let count = builder.ins().load(types::I64, MemFlagsData::trusted(), counter, 0);
        let more = builder.ins().iadd_imm_s(count, 1);
        builder.ins().store(MemFlagsData::trusted(), more, counter, 0);
    }
}
