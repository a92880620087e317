//! Blobs (distribution-spec, "Pulling blobs"): exactly as many bytes as were promised, over as many connections as it takes.

use std::io::{self, Read};

use super::http::{Answer, Method};
use super::{Registry, RegistryError};
use crate::model::Digest;

/// Bytes that are handed over at once.
const CHUNK_BYTES: usize = 128 << 10;

/// Which bytes are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Config or layer, for messages.
    pub what: &'static str,
    /// The blob.
    pub digest: Digest,
    /// Its length.
    pub size: u64,
    /// Where to begin.
    pub start: u64,
}

/// How one connection ended.
enum End {
    /// With the last byte.
    Complete,
    /// Before it.
    Cut(String),
}

impl Registry {
    /// Gives `take` the bytes of a blob from a place on to its end. A connection that is cut is made again, and goes on
    /// where the last one ended: by range, or by reading over what is known if the server has no ranges. Nobody has compared
    /// the bytes with the digest then.
    ///
    /// # Errors
    /// [`RegistryError`], also [`RegistryError::NotTaken`] with what `take` says.
    pub fn blob(
        &self,
        wanted: Wanted,
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), RegistryError> {
        let mut position = wanted.start;
        let mut failures = 0;
        while position < wanted.size || wanted.size == 0 {
            let before = position;
            let answer = self.blob_answer(&wanted, position)?;
            let end = self.receive(&wanted, answer, &mut position, take)?;
            let End::Cut(reason) = end else { return Ok(()) };
            // A byte now and then is no progress.
            let is_progress = position - before >= self.patience.slow_bytes;
            failures = if is_progress { 1 } else { failures + 1 };
            if failures >= self.patience.attempts {
                let Wanted { digest, size, .. } = wanted;
                let (registry, attempts) = (self.name(), failures);
                return Err(RegistryError::Cut { registry, digest, position, size, attempts, reason });
            }
            tracing::debug!(registry = %self.endpoint.host, digest = %wanted.digest, position, reason, "blob cut off");
            std::thread::sleep(self.pause(failures));
        }
        Ok(())
    }

    /// Gives `take` some bytes of a blob, which is asked for once: who cannot wait tries again.
    ///
    /// # Errors
    /// [`RegistryError`], also [`RegistryError::NoRanges`], and [`RegistryError::NotTaken`] with what `take` says.
    pub fn blob_part(
        &self,
        wanted: Wanted,
        end: u64,
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), RegistryError> {
        let Wanted { what, digest, size, start } = wanted;
        let path = format!("/v2/{}/blobs/{digest}", self.endpoint.repository);
        let called = format!("{what} {digest}");
        let range = ("range", format!("bytes={start}-{}", end.saturating_sub(1)));
        let answer = self.ask(Method::Get, &path, &called, &[range])?;
        match answer.status {
            206 => self.check_range(&wanted, &answer, start)?,
            200 => return Err(RegistryError::NoRanges { registry: self.name() }),
            _ => return Err(self.refused(&called, answer)),
        }
        let mut position = start;
        let mut reader = answer.into_reader().take(end.saturating_sub(start));
        let mut buffer = vec![0; CHUNK_BYTES];
        while position < end {
            let reason = match reader.read(&mut buffer) {
                Ok(0) => "the connection ended".to_owned(),
                Ok(count) => {
                    take(&buffer[..count]).map_err(RegistryError::NotTaken)?;
                    position += count as u64;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error.to_string(),
            };
            let (registry, attempts) = (self.name(), 1);
            return Err(RegistryError::Cut { registry, digest, position, size, attempts, reason });
        }
        // Only a connection of which the end was seen serves the next question.
        io::copy(&mut reader.into_inner().take(1), &mut io::sink()).ok();
        Ok(())
    }

    /// An answer that has the bytes from `position` on, or all of them.
    fn blob_answer(&self, wanted: &Wanted, position: u64) -> Result<Answer, RegistryError> {
        let path = format!("/v2/{}/blobs/{}", self.endpoint.repository, wanted.digest);
        let range = (position > 0).then(|| ("range", format!("bytes={position}-")));
        let what = format!("{} {}", wanted.what, wanted.digest);
        let answer = self.ask(Method::Get, &path, &what, range.as_slice())?;
        match answer.status {
            200 | 206 => Ok(answer),
            _ => Err(self.refused(&what, answer)),
        }
    }

    fn receive(
        &self,
        wanted: &Wanted,
        answer: Answer,
        position: &mut u64,
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<End, RegistryError> {
        // What is known already, and comes again.
        let mut over = match answer.status {
            206 => self.check_range(wanted, &answer, *position).map(|()| 0)?,
            _ => *position,
        };
        let rest = wanted.size - *position;
        match answer.number("content-length") {
            Some(length) if length != rest + over => {
                return Err(self.wrong_length(wanted, (*position - over).saturating_add(length)));
            }
            _ => {}
        }
        let mut reader = answer.into_reader();
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) if *position == wanted.size && over == 0 => return Ok(End::Complete),
                Ok(0) => return Ok(End::Cut("the connection ended".to_owned())),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // The last byte was there: what came after it does not matter.
                Err(_) if *position == wanted.size && over == 0 => return Ok(End::Complete),
                Err(error) => return Ok(End::Cut(error.to_string())),
            };
            let skipped = usize::try_from(over).unwrap_or(usize::MAX).min(count);
            over -= skipped as u64;
            let bytes = &buffer[skipped..count];
            if bytes.len() as u64 > wanted.size - *position {
                return Err(self.wrong_length(wanted, *position + bytes.len() as u64));
            }
            take(bytes).map_err(RegistryError::NotTaken)?;
            *position += bytes.len() as u64;
        }
    }

    /// `Content-Range: bytes FIRST-LAST/SIZE` must be what was asked for.
    fn check_range(&self, wanted: &Wanted, answer: &Answer, position: u64) -> Result<(), RegistryError> {
        let what = format!("{} {}", wanted.what, wanted.digest);
        let range = answer.header("content-range").and_then(|range| range.trim().strip_prefix("bytes "));
        let parts = range.and_then(|range| {
            let (places, size) = range.split_once('/')?;
            Some((places.split_once('-')?.0.parse::<u64>().ok()?, size))
        });
        match parts {
            Some((first, _)) if first != position => Err(self.wrong(
                &what,
                &format!("asked for bytes from {position} on, it sends those from {first} on"),
            )),
            Some((_, size)) => match size.parse::<u64>() {
                Ok(size) if size != wanted.size => Err(self.wrong_length(wanted, size)),
                _ => Ok(()),
            },
            None => Err(self.wrong(&what, "it sends a part, and does not say which")),
        }
    }

    fn wrong_length(&self, wanted: &Wanted, actual: u64) -> RegistryError {
        let Wanted { what, digest, size: expected, .. } = *wanted;
        RegistryError::WrongLength { registry: self.name(), what, digest, expected, actual }
    }
}
