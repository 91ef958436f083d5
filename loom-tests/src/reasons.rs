//! Why what has no mutant is right all the same: edges without atomics, orderings that another one stands for, and Relaxed
//! accesses.

/// Edges that locks or other edges hold up, not atomic accesses of their own, and which.
pub const NOT_BY_ATOMICS: &[(&str, &str)] = &[
    ("LEASE", "the lock of the leases, and PUBLISH for the second look"),
    ("REUSE", "the lock of the free list, and RETIRE for its stamps"),
    ("BUDGET", "Relaxed by intention: a lost count costs nothing, and no value can be stuck"),
    ("DEOPT", "the locks of the records and of held code, and CLAIM"),
];

/// Rules of memory, not of an order between threads: no interleaving breaks them.
pub const NOT_OF_ORDER: &[(&str, &str)] = &[
    ("C1", "the length of a column never changes"),
    ("C2", "what the system hands out is zero, and the type says that zero is a value"),
    ("C3", "a mask, in every access"),
];

const COUNTED: &str =
    "a count that only says whether to look; who looks is ordered by the fences of WAKE, CLOSE and PAUSE";
const FENCED: &str = "the SeqCst fence next to it orders as much";
const SCANNED: &str = "`FreeList::pop` gives the index out after a scan, whose SeqCst fence stands for it in the models; not so for \
                       the later ones of a batch, and those are too many for a model";
const LIKE_THE_KEY: &str = "as `core-key-load`";
const ALONE: &str = "a forked child has one thread";
const WAKES: &str = "`wake` has a SeqCst fence between push and signal, which `look` synchronizes with through the word whatever \
                     the signal's own orderings are, and who does not leave looks again. Who is told that nobody works, or reads how many \
                     do, looks at the counts himself";

/// Accesses without a mutant, because weakening them alone changes nothing that could be observed, and why.
pub const HELD_OTHERWISE: &[(&str, &str)] = &[
    (
        "backends/arena/src/icache.rs fence: fence Release",
        "instruction fetches are not modelled; the arena's p27 test has the order of its steps",
    ),
    (
        "backends/capi/src/inline.h : __atomic_load_n __ATOMIC_ACQUIRE",
        "C, which no model runs; the same access in `Mutator::read` has `publish-dispatch`",
    ),
    ("src/crew.rs is_closed: closed.load Acquire", "the fences of CLOSE and the lock of the seats decide"),
    ("src/shared.rs close: closed.store Release", "the fences of CLOSE and the lock of the seats decide"),
    (
        "src/drain/seat.rs new: busy.fetch_add AcqRel",
        "it comes before what this thread takes, so `wake-taken` tells of it who sees that taken; and for who closes, the lock \
      of the seats, and leaving the seat (`close-seat-left`)",
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
    ("src/info.rs set: key.store Release", SCANNED),
    ("src/info.rs set: size.store Release", SCANNED),
    ("src/info.rs set: group.store Release", SCANNED),
    ("src/table.rs register_taken: core.store Release", SCANNED),
    ("src/info.rs size: size.load Acquire", LIKE_THE_KEY),
    ("src/info.rs group: group.load Acquire", LIKE_THE_KEY),
    ("src/osr/tables.rs len: words.load Acquire", "answers from the word alone"),
    ("src/profile/records.rs forget: fence SeqCst", "`remove` passes `forget_all`'s fence before"),
    (
        "src/queue.rs push: waiting.fetch_add AcqRel",
        "it only raises the count: who looks for what waits, after a change of his own, is ordered by the fences of PAUSE and \
      CLOSE, and who finds none by the release in `taken`",
    ),
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
        "src/table/take.rs is_gone: code_version.load Acquire",
        "an install passes SETTLE's fence after it, which orders as much for its own thread; a third one that breaks the assumption \
      needs it, and three are too many for a model",
    ),
    (
        "src/table/code.rs deoptimize: code_version.store Release",
        "`is_gone` looks under the lock of held code, which a revert holds throughout",
    ),
    (
        "src/table/code.rs slot: cell.store Release",
        "the state word's release comes before the address is answered",
    ),
    ("src/table/code.rs slot_cell: cell.load Acquire", "the models' stand-in for native code's load"),
    ("src/wake.rs signal: load Acquire", WAKES),
    ("src/wake.rs signal: compare_exchange AcqRel/Acquire", WAKES),
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
const ANY: &str = "raised before a table's word is published under the bit; who takes that word out holds the bit later: edge CLAIM";
const ATTACHED: &str =
    "raised before the request it comes with is made; who looks for it has claimed or ended that: edge CLAIM";
const FLAG: &str = "the entry was written before the word was published (edge PUBLISH); its flag is advice, changed under the bit: rule O2";

/// Why each Relaxed access is enough.
pub const RELAXED: &[(&str, &str)] = &[
    ("backends/arena/src/fork.rs install: REGISTERED.load Relaxed", FORK_LOCK),
    ("backends/arena/src/fork.rs install: REGISTERED.store Relaxed", FORK_LOCK),
    ("backends/arena/src/fork.rs prepare: FORKING.load Relaxed", FORK_LOCK),
    ("backends/arena/src/fork.rs prepare: FORKING.store Relaxed", FORK_LOCK),
    ("backends/arena/src/fork.rs after: FORKING.load Relaxed", FORK_LOCK),
    ("backends/arena/src/fork.rs after: FORKING.store Relaxed", FORK_LOCK),
    (
        "backends/arena/src/unwind/register.rs detect: LIST.load Relaxed",
        "whoever finds it out finds the same",
    ),
    (
        "backends/arena/src/unwind/register.rs detect: LIST.store Relaxed",
        "whoever finds it out finds the same",
    ),
    (
        "backends/arena/src/unwind/register.rs detect: LIST.load Relaxed (2)",
        "whoever finds it out finds the same",
    ),
    ("backends/cranelift/src/module.rs live_modules: live.load Relaxed", SUM),
    ("backends/cranelift/src/module.rs new: live.fetch_add Relaxed", SUM),
    ("backends/cranelift/src/module.rs drop: live.fetch_sub Relaxed", SUM),
    ("backends/llvm/src/backend.rs contexts: contexts.load Relaxed", SUM),
    (
        "backends/llvm/src/calls.rs load_shared: load.set_atomic_ordering Monotonic",
        "in the code it makes: a slot, on whose pointer depends what follows (edge PUBLISH), or a count",
    ),
    (
        "backends/llvm/src/count.rs add_shared: store.set_atomic_ordering Monotonic",
        "in the code it makes: a count, as the engine's own: edge BUDGET, and REUSE for its end",
    ),
    ("backends/llvm/src/session.rs new: made.fetch_add Relaxed", SUM),
    ("backends/object/src/stats.rs batch: batches.fetch_add Relaxed", SUM),
    ("backends/object/src/stats.rs split: split.fetch_add Relaxed", SUM),
    ("backends/object/src/stats.rs placed: compiled.fetch_add Relaxed", SUM),
    ("backends/object/src/stats.rs placed: code_bytes.fetch_add Relaxed", SUM),
    ("backends/object/src/stats.rs placed: loop_entries.fetch_add Relaxed", SUM),
    ("backends/object/src/stats.rs failed: failed.fetch_add Relaxed", SUM),
    ("backends/object/src/stats.rs loop_entry_failed: loop_entries_failed.fetch_add Relaxed", SUM),
    ("backends/object/src/stats.rs included: included.fetch_add Relaxed", SUM),
    ("backends/object/src/stats.rs unit_failed: units_failed.fetch_add Relaxed", SUM),
    ("backends/object/src/stats.rs superseded: superseded.fetch_add Relaxed", SUM),
    ("backends/object/src/stats.rs snapshot: batches.load Relaxed", SUM),
    ("backends/object/src/stats.rs snapshot: compiled.load Relaxed", SUM),
    ("backends/object/src/stats.rs snapshot: failed.load Relaxed", SUM),
    ("backends/object/src/stats.rs snapshot: superseded.load Relaxed", SUM),
    ("backends/object/src/stats.rs snapshot: loop_entries.load Relaxed", SUM),
    ("backends/object/src/stats.rs snapshot: loop_entries_failed.load Relaxed", SUM),
    ("backends/object/src/stats.rs snapshot: included.load Relaxed", SUM),
    ("backends/object/src/stats.rs snapshot: units_failed.load Relaxed", SUM),
    ("backends/object/src/stats.rs snapshot: split.load Relaxed", SUM),
    ("backends/object/src/stats.rs snapshot: code_bytes.load Relaxed", SUM),
    ("src/artifact/archive.rs set_saving: saving.store Relaxed", ADVICE),
    ("src/artifact/archive.rs is_saving: saving.load Relaxed", ADVICE),
    ("src/artifact/archive.rs edition: cleared.load Relaxed", NUMBER),
    ("src/artifact/archive.rs clear: cleared.fetch_add Relaxed", NUMBER),
    ("src/artifact/archive.rs stats: counter.load Relaxed", SUM),
    ("src/artifact/archive.rs count: counter.fetch_add Relaxed", SUM),
    ("src/artifact/file.rs a_name_of_its_own: NEXT.fetch_add Relaxed", NUMBER),
    ("src/assumption.rs next: NEXT.fetch_add Relaxed", NUMBER),
    (
        "src/assumption.rs broken: broken.load Relaxed",
        "the lock of the assumptions orders it, and the publishing bit for who holds that: edge ASSUME",
    ),
    (
        "src/assumption.rs break_it: broken.fetch_add Relaxed",
        "the lock of the assumptions orders it, and the publishing bit for who holds that: edge ASSUME",
    ),
    ("src/job.rs finish: done.store Relaxed", ADVICE),
    ("src/counter.rs count: left.load Relaxed", "edge BUDGET"),
    ("src/counter.rs count: left.store Relaxed", "edge BUDGET"),
    ("src/counter.rs is_zero: left.load Relaxed", "edge BUDGET"),
    ("src/counter.rs calls: granted.load Relaxed", "edge BUDGET"),
    ("src/counter.rs grant: granted.store Relaxed", "edge BUDGET"),
    ("src/counter.rs grant: left.store Relaxed", "edge BUDGET"),
    ("src/counter.rs reset: cell.load Relaxed", "edge BUDGET"),
    ("src/counter.rs reset: cell.store Relaxed", "edge BUDGET"),
    ("src/counter.rs left: left.load Relaxed", "edge BUDGET"),
    ("src/counter.rs count_natively: left.load Relaxed", "edge BUDGET"),
    ("src/counter.rs count_natively: left.store Relaxed", "edge BUDGET"),
    ("src/crew.rs now: last_now.load Relaxed", ADVICE),
    ("src/crew.rs now: last_now.store Relaxed", ADVICE),
    ("src/crew.rs now: last_now.load Relaxed (2)", ADVICE),
    ("src/delivery.rs len: len.load Relaxed", LOCKED_LEN),
    ("src/delivery.rs next: len.store Relaxed", LOCKED_LEN),
    ("src/delivery.rs note: len.store Relaxed", LOCKED_LEN),
    (
        "src/deopt/mod.rs settle: len.store Relaxed",
        "raised before the publishing bit that takes the code is taken: edge DEOPT",
    ),
    (
        "src/deopt/mod.rs settle: len.store Relaxed (2)",
        "raised before the publishing bit that takes the code is taken: edge DEOPT",
    ),
    (
        "src/deopt/mod.rs settle: len.fetch_add Relaxed",
        "raised before the publishing bit that takes the code is taken: edge DEOPT",
    ),
    (
        "src/deopt/mod.rs with: len.load Relaxed",
        "raised before the publishing bit that takes the code is taken: edge DEOPT",
    ),
    (
        "src/deopt/mod.rs forget: len.load Relaxed",
        "raised before the publishing bit that takes the code is taken: edge DEOPT",
    ),
    (
        "src/deopt/mod.rs forget: len.store Relaxed",
        "raised before the publishing bit that takes the code is taken: edge DEOPT",
    ),
    (
        "src/deopt/mod.rs len: len.load Relaxed",
        "raised before the publishing bit that takes the code is taken: edge DEOPT",
    ),
    ("src/direct.rs join: len.store Relaxed", "read under a fence after it: edge SETTLE"),
    ("src/direct.rs leave: len.store Relaxed", "read under a fence after it: edge SETTLE"),
    ("src/direct.rs waiting: len.load Relaxed", "after the fence of SETTLE"),
    ("src/direct.rs wants: len.load Relaxed", "only a rank"),
    ("src/direct.rs put: len.store Relaxed", ATTACHED),
    ("src/direct.rs is_empty: len.load Relaxed", ATTACHED),
    ("src/direct.rs take_back: len.store Relaxed", ATTACHED),
    ("src/direct.rs take: len.store Relaxed", ATTACHED),
    ("src/direct.rs purge: len.load Relaxed", ATTACHED),
    ("src/direct.rs purge: len.store Relaxed", ATTACHED),
    ("src/direct.rs take_all: len.store Relaxed", ATTACHED),
    ("src/drain/seat.rs unfinished: done.load Relaxed", ADVICE),
    ("src/drain.rs forget_workers: busy.store Relaxed", ALONE),
    ("src/drain.rs forget_workers: paused.store Relaxed", ALONE),
    ("src/engine/control.rs set_enabled: enabled.store Relaxed", ADVICE),
    ("src/engine/control.rs is_enabled: enabled.load Relaxed", ADVICE),
    ("src/engine/control.rs set_threshold_scale: scale.store Relaxed", ADVICE),
    ("src/engine/mod.rs decay_tick: ticks.fetch_add Relaxed", ADVICE),
    ("src/engine/mod.rs drop: forked.load Relaxed", ALONE),
    ("src/engine/recovery.rs can_queue: enabled.load Relaxed", ADVICE),
    ("src/evict.rs wants_sweep: swept.load Relaxed", ADVICE),
    ("src/evict.rs sweep: swept.store Relaxed", ADVICE),
    ("src/executor.rs spawn: lost.load Relaxed", ALONE),
    ("src/executor.rs forget_threads: lost.store Relaxed", ALONE),
    (
        "src/executor.rs spawn: to_start.fetch_add Relaxed",
        "in models only: the wake word alone has to order a worker after its request",
    ),
    (
        "src/executor.rs started: to_start.fetch_update Relaxed/Relaxed",
        "in models only: the wake word alone has to order a worker after its request",
    ),
    ("src/fault.rs note: len.store Relaxed", "fenced: edge FAULT"),
    (
        "src/fault.rs is_empty: len.load Relaxed",
        "for a threshold that is looked at again: a late look costs a late answer",
    ),
    (
        "src/fault.rs get: len.load Relaxed",
        "for a report, or for a threshold that is looked at again: a late look costs a late answer",
    ),
    ("src/fault.rs forget: len.load Relaxed", "fenced: edge FAULT"),
    ("src/fault.rs forget: len.store Relaxed", "fenced: edge FAULT"),
    ("src/fault.rs forget_all: len.load Relaxed", "fenced: edge FAULT"),
    ("src/free.rs len: len.load Relaxed", "a registration that misses a removal takes a fresh index"),
    ("src/free.rs push: len.fetch_add Relaxed", "a registration that misses a removal takes a fresh index"),
    ("src/free.rs pop: len.fetch_sub Relaxed", "a registration that misses a removal takes a fresh index"),
    ("src/gate.rs door: NEXT.fetch_add Relaxed", NUMBER),
    ("src/grace/leases.rs aside: aside.load Relaxed", RETIRED),
    ("src/grace/leases.rs leave: aside.fetch_sub Relaxed", RETIRED),
    ("src/grace/leases.rs take_in: aside.fetch_add Relaxed", RETIRED),
    ("src/grace/member.rs holds: holds.load Relaxed", OWN),
    ("src/grace/member.rs lags: at.load Relaxed", "for a report"),
    ("src/grace.rs laggards: epoch.load Relaxed", "for a report"),
    (
        "src/grace.rs retire: waiting.fetch_add Relaxed",
        "raised before the stamp, whose release tells of it who may free; else a hint",
    ),
    (
        "src/grace.rs retire: waiting_bytes.fetch_add Relaxed",
        "raised before the stamp, whose release tells of it who may free; else a hint",
    ),
    ("src/grace.rs waiting: waiting.load Relaxed/Relaxed", RETIRED),
    ("src/grace.rs is_anything_to_look_at: waiting.load Relaxed", RETIRED),
    ("src/grace.rs expired: waiting.fetch_sub Relaxed", RETIRED),
    ("src/grace.rs expired: waiting_bytes.fetch_sub Relaxed", RETIRED),
    ("src/heat.rs update: before.load Relaxed", ADVICE),
    ("src/heat.rs update: at.load Relaxed", ADVICE),
    ("src/heat.rs update: heat.load Relaxed", ADVICE),
    ("src/heat.rs update: before.load Relaxed (2)", ADVICE),
    ("src/heat.rs update: heat.store Relaxed", ADVICE),
    ("src/heat.rs update: at.store Relaxed", ADVICE),
    ("src/heat.rs update: before.store Relaxed", ADVICE),
    ("src/heat.rs reset: column.load Relaxed", ADVICE),
    ("src/heat.rs reset: column.store Relaxed", ADVICE),
    (
        "src/info.rs set: sides_len.fetch_add Relaxed",
        "changed before the bead is live and after it was removed; who asks saw it live: edge REGISTER",
    ),
    (
        "src/info.rs side: sides_len.load Relaxed",
        "changed before the bead is live and after it was removed; who asks saw it live: edge REGISTER",
    ),
    (
        "src/info.rs clear: group.store Relaxed",
        "cleared before the index is free: edge REUSE; a reader looks at the state afterwards: edge CORE",
    ),
    (
        "src/info.rs clear: key.store Relaxed",
        "cleared before the index is free: edge REUSE; a reader looks at the state afterwards: edge CORE",
    ),
    (
        "src/info.rs clear: size.store Relaxed",
        "cleared before the index is free: edge REUSE; a reader looks at the state afterwards: edge CORE",
    ),
    (
        "src/info.rs clear: sides_len.load Relaxed",
        "changed before the bead is live and after it was removed; who asks saw it live: edge REGISTER",
    ),
    (
        "src/info.rs clear: sides_len.fetch_sub Relaxed",
        "changed before the bead is live and after it was removed; who asks saw it live: edge REGISTER",
    ),
    ("src/info.rs new_group: next_group.fetch_update Relaxed/Relaxed", NUMBER),
    ("src/mutator/safepoint.rs safepoint_at_any_depth: cell.at Relaxed", OWN),
    ("src/mutator/safepoint.rs look_again: cell.at Relaxed", OWN),
    ("src/mutator/safepoint.rs poll: epoch.load Relaxed", "a poll states nothing"),
    ("src/mutator/safepoint.rs is_offline: cell.at Relaxed", OWN),
    ("src/native.rs native_loop_spent: enabled.load Relaxed", ADVICE),
    ("src/osr/loops.rs with: len.fetch_add Relaxed", "fenced: edge FAULT"),
    (
        "src/osr/loops.rs is_in_use: len.load Relaxed",
        "raised before the publishing bit is taken to flag the entry; an install looks again after its own: edge CLAIM",
    ),
    (
        "src/osr/loops.rs filtered: len.load Relaxed",
        "raised before the publishing bit is taken to flag the entry; an install looks again after its own: edge CLAIM",
    ),
    ("src/osr/loops.rs start_over: len.load Relaxed", "a hint: what is missed is counted a little longer"),
    ("src/osr/loops.rs forget: len.load Relaxed", "fenced: edge FAULT"),
    (
        "src/osr/loops.rs forget: len.fetch_sub Relaxed",
        "raised before the publishing bit is taken to flag the entry; an install looks again after its own: edge CLAIM",
    ),
    ("src/osr/tables.rs find: entry.load Relaxed", FLAG),
    (
        "src/osr/tables.rs find: site.load Relaxed",
        "written before the word that names them is published: edge PUBLISH",
    ),
    (
        "src/osr/tables.rs find_in: site.load Relaxed",
        "written before the word that names them is published: edge PUBLISH",
    ),
    ("src/osr/tables.rs len: entry.load Relaxed", FLAG),
    (
        "src/osr/tables.rs make: entry.store Relaxed",
        "nobody else has the run: rule O1; the word that names it is published afterwards: edge PUBLISH",
    ),
    (
        "src/osr/tables.rs make: entry.store Relaxed (2)",
        "nobody else has the run: rule O1; the word that names it is published afterwards: edge PUBLISH",
    ),
    (
        "src/osr/tables.rs make: site.store Relaxed",
        "nobody else has the run: rule O1; the word that names it is published afterwards: edge PUBLISH",
    ),
    (
        "src/osr/tables.rs make: site.store Relaxed (2)",
        "nobody else has the run: rule O1; the word that names it is published afterwards: edge PUBLISH",
    ),
    (
        "src/osr/tables.rs search: site.load Relaxed",
        "written before the word that names them is published: edge PUBLISH",
    ),
    (
        "src/osr/tables.rs search: site.load Relaxed (2)",
        "written before the word that names them is published: edge PUBLISH",
    ),
    ("src/osr/tables.rs search_entry: cell.load Relaxed", FLAG),
    ("src/osr/tables.rs make: any.store Relaxed", ANY),
    ("src/osr/tables.rs publish: any.load Relaxed", ANY),
    ("src/osr/tables.rs publish: cell.load Relaxed", BIT),
    ("src/osr/tables.rs suppress: words.load Relaxed", BIT),
    ("src/osr/tables.rs suppress: cell.load Relaxed", FLAG),
    ("src/osr/tables.rs suppress: cell.store Relaxed", FLAG),
    ("src/osr/tables.rs allow_all: cell.load Relaxed/Relaxed", FLAG),
    (
        "src/osr/tables.rs names: cell.load Relaxed",
        "of a run that is not published yet, or whose sites do not change",
    ),
    ("src/profile/cells.rs zero: load Relaxed", COUNTS),
    ("src/profile/cells.rs zero: store Relaxed", COUNTS),
    ("src/profile/records.rs provide: len.fetch_add Relaxed", "fenced: edge FAULT"),
    ("src/profile/records.rs forget: len.load Relaxed", "fenced: edge FAULT"),
    ("src/profile/records.rs forget: len.fetch_sub Relaxed", "fenced: edge FAULT"),
    ("src/profile/records.rs start_over: len.load Relaxed", COUNTS),
    ("src/profile/records.rs start_over: cells.load Relaxed", COUNTS),
    ("src/profile/records.rs start_over: cells.store Relaxed", COUNTS),
    (
        "src/profile/records.rs read: len.load Relaxed",
        "for a report; a compile that reads it was told of its counters by the request: edge CLAIM",
    ),
    ("src/profile/records.rs read: cells.load Relaxed", COUNTS),
    ("src/profile/records.rs direct: first.load Relaxed", COUNTS),
    ("src/profile/records.rs direct: count.store Relaxed", COUNTS),
    ("src/profile/records.rs direct: first.store Relaxed", COUNTS),
    ("src/profile/records.rs direct: others.load Relaxed/Relaxed", COUNTS),
    ("src/profile/records.rs raise: cell.load Relaxed/Relaxed", COUNTS),
    ("src/profile/records.rs count_target: cell.load Relaxed/Relaxed", COUNTS),
    ("src/profile/records.rs count_target: cell.load Relaxed", COUNTS),
    ("src/profile/records.rs count_target: cell.compare_exchange Relaxed/Relaxed", COUNTS),
    ("src/promotion.rs budget_spent: enabled.load Relaxed", ADVICE),
    ("src/promotion.rs loop_spent: enabled.load Relaxed", ADVICE),
    ("src/promotion.rs consult: scale.load Relaxed", ADVICE),
    ("src/promotion.rs heat: ticks.load Relaxed", ADVICE),
    (
        "src/queue.rs batch: batch.load Relaxed",
        "advice, looked at anew for each batch; who changes one fences and signals: edge PAUSE",
    ),
    (
        "src/queue.rs set_batch: batch.store Relaxed",
        "advice, looked at anew for each batch; who changes one fences and signals: edge PAUSE",
    ),
    (
        "src/queue.rs limit: limit.load Relaxed",
        "advice, looked at anew for each batch; who changes one fences and signals: edge PAUSE",
    ),
    (
        "src/queue.rs set_limit: limit.store Relaxed",
        "advice, looked at anew for each batch; who changes one fences and signals: edge PAUSE",
    ),
    (
        "src/queue.rs is_enabled: enabled.load Relaxed",
        "advice, looked at anew for each batch; who changes one fences and signals: edge PAUSE",
    ),
    (
        "src/queue.rs set_enabled: enabled.store Relaxed",
        "advice, looked at anew for each batch; who changes one fences and signals: edge PAUSE",
    ),
    ("src/queue.rs in_order: turn.fetch_add Relaxed", ADVICE),
    ("src/queue.rs forget_workers: running.store Relaxed", ALONE),
    ("src/queue.rs forget_workers: optimizing.store Relaxed", ALONE),
    ("src/reclaim.rs retired_too_much: over_limit.load Relaxed", ADVICE),
    ("src/reclaim.rs watch_retired: over_limit.load Relaxed/Relaxed", ADVICE),
    ("src/request.rs next_number: numbers.fetch_add Relaxed", NUMBER),
    ("src/resident/cache.rs now: now.load Relaxed", ADVICE),
    (
        "src/resident/cache.rs look_at_clock: swept.load Relaxed",
        "whoever exchanges it sweeps; it publishes nothing",
    ),
    (
        "src/resident/cache.rs look_at_clock: swept.compare_exchange Relaxed/Relaxed",
        "whoever exchanges it sweeps; it publishes nothing",
    ),
    (
        "src/resident/budget.rs sweep_now: swept.store Relaxed",
        "whoever exchanges it sweeps; it publishes nothing",
    ),
    ("src/resident/budget.rs keep_budget: pages_seen.swap Relaxed", ADVICE),
    (
        "src/resident/code_cache.rs set_enabled: to_preload.swap Relaxed",
        "whoever takes it preloads; it publishes nothing",
    ),
    (
        "src/resident/code_cache.rs set_enabled: to_preload.store Relaxed",
        "whoever takes it preloads; it publishes nothing",
    ),
    ("src/resident/counts.rs hit: hits.load Relaxed", SUM),
    ("src/resident/counts.rs hit: hits.store Relaxed", SUM),
    ("src/resident/counts.rs miss: misses.load Relaxed/Relaxed", SUM),
    ("src/resident/counts.rs leave: hits.load Relaxed", SUM),
    ("src/resident/counts.rs leave: misses.load Relaxed", SUM),
    ("src/resident/counts.rs sum: hits.load Relaxed/Relaxed", SUM),
    ("src/resident/entry.rs touch: used.load Relaxed", ADVICE),
    ("src/resident/entry.rs touch: used.store Relaxed", ADVICE),
    ("src/resident/entry.rs set_loaded: loaded.store Relaxed", ADVICE),
    ("src/resident/entry.rs is_loaded: loaded.load Relaxed", ADVICE),
    ("src/resident/entry.rs idle: used.load Relaxed", ADVICE),
    ("src/resident/entry.rs is: marks.load Relaxed", ADVICE),
    ("src/resident/entry.rs mark: marks.fetch_or Relaxed/Relaxed", ADVICE),
    ("src/results.rs installed: last_now.load Relaxed", ADVICE),
    ("src/shared.rs mend_after_fork: forked.store Relaxed", ALONE),
    ("src/snapshot.rs is_empty: len.load Relaxed", LOCKED_LEN),
    ("src/snapshot.rs replace: len.store Relaxed", LOCKED_LEN),
    ("src/snapshot.rs lower: len.store Relaxed", LOCKED_LEN),
    ("src/snapshot.rs take: len.store Relaxed", LOCKED_LEN),
    ("src/snapshot.rs purge: len.store Relaxed", LOCKED_LEN),
    ("src/snapshot.rs take_all: len.store Relaxed", LOCKED_LEN),
    ("src/state.rs swap: word.compare_exchange Relaxed", "on failure only: who failed loads the word again"),
    ("src/state.rs shows: word.store Relaxed", "a mutant's: a fault in any order"),
    ("src/stats.rs add: counter.fetch_add Relaxed", SUM),
    ("src/stats.rs subtract: counter.fetch_sub Relaxed", SUM),
    ("src/stats.rs read: counter.load Relaxed", SUM),
    ("src/sync.rs fence: fence Relaxed", "a mutant's fence that is none"),
    ("src/sync.rs change: len.store Relaxed", "the models' deque promises no more than the real ones"),
    ("src/sync.rs len: len.load Relaxed", "the models' deque promises no more than the real ones"),
    ("src/table/code.rs publish: code.load Relaxed", BIT),
    ("src/table/code.rs publish: code_version.load Relaxed", BIT),
    ("src/table/code.rs is_of_version: code_version.load Relaxed", BIT),
    ("src/table/code.rs write_cells: code.load Relaxed", BIT),
    ("src/table/code.rs write_cells: owner.load Relaxed", BIT),
    ("src/table/code.rs write_cells: owner.store Relaxed", BIT),
    ("src/table/code.rs count_dispatches: code.load Relaxed", BIT),
    ("src/table/code.rs count_dispatches: code_version.load Relaxed", BIT),
    ("src/table/code.rs slot: code.load Relaxed", BIT),
    ("src/table.rs used: used.load Relaxed", SUM),
    ("src/table.rs live_len: not_live.load Relaxed", SUM),
    (
        "src/table.rs take_fresh: fetch_update Relaxed/Relaxed",
        "only the number is claimed; what the index holds was never touched",
    ),
    ("src/table.rs register_taken: slot.store Relaxed", "of an index that nobody else has: edge REUSE"),
    ("src/table.rs register_taken: not_live.fetch_sub Relaxed", SUM),
    ("src/table.rs give_back_fresh: not_live.fetch_add Relaxed", SUM),
    (
        "src/table.rs remove: core.load Relaxed",
        "stored before the bead is live (edge REGISTER), or read under the publishing bit",
    ),
    ("src/table.rs remove: not_live.fetch_add Relaxed", SUM),
    (
        "src/table.rs code_version: code_version.load Relaxed",
        "for who looks at the state as well, or only wants to know",
    ),
    ("src/table.rs code_bytes: owner.load Relaxed", "a figure for accounts"),
    ("src/table.rs mark_compiled: word.load Relaxed", END),
    ("src/table.rs mark_compiled: word.fetch_or Relaxed", END),
    ("src/table.rs take_owners: word.load Relaxed", END),
    ("src/table.rs take_owners: cell.load Relaxed", END),
    ("src/table.rs take_owners: cell.store Relaxed", END),
    ("src/artifact/archive.rs forget: place.compare_exchange Relaxed/Relaxed", ADVICE),
    ("src/artifact/archive.rs has: place.load Relaxed", ADVICE),
    ("src/artifact/archive.rs note: place.store Relaxed", ADVICE),
    ("src/artifact/file.rs try_put: lasting.fetch_or Relaxed", "whoever does not see it does it again"),
    ("src/artifact/file.rs try_put: lasting.load Relaxed", "whoever does not see it does it again"),
    ("src/resident/cache.rs belongs_to: now.store Relaxed", ADVICE),
    (
        "src/resident/cache.rs belongs_to: swept.store Relaxed",
        "whoever exchanges it sweeps; it publishes nothing",
    ),
    ("src/resident/cache.rs note_look: now.store Relaxed", ADVICE),
    ("src/resident/cache.rs note_look: now.store Relaxed (2)", ADVICE),
];
