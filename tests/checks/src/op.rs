//! What can be done to an engine. Numbers stand for functions, groups and so on modulo how many there are, so every sequence
//! makes sense.

#[cfg(feature = "arbitrary")]
use arbitrary::Arbitrary;

/// One operation. `of` names a function, live or not.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "arbitrary", derive(Arbitrary))]
pub enum Op {
    Register {
        grouped: bool,
    },
    RegisterMany(u8),
    Remove {
        of: u8,
    },
    NewGroup,
    RemoveGroup(u8),
    SetCore {
        of: u8,
        core: u16,
    },
    Dispatch {
        of: u8,
        calls: u16,
    },
    /// Calls of native code that found the budget spent.
    NativeCall {
        of: u8,
        times: u8,
    },
    /// Iterations told by native code.
    NativeLoop {
        of: u8,
        site: u8,
        times: u16,
    },
    /// As many iterations, and from 200 on 100 for each further one.
    BackEdge {
        of: u8,
        site: u8,
        times: u8,
    },
    /// Two loops that share a place take turns, ten times with so many iterations each.
    Turns {
        of: u8,
        times: u8,
    },
    Promote {
        of: u8,
        tier: u8,
    },
    PromoteGroup {
        group: u8,
        tier: u8,
    },
    Submit {
        of: u8,
        tier: u8,
    },
    /// Compiles what is queued, each as the next of the list says, and as code without more when that is used up.
    Run {
        all: bool,
        compiles: Vec<Compile>,
    },
    CompileNow {
        of: u8,
        tier: u8,
        compiles: Vec<Compile>,
    },
    Install {
        of: u8,
        tier: u8,
        made: Made,
    },
    SwapAll {
        tier: u8,
    },
    Invalidate {
        of: u8,
    },
    InvalidateVersion {
        of: u8,
        held: bool,
    },
    InvalidateAll,
    Reload {
        of: u8,
    },
    ReloadAll,
    Demote {
        of: u8,
        tier: u8,
    },
    Bailout {
        of: u8,
        proposal: Proposal,
        outdated: bool,
    },
    Cap {
        of: u8,
        tier: u8,
    },
    Blacklist {
        of: u8,
        on: bool,
    },
    NewAssumption,
    Break(u8),
    Pause,
    Resume,
    Enable(bool),
    EnableTier {
        tier: u8,
        on: bool,
    },
    Lease {
        of: u8,
    },
    EndLease(u8),
    Slot {
        of: u8,
    },
    OsrFailed {
        of: u8,
        site: u8,
    },
    DropKept {
        of: u8,
    },
    DropAllKept,
    ForgetDeopts {
        of: u8,
    },
    Safepoint,
    /// A second mutator.
    OtherDispatch {
        of: u8,
        calls: u8,
    },
    OtherBackEdge {
        of: u8,
        site: u8,
        times: u8,
    },
    OtherSafepoint,
    OtherOffline,
    Reclaim,
    Deliver,
    /// So many tenths of a second pass.
    Wait(u8),
}

/// How a compile goes.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "arbitrary", derive(Arbitrary))]
pub struct Compile {
    /// What happens while it runs.
    pub meanwhile: Vec<Op>,
    pub what: What,
}

/// How a compile ends.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "arbitrary", derive(Arbitrary))]
pub enum What {
    Code(Made),
    Error,
    Null,
    Wide,
    Panic,
    Unfinished,
    /// Ends with the error that an assumption does not hold.
    InVain(u8),
}

impl Default for What {
    fn default() -> What {
        What::Code(Made::default())
    }
}

/// What code comes with.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "arbitrary", derive(Arbitrary))]
pub struct Made {
    /// A bit for each loop with a native entry.
    pub sites: u8,
    /// It lacks the entries that were asked for.
    pub lacks: bool,
    pub assumes: Option<u8>,
    /// The assumption is named when the compile begins, and not with its result.
    pub early: bool,
    /// It contains the body of that function, if that is allowed.
    pub includes: Option<u8>,
}

/// What the deopt policy proposes.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "arbitrary", derive(Arbitrary))]
pub enum Proposal {
    Keep,
    Recompile,
    Pause(u8),
    Revert,
    Cap(u8),
    Blacklist,
}

/// What kind of engine it is.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "arbitrary", derive(Arbitrary))]
pub struct Setup {
    /// The VM frees code itself.
    pub hands_back: bool,
    /// The frontend notes something for each compile.
    pub snapshots: bool,
    /// Functions a backend is given at once: 1 to 4.
    pub batch: u8,
    /// Code is evicted when there is more than a little.
    pub evicts: bool,
}
