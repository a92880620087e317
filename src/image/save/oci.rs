//! OCI layouts (image-spec image-layout.md).

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::super::write::{MEDIA_TYPE_CONFIG, manifest};
use super::super::{ImageError, Reference};
use super::{Counted, LayerBlob, Named, Saving, Target, write_blob, write_plain};
use crate::model::Digest;
use crate::store::{Descriptor, Index, MEDIA_TYPE_INDEX, MEDIA_TYPE_MANIFEST, OCI_LAYOUT, REF_NAME};
use crate::sys::atomic::sync_dir;

/// The complete name, for containerd and those that follow it; the standard annotation has the name as people write it.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// What a blob is made of.
enum Content<'a> {
    Layer(LayerBlob<'a>),
    Document(Vec<u8>),
}

/// Writes the layout: blobs first, so that what is cut off names nothing.
pub(super) fn write(saving: &Saving, to: &mut dyn Target) -> Result<(), ImageError> {
    let mut blobs = BTreeMap::new();
    let mut index = Index::empty();
    index.other.insert("mediaType".to_owned(), MEDIA_TYPE_INDEX.into());
    for named in &saving.images {
        let manifest = add(saving, named, &mut blobs)?;
        if named.names.is_empty() {
            index.manifests.push(manifest.clone());
        }
        index.manifests.extend(named.names.iter().map(|name| called(&manifest, name)));
    }
    to.document("oci-layout", OCI_LAYOUT.as_bytes())?;
    to.directory("blobs")?;
    to.directory("blobs/sha256")?;
    for (digest, content) in &blobs {
        let name = format!("blobs/sha256/{}", digest.hex());
        match content {
            Content::Document(bytes) => to.document(&name, bytes)?,
            Content::Layer(blob) => {
                to.file(&name, blob.descriptor.size, &mut |out, place| match blob.is_decoded {
                    true => write_plain(blob.tar, out, place),
                    false => write_blob(blob.tar, *digest, out, place),
                })?
            }
        }
    }
    to.document("index.json", serde_json::json!(index).to_string().as_bytes())
}

/// Adds the blobs of an image and gives the descriptor of its manifest.
fn add<'a>(
    saving: &Saving,
    named: &'a Named,
    blobs: &mut BTreeMap<Digest, Content<'a>>,
) -> Result<Descriptor, ImageError> {
    let layers = named.blobs(saving)?;
    let descriptors: Vec<Descriptor> = layers.iter().map(|layer| layer.descriptor.clone()).collect();
    blobs.extend(layers.into_iter().map(|layer| (layer.descriptor.digest, Content::Layer(layer))));
    let documents = &named.image.documents;
    let mut document = |media_type: &str, bytes: Vec<u8>| {
        let digest = Digest::from_bytes(Sha256::digest(&bytes).into());
        let descriptor = Descriptor::new(media_type, digest, bytes.len() as u64);
        blobs.insert(digest, Content::Document(bytes));
        descriptor
    };
    let config = document(MEDIA_TYPE_CONFIG, documents.config.clone());
    Ok(match &documents.manifest {
        Some(stored) => {
            let promised = stored.descriptor.media_type.as_str();
            let media_type = if promised.is_empty() { MEDIA_TYPE_MANIFEST } else { promised };
            document(media_type, stored.bytes.clone())
        }
        None => document(MEDIA_TYPE_MANIFEST, manifest(&config, &descriptors)),
    })
}

fn called(manifest: &Descriptor, name: &Reference) -> Descriptor {
    let names = [(REF_NAME, name.familiar()), (CONTAINERD_NAME, name.to_string())];
    let annotations = names.map(|(key, name)| (key.to_owned(), name));
    Descriptor { annotations: Some(annotations.into()), ..manifest.clone() }
}

/// A directory of its own, which nobody knows yet.
pub(super) struct Directory<'a>(pub(super) &'a Path);

impl Target for Directory<'_> {
    fn file(
        &mut self,
        name: &str,
        size: u64,
        fill: &mut dyn FnMut(&mut dyn Write, &Path) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        let path = self.0.join(name);
        let written = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path);
        let file = written.map_err(ImageError::io("create", &path))?;
        let mut out = BufWriter::new(&file);
        let mut counted = Counted { out: &mut out, bytes: 0 };
        fill(&mut counted, &path)?;
        if counted.bytes != size {
            let reason = format!("{} bytes came where {size} were expected", counted.bytes);
            return Err(ImageError::io("write", &path)(std::io::Error::other(reason)));
        }
        out.flush().map_err(ImageError::io("write", &path))?;
        drop(out);
        // Before the name of the whole: what it promises is on the disk.
        File::sync_all(&file).map_err(ImageError::io("write", &path))?;
        path.parent().map_or(Ok(()), sync_dir).map_err(ImageError::io("write", &path))
    }

    fn directory(&mut self, name: &str) -> Result<(), ImageError> {
        let path = self.0.join(name);
        std::fs::create_dir(&path).map_err(ImageError::io("create", &path))
    }
}
