//! A lowered function: its code, and what interpreters and code generators need to know about it.

use std::fmt;

use crate::bytecode::{Op, Reg, Target};
use crate::hir::{FuncIndex, Signature};
use crate::types::Type;

/// A loop of a function, named by its position in [`Function::loops`].
#[derive(Clone, Debug, PartialEq)]
pub struct LoopSite {
    /// The first instruction of the loop; every back edge of the loop goes here.
    pub header: Target,
    /// The line of the loop.
    pub line: u32,
    /// The registers that hold a value at the header, and its type: all a transfer into other code has to carry over. Registers
    /// not listed are dead there.
    pub live: Vec<(Reg, Type)>,
}

/// A function of a program, ready to run or to be compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// Its position in the program.
    pub index: FuncIndex,
    /// Name, line and types.
    pub signature: Signature,
    /// The instructions. The last one is a terminator, and every target lies inside.
    pub code: Vec<Op>,
    /// The source line of each instruction, parallel to `code`.
    pub lines: Vec<u32>,
    /// Constants of 64 bits; integers or the bits of floats.
    pub pool: Vec<u64>,
    /// The loops, in the order of their headers.
    pub loops: Vec<LoopSite>,
    /// How many registers the code uses, from `r0`, without those of its callees.
    pub registers: u16,
}

impl Function {
    /// The line of the instruction at `pc`, or the line of the function if there is none.
    #[must_use]
    pub fn line(&self, pc: usize) -> u32 {
        self.lines.get(pc).copied().unwrap_or(self.signature.line)
    }

    /// For each instruction, whether a basic block starts there: entry, jump targets and what follows a jump or return.
    #[must_use]
    pub fn block_starts(&self) -> Vec<bool> {
        let mut starts = vec![false; self.code.len()];
        let mut mark = |at: usize| {
            if let Some(start) = starts.get_mut(at) {
                *start = true;
            }
        };
        mark(0);
        for (pc, op) in self.code.iter().enumerate() {
            if let Some(target) = op.target() {
                mark(target.index());
            }
            if op.target().is_some() || op.is_terminator() {
                mark(pc + 1);
            }
        }
        starts
    }
}

impl Function {
    /// For each instruction, the number of the basic block that starts there: the numbers that counters of blocks have.
    #[must_use]
    pub fn blocks(&self) -> Vec<Option<usize>> {
        let mut number = 0..;
        self.block_starts().into_iter().map(|starts| if starts { number.next() } else { None }).collect()
    }

    /// Whether it is a few instructions in a row that call nothing and have no guards, so that a copy of it can stand in for a call.
    #[must_use]
    pub fn is_small_leaf(&self) -> bool {
        const FEW: usize = 16;
        let end = self.code.iter().position(Op::is_terminator);
        end.is_some_and(|end| {
            end < FEW
                && self.code[end].target().is_none()
                && self.code[..end]
                    .iter()
                    .all(|op| op.target().is_none() && !op.may_be_guarded() && !matches!(op, Op::Call { .. }))
        })
    }

    /// The functions it calls, each once.
    #[must_use]
    pub fn callees(&self) -> Vec<FuncIndex> {
        let mut callees = Vec::new();
        for op in &self.code {
            if let Op::Call { func, .. } = *op
                && !callees.contains(&func)
            {
                callees.push(func);
            }
        }
        callees
    }

    /// The loop of this body that is [called](FuncIndex::site) so.
    #[must_use]
    pub fn loop_at(&self, site: u64) -> Option<&LoopSite> {
        self.loops.get(usize::try_from(site.checked_sub(self.index.site(0))?).ok()?)
    }

    /// For each instruction, whether control can get there from `start`.
    #[must_use]
    pub fn reachable_from(&self, start: usize) -> Vec<bool> {
        let mut reached = vec![false; self.code.len()];
        let mut open = vec![start];
        while let Some(pc) = open.pop() {
            let (Some(op), Some(mark)) = (self.code.get(pc), reached.get_mut(pc)) else { continue };
            if !std::mem::replace(mark, true) {
                open.extend(op.target().map(Target::index));
                if !op.is_terminator() {
                    open.push(pc + 1);
                }
            }
        }
        reached
    }
}

/// The listing: one instruction a line with its source line; `=>` marks a basic block, `loop` a loop header.
impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Signature { name, line, params, result } = &self.signature;
        write!(f, "fn {name}(")?;
        for (i, ty) in params.iter().enumerate() {
            write!(f, "{}r{i}: {ty}", if i == 0 { "" } else { ", " })?;
        }
        writeln!(f, ") -> {result}  // line {line}, {} registers", self.registers)?;
        let starts = self.block_starts();
        for (pc, op) in self.code.iter().enumerate() {
            let mark = if starts[pc] { "=>" } else { "" };
            write!(f, "{mark:>4} {pc:>4}  L{:<4} {op:?}", self.line(pc))?;
            match op {
                Op::Pool { index, .. } => write!(f, "  // {}", self.constant(*index).cast_signed())?,
                Op::PoolF { index, .. } => write!(f, "  // {:?}", f64::from_bits(self.constant(*index)))?,
                _ => {}
            }
            match self.loops.iter().position(|l| l.header.index() == pc) {
                Some(site) => writeln!(f, "  // loop {site}")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

impl Function {
    /// The constant at `index`, 0 if there is none.
    #[inline]
    #[must_use]
    pub fn constant(&self, index: u16) -> u64 {
        self.pool.get(usize::from(index)).copied().unwrap_or(0)
    }
}
