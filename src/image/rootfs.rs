//! A plain root directory as an image of one layer.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::manifest::host_architecture;
use super::{Documents, Image, ImageError};
use crate::layer::LayerSource;
use crate::model::{Digest, ImageConfig};

/// Uses the directory as it is. There is no config document: its digest is that of the path, which is what makes two
/// directories different.
pub(super) fn open(path: &Path) -> Result<Image, ImageError> {
    let path = path.canonicalize().map_err(ImageError::io("find", path))?;
    if !path.is_dir() {
        return Err(ImageError::NotAnImage { path, reason: "not a directory".into() });
    }
    // Told now rather than by the first lookup in the mount.
    std::fs::read_dir(&path).map_err(ImageError::io("list", &path))?;
    let config_digest = Digest::from_bytes(Sha256::digest(path.as_os_str().as_bytes()).into());
    let config = ImageConfig {
        architecture: host_architecture().to_owned(),
        os: "linux".to_owned(),
        ..ImageConfig::default()
    };
    let source = format!("dir:{}", path.display());
    Ok(Image {
        name: path.display().to_string(),
        source,
        config,
        config_digest,
        layers: vec![LayerSource::Directory(path)],
        documents: Documents::default(),
    })
}
