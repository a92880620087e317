//! Uploads (distribution-spec, "Pushing blobs"): what the registry has is not sent, what broke off goes on where it was.
//!
//! The whole of a small blob goes with the request that ends its upload; a large one goes in pieces, so that a connection
//! that breaks loses one of them at most, whatever the registry keeps of it. How much it has is asked, never guessed. Who takes
//! it in none of these ways gets it in others.

use std::time::Duration;

use super::answers::{is_passing, retry_after, said};
use super::challenge::Challenge;
use super::http::{Answer, Content, Method, Silence, SilenceKind};
use super::url::Url;
use super::{Registry, RegistryError, Source};
use crate::model::Digest;
pub(super) use ways::Sizes;
use ways::Way;

mod ways;

/// The longest piece that a registry may want: more than any store of objects does.
const PIECE_BYTES_MAX: u64 = 5 << 30;

/// An upload that has begun.
#[derive(Clone, Debug)]
pub struct Session {
    url: Url,
    /// What a piece must have, but for the last one.
    piece_min: u64,
}

/// What became of a mount (distribution-spec, "Mounting a blob from another repository").
#[derive(Debug)]
pub enum Mounted {
    /// The blob is there now.
    Yes,
    /// It is not; the registry has begun an upload instead.
    Upload(Session),
    /// It is not, and no upload has begun.
    No,
}

/// What came of one request.
enum Step {
    /// The blob is there.
    Complete,
    /// The next one.
    Onwards,
    /// Whether the registry has got it is not known.
    Broken(String, Option<Duration>),
}

/// Where an upload goes on.
enum Resumed {
    Complete,
    At(u64, Session),
}

impl Registry {
    /// Whether the repository has a blob.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub fn has_blob(&self, what: &'static str, digest: Digest) -> Result<bool, RegistryError> {
        let path = format!("/v2/{}/blobs/{digest}", self.endpoint.repository);
        let what = format!("{what} {digest}");
        let answer = self.ask(Method::Head, &path, &what, &[])?;
        match answer.status {
            200 => Ok(true),
            // Not everybody has HEAD: then it is sent, which is right in any case.
            404 | 405 | 501 => Ok(false),
            _ => Err(self.refused(&what, answer)),
        }
    }

    /// Asks the registry to take a blob over from another of its repositories. That it does not is no error.
    ///
    /// # Errors
    /// [`RegistryError`] when nobody answers, or an answer makes no sense.
    pub fn mount(&self, what: &'static str, digest: Digest, from: &str) -> Result<Mounted, RegistryError> {
        let what = format!("{what} {digest}");
        let url = self.uploads().with_query(&[("mount", &digest.to_string()), ("from", from)]);
        match self.ask_url(Method::Post, &url, &what, &[], || Content::None) {
            Ok(answer) if answer.status == 201 => Ok(Mounted::Yes),
            Ok(answer) if answer.status == 202 => Ok(Mounted::Upload(self.session(&url, &answer, &what)?)),
            // Nobody is told what may not be read there, and not everybody has it.
            Ok(_)
            | Err(
                RegistryError::Denied { .. } | RegistryError::Status { .. } | RegistryError::NotFound { .. },
            ) => Ok(Mounted::No),
            Err(error) => Err(error),
        }
    }

    /// Sends a blob that the repository does not have, in an upload that has begun or in a new one.
    ///
    /// # Errors
    /// [`RegistryError`], also [`RegistryError::Damaged`] and [`RegistryError::Unread`] when it cannot be given.
    pub fn upload(&self, source: &mut Source<'_>, begun: Option<Session>) -> Result<(), RegistryError> {
        let mut session = match begun {
            Some(session) => session,
            None => self.begin(&source.called())?,
        };
        let (mut position, mut furthest, mut failures) = (0, 0, 0);
        loop {
            let way = self.sizes.way(source.size(), failures);
            let (reason, wanted) = match self.step(source, &mut session, &mut position, way)? {
                Step::Complete => return Ok(()),
                Step::Onwards => continue,
                Step::Broken(reason, wanted) => (reason, wanted),
            };
            failures += 1;
            if failures >= self.patience.attempts {
                let (registry, what, attempts) = (self.name(), source.called(), failures);
                let size = source.size();
                return Err(RegistryError::Broken { registry, what, position, size, attempts, reason });
            }
            tracing::debug!(registry = %self.endpoint.host, blob = source.called(), position, reason, "upload broke off");
            std::thread::sleep(self.patience.pause(failures, wanted));
            match self.resume(source, &session)? {
                Resumed::Complete => return Ok(()),
                Resumed::At(at, resumed) => (position, session) = (at, resumed),
            }
            if position > furthest {
                (furthest, failures) = (position, 0);
            }
        }
    }

    fn uploads(&self) -> Url {
        self.base.at(&format!("/v2/{}/blobs/uploads/", self.endpoint.repository))
    }

    fn begin(&self, what: &str) -> Result<Session, RegistryError> {
        let url = self.uploads();
        let answer = self.ask_url(Method::Post, &url, what, &[], || Content::None)?;
        match answer.status {
            202 => self.session(&url, &answer, what),
            _ => Err(self.refused(what, answer)),
        }
    }

    /// Where the upload goes on: each answer may say another place.
    fn session(&self, asked: &Url, answer: &Answer, what: &str) -> Result<Session, RegistryError> {
        let url = self.location(asked, answer.header("location"), what)?;
        let piece_min = answer.number("oci-chunk-min-length").unwrap_or_default();
        if piece_min > PIECE_BYTES_MAX {
            return Err(self.wrong(what, &format!("it wants pieces of {piece_min} bytes at least")));
        }
        Ok(Session { url, piece_min })
    }

    fn location(&self, asked: &Url, told: Option<&str>, what: &str) -> Result<Url, RegistryError> {
        let told = told.ok_or_else(|| self.wrong(what, "it does not say where to upload it"))?;
        let url = asked.join(told).map_err(|reason| self.wrong(what, reason))?;
        if asked.is_https() && !url.is_https() {
            return Err(self.wrong(what, "asked by HTTPS, it wants the upload by HTTP"));
        }
        Ok(url)
    }

    /// The next request of an upload.
    fn step(
        &self,
        source: &mut Source<'_>,
        session: &mut Session,
        position: &mut u64,
        way: Way,
    ) -> Result<Step, RegistryError> {
        let size = source.size();
        match way {
            Way::Pieces(len) if *position < size => return self.send_piece(source, session, position, len),
            // Something is there already.
            Way::Whole if (1..size).contains(position) => {
                return self.send_piece(source, session, position, self.sizes.piece);
            }
            Way::Whole | Way::Pieces(_) => {}
        }
        let url = session.url.with_query(&[("digest", &source.digest().to_string())]);
        let headers = [("content-type", "application/octet-stream".to_owned())];
        source.seek(*position, size);
        let content = if *position == size { Content::None } else { Content::Stream(source, size) };
        let (answer, generation) = self.send(Method::Put, &url, &headers, content);
        let answer = match self.judge(source, answer, generation)? {
            Ok(answer) => answer,
            Err(broken) => return Ok(broken),
        };
        match answer.header("docker-content-digest").and_then(|told| told.trim().parse::<Digest>().ok()) {
            Some(told) if told != source.digest() => {
                Err(self.other_digest(source.called(), source.digest(), told))
            }
            _ => Ok(Step::Complete),
        }
    }

    fn send_piece(
        &self,
        source: &mut Source<'_>,
        session: &mut Session,
        position: &mut u64,
        len: u64,
    ) -> Result<Step, RegistryError> {
        let end = source.size().min(position.saturating_add(len.max(session.piece_min)));
        let headers = [
            ("content-type", "application/octet-stream".to_owned()),
            ("content-range", format!("{position}-{}", end - 1)),
        ];
        let length = end - *position;
        source.seek(*position, end);
        let (answer, generation) =
            self.send(Method::Patch, &session.url, &headers, Content::Stream(source, length));
        let answer = match self.judge(source, answer, generation)? {
            Ok(answer) => answer,
            Err(broken) => return Ok(broken),
        };
        let piece_min = session.piece_min;
        *session = self.session(&session.url, &answer, &source.called())?;
        session.piece_min = session.piece_min.max(piece_min);
        match received(&answer) {
            // Some name the byte behind the last one. The digest at the end shows whether it was that.
            Some(received) if received != end && received != end + 1 => {
                Ok(Step::Broken(format!("it took {received} bytes, {end} were sent"), None))
            }
            _ => {
                *position = end;
                Ok(Step::Onwards)
            }
        }
    }

    /// What an answer to bytes that were sent means: success, or what is to be done about it.
    fn judge(
        &self,
        source: &mut Source<'_>,
        answer: Result<Answer, Silence>,
        generation: u64,
    ) -> Result<Result<Answer, Step>, RegistryError> {
        if let Some(error) = source.take_error() {
            return Err(error);
        }
        let answer = match answer {
            Ok(answer) => answer,
            Err(silence) if silence.kind == SilenceKind::Connection => {
                return Ok(Err(Step::Broken(silence.reason, None)));
            }
            Err(silence) => return Err(self.silent(silence)),
        };
        let status = answer.status;
        match status {
            200..=204 => Ok(Ok(answer)),
            401 | 403 => {
                let challenge = Challenge::of(answer.headers("www-authenticate"));
                if self.sign(challenge.as_ref(), generation)? {
                    Ok(Err(Step::Broken("access denied, also with new credentials".to_owned(), None)))
                } else {
                    Err(self.refused(&source.called(), answer))
                }
            }
            // The upload is not known any more, or stands somewhere else: both are found out by asking.
            404 | 416 => Ok(Err(Step::Broken(format!("it answers {status}"), None))),
            _ if is_passing(status) => {
                let wanted = retry_after(&answer);
                Ok(Err(Step::Broken(format!("it answers {status}{}", said(answer)), wanted)))
            }
            _ => Err(self.refused(&source.called(), answer)),
        }
    }

    /// Asks how much of a blob has arrived; a new upload where that is not known.
    fn resume(&self, source: &Source<'_>, session: &Session) -> Result<Resumed, RegistryError> {
        let what = source.called();
        let answer = self.ask_url(Method::Get, &session.url, &what, &[], || Content::None)?;
        if matches!(answer.status, 200 | 202 | 204)
            && let Some(at) = received(&answer).filter(|at| *at <= source.furthest())
        {
            let next = match answer.header("location") {
                Some(_) => self.session(&session.url, &answer, &what)?,
                None => session.clone(),
            };
            let piece_min = next.piece_min.max(session.piece_min);
            return Ok(Resumed::At(at, Session { piece_min, ..next }));
        }
        // It may have ended well, and only the answer was lost.
        if self.has_blob(source.what(), source.digest())? {
            return Ok(Resumed::Complete);
        }
        Ok(Resumed::At(0, self.begin(&what)?))
    }

    pub(super) fn other_digest(&self, what: String, expected: Digest, actual: Digest) -> RegistryError {
        RegistryError::OtherDigest { registry: self.name(), what, expected, actual }
    }
}

/// How many bytes `Range: 0-LAST` stands for. `0-0` is said of one byte and of none, so it says nothing.
fn received(answer: &Answer) -> Option<u64> {
    received_of(answer.header("range")?)
}

fn received_of(range: &str) -> Option<u64> {
    let range = range.trim();
    let last: u64 = range.strip_prefix("bytes=").unwrap_or(range).strip_prefix("0-")?.parse().ok()?;
    last.checked_add(1).filter(|_| last > 0)
}

#[cfg(test)]
#[path = "upload_tests.rs"]
mod tests;
