//! One function from job to relocatable machine code, on one thread, without a lock.

use crate::embed::Embedded;
use crate::env::Environment;
use crate::frontend::Frontend;
use crate::include::Bodies;
use crate::libcalls;
use crate::passes;
use crate::session::Session;
use crate::symbols::of_module;
use crate::unit::{Built, FunctionUnit, SYMBOL, Slots};
use crate::worker::Worker;
use beadwork::{CompileError, Job};
use beadwork_object::{
    Compiler, Dumping, Entry, Hears, Layout, LinkError, Outside, Part, Staged, function_name, link,
    panic_message,
};
use inkwell::targets::FileType;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

/// Has the frontend build the function and the loop entries it asks for, and compiles them.
pub(crate) fn stage(
    env: &Environment,
    frontend: &impl Frontend,
    worker: &mut Worker,
    job: &mut Job<'_>,
    hears: &Hears<'_, impl Compiler>,
) -> Result<Staged, CompileError> {
    let started = Instant::now();
    let dump = hears.dumping();
    let name = function_name(job);
    let (mut slots, mut bodies) = (Slots::new(), 0);
    let mut compile = |worker: &mut Worker, entry, name| {
        worker.recycle(env);
        worker.session.compiled += 1;
        let mut wanted = Wanted { entry, name, bodies: Bodies::default(), dump };
        let first =
            catch_unwind(AssertUnwindSafe(|| compile(env, frontend, worker, job, &mut slots, &mut wanted)));
        let compiled = match first {
            Ok(Ok(compiled)) => Ok(compiled),
            // Alone it may be worth having: one of the others failed, or together they are too much.
            failed if wanted.bodies.len() > 0 && job.is_current() => {
                if let Err(payload) = failed {
                    panic_message(payload);
                    worker.session = Session::new(&env.contexts);
                }
                hears.unit_failed();
                wanted.bodies = Bodies::alone();
                compile(env, frontend, worker, job, &mut slots, &mut wanted)
            }
            Ok(error) => error,
            Err(payload) => resume_unwind(payload),
        };
        compiled.inspect(|_| {
            bodies += wanted.bodies.len();
            hears.included(wanted.bodies.len());
        })
    };
    let (function, wanted) = compile(worker, Entry::Function, name.clone())?;
    let mut loops = Vec::with_capacity(wanted.len());
    for site in wanted {
        let name = format!("{name}@{site}");
        // A panic must not take the entry for calls along, which is there already.
        let entry = catch_unwind(AssertUnwindSafe(|| compile(worker, Entry::Loop(site), name)));
        match entry {
            Ok(Ok((part, _))) => loops.push((site, part)),
            Ok(Err(error)) => hears.loop_failed(site, error),
            Err(payload) => hears.loop_failed(site, CompileError::Panicked(panic_message(payload))),
        }
    }
    // Bodies of others, which are part of the function's own code, go when those are redefined.
    let assumes = job.relies_on_assumptions() || bodies > 0;
    Ok(Staged { function, bodies: Vec::new(), loops, took: started.elapsed(), assumes })
}

/// An entry to be compiled.
struct Wanted<'d> {
    entry: Entry,
    name: String,
    /// In: whether others may be included. Out: which are, also if that failed.
    bodies: Bodies,
    dump: Option<&'d Dumping>,
}

/// Builds and compiles one entry; answers the loop entries it asked for, too. The module lives no longer than this.
fn compile(
    env: &Environment,
    frontend: &impl Frontend,
    worker: &Worker,
    job: &mut Job<'_>,
    slots: &mut Slots,
    wanted: &mut Wanted<'_>,
) -> Result<(Part, Vec<u64>), CompileError> {
    let name = &wanted.name;
    worker.session.take_remarks();
    worker.session.listen();
    let mut unit = FunctionUnit::new(env, job, worker, slots, wanted.entry, wanted.bodies.clone());
    // Known also if it panics, since it may do without them then.
    let built = catch_unwind(AssertUnwindSafe(|| frontend.build(&mut unit)));
    wanted.bodies.clone_from(&unit.bodies);
    built.unwrap_or_else(|payload| resume_unwind(payload))?;
    unit.check()?;
    while unit.next_body() {
        frontend.build(&mut unit)?;
        unit.check()?;
    }
    let Built { module, embeds, loops } = unit.finish();
    let failed =
        |reason: &dyn std::fmt::Display| CompileError::Failed(format!("function `{name}`: {reason}"));
    worker.session.listen();
    if let Some(dump) = wanted.dump {
        dump.write(name, "ll", module.print_to_string().to_bytes());
    }
    module.verify().map_err(|error| failed(&format_args!("invalid IR: {}", error.to_string_lossy())))?;
    let run = module.run_passes(env.passes.pipeline(), &worker.machine, passes::options());
    run.map_err(|error| failed(&error.to_string_lossy()))?;
    if let Some(dump) = wanted.dump {
        dump.write(name, "optimized.ll", module.print_to_string().to_bytes());
        // Generating code changes a module.
        if let Ok(assembly) = worker.machine.write_to_memory_buffer(&module.clone(), FileType::Assembly) {
            dump.write(name, "asm", assembly.as_slice().strip_suffix(b"\0").unwrap_or(assembly.as_slice()));
        }
    }
    let object = worker.machine.write_to_memory_buffer(&module, FileType::Object);
    let object = object.map_err(|error| failed(&error.to_string_lossy()))?;
    // What is merely remarked upon is none of ours, but for the size of the frame.
    let limit = env.max_frame_bytes;
    let remarks = worker.session.take_remarks().into_iter();
    let mut refused =
        remarks.filter(|it| it.is_error || (limit.is_some() && it.text.contains("stack frame size")));
    if let Some(remark) = refused.next() {
        return Err(failed(&remark.text));
    }
    let resolve = &mut |name: &str| outside(env, &embeds, name);
    let linked = link(object.as_slice(), Layout::Whole, resolve);
    let mut linked = linked.map_err(|error| match error {
        LinkError::Unknown(_) | LinkError::Writable(_) => {
            failed(&format_args!("{error} (LlvmBuilder::symbol)"))
        }
        error => failed(&error),
    })?;
    let part = linked.take(SYMBOL).ok_or_else(|| failed(&"LLVM's object has no entry"))?;
    Ok((Part { name: name.to_owned(), ..part }, loops))
}

/// What LLVM's object refers to.
fn outside(env: &Environment, embeds: &[Embedded], name: &str) -> Option<Outside> {
    match Embedded::find(embeds, name) {
        Some(Embedded { name, now }) => Some(Outside { address: *now, name: name.clone() }),
        None => {
            let name = of_module(&env.symbols, name);
            Some(Outside { address: known(env, name)?, name: name.to_owned() })
        }
    }
}

/// The address of a runtime symbol, the VM's or LLVM's.
pub(crate) fn known(env: &Environment, name: &str) -> Option<u64> {
    env.symbols.address_of(name).or_else(|| libcalls::address(name))
}
