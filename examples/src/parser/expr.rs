//! Expressions, by precedence climbing.

use super::{Located, Parser};
use crate::ast::{BinaryOp, Expr, ExprKind, MAX_NESTING, UnaryOp};
use crate::error::{ErrorKind, Pos};
use crate::lexer::Token;

impl<'s> Parser<'s> {
    pub(super) fn expr(&mut self) -> Located<Expr<'s>> {
        self.binary(1)
    }

    /// A chain of operators that bind at least as tightly as `loosest`.
    fn binary(&mut self, loosest: u8) -> Located<Expr<'s>> {
        let mut left = self.unary()?;
        while let Some((op, binding)) = self.operator() {
            if binding < loosest {
                break;
            }
            let pos = self.pos;
            self.advance()?;
            let right = self.nested(|p| p.binary(binding + 1))?;
            let height = left.height.max(right.height);
            left = Self::node(pos, height, ExprKind::Binary(op, Box::new([left, right])))?;
        }
        Ok(left)
    }

    fn operator(&self) -> Option<(BinaryOp, u8)> {
        let Token::Symbol(symbol) = self.token else { return None };
        BinaryOp::TABLE.iter().find(|row| row.1 == symbol).map(|row| (row.0, row.2))
    }

    fn unary(&mut self) -> Located<Expr<'s>> {
        let pos = self.pos;
        if self.accept("-")? {
            // The literal of the smallest int exists only together with its sign.
            if self.token == Token::Int(1 << 63) {
                self.advance()?;
                return Self::node(pos, 0, ExprKind::Int(i64::MIN));
            }
            let operand = self.nested(Self::unary)?;
            return Self::node(pos, operand.height, ExprKind::Unary(UnaryOp::Neg, Box::new(operand)));
        }
        if self.accept("!")? {
            let operand = self.nested(Self::unary)?;
            return Self::node(pos, operand.height, ExprKind::Unary(UnaryOp::Not, Box::new(operand)));
        }
        let mut base = self.primary()?;
        while self.at("[") {
            let pos = self.pos;
            self.advance()?;
            let index = self.nested(Self::expr)?;
            self.expect("]", "`]`")?;
            let height = base.height.max(index.height);
            base = Self::node(pos, height, ExprKind::Index(Box::new([base, index])))?;
        }
        Ok(base)
    }

    fn primary(&mut self) -> Located<Expr<'s>> {
        let pos = self.pos;
        let kind = match self.token {
            Token::Int(v) => match i64::try_from(v) {
                Ok(v) => ExprKind::Int(v),
                Err(_) => return Err((ErrorKind::MalformedNumber(v.to_string()), pos)),
            },
            Token::Float(v) => ExprKind::Float(v),
            Token::Keyword("true") => ExprKind::Bool(true),
            Token::Keyword("false") => ExprKind::Bool(false),
            Token::Symbol("(") => {
                self.advance()?;
                let inner = self.nested(Self::expr)?;
                self.expect(")", "`)`")?;
                return Ok(inner);
            }
            Token::Name(name) => {
                self.advance()?;
                return if self.accept("(")? {
                    self.call(name, pos)
                } else {
                    Self::node(pos, 0, ExprKind::Name(name))
                };
            }
            _ => return self.unexpected("an expression"),
        };
        self.advance()?;
        Self::node(pos, 0, kind)
    }

    fn call(&mut self, name: &'s str, pos: Pos) -> Located<Expr<'s>> {
        let mut args = Vec::new();
        while !self.at(")") {
            args.push(self.nested(Self::expr)?);
            if !self.accept(",")? {
                break;
            }
        }
        self.expect(")", "`,` or `)`")?;
        let height = args.iter().map(|a| a.height).max().unwrap_or(0);
        Self::node(pos, height, ExprKind::Call(name, args))
    }

    /// A node above children of at most `height`. Chains such as `a + b + c` nest to the left without recursion of the
    /// parser, so the height is limited here and not only by [`Parser::nested`].
    fn node(pos: Pos, height: u16, kind: ExprKind<'s>) -> Located<Expr<'s>> {
        if height >= MAX_NESTING { Self::too_deep(pos) } else { Ok(Expr { pos, height: height + 1, kind }) }
    }
}
