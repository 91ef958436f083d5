//! Charts over time, as SVG.

use std::fmt::Write;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 34.0;

/// The colours of tiers, the interpreter first; more tiers start over.
pub(super) const COLOURS: [&str; 6] = ["#9aa4b2", "#e3a13a", "#3f8fd2", "#39a86b", "#8a63d2", "#d2557a"];

pub(super) fn colour(tier: usize) -> &'static str {
    COLOURS[tier % COLOURS.len()]
}

/// A chart under construction: x is time in seconds from 0 to `until`, y goes from 0 to `most`.
pub(super) struct Chart {
    svg: String,
    height: f64,
    until: f64,
    most: f64,
}

impl Chart {
    /// Axes with round numbers; `unit` says what y is.
    pub(super) fn new(height: f64, until: f64, most: f64, unit: &str) -> Self {
        let until = if until > 0.0 { until } else { 1.0 };
        let steps = round_steps(if most > 0.0 { most } else { 1.0 });
        let most = steps.last().copied().unwrap_or(1.0);
        let mut chart = Self { svg: String::new(), height, until, most };
        write!(chart.svg, r#"<svg viewBox="0 0 {WIDTH} {height}" role="img"><g class="grid">"#).ok();
        for step in steps {
            let y = chart.y(step);
            let (end, label) = (WIDTH - RIGHT, number(step));
            write!(chart.svg, r#"<line x1="{LEFT}" x2="{end}" y1="{y:.1}" y2="{y:.1}"/>"#).ok();
            write!(
                chart.svg,
                r#"<text x="{:.0}" y="{:.1}" text-anchor="end">{label}</text>"#,
                LEFT - 8.0,
                y + 4.0
            )
            .ok();
        }
        for step in round_steps(until).into_iter().filter(|&step| step <= until) {
            let (x, y, label) = (chart.x(step), height - BOTTOM + 16.0, number(step));
            write!(chart.svg, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="middle">{label}</text>"#).ok();
        }
        let (right, bottom) = (WIDTH - RIGHT, height - 4.0);
        write!(chart.svg, r#"<text x="{right}" y="{bottom}" text-anchor="end">seconds</text>"#).ok();
        write!(chart.svg, r#"<text x="{LEFT}" y="{bottom}">{unit}</text></g>"#).ok();
        chart
    }

    fn x(&self, seconds: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * seconds / self.until
    }

    fn y(&self, value: f64) -> f64 {
        self.height - BOTTOM - (self.height - TOP - BOTTOM) * (value / self.most).min(1.0)
    }

    pub(super) fn line(&mut self, points: &[(f64, f64)], colour: &str) {
        let path = self.path(points);
        write!(self.svg, r#"<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>"#).ok();
    }

    /// The area between two curves over the same times.
    pub(super) fn band(&mut self, lower: &[(f64, f64)], upper: &[(f64, f64)], colour: &str) {
        let back: Vec<_> = lower.iter().rev().copied().collect();
        let path = format!("{} {} Z", self.path(upper), self.path(&back).replacen('M', "L", 1));
        write!(self.svg, r#"<path d="{path}" fill="{colour}" fill-opacity="0.85"/>"#).ok();
    }

    /// Something that happened, with what the reader sees when pointing at it. Its kind decides how high it stands.
    pub(super) fn mark(&mut self, seconds: f64, kind: usize, title: &str) {
        let (x, foot) = (self.x(seconds), self.height - BOTTOM);
        let (head, colour) = (TOP + 9.0 * kind as f64, colour(kind));
        write!(
            self.svg,
            r#"<g class="mark"><line x1="{x:.1}" x2="{x:.1}" y1="{head}" y2="{foot}" stroke="{colour}"/><circle cx="{x:.1}" cy="{head}" r="3.2" fill="{colour}"/><title>{}</title></g>"#,
            escape(title)
        )
        .ok();
    }

    fn path(&self, points: &[(f64, f64)]) -> String {
        let mut path = String::new();
        for (number, &(seconds, value)) in points.iter().enumerate() {
            let to = if number == 0 { 'M' } else { 'L' };
            write!(path, "{to}{:.1} {:.1}", self.x(seconds), self.y(value)).ok();
        }
        path
    }

    pub(super) fn finish(mut self) -> String {
        self.svg.push_str("</svg>");
        self.svg
    }
}

/// Some four to eight steps of 1, 2 or 5 times a power of ten, from 0 to the first that is not below `most`.
fn round_steps(most: f64) -> Vec<f64> {
    let power = 10f64.powf((most / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| most / step <= 6.0);
    let step = step.unwrap_or(10.0 * power);
    (0..=(most / step).ceil() as u32).map(|n| f64::from(n) * step).collect()
}

/// A number as short as it can be said.
pub(super) fn number(value: f64) -> String {
    let (value, unit) = match value {
        v if v >= 1e9 => (v / 1e9, " G"),
        v if v >= 1e6 => (v / 1e6, " M"),
        v if v >= 1e4 => (v / 1e3, " k"),
        v => (v, ""),
    };
    let text = format!("{value:.3}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_few_round_and_reach_the_largest_value() {
        for most in [0.003, 0.9, 1.0, 7.0, 99.0, 1234.0, 6.5e8] {
            let steps = round_steps(most);
            assert!((3..=8).contains(&steps.len()), "{most}: {steps:?}");
            assert!(steps[0] == 0.0 && *steps.last().unwrap() >= most * 0.999, "{most}: {steps:?}");
        }
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 0.25, 12.0, 25_000.0, 3.5e6].map(number), ["0", "0.25", "12", "25 k", "3.5 M"]);
    }
}
