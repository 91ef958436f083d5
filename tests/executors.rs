//! Where work runs, and how it ends: shutdown, helpers, threads of a pool, the foreground.

mod common;
use beadwork::*;
use common::*;
use std::sync::{Arc, Barrier, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

const T1: TierId = TierId::BASELINE;
const T2: TierId = TierId::new(2).unwrap();
const AT_ONCE: Duration = Duration::ZERO;

fn builder() -> EngineBuilder {
    Engine::builder().capacity(1 << 12)
}

fn manual(backend: impl Backend) -> Tier {
    Tier::new(backend).policy(Manual)
}

#[test]
fn a_backend_may_wait_for_another_compile_of_its_own_tier() {
    for builder in [builder().inline(), builder().workers(1), builder().workers(2)] {
        let known: Arc<OnceLock<(Engine, Bead)>> = Arc::default();
        let (send, answers) = mpsc::channel();
        let inner = known.clone();
        let backend = FnBackend::new(move |job: &mut Job<'_>| {
            let (engine, other) = inner.get().unwrap();
            if job.bead() != *other {
                let own = engine.compile_now(job.bead(), T2, LONG);
                send.send((own, engine.compile_now(*other, T2, LONG))).unwrap();
            }
            Ok(code())
        });
        let engine = builder.tier(manual(trivial())).tier(manual(backend)).build().unwrap();
        let all = beads(&engine, 2);
        let _ = known.set((engine.clone(), all[1]));
        engine.compile_now(all[0], T2, LONG).unwrap();
        let (own, other) = answers.recv().unwrap();
        assert_eq!(own, Err(CompileNowError::Within(all[0])));
        assert!(other.is_ok(), "{other:?}");
    }
}

#[test]
fn what_a_backend_spawns_on_its_own_thread_of_the_pool_is_run() {
    let (send, ran) = mpsc::channel();
    let backend = FnBackend::new(move |_: &mut Job<'_>| {
        let send = send.clone();
        rayon::spawn(move || send.send(rayon::current_thread_index()).unwrap());
        Ok(code())
    });
    let engine = builder().workers(1).tier(manual(backend)).build().unwrap();
    for bead in beads(&engine, 3) {
        engine.compile_now(bead, T1, LONG).unwrap();
        assert_eq!(ran.recv_timeout(LONG), Ok(Some(0)));
    }
}

/// Threads of this process whose names begin like this, but for those that the kernel is putting away: they are still listed for a
/// moment after somebody has joined them.
#[cfg(target_os = "linux")]
fn threads_called(name: &str) -> usize {
    const EXITING: u32 = 4;
    let stat = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("stat")).ok();
    let called = |stat: &String| {
        // Number, name in parentheses, state, five numbers, flags (proc_pid_stat(5)).
        let (comm, rest) = stat.split_once('(').unwrap().1.rsplit_once(')').unwrap();
        let flags: u32 = rest.split_whitespace().nth(6).unwrap().parse().unwrap();
        comm.starts_with(name) && flags & EXITING == 0
    };
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks.filter_map(|task| stat(task.ok()?)).filter(called).count()
}

#[cfg(target_os = "linux")]
#[test]
fn an_engines_threads_are_gone_when_it_has_ended() {
    for _ in 0..50 {
        let engine = builder().workers(3).thread_names("ends").tier(manual(trivial())).build().unwrap();
        engine.compile_now(beads(&engine, 1)[0], T1, LONG).unwrap();
        // A thread names itself, in its own time.
        let start = Instant::now();
        while threads_called("ends") < 3 {
            assert!(start.elapsed() < LONG, "threads that never came");
            thread::yield_now();
        }
        drop(engine);
        assert_eq!(threads_called("ends"), 0);
    }
}

#[test]
fn an_engine_whose_last_handle_goes_on_one_of_its_threads_ends() {
    let (send, ended) = mpsc::channel();
    let slot: Arc<std::sync::Mutex<Option<Engine>>> = Arc::default();
    let inner = slot.clone();
    let backend = FnBackend::new(move |_: &mut Job<'_>| {
        drop(inner.lock().unwrap().take());
        send.send(()).unwrap();
        Ok(code())
    });
    let engine = builder().workers(1).tier(manual(backend)).build().unwrap();
    let bead = beads(&engine, 1)[0];
    let mut held = slot.lock().unwrap();
    engine.promote(bead, T1).unwrap();
    *held = Some(engine);
    drop(held);
    ended.recv_timeout(LONG).unwrap();
}

#[test]
fn nothing_is_queued_on_an_engine_that_was_shut_down() {
    let engine = builder().workers(1).tier(manual(trivial())).tier(manual(trivial())).build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    engine.compile_now(bead, T2, LONG).unwrap();
    engine.shutdown(LONG).unwrap();
    engine.demote(bead, T1).unwrap();
    assert_eq!(engine.state(bead).unwrap().pending, None);
    assert_eq!(engine.promote(bead, T1), Err(PromoteError::Closed));
}

#[test]
fn a_request_that_races_a_shutdown_is_refused_or_dropped_and_its_wait_ends() {
    for _ in 0..200 {
        let engine = builder().workers(1).tier(manual(trivial())).build().unwrap();
        let bead = engine.register(Core::ZERO).unwrap();
        let start = Barrier::new(2);
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                start.wait();
                engine.compile_now(bead, T1, LONG)
            });
            start.wait();
            engine.shutdown(LONG).unwrap();
            let ended = waiter.join().unwrap();
            let refused = matches!(ended, Err(CompileNowError::Refused(PromoteError::Closed)));
            assert!(ended.is_ok() || refused, "{ended:?}");
        });
        assert_eq!(engine.state(bead).unwrap().pending, None);
    }
}

#[test]
fn shutdown_counts_helpers_and_workers_but_not_the_thread_that_asks() {
    // A helper.
    let (backend, inside, go) = held();
    let engine = builder().inline().tier(manual(backend)).build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    engine.promote(bead, T1).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| engine.run_pending(1));
        inside.wait();
        assert_eq!(engine.shutdown(AT_ONCE).unwrap_err().stuck, [(bead, T1)]);
        go.open();
        engine.shutdown(LONG).unwrap();
    });
    // A worker, asked from another thread of the same pool.
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap());
    let (backend, inside, go) = held();
    let engine = builder().pool(pool.clone()).tier(manual(backend)).build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    engine.promote(bead, T1).unwrap();
    inside.wait();
    assert_eq!(pool.install(|| engine.shutdown(AT_ONCE)).unwrap_err().stuck, [(bead, T1)]);
    go.open();
    pool.install(|| engine.shutdown(LONG)).unwrap();
}

#[test]
fn waiting_and_dropping_on_the_only_thread_of_the_pool_ends() {
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap());
    let engine = builder().pool(pool.clone()).tier(manual(trivial())).build().unwrap();
    let all = beads(&engine, 2);
    pool.install(move || {
        engine.promote(all[0], T1).unwrap();
        engine.drain(LONG).unwrap();
        engine.promote(all[1], T1).unwrap();
        // The worker that was signalled can only run when this job is over, or during the drop.
        drop(engine);
    });
}

#[test]
fn in_the_foreground_no_request_of_two_threads_is_left_behind() {
    let engine = builder().foreground().tier(manual(trivial())).tier(manual(trivial())).build().unwrap();
    let (all, together) = (beads(&engine, 2), Barrier::new(2));
    thread::scope(|scope| {
        for &bead in &all {
            let (engine, together) = (&engine, &together);
            scope.spawn(move || {
                for _ in 0..5_000 {
                    together.wait();
                    engine.promote(bead, T2).unwrap();
                    together.wait();
                    assert_eq!(engine.state(bead).unwrap().pending, None);
                    together.wait();
                    engine.invalidate(bead).unwrap();
                }
            });
        }
    });
}

#[test]
fn in_the_foreground_a_backend_that_promotes_what_it_calls_does_not_recurse() {
    let known: Arc<OnceLock<(Engine, Vec<Bead>)>> = Arc::default();
    let inner = known.clone();
    let backend = FnBackend::new(move |job: &mut Job<'_>| {
        let (engine, all) = inner.get().unwrap();
        if let Some(&next) = all.get(job.bead().index() as usize + 1) {
            engine.promote(next, T1).unwrap();
        }
        Ok(code())
    });
    let engine = builder().foreground().tier(manual(backend)).build().unwrap();
    let all = beads(&engine, 4_000);
    let _ = known.set((engine.clone(), all.clone()));
    let small = thread::Builder::new().stack_size(256 << 10);
    let first = all[0];
    small
        .spawn({
            let engine = engine.clone();
            move || engine.promote(first, T1).unwrap()
        })
        .unwrap()
        .join()
        .unwrap();
    assert!(all.iter().all(|&bead| engine.tier(bead) == Ok(T1)));
}

#[test]
fn an_engine_that_is_told_of_more_workers_than_any_machine_has_compiles() {
    let engine = builder().workers(usize::MAX).tier(manual(trivial())).build().unwrap();
    let bead = beads(&engine, 1)[0];
    engine.compile_now(bead, T1, LONG).unwrap();
    assert_eq!(engine.tier(bead), Ok(T1));
}
