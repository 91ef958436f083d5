//! Which variables are visible where.

use crate::ast::Name;
use crate::error::ErrorKind;
use crate::hir::Local;
use crate::lexer::shorten;
use crate::parser::Located;
use crate::types::Type;

/// The most variables visible at one place. Each needs a register while it is visible, and there are 256.
pub(crate) const MAX_VISIBLE: usize = 200;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Variable<'s> {
    name: &'s str,
    line: u32,
    pub(crate) local: Local,
    pub(crate) ty: Type,
    /// False for the variable of a `for` loop.
    pub(crate) assignable: bool,
}

/// The variables visible at the current place, innermost last, and the types of all variables so far.
#[derive(Debug, Default)]
pub(crate) struct Scopes<'s> {
    visible: Vec<Variable<'s>>,
    /// Where the current block starts in `visible`.
    block: usize,
    types: Vec<Type>,
}

impl<'s> Scopes<'s> {
    /// Makes a variable visible until the current block is closed.
    pub(crate) fn define(&mut self, name: Name<'s>, ty: Type, assignable: bool) -> Located<Local> {
        if let Some(first) = self.visible[self.block..].iter().find(|v| v.name == name.text) {
            return Err((ErrorKind::Duplicate { name: shorten(name.text), first: first.line }, name.pos));
        }
        let too_many = (
            ErrorKind::TooMany {
                name: shorten(name.text),
                what: "variables visible with it",
                limit: MAX_VISIBLE,
            },
            name.pos,
        );
        if self.visible.len() == MAX_VISIBLE {
            return Err(too_many);
        }
        let Ok(local) = u32::try_from(self.types.len()) else { return Err(too_many) };
        self.types.push(ty);
        let local = Local(local);
        self.visible.push(Variable { name: name.text, line: name.pos.line, local, ty, assignable });
        Ok(local)
    }

    /// The innermost visible variable of that name.
    pub(crate) fn find(&self, name: &str) -> Option<Variable<'s>> {
        self.visible.iter().rev().find(|v| v.name == name).copied()
    }

    /// Opens a block; the answer goes to [`close`](Self::close).
    pub(crate) fn open(&mut self) -> usize {
        std::mem::replace(&mut self.block, self.visible.len())
    }

    /// Closes the block opened last.
    pub(crate) fn close(&mut self, outer: usize) {
        self.visible.truncate(self.block);
        self.block = outer;
    }

    pub(crate) fn into_types(self) -> Vec<Type> {
        self.types
    }
}
