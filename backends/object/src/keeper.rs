//! Has functions run what an archive holds, and puts there what was compiled.

use crate::driver::function_name;
use crate::embed::{Embed, Of};
use crate::emit::{EmitError, emit};
use crate::link::{Layout, LinkError, Outside, link};
use crate::part::Part;
use crate::place::Staged;
use beadwork::{
    Archive, Artifact, ArtifactKey, Bead, ContentKey, Job, Manifest, Put, Reason, Recipe, RecipeKey, Refusal,
    SaveError,
};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

/// What a backend keeps by: an [`Archive`], and how the backend compiles.
#[derive(Clone, Debug)]
pub struct Keeper {
    archive: Archive,
    /// For tiers whose code does not count itself, and for those whose does.
    recipes: Arc<[(Recipe, RecipeKey); 2]>,
}

/// A compile that may be spared, or kept.
#[derive(Clone, Debug)]
pub struct Begun {
    content: ContentKey,
    counts: bool,
    edition: u64,
    /// The function's key and name.
    function: u64,
    name: String,
    label: Vec<u8>,
}

impl Begun {
    /// Puts what the VM knows the function by into the artifact's [manifest](Manifest::label).
    #[must_use]
    pub fn labelled(mut self, label: Vec<u8>) -> Begun {
        self.label = label;
        self
    }
}

/// What an object may refer to.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations, reason = "functions")]
pub struct Known<'k> {
    /// The live function with a key.
    pub function: &'k dyn Fn(u64) -> Option<Bead>,
    /// The address of a runtime symbol.
    pub symbol: &'k dyn Fn(&str) -> Option<u64>,
}

const ENTRY: &str = "beadwork.entry";

fn loop_symbol(site: u64) -> String {
    format!("beadwork.loop.{site:016x}")
}

impl Keeper {
    /// For a backend that compiles by `recipe`. The archive's tag is added to it, and the version of this crate, which decides what
    /// names in objects mean. So an artifact is of no use to a later version of the backends.
    pub fn new(archive: Archive, recipe: Recipe) -> Keeper {
        let tag = archive.tag();
        let with = |counts| Recipe {
            backend: format!("{}; beadwork-object {}", recipe.backend, env!("CARGO_PKG_VERSION")),
            options: format!("{}; {counts}; {tag}", recipe.options),
            ..recipe.clone()
        };
        let recipes = [with("does not count"), with("counts itself")].map(|recipe| {
            let key = recipe.key();
            (recipe, key)
        });
        Keeper { archive, recipes: Arc::new(recipes) }
    }

    /// The archive.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// How code is compiled for tiers that [count for themselves](Job::counts), or do not.
    pub fn recipe(&self, counts: bool) -> &Recipe {
        &self.recipes[usize::from(counts)].0
    }

    /// What artifacts of `content` are found by, in tiers that do not count for themselves and in those that do.
    pub fn artifact_keys(&self, content: ContentKey) -> [ArtifactKey; 2] {
        self.recipes.each_ref().map(|(_, recipe)| ArtifactKey::of(content, *recipe))
    }

    /// The key of what a compile comes to.
    pub fn artifact_key(&self, begun: &Begun) -> ArtifactKey {
        ArtifactKey::of(begun.content, self.recipes[usize::from(begun.counts)].1)
    }

    /// Starts on a job whose code is made of `content`.
    pub fn begin(&self, job: &Job<'_>, content: ContentKey) -> Begun {
        let name = function_name(job);
        let (counts, edition, function) = (job.counts(), self.archive.edition(), job.key());
        Begun { content, counts, edition, function, name, label: Vec::new() }
    }

    /// The parts of the function, if the archive has them and all they refer to is there. What is found and cannot be used is counted and
    /// told as a warning. A job that is there because the code of its function [failed](Reason::Deopt) gets none: it
    /// would be the same code.
    pub fn load(&self, begun: &Begun, job: &mut Job<'_>, known: Known<'_>) -> Option<Staged> {
        if job.reason() == Reason::Deopt {
            return None;
        }
        let (started, recipe) = (Instant::now(), self.recipe(begun.counts));
        let artifact = self.archive.find(begun.content, recipe, &job.osr_sites()).ok().flatten()?;
        match parts(&artifact, begun, job, known) {
            Ok((function, loops)) => {
                self.archive.loaded();
                let took = started.elapsed();
                Some(Staged { function, bodies: Vec::new(), loops, took, assumes: false })
            }
            Err(refusal) => {
                self.archive.refused(self.artifact_key(begun), &refusal);
                None
            }
        }
    }

    /// Keeps what a compile came to. It may have been placed before; where does not matter.
    ///
    /// # Errors
    /// [`SaveError`], counted and told as a warning; the code is none the worse.
    pub fn save(&self, begun: &Begun, compiled: &Staged) -> Result<Put, SaveError> {
        let (manifest, object) =
            self.object(begun, compiled).inspect_err(|error| self.archive.unsavable(error))?;
        self.archive.save(begun.edition, &manifest, &object)
    }

    fn object(&self, begun: &Begun, compiled: &Staged) -> Result<(Manifest, Vec<u8>), SaveError> {
        let Staged { function: entry, bodies, loops, assumes, .. } = compiled;
        let function = || begun.name.clone();
        let nameless =
            |what: &str, remedy| SaveError::Nameless { function: function(), what: what.to_owned(), remedy };
        if *assumes || !bodies.is_empty() {
            return Err(nameless("assumptions of this process", "compile without them what is to be kept"));
        }
        let mut symbols = BTreeSet::new();
        for (_, name) in
            std::iter::once(entry).chain(loops.iter().map(|(_, part)| part)).flat_map(|part| &part.imports)
        {
            if let Some(what) = Embed::nameless(name) {
                return Err(nameless(
                    what,
                    "give functions keys (BeadInfo::key), and count without call sites",
                ));
            }
            symbols.insert(name.clone());
        }
        let mut parts = vec![(ENTRY.to_owned(), entry)];
        parts.extend(loops.iter().map(|(site, part)| (loop_symbol(*site), part)));
        let object = emit(&parts).map_err(|error| match error {
            EmitError::Address { .. } => {
                nameless("an address without a name", "give it one as a runtime symbol")
            }
            other => SaveError::Object { function: function(), reason: other.to_string() },
        })?;
        let mut manifest = Manifest::new(begun.content, self.recipe(begun.counts).clone());
        manifest.function = begun.function;
        manifest.name = function();
        manifest.label.clone_from(&begun.label);
        manifest.symbols = symbols.into_iter().collect();
        manifest.sites = loops.iter().map(|(site, _)| *site).collect();
        Ok((manifest, object))
    }
}

/// Links an artifact for a job.
fn parts(
    artifact: &Artifact,
    begun: &Begun,
    job: &mut Job<'_>,
    known: Known<'_>,
) -> Result<(Part, Vec<(u64, Part)>), Refusal> {
    let mut embedder = Embedder { job, known, asked: HashMap::new() };
    let missing = |symbol: &str| Refusal::MissingSymbol { symbol: symbol.to_owned() };
    let mut resolve = |name: &str| Some(Outside { address: embedder.address(name)?, name: name.to_owned() });
    let refused = |error| match error {
        LinkError::Unknown(symbol) => Refusal::MissingSymbol { symbol },
        other => Refusal::Object { reason: other.to_string() },
    };
    let mut linked = link(artifact.object(), Layout::Sections, &mut resolve).map_err(refused)?;
    let mut take = |symbol: &str, name: String| {
        let part = linked.take(symbol).ok_or_else(|| missing(symbol))?;
        Ok(Part { name, ..part })
    };
    let entry = take(ENTRY, begun.name.clone())?;
    let sites = artifact.manifest().sites.iter();
    let loops = sites.map(|&site| Ok((site, take(&loop_symbol(site), format!("{}@{site}", begun.name))?)));
    Ok((entry, loops.collect::<Result<_, _>>()?))
}

/// Knows what names mean for a job.
struct Embedder<'a, 'e> {
    job: &'a mut Job<'e>,
    known: Known<'a>,
    /// What was asked for before. Asking the engine again would pin again.
    asked: HashMap<Asked, Option<u64>>,
}

#[derive(PartialEq, Eq, Hash)]
enum Asked {
    Embed(Embed),
    /// The first counter of as many blocks.
    Blocks(u32),
}

impl Embedder<'_, '_> {
    fn address(&mut self, name: &str) -> Option<u64> {
        let Some(embed) = Embed::parse(name) else { return (self.known.symbol)(name) };
        if let Some(&known) = self.asked.get(&Asked::Embed(embed)) {
            return known;
        }
        let address = self.ask(embed);
        self.asked.insert(Asked::Embed(embed), address);
        address
    }

    fn ask(&mut self, embed: Embed) -> Option<u64> {
        match embed {
            Embed::Slot { of } => {
                let bead = self.function(of)?;
                self.job.slot(bead).ok().map(|slot| slot.addr() as u64)
            }
            Embed::Bits { of } => self.function(of).map(Bead::to_bits),
            Embed::Budget { of } => {
                let bead = self.function(of)?;
                self.job.budget_slot(bead).ok().map(|slot| slot.addr() as u64)
            }
            Embed::Version => Some(u64::from(self.job.version())),
            Embed::Block { count, index } => {
                let job = &mut *self.job;
                let first = self.asked.entry(Asked::Blocks(count)).or_insert_with(|| {
                    let first = job.block_counters(count)?.addr(0)?;
                    Some(first as u64)
                });
                first.filter(|_| index < count).map(|first| first + 8 * u64::from(index))
            }
            Embed::Nameless(_) => None,
        }
    }

    fn function(&self, of: Of) -> Option<Bead> {
        match of {
            Of::Itself => Some(self.job.bead()),
            Of::Key(key) => (self.known.function)(key),
        }
    }
}
