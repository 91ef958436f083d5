//! perf's jitdump: `jit-PID.dump`, the names, the addresses and the bytes of all code, in the order in which it was placed.
//!
//! Unlike the perf map it tells apart what came to lie at an address one after the other, and lets perf annotate instructions. The
//! format is version 1 of "tools/perf/Documentation/jitdump-specification.txt" in the Linux sources.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::mapping::page_size;
use crate::place::Function;

/// Where an arena's code is written to.
#[derive(Debug)]
pub(crate) struct JitDump {
    dir: PathBuf,
    /// The file and the process it is for: after a fork the child needs one of its own.
    file: Option<(u32, Arc<Dump>)>,
    errors: u64,
}

/// A file, which all arenas of the process share that name its directory.
#[derive(Debug)]
struct Dump {
    /// Whose it is. A forked child inherits it, and must not write to it.
    pid: u32,
    out: Mutex<Out>,
    marker: Marker,
}

#[derive(Debug)]
struct Out {
    file: File,
    /// Code written so far; each piece has a number.
    written: u64,
}

/// The files of the process and their paths: a file is only looked at by arenas it is for, so that it ends with the last of them. Taken inside an arena's lock only, and a fork takes all of those first: so nobody holds it, or that of
/// an `Out`, in a child.
static DUMPS: Mutex<Vec<(PathBuf, Weak<Dump>)>> = Mutex::new(Vec::new());

const MAGIC: u32 = 0x4a69_5444;
const VERSION: u32 = 1;
const HEADER_BYTES: u32 = 40;
const CODE_LOAD: u32 = 0;
const CODE_LOAD_BYTES: usize = 56;
const CODE_CLOSE: u32 = 3;
const CODE_CLOSE_BYTES: u32 = 16;

/// ELF's number for the machine.
const MACHINE: u32 = if cfg!(target_arch = "x86_64") {
    62
} else if cfg!(target_arch = "aarch64") {
    183
} else {
    243
};

impl JitDump {
    pub(crate) fn new(dir: PathBuf) -> JitDump {
        JitDump { dir, file: None, errors: 0 }
    }

    /// Writes a batch. Failing to is counted, never an error of the placement.
    pub(crate) fn write<'a>(&mut self, batch: impl Iterator<Item = (*const u8, &'a Function<'a>)>) {
        if self.try_write(batch).is_err() {
            self.file = None;
            self.errors += 1;
        }
    }

    pub(crate) fn errors(&self) -> u64 {
        self.errors
    }

    fn try_write<'a>(
        &mut self,
        batch: impl Iterator<Item = (*const u8, &'a Function<'a>)>,
    ) -> io::Result<()> {
        let pid = std::process::id();
        let dump = match &self.file {
            Some((owner, dump)) if *owner == pid => dump,
            _ => &self.file.insert((pid, Dump::of(&self.dir, pid)?)).1,
        };
        let mut out = lock(&dump.out);
        for (entry, function) in batch {
            // SAFETY: it was placed just now, and cannot be freed before the arena's lock is.
            let code = unsafe { std::slice::from_raw_parts(entry, function.code.len()) };
            let record = load_record(pid, out.written, entry.addr() as u64, function.name, code);
            out.file.write_all(&record)?;
            out.written += 1;
        }
        Ok(())
    }
}

impl Dump {
    /// The process's file in a directory.
    fn of(dir: &Path, pid: u32) -> io::Result<Arc<Dump>> {
        let path = std::path::absolute(dir)?.join(format!("jit-{pid}.dump"));
        let mut dumps = lock(&DUMPS);
        dumps.retain(|(_, dump)| dump.strong_count() > 0);
        if let Some(dump) = dumps.iter().find(|(of, _)| *of == path).and_then(|(_, dump)| dump.upgrade()) {
            return Ok(dump);
        }
        let mut options = OpenOptions::new();
        // Readable, since the marker maps it. One of an earlier process with this number is over.
        options.read(true).write(true).create(true).truncate(true);
        {
            use std::os::unix::fs::OpenOptionsExt;
            // The directory may be shared: never follow a link that someone put there.
            options.custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC).mode(0o600);
        }
        let mut file = options.open(&path)?;
        file.write_all(&header(pid))?;
        let marker = Marker::new(&file);
        let dump = Arc::new(Dump { pid, out: Mutex::new(Out { file, written: 0 }), marker });
        dumps.push((path, Arc::downgrade(&dump)));
        Ok(dump)
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        self.marker.unmap();
        if self.pid != std::process::id() {
            return;
        }
        let mut record = Vec::new();
        record.extend_from_slice(&CODE_CLOSE.to_ne_bytes());
        record.extend_from_slice(&CODE_CLOSE_BYTES.to_ne_bytes());
        record.extend_from_slice(&timestamp().to_ne_bytes());
        // Who reads a file without its end makes do without.
        let _ = lock(&self.out).file.write_all(&record);
    }
}

fn header(pid: u32) -> Vec<u8> {
    let mut header = Vec::new();
    for word in [MAGIC, VERSION, HEADER_BYTES, MACHINE, 0, pid] {
        header.extend_from_slice(&word.to_ne_bytes());
    }
    header.extend_from_slice(&timestamp().to_ne_bytes());
    // No flags.
    header.extend_from_slice(&0u64.to_ne_bytes());
    header
}

fn load_record(pid: u32, number: u64, address: u64, name: &str, code: &[u8]) -> Vec<u8> {
    // The name ends at its first NUL.
    let name: String = name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let bytes = CODE_LOAD_BYTES + name.len() + 1 + code.len();
    let mut record = Vec::with_capacity(bytes);
    record.extend_from_slice(&CODE_LOAD.to_ne_bytes());
    record.extend_from_slice(&(bytes as u32).to_ne_bytes());
    record.extend_from_slice(&timestamp().to_ne_bytes());
    record.extend_from_slice(&pid.to_ne_bytes());
    record.extend_from_slice(&thread().to_ne_bytes());
    for word in [address, address, code.len() as u64, number] {
        record.extend_from_slice(&word.to_ne_bytes());
    }
    record.extend_from_slice(name.as_bytes());
    record.push(0);
    record.extend_from_slice(code);
    record
}

/// Nanoseconds of the clock that `perf record -k mono` uses.
fn timestamp() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn thread() -> u32 {
    // SAFETY: no preconditions.
    unsafe { libc::syscall(libc::SYS_gettid) as u32 }
}

/// A page of the file, mapped executable and never used: perf records that, and so learns of the file.
#[derive(Debug)]
struct Marker(usize);

impl Marker {
    fn new(file: &File) -> Marker {
        use std::os::fd::AsRawFd;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE);
        // SAFETY: a new mapping that replaces none, of a file that is open.
        let page =
            unsafe { libc::mmap(std::ptr::null_mut(), page_size(), protection, flags, file.as_raw_fd(), 0) };
        // Where it is refused, perf has to be shown the file.
        Marker(if page == libc::MAP_FAILED { 0 } else { page.addr() })
    }

    fn unmap(&self) {
        if self.0 != 0 {
            // SAFETY: the mapping is ours, and nobody has its address.
            unsafe { libc::munmap(std::ptr::without_provenance_mut(self.0), page_size()) };
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
