//! `num`: an integer of 32 bits as long as it fits, else a float. The one description of its words.
//!
//! | word | value |
//! |---|---|
//! | [`INT_TAG`] in the upper 32 bits | the integer in the lower 32 |
//! | anything else | the bits of a float; the only NaN is the canonical one, so none looks like an integer |
//!
//! Arithmetic on two integers gives an integer if the exact result is one of 32 bits, and a float otherwise (`-0.0` does not
//! arise from integers); everything else is computed as floats, and floats never become integers again by themselves.

use std::cmp::Ordering;

/// The upper 32 bits of an integer: a negative quiet NaN, in place.
pub const INT_TAG: u64 = 0xFFFC_0000_0000_0000;

/// A word shifted right by this is [`INT_MARK`] for integers only; so is that of `a & b` if both are integers.
pub const MARK_SHIFT: u32 = 50;
/// See [`MARK_SHIFT`].
pub const INT_MARK: u64 = INT_TAG >> MARK_SHIFT;

/// The only NaN.
pub const NAN: u64 = 0x7FF8_0000_0000_0000;

/// Arithmetic on two nums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the operators")]
pub enum NumOp {
    Add = 0,
    Sub = 1,
    Mul = 2,
    Div = 3,
}

impl NumOp {
    /// All operations.
    pub const ALL: [Self; 4] = [Self::Add, Self::Sub, Self::Mul, Self::Div];
}

/// Comparison of two nums by value. NaN makes all but `Ne`, `NotLt` and `NotLe` false.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the comparisons")]
pub enum NumTest {
    Lt,
    Le,
    Eq,
    Ne,
    NotLt,
    NotLe,
}

impl NumTest {
    /// Whether the comparison holds.
    #[inline]
    #[must_use]
    pub fn holds(self, a: u64, b: u64) -> bool {
        // Exact for integers of 32 bits.
        let (a, b) = (to_float(a), to_float(b));
        match self {
            Self::Lt => a < b,
            Self::Le => a <= b,
            Self::Eq => a == b,
            Self::Ne => a != b,
            Self::NotLt => !matches!(a.partial_cmp(&b), Some(Ordering::Less)),
            Self::NotLe => !matches!(a.partial_cmp(&b), Some(Ordering::Less | Ordering::Equal)),
        }
    }
}

/// The integer in the word, if it is one.
#[inline]
#[must_use]
pub fn as_int(word: u64) -> Option<i32> {
    (word >> MARK_SHIFT == INT_MARK).then_some(word as u32 as i32)
}

/// A word for an integer, which becomes a float if it is too wide.
#[inline]
#[must_use]
pub fn from_int(value: i64) -> u64 {
    match i32::try_from(value) {
        Ok(value) => INT_TAG | u64::from(value.cast_unsigned()),
        Err(_) => from_float(value as f64),
    }
}

/// A word for a float.
#[inline]
#[must_use]
pub fn from_float(value: f64) -> u64 {
    if value.is_nan() { NAN } else { value.to_bits() }
}

/// The value as a float, which is exact.
#[inline]
#[must_use]
pub fn to_float(word: u64) -> f64 {
    as_int(word).map_or_else(|| f64::from_bits(word), f64::from)
}

/// The value as an integer: rounded towards zero, saturating; NaN is 0.
#[inline]
#[must_use]
pub fn to_int(word: u64) -> i64 {
    as_int(word).map_or_else(|| f64::from_bits(word) as i64, i64::from)
}

/// `a op b`.
#[must_use]
pub fn arithmetic(op: NumOp, a: u64, b: u64) -> u64 {
    if let (Some(a), Some(b)) = (as_int(a), as_int(b)) {
        let (a, b) = (i64::from(a), i64::from(b));
        match op {
            NumOp::Add => return from_int(a + b),
            NumOp::Sub => return from_int(a - b),
            NumOp::Mul => return from_int(a * b),
            NumOp::Div if b != 0 && a % b == 0 => return from_int(a / b),
            NumOp::Div => {}
        }
    }
    let (a, b) = (to_float(a), to_float(b));
    from_float(match op {
        NumOp::Add => a + b,
        NumOp::Sub => a - b,
        NumOp::Mul => a * b,
        NumOp::Div => a / b,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_stay_integers_while_the_exact_result_is_one() {
        let int = |v| from_int(v);
        assert_eq!(arithmetic(NumOp::Add, int(2), int(3)), int(5));
        assert_eq!(arithmetic(NumOp::Sub, int(2), int(3)), int(-1));
        assert_eq!(arithmetic(NumOp::Mul, int(-4), int(3)), int(-12));
        assert_eq!(arithmetic(NumOp::Div, int(-12), int(3)), int(-4));
        assert_eq!(arithmetic(NumOp::Div, int(7), int(2)), from_float(3.5));
        assert_eq!(arithmetic(NumOp::Add, int(i32::MAX.into()), int(1)), from_float(2_147_483_648.0));
        assert_eq!(arithmetic(NumOp::Div, int(i32::MIN.into()), int(-1)), from_float(2_147_483_648.0));
        assert_eq!(arithmetic(NumOp::Div, int(1), int(0)), from_float(f64::INFINITY));
        assert_eq!(arithmetic(NumOp::Div, int(0), int(0)), NAN);
    }

    #[test]
    fn floats_stay_floats_and_no_float_looks_like_an_integer() {
        assert_eq!(arithmetic(NumOp::Add, from_float(1.5), from_int(1)), from_float(2.5));
        assert_eq!(arithmetic(NumOp::Sub, from_float(1.5), from_float(0.5)), from_float(1.0));
        for bits in [u64::MAX, INT_TAG, INT_TAG | 7, NAN, 0x7FF0_0000_0000_0001] {
            assert_eq!(as_int(from_float(f64::from_bits(bits))), None);
        }
        for value in [0.0, -0.0, 1e300, f64::NEG_INFINITY, f64::MIN_POSITIVE, 5e-324] {
            assert_eq!(to_float(from_float(value)).to_bits(), value.to_bits());
        }
        for value in [0, -1, 5, i32::MAX, i32::MIN] {
            assert_eq!(as_int(from_int(value.into())), Some(value));
            assert_eq!(to_int(from_int(value.into())), i64::from(value));
        }
    }
}
