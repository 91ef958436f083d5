//! Names and types: turns the syntax tree into the checked program, or answers the first error.

mod expr;
mod scope;
mod stmt;

use std::collections::HashMap;

use crate::ast::{self, Module};
use crate::error::{ErrorKind, Pos};
use crate::hir::{Body, FuncIndex, Signature};
use crate::lexer::shorten;
use crate::parser::Located;
use crate::types::Type;
use scope::Scopes;

/// The most parameters a function can have: what the native calling convention has room for, see `native`.
pub const MAX_PARAMS: usize = 8;

/// The most functions of a program: a [`FuncIndex`] has 16 bits.
pub const MAX_FUNCTIONS: usize = 1 << 16;

/// Functions the language provides; they cannot be redefined.
pub(crate) const BUILTINS: [&str; 7] = ["int", "float", "num", "sqrt", "len", "array", "print"];

/// Checks a module. The results are parallel: signature and body of each function in the order of the file.
///
/// # Errors
/// The first error of the file and its place.
pub fn check(module: &Module<'_>) -> Located<(Vec<Signature>, Vec<Body>)> {
    let globals = Globals::collect(module)?;
    let mut bodies = Vec::with_capacity(module.functions.len());
    for (function, signature) in module.functions.iter().zip(&globals.signatures) {
        bodies.push(check_function(&globals, function, signature)?);
    }
    globals.check_main(module)?;
    Ok((globals.signatures, bodies))
}

fn check_function(
    globals: &Globals<'_>,
    function: &ast::Function<'_>,
    signature: &Signature,
) -> Located<Body> {
    let mut checker =
        Checker { globals, scopes: Scopes::default(), result: signature.result, loops: Vec::new() };
    for (name, ty) in &function.params {
        checker.scopes.define(*name, *ty, true)?;
    }
    // The body is a scope of its own kind: parameters and its variables may not have the same name.
    let (block, returns) = checker.statements(&function.body)?;
    if signature.result != Type::UNIT && !returns {
        return Err((ErrorKind::MissingReturn(signature.name.clone()), function.name.pos));
    }
    Ok(Body { locals: checker.scopes.into_types(), block })
}

/// The functions of the program by name.
struct Globals<'s> {
    signatures: Vec<Signature>,
    by_name: HashMap<&'s str, FuncIndex>,
}

impl<'s> Globals<'s> {
    fn collect(module: &Module<'s>) -> Located<Self> {
        let mut globals = Self { signatures: Vec::new(), by_name: HashMap::new() };
        for function in &module.functions {
            globals.add(function)?;
        }
        Ok(globals)
    }

    fn add(&mut self, function: &ast::Function<'s>) -> Located<()> {
        let (text, pos) = (function.name.text, function.name.pos);
        if BUILTINS.contains(&text) {
            return Err((ErrorKind::Builtin(text.to_owned()), pos));
        }
        if let Some(first) = self.by_name.get(text) {
            let first = self.signatures[first.index()].line;
            return Err((ErrorKind::Duplicate { name: shorten(text), first }, pos));
        }
        let Ok(index) = u16::try_from(self.signatures.len()) else {
            let name = "the program".to_owned();
            return Err((ErrorKind::TooMany { name, what: "functions", limit: MAX_FUNCTIONS }, pos));
        };
        if let Some((param, _)) = function.params.get(MAX_PARAMS) {
            let kind = ErrorKind::TooMany { name: shorten(text), what: "parameters", limit: MAX_PARAMS };
            return Err((kind, param.pos));
        }
        self.by_name.insert(text, FuncIndex(index));
        self.signatures.push(Signature {
            name: shorten(text),
            line: pos.line,
            params: function.params.iter().map(|p| p.1).collect(),
            result: function.result,
        });
        Ok(())
    }

    fn check_main(&self, module: &Module<'_>) -> Located<()> {
        let Some(main) = self.by_name.get("main") else {
            let pos = Pos { line: 1, column: 1 };
            return Err((ErrorKind::Main("there is no function `main`"), pos));
        };
        let (signature, pos) = (&self.signatures[main.index()], module.functions[main.index()].name.pos);
        if signature.params.iter().any(|p| *p != Type::INT) {
            return Err((ErrorKind::Main("the parameters of `main` must be of type int"), pos));
        }
        if signature.result != Type::INT && signature.result != Type::FLOAT {
            return Err((ErrorKind::Main("`main` must return int or float"), pos));
        }
        Ok(())
    }
}

/// Checks one body.
struct Checker<'g, 's> {
    globals: &'g Globals<'s>,
    scopes: Scopes<'s>,
    /// The result type of the function.
    result: Type,
    /// One entry per loop around the current statement: whether a `break` leaves it.
    loops: Vec<bool>,
}

fn mismatch<T>(expected: Type, found: Type, pos: Pos) -> Located<T> {
    Err((ErrorKind::Mismatch { expected, found }, pos))
}
