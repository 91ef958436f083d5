//! The page of a warm-up.

use std::time::Duration;

use beadwork::{BeadInfo, CompiledCode, Core, Engine, FnBackend, Job, Manual, Tier, TierId};
use strand::report::Recorder;

extern "C" fn native() {}

#[test]
fn a_page_needs_nothing_else_shows_what_was_recorded_and_quotes_names() {
    let mut recorder = Recorder::new();
    let backend = FnBackend::new(|_: &mut Job<'_>| Ok(CompiledCode::new(native as *const u8)));
    let builder = Engine::builder().capacity(16).inline().on_event(recorder.listener());
    let engine = builder.tier(Tier::new(backend).policy(Manual)).build().unwrap();
    let bead = engine.register_with(Core::ZERO, &BeadInfo::named("a<b>&c")).unwrap();
    engine.mutator().tick(bead);
    recorder.sample(&engine, Duration::from_millis(10));
    engine.promote(bead, TierId::BASELINE).unwrap();
    engine.run_pending(1);
    recorder.sample(&engine, Duration::from_millis(1));
    assert_eq!(recorder.samples().iter().map(|s| s.tiers.clone()).collect::<Vec<_>>(), [[1, 0], [0, 1]]);

    let page = recorder.page("life & more", &engine);
    assert!(["http:", "https:", "src=", "href="].iter().all(|outside| !page.contains(outside)));
    assert_eq!(page.matches("<svg").count(), 4);
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert!(page.contains("<title>life &amp; more</title>"));
    assert!(page.contains("a&lt;b&gt;&amp;c installed at T1") && !page.contains("a<b>"));
    assert!(page.contains("<b>10.0 ×</b>"), "ten times faster");
    assert!(page.contains("Tiered Compilation: 0 Interpreter (T0), 1 Baseline (T1)"));
}

#[test]
fn a_page_of_nothing_is_a_page() {
    let engine = Engine::builder().capacity(16).build().unwrap();
    let page = Recorder::new().page("nothing", &engine);
    assert!(page.ends_with("</html>") && !page.contains("NaN") && !page.contains("inf"));
}
