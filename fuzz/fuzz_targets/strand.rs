//! Any bytes as source text of the example language: nothing panics, and native code, loop entries and copies of callees in
//! their callers' code included, does what the interpreter does.
#![no_main]

use beadwork::{Threshold, Tier};
use beadwork_cranelift::{CraneliftBackend, CraneliftError, OptLevel};
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, Mutex};
use strand::tiering::{Linking, Tiered, cranelift};
use strand::{Calls, Edge, Enter, FuncIndex, Limits, Program, Vm, on_vm_stack};

/// Calls and iterations a program may take. Those that take more are not run natively.
const FUEL: u32 = 2_000;

const LIMITS: Limits = Limits { frames: 100, array_bytes: 1 << 16 };

/// Interprets until the fuel is used up.
struct Fuel(u32);

impl Fuel {
    fn burn(&mut self) -> bool {
        self.0 = self.0.saturating_sub(1);
        self.0 > 0
    }
}

impl Calls for Fuel {
    fn enter(&mut self, _: FuncIndex) -> Enter {
        if self.burn() { Enter::Interpret } else { Enter::Stop }
    }

    fn back_edge(&mut self, _: FuncIndex, _: u16) -> Edge {
        if self.burn() { Edge::Continue } else { Edge::Stop }
    }
}

#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a run answered, or the message it ended with, and what it printed.
fn outcome<C: Calls>(program: &Program, calls: C) -> (String, Vec<u8>) {
    let output = Output::default();
    let mut vm = Vm::new(program, LIMITS, calls).expect("room for registers");
    vm.set_output(output.clone());
    let args = vec![5; program.main().signature.params.len()];
    let result = vm.run(&args).map_or_else(|error| error.to_string(), |value| value.to_string());
    drop(vm);
    let printed = std::mem::take(&mut *output.0.lock().unwrap());
    (result, printed)
}

/// What compiled code does. Everything is compiled when it is first called, and once more, better, soon after.
fn compiled(program: &Arc<Program>, linking: Linking) -> (String, Vec<u8>) {
    let tiered = Tiered::new(program, linking, |builder, frontend| {
        let tier = |level, calls, frontend| {
            let backend = cranelift(CraneliftBackend::builder()).opt_level(level).build(frontend)?;
            Ok::<_, CraneliftError>(Tier::new(backend).policy(Threshold::new(calls)))
        };
        let baseline = tier(OptLevel::None, 1, frontend.clone())?;
        let builder = builder.capacity(1 << 10).foreground();
        Ok(builder.tier(baseline).tier(tier(OptLevel::Speed, 4, frontend)?))
    });
    let tiered = tiered.expect("an engine");
    let outcome = on_vm_stack(|| outcome(program, tiered.hooks())).expect("a stack");
    let failed = tiered.engine().stats().failed;
    assert_eq!(failed, 0, "a program that was checked was not compiled");
    outcome
}

fuzz_target!(|source: &[u8]| {
    let source = String::from_utf8_lossy(source);
    let Ok(program) = Program::parse("fuzz.strand", &source) else { return };
    let _ = program.to_string();
    if program.functions().len() > 100 {
        return;
    }
    let (program, mut fuel) = (Arc::new(program), Fuel(FUEL));
    let interpreted = outcome(&program, &mut fuel);
    if fuel.0 == 0 {
        return;
    }
    for linking in [Linking::Slots, Linking::Inlined, Linking::Dispatch] {
        assert_eq!(compiled(&program, linking), interpreted, "{linking:?}");
    }
});
