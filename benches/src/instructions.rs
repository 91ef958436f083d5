//! Instructions per operation of the hot paths, counted by valgrind's callgrind. They repeat exactly, whatever else the machine
//! does: each path runs twice, with different numbers of operations, and the difference is theirs alone.

use crate::case::resident::{Keys, Resident, Shape, contents};
use crate::contender::{Beadwork, Contender, Loops, Setup};
use crate::measure::trivial_entry;
use Around::{Beads, Loop, Nothing};
use beadwork::{Bead, Core, Mutator, TierId};
use std::hint::black_box;
use std::process::Command;

/// The subcommand by which valgrind starts this program.
pub const COMMAND: &str = "path";

const FEW: u64 = 2_000;
const MANY: u64 = 12_000;

struct Rig {
    contender: Beadwork,
    m: Mutator,
    bead: Bead,
}

impl Rig {
    fn many(&self, n: u64) -> Vec<Bead> {
        let mut beads = Vec::with_capacity(n as usize);
        self.contender.register_many(0..n as usize, &mut beads);
        beads
    }

    fn promote_all(&self, n: u64) {
        let engine = self.contender.engine();
        self.many(n).iter().for_each(|&bead| engine.promote(bead, TierId::BASELINE).expect("it is live"));
    }
}

/// What of a path's instructions is not its operation's, and is taken off.
#[derive(Clone, Copy)]
enum Around {
    Nothing,
    /// The loop around it: the first path.
    Loop,
    /// The beads it needs, one for each, and the loop over them: the second path.
    Beads,
}

/// Runs an operation as often as it is told.
type Path = (&'static str, Around, fn(&mut Rig, u64));

const PATHS: &[Path] = &[
    ("an empty loop", Nothing, |_, n| repeat(n, || ())),
    ("a bead of many, and its turn", Nothing, |rig, n| {
        rig.many(n).iter().for_each(|bead| _ = black_box(bead))
    }),
    ("dispatch, compiled", Loop, |rig, n| {
        rig.contender.install(&rig.bead, trivial_entry());
        repeat(n, || rig.m.dispatch(black_box(rig.bead)));
    }),
    ("dispatch, cold", Loop, |rig, n| repeat(n, || rig.m.dispatch(black_box(rig.bead)))),
    ("back_edge, no entry", Loop, |rig, n| repeat(n, || rig.m.back_edge(black_box(rig.bead), 7))),
    ("osr_entry, hit (of 4)", Loop, |rig, n| {
        rig.contender.install_with_loops(&rig.bead, trivial_entry(), &[3, 5, 7, 9]);
        repeat(n, || rig.m.osr_entry(black_box(rig.bead), black_box(7)));
    }),
    ("safepoint", Loop, |rig, n| repeat(n, || black_box(&mut rig.m).safepoint())),
    ("register", Loop, |rig, n| repeat(n, || rig.contender.register(1))),
    ("register, in bulk", Nothing, |rig, n| {
        let cores = (0..n as usize).map(Core::new);
        black_box(rig.contender.engine().register_many(cores).expect("there is room"));
    }),
    ("register and remove", Nothing, |rig, n| {
        rig.many(n).into_iter().for_each(|bead| rig.contender.remove(bead));
    }),
    ("request, by the policy", Beads, |rig, n| {
        rig.many(n).iter().for_each(|&bead| assert!(rig.m.dispatch(bead).is_none()));
    }),
    ("request, by the VM", Beads, |rig, n| rig.promote_all(n)),
    ("the same, and its compile", Beads, |rig, n| {
        rig.promote_all(n);
        assert_eq!(rig.contender.engine().run_pending(usize::MAX), n as usize);
    }),
    ("code cache, hit (near)", Loop, |_, n| hits::<Resident>(1, n)),
    ("code cache, hit (far)", Loop, |_, n| hits::<Resident>(4_096, n)),
    ("its peers' shape, hit", Loop, |_, n| hits::<Shape>(1, n)),
    ("its peers' shape, hit (one of many)", Loop, |_, n| hits::<Shape>(4_096, n)),
];

/// Hits of `count` keys in turn.
fn hits<C: Keys>(count: usize, n: u64) {
    let keys = contents(count);
    let cache = C::new(&keys);
    let mut thread = cache.thread();
    keys.iter().for_each(|key| assert!(C::lookup(&mut thread, key)));
    let mut keys = keys.iter().cycle();
    repeat(n, || keys.next().map(|key| C::lookup(&mut thread, black_box(key))));
}

fn repeat<T>(n: u64, mut operation: impl FnMut() -> T) {
    for _ in 0..n {
        black_box(operation());
    }
}

/// Runs a path: valgrind's side.
pub fn serve(path: usize, operations: u64) {
    let Some((name, _, run)) = PATHS.get(path) else { return };
    // Only requests by the policy want one; with a single call, so that no other call is in the figure.
    let threshold = if name.ends_with("the policy") { 1 } else { u32::MAX };
    let functions = 2 * MANY as usize;
    let setup = Setup { threshold, workers: 0, ..Setup::unpromoted(functions) };
    let contender = Beadwork::new(&setup);
    let bead = contender.register(0);
    let m = contender.mutator();
    run(&mut Rig { contender, m, bead }, operations);
}

/// Counts all paths and prints the table.
///
/// # Errors
/// If valgrind is not there or says nothing.
pub fn show() -> Result<(), String> {
    println!("{:36} {:>13}", "instructions", "per operation");
    let mut counted = Vec::with_capacity(PATHS.len());
    for (path, (name, around, _)) in PATHS.iter().enumerate() {
        let all = (count(path, MANY)? - count(path, FEW)?) as f64 / (MANY - FEW) as f64;
        counted.push(all);
        let own = match around {
            Nothing => all,
            Loop => all - counted[0],
            Beads => all - counted[1],
        };
        println!("{name:36} {own:>13.1}");
    }
    println!(
        "\nRequests are made of an engine without workers, where nobody is woken. In that by the policy is the dispatch that makes it; not in\n\
         them is the registering of their beads."
    );
    Ok(())
}

fn count(path: usize, operations: u64) -> Result<i64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([COMMAND, &path.to_string(), &operations.to_string()])
        .output()
        .map_err(|error| {
            format!("valgrind cannot be started ({error}); on Debian: apt-get install valgrind")
        })?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    let collected = collected.and_then(|(_, count)| count.trim().parse().ok());
    collected.ok_or_else(|| format!("callgrind counted nothing:\n{said}"))
}
