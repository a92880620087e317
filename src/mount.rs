//! Row 7: from what should be mounted to an answering mount. The only place that wires the data plane.
//!
//! In three steps, because they happen in different processes: [`MountSpec::layers`] finds or builds the indexes and
//! opens the layers (in the caller's process, where errors and progress are seen); [`Layers::into_fs`] takes the upper
//! into use; [`serve`] answers (in the server, perhaps in a user namespace of its own). [`Standalone`] does the last two
//! for mounts that belong to no container.

mod asking;
mod caches;
mod indexing;
mod overlay;
mod own;
mod serving;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use asking::AskError;
pub use caches::{Caches, OpenCaches};
pub use indexing::{IndexDamage, IndexedLayer};
pub use overlay::{OverlayLayer, OverlaySpec};
pub use own::OwnMount;
pub use serving::{Place, Standalone};

use crate::fs::{Fs, FsError, OwnerView};
use crate::fuse::{Readers, Server, Writes};
use crate::index::{self, Expected, IndexDir, IndexError, LayerIndex};
use crate::layer::{DirLayer, KnownBy, Layer, LayerError, LayerSource, TarLayer, TarSource, TocLayer};
use crate::model::limits::IMAGE_LAYERS_MAX;
use crate::sys::atomic::touch;
use crate::sys::memory;
use crate::union::Union;
use crate::upper::{Upper, UpperError, UpperOptions};

/// What should be mounted.
#[derive(Clone, Debug)]
pub struct MountSpec {
    /// The image's layers, base first.
    pub layers: Vec<LayerSource>,
    /// Where indexes are kept.
    pub index_dir: PathBuf,
    /// What else is kept of layers.
    pub caches: Caches,
}

/// Where changes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpperDirs {
    /// The changes themselves.
    pub upper: PathBuf,
    /// Scratch space on the same filesystem.
    pub work: PathBuf,
    /// How they are used.
    pub options: UpperOptions,
}

impl UpperDirs {
    /// `upper/` and `work/` in a directory, used in the ordinary way.
    #[must_use]
    pub fn below(dir: &Path) -> Self {
        Self { upper: dir.join("upper"), work: dir.join("work"), options: UpperOptions::default() }
    }
}

/// Layers that are open and ready. Clones share them.
#[derive(Clone, Debug)]
pub struct Layers {
    union: Union,
    caches: OpenCaches,
}

/// Told while a layer is read for the first time.
pub trait Progress: Sync {
    /// `done` of `total` bytes of layer number `layer` (of `layers`), as delivered, have been read.
    fn indexed(&self, layer: usize, layers: usize, done: u64, total: u64);
}

/// Why an image cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// Too many layers.
    #[error("{0} layers: at most {IMAGE_LAYERS_MAX} are supported")]
    TooManyLayers(usize),
    /// A layer cannot be indexed.
    #[error("layer {layer}: {source}")]
    Index {
        /// Its place, counted from 1 at the base.
        layer: usize,
        /// What is wrong with it; names the file.
        source: Box<IndexError>,
    },
    /// A layer cannot be opened.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The writable directory cannot be used.
    #[error(transparent)]
    Upper(#[from] UpperError),
    /// The roots cannot be read.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// A thread could not be started, or died.
    #[error("indexing: {0}")]
    Thread(io::Error),
    /// The server process could not do it.
    #[error("{0}")]
    Server(String),
    /// A system call.
    #[error("{operation}: {source}")]
    System {
        /// What was being done.
        operation: String,
        /// What the system said.
        source: io::Error,
    },
}

impl MountSpec {
    /// Opens all layers, indexing in parallel those that were never seen.
    ///
    /// # Errors
    /// [`MountError`] names the layer and the file.
    pub fn layers(&self, progress: &dyn Progress) -> Result<Layers, MountError> {
        if self.layers.len() > IMAGE_LAYERS_MAX {
            return Err(MountError::TooManyLayers(self.layers.len()));
        }
        let caches = self.caches.open();
        let indexes = IndexDir::at(&self.index_dir);
        let open = |(place, source): (usize, &LayerSource)| {
            Ok((place, self.open_layer(place, source, &indexes, &caches, progress)?))
        };
        let open_all = |layers: Vec<_>| layers.into_iter().map(open).collect::<Result<Vec<_>, MountError>>();
        let layers: Vec<_> = self.layers.iter().enumerate().collect();
        let mut opened = if self.bytes_to_index() == 0 {
            open_all(layers)?
        } else {
            // One at a time decodes; building a layer has threads of its own. Two layers overlap where one waits.
            let (odd, even): (Vec<_>, Vec<_>) = layers.into_iter().partition(|(place, _)| place % 2 == 1);
            std::thread::scope(|scope| {
                let other = std::thread::Builder::new().name("index".to_owned());
                let other = other.spawn_scoped(scope, || open_all(odd)).map_err(MountError::Thread)?;
                let here = open_all(even)?;
                let died = |_| MountError::Thread(io::Error::other("an indexing thread died"));
                Ok::<_, MountError>(here.into_iter().chain(other.join().map_err(died)??).collect::<Vec<_>>())
            })?
        };
        opened.sort_by_key(|(place, _)| *place);
        let union = Union::new(opened.into_iter().map(|(_, layer)| layer).collect());
        Ok(Layers { union, caches })
    }

    fn open_layer(
        &self,
        place: usize,
        source: &LayerSource,
        indexes: &Arc<IndexDir>,
        caches: &OpenCaches,
        progress: &dyn Progress,
    ) -> Result<Arc<dyn Layer>, MountError> {
        match source {
            LayerSource::Directory(path) => Ok(Arc::new(DirLayer::open(path)?)),
            LayerSource::Tar(tar) => {
                let failed = |source| MountError::Index { layer: place + 1, source: Box::new(source) };
                let report = |done| progress.indexed(place + 1, self.layers.len(), done, tar.blob.len());
                if tar.blob.is_arriving() {
                    caches.expect_waits(&tar.blob);
                }
                let index = match &tar.known_by {
                    KnownBy::OwnIndex => Arc::new(self.index(indexes, tar, &report).map_err(failed)?),
                    KnownBy::Index(index) => Arc::clone(index),
                    KnownBy::Toc(toc) => {
                        let layer = TocLayer::new(toc, tar.diff_id, tar.blob.clone())?;
                        return Ok(Arc::new(layer.with_cache(&caches.tocs)));
                    }
                };
                let layer = TarLayer::new(index, tar.blob.clone(), Arc::clone(&caches.chunks));
                Ok(caches.help(place, layer))
            }
        }
    }

    /// The index of a layer: the one in the store, unless it is missing, damaged or of another version.
    fn index(
        &self,
        indexes: &Arc<IndexDir>,
        tar: &TarSource,
        report: &(dyn Fn(u64) + Sync),
    ) -> Result<LayerIndex, IndexError> {
        let io_error = |source| IndexError::Io { path: tar.blob.to_path_buf(), source };
        let name = index::key(&tar.blob, tar.blob_digest.as_ref(), &tar.diff_id).map_err(io_error)?;
        let path = self.index_dir.join(&name);
        match LayerIndex::open_in(indexes, name.as_ref()) {
            // The length too: under one diffID there may be the tar itself, part of it, or something compressed.
            Ok(index) if index.diff_id() == tar.diff_id && index.blob_bytes() == tar.blob.len() => {
                touch(&path);
                return Ok(index);
            }
            Ok(_) => tracing::warn!("{}: of another layer; it is rebuilt", path.display()),
            Err(IndexError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!("{error}: it is built again"),
        }
        let expected = Expected { blob: tar.blob_digest, diff_id: Some(tar.diff_id) };
        index::build(&tar.blob, &expected, &self.index_dir, &name, report)?;
        // What that needed is not needed any more.
        memory::give_back();
        LayerIndex::open_in(indexes, name.as_ref())
    }
}

impl Layers {
    /// What works beside the server: for [`serve`].
    #[must_use]
    pub fn caches(&self) -> OpenCaches {
        self.caches.clone()
    }

    /// The layers as one tree, to be read without a mount.
    #[must_use]
    pub fn union(&self) -> &Union {
        &self.union
    }

    /// Puts the upper on top; without one the mount is read-only.
    ///
    /// # Errors
    /// [`MountError`]
    pub fn into_fs(self, upper: Option<&UpperDirs>, owners: OwnerView) -> Result<Fs, MountError> {
        let layers = self.union.diff_ids();
        let open = |dirs: &UpperDirs| Upper::open_over(&dirs.upper, &dirs.work, dirs.options, &layers);
        let upper = upper.map(open).transpose()?;
        Ok(Fs::new(self.union, upper, owners)?)
    }
}

/// A mount that answers, and what works beside it.
#[derive(Debug)]
pub struct MountServer {
    server: Server,
    caches: OpenCaches,
    /// Where reads may wait for a network, to see that the mount is gone.
    device: Option<OwnedFd>,
}

/// Shakes hands through the descriptor of `/dev/fuse` that it is mounted with; [`MountServer::run`] answers until the mount is
/// gone. From here on the process has more than one thread.
///
/// # Errors
/// What the kernel says.
pub fn serve(
    fs: Fs,
    caches: OpenCaches,
    (writes, readers): (Writes, Readers),
    device: OwnedFd,
) -> io::Result<MountServer> {
    let (readers, watched) = match caches.are_waits_expected() {
        true => (Readers::OfWhatArrives, Some(device.try_clone()?)),
        false => (readers, None),
    };
    let server = Server::attach(Arc::new(fs), caches.meter(), (writes, readers), device)?;
    Ok(MountServer { server, caches, device: watched })
}

impl MountServer {
    /// Answers requests until the mount is gone. What caches have to say goes where the log is by now.
    ///
    /// # Errors
    /// When the connection breaks in any other way.
    pub fn run(self) -> io::Result<()> {
        let Self { server, caches, device } = self;
        caches.open_queues();
        let started = caches.clone();
        let result = server.run(move || started.start(device));
        caches.close();
        result
    }
}

/// Where the mount point `target` really is, checked before anything is built.
///
/// # Errors
/// `NotFound`, `NotADirectory`, or what the system says, with the path.
pub fn mount_point(target: &Path) -> io::Result<PathBuf> {
    let told =
        |error: io::Error| io::Error::new(error.kind(), format!("mount point {}: {error}", target.display()));
    let real = target.canonicalize().map_err(told)?;
    if !real.metadata().map_err(told)?.is_dir() {
        return Err(told(io::Error::from(io::ErrorKind::NotADirectory)));
    }
    Ok(real)
}

#[cfg(test)]
mod flip_tests;

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::model::{Digest, Ino, Name};
    use crate::sys::file_range::FileRange;

    struct Silent;

    impl Progress for Silent {
        fn indexed(&self, _: usize, _: usize, _: u64, _: u64) {}
    }

    #[test]
    fn a_known_layer_in_another_form_is_looked_at_again() {
        let dir = tempfile::tempdir().unwrap();
        let tar = vec![0; 4096];
        let diff_id = Digest::from_bytes(Sha256::digest(&tar).into());
        let layers = |blob: &[u8]| {
            std::fs::write(dir.path().join("blob"), blob).unwrap();
            let blob = FileRange::open(&dir.path().join("blob")).unwrap();
            let layers = vec![LayerSource::Tar(TarSource::new(blob, None, diff_id))];
            MountSpec { layers, index_dir: dir.path().to_owned(), caches: Caches::default() }.layers(&Silent)
        };
        layers(&tar).unwrap();
        layers(&zstd::bulk::compress(&tar, 1).unwrap()).unwrap();
        let error = layers(&tar[..1024]).unwrap_err().to_string();
        assert!(error.contains("diffID"), "{error}");
        layers(&tar).unwrap();
    }

    #[test]
    fn an_index_that_is_used_is_young() {
        let dir = tempfile::tempdir().unwrap();
        drop(image(dir.path(), ["a", "b"], b"in a (1)"));
        let entries = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let index =
            entries.into_iter().find(|path| path.extension().is_some_and(|end| end == "lfx")).unwrap();
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(1_000_000);
        std::fs::File::open(&index).unwrap().set_modified(old).unwrap();
        drop(image(dir.path(), ["a", "b"], b"in a (1)"));
        assert!(index.metadata().unwrap().modified().unwrap() > old);
    }

    /// A tar of one file with two names, with the same times and the same length whatever is in it.
    fn image(dir: &Path, names: [&str; 2], content: &[u8; 8]) -> Layers {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(8);
        header.set_mode(0o644);
        tar.append_data(&mut header, names[0], &content[..]).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_entry_type(tar::EntryType::Link);
        tar.append_link(&mut header, names[1], names[0]).unwrap();
        let tar = tar.into_inner().unwrap();
        let path = dir.join(names.concat());
        std::fs::write(&path, &tar).unwrap();
        let diff_id = Digest::from_bytes(Sha256::digest(&tar).into());
        let blob = FileRange::open(&path).unwrap();
        let layers = vec![LayerSource::Tar(TarSource::new(blob, None, diff_id))];
        MountSpec { layers, index_dir: dir.to_owned(), caches: Caches::default() }.layers(&Silent).unwrap()
    }

    #[test]
    fn an_upper_belongs_to_its_layers() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = UpperDirs::below(dir.path());
        let open = |layers: &Layers| layers.clone().into_fs(Some(&dirs), OwnerView::Image);
        let ino = |fs: &Fs, name: &str| {
            let found = fs.lookup(Ino::ROOT, Name::new(name.as_bytes()).unwrap()).unwrap().unwrap();
            (found.ino, found.nlink)
        };
        let read = |fs: &Fs, name: &str| {
            let mut text = [0; 8];
            fs.read(ino(fs, name).0, 0, &mut text).unwrap();
            text
        };
        // The file has one number in both, and two names, so that its copy is found in the link index.
        let (one, other) =
            (image(dir.path(), ["a", "b"], b"in a (1)"), image(dir.path(), ["c", "d"], b"in c (2)"));
        let fs = open(&one).unwrap();
        fs.write(ino(&fs, "a").0, 0, b"IN", None).unwrap();
        drop(fs);
        let error = open(&other).unwrap_err().to_string();
        assert!(error.contains("made with other layers"), "{error}");
        let fs = open(&one).unwrap();
        assert_eq!(read(&fs, "b"), *b"IN a (1)");
        fs.complete().unwrap();
        drop(fs);
        let fs = open(&other).unwrap();
        let texts = ["a", "b", "c", "d"].map(|name| read(&fs, name));
        assert_eq!(texts, [b"IN a (1)", b"IN a (1)", b"in c (2)", b"in c (2)"].map(|text| *text));
        assert_eq!(ino(&fs, "a"), ino(&fs, "b"));
        fs.unlink(Ino::ROOT, Name::new(b"d").unwrap()).unwrap();
        assert_eq!((ino(&fs, "c").1, ino(&fs, "a").1), (1, 2));
        fs.write(ino(&fs, "c").0, 0, b"IN", None).unwrap();
        drop(fs);
        let fs = open(&other).unwrap();
        assert_eq!([read(&fs, "c"), read(&fs, "a")], [*b"IN c (2)", *b"IN a (1)"]);
        drop(fs);
        let error = open(&one).unwrap_err().to_string();
        assert!(error.contains("made with other layers"), "{error}");
    }
}
