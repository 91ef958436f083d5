//! Source text to tokens.

use crate::error::{ErrorKind, Pos};

/// A token; names and keywords borrow the source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token<'s> {
    /// A name that is no keyword.
    Name(&'s str),
    /// A keyword, one of [`KEYWORDS`].
    Keyword(&'static str),
    /// An integer literal. Only `-9223372036854775808` may use the value 2^63.
    Int(u64),
    /// A float literal.
    Float(f64),
    /// An operator or a bracket, one of [`SYMBOLS`].
    Symbol(&'static str),
    /// The end of the file.
    End,
}

/// The reserved words.
pub const KEYWORDS: [&str; 12] =
    ["fn", "let", "if", "else", "while", "for", "in", "break", "continue", "return", "true", "false"];

/// Operators and brackets, longer ones before their prefixes.
pub const SYMBOLS: [&str; 31] = [
    "->", "..", "&&", "||", "==", "!=", "<=", ">=", "<<", ">>", "(", ")", "{", "}", "[", "]", ",", ";", ":",
    "=", "<", ">", "+", "-", "*", "/", "%", "&", "|", "^", "!",
];

impl Token<'_> {
    /// How an error message names the token.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Token::Name(s) => format!("`{}`", shorten(s)),
            Token::Keyword(s) | Token::Symbol(s) => format!("`{s}`"),
            Token::Int(v) => format!("`{v}`"),
            Token::Float(v) => format!("`{v:?}`"),
            Token::End => "the end of the file".to_owned(),
        }
    }
}

/// At most 40 characters of a name, so that no message grows with the file.
pub(crate) fn shorten(name: &str) -> String {
    match name.char_indices().nth(40) {
        None => name.to_owned(),
        Some((end, _)) => format!("{}…", &name[..end]),
    }
}

/// Cuts one token at a time off the front of a source text. Takes constant stack for any input.
#[derive(Debug)]
pub struct Lexer<'s> {
    rest: &'s str,
    pos: Pos,
}

impl<'s> Lexer<'s> {
    /// A lexer at the beginning of `source`.
    #[must_use]
    pub fn new(source: &'s str) -> Self {
        Self { rest: source, pos: Pos { line: 1, column: 1 } }
    }

    /// The next token and where it starts; [`Token::End`] for ever once the text is used up.
    ///
    /// # Errors
    /// [`ErrorKind::UnexpectedCharacter`] and [`ErrorKind::MalformedNumber`], with their place.
    pub fn next_token(&mut self) -> Result<(Token<'s>, Pos), (ErrorKind, Pos)> {
        self.skip_blank();
        let pos = self.pos;
        let Some(first) = self.rest.chars().next() else { return Ok((Token::End, pos)) };
        if first.is_ascii_digit() {
            return self.number().map(|t| (t, pos)).map_err(|e| (e, pos));
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let len =
                self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
            let word = self.take(len);
            let keyword = KEYWORDS.iter().find(|k| **k == word);
            return Ok((keyword.map_or(Token::Name(word), |k| Token::Keyword(k)), pos));
        }
        match SYMBOLS.iter().find(|s| self.rest.starts_with(**s)) {
            Some(symbol) => {
                self.take(symbol.len());
                Ok((Token::Symbol(symbol), pos))
            }
            None => Err((ErrorKind::UnexpectedCharacter(first), pos)),
        }
    }

    /// Cuts `len` bytes, which contain no line break, off the front.
    fn take(&mut self, len: usize) -> &'s str {
        let (head, tail) = self.rest.split_at(len);
        self.rest = tail;
        self.pos.column = self.pos.column.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
        head
    }

    fn skip_blank(&mut self) {
        loop {
            if let Some(tail) = self.rest.strip_prefix('\n') {
                self.rest = tail;
                self.pos = Pos { line: self.pos.line.saturating_add(1), column: 1 };
            } else if self.rest.starts_with("//") {
                self.take(self.rest.find('\n').unwrap_or(self.rest.len()));
            } else if self.rest.starts_with([' ', '\t', '\r']) {
                self.take(1);
            } else {
                return;
            }
        }
    }

    /// `12`, `1.5`, `1e9`, `1.5e-3`. A dot not followed by a digit is left alone, because `0..n` is a range.
    fn number(&mut self) -> Result<Token<'s>, ErrorKind> {
        let bytes = self.rest.as_bytes();
        let digits = |mut at: usize| {
            while bytes.get(at).is_some_and(u8::is_ascii_digit) {
                at += 1;
            }
            at
        };
        let mut end = digits(0);
        let mut float = false;
        if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
            float = true;
            end = digits(end + 1);
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            float = true;
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            end = digits(end + 1 + sign);
        }
        let tail = self.rest[end..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let word = self.take(tail.map_or(self.rest.len(), |t| end + t));
        let malformed = || ErrorKind::MalformedNumber(shorten(word));
        if float {
            let value: f64 = word.parse().map_err(|_| malformed())?;
            return if value.is_finite() { Ok(Token::Float(value)) } else { Err(malformed()) };
        }
        let value: u64 = word.parse().map_err(|_| malformed())?;
        if value <= 1 << 63 { Ok(Token::Int(value)) } else { Err(malformed()) }
    }
}
