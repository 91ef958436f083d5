//! The page around the charts.

use std::fmt::Write;

use beadwork::{Engine, HotFunction};

use super::chart::{Chart, colour, escape, number};
use super::{Install, Sample, row};

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1d2430; --soft: #68738a; --paper: #fff; --line: #e4e8ef; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf2; --soft: #93a0b8; --paper: #14181f; --line: #2a3140; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 900px; margin: 32px auto; padding: 0 20px; }
h1 { font-size: 22px; margin: 0 0 4px; } h2 { font-size: 16px; margin: 32px 0 6px; }
p { color: var(--soft); margin: 0 0 10px; } svg { width: 100%; height: auto; }
.grid line { stroke: var(--line); } .grid text { fill: var(--soft); font-size: 11px; }
.mark line { stroke-opacity: 0.35; } .mark:hover line { stroke-opacity: 1; stroke-width: 2; }
.figures { display: flex; flex-wrap: wrap; gap: 12px; margin: 18px 0 0; }
.figures div { border: 1px solid var(--line); border-radius: 8px; padding: 8px 14px; min-width: 110px; }
.figures b { display: block; font-size: 19px; } .figures span { color: var(--soft); font-size: 12px; }
.key { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin: 0 5px 0 14px; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: 4px 10px 4px 0; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: normal; } td:last-child, th:last-child { text-align: right; font-variant-numeric: tabular-nums; }
pre { background: color-mix(in srgb, var(--soft) 10%, transparent); padding: 10px 14px; border-radius: 8px; white-space: pre-wrap; font-size: 12.5px; }
";

pub(super) fn write(
    title: &str,
    samples: &[Sample],
    installs: &[Install],
    hottest: &[HotFunction],
    engine: &Engine,
) -> String {
    let mut page = String::new();
    let title = escape(title);
    let tiers = samples.last().map_or(0, |sample| sample.tiers.len());
    write!(
        page,
        r#"<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>"#
    )
    .ok();
    write!(page, "<h1>{title}</h1><p>{}</p>", legend(tiers)).ok();
    page.push_str(&figures(samples, installs));
    section(
        &mut page,
        "Warm-up",
        "Runs of the program per second. Each mark is an install; point at it for the function.",
        &throughput(samples, installs),
    );
    section(
        &mut page,
        "Functions by tier",
        "How many functions run at which tier.",
        &distribution(samples, tiers),
    );
    section(
        &mut page,
        "Compile queue",
        "Requests that wait, and are being compiled, at each look.",
        &queue(samples),
    );
    section(
        &mut page,
        "Code",
        "Bytes of native code that is installed or waits to be freed.",
        &code(samples),
    );
    page.push_str("<h2>Most calls counted</h2><table><tr><th>function<th>tier<th>calls</tr>");
    for hot in hottest {
        let [name, tier, calls] = row(hot);
        write!(page, "<tr><td>{}<td>{tier}<td>{calls}</tr>", escape(&name)).ok();
    }
    write!(page, "</table><h2>Statistics</h2><pre>{}</pre></html>", escape(&engine.report().to_string()))
        .ok();
    page
}

fn section(page: &mut String, title: &str, text: &str, chart: &str) {
    write!(page, "<h2>{title}</h2><p>{text}</p>{chart}").ok();
}

fn legend(tiers: usize) -> String {
    (0..tiers).fold(String::new(), |mut legend, tier| {
        let name = if tier == 0 { "interpreter" } else { "native" };
        write!(legend, r#"<span class="key" style="background:{}"></span>T{tier} {name}"#, colour(tier)).ok();
        legend
    })
}

fn figures(samples: &[Sample], installs: &[Install]) -> String {
    let rate = |sample: &Sample| 1.0 / sample.took.as_secs_f64().max(1e-9);
    let (first, best) = (samples.first().map_or(0.0, rate), samples.iter().map(rate).fold(0.0, f64::max));
    let warm = samples.iter().find(|sample| rate(sample) >= 0.95 * best);
    let mut html = r#"<div class="figures">"#.to_owned();
    for (value, what) in [
        (number(first.round()), "runs/s at first"),
        (number(best.round()), "runs/s at best"),
        (format!("{:.1} ×", if first > 0.0 { best / first } else { 0.0 }), "faster"),
        (
            warm.map_or_else(|| "-".to_owned(), |sample| format!("{:.0} ms", sample.at.as_secs_f64() * 1e3)),
            "to 95 % of the best",
        ),
        (installs.len().to_string(), "installs"),
    ] {
        write!(html, "<div><b>{value}</b><span>{what}</span></div>").ok();
    }
    html + "</div>"
}

/// The end of the last run.
fn until(samples: &[Sample]) -> f64 {
    samples.last().map_or(0.0, |sample| sample.at.as_secs_f64())
}

fn curve(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> Vec<(f64, f64)> {
    samples.iter().map(|sample| (sample.at.as_secs_f64(), value(sample))).collect()
}

fn most(curves: &[&[(f64, f64)]]) -> f64 {
    curves.iter().flat_map(|curve| curve.iter()).map(|&(_, value)| value).fold(0.0, f64::max)
}

fn throughput(samples: &[Sample], installs: &[Install]) -> String {
    let rates = curve(samples, |sample| 1.0 / sample.took.as_secs_f64().max(1e-9));
    let mut chart = Chart::new(280.0, until(samples), most(&[&rates]), "runs per second");
    for install in installs {
        let at = install.at.as_secs_f64();
        let title = format!("{} installed at {} after {:.1} ms", install.name, install.tier, at * 1e3);
        chart.mark(at, usize::from(install.tier.get()), &title);
    }
    chart.line(&rates, "currentColor");
    chart.finish()
}

fn distribution(samples: &[Sample], tiers: usize) -> String {
    let functions = samples.last().map_or(0, |sample| sample.tiers.iter().sum()) as f64;
    let mut chart = Chart::new(200.0, until(samples), functions, "functions");
    let mut below = curve(samples, |_| 0.0);
    for tier in 0..tiers {
        let upper = curve(samples, |sample| sample.tiers.iter().take(tier + 1).sum::<u64>() as f64);
        chart.band(&below, &upper, colour(tier));
        below = upper;
    }
    chart.finish()
}

fn queue(samples: &[Sample]) -> String {
    let waiting = curve(samples, |sample| sample.queued as f64);
    let compiling = curve(samples, |sample| sample.compiling as f64);
    let mut chart = Chart::new(150.0, until(samples), most(&[&waiting, &compiling]), "requests");
    chart.line(&waiting, colour(1));
    chart.line(&compiling, colour(2));
    chart.finish()
}

fn code(samples: &[Sample]) -> String {
    let bytes = curve(samples, |sample| sample.code_bytes as f64);
    let mut chart = Chart::new(150.0, until(samples), most(&[&bytes]), "bytes");
    chart.line(&bytes, colour(3));
    chart.finish()
}
