//! How many traces are kept: each command line of `run` has one of its own, and scripts make them up without end.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{AtFlags, Dir, FileType, StatxFlags};
use rustix::io::Errno;

use crate::model::Digest;
use crate::sys::files;

/// Command lines of one image.
const OF_IMAGE_MAX: usize = 32;
/// Traces in all.
const FILES_MAX: usize = 512;
/// Bytes of all of them: the longest that there can be, two dozen times; most have some KiB.
const BYTES_MAX: u64 = 16 << 20;

/// One trace, as its directory tells of it.
struct Known {
    name: String,
    bytes: u64,
    used: (i64, u32),
}

/// Removes those that were not used for longest while there are too many, or they are too large. `written` stays.
pub(super) fn keep(dir: BorrowedFd<'_>, written: &OsStr) -> Result<(), Errno> {
    let mut known = list(dir)?;
    known.sort_by_key(|known| std::cmp::Reverse((OsStr::new(&known.name) == written, known.used)));
    let (mut files, mut bytes) = (0, 0);
    let mut of_image: HashMap<String, usize> = HashMap::new();
    for Known { name, bytes: own_bytes, .. } in known {
        let image = of_image.entry(image_of(&name).to_owned()).or_default();
        if OsStr::new(&name) == written
            || (files < FILES_MAX && *image < OF_IMAGE_MAX && bytes + own_bytes <= BYTES_MAX)
        {
            (files, bytes, *image) = (files + 1, bytes + own_bytes, *image + 1);
            continue;
        }
        match files::unlinkat(dir, name.as_str(), AtFlags::empty()) {
            Err(error) if error != Errno::NOENT => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// What the name begins with: the digest of the image's config.
fn image_of(name: &str) -> &str {
    name.split_once('-').map_or(name, |(image, _)| image)
}

/// All files that are called as traces are; others are not ours.
fn list(dir: BorrowedFd<'_>) -> Result<Vec<Known>, Errno> {
    let mut known = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if Digest::from_hex(image_of(name)).is_err() {
            continue;
        }
        let mask = StatxFlags::TYPE | StatxFlags::SIZE | StatxFlags::MTIME;
        let stat = match files::statx(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW, mask) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        if FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile {
            let used = (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec);
            known.push(Known { name: name.to_owned(), bytes: stat.stx_size, used });
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::{Duration, SystemTime};

    use super::*;

    struct Traces(tempfile::TempDir);

    impl Traces {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        /// A trace that was used so many seconds ago.
        fn put(&self, name: &str, bytes: u64, age: usize) {
            let file = File::create(self.0.path().join(name)).unwrap();
            file.set_len(bytes).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age as u64)).unwrap();
        }

        fn keep(&self, written: &str) {
            keep(File::open(self.0.path()).unwrap().as_fd(), OsStr::new(written)).unwrap();
        }

        fn has(&self, name: &str) -> bool {
            self.0.path().join(name).exists()
        }
    }

    fn name(image: usize, command: usize) -> String {
        format!("{image:064x}-{command:016x}")
    }

    #[test]
    fn the_oldest_go() {
        let traces = Traces::new();
        for age in 0..OF_IMAGE_MAX + 5 {
            traces.put(&name(1, age), 100, 10 + age);
        }
        traces.put(&name(2, 0), 100, 100_000);
        traces.put("README", 100, 100_000);
        // Written now, by a clock that went back.
        traces.put(&name(1, 99), 100, 1_000_000);
        traces.keep(&name(1, 99));
        assert!(traces.has(&name(1, 99)) && traces.has(&name(1, OF_IMAGE_MAX - 2)));
        assert!(!traces.has(&name(1, OF_IMAGE_MAX - 1)) && !traces.has(&name(1, OF_IMAGE_MAX + 4)));
        assert!(traces.has(&name(2, 0)) && traces.has("README"));
    }

    #[test]
    fn in_all() {
        let traces = Traces::new();
        for image in 0..FILES_MAX + 3 {
            traces.put(&name(image, 0), 100, image);
        }
        traces.keep("none");
        assert_eq!(fs::read_dir(traces.0.path()).unwrap().count(), FILES_MAX);
        assert!(traces.has(&name(FILES_MAX - 1, 0)) && !traces.has(&name(FILES_MAX, 0)));
        for image in 0..3 {
            traces.put(&name(image, 0), BYTES_MAX / 2, image);
        }
        traces.keep("none");
        assert!(traces.has(&name(0, 0)) && traces.has(&name(1, 0)));
        assert_eq!(fs::read_dir(traces.0.path()).unwrap().count(), 2);
    }
}
