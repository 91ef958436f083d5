//! An engine and its model, side by side.

mod compile;
mod look;
mod steps;

use crate::faults;
use crate::model::{FAULT_LIMIT, Function, Limits, Model, Piece, Request, THRESHOLDS, TIERS};
use crate::op::{Compile, Made, Op, Setup};
use beadwork::{
    Activity, Bead, CodeOwner, CompiledCode, Core, DeoptHistory, DeoptPolicy, Engine, Event, HandedBack,
    Lease, Mutator, PauseGuard, Recovery, Slot, Tier, TierId, Verdict,
};
use compile::Scripted;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Beads there is room for.
const CAPACITY: usize = 32;

/// Functions whose slots are taken, and whose indices are therefore never used again.
const MOST_SLOTS: usize = 4;

/// Sites of loops. The last two of a function always share a place in a mutator, so they push each other out.
const SITES: [u64; 4] = [1, 2, 0, 0x58db_3ac0_a08a_d0c0];

/// Where the addresses of code begin; it is never run.
const BASE: usize = 1 << 40;

/// From one piece of code to the next, in bytes; the longest.
const STEP: usize = 64;

/// Room for a few pieces.
const LIMITS: Limits = Limits { bytes: 96, idle: Duration::from_secs(4) };

/// How deep compiles are nested in compiles.
const DEPTH: usize = 2;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Inner>>> = const { RefCell::new(None) };
    static PROPOSAL: Cell<Recovery> = const { Cell::new(Recovery::Recompile) };
}

/// See the [crate].
pub struct Rig(Rc<Inner>);

impl std::fmt::Debug for Rig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rig")
    }
}

struct Inner {
    model: RefCell<Model>,
    engine: Engine,
    m: RefCell<Option<Mutator>>,
    other: RefCell<Option<Mutator>>,
    /// What dispatches of each mutator were answered since its last safepoint.
    answered: [RefCell<Vec<usize>>; 2],
    setup: Setup,
    /// What the engine has handed back.
    back: Arc<Mutex<Vec<HandedBack>>>,
    /// Snapshots that are neither used nor dropped.
    notes: Arc<AtomicUsize>,
    script: RefCell<VecDeque<Compile>>,
    depth: Cell<usize>,
    /// The engine's clock, in milliseconds.
    clock: Arc<AtomicU64>,
    /// What the engine told of since the last comparison.
    events: Arc<Mutex<Events>>,
    /// How often each piece was freed.
    freed: Arc<Mutex<Vec<u32>>>,
    leases: RefCell<Vec<(Lease, usize)>>,
    slots: RefCell<Vec<(Bead, Slot)>>,
    pauses: RefCell<Vec<PauseGuard>>,
    /// Invalidations that callbacks heard of, and removals.
    heard: Arc<[AtomicUsize; 2]>,
    /// Submitted closures that are neither run nor dropped.
    shots: Arc<AtomicUsize>,
    shots_made: Cell<usize>,
    /// Operations that were executed.
    operations: Cell<u64>,
    dispatches: Cell<u64>,
}

/// What an engine tells of that the model foresees.
#[derive(Default)]
struct Events {
    requests: Vec<Request>,
    evicted: Vec<(Bead, u64)>,
}

impl Events {
    fn hear(&mut self, event: &Event) {
        match *event {
            Event::Queued { bead, tier, reason, calls } => {
                self.requests.push(Request { bead, tier: tier.get(), reason, calls });
            }
            Event::Evicted { bead, bytes } => self.evicted.push((bead, bytes)),
            _ => (),
        }
    }
}

/// Proposes what the operation says.
struct Proposes;

impl DeoptPolicy for Proposes {
    fn decide(&self, _: &DeoptHistory) -> Recovery {
        PROPOSAL.get()
    }

    fn keeps_baseline(&self) -> bool {
        true
    }
}

fn threshold(activity: &Activity) -> Verdict {
    let threshold = THRESHOLDS[usize::from(activity.target.get()) - 1];
    if activity.calls >= threshold { Verdict::Promote } else { Verdict::wait(threshold - activity.calls) }
}

/// What the frontend notes for a compile; counted while it lives.
struct Note {
    bead: Bead,
    core: Core,
    count: Arc<AtomicUsize>,
}

impl Note {
    fn new(bead: Bead, core: Core, count: &Arc<AtomicUsize>) -> Note {
        count.fetch_add(1, Relaxed);
        Note { bead, core, count: count.clone() }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Relaxed);
    }
}

/// Counts the frees of a piece.
struct Owner(Arc<Mutex<Vec<u32>>>, usize);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.lock().expect("not poisoned")[self.1] += 1;
    }
}

impl Rig {
    /// A new engine without functions.
    pub fn start(setup: Setup) -> Rig {
        faults::hide();
        let _ = faults::wrong();
        let (clock, events): (Arc<AtomicU64>, Arc<Mutex<Events>>) = Default::default();
        let (tells, hears) = (clock.clone(), events.clone());
        let limits = setup.evicts.then_some(LIMITS);
        let builder = Engine::builder()
            .capacity(CAPACITY)
            .inline()
            .clock(move || Duration::from_millis(tells.load(Relaxed)))
            // Which of a function's requests a token speaks of is not in the model.
            .cold_after(Duration::MAX)
            .on_event(move |event| hears.lock().expect("not poisoned").hear(event))
            .fault_limit(FAULT_LIMIT)
            .deopt(Proposes)
            .deopt_governor(false)
            .delivery(true);
        let (back, notes): (Arc<Mutex<Vec<HandedBack>>>, Arc<AtomicUsize>) = Default::default();
        let (takes, counts) = (back.clone(), notes.clone());
        let builder = match setup.hands_back {
            true => builder.hand_back(move |piece| takes.lock().expect("not poisoned").push(piece)),
            false => builder,
        };
        let builder = match setup.snapshots {
            true => builder.snapshot(move |bead, core| Some(Note::new(bead, core, &counts))),
            false => builder,
        };
        let builder = match limits {
            Some(Limits { bytes, idle }) => builder.code_limit(bytes).evict_after(idle),
            None => builder,
        };
        let batch = 1 + usize::from(setup.batch % 4);
        let tiers = (0..TIERS).map(|_| Tier::new(Scripted).policy(threshold).batch(batch));
        let engine = tiers.fold(builder, |builder, tier| builder.tier(tier)).build().expect("an engine");
        let mut model = Model::default();
        (model.hands_back, model.eviction.limits) = (setup.hands_back, limits);
        let inner = Rc::new(Inner {
            model: RefCell::new(model),
            m: RefCell::new(Some(engine.mutator())),
            other: RefCell::new(Some(engine.mutator())),
            answered: Default::default(),
            setup,
            back,
            notes,
            engine,
            script: RefCell::default(),
            depth: Cell::new(0),
            clock,
            events,
            freed: Arc::default(),
            leases: RefCell::default(),
            slots: RefCell::default(),
            pauses: RefCell::default(),
            heard: Arc::default(),
            shots: Arc::default(),
            shots_made: Cell::new(0),
            operations: Cell::new(0),
            dispatches: Cell::new(0),
        });
        CURRENT.set(Some(inner.clone()));
        Rig(inner)
    }

    /// Does it to both, and compares.
    pub fn apply(&self, op: &Op) {
        self.0.apply(op);
    }

    /// Ends the engine: everything is freed, once, and no index has got lost.
    pub fn end(self) -> Done {
        let inner = self.0.clone();
        inner.fill();
        inner.leases.take();
        inner.pauses.take();
        inner.m.take();
        inner.other.take();
        drop(self);
        let Ok(inner) = Rc::try_unwrap(inner) else { panic!("a rig is held by somebody") };
        drop(inner.engine);
        inner.back.lock().expect("not poisoned").clear();
        assert!(inner.freed.lock().unwrap().iter().all(|&times| times == 1), "each piece is freed once");
        assert_eq!(inner.shots.load(Relaxed), 0, "closures are dropped with their engine");
        assert_eq!(inner.notes.load(Relaxed), 0, "so are snapshots");
        let model = inner.model.borrow();
        Done {
            operations: inner.operations.get(),
            dispatches: inner.dispatches.get(),
            evictions: model.eviction.count,
            for_loops: model.for_loops,
        }
    }
}

/// What was executed: operations that are left out because they would make no sense there are not counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    pub operations: u64,
    /// Within them.
    pub dispatches: u64,
    /// Functions whose code was evicted.
    pub evictions: u64,
    /// Compiles asked for because of a loop.
    pub for_loops: u64,
}

impl std::ops::AddAssign for Done {
    fn add_assign(&mut self, other: Done) {
        self.operations += other.operations;
        self.dispatches += other.dispatches;
        self.evictions += other.evictions;
        self.for_loops += other.for_loops;
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        CURRENT.take();
    }
}

fn tier(number: u8) -> TierId {
    TierId::new(number).expect("in range")
}

fn entry(piece: usize) -> u64 {
    (BASE + piece * STEP) as u64
}

/// The entry of a piece into a loop.
fn loop_entry(piece: usize, site: u64) -> u64 {
    let number = (1..).zip(SITES).find(|(_, known)| *known == site).map(|(number, _)| number);
    entry(piece) + number.unwrap_or_else(|| panic!("nobody made site {site}"))
}

fn site(number: u8) -> u64 {
    SITES[usize::from(number) % SITES.len()]
}

fn pointer(address: u64) -> *const u8 {
    std::ptr::without_provenance(address as usize)
}

impl Inner {
    /// The function with that number: a live one, or one that was removed lately.
    fn pick(&self, of: u8) -> Option<Bead> {
        let model = self.model.borrow();
        let (live, gone) = (model.live.len(), model.gone.len());
        let of = usize::from(of) % (live + gone.min(4)).max(1);
        if let Some(function) = model.live.get(of) {
            return Some(function.bead);
        }
        model.gone.get(gone.checked_sub(1 + of - live)?).copied()
    }

    fn with<T>(&self, bead: Bead, change: impl FnOnce(&mut Function) -> T) -> Option<T> {
        self.model.borrow_mut().get(bead).map(change)
    }

    /// The number of one of the VM's assumptions.
    fn assumption(&self, number: u8) -> Option<usize> {
        let model = self.model.borrow();
        Some(model.assumptions.get(usize::from(number) % model.assumptions.len().max(1))?.1)
    }

    /// A new piece of code, with the sites and what it relies on besides.
    fn make(&self, made: Made, more: &[u64], relies: &[usize]) -> (usize, CompiledCode) {
        let assumes = made.assumes.and_then(|number| self.assumption(number));
        let mut model = self.model.borrow_mut();
        let mut sites: std::collections::BTreeSet<u64> = more.iter().copied().collect();
        sites.extend(
            (0..).zip(SITES).filter(|(number, _)| made.sites >> number & 1 == 1).map(|(_, site)| site),
        );
        let number = model.pieces.len();
        let named =
            model.assumptions.iter().find(|(_, known)| Some(*known) == assumes).map(|(named, _)| *named);
        let assumes = assumes.into_iter().chain(relies.iter().copied()).collect();
        let bytes = STEP >> (number % 3);
        model.pieces.push(Piece { version: 0, bytes: bytes as u64, sites: sites.clone(), assumes });
        self.freed.lock().expect("not poisoned").push(0);
        let owner = CodeOwner::boxed(Owner(self.freed.clone(), number));
        let code = CompiledCode::new(pointer(entry(number))).with_bytes(bytes).owner(owner);
        let code = sites.iter().fold(code, |code, &site| code.osr(site, pointer(loop_entry(number, site))));
        (number, named.into_iter().fold(code, CompiledCode::assumes))
    }

    fn was_freed(&self, piece: usize) -> u32 {
        self.freed.lock().expect("not poisoned")[piece]
    }
}
