//! Why what has no mutant is right all the same: edges without atomics, orderings that another one stands for, and Relaxed
//! accesses.

/// Edges that locks or other edges hold up, not atomic accesses of their own, and which.
pub const NOT_BY_ATOMICS: &[(&str, &str)] = &[
    ("LEASE", "the lock of the leases, and PUBLISH for the second look"),
    ("REUSE", "the lock of the free list, and RETIRE for its stamps"),
    ("BUDGET", "Relaxed by intention: a lost count costs nothing, and no value can be stuck"),
    ("ASSUME", "the lock of the assumptions, and CLAIM"),
    ("DEOPT", "the locks of the records and of held code, and CLAIM"),
];

const COUNTED: &str =
    "a count that only says whether to look; who looks is ordered by the fences of WAKE, CLOSE and PAUSE";
const FENCED: &str = "the SeqCst fence next to it orders as much";
const SCANNED: &str = "`FreeList::pop` gives the index out after a scan, whose SeqCst fence stands for it in the models; not so for \
                       the later ones of a batch, and those are too many for a model";
const LIKE_THE_KEY: &str = "as `core-key-load`";
const ALONE: &str = "a forked child has one thread";
const WAKES: &str = "`wake` puts a SeqCst fence between push and signal and `enter` one between look and scan, and that the word is one \
                     location does the rest; crossbeam's own orderings come on top. On weaker machines: stress and ThreadSanitizer";

/// Accesses without a mutant, because weakening them alone changes nothing that could be observed, and why.
pub const HELD_OTHERWISE: &[(&str, &str)] = &[
    (
        "backends/arena/src/icache.rs fence: fence Release",
        "instruction fetches are not modelled; the arena's p27 test has the order of its steps",
    ),
    ("src/crew.rs is_closed: closed.load Acquire", "the fences of CLOSE and the lock of the seats decide"),
    ("src/shared.rs close: closed.store Release", "the fences of CLOSE and the lock of the seats decide"),
    (
        "src/drain/seat.rs new: busy.fetch_add AcqRel",
        "the fence in `enter` comes between it and the pop that lets see it",
    ),
    (
        "src/drain/seat.rs drop: busy.fetch_update AcqRel/Acquire",
        "the fence in `leave` comes before, and orders as much",
    ),
    ("src/drain.rs work_inline: seen_busy.swap AcqRel", FENCED),
    ("src/drain.rs is_idle: seen_busy.store Release", FENCED),
    ("src/drain.rs is_paused: paused.load Acquire", "the wake word orders it, and the fence of PAUSE"),
    ("src/drain.rs pause: paused.fetch_add AcqRel", "a pause says nothing of work that has begun"),
    (
        "src/drain.rs resume: paused.fetch_update AcqRel/Acquire",
        "the wake word orders it, and the fence of PAUSE",
    ),
    ("src/gate.rs enter: door.fetch_sub Release", "nothing was done since it entered"),
    ("src/gate.rs enter: door.load Acquire", "the next try to enter acquires"),
    ("src/gate.rs open_in_child: door.store Release", ALONE),
    ("src/grace/member.rs come_online: epoch.load Acquire", FENCED),
    ("src/grace.rs scan: epoch.load Acquire", FENCED),
    (
        "src/grace.rs scan: fence SeqCst",
        "what unlinks code tells waiting threads and passes SETTLE's fence, which stands for this one in every model; \
      not so what drops held code, see ONLINE for the proof",
    ),
    ("src/info.rs set: key.store Release", SCANNED),
    ("src/info.rs set: size.store Release", SCANNED),
    ("src/info.rs set: group.store Release", SCANNED),
    ("src/table.rs register_taken: core.store Release", SCANNED),
    ("src/info.rs size: size.load Acquire", LIKE_THE_KEY),
    ("src/info.rs group: group.load Acquire", LIKE_THE_KEY),
    ("src/osr/tables.rs len: words.load Acquire", "answers from the word alone"),
    ("src/profile/records.rs forget: fence SeqCst", "`remove` passes `forget_all`'s fence before"),
    ("src/queue.rs taken: waiting.fetch_sub AcqRel", "the fence in `enter` comes before, and orders as much"),
    ("src/queue.rs holds_some: ranked.load Acquire", COUNTED),
    ("src/queue.rs take_into: ranked.store Release", COUNTED),
    (
        "src/queue.rs enter: fence SeqCst",
        "a worker that a push brought here is ordered after the fence between that push and its signal",
    ),
    ("src/queue.rs enter: count.fetch_update AcqRel/Acquire", COUNTED),
    ("src/queue.rs enter: optimizing.fetch_sub AcqRel", COUNTED),
    ("src/queue.rs has_place: optimizing.load Acquire", COUNTED),
    ("src/queue.rs has_place: running.load Acquire", COUNTED),
    ("src/queue.rs leave: count.fetch_update AcqRel/Acquire", COUNTED),
    (
        "src/table/code.rs count_dispatches: code.store Release",
        "the sweep that calls it has locked what others lock after an install; the rule costs nothing",
    ),
    (
        "src/table/code.rs slot: cell.store Release",
        "the state word's release comes before the address is answered",
    ),
    ("src/table/code.rs slot_cell: cell.load Acquire", "the models' stand-in for native code's load"),
    ("src/wake.rs signal: load Acquire", WAKES),
    ("src/wake.rs signal: compare_exchange AcqRel/Acquire", WAKES),
    ("src/wake.rs look: load Acquire", WAKES),
    ("src/wake.rs leave: fetch_add AcqRel", WAKES),
    ("src/wake.rs leave: compare_exchange AcqRel/Acquire", WAKES),
    ("src/wake.rs quit: fetch_update AcqRel/Acquire", WAKES),
    ("src/wake.rs is_still: load Acquire", WAKES),
    ("src/wake.rs active: load Acquire", WAKES),
    ("src/wake.rs forget_workers: fetch_and AcqRel", ALONE),
    (
        "src/unit.rs get: len.fetch_add AcqRel",
        "the redefinition has passed SETTLE's fence before, which orders as much",
    ),
    ("src/unit.rs forget: len.fetch_sub AcqRel", "who finds too many only takes the lock"),
];

const ADVICE: &str = "advice or a hint; nothing is read because of it, and a late look costs a late answer";
const BIT: &str =
    "written only under the publishing bit, and read Relaxed only there: edge CLAIM orders its holders";
const COUNTS: &str = "a lossy count, native code's too; cleared when given out: edge REUSE";
const END: &str = "read when no other thread is left";
const FORK_LOCK: &str = "written under a lock, or by the only thread that can read its own value";
const LOCKED_LEN: &str =
    "a length that goes with a lock: whose change has to be seen is ordered by the transition it goes with";
const NUMBER: &str = "only a number that nobody had before";
const OWN: &str = "a mutator reads what only it writes";
const RETIRED: &str = "a hint whether a scan is worth while; the scan itself locks";
const SUM: &str = "a sum for reports";

/// Why the Relaxed accesses of a cell are enough.
pub const RELAXED: &[(&str, &str)] = &[
    ("backends/arena/src/fork.rs FORKING", FORK_LOCK),
    ("backends/arena/src/fork.rs REGISTERED", FORK_LOCK),
    ("backends/arena/src/unwind/register.rs LIST", "whoever finds it out finds the same"),
    ("src/artifact/archive.rs cleared", NUMBER),
    ("src/artifact/archive.rs counter", SUM),
    ("src/artifact/archive.rs place", ADVICE),
    ("src/artifact/archive.rs saving", ADVICE),
    ("src/artifact/file.rs NEXT", NUMBER),
    ("src/artifact/file.rs lasting", "whoever does not see it does it again"),
    ("src/assumption.rs NEXT", NUMBER),
    (
        "src/assumption.rs broken",
        "the lock of the assumptions orders it, and the publishing bit for who holds that: edge ASSUME",
    ),
    ("src/counter.rs cell", "edge BUDGET"),
    ("src/counter.rs granted", "edge BUDGET"),
    ("src/counter.rs left", "edge BUDGET"),
    ("src/backend.rs done", ADVICE),
    ("src/crew.rs last_now", ADVICE),
    ("src/delivery.rs len", LOCKED_LEN),
    ("src/deopt/mod.rs len", "raised before the publishing bit that takes the code is taken: edge DEOPT"),
    ("src/direct.rs len", "raised before the request is made (edge CLAIM), or fenced (edge SETTLE)"),
    ("src/drain.rs busy", ALONE),
    ("src/drain.rs paused", ALONE),
    ("src/drain/seat.rs done", ADVICE),
    ("src/engine/control.rs enabled", ADVICE),
    ("src/engine/control.rs scale", ADVICE),
    ("src/engine/mod.rs forked", ALONE),
    ("src/engine/mod.rs ticks", ADVICE),
    ("src/engine/recovery.rs enabled", ADVICE),
    ("src/evict.rs swept", ADVICE),
    ("src/executor.rs lost", ALONE),
    (
        "src/executor.rs to_start",
        "in models only: the wake word alone has to order a worker after its request",
    ),
    ("src/fault.rs len", "fenced: edge FAULT"),
    ("src/free.rs len", "a registration that misses a removal takes a fresh index"),
    ("src/gate.rs NEXT", NUMBER),
    ("src/grace.rs epoch", "for a report"),
    ("src/grace.rs waiting", RETIRED),
    ("src/grace.rs waiting_bytes", RETIRED),
    ("src/grace/leases.rs aside", RETIRED),
    ("src/grace/member.rs at", "for a report"),
    ("src/grace/member.rs holds", OWN),
    ("src/heat.rs at", ADVICE),
    ("src/heat.rs before", ADVICE),
    ("src/heat.rs column", ADVICE),
    ("src/heat.rs heat", ADVICE),
    (
        "src/info.rs group",
        "cleared before the index is free: edge REUSE; a reader looks at the state afterwards: edge CORE",
    ),
    (
        "src/info.rs key",
        "cleared before the index is free: edge REUSE; a reader looks at the state afterwards: edge CORE",
    ),
    ("src/info.rs next_group", NUMBER),
    (
        "src/info.rs sides_len",
        "changed before the bead is live and after it was removed; who asks saw it live: edge REGISTER",
    ),
    (
        "src/info.rs size",
        "cleared before the index is free: edge REUSE; a reader looks at the state afterwards: edge CORE",
    ),
    ("src/mutator/safepoint.rs cell", OWN),
    ("src/mutator/safepoint.rs epoch", "a poll states nothing"),
    ("src/native.rs enabled", ADVICE),
    (
        "src/osr/loops.rs len",
        "raised before the publishing bit is taken to flag the entry; an install looks again after its own: edge CLAIM",
    ),
    ("src/osr/tables.rs any", BIT),
    ("src/osr/tables.rs cell", BIT),
    ("src/osr/tables.rs first", "written before the word that names them is published: edge PUBLISH"),
    ("src/osr/tables.rs load", "written before the word that names them is published: edge PUBLISH"),
    ("src/osr/tables.rs second", "written before the word that names them is published: edge PUBLISH"),
    ("src/osr/tables.rs words", BIT),
    ("src/profile/cells.rs load", COUNTS),
    ("src/profile/cells.rs store", COUNTS),
    ("src/profile/records.rs cell", COUNTS),
    ("src/profile/records.rs cells", COUNTS),
    ("src/profile/records.rs count", COUNTS),
    ("src/profile/records.rs first", COUNTS),
    ("src/profile/records.rs others", COUNTS),
    ("src/profile/records.rs len", "fenced: edge FAULT"),
    ("src/promotion.rs enabled", ADVICE),
    ("src/promotion.rs scale", ADVICE),
    ("src/promotion.rs ticks", ADVICE),
    (
        "src/queue.rs batch",
        "advice, looked at anew for each batch; who changes one fences and signals: edge PAUSE",
    ),
    (
        "src/queue.rs enabled",
        "advice, looked at anew for each batch; who changes one fences and signals: edge PAUSE",
    ),
    (
        "src/queue.rs limit",
        "advice, looked at anew for each batch; who changes one fences and signals: edge PAUSE",
    ),
    ("src/queue.rs optimizing", ALONE),
    ("src/queue.rs running", ALONE),
    ("src/queue.rs turn", ADVICE),
    ("src/reclaim.rs over_limit", ADVICE),
    ("src/request.rs numbers", NUMBER),
    ("src/resident/cache.rs now", ADVICE),
    ("src/resident/cache.rs pages_seen", ADVICE),
    ("src/resident/cache.rs swept", "whoever exchanges it sweeps; it publishes nothing"),
    ("src/resident/code_cache.rs to_preload", "whoever takes it preloads; it publishes nothing"),
    ("src/resident/counts.rs hits", SUM),
    ("src/resident/counts.rs misses", SUM),
    ("src/resident/entry.rs loaded", ADVICE),
    ("src/resident/entry.rs marks", ADVICE),
    ("src/resident/entry.rs used", ADVICE),
    ("src/results.rs last_now", ADVICE),
    ("src/shared.rs forked", ALONE),
    ("src/snapshot.rs len", LOCKED_LEN),
    ("src/state.rs compare_exchange", "on failure only: who failed loads the word again"),
    ("src/stats.rs counter", SUM),
    ("src/sync.rs fence", "a mutant's fence that is none"),
    ("src/sync.rs len", "the models' deque promises no more than the real ones"),
    ("src/table.rs cell", END),
    ("src/table.rs code_version", "for who looks at the state as well, or only wants to know"),
    ("src/table.rs core", "stored before the bead is live (edge REGISTER), or read under the publishing bit"),
    ("src/table.rs fetch_update", "only the number is claimed; what the index holds was never touched"),
    ("src/table.rs not_live", SUM),
    ("src/table.rs owner", "a figure for accounts"),
    ("src/table.rs slot", "of an index that nobody else has: edge REUSE"),
    ("src/table.rs used", SUM),
    ("src/table.rs word", END),
    ("src/table/code.rs code", BIT),
    ("src/table/code.rs code_version", BIT),
    ("src/table/code.rs owner", BIT),
    (
        "src/table/take.rs code_version",
        "the word just loaded was released after it was written: edge PUBLISH",
    ),
];
