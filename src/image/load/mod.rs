//! Images from an archive, a layout or a stream into the store.
//!
//! Whatever comes is copied once, into temporary files that are hashed on the way; what the store has already is not written
//! again. Only when all images are there and every digest is right do blobs get their names, then all images theirs at once. Configs
//! and manifests keep their bytes, and with them the images their ids.

mod layer;
mod stock;
mod stream;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use layer::{NewLayer, take_layer};
pub(super) use stock::uncompressed;

use stock::Stock;

use super::archive::Archive;
use super::files::{Directory, Files as _, absent};
use super::open::{self, Transport};
use super::write::{self, MEDIA_TYPE_CONFIG};
use super::{Image, ImageError, Reference, Sought, docker_archive, import, oci_layout};
use crate::index::Encoding;
use crate::layer::LayerSource;
use crate::model::Digest;
use crate::store::{Descriptor, MEDIA_TYPE_MANIFEST, NAME_BYTES_MAX, Store};
use crate::sys::file_range::FileRange;

/// Images in one archive, the same one each time that it is listed. Each may have a config of 8 MiB, which has to be read.
const IMAGES_MAX: usize = 1000;
/// Names of all of them together.
const NAMES_MAX: usize = 10_000;

/// Where images come from.
pub enum LoadSource<'a> {
    /// An archive, perhaps compressed as a whole, or the directory of an OCI layout.
    Path(&'a Path),
    /// An archive, perhaps compressed as a whole, and what it is called in messages.
    Stream(&'a mut (dyn Read + Send), &'a Path),
}

impl std::fmt::Debug for LoadSource<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Path(path) | Self::Stream(_, path)) = self;
        f.debug_tuple("LoadSource").field(path).finish()
    }
}

/// An image that is in the store now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The image's id.
    pub config_digest: Digest,
    /// The names that lead to it; without any it is called by its id.
    pub names: Vec<String>,
}

/// An image of which everything was checked.
struct Ready {
    manifest: Descriptor,
    loaded: Loaded,
}

/// What images are looked for in.
enum Opened {
    DockerArchive(Archive),
    OciArchive(Archive),
    Layout(Directory),
}

/// Puts all images, or those that are `chosen` by their names, into the store.
///
/// # Errors
/// [`ImageError`]; then no image and no name is new in the store.
pub fn load(
    store: &Store,
    source: LoadSource<'_>,
    chosen: &[String],
    sought: &Sought,
) -> Result<Vec<Loaded>, ImageError> {
    // Nothing is collected before it has its name.
    let _lock = store.lock()?;
    let mut stock = Stock::of(store);
    let opened = open(source, &mut stock, sought)?;
    let mut ready: Vec<Ready> = Vec::new();
    let (mut images, mut names) = (0, 0);
    opened.each(chosen, sought, &mut |image| {
        let taken = take(&mut stock, opened.place(), &image, !chosen.is_empty())?;
        images += 1;
        names += taken.loaded.names.len();
        for (what, count, limit) in
            [("images in one archive", images, IMAGES_MAX), ("names in one archive", names, NAMES_MAX)]
        {
            if count > limit {
                let (path, what) = (opened.place().to_owned(), what.to_owned());
                return Err(ImageError::Limit { path, what, count: count as u64, limit: limit as u64 });
            }
        }
        match ready.iter_mut().find(|one| one.manifest.digest == taken.manifest.digest) {
            Some(same) => same.loaded.names.extend(taken.loaded.names),
            None => ready.push(taken),
        }
        Ok(())
    })?;
    if ready.is_empty() {
        let reason = "no image in it".to_owned();
        return Err(ImageError::NotAnImage { path: opened.place().to_owned(), reason });
    }
    stock.publish()?;
    let mut given = BTreeMap::new();
    for one in &ready {
        let own_name = vec![one.loaded.config_digest.to_string()];
        let names = if one.loaded.names.is_empty() { &own_name } else { &one.loaded.names };
        given.extend(names.iter().map(|name| (name.clone(), one.manifest.clone())));
    }
    oci_layout::give_names(store, &given)?;
    Ok(ready.into_iter().map(|one| one.loaded).collect())
}

fn open(source: LoadSource<'_>, stock: &mut Stock<'_>, sought: &Sought) -> Result<Opened, ImageError> {
    let archive = match source {
        LoadSource::Stream(reader, name) => stream::archive(stock, reader, name, None)?,
        LoadSource::Path(path) => {
            let metadata = match std::fs::metadata(path) {
                Err(error) if absent(&error) => {
                    return Err(ImageError::NoFile { spec: path.display().to_string() });
                }
                metadata => metadata.map_err(ImageError::io("read", path))?,
            };
            if metadata.is_dir() {
                return open_layout(path);
            }
            let total = metadata.is_file().then_some(metadata.len());
            let told = total.and_then(|total| Some((sought.progress.as_deref()?, total)));
            match total.map(|_| FileRange::open(path)).transpose().map_err(ImageError::io("open", path))? {
                // Layers are copied right from where they lie.
                Some(range) if import::encoding_of(&range)? == Encoding::Tar => Archive::of(range)?,
                _ => {
                    let mut file = File::open(path).map_err(ImageError::io("open", path))?;
                    stream::archive(stock, &mut file, path, told)?
                }
            }
        }
    };
    Ok(match open::kind(&archive)? {
        Transport::OciArchive => Opened::OciArchive(archive),
        _ => Opened::DockerArchive(archive),
    })
}

fn open_layout(path: &Path) -> Result<Opened, ImageError> {
    let layout = Directory(path.to_owned());
    match layout.open("oci-layout")? {
        Some(_) => Ok(Opened::Layout(layout)),
        None => {
            let reason = "no oci-layout file in it, so no OCI layout directory".to_owned();
            Err(ImageError::NotAnImage { path: layout.0, reason })
        }
    }
}

impl Opened {
    fn place(&self) -> &Path {
        match self {
            Self::DockerArchive(archive) | Self::OciArchive(archive) => archive.place(),
            Self::Layout(layout) => layout.place(),
        }
    }

    /// Gives one image after the other: what they say is large, and needed only once.
    fn each(
        &self,
        chosen: &[String],
        sought: &Sought,
        take: &mut dyn FnMut(Image) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        if chosen.is_empty() {
            return match self {
                Self::DockerArchive(archive) => docker_archive::each(archive, sought, take),
                Self::OciArchive(archive) => oci_layout::each(archive, "oci-archive", sought, take),
                Self::Layout(layout) => oci_layout::each(layout, "oci", sought, take),
            };
        }
        for name in chosen {
            take(match self {
                Self::DockerArchive(archive) => docker_archive::open(archive, Some(name), sought)?,
                Self::OciArchive(archive) => oci_layout::open(archive, Some(name), "oci-archive", sought)?,
                Self::Layout(layout) => oci_layout::open(layout, Some(name), "oci", sought)?,
            })?;
        }
        Ok(())
    }
}

/// Takes everything of one image into stock. One that was chosen by a name gets no other.
fn take(stock: &mut Stock<'_>, place: &Path, image: &Image, is_chosen: bool) -> Result<Ready, ImageError> {
    let stored = image.documents.manifest.as_ref();
    let mut layers = Vec::with_capacity(image.layers.len());
    for layer in &image.layers {
        if let LayerSource::Tar(tar) = layer {
            layers.push(stock.layer(place, tar, stored.is_some())?);
        }
    }
    let config = stock.document(&image.documents.config, MEDIA_TYPE_CONFIG)?;
    let manifest = match stored {
        Some(stored) => {
            let promised = stored.descriptor.media_type.as_str();
            let media_type = if promised.is_empty() { MEDIA_TYPE_MANIFEST } else { promised };
            stock.document(&stored.bytes, media_type)?
        }
        None => stock.document(&write::manifest(&config, &layers), MEDIA_TYPE_MANIFEST)?,
    };
    let found = std::slice::from_ref(&image.name);
    let texts = if is_chosen { found } else { &image.documents.names };
    let mut names: Vec<String> = texts.iter().filter_map(|text| name_of(text)).collect();
    names.dedup();
    let loaded = Loaded { config_digest: image.config_digest, names };
    Ok(Ready { manifest, loaded })
}

/// A name of the archive as the store has it. What cannot be a name gives none: the image has its id.
fn name_of(text: &str) -> Option<String> {
    let name = match text.parse::<Reference>() {
        Ok(name) if name.digest().is_none() && !is_id(text) => name.familiar(),
        Ok(_) => return None,
        Err(error) => {
            tracing::warn!("{}: left out, as it is no name of an image: {error}", text.escape_debug());
            return None;
        }
    };
    (name.len() <= NAME_BYTES_MAX).then_some(name)
}

/// What an image without a name is called.
pub(super) fn is_id(text: &str) -> bool {
    text.parse::<Digest>().is_ok()
}

#[cfg(test)]
mod tests;
