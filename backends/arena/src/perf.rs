//! Names for perf: `/tmp/perf-PID.map`, one line `address size name` per function, appended once per placement.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};

use crate::block::BlockToken;
use crate::place::Function;

/// A function as perf knows it.
#[derive(Debug)]
struct Name {
    address: usize,
    len: usize,
    name: Box<str>,
}

/// The names of the live blocks, and the file they are announced in.
#[derive(Debug, Default)]
pub(crate) struct PerfMap {
    names: BTreeMap<BlockToken, Name>,
    /// The file and the process it is for: after a fork the child needs one of its own.
    file: Option<(u32, File)>,
    errors: u64,
}

impl PerfMap {
    /// Remembers and announces a batch. Failing to write is counted, never an error of the placement.
    pub(crate) fn name<'a>(&mut self, batch: impl Iterator<Item = (BlockToken, usize, &'a Function<'a>)>) {
        let mut lines = String::new();
        let fresh = self.file.as_ref().is_none_or(|(pid, _)| *pid != std::process::id());
        for (token, address, function) in batch {
            // A line ends at its newline, so names must have none.
            let name: String = function.name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
            let name = Name { address, len: function.code.len(), name: name.into() };
            name.line(&mut lines);
            self.names.insert(token, name);
        }
        if fresh {
            // The first file of this process: it also names what was inherited from the parent.
            lines.clear();
            self.names.values().for_each(|name| name.line(&mut lines));
        }
        if self.append(&lines).is_err() {
            self.file = None;
            self.errors += 1;
        }
    }

    pub(crate) fn forget(&mut self, tokens: impl Iterator<Item = BlockToken>) {
        for token in tokens {
            self.names.remove(&token);
        }
    }

    pub(crate) fn get(&self, token: BlockToken) -> Option<&str> {
        self.names.get(&token).map(|name| &*name.name)
    }

    pub(crate) fn errors(&self) -> u64 {
        self.errors
    }

    fn append(&mut self, lines: &str) -> io::Result<()> {
        let pid = std::process::id();
        if self.file.as_ref().is_none_or(|&(owner, _)| owner != pid) {
            self.file = Some((pid, open(pid)?));
        }
        match &mut self.file {
            Some((_, file)) => file.write_all(lines.as_bytes()),
            None => Ok(()),
        }
    }
}

impl Name {
    fn line(&self, lines: &mut String) {
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "{:x} {:x} {}", self.address, self.len, self.name);
    }
}

/// Several arenas of a process share the file, so every batch is appended by one write.
fn open(pid: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // /tmp is shared: never follow a link that someone put there.
        options.custom_flags(libc::O_NOFOLLOW).mode(0o600);
    }
    options.open(format!("/tmp/perf-{pid}.map"))
}
