//! Writing down what lists have to read.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags};

use super::encoding::Record;
use super::kept::{self, Seen};
use super::{Summary, directory};
use crate::container::{ContainerId, State, documents};
use crate::sys::atomic::TempFile;
use crate::sys::daemon;
use crate::sys::lock::FileLock;
use crate::sys::process::{self, Fork};

const MODE: u32 = 0o600;
/// Held by who keeps: of several one is enough.
const LOCK: &str = ".listed-lock";
/// No config that is kept is longer.
const DOCUMENT_BYTES_MAX: u64 = 1 << 20;
/// With that much, nothing more is kept: with what one more may have it is still read.
const BYTES_MAX: usize = kept::FILE_BYTES_MAX / 2;

/// Has a process of its own keep what a list of the containers in the directory `path` has to read. Nobody waits for
/// it: whoever writes to a file system may have to wait, and a list never does. Without it lists take longer, and
/// that is all.
///
/// The calling process must have one thread, and hold nothing that others wait for.
pub(in crate::container) fn keep_aside(path: &Path) {
    match process::fork() {
        Ok(Fork::Parent(_)) => {}
        Ok(Fork::Child) => {
            // First of all: who reads what we print waits until the last of us has closed it.
            let detached = daemon::detach(Path::new("/dev/null"));
            process::stand_back();
            let prepared = detached.and_then(|()| daemon::prepare());
            process::exit_now(u8::from(prepared.and_then(|()| keep(path, kept::SETTLED)).is_err()))
        }
        Err(error) => tracing::debug!("what lists read is not kept: {error}"),
    }
}

/// The same in this process, of what has not changed for so long.
///
/// # Errors
/// What the system says; then what was kept before still is.
pub(super) fn keep(path: &Path, settled: Duration) -> io::Result<()> {
    let Some(_alone) = FileLock::try_exclusive(&path.join(LOCK))? else { return Ok(()) };
    let mut temp = TempFile::create_in(path)?;
    // By the clock of the file system, and before anything is read: whatever changes later has a later time.
    let now = temp.file().metadata()?.modified()?;
    let keeper = Keeper { dir: directory(path)?, settled, now };
    let (mut records, mut texts) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(path)? {
        let name = entry?.file_name();
        let id = name.to_str().and_then(ContainerId::parse);
        records.extend(id.and_then(|id| keeper.record(&id, &mut texts)));
        if records.len() * size_of::<Record>() + texts.len() > BYTES_MAX {
            break;
        }
    }
    temp.file().write_all(&kept::file(records, &texts)?)?;
    temp.publish_volatile(&path.join(kept::NAME), MODE)
}

/// Reads documents that have not changed for so long.
struct Keeper {
    dir: OwnedFd,
    settled: Duration,
    now: SystemTime,
}

impl Keeper {
    /// Nothing of what cannot be read: lists say what is wrong with it.
    fn record(&self, id: &ContainerId, texts: &mut Vec<u8>) -> Option<Record> {
        let (config, text) = self.document(id, documents::CONFIG)?;
        let about: Summary = serde_json::from_slice(&text).ok()?;
        let state = self.document(id, documents::STATE).filter(|(seen, _)| seen.at_rest);
        let state = state.and_then(|(seen, text)| {
            let state: State = serde_json::from_slice(&text).ok()?;
            Some((seen.identity, state)).filter(|(_, state)| !state.is_live())
        });
        let state = state.as_ref().map(|(identity, state)| (*identity, state));
        Record::of(id, (config.identity, &about), state, texts)
    }

    fn document(&self, id: &ContainerId, name: &str) -> Option<(Seen, Vec<u8>)> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, format!("{id}/{name}"), flags, Mode::empty()).ok()?;
        let seen = Seen::of(&file)?;
        let bytes = seen.identity.bytes();
        if !seen.identity.is_settled(self.settled, self.now) || bytes > DOCUMENT_BYTES_MAX {
            return None;
        }
        let mut text = Vec::new();
        File::from(file).take(bytes + 1).read_to_end(&mut text).ok()?;
        (u64::try_from(text.len()) == Ok(bytes)).then_some((seen, text))
    }
}
