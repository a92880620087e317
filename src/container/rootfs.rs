//! A container's image and changes as the launcher's root filesystem: mounted and served inside its supervisor.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use nix::mount::MsFlags;
use rustix::fs::{Mode, OFlags};

use crate::fs::{Fs, IdRange, IdView, OwnerView};
use crate::fuse::{Readers, Writes};
use crate::launcher::{self, IdMap, OwnIds, Rootfs};
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
    own_ids: Option<OwnIds>,
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
    /// the container's own ids, and what /proc/mounts shows as the source.
    ///
    /// The directory is opened here, in the caller's mount namespace. Opened in the supervisor's, it would keep that one's copies of
    /// the host's mounts alive, and so busy on the host: copies in a user namespace stay together.
    pub(super) fn new(
        (layers, writes): (Layers, Writes),
        (dir, upper): (PathBuf, UpperOptions),
        own_ids: Option<OwnIds>,
        source: String,
    ) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&dir, flags, Mode::empty())?;
        Ok(Self { source, dir, writes, upper, own_ids, state: Stage::Ready(layers, opened) })
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
        let fs = layers.into_fs(Some(&upper), view(self.own_ids.as_ref())?).map_err(told)?;
        let device = fuse_mount::mount(target, &self.source, MsFlags::MS_NODEV)?;
        let close = device.as_raw_fd();
        self.state = Stage::Mounted(Box::new(fs), caches, device);
        Ok(vec![close])
    }

    fn serve(&mut self) -> io::Result<()> {
        let Stage::Mounted(fs, caches, device) = self.take() else { return Err(out_of_order()) };
        // Only now: the container's own process was forked before and keeps the caller's limits and umask.
        daemon::prepare()?;
        let server = mount::serve(*fs, caches, (self.writes, Readers::OfContainer), device)?;
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

/// With a single id every other owner would be nobody's, so all files are root's. What is stored are the container's ids,
/// what is shown are the supervisor's.
fn view(own_ids: Option<&OwnIds>) -> io::Result<OwnerView> {
    let uids = launcher::inside(&std::fs::read_to_string("/proc/self/uid_map")?);
    let gids = launcher::inside(&std::fs::read_to_string("/proc/self/gid_map")?);
    let count = |ranges: &[std::ops::Range<u32>]| ranges.iter().map(ExactSizeIterator::len).sum::<usize>();
    Ok(match (count(&uids).min(count(&gids)), own_ids) {
        (0 | 1, _) => OwnerView::Caller { uid: 0, gid: 0 },
        (_, None) => OwnerView::Namespace { uids, gids },
        (_, Some(own)) => OwnerView::Mapped { uids: ids(&own.uids), gids: ids(&own.gids) },
    })
}

/// The kernel's number for ids that a user namespace does not have (/proc/sys/kernel/overflowuid).
const NOBODY: u32 = 65534;

/// Whoever the container does not have is shown as its nobody, or else as its last id: one that the kernel cannot represent
/// could not be removed by the container's root, and root's must not be what only looks so.
fn ids(maps: &[IdMap]) -> IdView {
    let ranges: Vec<IdRange> =
        maps.iter().map(|map| IdRange { stored: map.inside, shown: map.outside, count: map.count }).collect();
    let shown = |id: u32| {
        let within = |map: &&IdMap| id.checked_sub(map.inside).is_some_and(|at| at < map.count);
        maps.iter().find(within).map(|map| map.outside + (id - map.inside))
    };
    let last = maps.iter().map(|map| map.inside + (map.count - 1)).max();
    let overflow = shown(NOBODY).or_else(|| last.and_then(shown)).unwrap_or(NOBODY);
    IdView { ranges, overflow, squash: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_not_there_is_nobody() {
        let map = |inside, outside, count| IdMap { inside, outside, count };
        assert_eq!(ids(&[map(0, 1, 1001), map(1001, 0, 1), map(1002, 1002, 64_535)]).overflow, 65_534);
        assert_eq!(ids(&[map(0, 1, 65_536)]).overflow, 65_535);
        assert_eq!(ids(&[map(0, 5000, 1024)]).overflow, 6023);
        assert_eq!(ids(&[map(1001, 0, 1)]).overflow, 0);
    }
}
