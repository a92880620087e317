//! What stat(2) says of an object, free of any platform's struct.

/// A file type, as the `S_IFMT` bits of inode(7) have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum FileKind {
    /// `S_IFREG`
    Regular,
    /// `S_IFDIR`
    Directory,
    /// `S_IFLNK`
    Symlink,
    /// `S_IFCHR`
    CharDevice,
    /// `S_IFBLK`
    BlockDevice,
    /// `S_IFIFO`
    Fifo,
    /// `S_IFSOCK`
    Socket,
}

impl FileKind {
    /// Every kind with its `S_IFMT` bits (inode(7)).
    const FORMATS: [(Self, u32); 7] = [
        (Self::Regular, 0o100_000),
        (Self::Directory, 0o040_000),
        (Self::Symlink, 0o120_000),
        (Self::CharDevice, 0o020_000),
        (Self::BlockDevice, 0o060_000),
        (Self::Fifo, 0o010_000),
        (Self::Socket, 0o140_000),
    ];

    /// The kind that the `S_IFMT` bits of a `st_mode` name.
    #[must_use]
    pub fn from_st_mode(st_mode: u32) -> Option<Self> {
        Self::FORMATS.iter().find(|(_, bits)| *bits == st_mode & 0o170_000).map(|(kind, _)| *kind)
    }

    /// Its `S_IFMT` bits.
    #[must_use]
    pub fn st_mode(self) -> u32 {
        Self::FORMATS.iter().find(|(kind, _)| *kind == self).map_or(0, |(_, bits)| *bits)
    }
}

/// A point in time, to the nanosecond, before or after 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 UTC, rounded down.
    pub secs: i64,
    /// Nanoseconds after `secs`, below 10^9.
    pub nanos: u32,
}

/// The number of a device node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeviceId {
    /// Major number: the driver.
    pub major: u32,
    /// Minor number: the device.
    pub minor: u32,
}

impl DeviceId {
    /// As `st_rdev` and FUSE's `rdev` encode it (glibc's makedev(3), the kernel's `new_encode_dev`).
    #[must_use]
    pub const fn encode(self) -> u32 {
        (self.minor & 0xff) | (self.major & 0xfff) << 8 | (self.minor & !0xff) << 12
    }

    /// The reverse of [`Self::encode`].
    #[must_use]
    pub const fn decode(rdev: u32) -> Self {
        Self { major: (rdev >> 8) & 0xfff, minor: (rdev & 0xff) | ((rdev >> 12) & 0xf_ff00) }
    }
}

/// What an image records of an object: everything in stat(2) that is not about where it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Type.
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky: `0o7777` at most.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number, of a device node.
    pub rdev: DeviceId,
    /// Bytes: of the content, or of a symlink's target.
    pub size: u64,
    /// Time of last modification.
    pub mtime: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_bits() {
        for (kind, bits) in FileKind::FORMATS {
            assert_eq!(FileKind::from_st_mode(bits | 0o4755), Some(kind));
            assert_eq!(kind.st_mode(), bits);
        }
        assert_eq!(FileKind::from_st_mode(0o644), None);
    }

    #[test]
    fn devices() {
        let device = DeviceId { major: 0xabc, minor: 0x12345 };
        assert_eq!(DeviceId::decode(device.encode()), device);
        assert_eq!(DeviceId { major: 1, minor: 3 }.encode(), 0x103);
    }
}
