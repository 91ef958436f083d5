//! What an arena holds and has done.

/// A snapshot of an arena, taken under its lock in time proportional to the number of regions.
///
/// The last four fields count since the arena was made: they let a test or a monitor see that the cost of a
/// placement does not depend on how much was placed before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArenaStats {
    /// Bytes that live blocks occupy, rounded up to 32-byte granules.
    pub live_bytes: usize,
    /// Live blocks; a group is one.
    pub live_blocks: usize,
    /// Regions mapped now, sealed ones included.
    pub regions: usize,
    /// Regions sealed by a fork: they run code and are unmapped when empty, but are not written any more.
    pub sealed_regions: usize,
    /// Entries of the process's memory map that the regions account for.
    pub mappings: usize,
    /// Address space of the regions in bytes (counted once, though a dual region is mapped twice).
    pub reserved_bytes: usize,
    /// Bytes of the pages that were written and not given back.
    pub resident_bytes: usize,
    /// Unwind tables registered now. Unwinding gets slower with their number where the unwinder searches linearly.
    pub unwind_tables: usize,
    /// Calls of `place` and `place_groups` that succeeded, since the start.
    pub placements: u64,
    /// Bytes written to code memory, since the start: code, padding and the poison of freed blocks.
    pub bytes_written: u64,
    /// Changes of page protection, since the start: one per dual-mapped region, or two per private placement.
    pub protect_calls: u64,
    /// Unwind records written, since the start: new ones, and old ones copied when tables are merged.
    pub unwind_records_written: u64,
    /// Batches whose names could not be written to the perf map, since the start.
    pub perf_map_errors: u64,
    /// Batches that could not be written to the jitdump, since the start.
    pub jitdump_errors: u64,
}
