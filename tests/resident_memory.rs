//! The code cache with code in real executable memory: mappings, pages, and the budget counted in them.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod common;
use beadwork::resident::*;
use beadwork::*;
use beadwork_arena::{Arena, BlockToken, Function};
use common::LONG;
use common::cache::{Key, source};
use std::sync::Arc;

/// Frees blocks of an arena by token.
struct Free(Arena);

impl Reclaim for Free {
    fn reclaim(&self, tokens: &[u32]) {
        let tokens: Vec<_> = tokens.iter().map(|&token| BlockToken::from_bits(token)).collect();
        self.0.free_many(&tokens).unwrap();
    }
}

/// Places functions of about a hundred bytes, a batch at a time.
struct Places {
    arena: Arena,
    reclaim: Arc<dyn Reclaim>,
}

impl Places {
    fn new() -> Places {
        let arena = Arena::builder().build().unwrap();
        Places { reclaim: Arc::new(Free(arena.clone())), arena }
    }
}

impl Backend for Places {
    fn compile(&self, jobs: &mut [Job<'_>]) {
        let codes: Vec<_> =
            jobs.iter().map(|job| machine_code(*Unit::<Key>::of(job).unwrap().key())).collect();
        let function = |code| Function { name: "f", code, align: 16, relocations: &[], unwind: None };
        let functions: Vec<_> = codes.iter().map(|code| function(code)).collect();
        for (job, block) in jobs.iter_mut().zip(self.arena.place(&functions).unwrap()) {
            let (entry, bytes) = (block.entry(), block.len());
            let owner = CodeOwner::token(self.reclaim.clone(), block.into_token().to_bits());
            job.finish(Ok(CompiledCode::new(entry).owner(owner).with_bytes(bytes)));
        }
    }

    fn memory(&self) -> Option<CodeMemory> {
        let stats = self.arena.stats();
        let (held, live) = (stats.resident_bytes as u64, stats.live_bytes as u64);
        Some(CodeMemory::new(self.arena.id(), held, live, stats.live_blocks as u64))
    }
}

/// `mov eax, key; ret`, and some padding, more for some keys than for others.
fn machine_code(key: Key) -> Vec<u8> {
    let mut code = vec![0xb8];
    code.extend((key as u32).to_le_bytes());
    code.push(0xc3);
    code.resize(64 + key as usize % 64, 0xcc);
    code
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

#[test]
fn p29_a_hundred_thousand_resident_keys_take_few_mappings_and_the_pages_they_fill() {
    const KEYS: u64 = 100_000;
    let places = Arc::new(Places::new());
    let engine = Engine::builder().inline().capacity(1 << 17);
    let cache = CodeCache::<Key>::builder(Tier::new(places.clone())).engine(engine).build().unwrap();
    let before = mappings();
    for key in 0..KEYS {
        cache.compile(&key, &source(key)).unwrap();
    }
    cache.drain(LONG).unwrap();
    let stats = cache.stats();
    assert_eq!(stats.resident, KEYS);
    assert!(mappings() < before + 64, "{} mappings more", mappings() - before);
    let (held, code) = (stats.held_bytes.unwrap(), stats.code_bytes);
    assert_eq!(held, places.arena.stats().resident_bytes as u64);
    // 32-byte granules, 64 to 127 bytes used of them: an eighth more at most, on average.
    assert!(held >= code && held < code + code / 4, "{held} held for {code} of code");
    let m = cache.mutator();
    assert!((0..KEYS).all(|key| m.get(&key).is_some()));
    drop(m);
    assert_eq!(cache.clear_resident() as u64, KEYS);
    cache.engine().reclaim();
    assert_eq!(places.arena.stats().live_blocks, 0);
}

#[test]
fn c8_the_budget_is_kept_in_pages_that_are_really_held() {
    const BUDGET: u64 = 1 << 20;
    const BATCH: usize = 32;
    // The pages one batch takes, and one for a start: the batch that goes beyond is answered at its end, and its pages are given back
    // when threads have passed.
    const ONE_BATCH: u64 = 2 * 4096;
    let places = Arc::new(Places::new());
    let engine = Engine::builder().inline().capacity(1 << 17);
    let tier = Tier::new(places.clone()).batch(BATCH);
    let cache = CodeCache::<Key>::builder(tier).engine(engine).byte_budget(BUDGET).build().unwrap();
    let mut m = cache.mutator();
    for key in 0..50_000 {
        cache.compile(&key, &source(key)).unwrap();
        if key % BATCH as u64 == 0 {
            cache.drain(LONG).unwrap();
            let held = places.memory().unwrap().held_bytes;
            assert!(held <= BUDGET + ONE_BATCH, "{held} bytes after key {key}; {}", cache.stats());
        }
        m.safepoint();
    }
    let stats = cache.stats();
    assert!(stats.evicted > 30_000, "{stats}");
    // No more than that had to go.
    assert!(stats.code_bytes > BUDGET / 2, "{stats}");
}

#[test]
fn c8_caches_that_share_pages_have_budgets_of_their_own() {
    const BUDGET: u64 = 1 << 20;
    let places = Arc::new(Places::new());
    let build = |budget| {
        let engine = Engine::builder().inline().capacity(1 << 15);
        let builder = CodeCache::<Key>::builder(Tier::new(places.clone())).engine(engine);
        builder.byte_budget(budget).build().unwrap()
    };
    let (large, small) = (build(1 << 30), build(BUDGET));
    let fill = |cache: &CodeCache<Key>, keys: std::ops::Range<u64>| {
        let mut m = cache.mutator();
        for key in keys {
            cache.compile(&key, &source(key)).unwrap();
            if key % 32 == 0 {
                cache.drain(LONG).unwrap();
            }
            m.safepoint();
        }
        cache.drain(LONG).unwrap();
    };
    // More than twice the budget of the other.
    fill(&large, 0..25_000);
    fill(&small, 0..2_000);
    let stats = small.stats();
    assert_eq!((stats.resident, stats.evicted), (2_000, 0), "{stats}");
    let held = stats.held_bytes.unwrap();
    assert!((stats.code_bytes * 3 / 4..=stats.code_bytes * 5 / 4).contains(&held), "{stats}");
    fill(&small, 2_000..20_000);
    let stats = small.stats();
    assert!(stats.evicted > 5_000 && stats.code_bytes <= BUDGET, "{stats}");
    assert_eq!(large.stats().resident, 25_000);
}
