//! Units of several functions: bodies of others beside the code of one, called directly.

use crate::name;
use crate::unit::FunctionUnit;
use beadwork::{Bead, CompileError, Core, Stale};
use cranelift_codegen::ir::{ExtFuncData, FuncRef, Signature};

/// Bodies of other functions a function's code may contain; bounds what a mistake costs.
const MOST_BODIES: usize = 32;

/// The number of the function itself; those of bodies follow.
const FUNCTION: u32 = 0;

/// What the code of a function consists of besides its loop entries.
#[derive(Default)]
pub(crate) struct Bodies {
    beads: Vec<Bead>,
    /// By number, once it was called or built.
    signatures: Vec<Option<Signature>>,
    built: usize,
    /// The function calls itself directly.
    direct_recursion: bool,
    /// Nothing is to be included, because it failed before.
    alone: bool,
}

impl Bodies {
    pub(crate) fn alone() -> Bodies {
        Bodies { alone: true, ..Bodies::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.beads.len()
    }

    /// The next body to be built.
    pub(crate) fn next(&mut self) -> Option<Bead> {
        let next = self.beads.get(self.built).copied();
        self.built += usize::from(next.is_some());
        next
    }

    /// The number of a part that can be called directly.
    fn number(&self, callee: Bead, own: Bead) -> Option<u32> {
        if callee == own {
            return self.direct_recursion.then_some(FUNCTION);
        }
        let position = self.beads.iter().position(|&bead| bead == callee)?;
        Some(FUNCTION + 1 + position as u32)
    }

    /// Notes how a part is called or built; answers whether that fits what was noted before.
    fn fits(&mut self, number: u32, signature: &Signature) -> bool {
        let number = number as usize;
        if self.signatures.len() <= number {
            self.signatures.resize(number + 1, None);
        }
        self.signatures[number].get_or_insert_with(|| signature.clone()) == signature
    }
}

impl FunctionUnit<'_, '_> {
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

    /// Includes the body of another function: from here on [`call_bead`](FunctionUnit::call_bead) calls it directly, in this function and
    /// its loop entries. The frontend is called once more, with [`bead`](FunctionUnit::bead) answering it, and builds it like any
    /// function; it is placed beside this one. [`job`](FunctionUnit::job) is still the one whose code it becomes part of: its version
    /// goes into guards, and it [assumes](beadwork::Job::assume). The included functions call each other directly, too. A function may
    /// include itself; then it calls itself directly. Cranelift inlines nothing by itself; what is saved is the load from the slot.
    ///
    /// Blocks and call sites are counted in the job's function only: [`count_blocks`](FunctionUnit::count_blocks) and
    /// [`call_sites`](FunctionUnit::call_sites) give a body none, and the job's own records are not a body's to ask for. Guards of all
    /// bodies go by the job's version, so their numbers have to differ.
    ///
    /// The code goes when the other function is redefined, removed or held down, see [`Job::include`](beadwork::Job::include).
    ///
    /// Answers whether calls are direct: `false`, and nothing changes, if the other is not live or may not be compiled at this tier, if a redefinition
    /// is going on, while an included body is built, beyond 32 bodies, and when a unit is built again without them: one that fails or panics is, because the function may
    /// be worth having alone.
    pub fn include(&mut self, callee: Bead) -> bool {
        let own = self.job().bead();
        if self.bodies.number(callee, own).is_some() {
            return true;
        }
        if !self.is_root() || self.bodies.alone || self.bodies.len() >= MOST_BODIES {
            return false;
        }
        if callee == own {
            self.bodies.direct_recursion = true;
            return true;
        }
        let included = self.job().include(callee).unwrap_or(false);
        if included {
            self.bodies.beads.push(callee);
        }
        included
    }

    /// Whether the job's function is being built, or one of its loop entries.
    pub(crate) fn is_root(&self) -> bool {
        self.body == self.bead_of_job()
    }

    /// What a direct call of `callee` calls, if it is part of the unit; with that signature, hidden parameter and all.
    pub(crate) fn part(&mut self, callee: Bead, native: &Signature) -> Option<FuncRef> {
        let own = self.job().bead();
        let number = self.bodies.number(callee, own)?;
        self.must_fit(number, native);
        let name = self.declare(name::BODIES, number);
        let signature = self.builder().import_signature(native.clone());
        // Placed together, so that it is in reach of a short call.
        let data = ExtFuncData { name, signature, colocated: true, patchable: false };
        Some(self.builder().import_function(data))
    }

    /// Notes the signature of the body that was built.
    pub(crate) fn built_body(&mut self) {
        let signature = self.builder().func.signature.clone();
        let own = self.job().bead();
        let number = if self.body == own { Some(FUNCTION) } else { self.bodies.number(self.body, own) };
        if let Some(number) = number {
            self.must_fit(number, &signature);
        }
    }

    fn must_fit(&mut self, number: u32, signature: &Signature) {
        if !self.bodies.fits(number, signature) {
            // Calling it so would mean anything.
            self.defer(CompileError::failed(format_args!(
                "a function of the unit is used with two signatures, one of them {signature}"
            )));
        }
    }
}
