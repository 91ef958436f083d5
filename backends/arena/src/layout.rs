//! Where the functions of a batch go.

use crate::Aliasing;
use crate::block::BlockToken;
use crate::error::ArenaError;
use crate::place::Function;
use crate::region::{GRANULE, Region, page_granules};
use crate::state::State;

/// A function of the batch with its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    /// Key of its region.
    pub(crate) region: u32,
    pub(crate) granule: u32,
    pub(crate) granules: u32,
    pub(crate) entry: *const u8,
}

impl Placed {
    pub(crate) fn token(&self) -> BlockToken {
        BlockToken::from_bits(self.region + self.granule)
    }
}

/// Private mode: region and first granule of the pages of a placement.
pub(crate) type ExtentKey = (u32, u32);

/// Finds places for all functions, given the sizes of the groups that are to lie together. On an error everything is as it was.
pub(crate) fn allocate(
    state: &mut State,
    batch: &[Function<'_>],
    groups: &[usize],
) -> Result<(Vec<Placed>, Option<ExtentKey>), ArenaError> {
    if state.config.aliasing == Aliasing::Private {
        allocate_extent(state, batch, groups)
    } else {
        Ok((allocate_each(state, batch, groups)?, None))
    }
}

/// Where functions go, in granules from the start of a run: offset and length of each. Those of a group follow one
/// another, so what alignment leaves free between two of them belongs to the first.
fn lay_out(group: &[Function<'_>], end: &mut u64, layout: &mut Vec<(u64, u64)>) {
    for (position, function) in group.iter().enumerate() {
        let offset = end.next_multiple_of(granules(function.align).into());
        if position > 0
            && let Some(before) = layout.last_mut()
        {
            before.1 += offset - *end;
        }
        let length = u64::from(granules(function.code.len()));
        layout.push((offset, length));
        *end = offset + length;
    }
}

/// Takes the granules of one group, which were found at `start`.
fn occupy(region: &mut Region, start: u32, layout: &[(u64, u64)], placed: &mut Vec<Placed>) {
    for (position, &(offset, length)) in layout.iter().enumerate() {
        // The sum fitted 32 bits when the room was found, so each part does.
        let (granule, granules) = (start + offset as u32, length as u32);
        region.occupy(granule, granules, position > 0);
        let entry = region.address(granule);
        placed.push(Placed { region: region.first_token(), granule, granules, entry });
    }
}

/// Finds a place for every group by itself, in the smallest holes that fit.
fn allocate_each(
    state: &mut State,
    batch: &[Function<'_>],
    groups: &[usize],
) -> Result<Vec<Placed>, ArenaError> {
    let mut placed = Vec::with_capacity(batch.len());
    let mut layout = Vec::new();
    for group in split(batch, groups) {
        let mut end = 0;
        layout.clear();
        lay_out(group, &mut end, &mut layout);
        let align = alignment(group);
        let take = |region: &mut Region| {
            let start = region.take(u32::try_from(end).ok()?, align)?;
            occupy(region, start, &layout, &mut placed);
            Some(())
        };
        if let Err(error) = state.find_room(end + u64::from(align) - 1, take) {
            roll_back(state, &placed);
            return Err(error);
        }
    }
    Ok(placed)
}

/// Private mode: one run of pages for the whole batch.
fn allocate_extent(
    state: &mut State,
    batch: &[Function<'_>],
    groups: &[usize],
) -> Result<(Vec<Placed>, Option<ExtentKey>), ArenaError> {
    let (mut layout, mut end) = (Vec::with_capacity(batch.len()), 0u64);
    for group in split(batch, groups) {
        lay_out(group, &mut end, &mut layout);
    }
    if batch.is_empty() {
        return Ok((Vec::new(), None));
    }
    let align = alignment(batch);
    let room = end.next_multiple_of(page_granules().into()) + u64::from(align) - 1;
    state.find_room(room, |region| {
        let start = region.take_extent(u32::try_from(end).ok()?, align)?;
        let mut placed = Vec::with_capacity(batch.len());
        for group in split(&layout, groups) {
            occupy(region, start, group, &mut placed);
        }
        Some((placed, Some((region.first_token(), start))))
    })
}

/// The largest alignment, in granules.
fn alignment(functions: &[Function<'_>]) -> u32 {
    functions.iter().map(|function| granules(function.align)).max().unwrap_or(1)
}

/// The groups of a batch, by their sizes.
fn split<'b, T>(mut batch: &'b [T], groups: &'b [usize]) -> impl Iterator<Item = &'b [T]> {
    groups.iter().map(move |&size| {
        let (group, rest) = batch.split_at(size.min(batch.len()));
        batch = rest;
        group
    })
}

/// Takes back what a failed placement took; nothing of it was ever visible.
pub(crate) fn roll_back(state: &mut State, placed: &[Placed]) {
    for place in placed {
        state.with_region(place.region, |region, work| region.free(&[place.granule], work));
    }
    state.settle_empty();
}

fn granules(bytes: usize) -> u32 {
    bytes.div_ceil(GRANULE as usize) as u32
}
