//! Images into archives that other tools load: the same bytes for the same images, each layer once.
//!
//! Every byte is checked on its way out. What documents there are keep their bytes; where there is no manifest, it is made as
//! when the image is loaded.

mod docker;
mod oci;
mod tar_out;

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::load::{is_id, uncompressed};
use super::write::layer_type;
use super::{Image, ImageError, Reference, Sought, import, open_sought};
use crate::index::{Encoding, LayerIndex, decompress};
use crate::layer::{LayerSource, TarSource};
use crate::model::Digest;
use crate::store::{Descriptor, Store, StoreLock};

/// The form of what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveFormat {
    /// As `docker save` had it until Docker 25, and podman has it.
    DockerArchive,
    /// An OCI layout in a tar.
    OciArchive,
    /// The directory of an OCI layout.
    OciDirectory,
}

/// Images that are to be written, in use until this is dropped.
#[derive(Debug)]
pub struct Saving {
    images: Vec<Named>,
    index_dir: PathBuf,
    _lock: StoreLock,
}

/// An image and what it shall be called.
#[derive(Debug)]
struct Named {
    image: Image,
    names: Vec<Reference>,
    layers: Vec<TarSource>,
}

/// A blob as it will lie in a layout, and the layer that it comes from.
#[derive(Debug)]
struct LayerBlob<'a> {
    descriptor: Descriptor,
    tar: &'a TarSource,
    /// It comes out of the decoder.
    is_decoded: bool,
}

impl Saving {
    /// Finds the images. One of the store has the name that it was found by, one of an archive all that it has there.
    ///
    /// # Errors
    /// [`ImageError`], also for a plain directory.
    pub fn of(specs: &[String], store: &Store, sought: &Sought) -> Result<Self, ImageError> {
        let lock = store.lock()?;
        let mut images: Vec<Named> = Vec::new();
        for spec in specs {
            let image = open_sought(spec, store, sought)?;
            let names = names_of(&image, store);
            let same = images.iter_mut().find(|known| known.image.config_digest == image.config_digest);
            match same {
                Some(known) => known.names.extend(names),
                None => images.push(Named { layers: layers_of(&image)?, image, names }),
            }
        }
        for named in &mut images {
            named.names.sort();
            named.names.dedup();
        }
        Ok(Self { images, index_dir: store.index_dir(), _lock: lock })
    }

    /// Writes an archive.
    ///
    /// # Errors
    /// [`ImageError`]; what was written then is no archive that could be loaded.
    pub fn archive(&self, format: SaveFormat, out: &mut dyn Write, place: &Path) -> Result<(), ImageError> {
        let mut tar = tar_out::TarOut::new(out, place);
        match format {
            SaveFormat::DockerArchive => docker::write(self, &mut tar)?,
            SaveFormat::OciArchive | SaveFormat::OciDirectory => oci::write(self, &mut tar)?,
        }
        tar.finish()
    }

    /// Writes the directory of an OCI layout; `dir` is there and empty.
    ///
    /// # Errors
    /// [`ImageError`]; then something is in the directory.
    pub fn directory(&self, dir: &Path) -> Result<(), ImageError> {
        oci::write(self, &mut oci::Directory(dir))
    }

    /// How long a layer is uncompressed: known by its index, or found out by decoding it.
    fn plain_bytes(&self, tar: &TarSource, encoding: Encoding) -> Result<u64, ImageError> {
        if encoding == Encoding::Tar {
            return Ok(tar.blob.len());
        }
        let name = tar.blob_digest.map(|digest| self.index_dir.join(format!("{}.lfx", digest.hex())));
        let index = name.and_then(|name| LayerIndex::open(&name).ok());
        if let Some(index) = index.filter(|index| index.diff_id() == tar.diff_id) {
            return Ok(index.tar_bytes());
        }
        let mut bytes = 0;
        let mut count = |piece: &[u8]| {
            bytes += piece.len() as u64;
            ControlFlow::Continue(())
        };
        let decoded = decompress(&tar.blob, encoding, &mut count, &|_| {});
        decoded.map_err(|error| ImageError::undecoded(tar.blob.path(), encoding, error))?;
        Ok(bytes)
    }
}

/// The layers of an image as blobs: those of its manifest, else such as a manifest can name.
impl Named {
    fn blobs<'a>(&'a self, saving: &Saving) -> Result<Vec<LayerBlob<'a>>, ImageError> {
        let stored = self.image.documents.manifest.is_some();
        let promised = stored.then_some(&self.image.documents.layers);
        let blob = |(place, tar): (usize, &'a TarSource)| {
            if let Some(descriptor) = promised.and_then(|layers| layers.get(place)) {
                return Ok(LayerBlob { descriptor: descriptor.clone(), tar, is_decoded: false });
            }
            let encoding = import::encoding_of(&tar.blob)?;
            let (digest, size, is_decoded) = match encoding {
                Encoding::Tar => (tar.diff_id, tar.blob.len(), false),
                // What OCI has no media type for is saved uncompressed.
                Encoding::Xz | Encoding::Bzip2 => (tar.diff_id, saving.plain_bytes(tar, encoding)?, true),
                Encoding::Gzip | Encoding::Zstd => {
                    let (actual, _) = uncompressed(&tar.blob, encoding, None)?;
                    check(tar, "a layer", tar.diff_id, actual)?;
                    let digest = tar.blob.digest().map_err(ImageError::io("read", tar.blob.path()))?;
                    (digest, tar.blob.len(), false)
                }
            };
            let media_type = layer_type(if is_decoded { Encoding::Tar } else { encoding });
            Ok(LayerBlob { descriptor: Descriptor::new(media_type, digest, size), tar, is_decoded })
        };
        self.layers.iter().enumerate().map(blob).collect()
    }
}

/// Writes a layer uncompressed and checks that it is what the config says.
fn write_plain(tar: &TarSource, out: &mut dyn Write, place: &Path) -> Result<(), ImageError> {
    let encoding = import::encoding_of(&tar.blob)?;
    if encoding == Encoding::Tar {
        return write_blob(tar, tar.diff_id, out, place);
    }
    let mut hash = Sha256::new();
    let mut failed = None;
    let mut take = |piece: &[u8]| {
        hash.update(piece);
        failed = out.write_all(piece).err();
        if failed.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let decoded = decompress(&tar.blob, encoding, &mut take, &|_| {});
    if let Some(error) = failed {
        return Err(ImageError::io("write", place)(error));
    }
    decoded.map_err(|error| ImageError::undecoded(tar.blob.path(), encoding, error))?;
    check(tar, "an uncompressed layer", tar.diff_id, Digest::from_bytes(hash.finalize().into()))
}

/// Writes a blob as it lies there and checks its digest.
fn write_blob(
    tar: &TarSource,
    expected: Digest,
    out: &mut dyn Write,
    place: &Path,
) -> Result<(), ImageError> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut position = 0;
    loop {
        let count = tar.blob.read_at(position, &mut buffer);
        let count = count.map_err(ImageError::io("read", tar.blob.path()))?;
        if count == 0 {
            return check(tar, "a layer", expected, Digest::from_bytes(hash.finalize().into()));
        }
        hash.update(&buffer[..count]);
        out.write_all(&buffer[..count]).map_err(ImageError::io("write", place))?;
        position += count as u64;
    }
}

fn check(tar: &TarSource, what: &'static str, expected: Digest, actual: Digest) -> Result<(), ImageError> {
    if expected == actual {
        return Ok(());
    }
    Err(ImageError::WrongDigest { path: tar.blob.to_path_buf(), what, expected, actual })
}

fn names_of(image: &Image, store: &Store) -> Vec<Reference> {
    let in_store = format!("oci:{}:@", store.oci_dir().display());
    let found = std::slice::from_ref(&image.name);
    let is_stored = image.source.starts_with(&in_store);
    let texts = if is_stored { found } else { &image.documents.names };
    let names = texts.iter().filter(|text| !is_id(text)).filter_map(|text| text.parse::<Reference>().ok());
    names.filter(|name| name.digest().is_none()).collect()
}

fn layers_of(image: &Image) -> Result<Vec<TarSource>, ImageError> {
    let layer = |layer: &LayerSource| match layer {
        LayerSource::Tar(tar) => Ok(tar.clone()),
        LayerSource::Directory(path) => Err(ImageError::NotAnImage {
            path: path.clone(),
            reason: "a plain directory has no layers to save; `layerfs import` makes an image of a tar of it"
                .to_owned(),
        }),
    };
    image.layers.iter().map(layer).collect()
}

/// Where the files of a layout or archive go.
trait Target {
    /// A file of `size` bytes that `fill` writes.
    fn file(
        &mut self,
        name: &str,
        size: u64,
        fill: &mut dyn FnMut(&mut dyn Write, &Path) -> Result<(), ImageError>,
    ) -> Result<(), ImageError>;

    /// A directory, before what is in it.
    fn directory(&mut self, name: &str) -> Result<(), ImageError>;

    /// A whole document.
    fn document(&mut self, name: &str, bytes: &[u8]) -> Result<(), ImageError> {
        self.file(name, bytes.len() as u64, &mut |out, place| {
            out.write_all(bytes).map_err(ImageError::io("write", place))
        })
    }
}

/// Counts what goes through.
struct Counted<'a> {
    out: &'a mut dyn Write,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
