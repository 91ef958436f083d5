//! No threshold at all.

use super::{Activity, Policy, Verdict};
use std::num::NonZeroU32;

/// Never promotes: functions enter the tier only when the VM says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Manual;

impl Policy for Manual {
    fn decide(&self, _: &Activity) -> Verdict {
        Verdict::Wait(NonZeroU32::MAX)
    }
}
