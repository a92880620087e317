//! What the kernel asked for: how often, how long the answers took, which errors they were.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fuser::Errno;

use crate::model::stats::{RequestStats, TrafficStats};
use crate::model::{Counter, Histogram};

/// A kind of request (fuse(4)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Lookup,
    Getattr,
    Setattr,
    Readlink,
    Mknod,
    Mkdir,
    Symlink,
    Create,
    Unlink,
    Rmdir,
    Rename,
    Link,
    Open,
    Opendir,
    Read,
    Write,
    Flush,
    Release,
    Fsync,
    Fsyncdir,
    Readdir,
    Readdirplus,
    Statfs,
    Setxattr,
    Getxattr,
    Listxattr,
    Removexattr,
    Fallocate,
    Lseek,
    CopyFileRange,
    Ioctl,
}

/// All kinds, each at the place of its number.
const KINDS: [(Kind, &str); 31] = [
    (Kind::Lookup, "lookup"),
    (Kind::Getattr, "getattr"),
    (Kind::Setattr, "setattr"),
    (Kind::Readlink, "readlink"),
    (Kind::Mknod, "mknod"),
    (Kind::Mkdir, "mkdir"),
    (Kind::Symlink, "symlink"),
    (Kind::Create, "create"),
    (Kind::Unlink, "unlink"),
    (Kind::Rmdir, "rmdir"),
    (Kind::Rename, "rename"),
    (Kind::Link, "link"),
    (Kind::Open, "open"),
    (Kind::Opendir, "opendir"),
    (Kind::Read, "read"),
    (Kind::Write, "write"),
    (Kind::Flush, "flush"),
    (Kind::Release, "release"),
    (Kind::Fsync, "fsync"),
    (Kind::Fsyncdir, "fsyncdir"),
    (Kind::Readdir, "readdir"),
    (Kind::Readdirplus, "readdirplus"),
    (Kind::Statfs, "statfs"),
    (Kind::Setxattr, "setxattr"),
    (Kind::Getxattr, "getxattr"),
    (Kind::Listxattr, "listxattr"),
    (Kind::Removexattr, "removexattr"),
    (Kind::Fallocate, "fallocate"),
    (Kind::Lseek, "lseek"),
    (Kind::CopyFileRange, "copy_file_range"),
    (Kind::Ioctl, "ioctl"),
];

/// One more than the largest error number (errno(3)).
const ERRNOS: usize = 134;

/// Everything that one mount was asked.
#[derive(Debug)]
pub(super) struct RequestCounts {
    kinds: [OfKind; KINDS.len()],
    pub(super) read_bytes: Counter,
    pub(super) written_bytes: Counter,
    pub(super) forgotten: Counter,
}

#[derive(Debug)]
struct OfKind {
    took: Histogram,
    /// By error number; those that have no place are at 0.
    errors: Box<[Counter]>,
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    of_kind: &'a OfKind,
    since: Instant,
}

impl Asked<'_> {
    /// The answer is ready. To be called before it is sent: who has it finds it counted.
    pub(super) fn answered(&self) {
        self.of_kind.took.record(self.since.elapsed());
    }

    /// The answer is this error.
    pub(super) fn failed(&self, error: Errno) -> Errno {
        self.answered();
        self.of_kind.count_error(error)
    }
}

impl OfKind {
    fn count_error(&self, error: Errno) -> Errno {
        let number = usize::try_from(i32::from(error)).ok();
        if let Some(counter) = number.and_then(|number| self.errors.get(number)).or(self.errors.first()) {
            counter.add(1);
        }
        error
    }
}

impl RequestCounts {
    /// A request begins to be answered.
    pub(super) fn begin(&self, kind: Kind) -> Asked<'_> {
        Asked { of_kind: &self.kinds[kind as usize], since: Instant::now() }
    }

    /// A request is answered with this error, whatever it asks for.
    pub(super) fn refused(&self, kind: Kind, error: Errno) -> Errno {
        let of_kind = &self.kinds[kind as usize];
        of_kind.took.record(Duration::ZERO);
        of_kind.count_error(error)
    }

    pub(super) fn stats(&self) -> Vec<RequestStats> {
        let told = |(kind, name): &(Kind, &str)| {
            let OfKind { took, errors } = &self.kinds[*kind as usize];
            RequestStats { kind: (*name).to_owned(), took: took.snapshot(), errors: named(errors) }
        };
        KINDS.iter().map(told).collect()
    }

    pub(super) fn traffic(&self) -> TrafficStats {
        TrafficStats {
            read_bytes: self.read_bytes.get(),
            written_bytes: self.written_bytes.get(),
            forgotten: self.forgotten.get(),
        }
    }
}

impl Default for RequestCounts {
    fn default() -> Self {
        let of_kind = || {
            let errors = (0..ERRNOS).map(|_| Counter::default()).collect();
            OfKind { took: Histogram::default(), errors }
        };
        Self {
            kinds: std::array::from_fn(|_| of_kind()),
            read_bytes: Counter::default(),
            written_bytes: Counter::default(),
            forgotten: Counter::default(),
        }
    }
}

/// What there is of errors, by their names.
fn named(errors: &[Counter]) -> BTreeMap<String, u64> {
    let seen = (0..).zip(errors).map(|(number, count)| (number, count.get())).filter(|(_, count)| *count > 0);
    seen.map(|(number, count)| (format!("{:?}", nix::errno::Errno::from_raw(number)), count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_place() {
        for (place, (kind, name)) in KINDS.iter().enumerate() {
            assert_eq!(*kind as usize, place, "{name}");
            let letters: String = format!("{kind:?}").to_lowercase();
            assert_eq!(name.replace('_', ""), letters);
        }
    }

    #[test]
    fn mounts_are_told_apart() {
        let (one, other) = (RequestCounts::default(), RequestCounts::default());
        one.begin(Kind::Ioctl).answered();
        let asked = one.begin(Kind::Lookup);
        assert_eq!(asked.failed(Errno::ENOENT), Errno::ENOENT);
        assert_eq!(one.refused(Kind::Lookup, Errno::from_i32(4711)), Errno::from_i32(4711));
        // Begun and never answered: nobody heard of it.
        other.begin(Kind::Read);
        other.read_bytes.add(5);
        let counts = |counts: &RequestCounts| -> Vec<(String, u64)> {
            let seen = counts.stats().into_iter().filter(|request| request.took.count() > 0);
            seen.map(|request| (request.kind, request.took.count())).collect()
        };
        assert_eq!(counts(&one), [("lookup".to_owned(), 2), ("ioctl".to_owned(), 1)]);
        assert_eq!((counts(&other), other.traffic().read_bytes), (Vec::new(), 5));
        let errors = one.stats().swap_remove(0).errors;
        assert_eq!(errors, [("ENOENT".to_owned(), 1), ("UnknownErrno".to_owned(), 1)].into());
    }
}
