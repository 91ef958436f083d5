//! The types of strand: a scalar, or an array of a type.

use std::fmt;

/// The innermost part of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// 64-bit two's complement, wrapping.
    Int,
    /// IEEE 754 binary64.
    Float,
    /// `true` or `false`, held as 1 or 0.
    Bool,
    /// An integer that becomes a float when it has to; a word as [`num`](crate::num) says.
    Num,
    /// The result of a function without one. Has the single value 0.
    Unit,
}

/// A type: `rank` pairs of brackets around a scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Type {
    /// What is inside all brackets.
    pub scalar: Scalar,
    /// How many brackets: 0 for a scalar, 1 for `[int]`, 2 for `[[int]]`.
    pub rank: u8,
}

impl Type {
    /// `int`
    pub const INT: Self = Self { scalar: Scalar::Int, rank: 0 };
    /// `float`
    pub const FLOAT: Self = Self { scalar: Scalar::Float, rank: 0 };
    /// `bool`
    pub const BOOL: Self = Self { scalar: Scalar::Bool, rank: 0 };
    /// `num`
    pub const NUM: Self = Self { scalar: Scalar::Num, rank: 0 };
    /// No value.
    pub const UNIT: Self = Self { scalar: Scalar::Unit, rank: 0 };
    /// The greatest rank: `[[[[int]]]]`.
    pub const MAX_RANK: u8 = 4;

    /// The type of the elements, if this is an array type.
    #[must_use]
    pub fn element(self) -> Option<Self> {
        Some(Self { rank: self.rank.checked_sub(1)?, ..self })
    }

    /// The type of an array of this, unless that has a rank beyond [`MAX_RANK`](Self::MAX_RANK) or no value to hold.
    #[must_use]
    pub fn array(self) -> Option<Self> {
        (self.rank < Self::MAX_RANK && self != Self::UNIT).then_some(Self { rank: self.rank + 1, ..self })
    }

    /// Whether a register of this type holds the bits of an `f64` (all others hold an integer or an address).
    #[must_use]
    pub fn is_float(self) -> bool {
        self == Self::FLOAT
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for _ in 0..self.rank {
            f.write_str("[")?;
        }
        f.write_str(match self.scalar {
            Scalar::Int => "int",
            Scalar::Float => "float",
            Scalar::Bool => "bool",
            Scalar::Num => "num",
            Scalar::Unit => "no value",
        })?;
        for _ in 0..self.rank {
            f.write_str("]")?;
        }
        Ok(())
    }
}
