//! Operations on content beyond write and truncate, and what several threads do at the same time.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use super::world::World;
use crate::fs::{Caller, Fs, FsError, Seek};
use crate::model::{FileKind, Ino, Timestamp};
use crate::union::tests::unpack::Tree;
use crate::upper::{Change, SetTime};

/// `FALLOC_FL_KEEP_SIZE`, `FALLOC_FL_PUNCH_HOLE`, `FALLOC_FL_ZERO_RANGE` (fallocate(2)).
const KEEP: u32 = 1;
const PUNCH: u32 = 2;
const ZERO: u32 = 16;
/// What FUSE passes on.
pub(super) const ALLOCATIONS: [u32; 5] = [0, KEEP, PUNCH | KEEP, ZERO, ZERO | KEEP];
/// Threads that write to one file.
const WRITERS: usize = 3;
/// Bytes of a file that belong to one write; no multiple of anything.
const STRIPE: usize = 700;

impl World {
    pub(super) fn allocate(&mut self, (id, ino): (usize, Ino), mode: u32, offset: usize, len: usize) {
        if self.tree.nodes[id].kind != FileKind::Regular || len == 0 {
            return;
        }
        let mut tree = self.tree.clone();
        let content = &mut tree.nodes[id].content;
        let end = offset + len;
        if mode & KEEP == 0 {
            content.resize(content.len().max(end), 0);
        }
        if mode & (PUNCH | ZERO) != 0 {
            let size = content.len();
            content[offset.min(size)..end.min(size)].fill(0);
        }
        let unchanged = self.tree.clone();
        // Not every filesystem below has every mode.
        let mut lacks = false;
        self.call(Ok(tree), |fs| match fs.fallocate(ino, mode, offset as u64, len as u64) {
            Err(error) if error.errno() == Errno::OPNOTSUPP => {
                lacks = true;
                Ok(())
            }
            result => result,
        });
        if lacks {
            self.tree = unchanged;
        }
    }

    /// copy_file_range(2), as the kernel does it when it is refused or cut short.
    pub(super) fn copy_range(
        &mut self,
        from: (usize, Ino),
        at: usize,
        to: (usize, Ino),
        offset: usize,
        len: usize,
    ) {
        let nodes = &self.tree.nodes;
        if from.0 == to.0 || nodes[from.0].kind != FileKind::Regular || nodes[to.0].kind != FileKind::Regular
        {
            return;
        }
        let source = &nodes[from.0].content;
        let data = source[at.min(source.len())..(at + len).min(source.len())].to_vec();
        let expected =
            if data.is_empty() { Ok(self.tree.clone()) } else { self.tree.write(to.0, offset, &data) };
        // With a failing layer only some of it may have been copied.
        self.fault = None;
        self.call(expected, |fs| {
            let mut done = 0;
            while done < data.len() {
                let ends = ((from.1, (at + done) as u64), (to.1, (offset + done) as u64));
                done += match fs.copy_file_range(ends.0, ends.1, data.len() - done) {
                    Err(error) if error.errno() == Errno::OPNOTSUPP => {
                        read_and_write(fs, ends, data.len() - done)?
                    }
                    result => result?,
                };
            }
            Ok(())
        });
    }

    pub(super) fn set_times(&mut self, (_, ino): (usize, Ino), secs: i64) {
        let [atime, mtime] = [secs, secs / 2].map(|secs| Timestamp { secs, nanos: 999_999_999 });
        let set =
            Change { atime: Some(SetTime::To(atime)), mtime: Some(SetTime::To(mtime)), ..Change::default() };
        let unchanged: Result<Tree, Errno> = Ok(self.tree.clone());
        let attr = self.call(unchanged, |fs| fs.setattr(ino, Caller { uid: 0, gid: 0, thread: 0 }, &set));
        if let Some(attr) = attr {
            assert_eq!((attr.atime, attr.metadata.mtime), (atime, mtime));
            assert_eq!(self.fs().getattr(ino).unwrap().metadata.mtime, mtime);
        }
    }

    pub(super) fn sync(&mut self, (id, ino): (usize, Ino)) {
        let is_dir = self.tree.nodes[id].is_dir();
        let unchanged = Ok(self.tree.clone());
        if is_dir || self.tree.nodes[id].kind == FileKind::Regular {
            let flushed = self.call(unchanged, |fs| match is_dir {
                true => fs.fsync_dir(ino),
                false => match fs.fsync(ino, ino.0 % 2 == 0) {
                    // A failure that nobody had waited for is told once.
                    Err(FsError::File { operation: "flush, some time ago", .. }) => fs.fsync(ino, false),
                    result => result,
                },
            });
            if flushed.is_some() {
                self.contents.insert(id, vec![self.tree.nodes[id].content.clone()]);
            }
        }
    }

    /// Several threads write each its own stripes of one file while another looks at it: what is seen of a stripe that
    /// is not written never changes, and in the end everything is there.
    pub(super) fn together(&mut self, (id, ino): (usize, Ino), writes: usize) {
        if self.tree.nodes[id].kind != FileKind::Regular {
            return;
        }
        self.fault = None;
        let mut expected = self.tree.clone();
        let fill = |number: usize| vec![u8::try_from(number % 200).unwrap() + 1; STRIPE / 2];
        for number in 0..writes {
            expected = expected.write(id, number * STRIPE, &fill(number)).unwrap();
        }
        let before = self.tree.nodes[id].content.clone();
        let done = AtomicBool::new(false);
        let fs = self.fs();
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    scope.spawn(move || {
                        for number in (writer..writes).step_by(WRITERS) {
                            let written =
                                fs.write(ino, (number * STRIPE) as u64, &fill(number), None).unwrap();
                            assert_eq!(written, STRIPE / 2);
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    look(fs, ino, &before);
                }
            });
            let results: Vec<_> = writers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            done.store(true, Ordering::Relaxed);
            results.into_iter().for_each(|result| result.unwrap());
        });
        self.tree = expected;
    }

    /// What is said to be a hole reads as zeros, and there is nothing beyond the end.
    pub(super) fn check_holes(&self, ino: Ino, content: &[u8], path: &str) {
        let fs = self.fs();
        let size = content.len() as u64;
        let mut at = 0;
        while at < size {
            let data = fs.seek(ino, Seek::Data(at)).unwrap_or(size);
            assert!(data >= at && data <= size, "{path}: data at {data} from {at} on, of {size}");
            let hole = &content[usize::try_from(at).unwrap()..usize::try_from(data).unwrap()];
            assert!(hole.iter().all(|byte| *byte == 0), "{path}: data in the hole {at}..{data}");
            if data == size {
                break;
            }
            at = fs.seek(ino, Seek::Hole(data)).unwrap();
            assert!(at > data && at <= size, "{path}: hole at {at} from {data} on, of {size}");
        }
        assert_eq!(fs.seek(ino, Seek::Data(size)).unwrap_err().errno(), Errno::NXIO, "{path}");
    }
}

/// The gaps between stripes are as they were; beyond the old end they are zeros.
fn look(fs: &Fs, ino: Ino, before: &[u8]) {
    let mut buffer = vec![0; before.len() + STRIPE];
    let count = fs.read(ino, 0, &mut buffer).unwrap();
    assert!(count >= before.len());
    for (at, byte) in buffer[..count].iter().enumerate().filter(|(at, _)| at % STRIPE >= STRIPE / 2) {
        assert_eq!(*byte, before.get(at).copied().unwrap_or(0), "byte {at}, which nobody writes");
    }
}

fn read_and_write(fs: &Fs, (from, to): ((Ino, u64), (Ino, u64)), len: usize) -> Result<usize, FsError> {
    let mut buffer = vec![0; len];
    let count = fs.read(from.0, from.1, &mut buffer)?;
    fs.write(to.0, to.1, &buffer[..count], None)
}
