//! What compiles make of functions, written to files for people to look at.

use crate::driver::function_name;
use crate::emit::emit_to_read;
use crate::place::Staged;
use beadwork::{CompileError, Job};
use std::fmt::{self, Write};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

type Wanted = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Has a backend write what it makes of functions to a directory: the compiler's input, what it made of that, assembly, an object for
/// `objdump -dr`, and a text with the circumstances.
///
/// A compile has a folder, called by its number, the function's name and the tier (`0007-fib-T1`); numbers begin anew in each process, which
/// writes over what another one left. Files that cannot be written are logged, and change nothing else. What comes from an archive is not
/// compiled, and so not written. For finding bugs, not for production: a compile takes several times as long.
#[derive(Clone)]
pub struct Dump {
    root: Arc<Path>,
    wanted: Option<Wanted>,
    compiles: Arc<Mutex<u64>>,
}

impl Dump {
    /// All compiles of the backends that are given this, or a clone; folders are made in `root`.
    pub fn to(root: impl Into<PathBuf>) -> Dump {
        Dump { root: root.into().into(), wanted: None, compiles: Arc::default() }
    }

    /// Only those of functions whose name `wanted` agrees to; functions without one are called as their
    /// [bead](beadwork::Bead) prints. Asked once for each compile, on the worker's thread.
    #[must_use]
    pub fn only(mut self, wanted: impl Fn(&str) -> bool + Send + Sync + 'static) -> Dump {
        self.wanted = Some(Arc::new(wanted));
        self
    }

    /// Begins with a compile, if it is wanted. For backends.
    pub fn begin(&self, job: &Job<'_>) -> Option<Dumping> {
        let name = function_name(job);
        let number = {
            let mut compiles = self.compiles.lock().unwrap_or_else(PoisonError::into_inner);
            *compiles += 1;
            *compiles - 1
        };
        if let Some(wanted) = &self.wanted
            && !wanted(&name)
        {
            return None;
        }
        let folder = self.root.join(format!("{number:04}-{}-{}", component(&name), job.tier()));
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "function {name}, bead {}, key {:#x}", job.bead(), job.key());
        let _ = writeln!(text, "tier {}, version {}", job.tier(), job.version());
        let _ = writeln!(text, "asked for because: {:?}, after {} calls", job.reason(), job.calls());
        let _ = writeln!(text, "loop entries asked for: {:?}", job.osr_sites());
        let dumping = Dumping { folder, text };
        dumping.logged(std::fs::create_dir_all(&dumping.folder));
        Some(dumping)
    }
}

impl fmt::Debug for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dump").field("root", &self.root).finish_non_exhaustive()
    }
}

/// A compile that is written to files; made by [`Dump::begin`].
#[derive(Debug)]
pub struct Dumping {
    folder: PathBuf,
    text: String,
}

impl Dumping {
    /// Writes a file of the compile, called by what it is of (a function, a loop entry) and what it is.
    pub fn write(&self, of: &str, kind: &str, content: impl AsRef<[u8]>) {
        self.logged(std::fs::write(self.folder.join(format!("{}.{kind}", component(of))), content));
    }

    /// Writes what came of it: the text, and an object of all code.
    pub fn finish(mut self, result: Result<&Staged, &CompileError>) {
        match result {
            Ok(staged) => {
                let parts: Vec<_> = staged.parts().map(|part| (part.name.clone(), part)).collect();
                let _ = writeln!(self.text, "compiled in {:?}", staged.took);
                for (name, part) in &parts {
                    let _ = writeln!(self.text, "  {name}: {} bytes", part.code.len());
                }
                match emit_to_read(&parts) {
                    Ok(object) => self.write("code", "o", object),
                    Err(error) => _ = writeln!(self.text, "no object: {error}"),
                }
            }
            Err(error) => _ = writeln!(self.text, "failed: {error}"),
        }
        self.write("compile", "txt", &self.text);
    }

    fn logged(&self, result: io::Result<()>) {
        if let Err(error) = result {
            tracing::warn!(target: "beadwork", folder = ?self.folder, %error, "a compile was not dumped");
        }
    }
}

/// A name as one component of a path, whatever the VM calls its functions.
fn component(name: &str) -> String {
    let safe = |c: char| if c.is_alphanumeric() || matches!(c, '@' | '+' | '_') { c } else { '_' };
    // File names have 255 bytes, and a letter up to four.
    name.chars().take(50).map(safe).collect()
}
