//! `.eh_frame` images as the unwinder reads them.

/// Assembles one `.eh_frame` image: every CIE once, records with absolute addresses, a zero terminator.
#[derive(Debug, Default)]
pub(crate) struct ImageBuilder {
    bytes: Vec<u8>,
    /// Offset and body length of each CIE written so far; nearly always one.
    cies: Vec<(usize, usize)>,
}

/// Bytes of an FDE in front of its tail: length, CIE pointer, `pc_begin`, `pc_range`.
const FDE_HEAD: usize = 24;
/// Where in an FDE `pc_begin` stands.
pub(crate) const PC_BEGIN: usize = 8;
/// Bytes of a CIE in front of its body: length and id.
const CIE_HEAD: usize = 8;

impl ImageBuilder {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), cies: Vec::new() }
    }

    /// Appends a function's record and answers its offset. Trailing nops keep every record 8-byte aligned.
    pub(crate) fn push(&mut self, cie: &[u8], fde: &[u8], pc_begin: u64, pc_range: u64) -> u32 {
        let cie = self.cie(cie);
        let at = self.bytes.len();
        let size = (FDE_HEAD + fde.len()).next_multiple_of(8);
        self.bytes.extend_from_slice(&(size as u32 - 4).to_le_bytes());
        self.bytes.extend_from_slice(&((at + 4 - cie) as u32).to_le_bytes());
        self.bytes.extend_from_slice(&pc_begin.to_le_bytes());
        self.bytes.extend_from_slice(&pc_range.to_le_bytes());
        self.bytes.extend_from_slice(fde);
        self.bytes.resize(at + size, 0);
        at as u32
    }

    /// Offset of the CIE with this body, written now if it is new.
    fn cie(&mut self, body: &[u8]) -> usize {
        // Trailing nops make no difference, and copying a record out of an image may have added some.
        let size = (CIE_HEAD + body.len()).next_multiple_of(8);
        let same = |&&(at, len): &&(usize, usize)| {
            let old = &self.bytes[at + CIE_HEAD..at + CIE_HEAD + len];
            old.len() == size - CIE_HEAD
                && old.starts_with(body)
                && old[body.len()..].iter().all(|&byte| byte == 0)
        };
        if let Some(&(at, _)) = self.cies.iter().find(same) {
            return at;
        }
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&(size as u32 - 4).to_le_bytes());
        self.bytes.extend_from_slice(&0u32.to_le_bytes());
        self.bytes.extend_from_slice(body);
        self.bytes.resize(at + size, 0);
        self.cies.push((at, size - CIE_HEAD));
        at
    }

    /// What was pushed, without the terminator.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn finish(mut self) -> Image {
        self.bytes.extend_from_slice(&[0; 8]);
        let words = self.bytes.chunks_exact(8).map(|word| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            u64::from_ne_bytes(bytes)
        });
        Image { words: words.collect() }
    }
}

/// A finished image, 8-byte aligned, never moved or changed.
#[derive(Debug)]
pub(crate) struct Image {
    words: Box<[u64]>,
}

impl Image {
    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.words.as_ptr().cast()
    }

    pub(crate) fn len(&self) -> usize {
        self.words.len() * 8
    }

    /// The record at `at`, as (CIE body, FDE tail, `pc_begin`, `pc_range`).
    pub(crate) fn record(&self, at: u32) -> (&[u8], &[u8], u64, u64) {
        let at = at as usize;
        let bytes = self.bytes();
        let cie = at + 4 - self.u32_at(at + 4) as usize;
        let cie_end = cie + 4 + self.u32_at(cie) as usize;
        let end = at + 4 + self.u32_at(at) as usize;
        (
            &bytes[cie + CIE_HEAD..cie_end],
            &bytes[at + FDE_HEAD..end],
            self.words[at / 8 + 1],
            self.words[at / 8 + 2],
        )
    }

    /// A copy in which the records at `erased` describe nothing (T5).
    pub(crate) fn without(&self, erased: impl Iterator<Item = u32>) -> Self {
        let mut words = self.words.clone();
        for at in erased {
            // The record's first word: length in the low half, CIE pointer in the high half.
            let word = &mut words[at as usize / 8];
            *word = (u64::from_le(*word) & 0xffff_ffff).to_le();
        }
        Self { words }
    }

    fn u32_at(&self, at: usize) -> u32 {
        // Records are 8-byte aligned, so `at` is the low or the high half of a word.
        let word = u64::from_le(self.words[at / 8]);
        (word >> (at % 8 * 8)) as u32
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: a slice of words is a slice of eight times as many initialised bytes.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::ImageBuilder;

    #[test]
    fn the_image_is_what_the_unwinder_reads_byte_for_byte() {
        let mut builder = ImageBuilder::default();
        let first = builder.push(&[1, 0, 1, 0x78, 16], &[0x41, 0x0e, 16], 0x1000, 0x20);
        let second = builder.push(&[1, 0, 1, 0x78, 16], &[], 0x2000, 0x40);
        let image = builder.finish();
        let expected: &[&[u8]] = &[
            &[12, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0x78, 16, 0, 0, 0],
            &[28, 0, 0, 0, 20, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0],
            &[0x41, 0x0e, 16, 0, 0, 0, 0, 0],
            &[20, 0, 0, 0, 52, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0],
            &[0; 8],
        ];
        assert_eq!(image.bytes(), expected.concat());
        assert_eq!(image.record(first).2, 0x1000);
        assert_eq!(image.record(second), (&[1, 0, 1, 0x78, 16, 0, 0, 0][..], &[][..], 0x2000, 0x40));
    }

    #[test]
    fn copying_records_between_images_does_not_grow_them() {
        let mut builder = ImageBuilder::default();
        let at = builder.push(&[1, 0, 1, 0x78, 16], &[0x41, 0x0e, 16], 0x1000, 0x20);
        let image = builder.finish();
        let (cie, fde, pc, range) = image.record(at);
        let mut copy = ImageBuilder::default();
        copy.push(&[1, 0, 1, 0x78, 16], &[0x41, 0x0e, 16], 0x1000, 0x20);
        copy.push(cie, fde, pc + 0x20, range);
        assert_eq!(copy.finish().len(), image.len() + 32);
    }
}
