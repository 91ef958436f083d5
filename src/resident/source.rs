//! Sources as callers have them: borrowed, shared, or to be fetched.

use std::sync::Arc;

/// The bytes a key stands for. They are asked for when a compile is about to be requested, and never for code that is there.
///
/// `&[u8]` and `&Vec<u8>` are copied then, `&Arc<[u8]>` is shared, and [`Lazy`] is fetched.
pub trait Source {
    /// How many bytes there are, if that is known without fetching them. A key whose size is not known is found
    /// [ineligible](super::Interpret::Ineligible) only when its source has been fetched.
    fn size(&self) -> Option<usize>;

    /// The bytes.
    fn fetch(self) -> Arc<[u8]>;
}

impl Source for &[u8] {
    fn size(&self) -> Option<usize> {
        Some(self.len())
    }
    fn fetch(self) -> Arc<[u8]> {
        self.into()
    }
}

impl Source for &Vec<u8> {
    fn size(&self) -> Option<usize> {
        Some(self.len())
    }
    fn fetch(self) -> Arc<[u8]> {
        self.as_slice().into()
    }
}

impl Source for &Arc<[u8]> {
    fn size(&self) -> Option<usize> {
        Some(self.len())
    }
    fn fetch(self) -> Arc<[u8]> {
        self.clone()
    }
}

/// A source that is fetched by a closure (from a database, say) if a compile is requested.
///
/// ```
/// use beadwork::resident::{Lazy, Source};
/// let source = Lazy::new(|| vec![1, 2, 3]).sized(3);
/// assert_eq!(source.size(), Some(3));
/// assert_eq!(*source.fetch(), [1, 2, 3]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Lazy<F> {
    fetch: F,
    size: Option<usize>,
}

impl<F: FnOnce() -> B, B: Into<Arc<[u8]>>> Lazy<F> {
    /// Fetched by `fetch`, at most once. A panic in it is contained, and nothing is requested then.
    pub fn new(fetch: F) -> Lazy<F> {
        Lazy { fetch, size: None }
    }

    /// States how many bytes it will be, so that a key that is too large is told before they are fetched.
    #[must_use]
    pub fn sized(mut self, bytes: usize) -> Lazy<F> {
        self.size = Some(bytes);
        self
    }
}

impl<F: FnOnce() -> B, B: Into<Arc<[u8]>>> Source for Lazy<F> {
    fn size(&self) -> Option<usize> {
        self.size
    }
    fn fetch(self) -> Arc<[u8]> {
        (self.fetch)().into()
    }
}
