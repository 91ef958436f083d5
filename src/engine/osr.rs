//! Native loop entries: what a VM tells and asks about them outside of its loops.

use super::Engine;
use crate::error::Stale;
use crate::id::Bead;

impl Engine {
    /// States that the native entry into a loop was no good: it could not be entered with the values there are, or left
    /// native code at once. The entry is not answered until the loop went round another 8,000 times, 16,000 after the next
    /// failure, doubling up to 524 million; other loops are untouched. Answers how many. (Code that is being installed at
    /// this moment can show its entry until its install is over.)
    ///
    /// # Errors
    /// [`Stale`] if the function is not live.
    pub fn osr_failed(&self, bead: Bead, site: u64) -> Result<u32, Stale> {
        let shared = self.shared();
        let _no_fork = shared.gate.enter();
        shared.table.live(bead)?;
        let wait = shared.loops.fail(bead, site);
        shared.table.suppress_loop(bead, site, true);
        if shared.table.live(bead).is_err() {
            // Removed meanwhile, and then nobody else forgets what was noted.
            shared.loops.forget(bead);
        }
        Ok(wait)
    }

    /// How often the native entry into a loop was no good, or was asked for and did not come.
    pub fn osr_failures(&self, bead: Bead, site: u64) -> u32 {
        let _no_fork = self.shared().gate.enter();
        self.shared().loops.failures(bead, site)
    }

    /// How many loops of the function have a native entry.
    ///
    /// # Errors
    /// [`Stale`] if the function is not live.
    pub fn osr_entries(&self, bead: Bead) -> Result<u32, Stale> {
        let entries = self.shared().table.osr.len(bead);
        self.shared().table.live(bead).map(|_| entries)
    }
}
