//! Recursive descent with one token of lookahead; recursion is bounded by [`MAX_NESTING`].

mod expr;
mod stmt;

use crate::ast::{Function, MAX_NESTING, Module, Name};
use crate::error::{ErrorKind, Pos};
use crate::lexer::{Lexer, Token};
use crate::types::{Scalar, Type};

/// An error and its place, before the file name is known.
pub(crate) type Located<T> = Result<T, (ErrorKind, Pos)>;

/// Parses a whole source file.
///
/// # Errors
/// The first syntax error and its place.
pub fn parse(source: &str) -> Result<Module<'_>, (ErrorKind, Pos)> {
    let mut lexer = Lexer::new(source);
    let (token, pos) = lexer.next_token()?;
    let mut parser = Parser { lexer, token, pos, nesting: 0 };
    let mut functions = Vec::new();
    while parser.token != Token::End {
        functions.push(parser.function()?);
    }
    Ok(Module { functions })
}

struct Parser<'s> {
    lexer: Lexer<'s>,
    token: Token<'s>,
    pos: Pos,
    /// Blocks, parentheses and operands the parser is inside of: its recursion depth.
    nesting: u16,
}

impl<'s> Parser<'s> {
    fn advance(&mut self) -> Located<()> {
        (self.token, self.pos) = self.lexer.next_token()?;
        Ok(())
    }

    /// Whether the current token is this symbol or keyword.
    fn at(&self, text: &str) -> bool {
        matches!(self.token, Token::Symbol(s) | Token::Keyword(s) if s == text)
    }

    /// Skips the symbol or keyword if it is the current token.
    fn accept(&mut self, text: &str) -> Located<bool> {
        let found = self.at(text);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    /// Skips the symbol or keyword `text`, which `described` names with its backticks.
    fn expect(&mut self, text: &str, described: &'static str) -> Located<()> {
        if self.accept(text)? { Ok(()) } else { self.unexpected(described) }
    }

    fn unexpected<T>(&self, expected: &'static str) -> Located<T> {
        Err((ErrorKind::Expected { expected, found: self.token.describe() }, self.pos))
    }

    fn too_deep<T>(pos: Pos) -> Located<T> {
        Err((ErrorKind::NestedTooDeeply(u32::from(MAX_NESTING)), pos))
    }

    /// Runs `parse` one level deeper, or fails at the limit.
    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Located<T>) -> Located<T> {
        if self.nesting == MAX_NESTING {
            return Self::too_deep(self.pos);
        }
        self.nesting += 1;
        let result = parse(self);
        self.nesting -= 1;
        result
    }

    fn name(&mut self, expected: &'static str) -> Located<Name<'s>> {
        let Token::Name(text) = self.token else { return self.unexpected(expected) };
        let pos = self.pos;
        self.advance()?;
        Ok(Name { text, pos })
    }

    fn function(&mut self) -> Located<Function<'s>> {
        self.expect("fn", "`fn`")?;
        let name = self.name("a function name")?;
        self.expect("(", "`(`")?;
        let mut params = Vec::new();
        while !self.at(")") {
            let param = self.name("a parameter name or `)`")?;
            self.expect(":", "`:` and the type of the parameter")?;
            params.push((param, self.type_name()?));
            if !self.accept(",")? {
                break;
            }
        }
        self.expect(")", "`,` or `)`")?;
        let result = if self.accept("->")? { self.type_name()? } else { Type::UNIT };
        Ok(Function { name, params, result, body: self.block()? })
    }

    fn type_name(&mut self) -> Located<Type> {
        let mut rank = 0;
        while self.accept("[")? {
            if rank == Type::MAX_RANK {
                return Err((ErrorKind::NestedTooDeeply(Type::MAX_RANK.into()), self.pos));
            }
            rank += 1;
        }
        let scalar = match self.token {
            Token::Name("int") => Scalar::Int,
            Token::Name("float") => Scalar::Float,
            Token::Name("bool") => Scalar::Bool,
            Token::Name("num") => Scalar::Num,
            _ => return self.unexpected("a type: `int`, `float`, `bool`, `num` or an array such as `[int]`"),
        };
        self.advance()?;
        for _ in 0..rank {
            self.expect("]", "`]`")?;
        }
        Ok(Type { scalar, rank })
    }
}
