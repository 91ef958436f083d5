//! One function from job to relocatable machine code, on one thread, without a lock.

use crate::env::Environment;
use crate::frontend::Frontend;
use crate::include::Bodies;
use crate::reloc;
use crate::unit::{Built, Common, Constant, FunctionUnit, Wanted};
use crate::unwind::describe;
use beadwork::{CompileError, Job};
use beadwork_object::{Compiler, Dumping, Entry, Hears, Part, Staged, function_name, panic_message};
use cranelift_codegen::isa::unwind::UnwindInfo;
use cranelift_codegen::{CodegenError, Context};
use cranelift_frontend::FunctionBuilderContext;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

/// The buffers of a compile, reused from function to function.
pub(crate) struct Scratch {
    context: Context,
    builder: FunctionBuilderContext,
}

thread_local! {
    /// This thread's buffers, while no compile uses them. A pool behind a lock could be held by a worker that a
    /// forked child does not have.
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

impl Scratch {
    fn new() -> Scratch {
        Scratch { context: Context::new(), builder: FunctionBuilderContext::new() }
    }

    /// This thread's buffers. They are a convenience: a thread whose thread-locals are gone makes new ones.
    pub(crate) fn take() -> Box<Scratch> {
        SCRATCH.try_with(Cell::take).ok().flatten().unwrap_or_else(|| Box::new(Scratch::new()))
    }

    pub(crate) fn put(self: Box<Scratch>) {
        let _ = SCRATCH.try_with(|place| place.set(Some(self)));
    }
}

/// Has the frontend build the function, the bodies it includes and the loop entries it asks for, and compiles them.
pub(crate) fn stage(
    env: &Environment,
    frontend: &impl Frontend,
    scratch: &mut Scratch,
    job: &mut Job<'_>,
    hears: &Hears<'_, impl Compiler>,
) -> Result<Staged, CompileError> {
    let mut common = Common::default();
    let first =
        catch_unwind(AssertUnwindSafe(|| stage_unit(env, frontend, scratch, job, &mut common, hears)));
    let staged = match first {
        Ok(Ok(staged)) => Ok(staged),
        // Alone it may be worth having: one of the others failed.
        failed if common.bodies.len() > 0 && job.is_current() => {
            if let Err(payload) = failed {
                panic_message(payload);
                *scratch = Scratch::new();
            }
            hears.unit_failed();
            common.bodies = Bodies::alone();
            stage_unit(env, frontend, scratch, job, &mut common, hears)
        }
        Ok(error) => error,
        Err(payload) => resume_unwind(payload),
    };
    staged.inspect(|_| hears.included(common.bodies.len()))
}

fn stage_unit(
    env: &Environment,
    frontend: &impl Frontend,
    scratch: &mut Scratch,
    job: &mut Job<'_>,
    common: &mut Common,
    hears: &Hears<'_, impl Compiler>,
) -> Result<Staged, CompileError> {
    let started = Instant::now();
    let (body, dump) = (job.bead(), hears.dumping());
    let name = function_name(job);
    let built = build(env, frontend, scratch, job, common, Wanted { body, entry: Entry::Function })?;
    let function = generate(env, &mut scratch.context, &built, name.clone(), dump)?;
    let mut loops = Vec::with_capacity(built.loops.len());
    for site in built.loops {
        // A panic must not take the entry for calls along, which is there already.
        let entry = catch_unwind(AssertUnwindSafe(|| {
            let built =
                build(env, frontend, scratch, job, common, Wanted { body, entry: Entry::Loop(site) })?;
            generate(env, &mut scratch.context, &built, format!("{name}@{site}"), dump)
        }));
        match entry {
            Ok(Ok(part)) => loops.push((site, part)),
            Ok(Err(error)) => hears.loop_failed(site, error),
            Err(payload) => {
                *scratch = Scratch::new();
                hears.loop_failed(site, CompileError::Panicked(panic_message(payload)));
            }
        }
    }
    let mut bodies = Vec::with_capacity(common.bodies.len());
    while let Some(body) = common.bodies.next() {
        let built = build(env, frontend, scratch, job, common, Wanted { body, entry: Entry::Function })?;
        bodies.push(generate(env, &mut scratch.context, &built, format!("{name}+{body}"), dump)?);
    }
    // Bodies of others go when those are redefined.
    let assumes = job.relies_on_assumptions() || !bodies.is_empty();
    Ok(Staged { function, bodies, loops, took: started.elapsed(), assumes })
}

/// Fills the scratch context with one entry.
fn build(
    env: &Environment,
    frontend: &impl Frontend,
    scratch: &mut Scratch,
    job: &mut Job<'_>,
    common: &mut Common,
    wanted: Wanted,
) -> Result<Built, CompileError> {
    scratch.context.clear();
    let Scratch { context, builder } = scratch;
    let mut unit = FunctionUnit::new(env, job, &mut context.func, builder, common, wanted);
    let built = frontend.build(&mut unit);
    unit.finish(built).inspect_err(|_| scratch.builder = FunctionBuilderContext::new())
}

fn generate(
    env: &Environment,
    context: &mut Context,
    built: &Built,
    name: String,
    dump: Option<&Dumping>,
) -> Result<Part, CompileError> {
    let isa = &*env.isa;
    let failed = |error: &dyn std::fmt::Display| CompileError::Failed(format!("function `{name}`: {error}"));
    let refused = |error: CodegenError| match error {
        CodegenError::Verifier(errors) => {
            failed(&format_args!("invalid IR: {}", errors.to_string().trim_end()))
        }
        other => failed(&other),
    };
    if let Some(dump) = dump {
        dump.write(&name, "clif", context.func.display().to_string());
        context.set_disasm(true); // until the context is cleared
    }
    context.compile(isa, &mut Default::default()).map_err(|error| refused(error.inner))?;
    let Some(compiled) = context.compiled_code() else {
        return Err(failed(&"Cranelift gave no code"));
    };
    if let Some(dump) = dump {
        dump.write(&name, "optimized.clif", context.func.display().to_string());
        dump.write(&name, "asm", compiled.vcode.as_deref().unwrap_or_default());
    }
    let frame = compiled.buffer.frame_layout().map_or(0, |frame| frame.frame_to_fp_offset as usize);
    if let Some(limit) = env.max_frame_bytes.filter(|&limit| frame > limit) {
        return Err(failed(&format_args!("its frame takes {frame} bytes of stack; the limit is {limit}")));
    }
    let mut code = compiled.code_buffer().to_vec();
    let mut align = compiled.buffer.alignment.max(isa.function_alignment().minimum) as usize;
    let constants =
        append(&mut code, &mut align, &built.data).ok_or_else(|| failed(&"more than 4 GiB of data"))?;
    let (mut relocations, mut imports) = (Vec::new(), Vec::new());
    for reloc in compiled.buffer.relocs() {
        let converted = reloc::convert(env, &context.func, built, &constants, reloc);
        let (relocation, import) = converted.map_err(|error| failed(&error))?;
        imports.extend(import.map(|name| (relocations.len(), name)));
        relocations.push(relocation);
    }
    let unwind = if isa.flags().unwind_info() {
        match compiled.create_unwind_info(isa).map_err(refused)? {
            Some(UnwindInfo::SystemV(unwind)) => describe(isa, &unwind).map_err(|error| failed(&error))?,
            _ => None,
        }
    } else {
        None
    };
    Ok(Part { name, code, align, entry: 0, relocations, imports, unwind })
}

/// Puts the constants behind the code and answers their offsets, `None` if they are out of reach.
fn append(code: &mut Vec<u8>, align: &mut usize, data: &[Constant]) -> Option<Vec<u32>> {
    let mut place = |constant: &Constant| {
        *align = constant.align.max(*align);
        let start = code.len().next_multiple_of(constant.align);
        code.resize(start, 0);
        code.extend_from_slice(&constant.bytes);
        u32::try_from(start).ok()
    };
    data.iter().map(&mut place).collect()
}
