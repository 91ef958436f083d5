//! How often branches went each way, from how often blocks ran.

use crate::bytecode::Target;
use crate::function::Function;

/// How often a function was called, and how often each branch was taken.
///
/// Only blocks are counted. What came into a block went out of it, so an edge is known when it is the only unknown one of a block
/// at either end, as in Ball and Larus, "Optimally profiling and tracing programs" (1994). What that leaves open (whether a loop was
/// skipped or left, say, when both lead to the same place) is taken to be in the proportion of the blocks it leads to. Runs
/// that enter a loop natively half-way come from nowhere, so what goes out is believed before what comes in.
#[derive(Debug)]
pub(crate) struct Flow {
    /// How often the entry block was entered by a call.
    pub(crate) calls: u64,
    /// For each instruction that branches and ran: how often it jumped, and how often not.
    branches: Vec<Option<[u64; 2]>>,
}

/// From one block to another; the entry has one from nowhere.
struct Edge {
    from: Option<usize>,
    to: usize,
    count: Option<u64>,
}

impl Flow {
    /// The flow through a function whose [blocks](Function::blocks) ran so often; `None` if these are not its blocks, or none ran.
    pub(crate) fn new(function: &Function, counts: &[u64]) -> Option<Flow> {
        let number_of = function.blocks();
        let blocks = number_of.iter().flatten().count();
        if counts.len() != blocks || counts.iter().all(|&count| count == 0) {
            return None;
        }
        let block = |target: Target| number_of.get(target.index()).copied().flatten();
        let mut edges = vec![Edge { from: None, to: 0, count: None }];
        let mut pairs = vec![None; function.code.len()];
        let mut from = 0;
        for (pc, op) in function.code.iter().enumerate() {
            from = number_of[pc].unwrap_or(from);
            let next = if op.is_terminator() { None } else { block(Target((pc + 1) as u16)) };
            let ways = [op.target().and_then(block), next];
            pairs[pc] = (ways[0].is_some() && ways[1].is_some()).then_some(edges.len());
            edges.extend(ways.into_iter().flatten().map(|to| Edge { from: Some(from), to, count: None }));
        }
        solve(&mut edges, counts);
        let branch = |first: Option<usize>| {
            let [taken, not] = edges.get(first?..first? + 2)? else { return None };
            let ran = taken.from.is_some_and(|from| counts[from] > 0);
            ran.then(|| match (taken.count, not.count) {
                (Some(taken), Some(not)) => [taken, not],
                _ => [counts[taken.to], counts[not.to]],
            })
        };
        Some(Flow { calls: edges[0].count.unwrap_or(0), branches: pairs.into_iter().map(branch).collect() })
    }

    /// How often the branch at `pc` jumped, and how often not, or at least the proportion; `None` if it never ran.
    pub(crate) fn branch(&self, pc: usize) -> Option<[u64; 2]> {
        self.branches.get(pc).copied().flatten()
    }
}

/// Fills in all counts that follow from those of the blocks.
fn solve(edges: &mut [Edge], counts: &[u64]) {
    loop {
        let outwards = step(edges, counts, |edge, block| edge.from == Some(block));
        if !outwards && !step(edges, counts, |edge, block| edge.to == block) {
            return;
        }
    }
}

/// Fills in the edges that are the only unknown one of those at a block; answers whether there were any.
fn step(edges: &mut [Edge], counts: &[u64], at: impl Fn(&Edge, usize) -> bool) -> bool {
    let mut found = false;
    for (block, &count) in counts.iter().enumerate() {
        let (mut known, mut unknown) = (0_u64, Vec::new());
        for edge in edges.iter_mut().filter(|edge| at(edge, block)) {
            match edge.count {
                Some(count) => known = known.saturating_add(count),
                None => unknown.push(edge),
            }
        }
        if let [edge] = &mut unknown[..] {
            // Threads lose counts to each other, so a sum can be too large by some.
            edge.count = Some(count.saturating_sub(known));
            found = true;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiering::{Linking, Tiered, cranelift};
    use crate::{Limits, Program, Value, Vm, on_vm_stack};
    use beadwork::{Manual, Tier, TierId};
    use beadwork_cranelift::{CraneliftBackend, OptLevel};
    use std::sync::Arc;

    const SOURCE: &str = "
fn main(n: int) -> int {
    let sum = 0;
    for i in 0..n {
        if i % 4 == 0 { sum = sum + 1; } else if i == 5 { sum = sum + 1000; } else { sum = sum + 2; }
    }
    return sum;
}";

    #[test]
    fn native_counts_of_blocks_tell_how_often_each_branch_was_taken() {
        let program = Arc::new(Program::parse("branches", SOURCE).unwrap());
        let tiered = Tiered::new(&program, Linking::Slots, |builder, frontend| {
            let options = cranelift(CraneliftBackend::builder().opt_level(OptLevel::None));
            let tier = Tier::new(options.build(frontend.count_blocks(true))?).policy(Manual);
            Ok(builder.capacity(16).inline().tier(tier))
        });
        let tiered = tiered.unwrap();
        let (engine, bead) = (tiered.engine(), tiered.beads()[0]);
        engine.promote(bead, TierId::BASELINE).unwrap();
        engine.run_pending(usize::MAX);
        let value = on_vm_stack(|| Vm::new(&program, Limits::default(), tiered.hooks()).unwrap().run(&[100]));
        assert_eq!(value.unwrap(), Ok(Value::Int(25 + 1000 + 2 * 74)));

        let function = &program.functions()[0];
        let counts = engine.profile(bead).unwrap().unwrap().blocks().to_vec();
        let flow = Flow::new(function, &counts).unwrap();
        let mut branches: Vec<_> = (0..function.code.len()).filter_map(|pc| flow.branch(pc)).collect();
        branches.iter_mut().for_each(|ways| ways.sort_unstable());
        branches.sort_unstable();
        assert_eq!((flow.calls, branches), (1, vec![[1, 74], [1, 100], [1, 100], [25, 75]]), "{function}");
        assert!(Flow::new(function, &counts[1..]).is_none(), "of another function");
        assert!(Flow::new(function, &vec![0; counts.len()]).is_none(), "never ran");
    }
}
