//! What the arena's lock protects: the regions, and where the next one comes from.

use std::collections::BTreeMap;

use crate::block::BlockToken;
use crate::builder::Config;
use crate::error::ArenaError;
use crate::mapping::{MapError, Mapping};
use crate::names::{Names, Wanted};
use crate::region::{GRANULE, Region, Work, page_granules};
use crate::stats::ArenaStats;

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: Config,
    /// By first token; token ranges are disjoint.
    regions: BTreeMap<u32, Region>,
    /// With [`poison_freed`](crate::ArenaBuilder::poison_freed): regions that are used up, kept so that their addresses are not
    /// used again.
    graves: Vec<Mapping>,
    pub(crate) names: Names,
    work: Work,
    placements: u64,
}

impl State {
    pub(crate) fn new(config: Config, names: Wanted) -> Self {
        Self {
            config,
            regions: BTreeMap::new(),
            graves: Vec::new(),
            names: Names::new(names),
            work: Work::default(),
            placements: 0,
        }
    }

    /// Calls `f` with a region and the arena's work counters.
    pub(crate) fn with_region<R>(
        &mut self,
        first: u32,
        f: impl FnOnce(&mut Region, &mut Work) -> R,
    ) -> Option<R> {
        self.regions.get_mut(&first).map(|region| f(region, &mut self.work))
    }

    pub(crate) fn work_done(&mut self) {
        self.placements += 1;
    }

    /// Offers every region to `take`, then a new one of at least `room` granules.
    pub(crate) fn find_room<T>(
        &mut self,
        room: u64,
        mut take: impl FnMut(&mut Region) -> Option<T>,
    ) -> Result<T, ArenaError> {
        if let Some(taken) = self.regions.values_mut().find_map(&mut take) {
            return Ok(taken);
        }
        let region = self.new_region(room)?;
        let first = region.first_token();
        let region = self.regions.entry(first).or_insert(region);
        // The region was made large enough for any padding.
        take(region).ok_or(ArenaError::TokensExhausted)
    }

    /// Maps a region: the usual size, more if one function needs it, less if that is refused.
    fn new_region(&mut self, room: u64) -> Result<Region, ArenaError> {
        // Empty regions were of no use to this placement and would only count against the limit.
        let empty: Vec<Region> = self
            .regions
            .extract_if(.., |_, region| region.live_blocks() == 0)
            .map(|(_, region)| region)
            .collect();
        if self.config.poison_freed {
            self.graves.extend(empty.into_iter().map(Region::into_grave));
        }
        let page = u64::from(page_granules());
        let room = room.next_multiple_of(page);
        let used: u64 = self.regions.values().map(Self::counted).sum();
        let limit = self.config.max_bytes.map_or(u64::MAX, |max| max as u64 / u64::from(GRANULE));
        let left = limit.saturating_sub(used) / page * page;
        if room > left {
            let bytes = |granules: u64| usize::try_from(granules * u64::from(GRANULE)).unwrap_or(usize::MAX);
            let max = self.config.max_bytes.unwrap_or(usize::MAX);
            return Err(ArenaError::CapacityExhausted { asked: bytes(room), used: bytes(used), max });
        }
        let usual = (self.config.region_bytes as u64 / u64::from(GRANULE)).next_multiple_of(page);
        let wanted = usual.max(room).min(left);
        let mut granules = u32::try_from(wanted).map_err(|_| ArenaError::TokensExhausted)?;
        loop {
            let first = self.free_tokens(granules).ok_or(ArenaError::TokensExhausted)?;
            match Region::new(first, granules, &self.config) {
                Ok(region) => {
                    self.work.protect_calls += u64::from(!region.is_private());
                    return Ok(region);
                }
                Err(MapError::NoSpace { call, errno }) => {
                    let smaller = u64::from(granules / 2).next_multiple_of(page).max(room);
                    if smaller >= u64::from(granules) {
                        let bytes = |granules: u64| granules as usize * GRANULE as usize;
                        let (asked, smallest) = (bytes(wanted), bytes(granules.into()));
                        return Err(ArenaError::ReservationRefused { asked, smallest, call, errno });
                    }
                    granules = smaller as u32;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What a region counts against `max_bytes`, in granules.
    fn counted(region: &Region) -> u64 {
        if region.is_sealed() {
            (region.live_bytes() / GRANULE as usize) as u64
        } else {
            region.granules().into()
        }
    }

    /// The lowest run of unused tokens; 0 is never a token.
    fn free_tokens(&self, granules: u32) -> Option<u32> {
        let mut first = 1u32;
        for region in self.regions.values() {
            if region.first_token() - first >= granules {
                return Some(first);
            }
            first = region.first_token().checked_add(region.granules())?;
        }
        first.checked_add(granules).map(|_| first)
    }

    /// The region of a token and its granule there, if a block starts at it.
    pub(crate) fn find(&mut self, token: BlockToken) -> Option<(&mut Region, u32)> {
        let (&first, region) = self.regions.range_mut(..=token.to_bits()).next_back()?;
        let granule = token.to_bits() - first;
        region.is_live(granule).then_some((region, granule))
    }

    /// Frees blocks that are live and named only here, and what is joined to them. Tokens of the same region are handled together.
    pub(crate) fn free(&mut self, tokens: &[BlockToken]) -> usize {
        let mut sorted = tokens.to_vec();
        sorted.sort_unstable();
        let mut rest = sorted.as_slice();
        let mut bytes = 0;
        while let Some(token) = rest.first() {
            let Some((&first, region)) = self.regions.range_mut(..=token.to_bits()).next_back() else {
                break;
            };
            let end = first + region.granules();
            let (here, later) = rest.split_at(rest.partition_point(|token| token.to_bits() < end).max(1));
            let granules: Vec<u32> = here.iter().map(|token| token.to_bits() - first).collect();
            let granules = region.with_joined(&granules);
            bytes += region.free(&granules, &mut self.work);
            self.names.forget(granules.iter().map(|granule| BlockToken::from_bits(first + granule)));
            rest = later;
        }
        self.settle_empty();
        bytes
    }

    /// Unmaps regions without blocks, except one of the usual size, which gives its pages back.
    pub(crate) fn settle_empty(&mut self) {
        if self.config.poison_freed {
            return;
        }
        let mut spare = false;
        let usual = self.config.region_bytes;
        self.regions.retain(|_, region| {
            if region.live_blocks() > 0 {
                return true;
            }
            if spare
                || region.is_sealed()
                || region.bytes() > usual.next_multiple_of(crate::mapping::page_size())
            {
                return false;
            }
            spare = true;
            region.trim();
            true
        });
    }

    pub(crate) fn trim(&mut self) {
        self.settle_empty();
        self.regions.values_mut().for_each(Region::trim);
    }

    /// In a fork handler: see [`Region::seal`].
    #[cfg(unix)]
    pub(crate) fn seal(&mut self) {
        self.regions.values_mut().for_each(Region::seal);
    }

    pub(crate) fn stats(&self) -> ArenaStats {
        let mut stats = ArenaStats {
            placements: self.placements,
            bytes_written: self.work.bytes_written,
            protect_calls: self.work.protect_calls,
            unwind_records_written: self.work.unwind_records,
            ..ArenaStats::default()
        };
        self.names.count_errors(&mut stats);
        for region in self.regions.values() {
            stats.live_bytes += region.live_bytes();
            stats.live_blocks += region.live_blocks();
            stats.regions += 1;
            stats.sealed_regions += usize::from(region.is_sealed());
            stats.mappings += region.mappings();
            stats.reserved_bytes += region.bytes();
            stats.resident_bytes += region.resident_bytes();
            stats.unwind_tables += region.tables.len();
        }
        stats
    }
}
