//! What frontends of all compilers are told.

/// Which entry of a function the frontend is to build.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Entry {
    /// The one calls use.
    Function,
    /// The one at the header of the loop with this site, where an interpreter in the middle of the loop goes on natively.
    Loop(u64),
}

/// Iterations of a function's loops, all together, after which its code calls the VM's runtime.
///
/// The call costs some nanoseconds, so a thousandth of it is not to be measured; and a loop has to go round some thousand times
/// before that is worth anything.
pub const ITERATIONS_PER_REPORT: u32 = 1 << 10;
