//! How much of a blob goes with one request.

/// What is sent at once.
#[derive(Clone, Copy, Debug)]
pub(in crate::registry) struct Sizes {
    /// A blob of so many bytes is sent by one request.
    pub(super) whole_max: u64,
    /// A piece of a larger one has so many bytes.
    pub(super) piece: u64,
}

impl Default for Sizes {
    /// A piece takes 5 s at 100 Mbit/s, beside which one more request is nothing.
    fn default() -> Self {
        Self { whole_max: 8 << 20, piece: 64 << 20 }
    }
}

/// How the bytes go.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    /// With the request that ends the upload.
    Whole,
    /// Before it, so many at once.
    Pieces(u64),
}

impl Sizes {
    /// How a blob is sent after so many failures. Not every registry knows every way: that of `docker push`, which is one piece
    /// with everything, is the one they are all tried with.
    pub(super) fn way(self, size: u64, failures: u32) -> Way {
        match failures {
            0 | 1 if size <= self.whole_max => Way::Whole,
            0 | 1 => Way::Pieces(self.piece),
            2 | 3 => Way::Pieces(u64::MAX),
            _ => Way::Whole,
        }
    }
}
