//! The tree the parser builds: names are still text, and only literals have types.

use crate::error::Pos;
use crate::types::Type;

/// How deep expressions and blocks may be inside each other. Bounds the recursion of everything that walks the tree, so
/// that no source file can exhaust the stack.
pub const MAX_NESTING: u16 = 100;

/// A source file.
#[derive(Debug)]
pub struct Module<'s> {
    /// The functions in the order of the file.
    pub functions: Vec<Function<'s>>,
}

/// A name and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Name<'s> {
    /// The name.
    pub text: &'s str,
    /// Its first character.
    pub pos: Pos,
}

/// A function definition.
#[derive(Debug)]
pub struct Function<'s> {
    /// The name.
    pub name: Name<'s>,
    /// Parameters and their types.
    pub params: Vec<(Name<'s>, Type)>,
    /// The type of the result, [`Type::UNIT`] without `->`.
    pub result: Type,
    /// The body.
    pub body: Block<'s>,
}

/// Statements in braces.
pub type Block<'s> = Vec<Stmt<'s>>;

/// A statement.
#[derive(Debug)]
pub struct Stmt<'s> {
    /// Its first token.
    pub pos: Pos,
    /// What it does.
    pub kind: StmtKind<'s>,
}

/// What a statement does.
#[derive(Debug)]
pub enum StmtKind<'s> {
    /// `let name = value;`
    Let(Name<'s>, Expr<'s>),
    /// `place = value;` where the place is a variable or an element.
    Assign(Expr<'s>, Expr<'s>),
    /// `call(…);`
    Expr(Expr<'s>),
    /// Conditions with their blocks, and the `else` block. Flat, so that a long `else if` chain nests nothing.
    If(Vec<(Expr<'s>, Block<'s>)>, Option<Block<'s>>),
    /// `while condition { … }`
    While(Expr<'s>, Block<'s>),
    /// `for name in from..to { … }`
    For(Name<'s>, Expr<'s>, Expr<'s>, Block<'s>),
    /// `break;`
    Break,
    /// `continue;`
    Continue,
    /// `return;` or `return value;`
    Return(Option<Expr<'s>>),
}

/// An expression.
#[derive(Debug)]
pub struct Expr<'s> {
    /// Where errors about it point: the operator of a binary expression, else the first token.
    pub pos: Pos,
    /// The height of the tree, at most [`MAX_NESTING`].
    pub height: u16,
    /// What it computes.
    pub kind: ExprKind<'s>,
}

/// What an expression computes.
#[derive(Debug)]
pub enum ExprKind<'s> {
    /// An integer literal.
    Int(i64),
    /// A float literal.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// A variable.
    Name(&'s str),
    /// `-x` or `!x`.
    Unary(UnaryOp, Box<Expr<'s>>),
    /// Two operands.
    Binary(BinaryOp, Box<[Expr<'s>; 2]>),
    /// `array[index]`
    Index(Box<[Expr<'s>; 2]>),
    /// `f(x, y)`
    Call(&'s str, Vec<Expr<'s>>),
}

/// An operator with one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnaryOp {
    /// `-`
    Neg,
    /// `!`
    Not,
}

/// An operator with two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is named after its operator, see `BinaryOp::symbol`")]
pub enum BinaryOp {
    Or,
    And,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    BitOr,
    BitXor,
    BitAnd,
    Shl,
    Shr,
    Add,
    Sub,
    Mul,
    Div,
    Rem,
}

impl BinaryOp {
    /// How the operator is written, and how tightly it binds (1 is loosest).
    pub(crate) const TABLE: [(Self, &'static str, u8); 18] = [
        (Self::Or, "||", 1),
        (Self::And, "&&", 2),
        (Self::Eq, "==", 3),
        (Self::Ne, "!=", 3),
        (Self::Lt, "<", 3),
        (Self::Le, "<=", 3),
        (Self::Gt, ">", 3),
        (Self::Ge, ">=", 3),
        (Self::BitOr, "|", 4),
        (Self::BitXor, "^", 5),
        (Self::BitAnd, "&", 6),
        (Self::Shl, "<<", 7),
        (Self::Shr, ">>", 7),
        (Self::Add, "+", 8),
        (Self::Sub, "-", 8),
        (Self::Mul, "*", 9),
        (Self::Div, "/", 9),
        (Self::Rem, "%", 9),
    ];

    /// The operator as it is written.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        Self::TABLE.iter().find(|row| row.0 == self).map_or("?", |row| row.1)
    }

    /// Whether the result is a `bool` that compares two values.
    #[must_use]
    pub fn is_comparison(self) -> bool {
        matches!(self, Self::Eq | Self::Ne | Self::Lt | Self::Le | Self::Gt | Self::Ge)
    }
}
