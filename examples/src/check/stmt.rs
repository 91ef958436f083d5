//! Statements.

use super::{Checker, mismatch};
use crate::ast;
use crate::error::{ErrorKind, Pos};
use crate::hir::{Expr, ExprKind, Stmt, StmtKind};
use crate::lexer::shorten;
use crate::parser::Located;
use crate::types::Type;

impl<'s> Checker<'_, 's> {
    /// Checks statements in the current scope; also answers whether control never reaches their end.
    pub(super) fn statements(&mut self, block: &[ast::Stmt<'s>]) -> Located<(Vec<Stmt>, bool)> {
        let mut statements = Vec::with_capacity(block.len());
        let mut ends = false;
        for stmt in block {
            let (kind, stmt_ends) = self.statement(stmt)?;
            ends |= stmt_ends;
            statements.push(Stmt { line: stmt.pos.line, kind });
        }
        Ok((statements, ends))
    }

    /// Checks statements in a scope of their own.
    fn block(&mut self, block: &[ast::Stmt<'s>]) -> Located<(Vec<Stmt>, bool)> {
        let outer = self.scopes.open();
        let result = self.statements(block)?;
        self.scopes.close(outer);
        Ok(result)
    }

    fn statement(&mut self, stmt: &ast::Stmt<'s>) -> Located<(StmtKind, bool)> {
        let kind = match &stmt.kind {
            ast::StmtKind::Let(name, value) => {
                let value_pos = value.pos;
                let value = self.expr(value)?;
                if value.ty == Type::UNIT {
                    return Err((ErrorKind::NotDefined { what: "let", found: Type::UNIT }, value_pos));
                }
                StmtKind::Let(self.scopes.define(*name, value.ty, true)?, value)
            }
            ast::StmtKind::Assign(place, value) => self.assign(place, value)?,
            ast::StmtKind::Expr(value) => StmtKind::Expr(self.expr(value)?),
            ast::StmtKind::If(arms, otherwise) => return self.if_chain(arms, otherwise.as_ref()),
            ast::StmtKind::While(condition, body) => return self.while_loop(condition, body),
            ast::StmtKind::For(name, from, to, body) => {
                let (from, to) = (self.typed(from, Type::INT)?, self.typed(to, Type::INT)?);
                let outer = self.scopes.open();
                let local = self.scopes.define(*name, Type::INT, false)?;
                self.loops.push(false);
                let (body, _) = self.block(body)?;
                self.loops.pop();
                self.scopes.close(outer);
                StmtKind::For(local, from, to, body)
            }
            ast::StmtKind::Break => {
                let Some(left) = self.loops.last_mut() else {
                    return Err((ErrorKind::OutsideLoop("break"), stmt.pos));
                };
                *left = true;
                return Ok((StmtKind::Break, true));
            }
            ast::StmtKind::Continue if self.loops.is_empty() => {
                return Err((ErrorKind::OutsideLoop("continue"), stmt.pos));
            }
            ast::StmtKind::Continue => return Ok((StmtKind::Continue, true)),
            ast::StmtKind::Return(value) => return Ok((self.ret(value.as_ref(), stmt.pos)?, true)),
        };
        Ok((kind, false))
    }

    fn assign(&mut self, place: &ast::Expr<'s>, value: &ast::Expr<'s>) -> Located<StmtKind> {
        if let ast::ExprKind::Name(name) = place.kind {
            let variable = self.variable(name, place.pos)?;
            if !variable.assignable {
                return Err((ErrorKind::LoopVariable(shorten(name)), place.pos));
            }
            return Ok(StmtKind::Assign(variable.local, self.typed(value, variable.ty)?));
        }
        let place = self.expr(place)?;
        let value = self.typed(value, place.ty)?;
        match place.kind {
            ExprKind::Index(operands) => {
                let [array, index] = *operands;
                Ok(StmtKind::Store(array, index, value))
            }
            // The parser lets only names and elements be assigned, so this only evaluates what it got.
            kind => Ok(StmtKind::Expr(Expr { kind, ..place })),
        }
    }

    fn if_chain(
        &mut self,
        arms: &[(ast::Expr<'s>, ast::Block<'s>)],
        otherwise: Option<&ast::Block<'s>>,
    ) -> Located<(StmtKind, bool)> {
        let mut checked = Vec::with_capacity(arms.len());
        let mut all_end = true;
        for (condition, block) in arms {
            let condition = self.typed(condition, Type::BOOL)?;
            let (block, ends) = self.block(block)?;
            all_end &= ends;
            checked.push((condition, block));
        }
        let (otherwise, ends) = match otherwise {
            Some(block) => self.block(block)?,
            None => (Vec::new(), false),
        };
        Ok((StmtKind::If(checked, otherwise), all_end && ends))
    }

    /// `while true` without `break` never reaches its end.
    fn while_loop(&mut self, condition: &ast::Expr<'s>, body: &ast::Block<'s>) -> Located<(StmtKind, bool)> {
        let condition = self.typed(condition, Type::BOOL)?;
        self.loops.push(false);
        let (body, _) = self.block(body)?;
        let left = self.loops.pop().unwrap_or(true);
        let ends = !left && matches!(condition.kind, ExprKind::Bool(true));
        Ok((StmtKind::While(condition, body), ends))
    }

    fn ret(&mut self, value: Option<&ast::Expr<'s>>, pos: Pos) -> Located<StmtKind> {
        match value {
            Some(value) if self.result == Type::UNIT => {
                let found = self.expr(value)?.ty;
                mismatch(Type::UNIT, found, value.pos)
            }
            Some(value) => Ok(StmtKind::Return(Some(self.typed(value, self.result)?))),
            None if self.result == Type::UNIT => Ok(StmtKind::Return(None)),
            None => mismatch(self.result, Type::UNIT, pos),
        }
    }
}
