//! The backend as the common properties take it, and functions in its own IR.

use beadwork::{Bead, CompileError};
use beadwork_checks::backends::{Ir, Seen, Tested, Value, With};
use beadwork_llvm::inkwell::IntPredicate;
use beadwork_llvm::inkwell::builder::{Builder, BuilderError};
use beadwork_llvm::inkwell::types::{FunctionType, IntType};
use beadwork_llvm::inkwell::values::IntValue;
use beadwork_llvm::{
    BackendStats, BuildError, Entry, Frontend, FunctionUnit, LiveValue, LlvmBackend, LlvmBuilder, Passes,
};

pub(crate) type Rig = beadwork_checks::backends::Rig<Llvm>;

/// Builds a function.
pub(crate) type Body =
    Box<dyn Fn(&mut FunctionUnit<'_, '_>, &[Bead]) -> Result<(), BuildError> + Send + Sync>;

/// A function that declares its own signature, and ends itself.
pub(crate) fn whole<F>(build: F) -> Body
where
    F: Fn(&mut FunctionUnit<'_, '_>, &[Bead]) -> Result<(), BuildError> + Send + Sync + 'static,
{
    Box::new(build)
}

/// A function `i64 -> i64`: gets the parameter and all functions, answers the result.
pub(crate) fn body<F>(build: F) -> Body
where
    F: for<'c> Fn(&mut FunctionUnit<'c, '_>, IntValue<'c>, &[Bead]) -> Result<IntValue<'c>, BuildError>
        + Send
        + Sync
        + 'static,
{
    whole(move |unit, all| {
        let signature = signature(unit);
        let x = unit.begin(signature)[0].into_int_value();
        let result = build(unit, x, all)?;
        unit.builder().build_return(Some(&result))?;
        Ok(())
    })
}

/// A function that answers its parameter plus `n`.
pub(crate) fn plus(n: i64) -> Body {
    body(move |unit, x, _| Ok(unit.builder().build_int_add(x, number(unit, n), "")?))
}

pub(crate) fn word<'c>(unit: &FunctionUnit<'c, '_>) -> IntType<'c> {
    unit.context().i64_type()
}

pub(crate) fn number<'c>(unit: &FunctionUnit<'c, '_>, n: i64) -> IntValue<'c> {
    word(unit).const_int(n.cast_unsigned(), true)
}

/// `i64 -> i64`.
pub(crate) fn signature<'c>(unit: &FunctionUnit<'c, '_>) -> FunctionType<'c> {
    word(unit).fn_type(&[word(unit).into()], false)
}

/// Calls a function of the program.
pub(crate) fn call<'c>(
    unit: &mut FunctionUnit<'c, '_>,
    callee: Bead,
    x: IntValue<'c>,
) -> Result<IntValue<'c>, BuildError> {
    let signature = signature(unit);
    let call = unit.call_bead(callee, signature, &[x.into()])?;
    Ok(call.try_as_basic_value().unwrap_basic().into_int_value())
}

/// Calls a runtime function `i64 -> i64`.
pub(crate) fn call_symbol<'c>(
    unit: &mut FunctionUnit<'c, '_>,
    name: &str,
    x: IntValue<'c>,
) -> Result<IntValue<'c>, BuildError> {
    let signature = signature(unit);
    let function = unit.symbol(name, signature);
    let call = unit.builder().build_call(function, &[x.into()], "")?;
    Ok(call.try_as_basic_value().unwrap_basic().into_int_value())
}

/// What most tests use: they are about the backend and not about what optimizations do.
pub(crate) fn options() -> LlvmBuilder {
    LlvmBackend::builder().passes(Passes::Fast)
}

/// Every kind of pipeline.
pub(crate) fn all_passes() -> [Passes; 5] {
    let text = "function(sroa,gvn),default<O2>".to_owned();
    [Passes::Fast, Passes::O1, Passes::O2, Passes::O3, Passes::Text(text)]
}

/// The frontend: a function's core is its number.
pub(crate) struct Program {
    bodies: Vec<Body>,
    seen: Seen,
}

impl Frontend for Program {
    fn function(&self, key: u64) -> Option<Bead> {
        self.seen.function(key)
    }

    fn loop_failed(&self, _: Bead, site: u64, error: &CompileError) {
        self.seen.loop_failed(site, error);
    }

    fn build(&self, unit: &mut FunctionUnit<'_, '_>) -> Result<(), BuildError> {
        self.bodies[unit.core()?.get()](unit, self.seen.beads())
    }
}

/// LLVM, under test.
pub(crate) struct Llvm;

impl Tested for Llvm {
    type Backend = LlvmBackend<Program>;
    type Options = LlvmBuilder;
    type Body = Body;

    fn options() -> LlvmBuilder {
        options()
    }

    fn levels() -> Vec<(String, LlvmBuilder)> {
        all_passes().map(|passes| (format!("{passes:?}"), LlvmBackend::builder().passes(passes))).to_vec()
    }

    fn with(options: LlvmBuilder, choice: With) -> LlvmBuilder {
        match choice {
            With::Symbol(name, address) => options.symbol(name, address),
            With::Arena(arena) => options.arena(arena),
            With::CalleeBits => options.pass_callee_bits(true),
        }
    }

    fn body(
        build: impl Fn(&mut dyn Ir, Value, &[Bead]) -> Result<Value, CompileError> + Send + Sync + 'static,
    ) -> Body {
        body(move |unit, x, all| {
            let mut code = Code { unit, values: vec![x] };
            let result = build(&mut code, Value(0), all)?;
            Ok(code.values[result.0])
        })
    }

    fn nest() -> Body {
        crate::loops::nest()
    }

    fn backend(options: LlvmBuilder, bodies: Vec<Body>, seen: Seen) -> LlvmBackend<Program> {
        options.build(Program { bodies, seen }).unwrap()
    }

    fn stats(backend: &LlvmBackend<Program>) -> BackendStats {
        backend.stats()
    }
}

/// Code of words, in LLVM's IR.
struct Code<'a, 'c, 'e> {
    unit: &'a mut FunctionUnit<'c, 'e>,
    values: Vec<IntValue<'c>>,
}

impl<'c> Code<'_, 'c, '_> {
    fn add_value(&mut self, value: IntValue<'c>) -> Value {
        self.values.push(value);
        Value(self.values.len() - 1)
    }

    fn of_two(
        &mut self,
        (a, b): (Value, Value),
        build: impl FnOnce(&Builder<'c>, IntValue<'c>, IntValue<'c>) -> Result<IntValue<'c>, BuilderError>,
    ) -> Value {
        let value = build(self.unit.builder(), self.values[a.0], self.values[b.0]).unwrap();
        self.add_value(value)
    }
}

impl Ir for Code<'_, '_, '_> {
    fn number(&mut self, n: i64) -> Value {
        self.add_value(number(self.unit, n))
    }

    fn add(&mut self, a: Value, b: Value) -> Value {
        self.of_two((a, b), |builder, a, b| builder.build_int_add(a, b, ""))
    }

    fn mul(&mut self, a: Value, b: Value) -> Value {
        self.of_two((a, b), |builder, a, b| builder.build_int_mul(a, b, ""))
    }

    fn xor(&mut self, a: Value, b: Value) -> Value {
        self.of_two((a, b), |builder, a, b| builder.build_xor(a, b, ""))
    }

    fn unless_zero(
        &mut self,
        x: Value,
        at_zero: i64,
        otherwise: &mut dyn FnMut(&mut dyn Ir) -> Value,
    ) -> Value {
        let (x, zero, at_zero) = (self.values[x.0], number(self.unit, 0), number(self.unit, at_zero));
        let (more, done) = (self.unit.append_block("more").unwrap(), self.unit.append_block("done").unwrap());
        let entry = self.unit.builder().get_insert_block().expect("begin opened a block");
        let is_zero = self.unit.builder().build_int_compare(IntPredicate::EQ, x, zero, "").unwrap();
        self.unit.builder().build_conditional_branch(is_zero, done, more).unwrap();
        self.unit.builder().position_at_end(more);
        let other = otherwise(self);
        let b = self.unit.builder();
        let last = b.get_insert_block().expect("it has a position");
        b.build_unconditional_branch(done).unwrap();
        b.position_at_end(done);
        let result = b.build_phi(word(self.unit), "").unwrap();
        result.add_incoming(&[(&at_zero, entry), (&self.values[other.0], last)]);
        self.add_value(result.as_basic_value().into_int_value())
    }

    fn call(&mut self, callee: Bead, x: Value) -> Value {
        let value = call(self.unit, callee, self.values[x.0]).unwrap();
        self.add_value(value)
    }

    fn call_symbol(&mut self, name: &str, x: Value) -> Value {
        let value = call_symbol(self.unit, name, self.values[x.0]).unwrap();
        self.add_value(value)
    }

    fn code_pointer(&mut self, callee: Bead) -> Value {
        let code = self.unit.code_pointer(callee).unwrap();
        let value = self.unit.builder().build_ptr_to_int(code, word(self.unit), "").unwrap();
        self.add_value(value)
    }

    fn data(&mut self, bytes: &[u8]) -> Value {
        let data = self.unit.data(bytes, 8);
        let value = self.unit.builder().build_ptr_to_int(data, word(self.unit), "").unwrap();
        self.add_value(value)
    }

    fn include(&mut self, body: Bead) -> bool {
        self.unit.include(body)
    }

    fn is_root(&mut self) -> bool {
        self.unit.bead() == self.unit.job().bead()
    }

    fn call_sites(&mut self, count: u32) -> bool {
        self.unit.call_sites(count).is_some()
    }

    fn entry(&self) -> Entry {
        self.unit.entry()
    }

    fn add_loop_entry(&mut self, site: u64) {
        self.unit.add_loop_entry(site);
    }

    fn load_live(&mut self, frame: Value, offsets: &[i32]) -> Vec<Value> {
        let live: Vec<_> = offsets.iter().map(|&offset| LiveValue::new(word(self.unit), offset)).collect();
        let pointer = self.unit.context().ptr_type(Default::default());
        let frame = self.unit.builder().build_int_to_ptr(self.values[frame.0], pointer, "").unwrap();
        let loaded = self.unit.load_live(frame, &live).unwrap();
        loaded.into_iter().map(|value| self.add_value(value.into_int_value())).collect()
    }
}
