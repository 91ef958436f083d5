//! The backend as the common properties take it, and functions in its own IR.

use beadwork::{Bead, CompileError};
use beadwork_checks::backends::{Ir, Seen, Tested, Value, With};
use beadwork_cranelift::types::I64;
use beadwork_cranelift::{
    AbiParam, BackendStats, CraneliftBackend, CraneliftBuilder, Entry, Frontend, FunctionUnit, InstBuilder,
    LiveValue, OptLevel, Signature, ir,
};

pub(crate) type Rig = beadwork_checks::backends::Rig<Clif>;

/// Builds a function.
pub(crate) type Body =
    Box<dyn Fn(&mut FunctionUnit<'_, '_>, &[Bead]) -> Result<(), CompileError> + Send + Sync>;

/// A function that declares its own signature, and ends itself.
pub(crate) fn whole<F>(build: F) -> Body
where
    F: Fn(&mut FunctionUnit<'_, '_>, &[Bead]) -> Result<(), CompileError> + Send + Sync + 'static,
{
    Box::new(build)
}

/// A function `i64 -> i64`: gets the parameter and all functions, answers the result.
pub(crate) fn body<F>(build: F) -> Body
where
    F: Fn(&mut FunctionUnit<'_, '_>, ir::Value, &[Bead]) -> Result<ir::Value, CompileError>
        + Send
        + Sync
        + 'static,
{
    whole(move |unit, all| {
        let x = unit.begin(&signature(unit))[0];
        let result = build(unit, x, all)?;
        unit.builder().ins().return_(&[result]);
        Ok(())
    })
}

/// A function that answers its parameter plus `n`.
pub(crate) fn plus(n: i64) -> Body {
    body(move |unit, x, _| Ok(unit.builder().ins().iadd_imm_s(x, n)))
}

/// `i64 -> i64`.
pub(crate) fn signature(unit: &FunctionUnit<'_, '_>) -> Signature {
    let mut signature = unit.new_signature();
    signature.params.push(AbiParam::new(I64));
    signature.returns.push(AbiParam::new(I64));
    signature
}

/// Calls a function of the program.
pub(crate) fn call(unit: &mut FunctionUnit<'_, '_>, callee: Bead, x: ir::Value) -> ir::Value {
    let call = unit.call_bead(callee, &signature(unit), &[x]);
    unit.builder().inst_results(call)[0]
}

pub(crate) fn options() -> CraneliftBuilder {
    CraneliftBackend::builder().flag("enable_verifier", "true")
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

    fn build(&self, unit: &mut FunctionUnit<'_, '_>) -> Result<(), CompileError> {
        self.bodies[unit.core()?.get()](unit, self.seen.beads())
    }
}

/// Cranelift, under test.
pub(crate) struct Clif;

impl Tested for Clif {
    type Backend = CraneliftBackend<Program>;
    type Options = CraneliftBuilder;
    type Body = Body;

    fn options() -> CraneliftBuilder {
        options()
    }

    fn levels() -> Vec<(String, CraneliftBuilder)> {
        [OptLevel::None, OptLevel::Speed]
            .map(|level| (level.to_string(), options().opt_level(level)))
            .to_vec()
    }

    fn with(options: CraneliftBuilder, choice: With) -> CraneliftBuilder {
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

    fn backend(options: CraneliftBuilder, bodies: Vec<Body>, seen: Seen) -> CraneliftBackend<Program> {
        options.build(Program { bodies, seen }).unwrap()
    }

    fn stats(backend: &CraneliftBackend<Program>) -> BackendStats {
        backend.stats()
    }
}

/// Code of words, in Cranelift's IR.
struct Code<'a, 'u, 'e> {
    unit: &'a mut FunctionUnit<'u, 'e>,
    values: Vec<ir::Value>,
}

impl Code<'_, '_, '_> {
    fn add_value(&mut self, value: ir::Value) -> Value {
        self.values.push(value);
        Value(self.values.len() - 1)
    }
}

impl Ir for Code<'_, '_, '_> {
    fn number(&mut self, n: i64) -> Value {
        let value = self.unit.builder().ins().iconst(I64, n);
        self.add_value(value)
    }

    fn add(&mut self, a: Value, b: Value) -> Value {
        let value = self.unit.builder().ins().iadd(self.values[a.0], self.values[b.0]);
        self.add_value(value)
    }

    fn mul(&mut self, a: Value, b: Value) -> Value {
        let value = self.unit.builder().ins().imul(self.values[a.0], self.values[b.0]);
        self.add_value(value)
    }

    fn xor(&mut self, a: Value, b: Value) -> Value {
        let value = self.unit.builder().ins().bxor(self.values[a.0], self.values[b.0]);
        self.add_value(value)
    }

    fn unless_zero(
        &mut self,
        x: Value,
        at_zero: i64,
        otherwise: &mut dyn FnMut(&mut dyn Ir) -> Value,
    ) -> Value {
        let b = self.unit.builder();
        let (more, done) = (b.create_block(), b.create_block());
        let result = b.append_block_param(done, I64);
        let zero = b.ins().iconst(I64, at_zero);
        b.ins().brif(self.values[x.0], more, &[], done, &[zero.into()]);
        b.switch_to_block(more);
        let other = otherwise(self);
        let b = self.unit.builder();
        b.ins().jump(done, &[self.values[other.0].into()]);
        b.switch_to_block(done);
        self.add_value(result)
    }

    fn call(&mut self, callee: Bead, x: Value) -> Value {
        let value = call(self.unit, callee, self.values[x.0]);
        self.add_value(value)
    }

    fn call_symbol(&mut self, name: &str, x: Value) -> Value {
        let signature = signature(self.unit);
        let function = self.unit.symbol(name, &signature);
        let call = self.unit.builder().ins().call(function, &[self.values[x.0]]);
        let value = self.unit.builder().inst_results(call)[0];
        self.add_value(value)
    }

    fn code_pointer(&mut self, callee: Bead) -> Value {
        let value = self.unit.code_pointer(callee);
        self.add_value(value)
    }

    fn data(&mut self, bytes: &[u8]) -> Value {
        let value = self.unit.data(bytes, 8);
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
        let live: Vec<_> = offsets.iter().map(|&offset| LiveValue::new(I64, offset)).collect();
        let loaded = self.unit.load_live(self.values[frame.0], &live);
        loaded.into_iter().map(|value| self.add_value(value)).collect()
    }
}
