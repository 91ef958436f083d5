//! A backend with faults.

use crate::pieces::{self, Pieces, SITES};
use crate::stage::{Stage, Thing, below, once_in};
use crate::tally::Fault;
use beadwork::{Backend, Bead, CompileError, CompiledCode, Core, Job};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// What the frontend notes for a compile.
pub(crate) struct Note {
    bead: Bead,
    _thing: Thing,
}

/// Takes a snapshot, or fails to.
pub(crate) fn snapshot(stage: &Stage, bead: Bead, _core: Core) -> Option<Note> {
    if stage.fails(500) {
        stage.tally.panic(Fault::SnapshotPanic);
    }
    let panics = stage.fails(500).then_some(Fault::SnapshotPanic);
    (!once_in(10)).then(|| Note { bead, _thing: Thing::new(stage, panics) })
}

pub(crate) struct Faulty(pub(crate) Arc<Stage>);

impl Backend for Faulty {
    fn compile(&self, jobs: &mut [Job<'_>]) {
        let stage = &self.0;
        for job in jobs {
            if stage.fails(200) {
                stage.tally.inject(Fault::Unfinished);
                continue;
            }
            let result = compile(stage, job);
            job.finish(result);
            stage.tally.compiled.fetch_add(1, Relaxed);
            if stage.fails(200) {
                stage.tally.inject(Fault::FinishedTwice);
                job.finish(Err(CompileError::failed("again")));
            }
            if stage.fails(500) {
                stage.tally.panic(Fault::BackendPanic);
            }
        }
    }

    fn name(&self) -> &str {
        "faulty"
    }
}

/// Compiles a function, or fails to in one of many ways.
pub(crate) fn compile(stage: &Stage, job: &mut Job<'_>) -> Result<CompiledCode, CompileError> {
    if stage.fails(50) {
        stage.tally.inject(Fault::Delay);
        std::thread::sleep(Duration::from_micros(below(3_000) as u64));
    }
    if stage.fails(60) {
        stage.tally.panic(Fault::BackendPanic);
    }
    if stage.fails(30) {
        stage.tally.inject(Fault::BackendError);
        return Err(CompileError::failed("not this time"));
    }
    if stage.fails(150) {
        stage.tally.inject(Fault::NullEntry);
        return Ok(CompiledCode::new(std::ptr::null()));
    }
    if stage.fails(150) {
        stage.tally.inject(Fault::WideEntry);
        return Ok(CompiledCode::new(std::ptr::without_provenance(1 << 50)));
    }
    make(stage, job)
}

fn make(stage: &Stage, job: &mut Job<'_>) -> Result<CompiledCode, CompileError> {
    let bead = job.bead();
    stage.heap.look(job, &stage.tally);
    if let Some(note) = job.snapshot::<Note>() {
        stage.tally.expect(note.bead == bead, || format!("{bead} got the snapshot of {}", note.bead));
    }
    if !job.is_current() && once_in(2) {
        return Err(CompileError::failed("overtaken"));
    }
    let premise = if stage.in_child.load(Relaxed) || once_in(2) { None } else { stage.premises.any() };
    // Asked for ahead, or named with the result.
    let relies = match premise {
        Some((assumption, _)) if once_in(2) => job.assume(assumption),
        Some(_) => true,
        None => false,
    };
    let number = premise.filter(|_| relies).map_or(0, |(_, number)| number);
    if once_in(4)
        && let Some((_, callee)) = stage.any()
    {
        // Embedded in what is made below.
        let _ = job.slot(callee);
    }
    if once_in(8) {
        let _ = (job.block_counters(1 + below(4) as u32), job.call_sites(1 + below(2) as u32));
    }
    let what = (bead, job.version(), number);
    let (entry, code) = pieces::code(&stage.pieces, &stage.tally, what, stage.fails(2_000))
        .ok_or_else(|| CompileError::failed("no pieces are left"))?;
    let sites = job.osr_sites().into_iter().filter(|site| (1..SITES).contains(site));
    let code = sites.fold(code, |code, site| code.osr(site, Pieces::loop_entry(entry, site)));
    let code = match premise.filter(|_| relies) {
        Some((assumption, _)) => code.assumes(assumption),
        None => code,
    };
    Ok(if once_in(4) { code.payload(payload(stage)) } else { code })
}

fn payload(stage: &Stage) -> Thing {
    Thing::new(stage, stage.fails(1_000).then_some(Fault::PayloadPanic))
}

/// Code the VM makes itself, for [`install`](beadwork::Engine::install).
pub(crate) fn own_code(stage: &Stage, bead: Bead) -> Option<(usize, CompiledCode)> {
    let premise = if once_in(4) { stage.premises.any() } else { None };
    let what = (bead, 0, premise.map_or(0, |(_, number)| number));
    let (number, mut code) = pieces::code(&stage.pieces, &stage.tally, what, stage.fails(2_000))?;
    if let Some((assumption, _)) = premise {
        code = code.assumes(assumption);
    }
    if once_in(4) {
        let site = 1 + below(SITES as usize - 1) as u64;
        code = code.osr(site, Pieces::loop_entry(number, site));
    }
    if once_in(8)
        && let Some((_, callee)) = stage.any()
    {
        code = code.embeds(callee);
    }
    Some((number, if once_in(4) { code.payload(payload(stage)) } else { code }))
}
