//! Where artifacts are kept.

use super::key::ArtifactKey;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Keeps the bytes of artifacts by key. Stores need not be trusted to keep them well: whoever takes bytes out checks them.
///
/// Called on worker threads, by several at once, and by several processes if they share what is behind it.
pub trait ArtifactStore: Send + Sync + 'static {
    /// The bytes kept under a key, `None` if there are none.
    ///
    /// # Errors
    /// Whatever keeps them from being read.
    fn get(&self, key: ArtifactKey) -> io::Result<Option<ArtifactBytes>>;

    /// Keeps bytes, so that whoever looks finds all of them or none of them, whatever happens meanwhile. Bytes that others have
    /// taken out and still use stay as they are. Without `replace` what is there already stays.
    ///
    /// # Errors
    /// Whatever keeps them from being written; nothing has changed then.
    fn put(&self, key: ArtifactKey, bytes: &[u8], replace: bool) -> io::Result<Put>;

    /// Forgets what is kept under a key; answers whether there was something.
    ///
    /// # Errors
    /// Whatever keeps it from being removed.
    fn remove(&self, key: ArtifactKey) -> io::Result<bool>;

    /// Calls `visit` with every key, in no particular order; those that come or go meanwhile may be missed.
    ///
    /// # Errors
    /// Whatever keeps them from being listed.
    fn keys(&self, visit: &mut dyn FnMut(ArtifactKey)) -> io::Result<()>;

    /// Forgets everything that was kept when this was called.
    ///
    /// # Errors
    /// Whatever keeps them from being listed, and nothing is removed; or the first that could not be removed, once all others have been.
    fn clear(&self) -> io::Result<()> {
        let mut all = Vec::new();
        self.keys(&mut |key| all.push(key))?;
        let mut done = Ok(());
        for key in all {
            done = done.and(self.remove(key).map(|_| ()));
        }
        done
    }
}

/// What became of bytes that were given to a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Put {
    /// They are kept.
    Stored,
    /// There were some already, which stay.
    Kept,
}

/// Bytes of an artifact, mapped or in memory; a clone shares them.
#[derive(Clone)]
pub struct ArtifactBytes(Arc<dyn AsRef<[u8]> + Send + Sync>);

impl ArtifactBytes {
    /// Bytes that stay as they are as long as this does.
    pub fn new(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> ArtifactBytes {
        ArtifactBytes(Arc::new(bytes))
    }
}

impl Deref for ArtifactBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl fmt::Debug for ArtifactBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArtifactBytes({})", self.len())
    }
}

/// Keeps artifacts as long as the process lives: for tests, and for engines that come and go.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<BTreeMap<ArtifactKey, ArtifactBytes>>>);

impl MemoryStore {
    /// An empty one. Clones share what is kept.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ArtifactKey, ArtifactBytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ArtifactStore for MemoryStore {
    fn get(&self, key: ArtifactKey) -> io::Result<Option<ArtifactBytes>> {
        Ok(self.lock().get(&key).cloned())
    }

    fn put(&self, key: ArtifactKey, bytes: &[u8], replace: bool) -> io::Result<Put> {
        let bytes = ArtifactBytes::new(bytes.to_vec());
        let mut kept = self.lock();
        if !replace && kept.contains_key(&key) {
            return Ok(Put::Kept);
        }
        kept.insert(key, bytes);
        Ok(Put::Stored)
    }

    fn remove(&self, key: ArtifactKey) -> io::Result<bool> {
        Ok(self.lock().remove(&key).is_some())
    }

    fn keys(&self, visit: &mut dyn FnMut(ArtifactKey)) -> io::Result<()> {
        let keys: Vec<_> = self.lock().keys().copied().collect();
        keys.into_iter().for_each(visit);
        Ok(())
    }

    fn clear(&self) -> io::Result<()> {
        self.lock().clear();
        Ok(())
    }
}
