//! What a program writes to its standard output and error, taken through pipes, and what it reads.

use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
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
    /// Open until its end is given, so that the program does not find one.
    input: Option<PipeWriter>,
    /// What the program has not read yet.
    pending: Vec<u8>,
    /// The end comes after that.
    input_ends: bool,
}

/// The program's side.
#[derive(Debug)]
pub(super) struct StreamEnds {
    pub(super) output: PipeWriter,
    pub(super) errors: PipeWriter,
    /// Nothing of a program that reads nothing from us.
    pub(super) input: Option<PipeReader>,
}

/// Both sides; whether there is input.
pub(super) fn pair(has_input: bool) -> io::Result<(Streams, StreamEnds)> {
    let (output, output_there) = io::pipe()?;
    let (errors, errors_there) = io::pipe()?;
    for fd in [output.as_fd(), errors.as_fd()] {
        fcntl(fd, FcntlArg::F_SETFL(OFlag::O_RDONLY | OFlag::O_NONBLOCK))?;
    }
    let (input_there, input) =
        if has_input { io::pipe().map(|(there, here)| (Some(there), Some(here)))? } else { (None, None) };
    if let Some(input) = &input {
        fcntl(input, FcntlArg::F_SETFL(OFlag::O_WRONLY | OFlag::O_NONBLOCK))?;
    }
    let streams =
        Streams { output: Some(output), errors: Some(errors), input, pending: Vec::new(), input_ends: false };
    Ok((streams, StreamEnds { output: output_there, errors: errors_there, input: input_there }))
}

impl Streams {
    /// What to wait for.
    pub(super) fn interests(&self) -> impl Iterator<Item = PollFd<'_>> {
        let open = self.output.iter().chain(&self.errors);
        let room = self.input.iter().filter(|_| !self.pending.is_empty());
        let room = room.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLOUT));
        open.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)).chain(room)
    }

    /// Whether the program has room for more input.
    pub(super) fn has_passed_all(&self) -> bool {
        self.pending.is_empty()
    }

    /// Gives the program something to read.
    pub(super) fn give(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.input.is_some() && !self.input_ends {
            self.pending.extend_from_slice(bytes);
        }
        self.pass_input()
    }

    /// It finds the end of its input after what it was given.
    pub(super) fn give_end(&mut self) -> io::Result<()> {
        self.input_ends = true;
        self.pass_input()
    }

    fn pass_input(&mut self) -> io::Result<()> {
        let Some(input) = &mut self.input else { return Ok(()) };
        match input.write(&self.pending) {
            Ok(count) => {
                self.pending.drain(..count);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // It has closed its standard input.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.pending.clear();
                self.input_ends = true;
            }
            Err(error) => return Err(error),
        }
        if self.input_ends && self.pending.is_empty() {
            self.input = None;
        }
        Ok(())
    }

    /// Gives one buffer of each to `to`. Whether there was anything.
    pub(super) fn turn(&mut self, to: Shown<'_>) -> io::Result<bool> {
        if !self.pending.is_empty() {
            self.pass_input()?;
        }
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
        let (mut streams, mut ends) = pair(false).unwrap();
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

    #[test]
    fn input_waits_until_it_is_read() {
        let (mut streams, ends) = pair(true).unwrap();
        let mut reader = ends.input.unwrap();
        streams.give(&vec![b'x'; 100 << 10]).unwrap();
        streams.give_end().unwrap();
        assert!(!streams.has_passed_all());
        let mut taken = vec![0; BUFFER_BYTES];
        reader.read_exact(&mut taken).unwrap();
        streams.turn(&mut |_, _| Ok(())).unwrap();
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert_eq!((taken.len() + rest.len(), streams.has_passed_all()), (100 << 10, true));
        // Who does not read gets nothing more.
        let (mut streams, ends) = pair(true).unwrap();
        drop(ends.input);
        streams.give(b"x").unwrap();
        assert!(streams.has_passed_all() && streams.input.is_none());
    }
}
