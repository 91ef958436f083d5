//! Units of several functions: bodies of others in the module of one, where LLVM can see and inline them.

use crate::unit::{FunctionUnit, SYMBOL};
use beadwork::{Bead, CompileError, Core, Stale};
use beadwork_object::Entry;
use inkwell::module::Linkage;
use inkwell::types::FunctionType;
use inkwell::values::FunctionValue;

/// Bodies of other functions a function's code may contain. An inliner has a budget of its own; this bounds what a mistake costs.
const MOST_BODIES: usize = 32;

/// Whose bodies a module contains, by position in order of inclusion.
#[derive(Clone, Default)]
pub(crate) struct Bodies {
    beads: Vec<Bead>,
    /// Nothing is to be included, because it failed before.
    pub(crate) alone: bool,
}

impl Bodies {
    pub(crate) fn alone() -> Bodies {
        Bodies { beads: Vec::new(), alone: true }
    }

    pub(crate) fn len(&self) -> usize {
        self.beads.len()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (Bead, String)> {
        self.beads.iter().enumerate().map(|(position, &bead)| (bead, symbol(position)))
    }
}

fn symbol(position: usize) -> String {
    format!("beadwork.body.{position}")
}

impl<'c> FunctionUnit<'c, '_> {
    /// The function whose body is being built: that of the job, or one that is [included](FunctionUnit::include) in its code.
    pub fn bead(&self) -> Bead {
        self.body
    }

    /// The VM's handle for [`bead`](FunctionUnit::bead). To follow a core that is a pointer, use
    /// [`Job::with_core_of`](beadwork::Job::with_core_of).
    ///
    /// # Errors
    /// [`Stale`] if that function was removed meanwhile.
    pub fn core(&mut self) -> Result<Core, Stale> {
        let bead = self.body;
        self.job().core_of(bead)
    }

    /// Includes the body of another function: from here on [`call_bead`](FunctionUnit::call_bead) calls it directly, and LLVM may inline
    /// it. If it is called, the frontend is called once more, with [`bead`](FunctionUnit::bead) answering it, and builds it like any
    /// function, into the same module. [`job`](FunctionUnit::job) is still the one whose code it becomes part of: its version goes into
    /// guards, and it [assumes](beadwork::Job::assume). The included functions call each other directly, too. A function may include
    /// itself; then it calls itself directly.
    ///
    /// Blocks and call sites are counted in the job's function only: [`count_blocks`](FunctionUnit::count_blocks) and
    /// [`call_sites`](FunctionUnit::call_sites) give a body none, and the job's own records are not a body's to ask for. Guards of all
    /// bodies go by the job's version, so their numbers have to differ.
    ///
    /// The code goes when the other function is redefined, removed or held down, see [`Job::include`](beadwork::Job::include).
    ///
    /// Answers whether calls are direct: `false`, and nothing changes, if the other is not live or may not be compiled at this tier, if a redefinition
    /// is going on, while an included body is built, beyond 32 bodies, and when a unit is built again without them: one that fails or panics is, because the function may
    /// be worth having alone. A loop entry has a module of its own, so it includes for itself.
    ///
    /// ```
    /// use beadwork::{Bead, Engine, Tier, TierId};
    /// use beadwork_llvm::{FunctionUnit, LlvmBackend};
    /// use std::sync::{Arc, OnceLock};
    ///
    /// // Function 0 calls function 1 and adds 1; function 1 triples.
    /// let triple = Arc::new(OnceLock::<Bead>::new());
    /// let known = triple.clone();
    /// let backend = LlvmBackend::builder().build(move |unit: &mut FunctionUnit<'_, '_>| {
    ///     let word = unit.context().i64_type();
    ///     let signature = word.fn_type(&[word.into()], false);
    ///     let x = unit.begin(signature)[0].into_int_value();
    ///     let result = if unit.core()?.get() == 0 {
    ///         let triple = known.get().copied().unwrap_or(unit.bead());
    ///         unit.include(triple);
    ///         let call = unit.call_bead(triple, signature, &[x.into()])?;
    ///         let tripled = call.try_as_basic_value().unwrap_basic().into_int_value();
    ///         unit.builder().build_int_add(tripled, word.const_int(1, false), "")?
    ///     } else {
    ///         unit.builder().build_int_mul(x, word.const_int(3, false), "")?
    ///     };
    ///     unit.builder().build_return(Some(&result))?;
    ///     Ok(())
    /// })?;
    /// let engine = Engine::builder().tier(Tier::new(backend)).inline().build()?;
    /// let caller = engine.register(0.into())?;
    /// let callee = *triple.get_or_init(|| engine.register(1.into()).expect("room for two"));
    /// engine.promote(caller, TierId::BASELINE)?;
    /// engine.run_pending(1);
    ///
    /// // The callee has no code of its own, and there is no fallback: the call is part of the caller.
    /// let m = engine.mutator();
    /// let code = m.dispatch(caller).expect("it was compiled just now");
    /// // SAFETY: the signature above, and `m` passes no safepoint during the call.
    /// let function: extern "C" fn(i64) -> i64 = unsafe { std::mem::transmute(code.as_ptr()) };
    /// assert_eq!(function(5), 16);
    ///
    /// engine.invalidate(callee)?; // it is redefined
    /// assert!(m.dispatch(caller).is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn include(&mut self, callee: Bead) -> bool {
        let itself = callee == self.job().bead() && (self.entry == Entry::Function || self.direct_recursion);
        if self.bodies.beads.contains(&callee) || (itself && self.direct_recursion) {
            return true;
        }
        let may = self.is_root && !self.bodies.alone && self.bodies.len() < MOST_BODIES;
        if may && itself {
            self.direct_recursion = true;
            return true;
        }
        let included = may && self.job().include(callee).unwrap_or(false);
        if included {
            self.bodies.beads.push(callee);
        }
        included
    }

    /// The function that a direct call of `callee` calls, if it is part of the module; of that signature, hidden parameter and all.
    pub(crate) fn part(&mut self, callee: Bead, native: FunctionType<'c>) -> Option<FunctionValue<'c>> {
        let own = self.job().bead();
        let name = if callee == own && self.direct_recursion {
            SYMBOL.to_owned()
        } else {
            symbol(self.bodies.beads.iter().position(|&bead| bead == callee)?)
        };
        Some(self.declared(&name, native))
    }

    /// A function of the module by its name, declared if it is not yet.
    pub(crate) fn declared(&mut self, name: &str, native: FunctionType<'c>) -> FunctionValue<'c> {
        match self.module().get_function(name) {
            Some(known) if known.get_type() == native => known,
            known => {
                if let Some(known) = known {
                    // Calling it so would mean anything.
                    self.defer(CompileError::failed(format_args!(
                        "a function of the unit is used with two signatures: {} and {native}",
                        known.get_type()
                    )));
                }
                self.module().add_function(name, native, Some(Linkage::Internal))
            }
        }
    }
}
