//! Who is told the names of functions: profilers and debuggers.

#[cfg(target_os = "linux")]
use std::path::PathBuf;

use crate::block::BlockToken;
#[cfg(all(feature = "gdb", target_os = "linux"))]
use crate::gdb::SymbolFiles;
#[cfg(target_os = "linux")]
use crate::jitdump::JitDump;
use crate::layout::Placed;
use crate::perf::PerfMap;
use crate::place::Function;
use crate::stats::ArenaStats;

/// Which of them an arena is to tell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) perf_map: bool,
    #[cfg(target_os = "linux")]
    pub(crate) jitdump: Option<PathBuf>,
    #[cfg(all(feature = "gdb", target_os = "linux"))]
    pub(crate) gdb: bool,
}

/// Those an arena tells.
#[derive(Debug)]
pub(crate) struct Names {
    perf: Option<PerfMap>,
    #[cfg(target_os = "linux")]
    jitdump: Option<JitDump>,
    #[cfg(all(feature = "gdb", target_os = "linux"))]
    gdb: Option<SymbolFiles>,
}

impl Names {
    pub(crate) fn new(wanted: Wanted) -> Self {
        Self {
            perf: wanted.perf_map.then(PerfMap::default),
            #[cfg(target_os = "linux")]
            jitdump: wanted.jitdump.map(JitDump::new),
            #[cfg(all(feature = "gdb", target_os = "linux"))]
            gdb: wanted.gdb.then(SymbolFiles::default),
        }
    }

    /// Tells of a batch that was placed.
    pub(crate) fn announce(&mut self, placed: &[Placed], batch: &[Function<'_>]) {
        let named = || {
            let batch = placed.iter().zip(batch);
            batch.map(|(place, function)| (place.token(), place.entry.addr(), function))
        };
        if let Some(perf) = &mut self.perf {
            perf.name(named());
        }
        #[cfg(target_os = "linux")]
        if let Some(jitdump) = &mut self.jitdump {
            jitdump.write(placed.iter().map(|place| place.entry).zip(batch));
        }
        #[cfg(all(feature = "gdb", target_os = "linux"))]
        if let Some(gdb) = &mut self.gdb {
            gdb.name(named());
        }
    }

    /// Tells that blocks are freed.
    pub(crate) fn forget(&mut self, tokens: impl Iterator<Item = BlockToken> + Clone) {
        if let Some(perf) = &mut self.perf {
            perf.forget(tokens.clone());
        }
        #[cfg(all(feature = "gdb", target_os = "linux"))]
        if let Some(gdb) = &mut self.gdb {
            gdb.forget(tokens);
        }
    }

    /// The name of a live block, if names are kept.
    pub(crate) fn get(&self, token: BlockToken) -> Option<&str> {
        self.perf.as_ref()?.get(token)
    }

    /// Adds what could not be told.
    pub(crate) fn count_errors(&self, stats: &mut ArenaStats) {
        stats.perf_map_errors = self.perf.as_ref().map_or(0, PerfMap::errors);
        #[cfg(target_os = "linux")]
        {
            stats.jitdump_errors = self.jitdump.as_ref().map_or(0, JitDump::errors);
        }
    }
}
