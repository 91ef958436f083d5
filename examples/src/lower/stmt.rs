//! Statements.

use super::{Label, Lowerer, OpenLoop};
use crate::bytecode::{Op, Target};
use crate::function::LoopSite;
use crate::hir::{Expr, Local, Stmt, StmtKind};
use crate::parser::Located;
use crate::types::Type;

/// The target of a jump that is fixed up later.
pub(super) const UNBOUND: Target = Target(0);

impl Lowerer<'_> {
    pub(super) fn statements(&mut self, block: &[Stmt]) -> Located<()> {
        block.iter().try_for_each(|stmt| self.statement(stmt))
    }

    /// Statements whose variables end with them.
    fn block(&mut self, block: &[Stmt]) -> Located<()> {
        let (next, visible) = (self.next, self.visible.len());
        self.statements(block)?;
        self.visible.truncate(visible);
        self.next = next;
        Ok(())
    }

    fn statement(&mut self, stmt: &Stmt) -> Located<()> {
        self.line = stmt.line;
        match &stmt.kind {
            StmtKind::Let(local, value) => {
                // The value's register becomes the home of the variable.
                let home = self.fresh(value)?;
                self.declare(*local, home);
                return Ok(());
            }
            StmtKind::If(arms, otherwise) => return self.if_chain(arms, otherwise),
            StmtKind::While(condition, body) => return self.while_loop(stmt.line, condition, body),
            StmtKind::For(local, from, to, body) => {
                return self.for_loop(stmt.line, *local, [from, to], body);
            }
            StmtKind::Assign(local, value) => self.into(value, self.home(*local))?,
            StmtKind::Store(array, index, value) => return self.store(array, index, value),
            StmtKind::Expr(value) => {
                let next = self.next;
                self.fresh(value)?;
                self.next = next;
            }
            StmtKind::Break | StmtKind::Continue => {
                // The checker has made sure that there is a loop.
                if let Some(open) = self.open_loops.last().copied() {
                    let label = if matches!(stmt.kind, StmtKind::Break) { open.exit } else { open.next };
                    self.emit_jump(Op::Jump { target: UNBOUND }, label);
                }
            }
            StmtKind::Return(None) => self.emit(Op::RetUnit),
            StmtKind::Return(Some(value)) => {
                let next = self.next;
                let src = self.operand(value)?;
                self.next = next;
                self.emit(if value.ty.is_float() { Op::RetF { src } } else { Op::Ret { src } });
            }
        }
        Ok(())
    }

    fn store(&mut self, array: &Expr, index: &Expr, value: &Expr) -> Located<()> {
        let (next, line) = (self.next, index.line);
        let array = self.operand(array)?;
        let index = self.operand(index)?;
        let float = value.ty.is_float();
        let src = self.operand(value)?;
        self.next = next;
        self.line = line;
        self.emit(if float { Op::StoreF { array, index, src } } else { Op::Store { array, index, src } });
        Ok(())
    }

    fn if_chain(&mut self, arms: &[(Expr, Vec<Stmt>)], otherwise: &[Stmt]) -> Located<()> {
        let end = self.label();
        for (i, (condition, block)) in arms.iter().enumerate() {
            let otherwise_label = self.label();
            self.jump_if(condition, false, otherwise_label)?;
            self.block(block)?;
            let last = i + 1 == arms.len() && otherwise.is_empty();
            if !last && !self.code.last().is_some_and(Op::is_terminator) {
                self.emit_jump(Op::Jump { target: UNBOUND }, end);
            }
            self.bind(otherwise_label);
        }
        self.block(otherwise)?;
        self.bind(end);
        Ok(())
    }

    fn while_loop(&mut self, line: u32, condition: &Expr, body: &[Stmt]) -> Located<()> {
        let (header, next, exit) = (self.label(), self.label(), self.label());
        let site = self.open_loop(line, next, exit)?;
        self.bind(header);
        self.jump_if(condition, false, exit)?;
        self.block(body)?;
        self.bind(next);
        self.line = line;
        self.emit_jump(Op::Back { site, target: UNBOUND }, header);
        self.open_loops.pop();
        self.bind(exit);
        Ok(())
    }

    /// `i` and the limit, which is evaluated once, are in neighbouring registers. The test is at the end.
    fn for_loop(&mut self, line: u32, local: Local, range: [&Expr; 2], body: &[Stmt]) -> Located<()> {
        let (next, visible) = (self.next, self.visible.len());
        let i = self.fresh(range[0])?;
        let limit = self.fresh(range[1])?;
        self.declare(local, i);
        self.visible.push((limit, Type::INT));
        let (header, test, exit) = (self.label(), self.label(), self.label());
        self.line = line;
        self.emit_jump(Op::BrLe { a: limit, b: i, target: UNBOUND }, exit);
        let site = self.open_loop(line, test, exit)?;
        self.bind(header);
        self.block(body)?;
        self.bind(test);
        self.line = line;
        self.emit_jump(Op::ForBack { i, limit, site, target: UNBOUND }, header);
        self.open_loops.pop();
        self.bind(exit);
        self.visible.truncate(visible);
        self.next = next;
        Ok(())
    }

    /// Records a loop whose header is the next instruction.
    fn open_loop(&mut self, line: u32, next: Label, exit: Label) -> Located<u16> {
        let Ok(header) = u16::try_from(self.code.len()) else {
            return self.too_many("instructions", super::MAX_CODE);
        };
        let Ok(site) = u16::try_from(self.loops.len()) else {
            return self.too_many("instructions", super::MAX_CODE);
        };
        self.loops.push(LoopSite { header: Target(header), line, live: self.visible.clone() });
        self.open_loops.push(OpenLoop { next, exit });
        Ok(site)
    }
}
