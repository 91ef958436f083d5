//! What an artifact is as bytes, and what a store in use answers; the file system and processes are in `tests/artifacts.rs`.

use super::*;

fn recipe() -> Recipe {
    let text = str::to_owned;
    Recipe {
        backend: text("acorn 1"),
        options: text("speed"),
        target: text("x86_64"),
        features: text("avx2"),
    }
}

fn content(of: &str) -> ContentKey {
    ContentKey::of([of.as_bytes()])
}

fn manifest(of: &str) -> Manifest {
    let (symbols, sites) = (vec!["vm_trap".to_owned(), "beadwork.bits.1".to_owned()], vec![7, 9]);
    let (name, label) = (of.to_owned(), vec![0, 0xff]);
    Manifest { symbols, sites, name, label, ..Manifest::new(content(of), recipe()) }
}

fn object(of: &str) -> Vec<u8> {
    of.bytes().cycle().take(501).collect()
}

fn packed(of: &str) -> Vec<u8> {
    Artifact::pack(&manifest(of), &object(of)).unwrap()
}

fn open(bytes: &[u8], of: &str) -> Result<Artifact, Refusal> {
    let (key, bytes) = (manifest(of).key(), ArtifactBytes::new(bytes.to_vec()));
    Artifact::open_as(bytes, key, &recipe())
}

#[test]
fn what_was_packed_is_opened_as_it_was() {
    let artifact = open(&packed("fib"), "fib").unwrap();
    let created = artifact.manifest().created;
    assert_eq!(*artifact.manifest(), Manifest { created, ..manifest("fib") });
    assert_eq!(artifact.object(), object("fib"));
}

#[test]
fn every_part_of_a_recipe_and_the_content_make_another_key() {
    let key = |recipe: &Recipe| ArtifactKey::new(content("fib"), recipe);
    let changes: [fn(&mut Recipe); 4] = [
        |recipe| recipe.backend.push('x'),
        |recipe| recipe.options.push('x'),
        |recipe| recipe.target.push('x'),
        |recipe| recipe.features.push('x'),
    ];
    let mut keys = vec![key(&recipe()), ArtifactKey::new(content("other"), &recipe())];
    keys.extend(changes.map(|change| {
        let mut changed = recipe();
        change(&mut changed);
        key(&changed)
    }));
    // What moves from the end of one text to the beginning of the next makes another key, too.
    keys.push(key(&Recipe { backend: "acorn 1s".to_owned(), options: "peed".to_owned(), ..recipe() }));
    let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len());
}

/// A generator of xorshift, since the numbers have to be the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// Bytes that differ from `sound`: flipped, cut, swapped, or with more behind them.
fn corrupt(sound: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    while bytes == sound {
        match numbers.below(4) {
            0 => (0..=numbers.below(3))
                .for_each(|_| bytes[numbers.below(sound.len())] ^= 1 << numbers.below(8)),
            1 => bytes.truncate(numbers.below(sound.len())),
            2 => bytes.swap(numbers.below(sound.len()), numbers.below(sound.len())),
            _ => bytes.extend((0..=numbers.below(64)).map(|at| at as u8)),
        }
        bytes.resize(bytes.len().max(1), 0);
        if bytes.len() == 1 {
            bytes.clear();
        }
    }
    bytes
}

#[test]
fn ten_thousand_corrupted_artifacts_are_refused() {
    let (sound, mut numbers) = (packed("fib"), Numbers(0x9e37_79b9_7f4a_7c15));
    let mut seen = [0; Refusal::KINDS];
    for round in 0..10_000 {
        let refusal = open(&corrupt(&sound, &mut numbers), "fib").expect_err(&format!("round {round}"));
        seen[refusal.kind()] += 1;
    }
    let count = |refusal: Refusal| seen[refusal.kind()];
    assert!(count(Refusal::Format { found: Vec::new() }) > 0, "{seen:?}");
    assert!(count(Refusal::Truncated { expected: 0, found: 0 }) > 1_000, "{seen:?}");
    assert!(count(Refusal::Altered) > 1_000, "{seen:?}");
}

#[test]
fn every_single_bit_and_every_length_matters() {
    let sound = packed("f");
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (at % 8);
        open(&bytes, "f").expect_err(&format!("byte {at}"));
        open(&sound[..at], "f").expect_err(&format!("cut to {at}"));
    }
}

#[test]
fn p30_altered_truncated_and_foreign_artifacts_are_refused_with_the_reason() {
    let sound = packed("fib");
    let mut altered = sound.clone();
    *altered.last_mut().unwrap() ^= 1;
    assert_eq!(open(&altered, "fib").unwrap_err(), Refusal::Altered);
    let (expected, found) = (sound.len() as u64, sound.len() as u64 - 1);
    let cut = &sound[..sound.len() - 1];
    assert_eq!(open(cut, "fib").unwrap_err(), Refusal::Truncated { expected, found });
    let mut later = sound.clone();
    later[8] += 1;
    assert!(matches!(open(&later, "fib"), Err(Refusal::Format { .. })));
    assert!(matches!(open(b"\x7fELF\x02\x01\x01", "fib"), Err(Refusal::Format { .. })));

    let elsewhere = |change: fn(&mut Recipe)| {
        let mut made = manifest("fib");
        change(&mut made.recipe);
        open(&Artifact::pack(&made, b"").unwrap(), "fib").unwrap_err()
    };
    let target = elsewhere(|recipe| recipe.target = "aarch64".to_owned());
    assert_eq!(target.to_string(), "it is for the target `aarch64`; this is `x86_64`");
    let features = elsewhere(|recipe| recipe.features = "avx512f".to_owned());
    assert_eq!(features.to_string(), "it is for a processor with `avx512f`; this one is used with `avx2`");
    let options = elsewhere(|recipe| recipe.options = "none".to_owned());
    assert_eq!(options.to_string(), "it was compiled by `acorn 1 none`, not by `acorn 1 speed`");

    let (expected, found) = (manifest("other").key(), manifest("fib").key());
    assert_eq!(open(&sound, "other").unwrap_err(), Refusal::Misplaced { expected, found });
}

#[test]
fn what_is_found_refused_saved_and_kept_is_counted() {
    let store = MemoryStore::new();
    let artifacts = Archive::new(store.clone());
    assert!(artifacts.find(content("fib"), &recipe(), &[]).unwrap().is_none());
    let save = |of: &str| artifacts.save(artifacts.edition(), &manifest(of), &object(of));
    assert_eq!(save("fib"), Ok(Put::Stored));
    assert_eq!(save("fib"), Ok(Put::Kept), "the first stays");
    assert!(artifacts.find(content("fib"), &recipe(), &[9]).unwrap().is_some());
    let refused = artifacts.find(content("fib"), &recipe(), &[9, 8]).unwrap_err();
    assert_eq!(refused, Refusal::MissingLoop { site: 8 });

    let key = manifest("fib").key();
    let _ = store.put(key, &packed("other"), true).unwrap();
    assert!(matches!(artifacts.find(content("fib"), &recipe(), &[]), Err(Refusal::Misplaced { .. })));
    let mut sound = Vec::new();
    artifacts.each(|manifest| sound.push(manifest.name.clone())).unwrap();
    assert_eq!(sound, Vec::<String>::new());
    assert_eq!(save("fib"), Ok(Put::Stored), "what nobody can use is replaced");
    artifacts.each(|manifest| sound.push(manifest.name.clone())).unwrap();
    assert_eq!(sound, ["fib"]);

    let more = Manifest { sites: vec![1, 2, 3], ..manifest("fib") };
    assert_eq!(artifacts.save(artifacts.edition(), &more, b"x"), Ok(Put::Stored), "it has more loop entries");
    let stats = artifacts.stats();
    assert_eq!((stats.saved, stats.kept, stats.missing), (3, 1, 1));
    assert_eq!((stats.misplaced, stats.missing_loop, stats.refused()), (2, 1, 3));
}

#[test]
fn what_was_compiled_before_a_clear_is_not_saved_after_it() {
    let artifacts = Archive::new(MemoryStore::new());
    let before = artifacts.edition();
    let _ = artifacts.save(before, &manifest("fib"), b"x").unwrap();
    artifacts.clear().unwrap();
    assert!(!artifacts.has(content("fib"), &recipe()));
    let late = artifacts.save(before, &manifest("fib"), b"x");
    assert_eq!(late, Err(SaveError::Cleared { function: "fib".to_owned() }));
    assert!(!artifacts.has(content("fib"), &recipe()));
    let _ = artifacts.save(artifacts.edition(), &manifest("fib"), b"x").unwrap();
    assert!(artifacts.has(content("fib"), &recipe()));
    assert_eq!(artifacts.stats().unsavable, 1);
}

/// Cannot read what it keeps.
#[derive(Clone, Default)]
struct Blind(MemoryStore);

impl ArtifactStore for Blind {
    fn get(&self, _: ArtifactKey) -> std::io::Result<Option<ArtifactBytes>> {
        Err(std::io::Error::other("a bad block"))
    }
    fn put(&self, key: ArtifactKey, bytes: &[u8], replace: bool) -> std::io::Result<Put> {
        self.0.put(key, bytes, replace)
    }
    fn remove(&self, key: ArtifactKey) -> std::io::Result<bool> {
        self.0.remove(key)
    }
    fn keys(&self, visit: &mut dyn FnMut(ArtifactKey)) -> std::io::Result<()> {
        self.0.keys(visit)
    }
}

#[test]
fn c7_what_was_refused_is_replaced_by_the_compile_that_follows_unless_that_comes_to_the_same() {
    let store = MemoryStore::new();
    let artifacts = Archive::new(store.clone());
    let key = manifest("fib").key();
    let save = |object: &[u8]| artifacts.save(artifacts.edition(), &manifest("fib"), object);
    for refusal in [
        Refusal::MissingSymbol { symbol: "gone".to_owned() },
        Refusal::Object { reason: "a relocation nobody knows".to_owned() },
        Refusal::MissingLoop { site: 8 },
    ] {
        let _ = store.put(key, &packed("fib"), true).unwrap();
        assert_eq!(save(b"new"), Ok(Put::Kept), "nobody refused it");
        artifacts.refused(key, &refusal);
        assert_eq!(save(&object("fib")), Ok(Put::Kept), "it is the same");
        assert_eq!(save(b"new"), Ok(Put::Stored), "{refusal}");
        assert_eq!(save(b"newer"), Ok(Put::Kept), "that is as good as any");
        let found = artifacts.find(content("fib"), &recipe(), &[]).unwrap().unwrap();
        assert_eq!(found.object(), b"new");
    }
    let blind = Blind::default();
    let _ = blind.0.put(key, &packed("fib"), true).unwrap();
    let artifacts = Archive::new(blind.clone());
    let refused = artifacts.find(content("fib"), &recipe(), &[]).unwrap_err();
    assert!(matches!(refused, Refusal::Unreadable { .. }), "{refused}");
    assert_eq!(artifacts.save(artifacts.edition(), &manifest("fib"), b"new"), Ok(Put::Stored));
    assert!(blind.0.get(key).unwrap().unwrap().ends_with(b"new"));
}
