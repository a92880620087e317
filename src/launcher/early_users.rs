//! A container's user namespace, made ahead: the programs that map its ids take longer than everything else of a start
//! before its first mount, and can do it beside that.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpid};

use super::id_maps::{self, Helpers, IdMaps, Written};
use super::supervisor::die_with;
use crate::sys::process::{self, Child, Fork, NewNamespaces};

/// A user namespace that is there, and is getting its ids.
#[derive(Debug)]
pub struct EarlyUsers {
    namespace: File,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting { holder: Holder, helpers: Helpers },
    Written(Written),
    Failed(io::Error),
    Taken,
}

/// The process that the namespace was made by; it does nothing else.
#[derive(Debug)]
struct Holder {
    process: Child,
    /// It ends when this is closed.
    stays: PipeWriter,
}

impl EarlyUsers {
    /// Begins to make a user namespace with ranges of ids. Nothing for those who need none, and where anything fails: when the
    /// container is started the usual way, that says what it is.
    ///
    /// The calling process must have one thread.
    #[must_use]
    pub fn begin() -> Option<Self> {
        let IdMaps::Ranges { uids, gids } = IdMaps::for_caller() else { return None };
        let begun = Holder::new().and_then(|holder| {
            let namespace = File::open(format!("/proc/{}/ns/user", holder.process.pid))?;
            let helpers = id_maps::start_helpers(holder.process.pid, &uids, &gids);
            Ok(Self { namespace, state: State::Waiting { holder, helpers } })
        });
        begun.inspect_err(|error| tracing::debug!(%error, "no user namespace ahead")).ok()
    }

    /// Waits until the ids are there. Needed before a fork(2): nobody but this process can wait for its helpers.
    pub fn settle(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Taken) {
            State::Waiting { holder, helpers } => match id_maps::finish(holder.process.pid, helpers) {
                Ok(written) => State::Written(written),
                Err(error) => State::Failed(error),
            },
            settled => settled,
        };
    }

    /// Which ids there are at last.
    pub(super) fn finish(mut self) -> io::Result<Written> {
        self.settle();
        match std::mem::replace(&mut self.state, State::Taken) {
            State::Written(written) => Ok(written),
            State::Failed(error) => Err(error),
            State::Waiting { .. } | State::Taken => Err(io::Error::other("the ids were asked for twice")),
        }
    }
}

impl AsFd for EarlyUsers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

impl Drop for EarlyUsers {
    /// No helper is left behind by a start that comes to nothing.
    fn drop(&mut self) {
        self.settle();
    }
}

impl Holder {
    fn new() -> io::Result<Self> {
        let (ends, stays) = io::pipe()?;
        let starter = getpid();
        // It is there as soon as its process is, so nothing has to be waited for.
        match process::fork_into(NewNamespaces::default().with_user(), None)? {
            Fork::Child => {
                drop(stays);
                hold(starter, ends)
            }
            Fork::Parent(process) => Ok(Self { process, stays }),
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Once the maps are there it is not needed any more, and has nothing to lose.
        if let Err(error) = self.stays.write_all(b"e") {
            tracing::debug!(%error, "who held a user namespace is gone already");
        }
        if let Err(error) = waitpid(Pid::from_raw(self.process.pid), None) {
            tracing::debug!(%error, "waiting for who held a user namespace");
        }
    }
}

fn hold(starter: Pid, mut ends: PipeReader) -> ! {
    if die_with(starter).is_ok() {
        // Either way it is over.
        ends.read_exact(&mut [0]).ok();
    }
    process::exit_now(0)
}
