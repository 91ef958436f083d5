//! The dump folder: what was compiled, for people to look at.

use super::builder::Name;
use super::unit::Unit;
use crate::contain::contain;
use std::path::{Path, PathBuf};

pub(super) struct Dump<K> {
    pub(super) root: PathBuf,
    pub(super) name: Name<K>,
}

impl<K> Dump<K> {
    /// The folder of a key. Whatever the VM calls it is one component of a path.
    pub(super) fn folder(&self, key: &K) -> Option<PathBuf> {
        let name = contain(|| (self.name)(key)).ok()?;
        let safe: String = name.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
        Some(self.root.join(if safe.is_empty() { "_" } else { &safe }))
    }

    pub(super) fn write_source(&self, unit: &Unit<K>) {
        let Some(folder) = unit.dump_dir() else { return };
        let write = |folder: &Path| {
            std::fs::create_dir_all(folder)?;
            std::fs::write(folder.join("source.bin"), unit.source())
        };
        if let Err(error) = write(folder) {
            tracing::warn!(target: "beadwork", ?folder, %error, "a source was not dumped");
        }
    }
}
