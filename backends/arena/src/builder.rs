//! What can be chosen about an arena.

#[cfg(target_os = "linux")]
use std::path::PathBuf;

use crate::arena::Arena;
use crate::error::ArenaError;
use crate::mapping::page_size;
use crate::names::Wanted;
use crate::unwind::Unwinder;

/// How code memory is written without ever being writable and executable at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Aliasing {
    /// Two views of the same shared memory, one writable, one executable. Functions share pages and are freed
    /// one by one, and a placement changes no protection. The writable view exists permanently, at an
    /// address unrelated to the code: someone who can already write anywhere can write code. Linux and Android.
    #[default]
    DualMapped,
    /// One private view. A placement gets pages of its own, is written, and becomes executable by one `mprotect`; no
    /// writable view of it exists afterwards. Its pages are reused when all its functions are freed, so place
    /// many functions together. Freed bytes cannot be poisoned one by one.
    Private,
}

/// The limits the state works with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    pub(crate) region_bytes: usize,
    pub(crate) max_bytes: Option<usize>,
    pub(crate) aliasing: Aliasing,
    pub(crate) poison_freed: bool,
    pub(crate) unwinder: Unwinder,
}

/// Options of an [`Arena`]; made by [`Arena::builder`].
#[derive(Clone, Debug)]
pub struct ArenaBuilder {
    pub(crate) region_bytes: usize,
    pub(crate) max_bytes: Option<usize>,
    pub(crate) aliasing: Aliasing,
    pub(crate) unwind: bool,
    pub(crate) names: Wanted,
    pub(crate) poison_freed: bool,
    pub(crate) unwinder: Option<Unwinder>,
}

impl Default for ArenaBuilder {
    fn default() -> Self {
        Self {
            region_bytes: 64 << 20,
            max_bytes: None,
            aliasing: Aliasing::default(),
            unwind: true,
            names: Wanted::default(),
            poison_freed: false,
            unwinder: None,
        }
    }
}

impl ArenaBuilder {
    /// Bytes of address space reserved at a time, rounded up to pages; 64 MiB by default. Reserving touches nothing.
    /// Where so much is refused, smaller regions are tried.
    pub fn region_bytes(mut self, bytes: usize) -> Self {
        self.region_bytes = bytes;
        self
    }

    /// Upper bound of code memory in bytes, unlimited by default. It bounds the regions that take new code plus the live
    /// blocks of regions sealed by a fork, so regions are made no larger than it.
    pub fn max_bytes(mut self, bytes: Option<usize>) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How memory is mapped; [`Aliasing::DualMapped`] by default.
    pub fn aliasing(mut self, aliasing: Aliasing) -> Self {
        self.aliasing = aliasing;
        self
    }

    /// Whether functions' unwind information is registered with the process's unwinder; on by default.
    pub fn unwind(mut self, register: bool) -> Self {
        self.unwind = register;
        self
    }

    /// Whether placed functions are named in `/tmp/perf-PID.map`; off by default. Names are then kept in memory too, see
    /// [`Arena::name_for`].
    pub fn perf_map(mut self, write: bool) -> Self {
        self.names.perf_map = write;
        self
    }

    /// Writes every placed function, with its name and its bytes, to `jit-PID.dump` in this directory, which exists; off by default. Linux
    /// only. Arenas that name the same directory share the file.
    ///
    /// Record with `perf record -k mono`, then `perf inject --jit -i perf.data -o perf.jit.data` makes an object of each function, which `perf
    /// report` and `perf annotate` use. Unlike with a [`perf_map`](ArenaBuilder::perf_map), functions that came to lie at
    /// one address one after the other are told apart. A forked child begins a file of its own, with what it places itself.
    #[cfg(target_os = "linux")]
    pub fn jitdump(mut self, directory: impl Into<PathBuf>) -> Self {
        self.names.jitdump = Some(directory.into());
        self
    }

    /// Whether placed functions are made known to GDB (and LLDB), so that backtraces name them and go on behind them; off by
    /// default. Linux only.
    ///
    /// Each placement costs a small ELF object in memory, which is made anew when some of its functions are freed; and a stop while a
    /// debugger is attached. Place many functions together.
    #[cfg(all(feature = "gdb", target_os = "linux"))]
    pub fn gdb(mut self, register: bool) -> Self {
        self.names.gdb = register;
        self
    }

    /// Whether freed code becomes inaccessible at once, at addresses that are never used again; off by default. For tests: a thread
    /// that is still in freed code, or calls it, faults instead of running whatever came to lie there.
    ///
    /// Every function ([`Aliasing::DualMapped`]) or placement ([`Aliasing::Private`]) then takes whole pages, every free costs
    /// two more system calls, and address space (not memory) is used up: it comes back when the arena goes.
    pub fn poison_freed(mut self, poison: bool) -> Self {
        self.poison_freed = poison;
        self
    }

    /// The arena. Nothing is mapped until the first placement.
    ///
    /// # Errors
    /// [`ArenaError::Unsupported`] on platforms without executable memory or without the chosen mapping,
    /// [`ArenaError::ForkHandlersRefused`] when the process cannot be told about forks.
    pub fn build(self) -> Result<Arena, ArenaError> {
        if !cfg!(unix) {
            return Err(ArenaError::Unsupported { what: "executable memory" });
        }
        if self.aliasing == Aliasing::DualMapped && !cfg!(any(target_os = "linux", target_os = "android")) {
            return Err(ArenaError::Unsupported {
                what: "a second view of code memory (use Aliasing::Private)",
            });
        }
        let unwinder = match self.unwinder {
            _ if !self.unwind => Unwinder::None,
            Some(unwinder) => unwinder,
            None => detect()?,
        };
        let config = Config {
            // At most what 32-bit tokens can name twice, so that rounding cannot overflow.
            region_bytes: self.region_bytes.clamp(page_size(), 1 << 36),
            max_bytes: self.max_bytes,
            aliasing: self.aliasing,
            poison_freed: self.poison_freed,
            unwinder,
        };
        Arena::with_config(config, self.names)
    }
}

#[cfg(unix)]
fn detect() -> Result<Unwinder, ArenaError> {
    crate::fork::excluded(Unwinder::detect)
}

#[cfg(not(unix))]
fn detect() -> Result<Unwinder, ArenaError> {
    Ok(Unwinder::detect())
}
