//! Loop entries: ways into a function in the middle of a run, for on-stack replacement.

use crate::unit::FunctionUnit;
use beadwork_object::Entry;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type, Value};

/// A value that is alive at a place of the code, and where the interpreter keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LiveValue {
    /// Its type; it takes the bytes of that type in the frame, in the machine's byte order.
    pub ty: Type,
    /// Where it lies, in bytes from the frame's address. Need not be aligned.
    pub offset: i32,
}

impl LiveValue {
    /// A value of type `ty` at `offset` bytes from the frame's address.
    pub fn new(ty: Type, offset: i32) -> LiveValue {
        LiveValue { ty, offset }
    }
}

impl FunctionUnit<'_, '_> {
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
    /// [`entry`](FunctionUnit::entry) answering [`Entry::Loop`].
    ///
    /// The sites the engine wants are [`Job::osr_sites`](beadwork::Job::osr_sites). Each loop entry is compiled as
    /// a function of its own (what it shares with others would cost all of them optimizations), so it takes about
    /// as long and as much memory as the function. All entries of a compile are installed together and freed together.
    ///
    /// Let the way in and the function's own ways into the loop meet in a block before the header. Where they meet in the header
    /// itself, Cranelift takes all that is alive there for changed by the loop and moves nothing out of it.
    ///
    /// A loop entry that cannot be built, compiled or placed is left out, and told to
    /// [`Frontend::loop_failed`](crate::Frontend::loop_failed) alone, which a closure does not hear; the others go on. Asking again for the same site, or
    /// while a loop entry is built, changes nothing.
    pub fn add_loop_entry(&mut self, site: u64) {
        if self.is_root() && self.entry == Entry::Function && !self.loops.contains(&site) {
            self.loops.push(site);
        }
    }

    /// Loads values from the interpreter's frame at address `frame`, in order: what a loop entry begins with.
    pub fn load_live(&mut self, frame: Value, live: &[LiveValue]) -> Vec<Value> {
        // The interpreter vouches for the frame's memory, but promises no alignment.
        let flags = MemFlagsData::new().with_notrap();
        let load = |live: &LiveValue| self.builder().ins().load(live.ty, flags, frame, live.offset);
        live.iter().map(load).collect()
    }

    /// Stores values to the interpreter's frame at address `frame`: what code does before it hands back to the
    /// interpreter, when a guard fails. Each value has the type of its place; surplus values or places are left alone.
    pub fn store_live(&mut self, frame: Value, live: &[LiveValue], values: &[Value]) {
        let flags = MemFlagsData::new().with_notrap();
        for (live, &value) in live.iter().zip(values) {
            self.builder().ins().store(flags, value, frame, live.offset);
        }
    }
}
