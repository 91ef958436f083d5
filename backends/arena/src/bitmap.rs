//! A fixed bitmap over the granules or pages of a region.
//!
//! Three of them describe every block of a region in 3 bits per 32 bytes, which is far less than any map of blocks.

#[derive(Debug)]
pub(crate) struct Bitmap {
    words: Vec<u64>,
}

impl Bitmap {
    /// `bits` zero bits. The zeroed allocation of a large region is not touched before it is used.
    pub(crate) fn new(bits: u32) -> Self {
        Self { words: vec![0; bits.div_ceil(64) as usize] }
    }

    /// Bits outside the map read as zero.
    pub(crate) fn get(&self, bit: u32) -> bool {
        self.words.get(bit as usize / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    /// Sets a bit and answers whether that changed it. Bits outside the map are ignored.
    pub(crate) fn set(&mut self, bit: u32) -> bool {
        self.words.get_mut(bit as usize / 64).is_some_and(|word| {
            let changed = *word >> (bit % 64) & 1 == 0;
            *word |= 1 << (bit % 64);
            changed
        })
    }

    /// Clears a bit and answers whether that changed it. Bits outside the map are ignored.
    pub(crate) fn clear(&mut self, bit: u32) -> bool {
        self.words.get_mut(bit as usize / 64).is_some_and(|word| {
            let changed = *word >> (bit % 64) & 1 == 1;
            *word &= !(1 << (bit % 64));
            changed
        })
    }

    /// The first set bit at or after `from`.
    pub(crate) fn next_set(&self, from: u32) -> Option<u32> {
        let mut index = from as usize / 64;
        let mut word = *self.words.get(index)? & (u64::MAX << (from % 64));
        while word == 0 {
            index += 1;
            word = *self.words.get(index)?;
        }
        u32::try_from(index * 64 + word.trailing_zeros() as usize).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::Bitmap;

    #[test]
    fn a_bit_is_found_from_any_earlier_bit_and_only_once_set() {
        for bit in [0, 1, 63, 64, 65, 127, 128, 199] {
            let mut map = Bitmap::new(200);
            assert_eq!(map.next_set(0), None);
            assert!(map.set(bit));
            assert!(!map.set(bit));
            for from in 0..=bit {
                assert_eq!(map.next_set(from), Some(bit));
            }
            assert_eq!(map.next_set(bit + 1), None);
            assert!(map.get(bit) && map.clear(bit) && !map.clear(bit) && !map.get(bit));
        }
    }

    #[test]
    fn bits_outside_are_zero_and_stay_zero() {
        let mut map = Bitmap::new(10);
        assert!(!map.get(1_000) && !map.set(1_000) && !map.clear(1_000));
        assert_eq!(map.next_set(1_000), None);
    }
}
