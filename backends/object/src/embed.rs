//! What of the engine's goes into code, by names that mean the same in another process.

use beadwork::{Bead, Job};
use std::fmt;

/// Whose slot, handle or budget code contains.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Of {
    /// That of the function whose code it is, which needs no key for that.
    Itself,
    /// That of the function with this [key](beadwork::BeadInfo::key); 0 for one that has none.
    Key(u64),
}

impl Of {
    /// What `bead` is called in the code of a job.
    pub fn bead(bead: Bead, job: &Job<'_>) -> Of {
        if bead == job.bead() { Of::Itself } else { Of::Key(job.key_of(bead)) }
    }

    fn parse(word: &str) -> Option<Of> {
        match word {
            "itself" => Some(Of::Itself),
            digits => u64::from_str_radix(digits, 16).ok().filter(|&key| key != 0).map(Of::Key),
        }
    }
}

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Of::Itself => f.write_str("itself"),
            Of::Key(key) => write!(f, "{key:016x}"),
        }
    }
}

/// An address or a number of the engine's that code contains.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Embed {
    /// The address of a function's code pointer: [`Job::slot`](beadwork::Job::slot).
    Slot {
        /// The function.
        of: Of,
    },
    /// A function's handle: [`Bead::to_bits`](beadwork::Bead::to_bits).
    Bits {
        /// The function.
        of: Of,
    },
    /// The address of a function's budget: [`Job::budget_slot`](beadwork::Job::budget_slot).
    Budget {
        /// The function.
        of: Of,
    },
    /// The version the code is installed with: [`Job::version`](beadwork::Job::version).
    Version,
    /// The address of one of the counters of the function's own blocks: [`Job::block_counters`](beadwork::Job::block_counters).
    Block {
        /// How many there are.
        count: u32,
        /// Which one.
        index: u32,
    },
    /// Something without a name: code that has it cannot be kept.
    Nameless(&'static str),
}

/// What all names of embedded things begin with; runtime symbols do not.
const PREFIX: &str = "beadwork.";

impl fmt::Display for Embed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        match self {
            Embed::Slot { of } => write!(f, "slot.{of}"),
            Embed::Bits { of } => write!(f, "bits.{of}"),
            Embed::Budget { of } => write!(f, "budget.{of}"),
            Embed::Version => write!(f, "version"),
            Embed::Block { count, index } => write!(f, "block.{count}.{index}"),
            Embed::Nameless(what) => write!(f, "nameless.{what}"),
        }
    }
}

impl Embed {
    /// What a name means; `None` if it is that of a runtime symbol, or of nothing.
    pub fn parse(name: &str) -> Option<Embed> {
        let words: Vec<_> = name.strip_prefix(PREFIX)?.split('.').collect();
        let embed = match *words.as_slice() {
            ["slot", of] => Embed::Slot { of: Of::parse(of)? },
            ["bits", of] => Embed::Bits { of: Of::parse(of)? },
            ["budget", of] => Embed::Budget { of: Of::parse(of)? },
            ["version"] => Embed::Version,
            ["block", count, index] => {
                Embed::Block { count: count.parse().ok()?, index: index.parse().ok()? }
            }
            _ => return None,
        };
        // One name for each thing.
        (embed.to_string() == name).then_some(embed)
    }

    /// What keeps this from having a name, if something does.
    pub(crate) fn nameless(name: &str) -> Option<&str> {
        name.strip_prefix(PREFIX)?.strip_prefix("nameless.")
    }

    /// The same, of a function without a key as nameless as it is.
    #[must_use]
    pub fn named(self) -> Embed {
        match self {
            Embed::Slot { of: Of::Key(0) }
            | Embed::Bits { of: Of::Key(0) }
            | Embed::Budget { of: Of::Key(0) } => Embed::Nameless("a function without a key"),
            named => named,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_what_it_was_made_of_and_other_names_mean_nothing() {
        let all = [
            Embed::Slot { of: Of::Key(7) },
            Embed::Slot { of: Of::Itself },
            Embed::Bits { of: Of::Key(u64::MAX) },
            Embed::Budget { of: Of::Key(1 << 40) },
            Embed::Version,
            Embed::Block { count: 3, index: 2 },
        ];
        for embed in all {
            assert_eq!(Embed::parse(&embed.to_string()), Some(embed));
        }
        let strange = [
            "slot.1",
            "beadwork.slot.1",
            "beadwork.slot.0000000000000000",
            "beadwork.bits",
            "beadwork.bits.Itself",
            "beadwork.block.3",
            "",
        ];
        let strange = strange.into_iter().chain([
            "beadwork.block.+3.2",
            "beadwork.nameless.x",
            "vm_trap",
            "beadwork.version.1",
        ]);
        for name in strange {
            assert_eq!(Embed::parse(name), None, "{name}");
        }
    }

    #[test]
    fn what_belongs_to_a_function_without_a_key_has_no_name() {
        let name = Embed::Slot { of: Of::Key(0) }.named().to_string();
        assert_eq!((Embed::parse(&name), Embed::nameless(&name)), (None, Some("a function without a key")));
        assert_eq!(Embed::nameless(&Embed::Version.to_string()), None);
    }
}
