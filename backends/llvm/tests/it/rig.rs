//! An engine, a backend, and a program given as a list of function bodies.

use beadwork::{Bead, BeadInfo, CompileError, Core, Engine, EngineBuilder, Event, Manual, Tier, TierId};
use beadwork_llvm::inkwell::types::{FunctionType, IntType};
use beadwork_llvm::inkwell::values::IntValue;
use beadwork_llvm::{BuildError, Frontend, FunctionUnit, LlvmBackend, LlvmBuilder, Passes};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// Far more than any of these tests takes; only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Builds a function after its signature was declared: gets the parameter and all functions, answers the result.
pub(crate) trait Build: Send + Sync + 'static {
    fn build<'c>(
        &self,
        unit: &mut FunctionUnit<'c, '_>,
        x: IntValue<'c>,
        all: &[Bead],
    ) -> Result<IntValue<'c>, BuildError>;
}

impl<F> Build for F
where
    F: for<'c> Fn(&mut FunctionUnit<'c, '_>, IntValue<'c>, &[Bead]) -> Result<IntValue<'c>, BuildError>
        + Send
        + Sync
        + 'static,
{
    fn build<'c>(
        &self,
        unit: &mut FunctionUnit<'c, '_>,
        x: IntValue<'c>,
        all: &[Bead],
    ) -> Result<IntValue<'c>, BuildError> {
        self(unit, x, all)
    }
}

pub(crate) type Body = Box<dyn Build>;

pub(crate) fn body<F>(build: F) -> Body
where
    F: for<'c> Fn(&mut FunctionUnit<'c, '_>, IntValue<'c>, &[Bead]) -> Result<IntValue<'c>, BuildError>
        + Send
        + Sync
        + 'static,
{
    Box::new(build)
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

/// The frontend: a function's core is its number.
pub(crate) struct Program {
    bodies: Vec<Body>,
    beads: Arc<OnceLock<Vec<Bead>>>,
}

/// The key of the first function.
const KEYS: u64 = 0x1000;

impl Frontend for Program {
    fn function(&self, key: u64) -> Option<Bead> {
        let number = usize::try_from(key.checked_sub(KEYS)?).ok()?;
        self.beads.get()?.get(number).copied()
    }

    fn build(&self, unit: &mut FunctionUnit<'_, '_>) -> Result<(), BuildError> {
        let number = unit.core()?.get();
        let signature = signature(unit);
        let x = unit.begin(signature)[0].into_int_value();
        let beads = self.beads.get().map_or(&[][..], |beads| beads);
        let result = self.bodies[number].build(unit, x, beads)?;
        unit.builder().build_return(Some(&result))?;
        Ok(())
    }
}

pub(crate) struct Rig {
    pub(crate) engine: Engine,
    pub(crate) backend: Arc<LlvmBackend<Program>>,
    pub(crate) beads: Vec<Bead>,
    failures: Arc<Mutex<Vec<(Bead, CompileError)>>>,
    installs: Arc<Mutex<Vec<(Bead, usize, Duration)>>>,
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

impl Rig {
    pub(crate) fn new(options: LlvmBuilder, bodies: Vec<Body>) -> Rig {
        Rig::with(Engine::builder().inline(), options, bodies)
    }

    pub(crate) fn with(engine: EngineBuilder, options: LlvmBuilder, bodies: Vec<Body>) -> Rig {
        Rig::beside(0, engine, options, bodies)
    }

    /// With other functions registered before, so that handles and addresses are others.
    pub(crate) fn beside(
        strangers: usize,
        engine: EngineBuilder,
        options: LlvmBuilder,
        bodies: Vec<Body>,
    ) -> Rig {
        let (count, beads) = (bodies.len(), Arc::new(OnceLock::new()));
        let backend = Arc::new(options.build(Program { bodies, beads: beads.clone() }).unwrap());
        let failures = Arc::new(Mutex::new(Vec::new()));
        let installs = Arc::new(Mutex::new(Vec::new()));
        let (failed, installed) = (failures.clone(), installs.clone());
        let engine = engine
            .capacity(1 << 12)
            .tier(Tier::new(backend.clone()).policy(Manual))
            .on_event(move |event| match event {
                Event::Failed { bead, error, .. } => failed.lock().unwrap().push((*bead, error.clone())),
                Event::Installed { bead, bytes, compile_time, .. } => {
                    installed.lock().unwrap().push((*bead, *bytes, *compile_time));
                }
                _ => (),
            })
            .build()
            .unwrap();
        let register = |number| {
            let name = format!("function_{number}");
            let info = BeadInfo::named(&name).key(number as u64 + KEYS);
            engine.register_with(Core::new(number), &info).unwrap()
        };
        for _ in 0..strangers {
            engine.register(Core::new(usize::MAX)).unwrap();
        }
        let all: Vec<_> = (0..count).map(register).collect();
        beads.set(all.clone()).unwrap();
        Rig { engine, backend, beads: all, failures, installs }
    }

    /// Compiles these functions, as one batch if they are few.
    pub(crate) fn compile(&self, numbers: impl IntoIterator<Item = usize>) {
        for number in numbers {
            self.engine.promote(self.beads[number], TierId::BASELINE).unwrap();
        }
        self.engine.run_pending(usize::MAX);
    }

    pub(crate) fn is_native(&self, number: usize) -> bool {
        self.engine.pin().code(self.beads[number]).is_some()
    }

    /// Calls the compiled function.
    pub(crate) fn call(&self, number: usize, x: i64) -> i64 {
        let pinned = self.engine.pin();
        let code = pinned.code(self.beads[number]);
        let code = code.unwrap_or_else(|| panic!("not compiled: {:?}", self.failure(number)));
        // SAFETY: every function of a program is `i64 -> i64`, and the mutator is pinned during the call.
        let f: extern "C-unwind" fn(i64) -> i64 = unsafe { std::mem::transmute(code.as_ptr()) };
        f(x)
    }

    /// The same for backends that pass callee bits.
    pub(crate) fn call_with_bits(&self, number: usize, x: i64) -> i64 {
        let pinned = self.engine.pin();
        let code = pinned.code(self.beads[number]).expect("the function is not compiled");
        // SAFETY: with callee bits every function is `(u64, i64) -> i64`; the mutator is pinned during the call.
        let f: extern "C" fn(u64, i64) -> i64 = unsafe { std::mem::transmute(code.as_ptr()) };
        f(self.beads[number].to_bits(), x)
    }

    /// Why a function failed last.
    pub(crate) fn failure(&self, number: usize) -> Option<String> {
        let failures = self.failures.lock().unwrap();
        let mut of_it = failures.iter().rev().filter(|(bead, _)| *bead == self.beads[number]);
        of_it.next().map(|(_, error)| error.to_string())
    }

    /// What the engine was told of each install: function, bytes, compile time.
    pub(crate) fn installs(&self) -> Vec<(Bead, usize, Duration)> {
        self.installs.lock().unwrap().clone()
    }
}
