//! How much a container has changed, in bytes.

use std::collections::HashSet;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};

use super::Container;
use crate::launcher::{IdMaps, as_root_of};

/// Directories inside each other, each of which is open meanwhile.
const DEPTH_MAX: usize = 500;
/// What st_blocks counts in (stat(2)).
const BLOCK_BYTES: u64 = 512;

/// Bytes of files in the container's writable layer: of each as many as it has on the disk, at most its length, because the
/// rest is still the image's.
///
/// The calling process must have one thread.
///
/// # Errors
/// When a directory cannot be read.
pub fn written(container: &Container) -> io::Result<u64> {
    let Some(dirs) = container.upper_dirs() else { return Ok(0) };
    let maps = IdMaps::for_caller();
    match below(&dirs.upper) {
        // Directories of the container's other users.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && maps != IdMaps::Identity => {
            let (mut answer, mut answer_there) = io::pipe()?;
            as_root_of(&maps, || answer_there.write_all(&below(&dirs.upper)?.to_le_bytes()))?;
            let mut bytes = [0; 8];
            answer.read_exact(&mut bytes)?;
            Ok(u64::from_le_bytes(bytes))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        other => other,
    }
}

/// A number of bytes in docker's words: three digits, powers of 1000.
#[must_use]
pub fn in_words(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut unit = 0;
    let mut thousandths = u128::from(bytes) * 1000;
    while thousandths >= 1_000_000 && unit + 1 < UNITS.len() {
        thousandths /= 1000;
        unit += 1;
    }
    let (whole, rest) = (thousandths / 1000, thousandths % 1000);
    let digits = match whole {
        0..10 => format!("{whole}.{:02}", rest / 10),
        10..100 => format!("{whole}.{}", rest / 100),
        _ => whole.to_string(),
    };
    let digits =
        if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { &digits };
    format!("{digits}{}", UNITS[unit])
}

fn below(top: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    let mut linked = HashSet::new();
    let mut open = vec![entries(CWD, top)?];
    loop {
        let depth = open.len();
        let Some(dir) = open.last_mut() else { return Ok(bytes) };
        let Some(entry) = dir.next() else {
            open.pop();
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let parent = dir.fd()?;
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            // Removed meanwhile.
            Err(rustix::io::Errno::NOENT) => continue,
            stat => stat?,
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            if depth == DEPTH_MAX {
                return Err(io::Error::other(format!("more than {DEPTH_MAX} directories inside each other")));
            }
            let inner = entries(parent, name)?;
            open.push(inner);
        } else if stat.st_nlink == 1 || linked.insert((stat.st_dev, stat.st_ino)) {
            let (size, blocks) = (u64::try_from(stat.st_size), u64::try_from(stat.st_blocks));
            bytes += size.unwrap_or(0).min(blocks.unwrap_or(0).saturating_mul(BLOCK_BYTES));
        }
    }
}

fn entries(parent: impl std::os::fd::AsFd, name: impl rustix::path::Arg) -> io::Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir: OwnedFd = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    Ok(Dir::new(dir)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_words() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.23kB"),
            (12_345, "12.3kB"),
            (100_000, "100kB"),
            (5_000_000, "5MB"),
            (1_500_000_000, "1.5GB"),
            (u64::MAX, "18.4EB"),
        ] {
            assert_eq!(in_words(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn links_holes_and_symlinks() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(path("a/b")).unwrap();
        std::fs::write(path("a/b/file"), vec![1; 5000]).unwrap();
        std::fs::hard_link(path("a/b/file"), path("a/again")).unwrap();
        std::os::unix::fs::symlink("/", path("a/root")).unwrap();
        let sparse = std::fs::File::create(path("sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        assert!((5000..6000).contains(&below(dir.path()).unwrap()), "{:?}", below(dir.path()));
        assert!(below(&path("a/root")).is_err());
    }
}
