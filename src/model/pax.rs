//! Headers of tar entries in PAX form (POSIX.1-2001 pax, "pax Interchange Format"), the same bytes for the same entry.

use super::{DeviceId, FileKind, Metadata, Timestamp};

/// The unit of a tar.
pub const BLOCK: usize = 512;
/// Room for a path or a link's target in a header.
const NAME_BYTES: usize = 100;
/// Room for owner and group: seven octal digits.
const ID_MAX: u64 = 0o7_777_777;
/// Room for size and time: eleven octal digits.
const NUMBER_MAX: u64 = 0o77_777_777_777;

/// What the header of an entry says.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// The path; that of a directory ends with a slash.
    pub path: &'a [u8],
    /// What kind of entry it is.
    pub type_flag: u8,
    /// Mode, owner, time, device.
    pub metadata: &'a Metadata,
    /// Bytes of content that follow.
    pub size: u64,
    /// The target of a link.
    pub target: &'a [u8],
    /// Extended attributes.
    pub xattrs: &'a [Attribute],
}

/// Name and value.
type Attribute = (Box<[u8]>, Box<[u8]>);

/// A tar cannot hold an attribute of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("attribute {}: a tar cannot hold a name with =", .0.escape_ascii())]
pub struct NoSuchName(Box<[u8]>);

impl Header<'_> {
    /// Its blocks: the header, and before it one for what does not fit there.
    ///
    /// # Errors
    /// [`NoSuchName`]
    pub fn blocks(&self) -> Result<Vec<u8>, NoSuchName> {
        let records = self.pax_records()?;
        let mut blocks = Vec::new();
        if !records.is_empty() {
            let metadata = nothing();
            let pax = Header {
                path: b"PaxHeaders/entry",
                type_flag: b'x',
                metadata: &metadata,
                size: records.len() as u64,
                target: &[],
                xattrs: &[],
            };
            blocks.extend(pax.block());
            blocks.extend(&records);
            blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
        }
        blocks.extend(self.block());
        Ok(blocks)
    }

    /// What the fields of the header cannot hold.
    fn pax_records(&self) -> Result<Vec<u8>, NoSuchName> {
        let mut records = Vec::new();
        let fits = |name: &[u8]| name.len() <= NAME_BYTES && name.is_ascii();
        if !fits(self.path) {
            record(&mut records, b"path", self.path);
        }
        if !fits(self.target) {
            record(&mut records, b"linkpath", self.target);
        }
        for (key, id) in [(&b"uid"[..], self.metadata.uid), (b"gid", self.metadata.gid)] {
            if u64::from(id) > ID_MAX {
                record(&mut records, key, id.to_string().as_bytes());
            }
        }
        if self.size > NUMBER_MAX {
            record(&mut records, b"size", self.size.to_string().as_bytes());
        }
        let time = self.metadata.mtime;
        if time.nanos != 0 || u64::try_from(time.secs).is_ok_and(|secs| secs > NUMBER_MAX) || time.secs < 0 {
            record(&mut records, b"mtime", decimal(time).as_bytes());
        }
        for (name, value) in self.xattrs {
            if name.contains(&b'=') {
                return Err(NoSuchName(name.clone()));
            }
            record(&mut records, &[b"SCHILY.xattr.", &**name].concat(), value);
        }
        Ok(records)
    }

    fn block(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let secs = u64::try_from(self.metadata.mtime.secs).unwrap_or(0);
        let id = |id: u32| if u64::from(id) > ID_MAX { 0 } else { u64::from(id) };
        let number = |number: u64| if number > NUMBER_MAX { 0 } else { number };
        text(&mut block[0..100], self.path);
        octal(&mut block[100..108], self.metadata.mode.into());
        octal(&mut block[108..116], id(self.metadata.uid));
        octal(&mut block[116..124], id(self.metadata.gid));
        octal(&mut block[124..136], number(self.size));
        octal(&mut block[136..148], number(secs));
        block[156] = self.type_flag;
        text(&mut block[157..257], self.target);
        block[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut block[329..337], self.metadata.rdev.major.into());
        octal(&mut block[337..345], self.metadata.rdev.minor.into());
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        octal(&mut block[148..155], sum);
        block
    }
}

/// Octal digits and a NUL; callers make sure that they fit.
fn octal(field: &mut [u8], number: u64) {
    let width = field.len() - 1;
    let digits = format!("{number:0width$o}");
    text(&mut field[..width], &digits.as_bytes()[digits.len() - width..]);
    field[width] = 0;
}

fn text(field: &mut [u8], bytes: &[u8]) {
    let length = bytes.len().min(field.len());
    field[..length].copy_from_slice(&bytes[..length]);
}

/// `LENGTH KEY=VALUE\n`; the length counts itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    for part in [key, b"=", value, b"\n"] {
        records.extend_from_slice(part);
    }
}

/// Seconds with their fraction; a time before 1970 counts its fraction downwards.
fn decimal(time: Timestamp) -> String {
    let (sign, secs, nanos) = match (time.secs < 0, time.nanos) {
        (false, nanos) => ("", time.secs.unsigned_abs(), nanos),
        (true, 0) => ("-", time.secs.unsigned_abs(), 0),
        (true, nanos) => ("-", time.secs.unsigned_abs() - 1, 1_000_000_000 - nanos),
    };
    let text = format!("{sign}{secs}.{nanos:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The attributes of an entry that has none of its own.
#[must_use]
pub fn nothing() -> Metadata {
    Metadata {
        kind: FileKind::Regular,
        mode: 0o644,
        uid: 0,
        gid: 0,
        rdev: DeviceId::default(),
        size: 0,
        mtime: Timestamp::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_themselves() {
        for length in 0..1100 {
            let mut records = Vec::new();
            record(&mut records, b"path", &vec![b'x'; length]);
            let text = String::from_utf8(records).unwrap();
            assert_eq!(text.split(' ').next().unwrap().parse(), Ok(text.len()));
        }
    }

    #[test]
    fn times() {
        let time = |secs, nanos| decimal(Timestamp { secs, nanos });
        assert_eq!(time(1, 500_000_000), "1.5");
        assert_eq!(time(-2, 500_000_000), "-1.5");
        assert_eq!(time(-1, 999_999_999), "-0.000000001");
        assert_eq!(time(-3, 0), "-3");
        assert_eq!(time(10, 0), "10");
    }
}
