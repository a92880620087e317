//! The container's terminal: opened in its own devpts, relayed by the process that the user started.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{
    OptionalActions, Termios, Winsize, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use super::in_root::{self, Symlinks};
use super::plan::Window;
use crate::sys::mount_attributes::{Reach, attach, clone_fd};

/// Both ends of a pseudo-terminal.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) master: OwnedFd,
    slave: OwnedFd,
}

/// Opens a terminal in `devpts`. The slave is opened through the master, never by a path of the image.
pub(super) fn open(devpts: BorrowedFd<'_>, window: Option<Window>) -> io::Result<Pair> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let master = rustix::fs::openat(devpts, "ptmx", flags, Mode::empty())?;
    unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    if let Some(window) = window {
        resize(master.as_fd(), window)?;
    }
    Ok(Pair { master, slave })
}

/// Lets the program's user open its own terminal again.
pub(super) fn give_to(pair: &Pair, uid: u32) -> io::Result<()> {
    Ok(rustix::fs::fchown(&pair.slave, Some(Uid::from_raw(uid)), None::<Gid>)?)
}

/// Shows it as `/dev/console`.
pub(super) fn show_as_console(pair: &Pair, root: BorrowedFd<'_>) -> io::Result<()> {
    let console = match in_root::open(root, Path::new("/dev/console"), Symlinks::Refused) {
        Ok(console) => console,
        // A volume is mounted on /dev.
        Err(error) if in_root::is_absent(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    let copy = clone_fd(pair.slave.as_fd(), Reach::One)?;
    attach(copy.as_fd(), console.as_fd())
}

/// Makes it this session's controlling terminal and standard input, output and error.
pub(super) fn adopt(pair: Pair) -> io::Result<()> {
    rustix::process::ioctl_tiocsctty(&pair.slave)?;
    nix::unistd::dup2_stdin(&pair.slave)?;
    nix::unistd::dup2_stdout(&pair.slave)?;
    nix::unistd::dup2_stderr(&pair.slave)?;
    Ok(())
}

/// The size of the terminal that the user sits at.
#[must_use]
pub fn window() -> Option<Window> {
    let (input, output) = (io::stdin(), io::stdout());
    let found = [output.as_fd(), input.as_fd()].into_iter().find_map(|fd| tcgetwinsize(fd).ok());
    found.map(|size| Window { rows: size.ws_row, columns: size.ws_col })
}

/// Gives a terminal another size.
pub(super) fn resize(terminal: BorrowedFd<'_>, window: Window) -> io::Result<()> {
    let Window { rows, columns } = window;
    Ok(tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?)
}

/// The user's terminal in raw mode; as it was before when this goes.
#[derive(Debug)]
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Nothing when standard input is no terminal.
    ///
    /// # Errors
    /// What tcsetattr(3) says.
    pub fn enter() -> io::Result<Option<Self>> {
        let input = io::stdin();
        if !isatty(&input) {
            return Ok(None);
        }
        let before = tcgetattr(&input)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&input, OptionalActions::Drain, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(io::stdin(), OptionalActions::Drain, &self.before) {
            tracing::warn!(%error, "cannot restore the terminal's settings");
        }
    }
}
