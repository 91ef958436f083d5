//! The hooks: what the interpreter asks an engine, and what it tells it.
#![allow(unsafe_code, reason = "vouches for the code it hands to the interpreter")]

use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;

use beadwork::{BailoutInfo, Bead, Mutator};

use crate::calls::{Calls, Edge, Enter};
use crate::hir::FuncIndex;
use crate::native::Entry;
use crate::redefine::Definitions;
use crate::speculation::FailedGuards;
use crate::tiering::Tiered;

/// The hooks of a VM that asks an engine at every call.
#[derive(Debug)]
pub struct Dispatching {
    mutator: Mutator,
    beads: Arc<[Bead]>,
    failed_guards: Arc<FailedGuards>,
    definitions: Arc<Definitions>,
    dispatched: u64,
    first_native: Option<Instant>,
    loops_entered: u64,
    first_loop: Option<Instant>,
}

impl Dispatching {
    pub(crate) fn new(
        tiered: &Tiered,
        failed_guards: Arc<FailedGuards>,
        definitions: Arc<Definitions>,
    ) -> Self {
        Dispatching {
            mutator: tiered.engine().mutator(),
            beads: tiered.beads().into(),
            failed_guards,
            definitions,
            dispatched: 0,
            first_native: None,
            loops_entered: 0,
            first_loop: None,
        }
    }

    /// Calls that asked the engine.
    #[must_use]
    pub fn dispatched(&self) -> u64 {
        self.dispatched
    }

    /// When a call was first answered with native code.
    #[must_use]
    pub fn first_native(&self) -> Option<Instant> {
        self.first_native
    }

    /// How often a running loop went on in native code.
    #[must_use]
    pub fn loops_entered(&self) -> u64 {
        self.loops_entered
    }

    /// When a running loop first went on in native code.
    #[must_use]
    pub fn first_loop(&self) -> Option<Instant> {
        self.first_loop
    }

    #[cold]
    fn note_first_native(&mut self) {
        self.first_native = Some(Instant::now());
    }
}

impl Calls for Dispatching {
    #[inline]
    fn enter(&mut self, callee: FuncIndex) -> Enter {
        self.dispatched += 1;
        let Some(code) = self.mutator.dispatch(self.beads[callee.index()]) else { return Enter::Interpret };
        let (code, bits) = (code.as_ptr(), self.beads[callee.index()].to_bits());
        if self.first_native.is_none() {
            self.note_first_native();
        }
        match NonNull::new(code.cast_mut().cast()) {
            // SAFETY: the code was made by `BytecodeFrontend` from this function, with no frame larger than
            // `MAX_FRAME_BYTES` (`cranelift` sees to that). It stays until the mutator's next safepoint, which is passed
            // only when no native frame is left. Native code passes the bits of the same beads that `resolve` knows.
            // The stack is the duty of who runs the VM (`on_vm_stack`).
            Some(code) => Enter::Native(unsafe { Entry::new(code, bits) }),
            None => Enter::Interpret,
        }
    }

    #[inline]
    fn back_edge(&mut self, function: FuncIndex, site: u16) -> Edge {
        let bead = self.beads[function.index()];
        // The function may have another body than this frame runs, now or until a moment ago. Its code has no entry of this name then.
        let site = function.site(site.into());
        let Some(code) = self.mutator.back_edge(bead, site) else { return Edge::Continue };
        match NonNull::new(code.as_ptr().cast_mut().cast()) {
            Some(code) => {
                self.loops_entered += 1;
                self.first_loop.get_or_insert_with(Instant::now);
                // SAFETY: a loop entry made by `BytecodeFrontend` for this loop; all else as in `enter`.
                Edge::Native(unsafe { Entry::new(code, bead.to_bits()) })
            }
            None => Edge::Continue,
        }
    }

    #[inline]
    fn safepoint(&mut self, native_frames: u32) {
        if native_frames == 0 {
            self.mutator.safepoint();
        }
    }

    fn bailout(&mut self, function: FuncIndex, pc: u16, version: u64) {
        // First, so that the compile which the engine may ask for knows.
        self.failed_guards.note(function, pc);
        // `BytecodeFrontend` put both into one word.
        let (compiled_as, version) = ((version >> 32) as usize, version as u32);
        let Some(&bead) = self.beads.get(compiled_as) else { return };
        // The code may have bodies of several functions in it, whose guards must not look alike.
        let guard = u32::from(function.0) << 16 | u32::from(pc);
        let info = BailoutInfo::new(version).guard(guard).pc(pc.into());
        // Whatever is decided, this call goes on in the interpreter; a function that was removed needs nothing.
        let _ = self.mutator.engine().bailout(bead, info);
    }

    fn native_call(&mut self, callee_bits: u64) {
        if let Some(bead) = Bead::from_bits(callee_bits) {
            self.mutator.native_call(bead);
        }
    }

    fn native_iterations(&mut self, callee_bits: u64, site: u64, iterations: u32) {
        if let Some(bead) = Bead::from_bits(callee_bits) {
            self.mutator.native_iterations(bead, site, iterations);
        }
    }

    #[inline]
    fn definition(&self, callee: FuncIndex) -> FuncIndex {
        self.definitions.body(callee)
    }

    fn resolve(&self, callee_bits: u64) -> Option<FuncIndex> {
        let core = self.mutator.engine().core(Bead::from_bits(callee_bits)?).ok()?;
        u16::try_from(core.get()).ok().map(FuncIndex)
    }
}
