//! Loop entries: ways into a function in the middle of a run, for on-stack replacement.

use crate::error::BuildError;
use crate::unit::FunctionUnit;
use beadwork_object::Entry;
use inkwell::types::BasicTypeEnum;
use inkwell::values::{BasicValue, BasicValueEnum, PointerValue};

/// A value that is alive at a place of the code, and where the interpreter keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LiveValue<'c> {
    /// Its type; it takes the bytes of that type in the frame, in the machine's byte order.
    pub ty: BasicTypeEnum<'c>,
    /// Where it lies, in bytes from the frame's address. Need not be aligned.
    pub offset: i32,
}

impl<'c> LiveValue<'c> {
    /// A value of type `ty` at `offset` bytes from the frame's address.
    pub fn new(ty: impl Into<BasicTypeEnum<'c>>, offset: i32) -> LiveValue<'c> {
        LiveValue { ty: ty.into(), offset }
    }
}

impl<'c> FunctionUnit<'c, '_> {
    /// Which entry is being built.
    ///
    /// [`Entry::Loop`] comes only after [`add_loop_entry`](FunctionUnit::add_loop_entry) asked for it, so a frontend that
    /// never does need not look. One that does and never looks would build the function again, for a frame in place of arguments:
    /// such an entry fails. The body of an [included](FunctionUnit::include) function is always [`Entry::Function`].
    pub fn entry(&self) -> Entry {
        self.looked.set(true);
        self.entry
    }

    /// Asks for an entry at the header of loop `site`, to be built after this one: the frontend is called again with
    /// [`entry`](FunctionUnit::entry) answering [`Entry::Loop`], in a module of its own.
    ///
    /// The sites the engine wants are [`Job::osr_sites`](beadwork::Job::osr_sites). Each loop entry is compiled as
    /// a function of its own (what it shares with others would cost all of them optimizations), so it takes about
    /// as long and as much memory as the function. All entries of a compile are installed together and freed together.
    ///
    /// A loop entry that cannot be built, compiled or placed is left out, and told to
    /// [`Frontend::loop_failed`](crate::Frontend::loop_failed) alone, which a closure does not hear; the others go on. Asking again for the same site, or
    /// while a loop entry is built, changes nothing.
    pub fn add_loop_entry(&mut self, site: u64) {
        if self.is_root && self.entry == Entry::Function && !self.loops.contains(&site) {
            self.loops.push(site);
        }
    }

    /// Loads values from the interpreter's frame, in order: what a loop entry begins with.
    ///
    /// # Errors
    /// As inkwell's builder, if it has no position.
    pub fn load_live(
        &self,
        frame: PointerValue<'c>,
        live: &[LiveValue<'c>],
    ) -> Result<Vec<BasicValueEnum<'c>>, BuildError> {
        let load = |live: &LiveValue<'c>| {
            let value = self.builder().build_load(live.ty, self.place(frame, live.offset)?, "")?;
            // The interpreter vouches for the frame's memory, but promises no alignment.
            if let Some(load) = value.as_instruction_value() {
                load.set_alignment(1)?;
            }
            Ok(value)
        };
        live.iter().map(load).collect()
    }

    /// Stores values to the interpreter's frame: what code does before it hands back to the
    /// interpreter, when a guard fails. Each value has the type of its place; surplus values or places are left alone.
    ///
    /// # Errors
    /// As inkwell's builder, if it has no position.
    pub fn store_live(
        &self,
        frame: PointerValue<'c>,
        live: &[LiveValue<'c>],
        values: &[BasicValueEnum<'c>],
    ) -> Result<(), BuildError> {
        for (live, &value) in live.iter().zip(values) {
            self.builder().build_store(self.place(frame, live.offset)?, value)?.set_alignment(1)?;
        }
        Ok(())
    }

    fn place(&self, frame: PointerValue<'c>, offset: i32) -> Result<PointerValue<'c>, BuildError> {
        let offset = self.context().i64_type().const_int(i64::from(offset).cast_unsigned(), true);
        self.offset(frame, offset)
    }
}
