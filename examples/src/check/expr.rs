//! Expressions.

use super::scope::Variable;
use super::{BUILTINS, Checker, mismatch};
use crate::ast::{self, BinaryOp, UnaryOp};
use crate::error::{ErrorKind, Pos};
use crate::hir::{Expr, ExprKind};
use crate::lexer::shorten;
use crate::parser::Located;
use crate::types::Type;

impl<'s> Checker<'_, 's> {
    /// An expression that must have the type `expected`.
    pub(super) fn typed(&mut self, expr: &ast::Expr<'s>, expected: Type) -> Located<Expr> {
        let checked = self.expr(expr)?;
        if checked.ty == expected { Ok(checked) } else { mismatch(expected, checked.ty, expr.pos) }
    }

    pub(super) fn variable(&self, name: &str, pos: Pos) -> Located<Variable<'s>> {
        self.scopes
            .find(name)
            .ok_or_else(|| (ErrorKind::Unknown { what: "variable", name: shorten(name) }, pos))
    }

    pub(super) fn expr(&mut self, expr: &ast::Expr<'s>) -> Located<Expr> {
        let (ty, kind) = match &expr.kind {
            ast::ExprKind::Int(v) => (Type::INT, ExprKind::Int(*v)),
            ast::ExprKind::Float(v) => (Type::FLOAT, ExprKind::Float(*v)),
            ast::ExprKind::Bool(v) => (Type::BOOL, ExprKind::Bool(*v)),
            ast::ExprKind::Name(name) => {
                let variable = self.variable(name, expr.pos)?;
                (variable.ty, ExprKind::Local(variable.local))
            }
            ast::ExprKind::Unary(UnaryOp::Not, operand) => {
                (Type::BOOL, ExprKind::Not(Box::new(self.typed(operand, Type::BOOL)?)))
            }
            ast::ExprKind::Unary(UnaryOp::Neg, operand) => {
                let operand = self.number(operand, "-")?;
                let kind = match operand.kind {
                    ExprKind::Int(v) => ExprKind::Int(v.wrapping_neg()),
                    ExprKind::Float(v) => ExprKind::Float(-v),
                    _ => {
                        return Ok(Expr {
                            ty: operand.ty,
                            line: expr.pos.line,
                            kind: ExprKind::Neg(Box::new(operand)),
                        });
                    }
                };
                (operand.ty, kind)
            }
            ast::ExprKind::Binary(op, operands) => {
                let (ty, operands) = self.binary(*op, operands, expr.pos)?;
                (ty, ExprKind::Binary(*op, Box::new(operands)))
            }
            ast::ExprKind::Index(operands) => {
                let array = self.expr(&operands[0])?;
                let Some(element) = array.ty.element() else {
                    return Err((ErrorKind::NotDefined { what: "[]", found: array.ty }, expr.pos));
                };
                let index = self.typed(&operands[1], Type::INT)?;
                (element, ExprKind::Index(Box::new([array, index])))
            }
            ast::ExprKind::Call(name, args) => self.call(name, args, expr.pos)?,
        };
        Ok(Expr { ty, line: expr.pos.line, kind })
    }

    fn number(&mut self, operand: &ast::Expr<'s>, what: &'static str) -> Located<Expr> {
        let checked = self.expr(operand)?;
        if matches!(checked.ty, Type::INT | Type::FLOAT | Type::NUM) {
            Ok(checked)
        } else {
            Err((ErrorKind::NotDefined { what, found: checked.ty }, operand.pos))
        }
    }

    fn binary(
        &mut self,
        op: BinaryOp,
        operands: &[ast::Expr<'s>; 2],
        pos: Pos,
    ) -> Located<(Type, [Expr; 2])> {
        let left = self.expr(&operands[0])?;
        let right = self.typed(&operands[1], left.ty)?;
        let allowed: &[Type] = match op {
            BinaryOp::Or | BinaryOp::And => &[Type::BOOL],
            BinaryOp::Eq | BinaryOp::Ne => &[Type::INT, Type::FLOAT, Type::NUM, Type::BOOL],
            BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge => &[Type::INT, Type::FLOAT, Type::NUM],
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div => {
                &[Type::INT, Type::FLOAT, Type::NUM]
            }
            BinaryOp::BitOr | BinaryOp::BitXor | BinaryOp::BitAnd => &[Type::INT],
            BinaryOp::Shl | BinaryOp::Shr | BinaryOp::Rem => &[Type::INT],
        };
        if !allowed.contains(&left.ty) {
            return Err((ErrorKind::NotDefined { what: op.symbol(), found: left.ty }, pos));
        }
        let ty = if op.is_comparison() { Type::BOOL } else { left.ty };
        Ok((ty, [left, right]))
    }

    fn call(&mut self, name: &str, args: &[ast::Expr<'s>], pos: Pos) -> Located<(Type, ExprKind)> {
        if BUILTINS.contains(&name) {
            return self.builtin(name, args, pos);
        }
        let globals = self.globals;
        let Some(&index) = globals.by_name.get(name) else {
            return Err((ErrorKind::Unknown { what: "function", name: shorten(name) }, pos));
        };
        let signature = &globals.signatures[index.index()];
        if args.len() != signature.params.len() {
            return Err((arity(name, signature.params.len(), args), pos));
        }
        let mut checked = Vec::with_capacity(args.len());
        for (arg, ty) in args.iter().zip(&signature.params) {
            checked.push(self.typed(arg, *ty)?);
        }
        Ok((signature.result, ExprKind::Call(index, checked)))
    }

    fn builtin(&mut self, name: &str, args: &[ast::Expr<'s>], pos: Pos) -> Located<(Type, ExprKind)> {
        if name == "array" {
            let [length, init] = args else { return Err((arity(name, 2, args), pos)) };
            let length = self.typed(length, Type::INT)?;
            let init_pos = init.pos;
            let init = self.expr(init)?;
            let Some(ty) = init.ty.array() else {
                return Err((ErrorKind::NotDefined { what: "array", found: init.ty }, init_pos));
            };
            return Ok((ty, ExprKind::Array(Box::new([length, init]))));
        }
        let [arg] = args else { return Err((arity(name, 1, args), pos)) };
        let checked = self.expr(arg)?;
        let ty = checked.ty;
        let boxed = Box::new(checked);
        match (name, ty) {
            ("int", Type::INT | Type::FLOAT | Type::NUM | Type::BOOL) => {
                Ok((Type::INT, ExprKind::ToInt(boxed)))
            }
            ("float", Type::INT | Type::FLOAT | Type::NUM) => Ok((Type::FLOAT, ExprKind::ToFloat(boxed))),
            ("num", Type::INT | Type::FLOAT | Type::NUM) => Ok((Type::NUM, ExprKind::ToNum(boxed))),
            ("sqrt", Type::FLOAT) => Ok((Type::FLOAT, ExprKind::Sqrt(boxed))),
            ("len", _) if ty.rank > 0 => Ok((Type::INT, ExprKind::Len(boxed))),
            ("print", Type::INT | Type::FLOAT | Type::NUM | Type::BOOL) => {
                Ok((Type::UNIT, ExprKind::Print(boxed)))
            }
            _ => {
                let what = BUILTINS.iter().find(|b| **b == name).copied().unwrap_or("this function");
                Err((ErrorKind::NotDefined { what, found: ty }, arg.pos))
            }
        }
    }
}

fn arity(name: &str, expected: usize, args: &[ast::Expr<'_>]) -> ErrorKind {
    ErrorKind::Arity { name: shorten(name), expected, given: args.len() }
}
