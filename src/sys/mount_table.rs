//! What is mounted where, as this process sees it (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};

/// One mount, wherever it is moved to and whatever is mounted on top of it.
///
/// The number alone could be another mount's when this one is gone; with the device it is the same filesystem's, whose
/// server is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MountId {
    number: u64,
    device: (u32, u32),
}

impl MountId {
    /// The topmost mount on this path.
    ///
    /// # Errors
    /// What statx(2) says; `Unsupported` before Linux 5.8.
    pub fn at(path: &Path) -> io::Result<Self> {
        Self::of(CWD, path)
    }

    /// The mount that an open file or directory is in.
    ///
    /// # Errors
    /// As [`Self::at`].
    pub fn of_open(fd: impl AsFd) -> io::Result<Self> {
        Self::of(fd, Path::new(""))
    }

    fn of(dir: impl AsFd, path: &Path) -> io::Result<Self> {
        // The server may be the caller, and not answer yet.
        let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH;
        let stat = rustix::fs::statx(dir, path, flags, StatxFlags::MNT_ID)?;
        if stat.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "statx tells no mount ids (Linux 5.8)"));
        }
        Ok(Self { number: stat.stx_mnt_id, device: (stat.stx_dev_major, stat.stx_dev_minor) })
    }

    /// Where it is mounted now; `None` when it is not any more.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn place(self) -> io::Result<Option<PathBuf>> {
        Ok(self.find(&std::fs::read("/proc/self/mountinfo")?))
    }

    fn find(self, table: &[u8]) -> Option<PathBuf> {
        let mut lines = table.split(|byte| *byte == b'\n');
        let line = lines.find(|line| self.is_of(line))?;
        Some(PathBuf::from(unescape(line.split(|byte| *byte == b' ').nth(4)?)))
    }

    /// Whether a line of the table is this mount's.
    fn is_of(self, line: &[u8]) -> bool {
        let mut fields = line.split(|byte| *byte == b' ');
        let number = fields.next().is_some_and(|field| field == self.number.to_string().as_bytes());
        let device = format!("{}:{}", self.device.0, self.device.1);
        number && fields.nth(1).is_some_and(|field| field == device.as_bytes())
    }
}

/// The type of the filesystem that this path is in; `None` when this process does not see its mount.
///
/// # Errors
/// What statx(2) says, or when /proc cannot be read.
pub fn filesystem_of(path: &Path) -> io::Result<Option<String>> {
    let mount = MountId::at(path)?;
    let table = std::fs::read("/proc/self/mountinfo")?;
    let line = table.split(|byte| *byte == b'\n').find(|line| mount.is_of(line));
    Ok(line.and_then(kind_of))
}

fn kind_of(line: &[u8]) -> Option<String> {
    let mut fields = line.split(|byte| *byte == b' ').skip_while(|field| *field != b"-");
    fields.nth(1).map(|kind| String::from_utf8_lossy(kind).into_owned())
}

/// The type of the filesystem mounted on exactly this path (absolute, without symlinks), the topmost if there are
/// several; `None` when it is no mount point.
///
/// # Errors
/// When /proc cannot be read.
pub fn filesystem_at(path: &Path) -> io::Result<Option<String>> {
    Ok(find(&std::fs::read("/proc/self/mountinfo")?, path))
}

fn find(table: &[u8], path: &Path) -> Option<String> {
    let mut found = None;
    for line in table.split(|byte| *byte == b'\n') {
        let Some(mount_point) = line.split(|byte| *byte == b' ').nth(4) else { continue };
        if unescape(mount_point).as_bytes() == path.as_os_str().as_bytes() {
            found = kind_of(line).or(found);
        }
    }
    found
}

/// Where the tree of control groups of version 2 is mounted, and which group is shown there, in a table of
/// proc_pid_mountinfo(5). Of several the one where systemd has it.
#[must_use]
pub fn cgroup2_in(table: &[u8]) -> Option<(PathBuf, PathBuf)> {
    let mut found: Option<(PathBuf, PathBuf)> = None;
    for line in table.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ').skip(3);
        if let (Some(shown), Some(place), Some("cgroup2")) =
            (fields.next(), fields.next(), kind_of(line).as_deref())
        {
            let (place, shown) = (PathBuf::from(unescape(place)), PathBuf::from(unescape(shown)));
            if found.is_none() || place.starts_with("/sys/fs/cgroup") {
                found = Some((place, shown));
            }
        }
    }
    found
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match (first, digits.and_then(|digits| u8::from_str_radix(digits, 8).ok())) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_number_and_device() {
        let table = b"30 22 0:40 / /mnt/a\\040b rw shared:5 - tmpfs tmpfs rw\n\
            31 30 0:41 / /mnt/a\\040b rw - fuse.layerfs image rw\n";
        let find = |number, minor| MountId { number, device: (0, minor) }.find(table);
        assert_eq!(find(30, 40), Some("/mnt/a b".into()));
        assert_eq!(find(31, 41), Some("/mnt/a b".into()));
        assert_eq!(find(30, 41), None, "the number was given to another mount");
        assert_eq!(find(40, 40), None);
        assert_eq!(filesystem_of(Path::new("/proc/self/status")).unwrap(), Some("proc".to_owned()));
        // Not the root: btrfs tells two devices for one mount.
        let proc = MountId::at(Path::new("/proc")).unwrap();
        assert_eq!(proc.place().unwrap(), Some("/proc".into()));
        assert_eq!(MountId::of_open(std::fs::File::open("/proc").unwrap()).unwrap(), proc);
    }

    #[test]
    fn control_groups_of_version_2() {
        let table = b"32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
            33 31 0:30 /a\\040b /mnt/groups rw shared:1 - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup2_in(table), Some(("/mnt/groups".into(), "/a b".into())));
        let more = [&table[..], b"34 31 0:30 / /sys/fs/cgroup rw - cgroup2 none rw\n"].concat();
        assert_eq!(cgroup2_in(&more), Some(("/sys/fs/cgroup".into(), "/".into())));
        assert_eq!(cgroup2_in(b"32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"), None);
    }

    #[test]
    fn the_topmost_counts() {
        let table = b"22 1 0:20 / / rw - ext4 /dev/sda rw\n\
            30 22 0:40 / /mnt/a\\040b rw,nosuid shared:5 - tmpfs tmpfs rw\n\
            31 22 0:41 / /mnt/a\\040b rw - fuse.layerfs image rw\n";
        assert_eq!(find(table, Path::new("/mnt/a b")), Some("fuse.layerfs".to_owned()));
        assert_eq!(find(table, Path::new("/")), Some("ext4".to_owned()));
        assert_eq!(find(table, Path::new("/mnt")), None);
    }
}
