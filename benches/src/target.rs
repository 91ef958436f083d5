//! What a figure of beadwork's has to reach, and whether it does.

use crate::contender::Who;
use serde::Serialize;
use std::fmt;

/// A bound for one row of a case, in ratios within the same run where it is not absolute. Less is better in all rows.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Target {
    /// At most so many times that contender's figure.
    TimesOf(Who, f64),
    /// At least so many times faster (or smaller) than that contender.
    FasterThan(Who, f64),
    /// At most this much, in the row's unit.
    AtMost(f64),
}

impl Target {
    /// What there is of what it is about, by beadwork's figure and how many times the other's it is. `None`: there is nothing to
    /// compare with.
    fn reached(self, own: f64, times: impl Fn(Who) -> Option<f64>) -> Option<f64> {
        match self {
            Target::TimesOf(who, _) => times(who),
            Target::FasterThan(who, _) => times(who).map(|times| 1.0 / times),
            Target::AtMost(_) => Some(own),
        }
    }

    fn is_met_by(self, reached: f64) -> bool {
        match self {
            Target::TimesOf(_, most) | Target::AtMost(most) => reached <= most,
            Target::FasterThan(_, least) => reached >= least,
        }
    }

    /// Judges a figure, unless it is of less work than the target is meant for.
    pub fn judge(self, smaller: bool, own: Option<f64>, times: impl Fn(Who) -> Option<f64>) -> Judged {
        let reached = own.and_then(|own| self.reached(own, times));
        let verdict = match reached {
            _ if smaller => Verdict::NotJudged,
            Some(reached) if self.is_met_by(reached) => Verdict::Met,
            Some(_) => Verdict::Missed,
            None => Verdict::Unknown,
        };
        Judged { target: self, reached, verdict }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::TimesOf(who, most) => write!(f, "≤ {most} × {who}"),
            Target::FasterThan(who, least) => write!(f, "≥ {least} × better than {who}"),
            Target::AtMost(most) => write!(f, "≤ {}", (most * 1000.0).round() / 1000.0),
        }
    }
}

/// Whether a target is met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is.
    Met,
    /// It is not.
    Missed,
    /// There is no figure, or nothing to compare it with.
    Unknown,
    /// The run was of less work than the target is meant for.
    NotJudged,
}

/// A target, and what was reached. In JSON its text, and whether it is met; `null` if that cannot be said.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(into = "(String, Option<bool>)")]
pub struct Judged {
    /// The target.
    pub target: Target,
    /// In the terms of the target.
    pub reached: Option<f64>,
    /// Whether that is enough.
    pub verdict: Verdict,
}

impl From<Judged> for (String, Option<bool>) {
    fn from(judged: Judged) -> Self {
        let met = match judged.verdict {
            Verdict::Met => Some(true),
            Verdict::Missed => Some(false),
            Verdict::Unknown | Verdict::NotJudged => None,
        };
        (judged.target.to_string(), met)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(target: Target, own: f64, times: Option<f64>) -> Verdict {
        target.judge(false, Some(own), |_| times).verdict
    }

    #[test]
    fn a_bound_is_met_up_to_itself_and_from_its_own_side() {
        let at_most = Target::TimesOf(Who::Raw, 1.5);
        assert_eq!(verdict(at_most, 9.0, Some(1.5)), Verdict::Met);
        assert_eq!(verdict(at_most, 9.0, Some(1.51)), Verdict::Missed);
        let faster = Target::FasterThan(Who::Beadie, 2.0);
        assert_eq!(verdict(faster, 9.0, Some(0.5)), Verdict::Met);
        assert_eq!(verdict(faster, 9.0, Some(0.51)), Verdict::Missed);
        assert_eq!(verdict(Target::AtMost(24.0), 24.0, None), Verdict::Met);
        assert_eq!(verdict(Target::AtMost(24.0), 24.1, None), Verdict::Missed);
    }

    #[test]
    fn without_a_figure_on_both_sides_nothing_is_said() {
        assert_eq!(verdict(Target::TimesOf(Who::Raw, 1.5), 9.0, None), Verdict::Unknown);
        assert_eq!(Target::AtMost(24.0).judge(false, None, |_| None).verdict, Verdict::Unknown);
    }

    #[test]
    fn less_work_than_the_target_is_meant_for_is_not_judged() {
        let judged = Target::TimesOf(Who::Raw, 1.5).judge(true, Some(9.0), |_| Some(1.0));
        assert_eq!(judged.verdict, Verdict::NotJudged);
        assert_eq!(<(String, Option<bool>)>::from(judged), ("≤ 1.5 × raw".to_owned(), None));
    }
}
