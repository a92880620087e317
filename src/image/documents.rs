//! The documents of an image as they are written, for those who want to see all of it, and what is looked for.

use std::fmt::Debug;
use std::sync::Arc;

use super::{ImageError, TargetPlatform};
use crate::model::Digest;
use crate::store::Descriptor;

/// What is looked for behind a name.
#[derive(Clone, Debug, Default)]
pub struct Sought {
    /// For which platform; `None` is this machine, and takes an image that is only there for another one.
    pub platform: Option<TargetPlatform>,
    /// Layers that are missing or of a wrong length are left out and told in [`Documents::broken`], instead of failing.
    pub with_broken_layers: bool,
    /// Who is told when that takes long.
    pub progress: Option<Arc<dyn Decompressing>>,
}

/// Told while an archive that is compressed as a whole is decompressed into the store.
pub trait Decompressing: Debug + Send + Sync {
    /// `done` of `total` bytes of the compressed file have been read.
    fn decompressed(&self, done: u64, total: u64);
}

impl Sought {
    /// The platform to choose where several are offered.
    pub(super) fn platform(&self) -> TargetPlatform {
        self.platform.clone().unwrap_or_else(TargetPlatform::host)
    }
}

/// What an image is made of, besides its layers.
#[derive(Clone, Debug, Default)]
pub struct Documents {
    /// All names that lead to it where it was found, as they are written there.
    pub names: Vec<String>,
    /// The bytes of the config; empty for a plain directory.
    pub config: Vec<u8>,
    /// Its manifest; `None` in an archive of `docker save` and for a plain directory.
    pub manifest: Option<Stored>,
    /// The index that its name leads to, when that is where the manifest was chosen.
    pub index: Option<Stored>,
    /// The manifest's word on each layer, base first, as far as there is a manifest.
    pub layers: Vec<Descriptor>,
    /// Layers that were left out.
    pub broken: Vec<Broken>,
}

/// A document and what points to it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Digest, media type, and the annotations that name it.
    pub descriptor: Descriptor,
    /// Its bytes, which have that digest.
    pub bytes: Vec<u8>,
}

/// A layer that is not there as the image says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its place, counted from 0 at the base.
    pub place: usize,
    /// Its digest in the config.
    pub diff_id: Digest,
    /// What is wrong.
    pub reason: String,
    /// Whether that is damage; else it could not be looked at.
    pub is_damage: bool,
}

impl Broken {
    pub(super) fn of(place: usize, diff_id: Digest, error: &ImageError) -> Self {
        Self { place, diff_id, reason: error.to_string(), is_damage: error.is_damage() }
    }
}
