//! Conditions into jumps.

use super::stmt::UNBOUND;
use super::{Label, Lowerer};
use crate::ast::BinaryOp;
use crate::bytecode::{Op, Reg};
use crate::hir::{Expr, ExprKind};
use crate::num::NumTest;
use crate::parser::Located;
use crate::types::Type;

const TO: crate::bytecode::Target = UNBOUND;

impl Lowerer<'_> {
    /// Jumps to `label` if the condition is `when`, else goes on.
    pub(super) fn jump_if(&mut self, condition: &Expr, when: bool, label: Label) -> Located<()> {
        let next = self.next;
        match &condition.kind {
            ExprKind::Bool(v) => {
                if *v == when {
                    self.emit_jump(Op::Jump { target: TO }, label);
                }
            }
            ExprKind::Not(inner) => self.jump_if(inner, !when, label)?,
            ExprKind::Binary(op @ (BinaryOp::And | BinaryOp::Or), operands) => {
                // `a && b` is false as soon as `a` is, `a || b` is true as soon as `a` is.
                let decided_by_first = *op == BinaryOp::Or;
                if when == decided_by_first {
                    self.jump_if(&operands[0], when, label)?;
                    self.jump_if(&operands[1], when, label)?;
                } else {
                    let skip = self.label();
                    self.jump_if(&operands[0], !when, skip)?;
                    self.jump_if(&operands[1], when, label)?;
                    self.bind(skip);
                }
            }
            ExprKind::Binary(op, operands) if operands[0].ty.is_float() => {
                let (a, b) = (self.operand(&operands[0])?, self.operand(&operands[1])?);
                self.line = condition.line;
                self.emit_jump(float_jump(*op, when, a, b), label);
            }
            ExprKind::Binary(op, operands) if operands[0].ty == Type::NUM => {
                let (a, b) = (self.operand(&operands[0])?, self.operand(&operands[1])?);
                self.line = condition.line;
                self.emit_jump(num_jump(*op, when, a, b), label);
            }
            ExprKind::Binary(op, operands) => {
                self.line = condition.line;
                let op = if when { *op } else { negated(*op) };
                self.int_jump(op, operands, label)?;
            }
            _ => {
                let a = self.operand(condition)?;
                let op = if when { Op::BrTrue { a, target: TO } } else { Op::BrFalse { a, target: TO } };
                self.emit_jump(op, label);
            }
        }
        self.next = next;
        Ok(())
    }

    fn int_jump(&mut self, op: BinaryOp, operands: &[Expr; 2], label: Label) -> Located<()> {
        let [left, right] = operands;
        let form = match (&left.kind, &right.kind) {
            (_, ExprKind::Int(v)) => constant_compare(op, *v).map(|form| (left, form)),
            (ExprKind::Int(v), _) => constant_compare(mirrored(op), *v).map(|form| (right, form)),
            _ => None,
        };
        if let Some((operand, (op, k))) = form {
            let a = self.operand(operand)?;
            let op = match op {
                BinaryOp::Lt => Op::BrLtK { a, k, target: TO },
                BinaryOp::Ge => Op::BrGeK { a, k, target: TO },
                BinaryOp::Eq => Op::BrEqK { a, k, target: TO },
                _ => Op::BrNeK { a, k, target: TO },
            };
            self.emit_jump(op, label);
            return Ok(());
        }
        let (a, b) = (self.operand(left)?, self.operand(right)?);
        let op = match op {
            BinaryOp::Lt => Op::BrLt { a, b, target: TO },
            BinaryOp::Le => Op::BrLe { a, b, target: TO },
            BinaryOp::Gt => Op::BrLt { a: b, b: a, target: TO },
            BinaryOp::Ge => Op::BrLe { a: b, b: a, target: TO },
            BinaryOp::Eq => Op::BrEq { a, b, target: TO },
            _ => Op::BrNe { a, b, target: TO },
        };
        self.emit_jump(op, label);
        Ok(())
    }
}

fn float_jump(op: BinaryOp, when: bool, a: crate::bytecode::Reg, b: crate::bytecode::Reg) -> Op {
    match (op, when) {
        (BinaryOp::Lt, true) => Op::BrLtF { a, b, target: TO },
        (BinaryOp::Le, true) => Op::BrLeF { a, b, target: TO },
        (BinaryOp::Gt, true) => Op::BrLtF { a: b, b: a, target: TO },
        (BinaryOp::Ge, true) => Op::BrLeF { a: b, b: a, target: TO },
        (BinaryOp::Lt, false) => Op::BrNotLtF { a, b, target: TO },
        (BinaryOp::Le, false) => Op::BrNotLeF { a, b, target: TO },
        (BinaryOp::Gt, false) => Op::BrNotLtF { a: b, b: a, target: TO },
        (BinaryOp::Ge, false) => Op::BrNotLeF { a: b, b: a, target: TO },
        (BinaryOp::Eq, true) | (BinaryOp::Ne, false) => Op::BrEqF { a, b, target: TO },
        _ => Op::BrNeF { a, b, target: TO },
    }
}

fn num_jump(op: BinaryOp, when: bool, a: Reg, b: Reg) -> Op {
    let (test, a, b) = match (op, when) {
        (BinaryOp::Lt, true) => (NumTest::Lt, a, b),
        (BinaryOp::Le, true) => (NumTest::Le, a, b),
        (BinaryOp::Gt, true) => (NumTest::Lt, b, a),
        (BinaryOp::Ge, true) => (NumTest::Le, b, a),
        (BinaryOp::Lt, false) => (NumTest::NotLt, a, b),
        (BinaryOp::Le, false) => (NumTest::NotLe, a, b),
        (BinaryOp::Gt, false) => (NumTest::NotLt, b, a),
        (BinaryOp::Ge, false) => (NumTest::NotLe, b, a),
        (BinaryOp::Eq, true) | (BinaryOp::Ne, false) => (NumTest::Eq, a, b),
        _ => (NumTest::Ne, a, b),
    };
    Op::BrN { test, a, b, target: TO }
}

/// The comparison that holds for integers when `op` does not.
fn negated(op: BinaryOp) -> BinaryOp {
    match op {
        BinaryOp::Lt => BinaryOp::Ge,
        BinaryOp::Le => BinaryOp::Gt,
        BinaryOp::Gt => BinaryOp::Le,
        BinaryOp::Ge => BinaryOp::Lt,
        BinaryOp::Eq => BinaryOp::Ne,
        _ => BinaryOp::Eq,
    }
}

/// The comparison of `b` with `a` that says the same as `op` of `a` with `b`.
fn mirrored(op: BinaryOp) -> BinaryOp {
    match op {
        BinaryOp::Lt => BinaryOp::Gt,
        BinaryOp::Le => BinaryOp::Ge,
        BinaryOp::Gt => BinaryOp::Lt,
        BinaryOp::Ge => BinaryOp::Le,
        other => other,
    }
}

/// The same comparison with a constant as `<`, `>=`, `==` or `!=`, if the constant fits.
fn constant_compare(op: BinaryOp, v: i64) -> Option<(BinaryOp, i32)> {
    let k = i32::try_from(v).ok()?;
    match op {
        BinaryOp::Le => Some((BinaryOp::Lt, k.checked_add(1)?)),
        BinaryOp::Gt => Some((BinaryOp::Ge, k.checked_add(1)?)),
        BinaryOp::Lt | BinaryOp::Ge | BinaryOp::Eq | BinaryOp::Ne => Some((op, k)),
        _ => None,
    }
}
