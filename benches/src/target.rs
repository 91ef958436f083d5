//! What a figure of beadwork's has to reach.

use crate::contender::Who;
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
    /// Whether it holds, by beadwork's figure and how many times the other's it is. `None`: there is nothing to compare with.
    pub fn is_met(self, own: f64, times: impl Fn(Who) -> Option<f64>) -> Option<bool> {
        match self {
            Target::TimesOf(who, most) => times(who).map(|times| times <= most),
            Target::FasterThan(who, least) => times(who).map(|times| 1.0 / times >= least),
            Target::AtMost(most) => Some(own <= most),
        }
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
