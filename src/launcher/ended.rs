//! The end of a container, as its starter gives it.

use nix::errno::Errno;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

/// A container that has ended in order. All is over but, perhaps, the end of its supervisor, which has said its last word and
/// uses nothing any more: whoever drops this waits for it.
#[derive(Debug)]
pub struct Ended {
    pub(super) code: u8,
    pub(super) _supervisor: Option<Leaving>,
}

impl Ended {
    /// The exit code of its program; 128 + n when a signal ended it.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.code
    }

    /// Waits for the supervisor, too.
    #[must_use]
    pub fn wholly(self) -> Self {
        Self { _supervisor: None, ..self }
    }
}

/// A supervisor that is about to end.
#[derive(Debug)]
pub(super) struct Leaving(pub(super) i32);

impl Drop for Leaving {
    fn drop(&mut self) {
        loop {
            match waitpid(Pid::from_raw(self.0), None) {
                Err(Errno::EINTR) => {}
                Err(error) => return tracing::debug!(%error, "waiting for the supervisor"),
                Ok(_) => return,
            }
        }
    }
}
