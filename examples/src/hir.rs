//! The checked program: every name is resolved and every expression has a type. Built by `check`, read by `lower`.

use crate::ast::BinaryOp;
use crate::types::Type;

/// A function of the program, counted in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FuncIndex(pub u16);

impl FuncIndex {
    /// As an index into the functions of the program.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// What a loop of this body, by its position, is called to an engine: a function can get another body, whose loops are
    /// entered with other registers.
    #[must_use]
    pub fn site(self, position: u64) -> u64 {
        u64::from(self.0) << 16 | position
    }
}

/// A variable of one function; parameters come first. A shadowing variable is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local(pub u32);

/// What is known about a function before its body is looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Signature {
    /// The name.
    pub name: String,
    /// The line of the definition.
    pub line: u32,
    /// The types of the parameters.
    pub params: Vec<Type>,
    /// The type of the result.
    pub result: Type,
}

/// A checked body.
#[derive(Debug)]
pub struct Body {
    /// The type of every variable, by [`Local`].
    pub locals: Vec<Type>,
    /// The statements.
    pub block: Vec<Stmt>,
}

/// A statement and its line.
#[derive(Debug)]
pub struct Stmt {
    /// The line it starts on.
    pub line: u32,
    /// What it does.
    pub kind: StmtKind,
}

/// What a statement does.
#[derive(Debug)]
#[allow(missing_docs, reason = "the same as `ast::StmtKind`, resolved")]
pub enum StmtKind {
    Let(Local, Expr),
    Assign(Local, Expr),
    /// Array, index, value.
    Store(Expr, Expr, Expr),
    Expr(Expr),
    If(Vec<(Expr, Vec<Stmt>)>, Vec<Stmt>),
    While(Expr, Vec<Stmt>),
    For(Local, Expr, Expr, Vec<Stmt>),
    Break,
    Continue,
    Return(Option<Expr>),
}

/// An expression with its type.
#[derive(Debug)]
pub struct Expr {
    /// Its type.
    pub ty: Type,
    /// The line a runtime error in it names.
    pub line: u32,
    /// What it computes.
    pub kind: ExprKind,
}

/// What an expression computes.
#[derive(Debug)]
#[allow(missing_docs, reason = "the same as `ast::ExprKind`, resolved")]
pub enum ExprKind {
    Int(i64),
    Float(f64),
    Bool(bool),
    Local(Local),
    Neg(Box<Expr>),
    Not(Box<Expr>),
    /// The operands have the same type; a comparison's is not that of the result.
    Binary(BinaryOp, Box<[Expr; 2]>),
    Index(Box<[Expr; 2]>),
    Call(FuncIndex, Vec<Expr>),
    /// Length, initial value.
    Array(Box<[Expr; 2]>),
    Len(Box<Expr>),
    Sqrt(Box<Expr>),
    ToInt(Box<Expr>),
    ToFloat(Box<Expr>),
    ToNum(Box<Expr>),
    Print(Box<Expr>),
}
