//! Which registers hold a value that is still needed, before each instruction: what has to be carried over when a function goes
//! on in the interpreter there.

use crate::bytecode::{Op, Reg};
use crate::function::Function;
use crate::lower::MAX_REGISTERS;
use crate::program::Program;

/// A set of registers, each as an integer or as a float.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Set([u64; 2 * MAX_REGISTERS / 64]);

impl Set {
    fn bit(register: Reg, float: bool) -> (usize, u64) {
        let bit = register.index() + if float { MAX_REGISTERS } else { 0 };
        (bit / 64, 1 << (bit % 64))
    }

    fn insert(&mut self, register: Reg, float: bool) {
        let (word, bit) = Self::bit(register, float);
        self.0[word] |= bit;
    }

    /// A register is one word: writing it as one class ends its life as the other, too.
    fn remove(&mut self, register: Reg) {
        for float in [false, true] {
            let (word, bit) = Self::bit(register, float);
            self.0[word] &= !bit;
        }
    }

    fn contains(&self, register: Reg, float: bool) -> bool {
        let (word, bit) = Self::bit(register, float);
        self.0[word] & bit != 0
    }

    /// Adds the other's registers; answers whether any is new.
    fn extend(&mut self, other: &Self) -> bool {
        let mut new = false;
        for (mine, other) in self.0.iter_mut().zip(other.0) {
            new |= other & !*mine != 0;
            *mine |= other;
        }
        new
    }
}

/// What is live in a function.
#[derive(Debug)]
pub struct Liveness {
    before: Vec<Set>,
    registers: u16,
}

impl Liveness {
    /// Analyses a function, in time proportional to its length times the nesting of its loops.
    #[must_use]
    pub fn of(function: &Function, program: &Program) -> Self {
        let mut before = vec![Set::default(); function.code.len()];
        // Control goes forward but for the ends of loops, so each round from the end finds what one more loop carries around.
        let mut changed = true;
        while changed {
            changed = false;
            for (pc, op) in function.code.iter().enumerate().rev() {
                let mut live = Set::default();
                if let Some(after) = before.get(pc + 1).filter(|_| !op.is_terminator()) {
                    live.extend(after);
                }
                if let Some(target) = op.target().and_then(|target| before.get(target.index())) {
                    live.extend(target);
                }
                transfer(op, program, &mut live);
                changed |= before[pc].extend(&live);
            }
        }
        Self { before, registers: function.registers }
    }

    /// The registers that are live before the instruction at `pc`, and whether they hold floats.
    pub fn before(&self, pc: usize) -> impl Iterator<Item = (Reg, bool)> + '_ {
        let set = self.before.get(pc).copied().unwrap_or_default();
        let registers = (0..=u8::MAX).take(self.registers.into()).map(Reg);
        registers.flat_map(move |register| {
            [false, true].map(|float| (register, float)).into_iter().filter(move |&(r, f)| set.contains(r, f))
        })
    }
}

/// From what is live after an instruction to what is before it.
#[rustfmt::skip]
fn transfer(op: &Op, program: &Program, live: &mut Set) {
    let written = match *op {
        Op::Move { dst, .. } | Op::MoveF { dst, .. } | Op::Const { dst, .. } | Op::Pool { dst, .. } | Op::PoolF { dst, .. }
        | Op::Add { dst, .. } | Op::Sub { dst, .. } | Op::Mul { dst, .. } | Op::Div { dst, .. } | Op::Rem { dst, .. }
        | Op::And { dst, .. } | Op::Or { dst, .. } | Op::Xor { dst, .. } | Op::Shl { dst, .. } | Op::Shr { dst, .. }
        | Op::AddK { dst, .. } | Op::MulK { dst, .. } | Op::DivK { dst, .. } | Op::RemK { dst, .. } | Op::AndK { dst, .. }
        | Op::ShlK { dst, .. } | Op::ShrK { dst, .. } | Op::Neg { dst, .. } | Op::Not { dst, .. }
        | Op::AddF { dst, .. } | Op::SubF { dst, .. } | Op::MulF { dst, .. } | Op::DivF { dst, .. } | Op::NegF { dst, .. }
        | Op::SqrtF { dst, .. } | Op::ToFloat { dst, .. } | Op::ToInt { dst, .. } | Op::ArithN { dst, .. }
        | Op::ToNum { dst, .. } | Op::ToNumF { dst, .. } | Op::NumToInt { dst, .. } | Op::NumToFloat { dst, .. }
        | Op::Load { dst, .. } | Op::LoadF { dst, .. } | Op::Len { dst, .. } | Op::Array { dst, .. } | Op::ArrayF { dst, .. } => Some(dst),
        Op::Call { base, func } => {
            // The result is in `base`; what was above is undefined.
            (base.0..=u8::MAX).for_each(|register| live.remove(Reg(register)));
            let params = program.function(func).map_or(&[][..], |callee| &callee.signature.params);
            for (register, ty) in (base.0..=u8::MAX).zip(params) {
                live.insert(Reg(register), ty.is_float());
            }
            return;
        }
        Op::Jump { .. } | Op::BrTrue { .. } | Op::BrFalse { .. } | Op::BrLt { .. } | Op::BrLe { .. } | Op::BrEq { .. }
        | Op::BrNe { .. } | Op::BrLtK { .. } | Op::BrGeK { .. } | Op::BrEqK { .. } | Op::BrNeK { .. } | Op::BrLtF { .. }
        | Op::BrLeF { .. } | Op::BrEqF { .. } | Op::BrNeF { .. } | Op::BrNotLtF { .. } | Op::BrNotLeF { .. } | Op::BrN { .. }
        | Op::Back { .. } | Op::ForBack { .. } | Op::Store { .. } | Op::StoreF { .. } | Op::Ret { .. } | Op::RetF { .. }
        | Op::RetUnit | Op::Print { .. } => None,
    };
    if let Some(written) = written {
        live.remove(written);
    }
    let (ints, floats): (&[Reg], &[Reg]) = match op {
        Op::Move { src, .. } | Op::Ret { src } => (&[*src], &[]),
        Op::MoveF { src, .. } | Op::RetF { src } => (&[], &[*src]),
        Op::Add { a, b, .. } | Op::Sub { a, b, .. } | Op::Mul { a, b, .. } | Op::Div { a, b, .. } | Op::Rem { a, b, .. }
        | Op::And { a, b, .. } | Op::Or { a, b, .. } | Op::Xor { a, b, .. } | Op::Shl { a, b, .. } | Op::Shr { a, b, .. }
        | Op::BrLt { a, b, .. } | Op::BrLe { a, b, .. } | Op::BrEq { a, b, .. } | Op::BrNe { a, b, .. }
        | Op::ArithN { a, b, .. } | Op::BrN { a, b, .. } => (&[*a, *b], &[]),
        Op::AddK { a, .. } | Op::MulK { a, .. } | Op::DivK { a, .. } | Op::RemK { a, .. } | Op::AndK { a, .. } | Op::ShlK { a, .. }
        | Op::ShrK { a, .. } | Op::Neg { a, .. } | Op::Not { a, .. } | Op::ToFloat { a, .. } | Op::ToNum { a, .. }
        | Op::NumToInt { a, .. } | Op::NumToFloat { a, .. } | Op::BrTrue { a, .. } | Op::BrFalse { a, .. }
        | Op::BrLtK { a, .. } | Op::BrGeK { a, .. } | Op::BrEqK { a, .. } | Op::BrNeK { a, .. } => (&[*a], &[]),
        Op::AddF { a, b, .. } | Op::SubF { a, b, .. } | Op::MulF { a, b, .. } | Op::DivF { a, b, .. } | Op::BrLtF { a, b, .. }
        | Op::BrLeF { a, b, .. } | Op::BrEqF { a, b, .. } | Op::BrNeF { a, b, .. } | Op::BrNotLtF { a, b, .. }
        | Op::BrNotLeF { a, b, .. } => (&[], &[*a, *b]),
        Op::NegF { a, .. } | Op::SqrtF { a, .. } | Op::ToInt { a, .. } | Op::ToNumF { a, .. } => (&[], &[*a]),
        Op::ForBack { i, limit, .. } => (&[*i, *limit], &[]),
        Op::Load { array, index, .. } | Op::LoadF { array, index, .. } => (&[*array, *index], &[]),
        Op::Store { array, index, src } => (&[*array, *index, *src], &[]),
        Op::StoreF { array, index, src } => (&[*array, *index], &[*src]),
        Op::Len { array, .. } => (&[*array], &[]),
        Op::Array { len, init, .. } => (&[*len, *init], &[]),
        Op::ArrayF { len, init, .. } => (&[*len], &[*init]),
        Op::Print { src, kind: crate::bytecode::PrintKind::Float } => (&[], &[*src]),
        Op::Print { src, .. } => (&[*src], &[]),
        Op::Const { .. } | Op::Pool { .. } | Op::PoolF { .. } | Op::Jump { .. } | Op::Back { .. } | Op::RetUnit | Op::Call { .. } => (&[], &[]),
    };
    ints.iter().for_each(|register| live.insert(*register, false));
    floats.iter().for_each(|register| live.insert(*register, true));
}
