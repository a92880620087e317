//! Extended headers (pax(1), "pax Extended Header"): `<length> <key>=<value>\n`, lengths in bytes, values binary.

use super::sparse::PaxSparse;
use super::{Problem, libarchive};
use crate::index::tree::Xattr;
use crate::model::Timestamp;
use crate::model::limits::{XATTR_LIST_BYTES_MAX, XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX};

/// What extended headers say of the next entry.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) sparse: PaxSparse,
    xattrs: Vec<Xattr>,
    /// Those that count only where there is none of that name among `xattrs`.
    more_xattrs: Vec<Xattr>,
}

/// Bookkeeping of kernel and FUSE overlays: from an image it could redirect or unveil what it likes.
const HIDDEN_XATTRS: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

impl Pax {
    pub(super) fn parse(&mut self, mut content: &[u8]) -> Result<(), Problem> {
        while !content.is_empty() {
            let (record, rest) = split_record(content).ok_or("an extended header is malformed")?;
            content = rest;
            let equals = record.iter().position(|byte| *byte == b'=');
            let (key, value) = record.split_at(equals.ok_or("an extended header has no value")?);
            self.set(key, &value[1..])?;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Problem> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            self.xattrs.extend(checked_xattr(name.to_vec(), value.to_vec())?);
            return Ok(());
        }
        if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
            // What is not written as libarchive does it is nothing that anybody else looks at.
            if let Some((name, value)) = libarchive::xattr(name, value) {
                self.more_xattrs.extend(checked_xattr(name, value)?);
            }
            return Ok(());
        }
        if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
            return self.sparse.set(key, value);
        }
        match key {
            b"path" => self.path = text(value)?,
            b"linkpath" => self.link = text(value)?,
            b"size" => self.size = decimal(value)?,
            b"uid" => self.uid = decimal(value)?,
            b"gid" => self.gid = decimal(value)?,
            b"mtime" => self.mtime = timestamp(value)?,
            _ => {}
        }
        Ok(())
    }

    /// Sorted by name; of several with one name the last, and libarchive's only when there is no other.
    pub(super) fn take_xattrs(&mut self) -> Result<Vec<Xattr>, Problem> {
        let mut xattrs = std::mem::take(&mut self.more_xattrs);
        xattrs.append(&mut self.xattrs);
        Ok(sorted(xattrs)?)
    }
}

/// Those of an object that are shown, sorted by name; the error is for people.
pub(in crate::index) fn shown_xattrs(given: Vec<Xattr>) -> Result<Vec<Xattr>, String> {
    let mut xattrs = Vec::with_capacity(given.len());
    for (name, value) in given {
        xattrs.extend(checked_xattr(name, value)?);
    }
    sorted(xattrs)
}

/// By name; of several with one name the last.
fn sorted(mut xattrs: Vec<Xattr>) -> Result<Vec<Xattr>, String> {
    xattrs.reverse();
    xattrs.sort_by(|a, b| a.0.cmp(&b.0));
    xattrs.dedup_by(|later, first| later.0 == first.0);
    if xattrs.iter().map(|(name, _)| name.len() + 1).sum::<usize>() > XATTR_LIST_BYTES_MAX {
        return Err("too many extended attributes".to_owned());
    }
    Ok(xattrs)
}

/// `None` for one that is not shown.
fn checked_xattr(name: Vec<u8>, value: Vec<u8>) -> Result<Option<Xattr>, String> {
    if HIDDEN_XATTRS.iter().any(|prefix| name.starts_with(prefix)) {
        return Ok(None);
    }
    if name.is_empty() || name.len() > XATTR_NAME_BYTES_MAX || name.contains(&0) {
        return Err("the name of an extended attribute is not valid".to_owned());
    }
    if value.len() > XATTR_VALUE_BYTES_MAX {
        return Err("an extended attribute is too long".to_owned());
    }
    Ok(Some((name, value)))
}

/// The first record, without its length and newline, and what follows.
fn split_record(content: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = content.iter().take(20).position(|byte| *byte == b' ')?;
    let len = usize::try_from(decimal(&content[..space]).ok()??).ok()?;
    if len > content.len() {
        return None;
    }
    let (record, rest) = content.split_at(len);
    Some((record.get(space + 1..)?.strip_suffix(b"\n")?, rest))
}

/// An empty value takes the record back.
fn text(value: &[u8]) -> Result<Option<Vec<u8>>, Problem> {
    if value.contains(&0) {
        return Err("a name has a NUL in it".into());
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

/// Digits only: a sign or a space is where two readers begin to differ.
pub(super) fn decimal(value: &[u8]) -> Result<Option<u64>, Problem> {
    if value.is_empty() {
        return Ok(None);
    }
    let number = value.iter().try_fold(0_u64, |number, digit| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    });
    number.map(Some).ok_or_else(|| format!("\"{}\" is not a number", value.escape_ascii()).into())
}

/// `[-]seconds[.fraction]`, rounded down to the nanosecond.
fn timestamp(value: &[u8]) -> Result<Option<Timestamp>, Problem> {
    if value.is_empty() {
        return Ok(None);
    }
    let wrong = || Problem::from(format!("\"{}\" is not a time", value.escape_ascii()));
    let (negative, magnitude) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut parts = magnitude.splitn(2, |byte| *byte == b'.');
    let secs = decimal(parts.next().unwrap_or_default())?.ok_or_else(wrong)?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(wrong());
    }
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanos = digits.fold(0_u32, |nanos, digit| nanos * 10 + u32::from(digit - b'0'));
    let has_rest = fraction.iter().skip(9).any(|digit| *digit != b'0');
    let secs = i64::try_from(secs).map_err(|_| wrong())?;
    if !negative {
        return Ok(Some(Timestamp { secs, nanos }));
    }
    let nanos = nanos + u32::from(has_rest);
    Ok(Some(match nanos {
        0 => Timestamp { secs: -secs, nanos: 0 },
        _ => Timestamp { secs: -secs - 1, nanos: 1_000_000_000 - nanos },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let time = |text: &[u8]| timestamp(text).ok().flatten().map(|time| (time.secs, time.nanos));
        assert_eq!(time(b"1"), Some((1, 0)));
        assert_eq!(time(b"1.5"), Some((1, 500_000_000)));
        assert_eq!(time(b"1.0000000019"), Some((1, 1)));
        assert_eq!(time(b"-1.5"), Some((-2, 500_000_000)));
        assert_eq!(time(b"-1"), Some((-1, 0)));
        assert_eq!(time(b"-0.0000000001"), Some((-1, 999_999_999)));
        for text in [&b"1.x"[..], b"+1", b" 1", b"", b"--1", b".5"] {
            assert_eq!(time(text), None, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn attributes_of_libarchive_are_second_to_others() {
        let mut pax = Pax::default();
        for (key, value) in [
            ("SCHILY.xattr.user.both", "schily"),
            ("LIBARCHIVE.xattr.user.both", "eA"),
            ("LIBARCHIVE.xattr.user.own%3D", "b25l"),
            ("LIBARCHIVE.xattr.user.bad", "?"),
            ("LIBARCHIVE.xattr.trusted.overlay.opaque", "eQ"),
        ] {
            pax.set(key.as_bytes(), value.as_bytes()).unwrap();
        }
        let found = pax.take_xattrs().unwrap();
        assert_eq!(found, [("user.both", "schily"), ("user.own=", "one")].map(|(a, b)| (a.into(), b.into())));
        assert!(pax.set(b"LIBARCHIVE.xattr.%00", b"").is_err());
    }

    #[test]
    fn records() {
        let mut pax = Pax::default();
        pax.parse(b"13 path=a=b\xff\n26 SCHILY.xattr.user.a=\0\n\n").unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a=b\xff"[..]));
        assert_eq!(pax.take_xattrs().unwrap(), [(b"user.a".to_vec(), b"\0\n".to_vec())]);
        for bad in
            [&b"13 path"[..], b"x", b"3 \n", b"99999999999999999999999 a=b\n", b"0 a=b\n", b"8 path\n\n"]
        {
            assert!(Pax::default().parse(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
