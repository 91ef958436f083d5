//! Expressions into registers.

use super::Lowerer;
use super::stmt::UNBOUND;
use crate::ast::BinaryOp;
use crate::bytecode::{Op, PrintKind, Reg};
use crate::hir::{Expr, ExprKind};
use crate::num::{self, NumOp};
use crate::parser::Located;
use crate::types::Type;

impl Lowerer<'_> {
    /// Some register with the value: the home of a variable, or a new one. Nothing that is evaluated later in the same
    /// statement can change it, because assignment is no expression.
    pub(super) fn operand(&mut self, expr: &Expr) -> Located<Reg> {
        match expr.kind {
            ExprKind::Local(local) => Ok(self.home(local)),
            _ => self.fresh(expr),
        }
    }

    /// The next free register, with the value.
    pub(super) fn fresh(&mut self, expr: &Expr) -> Located<Reg> {
        if let ExprKind::Call(func, args) = &expr.kind {
            let base = self.next;
            for arg in args {
                self.fresh(arg)?;
            }
            self.next = base;
            let base = self.alloc()?;
            self.line = expr.line;
            self.emit(Op::Call { base, func: *func });
            return Ok(base);
        }
        let dst = self.alloc()?;
        self.into(expr, dst)?;
        Ok(dst)
    }

    /// Computes the value into `dst`, which is written last: the expression may read the variable that lives there.
    pub(super) fn into(&mut self, expr: &Expr, dst: Reg) -> Located<()> {
        let next = self.next;
        match &expr.kind {
            ExprKind::Int(v) => match i32::try_from(*v) {
                Ok(value) => self.emit(Op::Const { dst, value }),
                Err(_) => {
                    let index = self.constant(v.cast_unsigned())?;
                    self.emit(Op::Pool { dst, index });
                }
            },
            ExprKind::Float(v) => {
                let index = self.constant(v.to_bits())?;
                self.emit(Op::PoolF { dst, index });
            }
            ExprKind::Bool(v) => self.emit(Op::Const { dst, value: i32::from(*v) }),
            ExprKind::Local(local) => self.copy(dst, self.home(*local), expr.ty),
            ExprKind::Call(..) => {
                let src = self.fresh(expr)?;
                self.copy(dst, src, expr.ty);
            }
            ExprKind::Binary(op, operands) if op.is_comparison() || expr.ty == Type::BOOL => {
                debug_assert!(operands.len() == 2, "{op:?}");
                self.truth(expr, dst)?;
            }
            ExprKind::Binary(op, operands) => self.binary(*op, operands, dst, expr.line)?,
            ExprKind::Index(operands) => {
                let float = expr.ty.is_float();
                let [array, index] = self.pair(operands)?;
                self.line = expr.line;
                self.emit(if float {
                    Op::LoadF { dst, array, index }
                } else {
                    Op::Load { dst, array, index }
                });
            }
            ExprKind::Array(operands) => {
                let float = operands[1].ty.is_float();
                let [len, init] = self.pair(operands)?;
                self.line = expr.line;
                self.emit(if float { Op::ArrayF { dst, len, init } } else { Op::Array { dst, len, init } });
            }
            ExprKind::Neg(operand) if operand.ty == Type::NUM => {
                // The same for integers, and gives `-0.0` as it should.
                let (a, b) = (self.operand(operand)?, self.alloc()?);
                self.line = expr.line;
                let index = self.constant(num::from_int(-1))?;
                self.emit(Op::Pool { dst: b, index });
                self.emit(Op::ArithN { op: NumOp::Mul, dst, a, b });
            }
            ExprKind::Neg(operand)
            | ExprKind::Not(operand)
            | ExprKind::Len(operand)
            | ExprKind::Sqrt(operand)
            | ExprKind::ToInt(operand)
            | ExprKind::ToFloat(operand)
            | ExprKind::ToNum(operand)
            | ExprKind::Print(operand) => {
                let a = self.operand(operand)?;
                self.line = expr.line;
                self.unary(&expr.kind, operand.ty, dst, a);
            }
        }
        self.next = next;
        Ok(())
    }

    fn copy(&mut self, dst: Reg, src: Reg, ty: Type) {
        if dst != src {
            self.emit(if ty.is_float() { Op::MoveF { dst, src } } else { Op::Move { dst, src } });
        }
    }

    fn pair(&mut self, operands: &[Expr; 2]) -> Located<[Reg; 2]> {
        Ok([self.operand(&operands[0])?, self.operand(&operands[1])?])
    }

    fn unary(&mut self, kind: &ExprKind, from: Type, dst: Reg, a: Reg) {
        let float = from.is_float();
        match kind {
            ExprKind::Neg(_) if float => self.emit(Op::NegF { dst, a }),
            ExprKind::Neg(_) => self.emit(Op::Neg { dst, a }),
            ExprKind::Not(_) => self.emit(Op::Not { dst, a }),
            ExprKind::Len(_) => self.emit(Op::Len { dst, array: a }),
            ExprKind::Sqrt(_) => self.emit(Op::SqrtF { dst, a }),
            ExprKind::ToNum(_) if from == Type::INT => self.emit(Op::ToNum { dst, a }),
            ExprKind::ToNum(_) if float => self.emit(Op::ToNumF { dst, a }),
            ExprKind::ToInt(_) if from == Type::NUM => self.emit(Op::NumToInt { dst, a }),
            ExprKind::ToFloat(_) if from == Type::NUM => self.emit(Op::NumToFloat { dst, a }),
            ExprKind::ToInt(_) if float => self.emit(Op::ToInt { dst, a }),
            ExprKind::ToFloat(_) if !float => self.emit(Op::ToFloat { dst, a }),
            ExprKind::Print(_) => {
                let kind = match from {
                    Type::FLOAT => PrintKind::Float,
                    Type::BOOL => PrintKind::Bool,
                    Type::NUM => PrintKind::Num,
                    _ => PrintKind::Int,
                };
                self.emit(Op::Print { src: a, kind });
            }
            // A conversion to the type the value has already.
            _ => self.copy(dst, a, from),
        }
    }

    /// A condition as a value. Written as a branch, because conditions are rarely kept.
    fn truth(&mut self, expr: &Expr, dst: Reg) -> Located<()> {
        let (no, end) = (self.label(), self.label());
        self.jump_if(expr, false, no)?;
        self.emit(Op::Const { dst, value: 1 });
        self.emit_jump(Op::Jump { target: UNBOUND }, end);
        self.bind(no);
        self.emit(Op::Const { dst, value: 0 });
        self.bind(end);
        Ok(())
    }

    fn binary(&mut self, op: BinaryOp, operands: &[Expr; 2], dst: Reg, line: u32) -> Located<()> {
        if let Some((operand, k)) = constant_form(op, operands) {
            let a = self.operand(operand)?;
            self.line = line;
            self.emit(match op {
                BinaryOp::Mul => Op::MulK { dst, a, k },
                BinaryOp::Div => Op::DivK { dst, a, k },
                BinaryOp::Rem => Op::RemK { dst, a, k },
                BinaryOp::BitAnd => Op::AndK { dst, a, k },
                BinaryOp::Shl => Op::ShlK { dst, a, k: k & 63 },
                BinaryOp::Shr => Op::ShrK { dst, a, k: k & 63 },
                _ => Op::AddK { dst, a, k },
            });
            return Ok(());
        }
        let float = operands[0].ty.is_float();
        let [a, b] = self.pair(operands)?;
        self.line = line;
        if operands[0].ty == Type::NUM {
            let op = match op {
                BinaryOp::Sub => NumOp::Sub,
                BinaryOp::Mul => NumOp::Mul,
                BinaryOp::Div => NumOp::Div,
                _ => NumOp::Add,
            };
            self.emit(Op::ArithN { op, dst, a, b });
            return Ok(());
        }
        self.emit(match (op, float) {
            (BinaryOp::Sub, false) => Op::Sub { dst, a, b },
            (BinaryOp::Mul, false) => Op::Mul { dst, a, b },
            (BinaryOp::Div, false) => Op::Div { dst, a, b },
            (BinaryOp::Rem, _) => Op::Rem { dst, a, b },
            (BinaryOp::BitAnd, _) => Op::And { dst, a, b },
            (BinaryOp::BitOr, _) => Op::Or { dst, a, b },
            (BinaryOp::BitXor, _) => Op::Xor { dst, a, b },
            (BinaryOp::Shl, _) => Op::Shl { dst, a, b },
            (BinaryOp::Shr, _) => Op::Shr { dst, a, b },
            (BinaryOp::Sub, true) => Op::SubF { dst, a, b },
            (BinaryOp::Mul, true) => Op::MulF { dst, a, b },
            (BinaryOp::Div, true) => Op::DivF { dst, a, b },
            (_, true) => Op::AddF { dst, a, b },
            (_, false) => Op::Add { dst, a, b },
        });
        Ok(())
    }
}

/// The other operand and the constant, if the operation has a form with one (`a - k` is `a + -k`).
fn constant_form(op: BinaryOp, operands: &[Expr; 2]) -> Option<(&Expr, i32)> {
    let literal = |expr: &Expr| match expr.kind {
        ExprKind::Int(v) => i32::try_from(v).ok(),
        _ => None,
    };
    let [left, right] = operands;
    match (op, literal(left), literal(right)) {
        (BinaryOp::Add | BinaryOp::Mul | BinaryOp::BitAnd, _, Some(k)) => Some((left, k)),
        (BinaryOp::Add | BinaryOp::Mul | BinaryOp::BitAnd, Some(k), None) => Some((right, k)),
        (BinaryOp::Sub, _, Some(k)) => Some((left, k.checked_neg()?)),
        (BinaryOp::Shl | BinaryOp::Shr, _, Some(k)) => Some((left, k)),
        // Division by these can trap or overflow, which only the general form handles.
        (BinaryOp::Div | BinaryOp::Rem, _, Some(k)) if k != 0 && k != -1 => Some((left, k)),
        _ => None,
    }
}
