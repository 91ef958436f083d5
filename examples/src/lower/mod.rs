//! The checked program to bytecode. One pass over each body; registers are given out like a stack: variables of a block,
//! then temporaries, so that the arguments of a call are already where the callee's registers begin.

mod cond;
mod expr;
mod stmt;

use std::collections::HashMap;

use crate::bytecode::{Op, Reg, Target};
use crate::error::{ErrorKind, Pos};
use crate::function::{Function, LoopSite};
use crate::hir::{Body, FuncIndex, Local, Signature};
use crate::parser::Located;
use crate::types::Type;

/// The most registers of a function: a [`Reg`] has 8 bits.
pub const MAX_REGISTERS: usize = 256;

/// The most instructions of a function: a [`Target`] has 16 bits.
pub const MAX_CODE: usize = 1 << 16;

/// Lowers one function.
///
/// # Errors
/// [`ErrorKind::TooMany`] at the function's line if it needs more registers or instructions than there can be.
pub fn lower(index: FuncIndex, signature: &Signature, body: &Body) -> Located<Function> {
    let mut lowerer = Lowerer {
        signature,
        types: &body.locals,
        code: Vec::new(),
        lines: Vec::new(),
        line: signature.line,
        pool: Vec::new(),
        pool_index: HashMap::new(),
        labels: Vec::new(),
        fixups: Vec::new(),
        homes: vec![Reg(0); body.locals.len()],
        visible: Vec::new(),
        next: 0,
        registers: 0,
        loops: Vec::new(),
        open_loops: Vec::new(),
    };
    for param in 0..signature.params.len() {
        let home = lowerer.alloc()?;
        lowerer.declare(Local(u32::try_from(param).unwrap_or(0)), home);
    }
    lowerer.statements(&body.block)?;
    lowerer.emit(Op::RetUnit);
    lowerer.finish(index)
}

/// A place in the code that may not be known yet.
#[derive(Clone, Copy, Debug)]
struct Label(usize);

/// Where `continue` and `break` go.
#[derive(Clone, Copy, Debug)]
struct OpenLoop {
    next: Label,
    exit: Label,
}

struct Lowerer<'b> {
    signature: &'b Signature,
    types: &'b [Type],
    code: Vec<Op>,
    lines: Vec<u32>,
    /// The line of the instructions emitted next.
    line: u32,
    pool: Vec<u64>,
    pool_index: HashMap<u64, u16>,
    labels: Vec<Option<usize>>,
    /// Jumps and the labels they go to.
    fixups: Vec<(usize, Label)>,
    /// The register of each variable, by [`Local`]; meaningful while it is visible.
    homes: Vec<Reg>,
    /// The registers of all visible variables and hidden loop limits: what is live at a loop header.
    visible: Vec<(Reg, Type)>,
    /// The first free register.
    next: usize,
    registers: usize,
    loops: Vec<LoopSite>,
    open_loops: Vec<OpenLoop>,
}

impl Lowerer<'_> {
    fn emit(&mut self, op: Op) {
        self.code.push(op);
        self.lines.push(self.line);
    }

    /// Emits a jump to `label`; the target the instruction has is replaced at the end.
    fn emit_jump(&mut self, op: Op, label: Label) {
        self.fixups.push((self.code.len(), label));
        self.emit(op);
    }

    fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    fn bind(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }

    fn too_many<T>(&self, what: &'static str, limit: usize) -> Located<T> {
        let pos = Pos { line: self.signature.line, column: 1 };
        Err((ErrorKind::TooMany { name: self.signature.name.clone(), what, limit }, pos))
    }

    /// The next free register. Whoever allocates resets `next` to what it was.
    fn alloc(&mut self) -> Located<Reg> {
        match u8::try_from(self.next) {
            Ok(reg) => {
                self.next += 1;
                self.registers = self.registers.max(self.next);
                Ok(Reg(reg))
            }
            Err(_) => self.too_many("variables and intermediate values at once", MAX_REGISTERS),
        }
    }

    /// Makes `local` live in `home` until the block around is closed.
    fn declare(&mut self, local: Local, home: Reg) {
        self.homes[local.0 as usize] = home;
        self.visible.push((home, self.types[local.0 as usize]));
    }

    fn home(&self, local: Local) -> Reg {
        self.homes[local.0 as usize]
    }

    fn constant(&mut self, bits: u64) -> Located<u16> {
        if let Some(index) = self.pool_index.get(&bits) {
            return Ok(*index);
        }
        let Ok(index) = u16::try_from(self.pool.len()) else { return self.too_many("constants", MAX_CODE) };
        self.pool.push(bits);
        self.pool_index.insert(bits, index);
        Ok(index)
    }

    fn finish(mut self, index: FuncIndex) -> Located<Function> {
        if self.code.len() > MAX_CODE {
            return self.too_many("instructions", MAX_CODE);
        }
        for &(at, label) in &self.fixups {
            // Every label is bound by the statement that made it, and all code fits a target.
            let target = self.labels[label.0].and_then(|pc| u16::try_from(pc).ok()).map_or(Target(0), Target);
            self.code[at] = self.code[at].retargeted(target);
        }
        Ok(Function {
            index,
            signature: self.signature.clone(),
            code: self.code,
            lines: self.lines,
            pool: self.pool,
            loops: self.loops,
            registers: u16::try_from(self.registers).unwrap_or(u16::MAX),
        })
    }
}
