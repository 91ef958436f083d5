//! Statements and blocks.

use super::{Located, Parser};
use crate::ast::{Block, ExprKind, Stmt, StmtKind};
use crate::error::ErrorKind;

impl<'s> Parser<'s> {
    pub(super) fn block(&mut self) -> Located<Block<'s>> {
        self.expect("{", "`{`")?;
        self.nested(|p| {
            let mut statements = Vec::new();
            while !p.accept("}")? {
                statements.push(p.statement()?);
            }
            Ok(statements)
        })
    }

    fn statement(&mut self) -> Located<Stmt<'s>> {
        let pos = self.pos;
        let kind = if self.accept("let")? {
            let name = self.name("a variable name")?;
            self.expect("=", "`=`")?;
            StmtKind::Let(name, self.terminated()?)
        } else if self.accept("if")? {
            self.if_chain()?
        } else if self.accept("while")? {
            StmtKind::While(self.expr()?, self.block()?)
        } else if self.accept("for")? {
            let name = self.name("a variable name")?;
            self.expect("in", "`in`")?;
            let from = self.expr()?;
            self.expect("..", "`..`")?;
            StmtKind::For(name, from, self.expr()?, self.block()?)
        } else if self.accept("break")? {
            self.expect(";", "`;`")?;
            StmtKind::Break
        } else if self.accept("continue")? {
            self.expect(";", "`;`")?;
            StmtKind::Continue
        } else if self.accept("return")? {
            StmtKind::Return(if self.accept(";")? { None } else { Some(self.terminated()?) })
        } else {
            self.expression_statement()?
        };
        Ok(Stmt { pos, kind })
    }

    fn if_chain(&mut self) -> Located<StmtKind<'s>> {
        let mut arms = vec![(self.expr()?, self.block()?)];
        while self.accept("else")? {
            if !self.accept("if")? {
                return Ok(StmtKind::If(arms, Some(self.block()?)));
            }
            arms.push((self.expr()?, self.block()?));
        }
        Ok(StmtKind::If(arms, None))
    }

    fn expression_statement(&mut self) -> Located<StmtKind<'s>> {
        let place = self.expr()?;
        let place_pos = place.pos;
        match (&place.kind, self.at("=")) {
            (ExprKind::Name(_) | ExprKind::Index(_), true) => {
                self.advance()?;
                Ok(StmtKind::Assign(place, self.terminated()?))
            }
            (ExprKind::Call(..), false) => {
                self.expect(";", "`;`")?;
                Ok(StmtKind::Expr(place))
            }
            (ExprKind::Name(_) | ExprKind::Index(_), false) => self.unexpected("`=`"),
            _ => Err((
                ErrorKind::Expected {
                    expected: "a statement",
                    found: "an expression without effect".to_owned(),
                },
                place_pos,
            )),
        }
    }

    fn terminated(&mut self) -> Located<crate::ast::Expr<'s>> {
        let expr = self.expr()?;
        self.expect(";", "`;`")?;
        Ok(expr)
    }
}
