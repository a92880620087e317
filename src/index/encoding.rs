//! How a blob holds its tar.

use super::format;

/// The forms of a blob, told by its first bytes: what a manifest says is often wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As it is.
    Tar,
    /// One or more gzip members (RFC 1952).
    Gzip,
    /// Zstandard frames (RFC 8878).
    Zstd,
    /// xz streams (the .xz file format 1.2.1).
    Xz,
    /// bzip2 streams.
    Bzip2,
}

impl Encoding {
    /// Bytes that tell one encoding from another: a bzip2 header and the mark behind it, because "BZh1" may be a file name.
    pub const SNIFF_BYTES: usize = 10;

    /// The encoding of a blob that begins with these bytes: [`Self::SNIFF_BYTES`] of them, unless it is shorter.
    #[must_use]
    pub fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..]
            | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90, ..] => Self::Bzip2,
            _ => Self::Tar,
        }
    }

    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
        }
    }

    /// As it is in an index.
    pub(super) fn number(self) -> u32 {
        match self {
            Self::Tar => format::ENCODING_TAR,
            Self::Gzip => format::ENCODING_GZIP,
            Self::Zstd => format::ENCODING_ZSTD,
            Self::Xz => format::ENCODING_XZ,
            Self::Bzip2 => format::ENCODING_BZIP2,
        }
    }

    /// The encoding with that number.
    pub(super) fn from_number(number: u32) -> Option<Self> {
        [Self::Tar, Self::Gzip, Self::Zstd, Self::Xz, Self::Bzip2]
            .into_iter()
            .find(|encoding| encoding.number() == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_decide() {
        for (start, encoding) in [
            (&b"\x1f\x8b"[..], Encoding::Gzip),
            (b"\x28\xb5\x2f\xfd...", Encoding::Zstd),
            (b"\x5f\x2a\x4d\x18", Encoding::Zstd),
            (b"\xfd7zXZ\0", Encoding::Xz),
            (b"BZh91AY&SY", Encoding::Bzip2),
            (b"BZh1\x17\x72\x45\x38\x50\x90", Encoding::Bzip2),
            (b"BZh91AY&S/", Encoding::Tar),
            (b"BZh9", Encoding::Tar),
            (b"", Encoding::Tar),
        ] {
            assert_eq!(Encoding::of(start), encoding, "{}", start.escape_ascii());
            assert_eq!(Encoding::from_number(encoding.number()), Some(encoding));
        }
        assert_eq!(Encoding::from_number(5), None);
    }
}
