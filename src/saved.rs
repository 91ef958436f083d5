//! Saved profiles: what one run learned, for the next one.
//!
//! A profile is a small file: which functions were hot, at which tier they ran, and which of them bailed out, by their
//! [keys](crate::BeadInfo::key). All of it is advice. A profile that is damaged, or of something else, is refused as a whole;
//! functions it does not know start as always.
//!
//! ```text
//! magic 8 │ format 4 │ size of a record 4 │ records 8 │ tag 8 │ digest 32 │ records, by key
//! ```
//! The file is little-endian and mapped when it is opened; the digest is the SHA-256 of everything else.

use crate::artifact::ArtifactBytes;
#[cfg(unix)]
use crate::artifact::{map_file, replace_file};
use crate::deopt::DEOPT_REENTRY_CALLS;
use crate::engine::Engine;
use crate::error::PromoteError;
use crate::id::{Bead, TierId};
use bytemuck::{Pod, Zeroable};
use sha2::{Digest, Sha256};
use std::cmp::Reverse;
use std::fmt;
#[cfg(unix)]
use std::path::Path;

/// The version of the format of saved profiles. Others are refused.
pub const PROFILE_FORMAT: u32 = 1;

const MAGIC: [u8; 8] = *b"beadprof";
const HEADER: usize = 64;
const DIGEST: usize = 32;

/// A run that a function was not called in halves its calls; below this it is forgotten.
const FORGOTTEN: u32 = 16;

/// Doublings after which the delay of a function that bailed out stays the same.
const MAX_DOUBLINGS: u32 = 7;

/// What is known of one function.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
struct Record {
    key: u64,
    calls: u32,
    bailouts: u32,
    tier: u8,
    reserved: [u8; 7],
}

impl Record {
    /// What was known, faded already, and what this run has found.
    fn merged(self, new: Record) -> Record {
        Record {
            calls: self.calls.saturating_add(new.calls),
            bailouts: self.bailouts.saturating_add(new.bailouts),
            // A short run does not make it cold.
            tier: if new.calls < self.calls { self.tier.max(new.tier) } else { new.tier },
            ..new
        }
    }
}

/// What a profile knows of a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Remembered {
    /// Calls that were counted, those of earlier runs faded by half for each run since.
    pub calls: u32,
    /// Bailouts of its code, faded likewise.
    pub bailouts: u32,
    /// The tier it ran at when a run ended: the last one in which it was called at least as often as what is remembered of those before, or
    /// a higher one since. So a short run does not make it cold, and one that says otherwise does.
    pub tier: TierId,
}

impl Remembered {
    /// How many calls a function that bailed out before is left to itself.
    pub(crate) fn delay(&self) -> u32 {
        let doublings = self.bailouts.saturating_sub(1).min(MAX_DOUBLINGS - 1);
        DEOPT_REENTRY_CALLS << doublings
    }
}

/// What earlier runs learned. Cheap to clone.
#[derive(Clone)]
pub struct SavedProfile {
    bytes: ArtifactBytes,
}

/// Why a profile is not used. The program starts as if there were none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileRefusal {
    /// There is none: the first run.
    #[error("there is no saved profile")]
    Missing,
    /// The file cannot be read.
    #[error("the saved profile cannot be read: {reason}")]
    Unreadable {
        /// What the system said.
        reason: String,
    },
    /// It is no profile, or one of another version of the format.
    #[error("it is not a profile of format {PROFILE_FORMAT}")]
    Format,
    /// Its bytes are not those that were written.
    #[error("the saved profile is damaged")]
    Damaged,
    /// It is of another program, or another version of the VM.
    #[error("the saved profile has the tag {found:#x}; this program has {expected:#x}")]
    Stale {
        /// The tag asked for.
        expected: u64,
        /// Its own.
        found: u64,
    },
}

/// What [`Engine::recall`] did with a profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recalled {
    /// Functions that were asked for, the hottest first.
    pub promoted: usize,
    /// Functions that bailed out before, and are left to warm up again for longer.
    pub delayed: usize,
    /// Live functions the profile does not know.
    pub unknown: usize,
    /// Functions that could not be asked for, and why.
    pub refused: Vec<(Bead, PromoteError)>,
}

impl SavedProfile {
    /// One that knows nothing, of the program with this tag: a number that changes when keys change their meaning.
    pub fn empty(tag: u64) -> SavedProfile {
        SavedProfile::of(tag, &[])
    }

    /// Maps a profile and checks it.
    ///
    /// The file is replaced as a whole when a profile is saved, and never written in place; whoever else shortens it while it is
    /// mapped ends the process (`SIGBUS`).
    ///
    /// # Errors
    /// [`ProfileRefusal`]; start with an [empty](SavedProfile::empty) one then.
    #[cfg(unix)]
    pub fn open(path: impl AsRef<Path>, tag: u64) -> Result<SavedProfile, ProfileRefusal> {
        match map_file(path.as_ref()) {
            Ok(Some(bytes)) => SavedProfile::check(bytes, tag),
            Ok(None) => Err(ProfileRefusal::Missing),
            Err(error) => Err(ProfileRefusal::Unreadable { reason: error.to_string() }),
        }
    }

    /// Checks bytes that [`as_bytes`](SavedProfile::as_bytes) gave.
    ///
    /// # Errors
    /// As [`open`](SavedProfile::open).
    pub fn from_bytes(bytes: &[u8], tag: u64) -> Result<SavedProfile, ProfileRefusal> {
        SavedProfile::check(aligned(bytes), tag)
    }

    /// The bytes that are saved.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Replaces the file in one step, so that whoever reads it finds this profile or the one before.
    ///
    /// # Errors
    /// Whatever keeps it from being written; the file is as it was.
    #[cfg(unix)]
    pub fn save(&self, path: impl AsRef<Path>) -> std::io::Result<()> {
        replace_file(path.as_ref(), &self.bytes)
    }

    /// How many functions it knows.
    pub fn len(&self) -> usize {
        self.records().len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it knows of the function with this key. Costs a binary search.
    pub fn get(&self, key: u64) -> Option<Remembered> {
        let records = self.records();
        let record = records.get(records.binary_search_by_key(&key, |record| record.key).ok()?)?;
        let Record { calls, bailouts, tier, .. } = *record;
        Some(Remembered { calls, bailouts, tier: TierId::new(tier).unwrap_or(TierId::INTERPRETER) })
    }

    fn tag(&self) -> u64 {
        u64_at(&self.bytes, 24)
    }

    fn records(&self) -> &[Record] {
        // Checked when it was made.
        self.bytes.get(HEADER..).and_then(|bytes| bytemuck::try_cast_slice(bytes).ok()).unwrap_or_default()
    }

    fn of(tag: u64, records: &[Record]) -> SavedProfile {
        let mut bytes = vec![0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&PROFILE_FORMAT.to_le_bytes());
        bytes[12..16].copy_from_slice(&(size_of::<Record>() as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&(records.len() as u64).to_le_bytes());
        bytes[24..32].copy_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(bytemuck::cast_slice(records));
        let digest = digest(&bytes);
        bytes[DIGEST..HEADER].copy_from_slice(&digest);
        SavedProfile { bytes: aligned(&bytes) }
    }

    fn check(bytes: ArtifactBytes, expected: u64) -> Result<SavedProfile, ProfileRefusal> {
        let plain =
            [&MAGIC[..], &PROFILE_FORMAT.to_le_bytes(), &(size_of::<Record>() as u32).to_le_bytes()].concat();
        if !bytes.starts_with(&plain[..plain.len().min(bytes.len())]) {
            return Err(ProfileRefusal::Format);
        }
        // Records as they are stored are those of this processor only where it is little-endian.
        if cfg!(target_endian = "big") {
            return Err(ProfileRefusal::Format);
        }
        let length = bytes.len().checked_sub(HEADER).map(|length| length as u64);
        let records = length.map(|_| u64_at(&bytes, 16).saturating_mul(size_of::<Record>() as u64));
        if length.is_none() || length != records || bytes[DIGEST..HEADER] != digest(&bytes) {
            return Err(ProfileRefusal::Damaged);
        }
        let profile = SavedProfile { bytes };
        let found = profile.tag();
        if found != expected {
            return Err(ProfileRefusal::Stale { expected, found });
        }
        Ok(profile)
    }
}

/// A copy that records can be read from in place.
fn aligned(bytes: &[u8]) -> ArtifactBytes {
    struct Words(Vec<u64>, usize);
    impl AsRef<[u8]> for Words {
        fn as_ref(&self) -> &[u8] {
            &bytemuck::cast_slice(&self.0)[..self.1]
        }
    }
    let mut words = vec![0u64; bytes.len().div_ceil(8)];
    bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
    ArtifactBytes::new(Words(words, bytes.len()))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |word| u64::from_le_bytes(*word))
}

/// The digest of everything but the digest; there is at least a header.
fn digest(bytes: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(&bytes[..DIGEST]);
    hash.update(&bytes[HEADER..]);
    hash.finalize().into()
}

impl Engine {
    /// What this run has learned so far, and what is left of what earlier ones did: their counts count half, and functions without a call
    /// are forgotten after some runs. Functions without a [key](crate::BeadInfo::key) are left out; of several with one key the
    /// hottest counts. Costs a [walk](Engine::walk).
    #[must_use]
    pub fn remember(&self, before: &SavedProfile) -> SavedProfile {
        self.remember_by(before, |_, calls| calls)
    }

    /// The same; `calls_of` answers the calls of a function in this run, given those that were counted.
    pub(crate) fn remember_by(
        &self,
        before: &SavedProfile,
        calls_of: impl Fn(Bead, u32) -> u32,
    ) -> SavedProfile {
        let mut records: Vec<Record> = before.records().to_vec();
        for record in &mut records {
            (record.calls, record.bailouts) = (record.calls / 2, record.bailouts / 2);
        }
        let mut now = Vec::new();
        self.walk(|bead| {
            let (Some(key), Ok(tier), Ok(calls)) = (self.key(bead), self.tier(bead), self.invocations(bead))
            else {
                return;
            };
            let calls = calls_of(bead, calls);
            if key != 0 && (calls > 0 || tier > TierId::INTERPRETER) {
                let bailouts = self.deopts(bead).map_or(0, |history| history.bailouts);
                now.push(Record { key, calls, bailouts, tier: tier.get(), reserved: [0; 7] });
            }
        });
        now.sort_unstable_by_key(|record| (record.key, Reverse((record.tier, record.calls))));
        now.dedup_by_key(|record| record.key);
        // Both are in order, and so is what they come to, whatever of it is new.
        let (mut old, mut new) = (records.into_iter().peekable(), now.into_iter().peekable());
        let mut records = Vec::with_capacity(old.len().max(new.len()));
        loop {
            let key = |record: Option<&Record>| record.map_or(u64::MAX, |record| record.key);
            let (before, here) = (key(old.peek()), key(new.peek()));
            records.extend(match (old.next_if(|_| before <= here), new.next_if(|_| here <= before)) {
                (Some(old), Some(new)) => Some(old.merged(new)),
                (Some(one), None) | (None, Some(one)) => Some(one),
                (None, None) => break,
            });
        }
        records.retain(|record| record.calls >= FORGOTTEN || record.tier > 0 && record.calls > 0);
        SavedProfile::of(before.tag(), &records)
    }

    /// Starts from what earlier runs learned: functions that were hot are asked for at once, at the tier they had, the hottest first. Those
    /// that bailed out are not: they count for longer than usual before the policies are asked of them, 1,000 calls for one
    /// bailout, doubling for each further one up to the seventh. Call it once the program is loaded;
    /// [`recall_one`](Engine::recall_one) is for functions that come later. Costs a [walk](Engine::walk) with a binary search for each.
    pub fn recall(&self, profile: &SavedProfile) -> Recalled {
        let (mut done, mut hot) = (Recalled::default(), Vec::new());
        self.walk(|bead| match self.key(bead).and_then(|key| profile.get(key)) {
            None => done.unknown += 1,
            Some(known) => hot.push((known, bead)),
        });
        hot.sort_by_key(|(known, _)| Reverse(known.calls));
        for (known, bead) in hot {
            self.apply(bead, known, &mut done);
        }
        done
    }

    /// As [`recall`](Engine::recall), for one function.
    pub fn recall_one(&self, profile: &SavedProfile, bead: Bead) -> Recalled {
        let mut done = Recalled::default();
        match self.key(bead).and_then(|key| profile.get(key)) {
            None => done.unknown = 1,
            Some(known) => self.apply(bead, known, &mut done),
        }
        done
    }

    fn apply(&self, bead: Bead, known: Remembered, done: &mut Recalled) {
        if known.bailouts > 0 {
            self.shared().ask_after(bead, known.delay());
            done.delayed += 1;
        } else if known.tier > TierId::INTERPRETER {
            // An engine of fewer tiers gives it the highest there is.
            let top = self.shared().drain.lanes.top();
            match self.promote(bead, known.tier.min(top)) {
                Ok(()) => done.promoted += 1,
                Err(error) => done.refused.push((bead, error)),
            }
        }
    }
}

impl fmt::Debug for SavedProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SavedProfile({} functions)", self.len())
    }
}
