//! What a program writes to its standard output and error, taken through pipes.

use std::io::{self, PipeReader, PipeWriter, Read as _};
use std::os::fd::AsFd as _;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags};

use super::relay::Shown;

/// Bytes taken at once: what a pipe holds (pipe(7)).
const BUFFER_BYTES: usize = 64 << 10;

/// Where a program wrote something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Its standard output, or its terminal.
    Output,
    /// Its standard error.
    Errors,
}

/// The starter's side.
#[derive(Debug)]
pub(super) struct Streams {
    output: Option<PipeReader>,
    errors: Option<PipeReader>,
}

/// The program's side.
#[derive(Debug)]
pub(super) struct StreamEnds {
    pub(super) output: PipeWriter,
    pub(super) errors: PipeWriter,
}

/// Both sides.
pub(super) fn pair() -> io::Result<(Streams, StreamEnds)> {
    let (output, output_there) = io::pipe()?;
    let (errors, errors_there) = io::pipe()?;
    for fd in [output.as_fd(), errors.as_fd()] {
        fcntl(fd, FcntlArg::F_SETFL(OFlag::O_RDONLY | OFlag::O_NONBLOCK))?;
    }
    let streams = Streams { output: Some(output), errors: Some(errors) };
    Ok((streams, StreamEnds { output: output_there, errors: errors_there }))
}

impl Streams {
    /// What to wait for.
    pub(super) fn interests(&self) -> impl Iterator<Item = PollFd<'_>> {
        let open = self.output.iter().chain(&self.errors);
        open.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN))
    }

    /// Gives one buffer of each to `to`. Whether there was anything.
    pub(super) fn turn(&mut self, to: Shown<'_>) -> io::Result<bool> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut any = false;
        for (pipe, stream) in [(&mut self.output, Stream::Output), (&mut self.errors, Stream::Errors)] {
            let Some(reader) = pipe else { continue };
            match reader.read(&mut buffer) {
                // Nobody can write to it any more.
                Ok(0) => *pipe = None,
                Ok(count) => {
                    any = true;
                    to(stream, &buffer[..count])?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(any)
    }

    /// After the container's end: gives what is left.
    pub(super) fn finish(mut self, to: Shown<'_>) -> io::Result<()> {
        while self.turn(to)? {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn both_are_taken_until_nobody_writes() {
        let (mut streams, mut ends) = pair().unwrap();
        let mut taken = Vec::new();
        let mut to = |stream, bytes: &[u8]| {
            taken.push((stream, bytes.to_vec()));
            Ok(())
        };
        assert!(!streams.turn(&mut to).unwrap());
        ends.output.write_all(b"one").unwrap();
        ends.errors.write_all(b"two").unwrap();
        assert!(streams.turn(&mut to).unwrap());
        ends.output.write_all(&vec![b'x'; BUFFER_BYTES]).unwrap();
        drop(ends.errors);
        assert!(streams.turn(&mut to).unwrap());
        assert_eq!(streams.interests().count(), 1);
        ends.output.write_all(b"last").unwrap();
        drop(ends.output);
        streams.finish(&mut to).unwrap();
        let lengths: Vec<_> = taken.iter().map(|(stream, bytes)| (*stream, bytes.len())).collect();
        let (output, errors) = (Stream::Output, Stream::Errors);
        assert_eq!(lengths, [(output, 3), (errors, 3), (output, BUFFER_BYTES), (output, 4)]);
    }
}
