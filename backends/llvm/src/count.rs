//! Counting in native code: calls, loop iterations, blocks, callees.

use crate::error::BuildError;
use crate::unit::FunctionUnit;
use beadwork::{Bead, BlockCounters, CallSite, CallSites};
use beadwork_object::{Embed, Entry, ITERATIONS_PER_REPORT, Of};
use inkwell::types::IntType;
use inkwell::values::{BasicValueEnum, IntValue, PointerValue};
use inkwell::{AtomicOrdering, IntPredicate};

/// How much more often a count goes on than it calls the runtime, as LLVM is told: what makes it put the call out of line.
const FAST_WEIGHT: u64 = 1 << 20;

/// Records of call sites are numbered by the process.
const CALL_SITES: Embed = Embed::Nameless("call sites");

/// What counting a function needs while it is built.
#[derive(Default)]
pub(crate) struct Counting<'c> {
    /// How often loops went round since the function was entered; a variable, and so a register once LLVM has seen to it.
    iterations: Option<PointerValue<'c>>,
    blocks: Option<BlockCounters>,
}

/// Counting. What is emitted here costs a few instructions; everything else is out of line, in cold blocks, and calls a
/// function of the VM's runtime, known to the backend by its [name](crate::LlvmBuilder::symbol). That function gets the values
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
///
/// Budgets and counters are read and written by several threads without waiting for each other, and read while loops run. So
/// accesses to them are atomic, though no more than monotonic: plain ones LLVM could tear, move, or keep in a register
/// until a loop has ended. They cost the same instructions.
impl<'c> FunctionUnit<'c, '_> {
    /// Counts the call, if the tier [counts for itself](beadwork::Tier::counts_itself) and there is a higher one; else, and in loop
    /// entries, emits nothing. Call it once, after [`begin`](FunctionUnit::begin).
    ///
    /// On x86-64 six instructions (with LLVM 16 up to nine), one of them a load and one a store (see
    /// [`BudgetSlot`](beadwork::BudgetSlot)). When the budget is spent, `symbol` is called with `context` and the function's bits, 64 of them; it calls
    /// [`Mutator::native_call`](beadwork::Mutator::native_call).
    ///
    /// An unknown symbol fails this function after the frontend returned.
    ///
    /// # Errors
    /// As inkwell's builder, if it has no position.
    pub fn count_call(&mut self, symbol: &str, context: &[BasicValueEnum<'c>]) -> Result<(), BuildError> {
        if !self.job().counts() || self.entry() != Entry::Function {
            return Ok(());
        }
        let bead = self.bead();
        let budget = match self.job().budget_slot(bead) {
            Ok(slot) => slot.addr() as u64,
            Err(stale) => {
                self.defer(stale.into());
                return Ok(());
            }
        };
        let of = Of::bead(bead, self.job());
        let budget = self.embed_address(Embed::Budget { of }, budget);
        let ty = self.context().i32_type();
        // Stored before it is tested, as `BudgetSlot` says.
        let less = self.add_shared(ty, budget, -1)?;
        let enough = self.builder().build_int_compare(IntPredicate::SGT, less, ty.const_zero(), "")?;
        self.report(enough, symbol, context, |unit| vec![unit.bits(bead)])
    }

    /// Counts an iteration of the loop the VM calls `site`, under the same conditions as [`count_call`](FunctionUnit::count_call), loop
    /// entries included. Call it in the loop's header, behind its phis.
    ///
    /// Iterations of all loops of a call are counted together, in a register (which can cost another value its own): on x86-64 by three
    /// instructions. Every [`ITERATIONS_PER_REPORT`]th calls `symbol` with `context`, the function's bits, the site (64 bits each),
    /// and that number (32 bits); it calls [`Mutator::native_iterations`](beadwork::Mutator::native_iterations). A loop
    /// that counts is no longer turned into vector code, since it contains that call.
    ///
    /// An unknown symbol fails this function after the frontend returned.
    ///
    /// # Errors
    /// As inkwell's builder, if it has no position, and before [`begin`](FunctionUnit::begin).
    pub fn count_iteration(
        &mut self,
        site: u64,
        symbol: &str,
        context: &[BasicValueEnum<'c>],
    ) -> Result<(), BuildError> {
        if !self.job().counts() {
            return Ok(());
        }
        let (ty, place) = (self.context().i32_type(), self.iterations()?);
        let every = ty.const_int(ITERATIONS_PER_REPORT.into(), false);
        let b = self.builder();
        // Plain accesses: the count is this frame's own, and a register is where it belongs.
        let count = b.build_load(ty, place, "")?.into_int_value();
        let count = b.build_int_add(count, ty.const_int(1, false), "")?;
        b.build_store(place, count)?;
        let low = b.build_and(count, ty.const_int((ITERATIONS_PER_REPORT - 1).into(), false), "")?;
        let go_on = b.build_int_compare(IntPredicate::NE, low, ty.const_zero(), "")?;
        let (bead, site) = (self.bead(), self.context().i64_type().const_int(site, false));
        self.report(go_on, symbol, context, |unit| vec![unit.bits(bead), site, every])
    }

    /// Has the function's blocks counted: asks for `count` [counters](beadwork::Job::block_counters). Answers whether
    /// there is room for them; if not, and in [included](FunctionUnit::include) bodies, [`count_block`](FunctionUnit::count_block) emits
    /// nothing.
    pub fn count_blocks(&mut self, count: u32) -> bool {
        if !self.is_root {
            return false;
        }
        self.counting.blocks = self.job().block_counters(count);
        self.counting.blocks.is_some()
    }

    /// Counts an execution of the block that the frontend numbers `block`, here. Two instructions on x86-64. Emits nothing if there is
    /// no counter of that number.
    ///
    /// # Errors
    /// As inkwell's builder, if it has no position.
    pub fn count_block(&mut self, block: u32) -> Result<(), BuildError> {
        match self.counting.blocks.and_then(|counters| counters.addr(block)) {
            Some(counter) => {
                let count = self.counting.blocks.map_or(0, |counters| counters.len());
                self.raise(Embed::Block { count, index: block }, counter)
            }
            None => Ok(()),
        }
    }

    /// [Records](beadwork::Job::call_sites) for `count` call sites of the function, if there is room for them. `None` in
    /// [included](FunctionUnit::include) bodies: the job's records are of the job's function.
    pub fn call_sites(&mut self, count: u32) -> Option<CallSites> {
        if self.is_root { self.job().call_sites(count) } else { None }
    }

    /// Counts a call of `callee` at a site that calls nothing else. Two instructions on x86-64.
    ///
    /// # Errors
    /// As inkwell's builder, if it has no position.
    pub fn count_direct_call(&mut self, site: CallSite, callee: Bead) -> Result<(), BuildError> {
        let counter = self.job().direct_call(site, callee);
        self.raise(CALL_SITES, counter)
    }

    /// Counts a call at a site whose callee is known at run time only: `callee` is its bits. Calls `symbol` with `context`, the site
    /// (32 bits) and the callee's bits; it calls [`Mutator::native_target`](beadwork::Mutator::native_target).
    ///
    /// An unknown symbol fails this function after the frontend returned.
    ///
    /// # Errors
    /// As inkwell's builder, if it has no position.
    pub fn count_target(
        &mut self,
        site: CallSite,
        callee: IntValue<'c>,
        symbol: &str,
        context: &[BasicValueEnum<'c>],
    ) -> Result<(), BuildError> {
        let site = self.embed(CALL_SITES, site.to_bits().into());
        let site = self.builder().build_int_truncate(site, self.context().i32_type(), "")?;
        self.call_runtime(symbol, context, &[site, callee], false)
    }

    /// The variable with the count of iterations, which is made and cleared where the function is entered.
    fn iterations(&mut self) -> Result<PointerValue<'c>, BuildError> {
        if let Some(place) = self.counting.iterations {
            return Ok(place);
        }
        let entry = self.function()?.get_first_basic_block();
        let first = entry.and_then(|entry| entry.get_first_instruction());
        let ty = self.context().i32_type();
        let at_entry = self.context().create_builder();
        match (entry, first) {
            (_, Some(first)) => at_entry.position_before(&first),
            (Some(entry), None) => at_entry.position_at_end(entry),
            (None, None) => {}
        }
        let place = at_entry.build_alloca(ty, "iterations")?;
        at_entry.build_store(place, ty.const_zero())?;
        self.counting.iterations = Some(place);
        Ok(place)
    }

    /// Goes on if the condition holds, nearly always, and calls the runtime first if it does not.
    fn report(
        &mut self,
        go_on: IntValue<'c>,
        symbol: &str,
        context: &[BasicValueEnum<'c>],
        args: impl FnOnce(&mut Self) -> Vec<IntValue<'c>>,
    ) -> Result<(), BuildError> {
        let (done, slow) = (self.append_block("counted")?, self.append_block("report")?);
        let branch = self.builder().build_conditional_branch(go_on, done, slow)?;
        self.set_branch_weights(branch, &[FAST_WEIGHT, 0])?;
        self.builder().position_at_end(slow);
        let args = args(self);
        self.call_runtime(symbol, context, &args, true)?;
        self.builder().build_unconditional_branch(done)?;
        self.builder().position_at_end(done);
        Ok(())
    }

    fn call_runtime(
        &mut self,
        symbol: &str,
        context: &[BasicValueEnum<'c>],
        args: &[IntValue<'c>],
        cold: bool,
    ) -> Result<(), BuildError> {
        let all: Vec<BasicValueEnum<'c>> =
            context.iter().copied().chain(args.iter().map(|&arg| arg.into())).collect();
        let types: Vec<_> = all.iter().map(|arg| arg.get_type().into()).collect();
        let all: Vec<_> = all.into_iter().map(Into::into).collect();
        let function = self.symbol(symbol, self.context().void_type().fn_type(&types, false));
        let call = self.builder().build_call(function, &all, "")?;
        if cold {
            self.attribute_call(call, "cold", 0);
        }
        Ok(())
    }

    /// Raises a 64-bit counter. Threads that do so at once can lose a count, as everywhere.
    fn raise(&mut self, embed: Embed, counter: usize) -> Result<(), BuildError> {
        let counter = self.embed_address(embed, counter as u64);
        self.add_shared(self.context().i64_type(), counter, 1).map(|_| ())
    }

    /// Adds to memory that other threads use too, by a load and a store; answers the sum.
    fn add_shared(
        &self,
        ty: IntType<'c>,
        place: PointerValue<'c>,
        n: i64,
    ) -> Result<IntValue<'c>, BuildError> {
        let bytes = ty.get_bit_width() / 8;
        let before = self.load_shared(ty, place, bytes)?.into_int_value();
        let sum = self.builder().build_int_add(before, ty.const_int(n.cast_unsigned(), true), "")?;
        let store = self.builder().build_store(place, sum)?;
        store.set_alignment(bytes)?;
        store.set_atomic_ordering(AtomicOrdering::Monotonic)?;
        Ok(sum)
    }
}
