//! What a mount and the process that fetches say to each other.
//!
//! A mount asks through a socket: one message for each range, and with it the end of a pipe, through which the answer comes:
//! [`ANSWER_HERE`], or a text that says why not. The bytes themselves are in a file that both have open.

use std::fs::File;
use std::io::{self, PipeReader, Read as _};
use std::ops::Range;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::store::{ArrivingView, PIECE_BYTES};
use crate::sys::arrival::Arrival;
use crate::sys::message_socket::{Message, MessageSocket};

/// The answer to who asked for what is there now.
pub(super) const ANSWER_HERE: &[u8] = &[0];
/// How often who waits looks whether anybody still needs it.
const LOOK_MILLISECONDS: u16 = 200;
/// Longer texts are cut off.
const ANSWER_BYTES_MAX: u64 = 4096;

/// What is asked of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Somebody waits for it.
    Wait = 0,
    /// Somebody may want it soon.
    Announce = 1,
    /// It was there, and is wrong.
    Doubt = 2,
}

/// A range of a blob, in pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) kind: Kind,
    pub(super) blob: u32,
    pub(super) pieces: Range<u64>,
}

impl Request {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind as u8];
        bytes.extend(self.blob.to_le_bytes());
        bytes.extend(self.pieces.start.to_le_bytes());
        bytes.extend(self.pieces.end.to_le_bytes());
        bytes
    }

    /// `None` of what makes no sense.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let (blob, rest) = rest.split_first_chunk()?;
        let (start, rest) = rest.split_first_chunk()?;
        let end = rest.try_into().ok()?;
        let kind = [Kind::Wait, Kind::Announce, Kind::Doubt].into_iter().find(|one| *one as u8 == *kind)?;
        let pieces = u64::from_le_bytes(*start)..u64::from_le_bytes(end);
        (pieces.start < pieces.end).then(|| Self { kind, blob: u32::from_le_bytes(*blob), pieces })
    }
}

/// Who waits for an answer.
#[derive(Debug)]
pub(super) struct Asker(OwnedFd);

impl Asker {
    pub(super) fn of(message: Message) -> Option<(Request, Option<Self>)> {
        Some((Request::decode(&message.bytes)?, message.fd.map(Self)))
    }

    /// Tells it. Who is gone does not hear it.
    pub(super) fn tell(self, answer: &[u8]) {
        let end = usize::try_from(ANSWER_BYTES_MAX).unwrap_or(usize::MAX).min(answer.len());
        if let Err(error) = io::Write::write_all(&mut File::from(self.0), &answer[..end]) {
            tracing::debug!(%error, "who asked is gone");
        }
    }
}

/// A blob that another process fetches.
#[derive(Debug)]
pub(super) struct Fetched {
    view: ArrivingView,
    link: Arc<MessageSocket>,
    blob: u32,
    /// One bit for each piece that was seen to be there.
    seen: Vec<AtomicU64>,
    /// Nobody in this process needs any more of it.
    is_given_up: AtomicBool,
}

impl Fetched {
    pub(super) fn new(view: ArrivingView, link: Arc<MessageSocket>, blob: u32, pieces: u64) -> Self {
        let words = usize::try_from(pieces.div_ceil(64)).unwrap_or_default();
        let seen = (0..words).map(|_| AtomicU64::new(0)).collect();
        Self { view, link, blob, seen, is_given_up: AtomicBool::new(false) }
    }

    /// Waits until there is an answer, or nobody needs one.
    fn await_answer(&self, answer: &PipeReader) -> io::Result<()> {
        while !self.is_given_up.load(Ordering::Acquire) {
            let mut fds = [PollFd::new(answer.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::from(LOOK_MILLISECONDS)) {
                Ok(0) | Err(Errno::EINTR) => {}
                polled => return Ok(polled.map(drop)?),
            }
        }
        Err(gone())
    }

    fn seen(&self, piece: u64) -> io::Result<(&AtomicU64, u64)> {
        let word = usize::try_from(piece / 64).ok().and_then(|word| self.seen.get(word));
        Ok((word.ok_or(io::ErrorKind::InvalidInput)?, 1 << (piece % 64)))
    }

    fn is_there(&self, piece: u64) -> io::Result<bool> {
        let (word, bit) = self.seen(piece)?;
        if word.load(Ordering::Acquire) & bit != 0 {
            return Ok(true);
        }
        let is_there = self.view.has(piece)?;
        if is_there {
            word.fetch_or(bit, Ordering::AcqRel);
        }
        Ok(is_there)
    }

    /// From the first piece that is not there to the last one.
    fn missing(&self, range: &Range<u64>) -> io::Result<Option<Range<u64>>> {
        let mut missing: Option<Range<u64>> = None;
        for piece in pieces_of(range) {
            if !self.is_there(piece)? {
                missing = Some(missing.map_or(piece, |missing| missing.start)..piece + 1);
            }
        }
        Ok(missing)
    }

    fn ask(&self, kind: Kind, pieces: Range<u64>) -> io::Result<()> {
        let (answer_here, answer_there) = io::pipe()?;
        let request = Request { kind, blob: self.blob, pieces }.encode();
        self.link.send(&request, Some(answer_there.as_fd())).map_err(|_| gone())?;
        drop(answer_there);
        self.await_answer(&answer_here)?;
        let mut answer = Vec::new();
        answer_here.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        match answer.as_slice() {
            ANSWER_HERE => Ok(()),
            [] => Err(gone()),
            text => Err(io::Error::other(String::from_utf8_lossy(text).into_owned())),
        }
    }
}

fn gone() -> io::Error {
    io::Error::other(
        "the process that fetches what is not here yet has ended: mount it again, or pull the image",
    )
}

fn pieces_of(range: &Range<u64>) -> Range<u64> {
    range.start / PIECE_BYTES..range.end.div_ceil(PIECE_BYTES)
}

impl Arrival for Fetched {
    fn file(&self) -> &File {
        self.view.data()
    }

    fn wait(&self, range: Range<u64>) -> io::Result<()> {
        match self.missing(&range)? {
            Some(pieces) => self.ask(Kind::Wait, pieces),
            None => Ok(()),
        }
    }

    fn announce(&self, range: Range<u64>) {
        if let Ok(Some(pieces)) = self.missing(&range) {
            let request = Request { kind: Kind::Announce, blob: self.blob, pieces };
            // It is only a wish.
            self.link.send_now(&request.encode()).ok();
        }
    }

    fn doubt(&self, range: Range<u64>) -> io::Result<()> {
        for piece in pieces_of(&range) {
            let (word, bit) = self.seen(piece)?;
            word.fetch_and(!bit, Ordering::AcqRel);
        }
        self.ask(Kind::Doubt, pieces_of(&range))
    }

    fn give_up(&self) {
        // Not by the socket: other processes have it too, for the next run of the container.
        self.is_given_up.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::model::Digest;
    use crate::store::Store;

    #[test]
    fn requests_come_through_and_nonsense_does_not() {
        for kind in [Kind::Wait, Kind::Announce, Kind::Doubt] {
            let request = Request { kind, blob: 7, pieces: 3..9 };
            assert_eq!(Request::decode(&request.encode()), Some(request.clone()));
            let bytes = request.encode();
            for cut in 0..bytes.len() {
                assert_eq!(Request::decode(&bytes[..cut]), None);
            }
        }
        assert_eq!(Request::decode(&[9; 21]), None);
        assert_eq!(Request::decode(&Request { kind: Kind::Wait, blob: 0, pieces: 4..4 }.encode()), None);
    }

    /// A container that is started anew is served by another process, which has a copy of the same socket.
    #[test]
    fn who_gives_up_takes_nothing_from_others() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let arriving = store.arriving(Digest::from_bytes([7; 32]), PIECE_BYTES, false).unwrap();
        let (here, there) = MessageSocket::pair().unwrap();
        let link = Arc::new(here);
        let fetched = |blob| Fetched::new(arriving.view().unwrap(), Arc::clone(&link), blob, 1);
        let (first, second) = (fetched(1), fetched(2));
        thread::scope(|scope| {
            let waits = scope.spawn(|| first.wait(0..1));
            let (asked, asker) = Asker::of(there.receive().unwrap().unwrap()).unwrap();
            assert_eq!(asked.blob, 1);
            first.give_up();
            waits.join().unwrap().unwrap_err();
            asker.unwrap().tell(ANSWER_HERE);
            let waits = scope.spawn(|| second.wait(0..1));
            let (asked, asker) = Asker::of(there.receive().unwrap().unwrap()).unwrap();
            assert_eq!(asked.blob, 2);
            asker.unwrap().tell(ANSWER_HERE);
            waits.join().unwrap().unwrap();
        });
    }
}
