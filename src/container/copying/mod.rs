//! Copying between a container and the host, or a tar stream (`layerfs cp`).
//!
//! One process works in the container, this one on the host, and between them goes a tar stream: neither follows a path of
//! the other side. What docker(1) says of SRC and DEST is decided where each is.

use std::io::{self, BufReader, BufWriter};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use super::inside::{Inside, is_of_the_other_side};
use place::{Destination, Landing, World, at};

mod pack;
mod place;
mod unpack;
mod xattrs;

/// How much goes through a pipe at once.
const PIPE_BYTES: usize = 128 << 10;

/// The side of a copy that is not the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostSide {
    /// A path.
    Path(PathBuf),
    /// A tar stream: standard input or output.
    Stream,
}

/// What becomes of owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// In the container all is root's, on the host the caller's.
    Receivers,
    /// The numbers stay as they are.
    Kept,
}

/// What is copied of a symlink at the end of the source's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Itself.
    Kept,
    /// What it leads to.
    Followed,
}

/// Copies what is at `path` in a container to the host. Gives the bytes of all files; nothing for a stream.
///
/// The calling process must have one thread.
///
/// # Errors
/// With the path that it is about.
pub fn out_of(inside: Inside, path: &Path, to: &HostSide, how: (Owners, Links)) -> io::Result<Option<u64>> {
    let (owners, links) = how;
    // Before anything is mounted.
    let destination = match to {
        HostSide::Path(to) => Some(Destination::find(World::Host, to)?),
        HostSide::Stream => None,
    };
    let (reader, writer) = io::pipe()?;
    let (worker, reader) = inside.start(reader, move |root| {
        let out = BufWriter::with_capacity(PIPE_BYTES, writer);
        pack::pack(World::Container(root), path, links, out).map(|()| Vec::new())
    })?;
    let received = match destination {
        Some(destination) => {
            rustix::process::umask(Mode::empty());
            let stream = BufReader::with_capacity(PIPE_BYTES, reader);
            unpack::unpack(World::Host, destination, owners, stream).map(Some)
        }
        None => pass_on(reader, io::stdout().lock()),
    };
    both(received, worker.finish()).map(|(received, _)| received)
}

/// Copies from the host to `path` in a container. Gives the bytes of all files.
///
/// The calling process must have one thread.
///
/// # Errors
/// With the path that it is about.
pub fn into(inside: Inside, path: &Path, from: &HostSide, how: (Owners, Links)) -> io::Result<Option<u64>> {
    let (owners, links) = how;
    if let HostSide::Path(from) = from {
        // Before anything is mounted.
        std::fs::symlink_metadata(from).map_err(|error| at(from, error))?;
    }
    let (reader, writer) = io::pipe()?;
    let (worker, writer) = inside.start(writer, move |root| {
        let bytes = receive(root, path, from, owners, reader)?;
        Ok(bytes.to_le_bytes().to_vec())
    })?;
    let sent = match from {
        HostSide::Path(from) => {
            pack::pack(World::Host, from, links, BufWriter::with_capacity(PIPE_BYTES, writer))
        }
        HostSide::Stream => pass_on(io::stdin().lock(), writer).map(drop),
    };
    let ((), answer) = both(sent, worker.finish())?;
    Ok(answer.try_into().ok().map(u64::from_le_bytes))
}

fn receive(
    root: BorrowedFd<'_>,
    path: &Path,
    from: &HostSide,
    owners: Owners,
    reader: io::PipeReader,
) -> io::Result<u64> {
    let world = World::Container(root);
    let destination = Destination::find(world, path)?;
    if *from == HostSide::Stream && destination.landing != Landing::Own {
        let message =
            format!("{}: a stream is unpacked into a directory, which has to be there", path.display());
        return Err(io::Error::other(message));
    }
    unpack::unpack(world, destination, owners, BufReader::with_capacity(PIPE_BYTES, reader))
}

fn pass_on(mut from: impl io::Read, mut to: impl io::Write) -> io::Result<Option<u64>> {
    io::copy(&mut from, &mut to)?;
    to.flush()?;
    Ok(None)
}

/// Of two errors that of the side which did not just find the other one gone.
fn both<A, B>(here: io::Result<A>, there: io::Result<B>) -> io::Result<(A, B)> {
    match (here, there) {
        (Ok(here), Ok(there)) => Ok((here, there)),
        (Err(here), Err(there)) if is_of_the_other_side(&here) => Err(there),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}
