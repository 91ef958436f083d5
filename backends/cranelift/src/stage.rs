//! One function from job to relocatable machine code, on one thread, without a lock.

use crate::env::Environment;
use crate::frontend::Frontend;
use crate::loops::Entry;
use crate::reloc;
use crate::unit::{Built, Constant, FunctionUnit, Slots};
use beadwork::{CompileError, Job};
use beadwork_arena::{Relocation, Target};
use cranelift_codegen::isa::unwind::{CfaUnwindInfo, UnwindInfo};
use cranelift_codegen::{CodegenError, Context};
use cranelift_frontend::FunctionBuilderContext;
use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// A compiled function that has no place yet.
pub(crate) struct Staged {
    pub(crate) function: Part,
    /// Its loop entries, by site.
    pub(crate) loops: Vec<(u64, Part)>,
    /// What building and compiling took.
    pub(crate) took: Duration,
}

/// The code of one entry.
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) code: Vec<u8>,
    pub(crate) align: usize,
    pub(crate) relocations: Vec<Relocation>,
    pub(crate) unwind: Option<CfaUnwindInfo>,
}

impl Staged {
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Part> {
        std::iter::once(&self.function).chain(self.loops.iter().map(|(_, part)| part))
    }

    pub(crate) fn parts_mut(&mut self) -> impl Iterator<Item = &mut Part> {
        std::iter::once(&mut self.function).chain(self.loops.iter_mut().map(|(_, part)| part))
    }
}

impl Part {
    /// References of code to itself need its position in the batch.
    pub(crate) fn set_position(&mut self, position: u32) {
        for relocation in &mut self.relocations {
            if let Target::Local(index, _) = &mut relocation.target {
                *index = position;
            }
        }
    }
}

/// The buffers of a compile, reused from function to function.
pub(crate) struct Scratch {
    context: Context,
    builder: FunctionBuilderContext,
}

impl Scratch {
    fn new() -> Scratch {
        Scratch { context: Context::new(), builder: FunctionBuilderContext::new() }
    }
}

thread_local! {
    /// This thread's buffers, while no compile uses them. A pool behind a lock could be held by a worker that a
    /// forked child does not have.
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Lends this thread's buffers for a batch. If `work` unwinds they are dropped, since they may be half-filled.
pub(crate) fn with_scratch<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    // Buffers are a convenience: a thread whose thread-locals are gone makes new ones.
    let lent = SCRATCH.try_with(Cell::take).ok().flatten();
    let mut scratch = lent.unwrap_or_else(|| Box::new(Scratch::new()));
    let result = work(&mut scratch);
    let _ = SCRATCH.try_with(|place| place.set(Some(scratch)));
    result
}

/// Has the frontend build the function and the loop entries it asks for, and compiles them. Loop entries that fail are told
/// to `loop_failed` and left out.
pub(crate) fn stage(
    env: &Environment,
    frontend: &impl Frontend,
    scratch: &mut Scratch,
    job: &mut Job<'_>,
    mut loop_failed: impl FnMut(u64, CompileError),
) -> Result<Staged, CompileError> {
    let started = Instant::now();
    let name = match job.name() {
        Some(name) => name.to_string(),
        None => job.bead().to_string(),
    };
    let mut slots = Slots::new();
    let built = build(env, frontend, scratch, job, &mut slots, Entry::Function)?;
    let function = generate(env, &mut scratch.context, &built.data, name.clone())?;
    let mut loops = Vec::with_capacity(built.loops.len());
    for site in built.loops {
        // A panic must not take the entry for calls along, which is there already.
        let entry = catch_unwind(AssertUnwindSafe(|| {
            let built = build(env, frontend, scratch, job, &mut slots, Entry::Loop(site))?;
            generate(env, &mut scratch.context, &built.data, format!("{name}@{site}"))
        }));
        match entry {
            Ok(Ok(part)) => loops.push((site, part)),
            Ok(Err(error)) => loop_failed(site, error),
            Err(payload) => {
                *scratch = Scratch::new();
                loop_failed(site, CompileError::Panicked(message_of(payload)));
            }
        }
    }
    Ok(Staged { function, loops, took: started.elapsed() })
}

/// Fills the scratch context with one entry.
fn build(
    env: &Environment,
    frontend: &impl Frontend,
    scratch: &mut Scratch,
    job: &mut Job<'_>,
    slots: &mut Slots,
    entry: Entry,
) -> Result<Built, CompileError> {
    scratch.context.clear();
    let mut unit = FunctionUnit::new(env, job, &mut scratch.context.func, &mut scratch.builder, slots, entry);
    let built = frontend.build(&mut unit);
    unit.finish(built).inspect_err(|_| scratch.builder = FunctionBuilderContext::new())
}

/// A payload that is no text is forgotten: its drop is foreign code that could panic again.
fn message_of(payload: Box<dyn Any + Send>) -> String {
    match payload.downcast::<&str>() {
        Ok(text) => text.to_string(),
        Err(payload) => payload.downcast::<String>().map_or_else(
            |other| {
                std::mem::forget(other);
                "a payload that is no text".to_owned()
            },
            |text| *text,
        ),
    }
}

fn generate(
    env: &Environment,
    context: &mut Context,
    data: &[Constant],
    name: String,
) -> Result<Part, CompileError> {
    let isa = &*env.isa;
    let failed = |error: &dyn std::fmt::Display| CompileError::Failed(format!("function `{name}`: {error}"));
    let refused = |error: CodegenError| match error {
        CodegenError::Verifier(errors) => failed(&format_args!("invalid IR: {errors}")),
        other => failed(&other),
    };
    context.compile(isa, &mut Default::default()).map_err(|error| refused(error.inner))?;
    let Some(compiled) = context.compiled_code() else {
        return Err(failed(&"Cranelift gave no code"));
    };
    let frame = compiled.buffer.frame_layout().map_or(0, |frame| frame.frame_to_fp_offset as usize);
    if let Some(limit) = env.max_frame_bytes.filter(|&limit| frame > limit) {
        return Err(failed(&format_args!("its frame takes {frame} bytes of stack; the limit is {limit}")));
    }
    let mut code = compiled.code_buffer().to_vec();
    let mut align = compiled.buffer.alignment.max(isa.function_alignment().minimum) as usize;
    let constants = append(&mut code, &mut align, data).ok_or_else(|| failed(&"more than 4 GiB of data"))?;
    let relocations = compiled.buffer.relocs().iter();
    let relocations = relocations
        .map(|reloc| reloc::convert(env, &context.func, &constants, reloc))
        .collect::<Result<_, _>>();
    let relocations = relocations.map_err(|error| failed(&error))?;
    let unwind = if isa.flags().unwind_info() {
        match compiled.create_unwind_info(isa).map_err(refused)? {
            Some(UnwindInfo::SystemV(unwind)) => Some(unwind),
            _ => None,
        }
    } else {
        None
    };
    Ok(Part { name, code, align, relocations, unwind })
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
