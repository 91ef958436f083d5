//! Artifacts as files of a directory that several processes may share.
//!
//! A file is written under a name of its own, synchronised, and given its final name last, by one step of the file system. So whoever
//! finds the name finds the whole file, also after a crash; and a file that is mapped is never written again.

use super::key::ArtifactKey;
use super::store::{ArtifactBytes, ArtifactStore, Put};
use memmap2::Mmap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

/// Files being written, until they have their names.
const UNFINISHED: &str = "unfinished";
const ENDING: &str = "bead";

/// Keeps artifacts as files. Reading maps them.
///
/// Processes may share the directory, whatever becomes of them: a file is whole or not there. It has to be one where only trusted
/// users can write, since artifacts are not signed, and since a file that is shortened while it is mapped ends the process that
/// reads it (`SIGBUS`). It should be on a local file system.
///
/// What was [stored](Put::Stored) is there also after a crash of the machine: the file, its name and its directories were synchronised. What
/// was removed may be back then.
#[derive(Debug)]
pub struct FileStore {
    root: PathBuf,
    /// Directories whose names this has synchronised, a bit for each: who found one there may have found it before its maker did that.
    lasting: [AtomicU64; 4],
}

impl FileStore {
    /// A store in `root`, which is made if it is not there. Removes what writers that are no more have left unfinished.
    ///
    /// # Errors
    /// Whatever keeps the directory from being made or read.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<FileStore> {
        let store = FileStore { root: root.into(), lasting: Default::default() };
        make_directory(&store.root.join(UNFINISHED))?;
        store.sweep()?;
        Ok(store)
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn sweep(&self) -> io::Result<()> {
        fs::read_dir(self.root.join(UNFINISHED))?.try_for_each(|file| {
            remove_if_abandoned(&file?.path());
            Ok(())
        })
    }

    /// Where an artifact lies: one of 256 directories, so that none gets too large.
    fn place(&self, key: ArtifactKey) -> (PathBuf, PathBuf) {
        let name = key.to_string();
        let (directory, name) = name.split_at(2);
        let directory = self.root.join(directory);
        let path = directory.join(name).with_extension(ENDING);
        (directory, path)
    }

    /// A file with these bytes that nobody knows of yet.
    fn write(&self, bytes: &[u8]) -> io::Result<Unfinished> {
        write_file(|| self.root.join(UNFINISHED).join(a_name_of_its_own()), bytes)
    }

    fn try_put(&self, key: ArtifactKey, bytes: &[u8], replace: bool) -> io::Result<Put> {
        let (directory, path) = self.place(key);
        if !replace && path.try_exists()? {
            return Ok(Put::Kept);
        }
        let first = usize::from(key.to_bytes()[0]);
        let (lasting, bit) = (&self.lasting[first / 64], 1 << (first % 64));
        if !directory.try_exists()? {
            make_directory(&directory)?;
        } else if lasting.load(Relaxed) & bit == 0 {
            sync(&self.root)?;
        }
        // Relaxed: who does not see it does it again.
        lasting.fetch_or(bit, Relaxed);
        let unfinished = self.write(bytes)?;
        let named = match replace {
            true => fs::rename(&unfinished.path, &path),
            // Unlike renaming, this leaves alone what another process has put there just now.
            false => match fs::hard_link(&unfinished.path, &path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(Put::Kept),
                Err(error) if error.kind() == ErrorKind::NotFound => Err(error),
                // A file system without hard links. What is replaced then is as good.
                Err(_) => fs::rename(&unfinished.path, &path),
                Ok(()) => Ok(()),
            },
        };
        named?;
        sync(&directory)?;
        Ok(Put::Stored)
    }
}

/// A file without its final name; goes with this.
struct Unfinished {
    path: PathBuf,
    file: File,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Not there any more if it was renamed.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes a directory, and those it is in; their names last.
fn make_directory(path: &Path) -> io::Result<()> {
    let is_missing = |directory: &&Path| !directory.as_os_str().is_empty() && !directory.exists();
    let missing: Vec<_> = path.ancestors().take_while(is_missing).collect();
    fs::create_dir_all(path)?;
    missing.into_iter().try_for_each(|directory| sync(parent(directory)))
}

/// The directory that something is in; a name without one lies in the current one.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the names in a directory last.
fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        // A stranger's file where a directory of ours would be is as good as none.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a file for reading. If a stranger has put a pipe in its place, that is as good as empty: nobody waits for its writer.
fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    options.open(path)
}

/// The bytes of a file, mapped; `None` if there is none.
pub(crate) fn map_file(path: &Path) -> io::Result<Option<ArtifactBytes>> {
    let Some(file) = found(open_file(path))? else { return Ok(None) };
    if file.metadata()?.len() == 0 {
        // Nothing that could be mapped.
        return Ok(Some(ArtifactBytes::new([])));
    }
    // SAFETY: files that have their names are never written to by this crate, and who else may write them is trusted not to, as the
    // documentation of the callers asks.
    let map = unsafe { Mmap::map(&file)? };
    Ok(Some(ArtifactBytes::new(map)))
}

/// Replaces a file in one step. Removes what writers of it that are no more have left beside it.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = parent(path);
    let mut prefix = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_owned();
    prefix.push(format!(".{UNFINISHED}-"));
    let name = || {
        let mut name = prefix.clone();
        name.push(a_name_of_its_own());
        directory.join(name)
    };
    let unfinished = write_file(name, bytes)?;
    fs::rename(&unfinished.path, path)?;
    sync(directory)?;
    // It is saved: what cannot be listed or removed now is tried again next time.
    let abandoned =
        |file: &fs::DirEntry| file.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes());
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    files.filter(abandoned).for_each(|file| remove_if_abandoned(&file.path()));
    Ok(())
}

/// A name that no other unfinished file has, of whatever process. (Process numbers are used again, in containers at once.)
fn a_name_of_its_own() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).as_nanos();
    // Relaxed: only has to differ.
    format!("{}-{since:x}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed))
}

/// Removes an unfinished file unless its writer is still there: a writer holds a lock on its file, which goes with the process.
fn remove_if_abandoned(path: &Path) {
    // What goes meanwhile needs no care. Locked until it is removed: a writer that has made it just now waits, and finds it gone.
    if let Ok(file) = open_file(path)
        && file.try_lock().is_ok()
    {
        let _ = fs::remove_file(path);
    }
}

/// Whether the file has lost its name.
fn is_removed(file: &File) -> io::Result<bool> {
    #[cfg(unix)]
    return Ok(std::os::unix::fs::MetadataExt::nlink(&file.metadata()?) == 0);
    #[cfg(not(unix))]
    return file.metadata().map(|_| false);
}

/// A file with these bytes that nobody knows of yet, under one of these names.
fn write_file(name: impl Fn() -> PathBuf, bytes: &[u8]) -> io::Result<Unfinished> {
    let mut unfinished = loop {
        let path = name();
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let unfinished = Unfinished { path, file };
        unfinished.file.lock()?;
        // If not, somebody took it for an abandoned one before it was locked.
        if !is_removed(&unfinished.file)? {
            break unfinished;
        }
    };
    unfinished.file.write_all(bytes)?;
    unfinished.file.sync_all()?;
    Ok(unfinished)
}

/// The key that a file's directory and name spell.
fn key(directory: &str, name: &str) -> Option<ArtifactKey> {
    let digits = format!("{directory}{}", name.strip_suffix(ENDING)?.strip_suffix('.')?);
    let mut bytes = [0; 32];
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    let key = ArtifactKey::from_bytes(bytes);
    // Otherwise a name that nobody looks up, in capitals say.
    (key.to_string() == digits).then_some(key)
}

impl ArtifactStore for FileStore {
    fn get(&self, key: ArtifactKey) -> io::Result<Option<ArtifactBytes>> {
        map_file(&self.place(key).1)
    }

    fn put(&self, key: ArtifactKey, bytes: &[u8], replace: bool) -> io::Result<Put> {
        match self.try_put(key, bytes, replace) {
            // Somebody removed the directory.
            Err(error) if error.kind() == ErrorKind::NotFound => self.try_put(key, bytes, replace),
            done => done,
        }
    }

    fn remove(&self, key: ArtifactKey) -> io::Result<bool> {
        Ok(found(fs::remove_file(self.place(key).1))?.is_some())
    }

    fn keys(&self, visit: &mut dyn FnMut(ArtifactKey)) -> io::Result<()> {
        for directory in fs::read_dir(&self.root)? {
            let directory = directory?;
            let (path, prefix) = (directory.path(), directory.file_name());
            let Some(prefix) = prefix.to_str().filter(|prefix| prefix.len() == 2) else { continue };
            let Some(files) = found(fs::read_dir(path))? else { continue };
            for file in files {
                if let Some(key) = file?.file_name().to_str().and_then(|name| key(prefix, name)) {
                    visit(key);
                }
            }
        }
        Ok(())
    }
}
