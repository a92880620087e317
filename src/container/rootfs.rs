//! A container's image and changes as the launcher's root filesystem: mounted and served inside its supervisor.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use nix::mount::MsFlags;
use rustix::fs::{Mode, OFlags};

use crate::fs::{Fs, OwnerView};
use crate::fuse::Writes;
use crate::launcher::Rootfs;
use crate::mount::{self, Layers, MountError, OpenCaches, UpperDirs};
use crate::sys::{daemon, fuse_mount};
use crate::upper::UpperOptions;

/// The root filesystem of a container.
#[derive(Debug)]
pub(super) struct ImageRootfs {
    source: String,
    dir: PathBuf,
    writes: Writes,
    upper: UpperOptions,
    state: Stage,
}

/// How far it is.
#[derive(Debug)]
enum Stage {
    Ready(Layers, OwnedFd),
    Mounted(Box<Fs>, OpenCaches, OwnedFd),
    Serving(JoinHandle<io::Result<()>>),
    Done,
}

impl ImageRootfs {
    /// Layers, when what is written reaches the server, the directory that holds `upper/` and `work/`, how these are used,
    /// and what /proc/mounts shows as the source.
    ///
    /// The directory is opened here, in the caller's mount namespace. Opened in the supervisor's, it would keep that one's copies of
    /// the host's mounts alive, and so busy on the host: copies in a user namespace stay together.
    pub(super) fn new(
        (layers, writes): (Layers, Writes),
        (dir, upper): (PathBuf, UpperOptions),
        source: String,
    ) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&dir, flags, Mode::empty())?;
        Ok(Self { source, dir, writes, upper, state: Stage::Ready(layers, opened) })
    }

    fn take(&mut self) -> Stage {
        std::mem::replace(&mut self.state, Stage::Done)
    }
}

fn out_of_order() -> io::Error {
    io::Error::other("the root filesystem was used out of order")
}

impl Rootfs for ImageRootfs {
    fn mount(&mut self, target: &Path) -> io::Result<Vec<RawFd>> {
        let Stage::Ready(layers, dir) = self.take() else { return Err(out_of_order()) };
        let alias = format!("/proc/self/fd/{}", dir.as_raw_fd());
        let upper = UpperDirs { options: self.upper, ..UpperDirs::below(Path::new(&alias)) };
        let told = |error: MountError| {
            io::Error::other(error.to_string().replace(&alias, &self.dir.to_string_lossy()))
        };
        let caches = layers.caches();
        let fs = layers.into_fs(Some(&upper), view()?).map_err(told)?;
        let device = fuse_mount::mount(target, &self.source, MsFlags::MS_NODEV)?;
        let close = device.as_raw_fd();
        self.state = Stage::Mounted(Box::new(fs), caches, device);
        Ok(vec![close])
    }

    fn serve(&mut self) -> io::Result<()> {
        let Stage::Mounted(fs, caches, device) = self.take() else { return Err(out_of_order()) };
        // Only now: the container's own process was forked before and keeps the caller's limits and umask.
        daemon::prepare()?;
        let server = mount::serve(*fs, caches, self.writes, device)?;
        let thread = std::thread::Builder::new().name("fuse".to_owned()).spawn(move || server.run())?;
        self.state = Stage::Serving(thread);
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        match self.take() {
            Stage::Serving(thread) => thread.join().map_err(|_| io::Error::other("the FUSE server died"))?,
            Stage::Ready(..) | Stage::Mounted(..) | Stage::Done => Ok(()),
        }
    }
}

/// With a single id every other owner would be nobody's, so all files are root's.
fn view() -> io::Result<OwnerView> {
    let uids = ids(&std::fs::read_to_string("/proc/self/uid_map")?);
    let gids = ids(&std::fs::read_to_string("/proc/self/gid_map")?);
    let count = |ranges: &[Range<u32>]| ranges.iter().map(ExactSizeIterator::len).sum::<usize>();
    Ok(match count(&uids).min(count(&gids)) {
        0 | 1 => OwnerView::Caller { uid: 0, gid: 0 },
        _ => OwnerView::Namespace { uids, gids },
    })
}

/// The ids inside, of a map as user_namespaces(7) has it: first inside, first outside, how many.
fn ids(map: &str) -> Vec<Range<u32>> {
    let numbers = |line: &str| {
        line.split_ascii_whitespace().map(|number| number.parse().ok()).collect::<Option<Vec<u32>>>()
    };
    let range = |numbers: Vec<u32>| match numbers[..] {
        [first, _, count] => Some(first..first.saturating_add(count)),
        _ => None,
    };
    map.lines().filter_map(numbers).filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps() {
        assert_eq!(
            ids("         0       1001          1\n         1     100000      65536\n"),
            [0..1, 1..65537]
        );
        assert_eq!(ids("0 0 4294967295\n").first(), Some(&(0..u32::MAX)));
    }
}
