//! The code of one entry.

use beadwork_arena::{Function, Relocation, Target, UnwindInfo};

/// The code of one entry, without a place.
#[derive(Clone, Debug)]
pub struct Part {
    /// For error messages and profilers.
    pub name: String,
    /// Machine code and constants.
    pub code: Vec<u8>,
    /// Alignment of the first byte.
    pub align: usize,
    /// Offset of the first instruction.
    pub entry: usize,
    /// Fields that depend on addresses. Positions of targets are those within a unit of several parts, or
    /// [`ITSELF`].
    pub relocations: Vec<Relocation>,
    /// Which of the relocations, by index, refer to something that has a name. Sorted.
    pub imports: Vec<(usize, String)>,
    /// How to unwind through it.
    pub unwind: Option<UnwindInfo>,
}

/// Stands for the position of the part that a relocation is in, which is known when it is placed.
pub const ITSELF: u32 = u32::MAX;

impl Part {
    /// The relocations, where the first part of a unit and this one have these positions in a batch.
    pub fn relocations_at(&self, first: u32, own: u32) -> Vec<Relocation> {
        let placed = |relocation: &Relocation| {
            let target = match relocation.target {
                Target::Local(ITSELF, offset) => Target::Local(own, offset),
                Target::Local(number, offset) => Target::Local(first + number, offset),
                outside => outside,
            };
            Relocation { target, ..*relocation }
        };
        self.relocations.iter().map(placed).collect()
    }

    /// As the arena takes it, with its [relocations for a place](Part::relocations_at).
    pub fn function<'p>(&'p self, relocations: &'p [Relocation]) -> Function<'p> {
        Function {
            name: &self.name,
            code: &self.code,
            align: self.align,
            relocations,
            unwind: self.unwind.as_ref(),
        }
    }
}
