//! The concurrent core on one page: states, rules, named orderings, and why they suffice. Documentation only.
//!
//! Every atomic access in the crate that is not `Relaxed` names one of the edges below and its partner. The models in
//! `loom-tests/` run the modules themselves, not copies.
//!
//! # States of a bead
//! ```text
//!                 register                     request             claim
//!   free ───────────────────────► idle ─────────────────► queued ─────────► compiling
//!    ▲   index reused only after   ▲ ▲                      │                 │    │ request of a
//!    │   the grace period          │ │   invalidate,        │                 │    ▼ higher tier
//!    │                             │ └── VM install ◄───────┘                 │  followed
//!    │          remove             └───── install, abandon ◄─────────────────┘    │
//!    └──────────────────────── (from every live state)        queued for the higher tier ◄┘
//! ```
//! *Pending* (idle, queued, compiling, followed) and *tier* (which code runs now) are independent: code keeps running
//! while the next tier is queued or compiling. Generation, version and tier are three fields with three meanings:
//! which use of the index, which right to install, which code.
//!
//! # Who may touch what
//! | cell | written by | read by |
//! |---|---|---|
//! | state word | everybody, by compare-and-swap; while `publishing` is set only its holder | everybody |
//! | code word, slot | the holder of the publishing bit | dispatch; native code |
//! | owner, code version | the holder of the publishing bit | the same |
//! | word of the loop entries | the holder of the publishing bit | probes, which check its tag |
//! | loop entries | the maker of the table before it is published; their flag, the holder of the bit | probes |
//! | held baseline code | under its lock, which goes before the publishing bit | the same |
//! | core | the registrar before the bead is live; the holder of the publishing bit | everybody, checked against the state afterwards |
//! | budget, granted | everybody, Relaxed, lossy; reset at reuse | everybody |
//! | counters of a profile | native code and mutators, Relaxed, lossy; cleared when given out | everybody |
//! | `queued` bits | who pushed the state to queued; the drain that popped the token | the same |
//! | mutator's cell and held addresses | its mutator | who asks what may be freed |
//! | leases | whoever takes or drops one, under their lock | who frees, under the same lock |
//!
//! Under the publishing bit there is no allocation, no foreign code, no free, no lock and nothing that panics, so its
//! holder always comes to release it.
//!
//! # Edges
//! ## REGISTER
//! `StateCell::register_fresh` (Release) → `StateCell::load` (Acquire): the store of the core makes a bead live whose state word
//! was never written (rule S5), that of the word itself one whose core is 0. Who sees a bead live sees its core and what
//! else was noted before. The store is plain, not a swap: the index came off the end of the table by a read-modify-write,
//! so no other thread registers it, and no transition of a word that is not live exists but registration (rule S3).
//!
//! ## PUBLISH
//! Code word and slot: store Release → load Acquire by dispatch. Who gets an entry sees the code behind it, because
//! the backend wrote it before. Native code loads a slot with an ordinary load; on x86-64 that is an acquire load, and
//! elsewhere the address dependency from the loaded pointer to the instructions is covered by the instruction-cache
//! discipline of the arena, which ends before the store. The state word's release of the bit (`Publishing::finish`,
//! AcqRel) → `StateCell::load` (Acquire): who sees the new tier or version sees the cells that go with it, and
//! "after it returned" means happens-after.
//!
//! *Loop entries* lie in a run of cells that is written before the word that names it is published, and written again only
//! when every mutator has passed a safepoint since it was unlinked (edge RETIRE). A probe loads the word (Acquire), compares its
//! generation with the handle's, and reads the cells: the generation makes the word prove whose it is, so it needs no look at the
//! code word, and what it finds is code that was live at the load of the word. After an invalidation returned the word is none.
//!
//! ## CLAIM
//! Transitions of the state word are AcqRel read-modify-writes on one location, so they are totally ordered and each
//! sees all that came before it. Every transition that starts or ends a right to install raises the version (rule S1);
//! a ticket is (generation, version). So of any number of results at most one finds its ticket valid, and a result whose
//! claim was cancelled, superseded or outlived by the index never does, even if the bead is queued for the same tier
//! again. Versions saturate at 2³¹−1 instead of wrapping; a saturated bead gets no further ticket.
//!
//! *Tokens.* `Lanes::push` sets the bead's bit for the lane (AcqRel) after the state says queued, and pushes a token
//! only if the bit was clear. `Lanes::pop_token` clears the bit (AcqRel) before the state is read. Say a requester
//! finds the bit set. Then the drain's clearing comes later in the modification order of that word and acquires
//! the requester's write, so the state it reads afterwards is queued: the old token serves the new request. If the
//! clearing came first, the bit is clear and the requester pushes. No request is lost, and a lane holds at most one
//! token for each bead.
//!
//! ## WAKE
//! `Wake` is one word (seq, active). A requester pushes, then signals: a compare-and-swap that raises seq, and active as
//! well if a worker may start. A worker reads the word, scans the lanes, and leaves by a compare-and-swap of the
//! word it read. If the scan missed a push, the signal after that push changes the word after the scan began, so
//! the worker's leave fails and it scans again. If the signal came before the word was read, reading it (Acquire)
//! makes the push visible to the scan. (Before it leaves, a worker looks at the word some more times; it relies on none of them.)
//! Moving requests into a worker's own deque, and freeing a place in a limited lane
//! that is not empty, are signalled in the same way. A worker that found no place in a lane, and whoever gives one back, each have a
//! SeqCst fence between their store (the push before, the place) and their load (the place, what waits): one of them sees
//! the other's, so the request is not left behind.
//!
//! ## RETIRE
//! Unlink, then stamp: `epoch.fetch_add` (AcqRel). A safepoint loads the epoch (Acquire) and, if it changed, stores it
//! into the mutator's cell (Release). A scan that reads a cell at or past the stamp (Acquire) knows: the mutator's
//! safepoint acquired the stamp, so its later lookups see the unlink; and its earlier uses of the code happen before the
//! scan, and so before the free. The scan reads the epoch before the cells and never answers more than that: a cell
//! read as offline says nothing of what is unlinked later.
//!
//! *Held addresses.* `safepoint_with` notes the addresses to which its thread returns, then stores the epoch it loaded before
//! into its cell (Release): "of what is stamped up to here, I am at most in what contains these". A scan loads the cell
//! (Acquire), then the addresses, so they are those of the safepoint it read, or of a later one. A later list is as good
//! for what is stamped up to the earlier epoch: the thread cannot have entered that code in between, only left it, and it left
//! before it changed the list, which the lock (or the Release of the flag that says there is a list) orders before the
//! free. An earlier list is never read. A list says nothing of what is stamped after its cell, so what one scan kept because
//! of a frame may be freed only by a scan whose own bound reaches its stamp. A plain safepoint with addresses
//! held takes the long way even if the epoch has not moved, so that it lets go of them. While native frames are
//! below and not named, nothing is stored into the cell: a poll states nothing.
//!
//! Removed indices go by the cells alone: what native frames keep of a function besides its handle are addresses of its
//! slot, and code that embeds those pins the index until it is freed itself.
//!
//! ## ONLINE
//! A mutator that comes online stores the epoch into its cell, then a SeqCst fence, then looks up code. A scan has a
//! SeqCst fence between the unlink and its loads of the cells. In the order of the two fences either the scan's is
//! later, and it sees the cell; or the mutator's is, and its lookups see the unlink. Without the fences both can miss.
//!
//! ## LEASE
//! A lease is entered under the leases' lock, and only then the code word is looked at (again); if the entry is not linked
//! any more, the lease is given up and nothing answered. Who frees looks for leases under the same lock, after the unlink. In
//! the order of that lock either the lease comes first, and is found; or the look does, and then the unlink happens before
//! the second reading of the word, which fails. So it needs no mutator, and holds also where code is handed back to the
//! VM without a grace period. Leased code is set aside under the lock, once, and comes back to the scans with the end of
//! the last lease, whose holder's use of the code the lock orders before the free. Should the entry have been unlinked and
//! linked again by other code in between, the lease is of that code.
//!
//! ## REUSE
//! `Table::remove` clears the cells first and gives the code word the next generation's tag, then moves the generation
//! (under the bit), and only then puts the index onto the free list. The free list gives an index out when every mutator
//! has passed a stamp taken after that. So a thread that still holds the old handle reads a differing tag; one that read
//! the old tag before has passed a safepoint before the index is used again, and with it the last of its Relaxed
//! stores to the budget, which is why the budget is reset at reuse and not at removal. An index whose slot address is
//! embedded in code that is not reclaimed yet stays out of use (see `pins`).
//!
//! What native code stores by itself, into its budget and its counters, comes to an end in the same way: code that embeds such
//! an address pins the index of the function it belongs to, its own included, until it is freed itself. Counters are given to
//! another function only when every mutator has passed since, and the index is not pinned or was used again (`profile::cells`).
//!
//! ## BUDGET
//! Budgets are Relaxed and lossy; what must not happen is one that is never spent again. A budget is positive because it was granted
//! (at most 2³⁰) or counted down from such a value, and negative only because native code counted down from 0 or less. Everybody
//! takes a value of 1 or less, as signed, for spent. A dispatch that reads one stores nothing; native code stores first, and has then stored 0 or
//! less. So whatever stores of different threads overtake each other, a store that is not a grant never leaves more than what was
//! once granted, and each thread that stored 0 or less goes on to the slow path, where it grants, unless the bead is not live any more.
//!
//! ## CORE
//! Cores are stored with Release, at reuse after the generation moved on. `Table::core` loads the core (Acquire), then
//! the state: if the core was a later generation's, the state shows that generation, and the answer is stale.
//!
//! ## PAUSE
//! `Drain::resume` (AcqRel) lowers the count of pauses, then the engine looks how many requests wait and signals once for each, up
//! to the number of workers. A worker that saw the pause and is leaving fails to, because of the signal (edge WAKE), and
//! looks again; the acquire of the wake word makes it see the lowered count. Between the lowering and the look there is a SeqCst
//! fence, and another between a push and its own signal, after which a worker looks at the count: in the order of the fences
//! either the look sees the push, or that worker sees the pause ended. So it is for the limits of lanes and for switching them on.
//!
//! ## ASSUME
//! A dependent is a bead and the version its code has once it is installed: `v + 1`, where `v` is the version the state word has when
//! the install takes the publishing bit (a worker's ticket; for the VM's own code the version it read, and installs on or
//! not at all). Where the VM's own code ends a claim it gets `v + 2`: the late result may be listed under `v + 1`, and whoever
//! breaks what that relied on would take code that never did. It is listed, and the assumption checked, in one hold of the lock, before the bit is taken. Who breaks the
//! assumption takes the list out in that lock and leaves it before it waits for any bit.
//!
//! *Listed after the break:* the check refuses it. *Listed before:* the breaker has it. If it is a compile's, the breaker ends its
//! claim (`StateCell::abandon`); that and the install's taking of the bit are read-modify-writes that both need to find the ticket
//! with no publisher, so one comes first (edge CLAIM), and if it is the breaker's, the install never happens. If it is the VM's own,
//! there is no claim to end: the breaker has raised the count of broken assumptions (in the lock), and now takes the bit. If the
//! VM takes it afterwards, it has acquired that, sees under the bit that the count has changed since it was listed, lets go,
//! and lists anew. If it took the bit before, the breaker has waited for its release.
//!
//! Either way what comes afterwards is settled: it is installed or never will be, since versions do not come back, except at
//! their end, where code with assumptions is refused. The breaker takes the lock of held code and the bit, and the
//! code if it is of the version listed, running or held; if there is none, somebody else has unlinked it, and that is
//! visible (edge PUBLISH) through the word just read. So
//! when the call returns the code is unlinked, and a dispatch that happens after it answers cold.
//!
//! Of two threads that break the same assumption, the second finds the list still there and goes through it too; it finds it
//! gone only after the first has come to its end, in a later hold of the lock.
//!
//! A dependent may be struck off when the word has reached `v + 1` with no publisher, there is no code or its version is
//! another, and none of its version is held for a revert: had it been installed, the word would have been released after its version
//! was written. The other version may be that of an install which takes the bit only then: it is written last of all cells
//! (Release → Acquire), so who reads it sees the dependent's code unlinked. Held code is looked at under its lock, and does not move.
//!
//! ## UNIT
//! Code that contains the body of another function relies on that function's *standing*, an assumption. A compile asks for the standing,
//! is listed under it (edge ASSUME), and reads the body then. Who redefines a function stores the new body, changes its state word,
//! and then breaks the standing, if there is one. Whether there is one is told by a count that both sides go through by an AcqRel
//! read-modify-write, or by the lock behind it: in the order of these either the compile's comes first, and the standing is found and
//! broken; or the other does, and then the compile reads the new body. So when the redefinition returns, no code with the old one
//! is installed or will be. A standing is forgotten only when it is broken, so that the second of two threads goes through its list too.
//!
//! ## FAULT
//! A worker notes a failure, then (SeqCst fence) looks whether the bead still lives; `remove` ends the bead, then (SeqCst fence) looks
//! whether any failure is noted. In the order of the fences one sees the other's store, so no failure outlives its function.
//! Who provides counters for a compile does the same (`profile::records`), and who is the first to count a loop of a function
//! (`osr::loops`), so none outlive theirs.
//!
//! ## DEOPT
//! A bailout names the version an install gave the code, and `Table::deoptimize` compares it under the publishing bit with the
//! version kept beside the code, not with the state's, which moves with every request that ends. So of any number of bailouts
//! of one version at most one takes code, and it takes no other. A compile in flight loses its ticket with it (rule S1).
//!
//! *Records.* `Deopts::settle` raises `len`, then takes the bit, and holds the lock of the records over both. Who reads the state
//! afterwards (Acquire, edge CLAIM) and finds the code gone, or ends the bead, therefore sees `len` raised, takes the lock, and
//! finds the record complete: no pause is passed by, and no record outlives its function. Whoever holds a bit takes neither this
//! lock nor that of held code, so lock, then bit, cannot deadlock; of the two locks this one is taken first.
//!
//! *Held code.* Baseline code that a higher tier supersedes is put aside under a lock that the install took before the bit, and
//! whatever takes a function below that tier takes the same lock before the bit (`table::kept`, rules K1 and K2). So the
//! transitions that move code in or out of there are totally ordered by the lock: code is in exactly one place, a revert brings
//! back only what ran before the present code and was not taken back since, and nothing is held for a function that has ended.
//!
//! ## CLOSE
//! `Shared::close` (Release) → `is_closed` (Acquire): a hint to stop early; what is freed at the end is freed when no
//! reference is left. Who closes then drops what is queued, with a SeqCst fence between; who pushes looks at `closed`
//! afterwards, with a SeqCst fence between, and drops what is queued if it is set. In the order of the fences one sees the
//! other's store, so nothing stays queued on a closed engine.
//!
//! No compile begins after a shutdown has returned: a worker takes its seat, counted and under the lock of the seats, before it
//! looks at `closed`; who closes drops what is queued from a seat of its own, under the same lock, before it looks who has one. Whoever
//! has the lock second sees what the first did before.
//!
//! ## SETTLE
//! Who waits for a compile announces itself, then (SeqCst fence) looks at the state word and parks; who changes the state looks
//! for announcements afterwards, with a SeqCst fence between. So a change is seen by the look, or its maker wakes the waiter.
//! A failed compile is ended, and the reason noted with the waiters, in one hold of the lock of announcements: who announced itself
//! before and finds the compile ended finds the reason, by the same lock; who does so afterwards finds no compile, and asks for one.
//!
//! ## FORK
//! Sections of the gate begin with an Acquire read-modify-write and end with a Release one; the fork handler closes the
//! gate and waits (Acquire) until no section is open. So the child's only thread sees every section whole.
//!
//! # What the models do not show
//! A thread that dies while it publishes (nothing under the bit can panic or be cancelled); forks (no section is cut in
//! two, see `gate`); the end of the generations (by count: `MAX_GENERATION` uses, tested); instruction caches (the
//! arena's steps, tested as an order).
//!
//! # Accesses
//! Every atomic access that is not Relaxed, in the order of the source. A mutant is an access weakened for the models, one of
//! which has to fail then.
#![doc = include_str!("protocol/accesses.md")]
