//! What a VM author sees of an engine: reports, histories, recordings.

mod common;
use beadwork::*;
use common::*;
use std::time::Duration;

const T1: TierId = TierId::BASELINE;
const T2: TierId = TierId::new(2).unwrap();

/// Two tiers entered by hand, ten functions; the first is called 1,000 times and runs at T2, the second 100 times and at T1.
fn busy() -> (Engine, Vec<Bead>) {
    let tier = || Tier::new(trivial()).policy(Manual);
    let engine = Engine::builder().capacity(64).inline().tier(tier()).tier(tier()).build().unwrap();
    let beads: Vec<_> = (0..10)
        .map(|n| engine.register_with(Core::new(n), &BeadInfo::named(&format!("f{n}"))).unwrap())
        .collect();
    let m = engine.mutator();
    for (bead, calls) in [(beads[0], 1_000), (beads[1], 100), (beads[2], 99)] {
        (0..calls).for_each(|_| m.tick(bead));
    }
    for (bead, tier) in [(beads[0], T2), (beads[1], T1)] {
        engine.promote(bead, tier).unwrap();
    }
    engine.run_pending(usize::MAX);
    (engine, beads)
}

#[test]
fn a_census_counts_every_live_function_once_by_tier_and_by_heat() {
    let (engine, beads) = busy();
    engine.remove(beads[9]).unwrap();
    let census = engine.census(HeatLimits::default());
    assert_eq!((census.functions, census.hot, census.warm, census.cold), (9, 1, 1, 7));
    assert_eq!((&census.tiers[..4], census.top), (&[7, 1, 1, 0][..], T2));
    assert_eq!(census.calls, 1_199);
    assert_eq!(engine.tier_distribution(), census.tiers);
    let all = engine.census(HeatLimits { warm: 0, hot: 0 });
    assert_eq!((all.hot, all.warm, all.cold), (9, 0, 0));
}

#[test]
fn a_report_says_what_the_peers_reports_say() {
    let (engine, _) = busy();
    let text = engine.report().to_string();
    let expected = "Tiered Compilation: 8 Interpreter (T0), 1 Baseline (T1), 1 Optimized (T2)\n\
                    Profile: 10 functions (1 hot, 1 warm, 8 cold), 1199 total calls\n";
    assert!(text.starts_with(expected), "{text}");
    assert!(text.contains("\nQueue: 0 waiting, 0 optimizing\n"), "{text}");
}

#[test]
fn hot_functions_come_hottest_first_and_no_more_than_asked_for() {
    let (engine, beads) = busy();
    let hot = engine.hot_functions(2);
    let seen: Vec<_> = hot.iter().map(|hot| (hot.bead, hot.name.as_deref(), hot.tier, hot.calls)).collect();
    assert_eq!(seen, [(beads[0], Some("f0"), T2, 1_000), (beads[1], Some("f1"), T1, 100)]);
    assert_eq!(engine.hot_functions(100).len(), 3, "functions that were never called are not hot");
    assert!(engine.hot_functions(0).is_empty());
    assert_eq!(hot[0].to_string(), format!("{:>10} calls  T2  {} f0", 1_000, beads[0]));
}

#[test]
fn a_history_keeps_the_newest_events_of_a_function_and_goes_with_it() {
    let fails = std::sync::atomic::AtomicBool::new(true);
    let backend = FnBackend::new(move |_: &mut Job<'_>| {
        if fails.swap(false, std::sync::atomic::Ordering::SeqCst) {
            return Err(CompileError::failed("not yet"));
        }
        Ok(code())
    });
    let builder = Engine::builder().capacity(16).inline().clock(|| Duration::from_millis(5)).history(3);
    let engine = builder.tier(Tier::new(backend).policy(Manual)).build().unwrap();
    let (bead, other) = (engine.register(Core::ZERO).unwrap(), engine.register(Core::ZERO).unwrap());
    let names =
        |bead| -> Vec<_> { engine.history(bead).unwrap().iter().map(|entry| entry.event.name()).collect() };
    for _ in 0..2 {
        engine.promote(bead, T1).unwrap();
        engine.run_pending(usize::MAX);
    }
    assert_eq!(names(bead), ["failed", "queued", "installed"], "the oldest of four is gone");
    let entry = &engine.history(bead).unwrap()[0];
    assert_eq!(entry.at, Duration::from_millis(5));
    assert!(matches!(&entry.event, Event::Failed { error, .. } if error.to_string().contains("not yet")));
    assert!(names(other).is_empty());

    engine.remove(bead).unwrap();
    assert!(engine.history(bead).is_err());
    let mut registered = (0..16).map_while(|_| engine.register(Core::ZERO).ok());
    let next = registered.find(|next| next.index() == bead.index()).expect("the index is used again");
    assert!(names(next).is_empty(), "a history is not inherited");
}

#[test]
fn an_engine_without_histories_remembers_nothing() {
    let (engine, beads) = busy();
    assert!(engine.history(beads[0]).unwrap().is_empty());
}

#[test]
fn every_event_knows_its_function_and_tier() {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = seen.clone();
    let listen = move |event: &Event| log.lock().unwrap().push((event.name(), event.bead(), event.tier()));
    let builder = Engine::builder().capacity(16).inline().on_event(listen);
    let engine = builder.tier(Tier::new(trivial()).policy(Manual)).build().unwrap();
    let bead = engine.register(Core::ZERO).unwrap();
    engine.promote(bead, T1).unwrap();
    engine.run_pending(1);
    let assumption = engine.assumption();
    engine.invalidate_assumption(assumption);
    engine.remove(bead).unwrap();
    let expected = [
        ("queued", Some(bead), Some(T1)),
        ("installed", Some(bead), Some(T1)),
        ("assumption_broken", None, None),
        ("removed", Some(bead), None),
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
}

#[cfg(feature = "serde")]
#[test]
fn a_report_is_serializable() {
    let (engine, beads) = busy();
    let report = serde_json::to_value(engine.report()).unwrap();
    assert_eq!(report["census"]["tiers"][1], 1);
    assert_eq!(report["stats"]["installed"], 2);
    let hot = serde_json::to_value(engine.hot_functions(1)).unwrap();
    assert_eq!((&hot[0]["name"], &hot[0]["bead"]), (&"f0".into(), &beads[0].to_bits().into()));
}

#[cfg(feature = "trace")]
#[test]
fn a_trace_has_a_queue_and_a_compile_span_for_each_compile_and_is_well_formed() {
    let trace = Trace::new();
    let backend = FnBackend::new(|_: &mut Job<'_>| Ok(code().with_compile_time(Duration::from_micros(3))));
    let builder = Engine::builder().capacity(16).inline().on_event(trace.listener());
    let engine = builder.tier(Tier::new(backend).policy(Manual)).build().unwrap();
    let bead = engine.register_with(Core::ZERO, &BeadInfo::named("say \"hi\"\n")).unwrap();
    engine.promote(bead, T1).unwrap();
    engine.run_pending(1);
    engine.invalidate(bead).unwrap();
    let mut text = Vec::new();
    trace.write(&engine, &mut text).unwrap();
    let parsed: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let rows = parsed["traceEvents"].as_array().unwrap();
    for row in rows {
        // What the format asks of each kind.
        let needs: &[&str] = match row["ph"].as_str().unwrap() {
            "M" => &["name", "pid", "args"],
            "b" | "e" => &["name", "cat", "id", "pid", "tid", "ts"],
            "i" => &["name", "s", "pid", "tid", "ts"],
            other => panic!("unknown phase {other}"),
        };
        assert!(needs.iter().all(|key| !row[key].is_null()), "{row}");
    }
    let of = |phase: &str, category: &str| {
        let row = rows.iter().find(|row| row["ph"] == phase && row["cat"] == category);
        row.and_then(|row| row["ts"].as_f64()).unwrap_or_else(|| panic!("no {phase} of {category}"))
    };
    let (asked, taken) = (of("b", "queue"), of("e", "queue"));
    let (began, ended) = (of("b", "compile"), of("e", "compile"));
    assert!(asked <= taken && taken <= ended && began <= ended);
    let named = rows.iter().filter(|row| row["name"] == "compile say \"hi\"\n").count();
    assert_eq!(named, 2);
    let instants: Vec<_> =
        rows.iter().filter(|row| row["ph"] == "i").map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(instants, ["installed", "invalidated"]);
}

#[cfg(feature = "metrics")]
#[test]
fn metrics_count_events_and_compile_times() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let builder = Engine::builder().capacity(16).inline().on_event(record_metrics);
        let engine = builder.tier(Tier::new(trivial()).policy(Manual)).build().unwrap();
        let bead = engine.register(Core::ZERO).unwrap();
        engine.promote(bead, T1).unwrap();
        engine.run_pending(1);
        engine.stats().record_metrics();
    });
    let all = snapshots.snapshot().into_vec();
    let value = |name: &str, label: &str| {
        let found = all.iter().find(|(key, ..)| {
            let key = key.key();
            key.name() == name && (label.is_empty() || key.labels().any(|l| l.value() == label))
        });
        found.map(|(.., value)| value).unwrap_or_else(|| panic!("no {name} {label}"))
    };
    assert!(matches!(value("beadwork_events", "queued"), DebugValue::Counter(1)));
    assert!(matches!(value("beadwork_events", "installed"), DebugValue::Counter(1)));
    assert!(
        matches!(value("beadwork_compile_seconds", "T1"), DebugValue::Histogram(times) if times.len() == 1)
    );
    assert!(matches!(value("beadwork_beads", ""), DebugValue::Gauge(beads) if beads.0 == 1.0));
}
