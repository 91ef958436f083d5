//! A whole program, ready to run.

use std::fmt;
use std::sync::Arc;

use crate::bytecode::Op;
use crate::check::check;
use crate::error::Diagnostic;
use crate::function::Function;
use crate::hir::FuncIndex;
use crate::lower::lower;
use crate::parser::{Located, parse};

/// A checked and lowered program. Only [`Program::parse`] makes one, so whoever runs it may rely on what the checker
/// guarantees; in particular a register read as an array holds the address of one.
#[derive(Debug)]
pub struct Program {
    file: Arc<str>,
    functions: Vec<Function>,
    main: FuncIndex,
    has_guards: bool,
}

impl Program {
    /// Parses, checks and lowers a source text. `file` is what messages call it. Takes time linear in the length of
    /// the source, and bounded stack for any source.
    ///
    /// # Errors
    /// The first error found, with file, line and column.
    pub fn parse(file: &str, source: &str) -> Result<Self, Diagnostic> {
        let file: Arc<str> = file.into();
        match functions(source) {
            Ok((functions, main)) => {
                let has_guards = functions.iter().any(|f| f.code.iter().any(Op::may_be_guarded));
                Ok(Self { file, functions, main, has_guards })
            }
            Err((kind, pos)) => Err(Diagnostic { file, pos, kind }),
        }
    }

    /// The name given to [`parse`](Self::parse).
    #[must_use]
    pub fn file(&self) -> &Arc<str> {
        &self.file
    }

    /// All functions, by [`FuncIndex`].
    #[must_use]
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// The function with that index, if there is one.
    #[must_use]
    pub fn function(&self, index: FuncIndex) -> Option<&Function> {
        self.functions.get(index.index())
    }

    /// The function with that name, if there is one.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|f| f.signature.name == name)
    }

    /// Whether there is an instruction whose native code may have a guard, so that calls may end in the middle of the callee.
    #[must_use]
    pub fn has_guards(&self) -> bool {
        self.has_guards
    }

    /// Where the program starts. Takes ints, returns an int or a float.
    #[must_use]
    pub fn main(&self) -> &Function {
        &self.functions[self.main.index()]
    }
}

fn functions(source: &str) -> Located<(Vec<Function>, FuncIndex)> {
    let module = parse(source)?;
    let (signatures, bodies) = check(&module)?;
    let mut functions = Vec::with_capacity(bodies.len());
    let mut main = FuncIndex(0);
    for (index, (signature, body)) in (0..=u16::MAX).zip(signatures.iter().zip(&bodies)) {
        if signature.name == "main" {
            main = FuncIndex(index);
        }
        functions.push(lower(FuncIndex(index), signature, body)?);
    }
    Ok((functions, main))
}

/// The listing of all functions.
impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.functions.iter().try_for_each(|function| writeln!(f, "{function}"))
    }
}
