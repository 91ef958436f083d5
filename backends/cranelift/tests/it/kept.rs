//! The code cache, with artifacts of real code: what one process prepares another one runs. `c…` are the rows of what the cache promises.

use beadwork::resident::*;
use beadwork::{Archive, ArtifactStore, CompileError, Engine, FileStore, MemoryStore, Threshold, Tier};
use beadwork_cranelift::ir::MemFlagsData;
use beadwork_cranelift::ir::condcodes::IntCC;
use beadwork_cranelift::types::I64;
use beadwork_cranelift::{
    CraneliftBackend, FunctionUnit, InstBuilder, KeptCode, KeptCodeError, KeptKey, OptLevel,
};
use beadwork_object::Keeps;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

type Key = [u8; 32];

/// Far more than any of these tests takes; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(120);

fn key(number: u64) -> Key {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&number.to_le_bytes());
    key
}

/// Each a byte: `+` adds 1, `r` calls the runtime, `s` adds 1 for each number from the argument down by recursion, `b` counts a block,
/// `d` adds 1 from a table, `?` refers to something without a name, `!` is a mistake.
fn source(number: u64) -> &'static [u8] {
    [&b"+"[..], b"+r", b"s", b"+b", b"++d", b"sr+"][number as usize % 6]
}

fn expected(source: &[u8], x: i64) -> i64 {
    source.iter().fold(x, |x, op| match op {
        b'+' | b'd' => x + 1,
        b'r' => x * 3,
        b's' => 2 * x,
        _ => x,
    })
}

extern "C" fn thrice(x: i64) -> i64 {
    x * 3
}

fn build(unit: &mut FunctionUnit<'_, '_>) -> Result<(), CompileError> {
    let source = Unit::<Key>::of(unit.job())?.source().to_vec();
    let signature = crate::rig::signature(unit);
    let mut x = unit.begin(&signature)[0];
    let itself = unit.bead();
    for op in source {
        x = match op {
            b'+' => unit.builder().ins().iadd_imm_s(x, 1),
            b'r' => {
                let function = unit.symbol("thrice", &signature);
                let call = unit.builder().ins().call(function, &[x]);
                unit.builder().inst_results(call)[0]
            }
            b's' => {
                // sum(-1 - n) = n by recursion through the own slot; a negative argument is one of those calls.
                let b = unit.builder();
                let (inner, outer, end) = (b.create_block(), b.create_block(), b.create_block());
                let negative = b.ins().icmp_imm_s(IntCC::SignedLessThan, x, 0);
                b.append_block_param(end, I64);
                b.ins().brif(negative, inner, &[], outer, &[]);
                b.switch_to_block(inner);
                let left = b.ins().bnot(x);
                let (more, none) = (b.create_block(), b.create_block());
                b.ins().brif(left, more, &[], none, &[]);
                b.switch_to_block(none);
                let zero = b.ins().iconst(I64, 0);
                b.ins().return_(&[zero]);
                b.switch_to_block(more);
                let next = b.ins().iadd_imm_s(x, 1);
                let call = unit.call_bead(itself, &signature, &[next]);
                let below = unit.builder().inst_results(call)[0];
                let result = unit.builder().ins().iadd_imm_s(below, 1);
                unit.builder().ins().return_(&[result]);
                unit.builder().switch_to_block(outer);
                let first = unit.builder().ins().bnot(x);
                let call = unit.call_bead(itself, &signature, &[first]);
                let sum = unit.builder().inst_results(call)[0];
                let sum = unit.builder().ins().iadd(x, sum);
                unit.builder().ins().jump(end, &[sum.into()]);
                unit.builder().switch_to_block(end);
                unit.builder().block_params(end)[0]
            }
            b'b' => {
                unit.count_blocks(2);
                unit.count_block(1);
                x
            }
            b'd' => {
                let table = unit.data(&[0, 1], 1);
                let one = unit.builder().ins().uload8(I64, MemFlagsData::trusted(), table, 1);
                unit.builder().ins().iadd(x, one)
            }
            b'?' => {
                let sites = unit.call_sites(1).expect("room for one");
                let site = sites.site(0).expect("the one");
                unit.count_direct_call(site, itself);
                x
            }
            _ => return Err(CompileError::failed("a mistake in the source")),
        };
    }
    unit.builder().ins().return_(&[x]);
    Ok(())
}

/// One life: an engine, a backend and a cache, as a process has them.
struct Life {
    cache: CodeCache<Key>,
    archive: Archive,
    built: Arc<AtomicUsize>,
}

/// What can be different from life to life.
struct Options {
    tag: &'static str,
    level: OptLevel,
    aot: bool,
    preload: bool,
}

const PLAIN: Options = Options { tag: "", level: OptLevel::Speed, aot: false, preload: false };

impl Life {
    fn new(store: impl ArtifactStore, options: &Options) -> Life {
        let archive = Archive::tagged(store, options.tag);
        let built = Arc::new(AtomicUsize::new(0));
        let count = built.clone();
        let frontend = move |unit: &mut FunctionUnit<'_, '_>| {
            count.fetch_add(1, SeqCst);
            build(unit)
        };
        let backend = crate::rig::options()
            .opt_level(options.level)
            .symbol("thrice", thrice as *const u8)
            .archive(archive.clone());
        let backend = Arc::new(backend.build(frontend).unwrap());
        let cache = CodeCache::builder(Tier::new(backend.clone()).policy(Threshold::new(2)))
            .engine(Engine::builder().inline().capacity(1 << 10))
            .artifacts(KeptCode::new(backend).unwrap())
            .aot(options.aot)
            .preload(options.preload)
            .build()
            .unwrap();
        Life { cache, archive, built }
    }

    fn prepare(&self, numbers: impl IntoIterator<Item = u64>) {
        let refused = self.cache.prepare_batch(numbers.into_iter().map(|n| (key(n), source(n))));
        assert_eq!(refused, []);
        self.cache.drain(PATIENCE).unwrap();
    }

    /// Looks a key up, compiling what that asks for, until there is code; checks what the code does; answers how many lookups it took
    /// and where the code came from.
    fn run(&self, number: u64) -> (usize, Origin) {
        let m = self.cache.mutator();
        for lookups in 1..10 {
            if let Lookup::Compiled { code, origin } = m.lookup(&key(number), source(number)) {
                // SAFETY: the frontend gives functions of this type, and no safepoint is passed meanwhile.
                let function: extern "C" fn(i64) -> i64 = unsafe { std::mem::transmute(code.as_ptr()) };
                for x in [0, 1, 20] {
                    assert_eq!(function(x), expected(source(number), x), "{number}, {x}");
                }
                return (lookups, origin);
            }
            self.cache.drain(PATIENCE).unwrap();
        }
        panic!("no code for {number}");
    }

    fn built(&self) -> usize {
        self.built.load(SeqCst)
    }
}

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kept-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Directory(path)
    }

    fn open(&self) -> FileStore {
        FileStore::open(&self.0).unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Not a test: a process of its own that prepares code, or runs what another one prepared.
#[test]
fn life() {
    let Ok(root) = std::env::var("BEADWORK_KEPT") else { return };
    let store = FileStore::open(root).unwrap();
    if std::env::var("BEADWORK_LIFE").as_deref() == Ok("first") {
        let life = Life::new(store, &PLAIN);
        life.prepare(0..24);
        assert!((0..24).all(|n| life.run(n) == (1, Origin::Compiled)), "prepared code is resident, too");
        assert_eq!((life.cache.stats().kept, life.cache.stats().not_kept, life.built()), (24, 0, 24));
    } else {
        let life = Life::new(store, &Options { preload: true, ..PLAIN });
        life.cache.drain(PATIENCE).unwrap();
        assert!((0..24).all(|n| life.run(n) == (1, Origin::Loaded)));
        let stats = life.cache.stats();
        assert_eq!((stats.loaded, stats.misses, stats.refused, life.built()), (24, 0, 0, 0));
    }
    println!("\nlived");
}

#[test]
fn c7_what_one_process_prepared_another_one_runs_without_compiling() {
    let directory = Directory::new("lives");
    for life in ["first", "second", "third"] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kept::life", "--nocapture"])
            .envs([("BEADWORK_KEPT", directory.0.as_os_str()), ("BEADWORK_LIFE", life.as_ref())])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && told.contains("lived"), "{life}: {told}\n{output:?}");
    }
}

#[test]
fn c7_without_preloading_a_kept_key_is_loaded_at_its_first_lookup() {
    let directory = Directory::new("first-lookup");
    Life::new(directory.open(), &PLAIN).prepare(0..6);
    let life = Life::new(directory.open(), &PLAIN);
    assert_eq!(life.cache.stats().persisted, 6);
    for n in 0..6 {
        assert_eq!(life.run(n), (2, Origin::Loaded));
    }
    // One that was not prepared has to become hot, and is not kept.
    assert_eq!(life.run(7), (3, Origin::Compiled));
    assert_eq!((life.built(), life.cache.stats().persisted, life.archive.stats().saved), (1, 6, 0));
}

#[test]
fn c7_in_ahead_of_time_mode_what_becomes_hot_is_kept() {
    let directory = Directory::new("aot");
    let life = Life::new(directory.open(), &Options { aot: true, ..PLAIN });
    assert_eq!(life.run(1), (3, Origin::Compiled));
    assert_eq!((life.cache.stats().kept, life.cache.stats().persisted), (1, 1));
    assert_eq!(Life::new(directory.open(), &PLAIN).run(1), (2, Origin::Loaded));
}

#[test]
fn c7_what_another_process_kept_meanwhile_is_loaded_and_the_first_stays() {
    let directory = Directory::new("meanwhile");
    let (one, two) = (Life::new(directory.open(), &PLAIN), Life::new(directory.open(), &PLAIN));
    one.prepare([1]);
    // It knows nothing of that, and finds it where it would have compiled.
    assert_eq!(two.run(1), (3, Origin::Loaded));
    two.prepare([1]);
    assert_eq!((two.built(), two.archive.stats().saved, two.cache.stats().kept), (0, 0, 0));
}

/// Calls `change` with the bytes of every artifact, and writes what it answers.
fn damage(store: &impl ArtifactStore, change: impl Fn(usize, &[u8]) -> Vec<u8>) -> usize {
    let mut keys = Vec::new();
    store.keys(&mut |key| keys.push(key)).unwrap();
    for (at, &key) in keys.iter().enumerate() {
        let sound = store.get(key).unwrap().unwrap();
        let _ = store.put(key, &change(at, &sound), true).unwrap();
    }
    keys.len()
}

#[test]
fn c7_p30_damaged_artifacts_are_refused_counted_and_compiled_and_preparing_mends_them() {
    let directory = Directory::new("damaged");
    Life::new(directory.open(), &PLAIN).prepare(0..12);
    let damaged = damage(&directory.open(), |at, sound| match at % 4 {
        0 => sound[..sound.len() - 1].to_vec(),
        1 => [sound, &[0]].concat(),
        2 => Vec::new(),
        _ => sound.iter().map(|byte| byte ^ 0x20).collect(),
    });
    assert_eq!(damaged, 12);
    // Found one by one: each is compiled in the place of what cannot be loaded.
    let life = Life::new(directory.open(), &PLAIN);
    for n in 0..12 {
        assert_eq!(life.run(n), (2, Origin::Compiled));
    }
    let stats = life.cache.stats();
    assert_eq!((stats.refused, stats.loaded, stats.failed, stats.persisted), (12, 0, 0, 0));
    assert_eq!(life.built(), 12);
    // Preloaded: passed over, and nothing is remembered of them.
    let preloading = Life::new(directory.open(), &Options { preload: true, ..PLAIN });
    preloading.cache.drain(PATIENCE).unwrap();
    let stats = preloading.cache.stats();
    assert_eq!((stats.refused, stats.keys, preloading.built()), (12, 0, 0));
    preloading.prepare(0..12);
    assert_eq!((preloading.cache.stats().kept, preloading.archive.stats().saved), (12, 12));
    let next = Life::new(directory.open(), &PLAIN);
    assert!((0..12).all(|n| next.run(n) == (2, Origin::Loaded)));
}

#[test]
fn c7_code_of_another_level_or_machine_is_not_found_and_under_its_name_refused() {
    let store = MemoryStore::new();
    Life::new(store.clone(), &PLAIN).prepare(0..3);
    for other in [Options { level: OptLevel::None, ..PLAIN }, Options { tag: "another VM", ..PLAIN }] {
        let life = Life::new(store.clone(), &Options { preload: true, ..other });
        life.cache.drain(PATIENCE).unwrap();
        assert_eq!(life.run(0), (3, Origin::Compiled));
        assert_eq!((life.cache.stats().loaded, life.cache.stats().refused), (0, 0));
    }
    // Somebody renames the files: what they say of themselves counts.
    let other = MemoryStore::new();
    Life::new(other.clone(), &Options { level: OptLevel::None, ..PLAIN }).prepare([0]);
    let mut keys = Vec::new();
    other.keys(&mut |key| keys.push(key)).unwrap();
    let foreign = other.get(keys[0]).unwrap().unwrap();
    damage(&store, |_, _| foreign.to_vec());
    let life = Life::new(store, &PLAIN);
    assert_eq!(life.run(0), (2, Origin::Compiled));
    assert_eq!((life.archive.stats().recipe, life.cache.stats().refused), (1, 1));
}

#[test]
fn c7_code_that_has_no_name_beyond_the_process_runs_and_is_not_kept() {
    let life = Life::new(MemoryStore::new(), &PLAIN);
    life.cache.prepare(&key(1), &b"+?"[..]).unwrap();
    life.cache.prepare(&key(2), &b"!"[..]).unwrap();
    life.cache.drain(PATIENCE).unwrap();
    let stats = life.cache.stats();
    assert_eq!((stats.succeeded, stats.failed), (1, 1));
    assert_eq!((stats.kept, stats.not_kept, stats.persisted), (0, 1, 0));
    assert!(life.cache.mutator().get(&key(1)).is_some());
}

#[test]
fn c6_clears_of_artifacts_are_done_when_they_return_and_leave_what_runs() {
    let directory = Directory::new("cleared");
    let life = Life::new(directory.open(), &PLAIN);
    life.prepare(0..6);
    life.cache.clear_persisted().unwrap();
    assert_eq!((life.cache.stats().persisted, life.cache.stats().resident), (0, 6));
    assert!((0..6).all(|n| life.run(n) == (1, Origin::Compiled)));
    assert_eq!(Life::new(directory.open(), &PLAIN).run(0), (3, Origin::Compiled));
    // Resident code alone: what was kept is loaded again.
    life.prepare(10..13);
    assert_eq!(life.cache.clear_resident(), 9);
    assert_eq!((life.run(10), life.run(0)), ((2, Origin::Loaded), (3, Origin::Compiled)));
    // Both, on a disabled cache.
    life.cache.set_enabled(false).unwrap();
    assert_eq!(life.cache.clear_all().unwrap(), 2);
    life.cache.set_enabled(true).unwrap();
    assert_eq!(life.run(10), (3, Origin::Compiled));
    let stats = life.cache.stats();
    assert_eq!((stats.persisted, stats.kept, stats.resident), (0, 9, 1));
}

#[test]
fn c11_the_figures_of_artifacts_are_exact() {
    let store = MemoryStore::new();
    Life::new(store.clone(), &PLAIN).prepare(0..5);
    let life = Life::new(store, &PLAIN);
    assert_eq!(life.cache.preload().unwrap(), 5);
    life.cache.drain(PATIENCE).unwrap();
    life.prepare(3..8);
    let stats = life.cache.stats();
    assert_eq!((stats.dispatched, stats.succeeded, stats.loaded), (10, 10, 7));
    assert_eq!((stats.kept, stats.not_kept, stats.persisted, stats.refused), (3, 0, 8, 0));
    let text = stats.to_string();
    assert!(text.ends_with("Artifacts: 8 known, 3 written here, 0 refused"), "{text}");
}

#[test]
fn a_backend_without_an_archive_keeps_nothing_and_says_so() {
    let backend = Arc::new(CraneliftBackend::builder().build(build).unwrap());
    let refused = KeptCode::<Key, _>::new(backend).unwrap_err();
    assert!(matches!(refused, KeptCodeError::NoArchive) && refused.to_string().contains("archive"));
}

#[test]
fn keys_come_back_as_they_were_and_other_labels_are_none() {
    fn same<K: KeptKey + std::fmt::Debug>(key: K) {
        assert_eq!(K::from_label(&key.to_label()), Some(key));
    }
    same(7u32);
    same(u64::MAX);
    same(1u128 << 100);
    same([1u8, 2, 3]);
    same(vec![0u8, 255]);
    same("naïve".to_owned());
    assert_eq!((u64::from_label(b"1234567"), String::from_label(b"\xff")), (None, None));
}

#[test]
fn c7_artifacts_are_of_no_use_to_another_version_of_what_generates_code() {
    let archive = Archive::new(MemoryStore::new());
    let backend = crate::rig::options().archive(archive).build(build).unwrap();
    let recipe = backend.keeper().unwrap().recipe(false);
    for generator in ["cranelift ", "beadwork-cranelift ", "beadwork-object "] {
        let version = recipe.backend.split("; ").find_map(|named| named.strip_prefix(generator));
        assert!(version.is_some_and(|version| version.starts_with(char::is_numeric)), "{}", recipe.backend);
    }
}
