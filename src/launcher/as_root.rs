//! Work on files of a container from outside, as the root of its ids.

use std::io::{self, Read as _, Write as _};

use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, Uid, setresgid, setresuid};

use super::id_maps::{self, IdMaps};
use crate::sys::process::{self, Fork};

/// Does `work` in a child process that is root of a user namespace with these ids, and waits for it.
///
/// The calling process must have one thread.
///
/// # Errors
/// What `work` says, by its message; what the system says when there is no such user namespace.
pub fn as_root_of(maps: &IdMaps, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let (mut ready, ready_there) = io::pipe()?;
    let (go_there, mut go) = io::pipe()?;
    let child = match process::fork()? {
        Fork::Parent(child) => child,
        Fork::Child => {
            drop((ready, go));
            process::exit_now(inside(ready_there, go_there, work));
        }
    };
    drop((ready_there, go_there));
    let mut answer = [0];
    if ready.read(&mut answer)? == 1 && answer == *READY {
        id_maps::write(maps, child.pid)?;
        go.write_all(READY)?;
    }
    let mut message = String::new();
    ready.read_to_string(&mut message)?;
    waitpid(Pid::from_raw(child.pid), None)?;
    match (answer == *READY, message.strip_prefix(DONE)) {
        (true, Some("")) => Ok(()),
        _ => Err(io::Error::other(if message.is_empty() {
            "the helper process died".to_owned()
        } else {
            message
        })),
    }
}

/// The user namespace is there; its ids may be used.
const READY: &[u8; 1] = b"r";
/// The work is done.
const DONE: &str = "\0done";

fn inside(mut answer: io::PipeWriter, mut go: io::PipeReader, work: impl FnOnce() -> io::Result<()>) -> u8 {
    let done = || -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWUSER)?;
        answer.write_all(READY)?;
        go.read_exact(&mut [0])?;
        let (root, wheel) = (Uid::from_raw(0), Gid::from_raw(0));
        setresgid(wheel, wheel, wheel)?;
        setresuid(root, root, root)?;
        work()
    };
    let message = match done() {
        Ok(()) => DONE.to_owned(),
        Err(error) => error.to_string(),
    };
    u8::from(answer.write_all(message.as_bytes()).is_err())
}
