//! Signals that wait in a descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// All signals wait in a descriptor; the mask is as it was when this goes, and what waited then was for the container.
#[derive(Debug)]
pub struct BlockedSignals {
    fd: SignalFd,
    before: SigSet,
}

impl BlockedSignals {
    /// Blocks all.
    ///
    /// # Errors
    /// What signalfd(2) and sigprocmask(2) say.
    pub fn new() -> io::Result<Self> {
        Self::of(SigSet::all())
    }

    /// Blocks these as well.
    ///
    /// # Errors
    /// What signalfd(2) and sigprocmask(2) say.
    pub fn of(signals: SigSet) -> io::Result<Self> {
        let fd = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), Some(&mut before))?;
        Ok(Self { fd, before })
    }

    /// The next one, if there is one. Never waits.
    ///
    /// # Errors
    /// What read(2) says.
    pub fn next(&self) -> io::Result<Option<Signal>> {
        while let Some(info) = self.fd.read_signal()? {
            // Real-time signals have no names, and nobody sends them to us.
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
            if signal.is_some() {
                return Ok(signal);
            }
        }
        Ok(None)
    }
}

impl AsFd for BlockedSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // A second ^C must not end us before the container's end is written down.
        while matches!(self.next(), Ok(Some(_))) {}
        if let Err(error) = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None) {
            tracing::warn!(%error, "cannot restore the signal mask");
        }
    }
}
