//! Hits of the code cache, beside the shape of revmc's runtime: a sharded map of counted entries, and a queue that hears of each
//! lookup.

use super::{Case, Made, Row, Scale, Subject, only};
use crate::contender::Who;
use crate::measure::{together, trivial_entry};
use crate::target::Target;
use beadwork::resident::{CacheMutator, CodeCache};
use beadwork::{CompiledCode, Engine, FnBackend, Job, Tier};
use crossbeam_queue::ArrayQueue;
use dashmap::DashMap;
use foldhash::fast::RandomState;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::hash::{Hash, Hasher};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

/// Keys there are, where there are many.
const MANY: usize = 100_000;

/// What a source is does not matter to a hit.
const SOURCE: &[u8] = b"source";

/// A content hash. Eight bytes of it are a hash already, which both sides make use of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content([u8; 32]);

impl Hash for Content {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut eight = [0; 8];
        eight.copy_from_slice(&self.0[..8]);
        state.write_u64(u64::from_ne_bytes(eight));
    }
}

pub(crate) fn contents(count: usize) -> Vec<Content> {
    let mut random = SmallRng::seed_from_u64(0x5eed);
    (0..count).map(|_| Content(random.random())).collect()
}

pub(super) fn cases(scale: Scale) -> Vec<Case> {
    let lookups = scale.pick(1 << 22, 1 << 19);
    let rows = vec![
        vec![Row::nanos("one key, one thread").target(Target::FasterThan(Who::DashMap, 3.0))],
        vec![Row::nanos("one key, two threads").target(Target::FasterThan(Who::DashMap, 10.0))],
        vec![Row::nanos("100 of 100 K keys, one thread")],
        vec![Row::nanos("100 K keys at random, one thread")],
    ];
    let made = move || {
        let made = vec![(Who::Beadwork, made::<Resident>(lookups)), (Who::DashMap, made::<Shape>(lookups))];
        only(made, "has no keys")
    };
    vec![Case::new("code cache, hits", rows, made)]
}

/// A cache that has code for some keys.
pub(crate) trait Keys: Sync + 'static {
    type Thread<'k>
    where
        Self: 'k;
    fn new(keys: &[Content]) -> Self;
    fn thread(&self) -> Self::Thread<'_>;
    fn lookup(thread: &mut Self::Thread<'_>, key: &Content) -> bool;
}

/// beadwork's.
pub(crate) struct Resident(CodeCache<Content>);

impl Keys for Resident {
    type Thread<'k> = CacheMutator<Content>;

    fn new(keys: &[Content]) -> Resident {
        let backend = FnBackend::new(|_: &mut Job<'_>| Ok(CompiledCode::new(trivial_entry())));
        let builder = CodeCache::builder(Tier::new(backend)).engine(Engine::builder().inline());
        let cache = builder.build().expect("address space is there");
        keys.iter().for_each(|key| cache.compile(key, SOURCE).expect("there is room"));
        cache.drain(Duration::from_secs(60)).expect("compiles are short");
        Resident(cache)
    }

    fn thread(&self) -> CacheMutator<Content> {
        self.0.mutator()
    }

    #[inline(always)]
    fn lookup(m: &mut CacheMutator<Content>, key: &Content) -> bool {
        let found = m.lookup(key, SOURCE).code().map(|code| black_box(code.as_ptr())).is_some();
        m.safepoint();
        found
    }
}

/// `DashMap<key, Arc<entry>>`, and each lookup noted in a bounded queue that all threads share. Whoever looks up empties it now and
/// then, which is cheaper than a thread that does.
pub(crate) struct Shape {
    map: DashMap<Content, Arc<usize>, RandomState>,
    events: ArrayQueue<Content>,
}

/// As in revmc's runtime.
const EVENTS: usize = 4_096;

impl Keys for Shape {
    type Thread<'k> = (&'k Shape, u32);

    fn new(keys: &[Content]) -> Shape {
        let map = DashMap::with_hasher(RandomState::default());
        keys.iter().for_each(|key| _ = map.insert(*key, Arc::new(trivial_entry().expose_provenance())));
        Shape { map, events: ArrayQueue::new(EVENTS) }
    }

    fn thread(&self) -> (&Shape, u32) {
        (self, 0)
    }

    #[inline(always)]
    fn lookup((shape, count): &mut (&Shape, u32), key: &Content) -> bool {
        let found = shape.map.get(key).map(|entry| Arc::clone(&entry));
        let _ = shape.events.push(*key);
        *count += 1;
        if count.is_multiple_of(1_024) {
            while shape.events.pop().is_some() {}
        }
        // Held for the call.
        black_box(&found).is_some()
    }
}

fn made<C: Keys>(lookups: usize) -> Made {
    Ok(Box::new(Hits { cache: C::new(&contents(MANY)), lookups }))
}

struct Hits<C> {
    cache: C,
    lookups: usize,
}

impl<C: Keys> Subject for Hits<C> {
    fn sample(&mut self, stage: usize) -> super::Sample {
        let keys = contents(MANY);
        let (threads, order) = match stage {
            0 => (1, &keys[..1]),
            1 => (2, &keys[..1]),
            2 => (1, &keys[..100]),
            _ => (1, &keys[..]),
        };
        let order: Vec<_> = if order.len() == 1 { vec![order[0]; 1_024] } else { order.to_vec() };
        let rounds = self.lookups.div_ceil(order.len());
        let prepare = |_: &()| {
            let mut thread = self.cache.thread();
            // Everything is touched, and where a thread keeps keys of its own, they are there.
            (0..10).for_each(|_| order.iter().for_each(|key| assert!(C::lookup(&mut thread, key))));
            thread
        };
        let took = together(&vec![(); threads], prepare, |thread| {
            for _ in 0..rounds {
                order.iter().for_each(|key| _ = black_box(C::lookup(thread, black_box(key))));
            }
        });
        Ok(vec![took.busy / (rounds * order.len()) as f64])
    }
}
