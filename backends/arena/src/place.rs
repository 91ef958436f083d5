//! Placing a batch, step by step in the order [`icache`] explains.

use crate::error::ArenaError;
use crate::icache;
use crate::layout::{ExtentKey, Placed, allocate, roll_back};
use crate::region::{GRANULE, POISON};
use crate::relocate::{self, RelocationError, RelocationKind};
use crate::state::State;
use crate::unwind::{NewRecord, UnwindInfo};

/// One function to be placed.
#[derive(Clone, Copy, Debug)]
pub struct Function<'a> {
    /// Name for error messages and the perf map.
    pub name: &'a str,
    /// Machine code and the constants that follow it.
    pub code: &'a [u8],
    /// Alignment of the first byte: a power of two, at most 1 GiB. Up to 32 costs nothing.
    pub align: usize,
    /// Fields to be computed once addresses are known.
    pub relocations: &'a [Relocation],
    /// How to unwind through the function. Without it a panic that reaches its frames aborts the process.
    pub unwind: Option<&'a UnwindInfo>,
}

/// A field of a function's code that depends on an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// Offset of the field in the code, in bytes.
    pub offset: u32,
    /// How the field is computed.
    pub kind: RelocationKind,
    /// The address it refers to.
    pub target: Target,
    /// Added to the address, in bytes.
    pub addend: i64,
}

/// What a relocation refers to. Resolving names is the caller's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// An address that is known already.
    Address(u64),
    /// A function of the same batch by its index (its own included), and a byte offset inside it; the offset may be
    /// one past the end.
    Local(u32, u32),
}

/// Most bytes of one function, and the largest alignment.
const MAX_CODE: usize = 1 << 30;

/// What can be refused without touching the arena.
pub(crate) fn check(batch: &[Function<'_>]) -> Result<(), ArenaError> {
    for function in batch {
        let name = || function.name.to_owned();
        if function.code.is_empty() {
            return Err(ArenaError::EmptyCode { function: name() });
        }
        if function.code.len() > MAX_CODE {
            return Err(ArenaError::TooLarge { function: name(), bytes: function.code.len() });
        }
        if !function.align.is_power_of_two() || function.align > MAX_CODE {
            return Err(ArenaError::BadAlignment { function: name(), align: function.align });
        }
        for relocation in function.relocations {
            check_relocation(batch, function, relocation)?;
        }
    }
    Ok(())
}

fn check_relocation(
    batch: &[Function<'_>],
    function: &Function<'_>,
    relocation: &Relocation,
) -> Result<(), ArenaError> {
    let Relocation { offset, kind, target, .. } = *relocation;
    let name = || function.name.to_owned();
    if !kind.is_native() {
        return Err(ArenaError::ForeignRelocation { function: name(), offset, kind });
    }
    let (width, len) = (kind.width(), function.code.len());
    if offset as usize + width > len {
        let source = RelocationError::OutsideCode { kind, width, len };
        return Err(ArenaError::Relocation { function: name(), offset, source });
    }
    if let Target::Local(index, target_offset) = target
        && batch.get(index as usize).is_none_or(|target| target_offset as usize > target.code.len())
    {
        let batch = batch.len();
        return Err(ArenaError::LocalOutsideBatch { function: name(), offset, index, target_offset, batch });
    }
    Ok(())
}

/// Places a batch that was checked, given the sizes of its groups, which are freed as a whole. On an error everything is
/// as it was.
pub(crate) fn place(
    state: &mut State,
    batch: &[Function<'_>],
    groups: &[usize],
) -> Result<Vec<Placed>, ArenaError> {
    let (placed, extent) = allocate(state, batch, groups)?;
    match fill(state, batch, &placed, extent) {
        Ok(()) => {
            state.work_done();
            Ok(placed)
        }
        Err(error) => {
            roll_back(state, &placed);
            Err(error)
        }
    }
}

/// Steps 1 to 5 for functions that have their places.
fn fill(
    state: &mut State,
    batch: &[Function<'_>],
    placed: &[Placed],
    extent: Option<ExtentKey>,
) -> Result<(), ArenaError> {
    write(state, batch, placed, extent)?;
    synchronize(state, batch, placed);
    protect(state, extent)?;
    register(state, batch, placed);
    fence();
    Ok(())
}

/// Step 1: copies the code and applies its relocations, in the writable view.
fn write(
    state: &mut State,
    batch: &[Function<'_>],
    placed: &[Placed],
    extent: Option<ExtentKey>,
) -> Result<(), ArenaError> {
    step("write");
    if let Some((region, first)) = extent {
        state.with_region(region, |region, work| region.unprotect(first, work)).transpose()?;
    }
    for (function, place) in batch.iter().zip(placed) {
        let bytes = place.granules as usize * GRANULE as usize;
        let fill = |view: &mut [u8]| {
            let (code, padding) = view.split_at_mut(function.code.len());
            code.copy_from_slice(function.code);
            padding.fill(POISON);
            function.relocations.iter().try_for_each(|relocation| {
                relocate(function, relocation, placed, place.entry.addr() as u64, code).map_err(|source| {
                    ArenaError::Relocation {
                        function: function.name.to_owned(),
                        offset: relocation.offset,
                        source,
                    }
                })
            })
        };
        let written =
            state.with_region(place.region, |region, work| region.write(place.granule, bytes, work, fill));
        written.flatten().transpose()?;
    }
    Ok(())
}

fn relocate(
    function: &Function<'_>,
    relocation: &Relocation,
    placed: &[Placed],
    base: u64,
    code: &mut [u8],
) -> Result<(), RelocationError> {
    let address = |target: Target| match target {
        Target::Address(address) => address,
        // Checked before: the index is inside the batch.
        Target::Local(index, offset) => placed[index as usize].entry.addr() as u64 + u64::from(offset),
    };
    // A low part is computed from the instruction with the high part, which its target names.
    let source = if relocation.kind == RelocationKind::RiscvPcRelLo12I {
        let names = |high: &&Relocation| {
            high.kind == RelocationKind::RiscvPcRelHi20
                && base + u64::from(high.offset) == address(relocation.target)
        };
        function.relocations.iter().find(names).ok_or(RelocationError::Unpaired { kind: relocation.kind })?
    } else {
        relocation
    };
    let place = base + u64::from(source.offset);
    let field = &mut code[relocation.offset as usize..];
    relocate::apply(relocation.kind, place, address(source.target), source.addend, field)
}

/// Step 2: cleans the data cache and invalidates the instruction cache over each function.
fn synchronize(state: &mut State, batch: &[Function<'_>], placed: &[Placed]) {
    step("synchronize");
    for (function, place) in batch.iter().zip(placed) {
        state.with_region(place.region, |region, _| {
            let (written, executed) = region.views(place.granule, function.code.len());
            icache::synchronize(written, executed, function.code.len());
        });
    }
}

/// Step 3: private pages change from writable to executable, once.
fn protect(state: &mut State, extent: Option<ExtentKey>) -> Result<(), ArenaError> {
    step("protect");
    match extent {
        Some((region, first)) => {
            state.with_region(region, |region, work| region.protect(first, work)).transpose()?;
            Ok(())
        }
        None => Ok(()),
    }
}

/// Step 4: describes the batch to the unwinder, one call per region it lies in.
fn register(state: &mut State, batch: &[Function<'_>], placed: &[Placed]) {
    step("register");
    let mut records: Vec<(u32, NewRecord<'_>)> = batch
        .iter()
        .zip(placed)
        .filter_map(|(function, place)| {
            let record =
                NewRecord { granule: place.granule, len: function.code.len(), unwind: function.unwind? };
            Some((place.region, record))
        })
        .collect();
    records.sort_by_key(|&(region, _)| region);
    for group in records.chunk_by(|(a, _), (b, _)| a == b) {
        let records: Vec<_> = group.iter().map(|&(_, record)| record).collect();
        state.with_region(group[0].0, |region, work| {
            region.tables.add(&records);
            work.unwind_records += region.tables.take_written();
        });
    }
}

/// Step 5: after it every thread that learns of the entries executes the new code.
fn fence() {
    step("fence");
    icache::fence();
}

/// Lets a test see the order of the steps.
#[cfg(not(test))]
fn step(_: &'static str) {}

#[cfg(test)]
fn step(name: &'static str) {
    tests::STEPS.with_borrow_mut(|steps| steps.push(name));
    #[cfg(target_os = "linux")]
    tests::nothing_is_writable_and_executable(name);
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use crate::{Aliasing, Arena, Function};

    thread_local! {
        pub(super) static STEPS: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
    }

    /// Not in the middle of a placement either.
    #[cfg(target_os = "linux")]
    pub(super) fn nothing_is_writable_and_executable(step: &str) {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux");
        let both = maps.lines().find(|line| {
            let access = line.split_whitespace().nth(1).unwrap_or_default();
            access.contains('w') && access.contains('x')
        });
        assert_eq!(both, None, "at the step \"{step}\"");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn p27_a_batch_is_written_cleaned_protected_registered_and_fenced_once_in_this_order() {
        for aliasing in [Aliasing::DualMapped, Aliasing::Private] {
            let arena = Arena::builder().aliasing(aliasing).build().expect("Linux");
            STEPS.take();
            let function = Function { name: "f", code: &[0xc3], align: 1, relocations: &[], unwind: None };
            let blocks = arena.place(&[function; 3]).expect("room");
            assert_eq!(STEPS.take(), ["write", "synchronize", "protect", "register", "fence"]);
            let unwritten = arena.place(&[Function { code: &[], ..function }]).map(drop);
            assert!(unwritten.is_err() && STEPS.take().is_empty(), "what is refused is not begun");
            // Into memory that was executable before.
            drop(blocks);
            let blocks = arena.place(&[function; 3]).expect("room");
            assert_eq!(STEPS.take(), ["write", "synchronize", "protect", "register", "fence"]);
            drop(blocks);
        }
    }
}
