//! Frees retired code: the engine's tokens are the arena's.

use beadwork::Reclaim;
use beadwork_arena::{Arena, BlockToken};

/// Lets an engine free blocks of an arena by token, many at once.
///
/// It keeps the arena alive as long as any code of it is installed.
#[derive(Clone, Debug)]
pub struct ArenaReclaim(Arena);

impl ArenaReclaim {
    /// For owners made by `CodeOwner::token(Arc::new(ArenaReclaim::new(arena)), block.into_token().to_bits())`. Use
    /// one value per arena: the engine frees the tokens of one reclaimer together.
    pub fn new(arena: Arena) -> ArenaReclaim {
        ArenaReclaim(arena)
    }
}

impl Reclaim for ArenaReclaim {
    fn reclaim(&self, tokens: &[u32]) {
        let blocks: Vec<_> = tokens.iter().copied().map(BlockToken::from_bits).collect();
        if self.0.free_many(&blocks).is_err() {
            // One of them is not ours; the others still have to be freed, and a stranger cannot be.
            for &block in &blocks {
                let _ = self.0.free_many(&[block]);
            }
        }
    }
}
