//! Row 4: the writable layer, a plain directory in the form that kernel overlayfs and containers/storage understand.
//!
//! It knows nothing of the layers below: `fs/` says what must be hidden and brings what is copied up. All access is by
//! directory descriptor, beneath it and never through a symlink. Nothing is visible before it is complete: an object is
//! built in `work/tmp`, then renamed, unless one call makes the whole of it. A marker that hides something below is in place before, or at the same moment as,
//! what it replaces goes away, so a crash at any point leaves the old or the new state.
//!
//! An operation has one call that publishes it, after all others that can fail: an error means that nothing happened.
//! What is left to do then is tidying up. Should that fail, it is logged and the operation has succeeded: what lies in
//! `work/` is taken away by the next mount ([`Upper::open`], [`Upper::recover`]), a whiteout that hides nothing when its directory is
//! listed ([`Upper::unhide`]).

mod adopt;
mod carried;
mod copy_up;
mod create;
mod error;
mod extents;
mod format;
mod handle;
mod hard_links;
mod links_of_others;
mod look;
mod made_with;
mod marks;
mod metacopy;
mod numbers;
mod open;
mod owner;
mod partial;
mod recorded_acl;
mod remove;
mod rename;
mod scratch;
mod setattr;
mod shared;
mod turns;
mod volatile;
mod whole;
mod xattr;

#[cfg(test)]
mod adopt_tests;
#[cfg(test)]
pub(crate) mod tests;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};

use rustix::fs::OFlags;

pub use copy_up::{Content, Copied, Later, Origin};
pub use create::{Fresh, What};
pub use error::UpperError;
pub use extents::{Bits, ExtentMap, Piece};
pub use handle::UpperAttr;
pub use hard_links::Going;
pub use links_of_others::LinkOfOthers;
pub use look::{Looked, Object, There, UpperName};
pub use marks::{Marks, is_private};
pub use owner::Recorded;
pub use partial::{Identity, Partial, check_of};
pub use rename::{Moved, Rename};
pub use scratch::Kept;
pub use setattr::{Change, SetTime};

use marks::Namespace;
use owner::Owners;

/// How a name of the layers is hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whiteouts {
    /// A character device 0:0, as overlayfs has it. Anyone may make one (mknod(2), since Linux 5.8).
    Device,
    /// A file `.wh.NAME`, where the filesystem refuses device nodes.
    Named,
}

/// How an upper is to be used, where not in the ordinary way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpperOptions {
    /// Nothing is flushed: after a crash of the system the upper is worth nothing.
    pub volatile: bool,
    /// Owners, modes and types are recorded (`user.containers.override_stat`) even where they could be set.
    pub record_owners: bool,
    /// Others use the upper too, when it is not mounted: what is in it is complete at any time, and what they leave is
    /// understood in every form that overlays know.
    pub shared: bool,
}

/// The writable layer of one container.
#[derive(Debug)]
pub struct Upper {
    root: OwnedFd,
    work: OwnedFd,
    scratch: OwnedFd,
    links: OwnedFd,
    numbers: OwnedFd,
    whiteouts: Whiteouts,
    namespace: Namespace,
    owners: Owners,
    /// As [`Owners::creator`].
    creator: Option<(u32, u32)>,
    /// The filesystem below gave a new object another mode or owner than was asked for.
    masks: AtomicBool,
    /// Others use it too, between mounts.
    shared: bool,
    /// Nothing is flushed.
    volatile: bool,
    /// How files are opened: with `O_NOATIME`, where times of access are not to change.
    reading_files: OFlags,
    /// The same, for directories.
    reading_dirs: OFlags,
    /// Smallest granule of an extent map; `None` where a copy-up copies whole files at once.
    granule_bytes_min: Option<u64>,
    /// The boot of the machine (see [`Partial`]).
    boot: u64,
    /// Makes names in `work/tmp` unique.
    serial: AtomicU64,
    /// Taken while a name of an object with several goes and is counted.
    counting: turns::Turns,
    /// The written form, until it is on disk.
    unflushed: Mutex<Option<File>>,
    /// The layers that its numbers are of, as far as they are known.
    made_with: Option<made_with::MadeWith>,
    /// Somebody else's changes have not been taken over completely yet.
    taking_over: AtomicBool,
    /// Hold the flocks, on upper and work, that keep a second mount away.
    _locks: [File; 2],
}
