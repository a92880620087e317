//! A single layer that comes as a stream.

use std::io::{self, Read};
use std::path::Path;

use super::super::archive::begins_tar;
use super::super::write::layer_type;
use super::super::{ImageError, import};
use super::stock::uncompressed;
use crate::index::Encoding;
use crate::layer::TarSource;
use crate::store::{Descriptor, StagedBlob, Store};
use crate::sys::file_range::FileRange;

/// A layer that nobody sees before it is published.
#[derive(Debug)]
pub struct NewLayer {
    /// Where it lies for now.
    pub tar: TarSource,
    /// What a manifest says of it.
    pub descriptor: Descriptor,
    /// The file.
    pub blob: StagedBlob,
}

/// Takes a tar, perhaps compressed, as a layer: as it is, unless OCI has no media type for its compression. What is in it is
/// not looked at. `place` is what messages call it.
///
/// # Errors
/// [`ImageError`] for what is no tar, or damaged.
pub fn take_layer(store: &Store, source: &mut dyn Read, place: &Path) -> Result<NewLayer, ImageError> {
    let mut blob = store.blobs().stage()?;
    blob.add_all(source, ImageError::io("read", place))?;
    let mut blob = blob.finish();
    let mut range = open(&blob)?;
    let mut encoding = import::encoding_of(&range)?;
    let mut diff_id = blob.digest();
    if encoding != Encoding::Tar {
        let needed = matches!(encoding, Encoding::Xz | Encoding::Bzip2);
        let into = if needed { Some(store.blobs().stage()?) } else { None };
        // Of the file that was read, not of the one it lies in by now.
        let named = |error| match error {
            ImageError::Encoded { encoding, offset, reason, .. } => {
                ImageError::Encoded { path: place.to_owned(), encoding, offset, reason }
            }
            error => error,
        };
        let (actual, plain) = uncompressed(&range, encoding, into).map_err(named)?;
        diff_id = actual;
        if let Some(plain) = plain {
            (blob, encoding) = (plain, Encoding::Tar);
            range = open(&blob)?;
        }
    }
    if encoding == Encoding::Tar {
        let mut start = vec![0; 2048];
        let count = range.read_at(0, &mut start).map_err(ImageError::io("read", place))?;
        if !begins_tar(&start[..count]) {
            let reason = "no tar archive".to_owned();
            return Err(ImageError::NotAnImage { path: place.to_owned(), reason });
        }
    }
    let descriptor = Descriptor::new(layer_type(encoding), blob.digest(), blob.bytes());
    let tar = TarSource::new(range, Some(blob.digest()), diff_id);
    Ok(NewLayer { tar, descriptor, blob })
}

fn open(blob: &StagedBlob) -> Result<FileRange, ImageError> {
    let opened: io::Result<FileRange> = FileRange::open(blob.path());
    opened.map_err(ImageError::io("open", blob.path()))
}
