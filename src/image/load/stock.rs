//! What was taken of an archive so far: blobs that are complete, and nobody sees yet.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::super::write::layer_type;
use super::super::{ImageError, import};
use crate::index::{Encoding, LayerIndex, decompress};
use crate::layer::TarSource;
use crate::model::Digest;
use crate::store::{Blobs, Descriptor, NewBlob, StagedBlob, Store, StoreError};
use crate::sys::file_range::FileRange;

/// How much of a stream is handled at once.
const PIECE_BYTES: usize = 128 << 10;

/// Blobs on their way into the store. What nothing asked for goes when this is dropped.
#[derive(Debug)]
pub(super) struct Stock<'a> {
    store: &'a Store,
    blobs: Blobs,
    staged: HashMap<Digest, StagedBlob>,
    /// What the files hash to that members of a stream became.
    digests: HashMap<PathBuf, Digest>,
    /// Blobs and what they hash to uncompressed.
    checked: HashSet<(Digest, Digest)>,
    /// What is to be published, in this order.
    wanted: Vec<Digest>,
}

impl<'a> Stock<'a> {
    pub(super) fn of(store: &'a Store) -> Self {
        Self {
            store,
            blobs: store.blobs(),
            staged: HashMap::new(),
            digests: HashMap::new(),
            checked: HashSet::new(),
            wanted: Vec::new(),
        }
    }

    /// Takes `size` bytes of a stream and tells in which file they are. What the store has under the digest that they are
    /// `promised` to have is not written again, but must be that.
    pub(super) fn receive(
        &mut self,
        place: &Path,
        promised: Option<Digest>,
        size: u64,
        read: &mut dyn FnMut(&mut [u8]) -> Result<(), ImageError>,
    ) -> Result<PathBuf, ImageError> {
        let known =
            promised.map(|digest| Ok::<_, StoreError>((digest, self.find(digest, size)?))).transpose()?;
        let mut buffer = vec![0; PIECE_BYTES];
        let mut pieces = |take: &mut dyn FnMut(&[u8]) -> Result<(), ImageError>| {
            let mut left = size;
            while left > 0 {
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
                read(&mut buffer[..count])?;
                take(&buffer[..count])?;
                left -= count as u64;
            }
            Ok::<_, ImageError>(())
        };
        if let Some((expected, Some(path))) = known {
            let mut hash = Sha256::new();
            pieces(&mut |piece| {
                hash.update(piece);
                Ok(())
            })?;
            check(place, "a file", expected, Digest::from_bytes(hash.finalize().into()))?;
            return Ok(path);
        }
        let mut blob = self.blobs.stage()?;
        pieces(&mut |piece| Ok(blob.add(piece)?))?;
        Ok(self.add(blob.finish()))
    }

    /// The blob of a layer, in the store or to be published, after all its digests were checked. `as_it_is` when a manifest
    /// names it by its blob.
    pub(super) fn layer(
        &mut self,
        place: &Path,
        tar: &TarSource,
        as_it_is: bool,
    ) -> Result<Descriptor, ImageError> {
        let encoding = import::encoding_of(&tar.blob)?;
        let is_plain = encoding == Encoding::Tar;
        let expected = tar.blob_digest.or(is_plain.then_some(tar.diff_id));
        let blob = self.blob(&tar.blob, expected)?;
        if let Some(expected) = expected {
            check(place, "a layer", expected, blob.0)?;
        }
        // What OCI has no media type for is kept uncompressed.
        let unpacked = !as_it_is && matches!(encoding, Encoding::Xz | Encoding::Bzip2);
        if is_plain {
            check(place, "a layer", tar.diff_id, blob.0)?;
        } else if unpacked {
            let (actual, new) = uncompressed(&blob.1, encoding, Some(self.blobs.stage()?))?;
            check(place, "an uncompressed layer", tar.diff_id, actual)?;
            let path = new.map(|new| self.add(new));
            let path = path.unwrap_or_else(|| self.blobs.path(actual));
            let range = FileRange::open(&path).map_err(ImageError::io("open", &path))?;
            return Ok(self.want(layer_type(Encoding::Tar), actual, range.len()));
        } else if !self.checked.contains(&(blob.0, tar.diff_id)) {
            if !self.is_indexed(blob.0, tar.diff_id)? {
                let (actual, _) = uncompressed(&blob.1, encoding, None)?;
                check(place, "an uncompressed layer", tar.diff_id, actual)?;
            }
            self.checked.insert((blob.0, tar.diff_id));
        }
        Ok(self.want(layer_type(encoding), blob.0, blob.1.len()))
    }

    /// A document, to be published.
    pub(super) fn document(&mut self, bytes: &[u8], media_type: &str) -> Result<Descriptor, ImageError> {
        let digest = Digest::from_bytes(Sha256::digest(bytes).into());
        if self.find(digest, bytes.len() as u64)?.is_none() {
            let mut blob = self.blobs.stage()?;
            blob.add(bytes)?;
            self.add(blob.finish());
        }
        Ok(self.want(media_type, digest, bytes.len() as u64))
    }

    /// Makes everything durable and visible that was asked for.
    pub(super) fn publish(mut self) -> Result<(), StoreError> {
        for digest in std::mem::take(&mut self.wanted) {
            if let Some(blob) = self.staged.remove(&digest) {
                blob.publish()?;
            }
        }
        Ok(())
    }

    fn want(&mut self, media_type: &str, digest: Digest, size: u64) -> Descriptor {
        self.wanted.push(digest);
        Descriptor::new(media_type, digest, size)
    }

    /// Digest and bytes of a layer's blob, copied unless it is here already.
    fn blob(
        &mut self,
        range: &FileRange,
        expected: Option<Digest>,
    ) -> Result<(Digest, FileRange), ImageError> {
        if let Some(digest) = self.digests.get(range.path()) {
            return Ok((*digest, range.clone()));
        }
        let find = |digest| Ok::<_, StoreError>((digest, self.find(digest, range.len())?));
        let known = expected.map(find).transpose()?;
        let (digest, path) = match known {
            Some((digest, Some(path))) => (digest, path),
            _ => {
                let mut blob = self.blobs.stage()?;
                blob.add_all(&mut range.reader(), ImageError::io("read", range.path()))?;
                let blob = blob.finish();
                (blob.digest(), self.add(blob))
            }
        };
        Ok((digest, FileRange::open(&path).map_err(ImageError::io("open", &path))?))
    }

    /// The file of a blob of that length that is in the store or on its way there.
    fn find(&mut self, digest: Digest, bytes: u64) -> Result<Option<PathBuf>, StoreError> {
        if let Some(blob) = self.staged.get(&digest) {
            return Ok(Some(blob.path().to_owned()));
        }
        let path = self.blobs.path(digest);
        if !self.blobs.has_whole(digest, bytes)? {
            return Ok(None);
        }
        self.digests.insert(path.clone(), digest);
        Ok(Some(path))
    }

    /// Keeps a blob, unless there is one of the same bytes.
    fn add(&mut self, blob: StagedBlob) -> PathBuf {
        let kept = self.staged.entry(blob.digest()).or_insert(blob);
        let path = kept.path().to_owned();
        self.digests.insert(path.clone(), kept.digest());
        path
    }

    /// Whether that blob of the store was decoded before, and found to be that layer.
    fn is_indexed(&self, digest: Digest, diff_id: Digest) -> Result<bool, StoreError> {
        let index = LayerIndex::open(&self.store.index_dir().join(format!("{}.lfx", digest.hex())));
        Ok(self.blobs.has(digest)? && index.is_ok_and(|index| index.diff_id() == diff_id))
    }
}

/// The digest of what comes out of a compressed layer, which goes into a blob if there is one for it.
pub(in crate::image) fn uncompressed(
    blob: &FileRange,
    encoding: Encoding,
    mut into: Option<NewBlob>,
) -> Result<(Digest, Option<StagedBlob>), ImageError> {
    let mut hash = Sha256::new();
    let mut failed: Option<ImageError> = None;
    let (mut count, limit) = (0_u64, import::bytes_max(blob.len()));
    let mut take = |piece: &[u8]| {
        hash.update(piece);
        count += piece.len() as u64;
        let Some(kept) = into.as_mut() else { return ControlFlow::Continue(()) };
        if count > limit {
            let (path, what) = (blob.path().to_owned(), "bytes in a compressed layer".to_owned());
            failed = Some(ImageError::Limit { path, what, count, limit });
        } else if let Err(error) = kept.add(piece) {
            failed = Some(error.into());
        }
        if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let decoded = decompress(blob, encoding, &mut take, &|_| {});
    if let Some(error) = failed {
        return Err(error);
    }
    decoded.map_err(|error| ImageError::undecoded(blob.path(), encoding, error))?;
    Ok((Digest::from_bytes(hash.finalize().into()), into.map(NewBlob::finish)))
}

fn check(place: &Path, what: &'static str, expected: Digest, actual: Digest) -> Result<(), ImageError> {
    if expected == actual {
        return Ok(());
    }
    Err(ImageError::WrongDigest { path: place.to_owned(), what, expected, actual })
}
