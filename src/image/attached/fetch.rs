//! Indexes from a registry: found, compared with what the user accepts, and unpacked next to each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest as _, Sha256};
use zstd::stream::write::Decoder;

use super::super::parallel::in_parallel;
use super::{ARTIFACT_TYPE, ImageError, Part, parse};
use crate::index::{IndexError, LayerIndex, VERSION};
use crate::model::Digest;
use crate::registry::{Registry, RegistryError, Version, Wanted};
use crate::sys::atomic::TempFile;

/// The longest history that a frame may need: 16 MiB, four times of what is used here.
const WINDOW_LOG_MAX: u32 = 24;

/// What is attached to a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attached {
    /// No index.
    None,
    /// Indexes that the user has not accepted: the digests of the artifacts.
    Untrusted(Vec<Digest>),
    /// Indexes that the user has accepted, by the digests of their layers' blobs. Not every layer need have one.
    Trusted(BTreeMap<Digest, PathBuf>),
}

/// Looks for indexes of the layers of an image. Those of artifacts that are in `trusted` are put into the directory `into` as
/// `<hex digest of the layer's blob>.lfx`; what is there and right is not fetched. Where the registry lists an artifact does not matter,
/// only that the repository has it and that it refers to `subject`. With several that are trusted, each layer gets the index of
/// the first that has one.
///
/// Indexes of another version of the format are passed over, as if there were none.
///
/// # Errors
/// [`ImageError`] when the registry cannot be asked, and when something that is trusted is not what it should be. What was
/// unpacked completely stays; nothing else does.
pub fn fetch(
    registry: &Registry,
    subject: Digest,
    trusted: &[Digest],
    into: &Path,
) -> Result<Attached, ImageError> {
    let fetching = Fetching { registry, into, stop: AtomicBool::new(false) };
    let mut found = BTreeMap::new();
    for artifact in trusted {
        let document = match registry.manifest(&Version::Digest(*artifact)) {
            Ok(document) => document,
            Err(RegistryError::NotFound { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let parts = parse(&document.bytes, subject)
            .map_err(|reason| fetching.wrong(format!("artifact {artifact}"), reason))?;
        // It may be meant for another platform.
        for (layer, path) in fetching.unpack(parts.unwrap_or_default())? {
            found.entry(layer).or_insert(path);
        }
    }
    if !found.is_empty() {
        return Ok(Attached::Trusted(found));
    }
    // Only to tell of them: whatever a registry says there, it can do without.
    let listed = registry.referrers(subject, ARTIFACT_TYPE).unwrap_or_else(|error| {
        tracing::warn!("{error}: whether an index is attached is not known");
        Vec::new()
    });
    let listed = listed.into_iter().map(|one| one.digest);
    let others: Vec<Digest> = listed.filter(|digest| !trusted.contains(digest)).collect();
    Ok(if others.is_empty() { Attached::None } else { Attached::Untrusted(others) })
}

struct Fetching<'a> {
    registry: &'a Registry,
    into: &'a Path,
    stop: AtomicBool,
}

impl Fetching<'_> {
    /// Where those indexes are that can be used.
    fn unpack(&self, mut parts: Vec<Part>) -> Result<Vec<(Digest, PathBuf)>, ImageError> {
        let mut seen = BTreeSet::new();
        parts.retain(|part| seen.insert(part.layer));
        parts.retain(|part| {
            let is_ours = part.version == VERSION;
            if !is_ours {
                let Part { layer, version, .. } = part;
                tracing::warn!(
                    "the attached index of layer {layer} is of version {version}, not {VERSION}: not used"
                );
            }
            is_ours
        });
        if parts.is_empty() {
            return Ok(Vec::new());
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(self.into)
            .map_err(ImageError::io("create", self.into))?;
        let unpacked = in_parallel(&parts, &self.stop, |part| self.bring(part))?;
        Ok(unpacked.into_iter().flatten().collect())
    }

    fn bring(&self, part: &Part) -> Result<Option<(Digest, PathBuf)>, ImageError> {
        let path = self.into.join(format!("{}.lfx", part.layer.hex()));
        // One that is there may be that of another artifact, which was trusted another time.
        if LayerIndex::open(&path).is_ok_and(|index| is_it(&index, part)) {
            return Ok(Some((part.layer, path)));
        }
        let write = || ImageError::io("write", &path);
        let mut file = TempFile::create_in(self.into).map_err(write())?;
        self.receive(part, file.file())?;
        let file = file.close();
        let what = || format!("attached index {}", part.packed);
        match LayerIndex::open(file.path()) {
            Ok(index) if is_it(&index, part) => {}
            Ok(_) => {
                let reason = format!("not the index of layer {} that its artifact describes", part.layer);
                return Err(self.wrong(what(), reason));
            }
            Err(error) if error.is_other_version() => {
                tracing::warn!("the attached index of layer {} is of another version: not used", part.layer);
                return Ok(None);
            }
            Err(IndexError::Stale { reason, .. }) => {
                return Err(self.wrong(what(), format!("not an index: {reason}")));
            }
            Err(error) => return Err(write()(io::Error::other(error))),
        }
        file.open().and_then(|file| file.publish(&path, 0o644)).map_err(write())?;
        Ok(Some((part.layer, path)))
    }

    /// Downloads a compressed index and writes it decompressed. Its bytes count when all of them have their digest.
    fn receive(&self, part: &Part, file: impl Write) -> Result<(), ImageError> {
        let Part { packed: digest, packed_bytes: size, .. } = *part;
        let written = || ImageError::io("write to", self.into);
        let mut unpacking = Unpacking::new(file, part.bytes).map_err(written())?;
        let wanted = Wanted { what: "attached index", digest, size, start: 0 };
        let received = self.registry.blob(wanted, &mut |bytes| {
            if self.stop.load(Ordering::Relaxed) {
                return Err(io::Error::other("another index has failed"));
            }
            unpacking.take(bytes)
        });
        received.map_err(|error| match error {
            RegistryError::NotTaken(source) => written()(source),
            error => error.into(),
        })?;
        let (actual, unpacked) = unpacking.finish().map_err(written())?;
        if actual != digest {
            let (registry, what) = (self.registry.name(), "attached index");
            return Err(RegistryError::WrongDigest { registry, what, expected: digest, actual }.into());
        }
        unpacked.map_err(|reason| self.wrong(format!("attached index {digest}"), reason))
    }

    fn wrong(&self, what: String, reason: String) -> ImageError {
        let path = PathBuf::from(format!("docker://{}/{}", self.registry.name(), self.registry.repository()));
        ImageError::Document { path, what, reason }
    }
}

/// Whether it is this very index. The checksum holds all of it; a page is compared with it when it is looked at.
fn is_it(index: &LayerIndex, part: &Part) -> bool {
    index.blob_digest() == part.layer && index.checksum() == part.checksum
}

/// Compressed bytes that are hashed and decompressed while they come.
struct Unpacking<W: Write> {
    sha256: Sha256,
    decoder: Decoder<'static, Bounded<W>>,
    /// What is wrong with them: told only if they are those that were promised.
    wrong: Option<String>,
}

impl<W: Write> Unpacking<W> {
    /// Writes to `file` what they become, which has so many bytes.
    fn new(file: W, bytes: u64) -> io::Result<Self> {
        let mut decoder = Decoder::new(Bounded { file, left: bytes, failed: None })?;
        decoder.window_log_max(WINDOW_LOG_MAX)?;
        Ok(Self { sha256: Sha256::new(), decoder, wrong: None })
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sha256.update(bytes);
        if self.wrong.is_none() {
            let taken = self.decoder.write_all(bytes);
            self.judge(taken)?;
        }
        Ok(())
    }

    /// The digest of what came, and what is wrong with it.
    fn finish(mut self) -> io::Result<(Digest, Result<(), String>)> {
        if self.wrong.is_none() {
            let flushed = self.decoder.flush();
            self.judge(flushed)?;
        }
        let left = self.decoder.get_ref().left;
        if left > 0 {
            self.wrong.get_or_insert_with(|| format!("it ends {left} bytes before its end"));
        }
        let digest = Digest::from_bytes(self.sha256.finalize().into());
        Ok((digest, self.wrong.map_or(Ok(()), Err)))
    }

    /// An error of the disk is one; any other is the decoder's.
    fn judge(&mut self, result: io::Result<()>) -> io::Result<()> {
        let Err(error) = result else { return Ok(()) };
        if let Some(error) = self.decoder.get_mut().failed.take() {
            return Err(error);
        }
        self.wrong = Some(format!("it cannot be decompressed: {error}"));
        Ok(())
    }
}

/// A file that takes so many bytes and no more.
struct Bounded<W> {
    file: W,
    left: u64,
    /// What the system said.
    failed: Option<io::Error>,
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if buffer.len() as u64 > self.left {
            return Err(io::Error::other("it has more bytes than its artifact says"));
        }
        match self.file.write(buffer) {
            Ok(count) => {
                self.left -= count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failed = Some(error);
                Err(kind.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
