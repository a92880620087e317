//! The 512 bytes before every entry.

use super::{BLOCK_BYTES, Problem, until_nul};

/// A header block with a right checksum.
pub(super) struct Header<'a>(&'a [u8; BLOCK_BYTES]);

impl<'a> Header<'a> {
    pub(super) fn new(block: &'a [u8; BLOCK_BYTES]) -> Result<Self, Problem> {
        let header = Self(block);
        let stored = number(&block[148..156]).map_err(|_| "not a tar header")?;
        let byte = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { b' ' } else { *byte };
        let unsigned: i64 = block.iter().enumerate().map(|item| i64::from(byte(item))).sum();
        // Some old writers added up signed chars.
        let signed: i64 = block.iter().enumerate().map(|item| i64::from(byte(item).cast_signed())).sum();
        if stored == unsigned || stored == signed {
            Ok(header)
        } else {
            Err("header checksum is wrong".into())
        }
    }

    pub(super) fn block(&self) -> &'a [u8; BLOCK_BYTES] {
        self.0
    }

    pub(super) fn typeflag(&self) -> u8 {
        self.0[156]
    }

    /// Name with the prefix of POSIX archives (in GNU archives other fields are in that place).
    pub(super) fn name(&self) -> Vec<u8> {
        let name = until_nul(&self.0[..100]);
        // Star keeps access and change time at the end of the prefix.
        let end = if &self.0[508..] == b"tar\0" { 476 } else { 500 };
        let prefix = until_nul(&self.0[345..end]);
        if &self.0[257..263] != b"ustar\0" || prefix.is_empty() {
            return name;
        }
        [&prefix[..], &name].join(&b'/')
    }

    pub(super) fn link(&self) -> Vec<u8> {
        until_nul(&self.0[157..257])
    }

    pub(super) fn size(&self) -> Result<u64, Problem> {
        u64::try_from(number(&self.0[124..136])?).map_err(|_| "negative size".into())
    }

    pub(super) fn mode(&self) -> Result<i64, Problem> {
        number(&self.0[100..108])
    }

    pub(super) fn uid(&self) -> Result<i64, Problem> {
        number(&self.0[108..116])
    }

    pub(super) fn gid(&self) -> Result<i64, Problem> {
        number(&self.0[116..124])
    }

    pub(super) fn mtime(&self) -> Result<i64, Problem> {
        number(&self.0[136..148])
    }

    pub(super) fn device_major(&self) -> Result<i64, Problem> {
        number(&self.0[329..337])
    }

    pub(super) fn device_minor(&self) -> Result<i64, Problem> {
        number(&self.0[337..345])
    }
}

/// Octal text, or big-endian two's complement below a set top bit (GNU's base-256).
pub(super) fn number(field: &[u8]) -> Result<i64, Problem> {
    let first = field.first().copied().unwrap_or(0);
    if first & 0x80 != 0 {
        let start = if first & 0x40 != 0 { -1 } else { i128::from(first & 0x3f) };
        let start = if start < 0 { i128::from((first | 0x80).cast_signed()) } else { start };
        let value = field[1..].iter().fold(start, |value, byte| value << 8 | i128::from(*byte));
        return i64::try_from(value).map_err(|_| "number is out of range".into());
    }
    let is_padding = |byte: &u8| matches!(byte, b' ' | 0);
    let digits = field.iter().skip_while(|byte| is_padding(byte)).take_while(|byte| !is_padding(byte));
    digits.copied().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => Ok(value << 3 | i64::from(digit - b'0')),
        _ => Err("a number is not octal".into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let number = |field: &[u8]| number(field).ok();
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"77777777777\0"), Some(0o77_777_777_777));
        assert_eq!(number(b"0000648\0"), None);
        assert_eq!(number(&[0x80, 0, 0, 0, 0x80, 0, 0, 1]), Some(0x8000_0001));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]), Some(-2));
        assert_eq!(number(&[0x80, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0]), None, "beyond 63 bits");
    }
}
