//! What IMAGE on the command line means.

use super::{Archive, Directory, Files, Image, ImageError, Path, PathBuf, Reference, Store, absent};
use super::{Sought, TargetPlatform};
use super::{docker_archive, import, oci_layout, oldest_archive, reference, rootfs};
use crate::index::Encoding;
use crate::store::Descriptor;
use crate::sys::file_range::FileRange;

/// A prefix that says what the rest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Oci,
    OciArchive,
    DockerArchive,
    Directory,
}

const TRANSPORTS: [(&str, Transport); 4] = [
    ("oci:", Transport::Oci),
    ("oci-archive:", Transport::OciArchive),
    ("docker-archive:", Transport::DockerArchive),
    ("dir:", Transport::Directory),
];

/// How the file `version` begins in a directory that skopeo wrote to `dir:`.
const DIRECTORY_TRANSPORT: &[u8] = b"Directory Transport Version";

/// Finds the image. In this order: a path (`PATH[:NAME]` of an OCI layout, OCI archive or docker-archive, or a plain
/// root directory; `oci:`, `oci-archive:`, `docker-archive:` and `dir:` say which), else a name in the store.
///
/// # Errors
/// [`ImageError`] says what is wrong with which file, and what to do.
pub fn open(spec: &str, store: &Store) -> Result<Image, ImageError> {
    open_sought(spec, store, &Sought::default())
}

/// The same, and says what to choose where there is a choice.
///
/// # Errors
/// [`ImageError`], also [`ImageError::Platform`] for an image that is not for the platform that was asked for.
pub fn open_sought(spec: &str, store: &Store, sought: &Sought) -> Result<Image, ImageError> {
    let image = find(spec, store, sought)?;
    // Where an index says what it is for, that counts: configs of images built elsewhere often name the builder's machine.
    let by_index = image.documents.manifest.as_ref().and_then(|found| found.descriptor.platform.as_ref());
    let own = by_index.map_or_else(|| TargetPlatform::of_config(&image.config), TargetPlatform::of);
    match &sought.platform {
        Some(wanted) if !wanted.fits(&own) => Err(ImageError::Platform {
            path: PathBuf::from(image.name),
            wanted: wanted.to_string(),
            available: vec![own.to_string()],
        }),
        _ => Ok(image),
    }
}

/// The name of an image that is looked for in the store, and can be pulled: what neither says that it is a path nor is one.
#[must_use]
pub fn named(spec: &str) -> Option<Reference> {
    let name = spec.strip_prefix("docker://").unwrap_or(spec);
    let has_transport = TRANSPORTS.iter().any(|(prefix, _)| name.starts_with(prefix));
    if has_transport || looks_like_a_path(name) {
        return None;
    }
    let is_file = name.len() == spec.len() && split(spec).is_ok_and(|found| found.is_some());
    name.parse().ok().filter(|_| !is_file)
}

fn find(spec: &str, store: &Store, sought: &Sought) -> Result<Image, ImageError> {
    for (prefix, transport) in TRANSPORTS {
        if let Some(rest) = spec.strip_prefix(prefix) {
            let (path, tag) = split(rest)?.ok_or_else(|| ImageError::NoFile { spec: rest.to_owned() })?;
            return open_as(transport, &path, tag.as_deref(), store, sought);
        }
    }
    let name = spec.strip_prefix("docker://").unwrap_or(spec);
    if name.len() != spec.len() {
        return open_name(name, store, sought);
    }
    let Some((path, tag)) = split(spec)? else { return open_name(spec, store, sought) };
    let transport = match sniff(&path, tag.as_deref(), store, sought) {
        Ok(Some(transport)) => transport,
        Ok(None) => return open_name(spec, store, sought),
        // A file in the working directory that happens to be called like an image.
        Err(error @ (ImageError::NotAnImage { .. } | ImageError::Encoded { .. })) if !spec.contains('/') => {
            return match open_name(spec, store, sought) {
                Err(ImageError::NotFound { .. } | ImageError::Reference { .. }) => Err(error),
                other => other,
            };
        }
        Err(error) => return Err(error),
    };
    open_as(transport, &path, tag.as_deref(), store, sought)
}

/// The longest part of the text that names a file, and what comes after it and a colon.
fn split(spec: &str) -> Result<Option<(PathBuf, Option<String>)>, ImageError> {
    let whole = std::iter::once((spec, None));
    let parts = spec.rmatch_indices(':').map(|(at, _)| (&spec[..at], Some(&spec[at + 1..])));
    for (path, tag) in whole.chain(parts) {
        if path.is_empty() || path.contains('\0') {
            continue;
        }
        let path = Path::new(path);
        match std::fs::metadata(path) {
            Ok(_) => return Ok(Some((path.to_owned(), tag.map(str::to_owned)))),
            Err(error) if absent(&error) => {}
            Err(error) => return Err(ImageError::io("read", path)(error)),
        }
    }
    Ok(None)
}

/// What kind of image is at an existing path; `None` for a name that happens to begin like a directory.
fn sniff(
    path: &Path,
    tag: Option<&str>,
    store: &Store,
    sought: &Sought,
) -> Result<Option<Transport>, ImageError> {
    if path.is_dir() {
        let layout = Directory(path.to_owned());
        if tag.is_none() && is_written_by_skopeo(&layout)? {
            let reason = format!(
                "a directory as `skopeo copy` writes to dir:; run `skopeo copy dir:{} oci:OUT` and use OUT",
                path.display()
            );
            return Err(ImageError::NotAnImage { path: path.to_owned(), reason });
        }
        return Ok(match (layout.open("oci-layout")?, tag) {
            (Some(_), _) => Some(Transport::Oci),
            (None, None) => Some(Transport::Directory),
            (None, Some(_)) => None,
        });
    }
    kind(&open_archive(path, store, sought)?).map(Some)
}

/// What kind of image an archive holds.
fn kind(archive: &Archive) -> Result<Transport, ImageError> {
    // First, because newer dockers write both, and only this one has all the names.
    if archive.open(docker_archive::MANIFEST)?.is_some() {
        Ok(Transport::DockerArchive)
    } else if archive.open("index.json")?.is_some() {
        Ok(Transport::OciArchive)
    } else if oldest_archive::is_one(archive) {
        Ok(Transport::DockerArchive)
    } else {
        let reason = "a tar archive, but with neither manifest.json (docker save) nor index.json (OCI) in it; \
                      unpack a plain root filesystem and use the directory";
        Err(ImageError::NotAnImage { path: archive.place().to_owned(), reason: reason.to_owned() })
    }
}

/// Whether it is a flat directory of blobs: as a root directory it would make no sense.
fn is_written_by_skopeo(directory: &Directory) -> Result<bool, ImageError> {
    let (Some(version), Some(_)) = (directory.open("version")?, directory.open(docker_archive::MANIFEST)?)
    else {
        return Ok(false);
    };
    let mut start = [0; DIRECTORY_TRANSPORT.len()];
    let count = version.read_at(0, &mut start).map_err(ImageError::io("read", version.path()))?;
    Ok(&start[..count] == DIRECTORY_TRANSPORT)
}

fn open_as(
    transport: Transport,
    path: &Path,
    tag: Option<&str>,
    store: &Store,
    sought: &Sought,
) -> Result<Image, ImageError> {
    let open_archive = || open_archive(path, store, sought);
    match (transport, tag) {
        (Transport::Oci, _) => {
            let path = std::path::absolute(path).map_err(ImageError::io("find", path))?;
            let layout = Directory(path);
            if layout.open("oci-layout")?.is_none() {
                let reason = "no oci-layout file in it, so no OCI layout directory".to_owned();
                return Err(ImageError::NotAnImage { path: layout.0, reason });
            }
            oci_layout::open(&layout, tag, "oci", sought)
        }
        (Transport::OciArchive, _) => oci_layout::open(&open_archive()?, tag, "oci-archive", sought),
        (Transport::DockerArchive, _) => docker_archive::open(&open_archive()?, tag, sought),
        (Transport::Directory, None) => rootfs::open(path),
        (Transport::Directory, Some(tag)) => {
            Err(ImageError::NoFile { spec: format!("{}:{tag}", path.display()) })
        }
    }
}

fn open_archive(path: &Path, store: &Store, sought: &Sought) -> Result<Archive, ImageError> {
    let path = std::path::absolute(path).map_err(ImageError::io("find", path))?;
    let metadata = std::fs::metadata(&path).map_err(ImageError::io("read", &path))?;
    // Opening a fifo would wait for ever, and a device has no end.
    if !metadata.is_file() {
        return Err(ImageError::NotAnImage { path, reason: "neither a regular file nor a directory".into() });
    }
    let file = FileRange::open(&path).map_err(ImageError::io("open", &path))?;
    match import::encoding_of(&file)? {
        Encoding::Tar => Archive::of(file),
        encoding => {
            let check = |archive: &Archive| kind(archive).map(drop);
            Archive::of(import::tar_in(&file, encoding, store, sought, &check)?)
        }
    }
}

fn open_name(spec: &str, store: &Store, sought: &Sought) -> Result<Image, ImageError> {
    let layout = Directory(store.oci_dir());
    let known = store.refs().list()?;
    if let Some((name, descriptor)) = known.iter().find(|(name, _)| name == spec) {
        return oci_layout::open_descriptor(&layout, descriptor.clone(), name.clone(), "oci", sought);
    }
    if looks_like_a_path(spec) {
        return Err(ImageError::NoFile { spec: spec.to_owned() });
    }
    let wanted: Reference =
        spec.parse().map_err(|source| ImageError::Reference { spec: spec.to_owned(), source })?;
    for candidate in wanted.candidates() {
        if let Some((name, descriptor)) = known.iter().find(|(_, known)| is_called(known, &candidate)) {
            let name = reference::familiar(name);
            return oci_layout::open_descriptor(&layout, descriptor.clone(), name, "oci", sought);
        }
    }
    let hint = wanted.familiar();
    Err(ImageError::NotFound { spec: spec.to_owned(), layout: layout.0, hint })
}

fn is_called(known: &Descriptor, wanted: &Reference) -> bool {
    let Some(name) = oci_layout::full_name(known) else { return false };
    let same_place = name.host() == wanted.host() && name.path() == wanted.path();
    same_place
        && match wanted.digest() {
            Some(digest) => known.digest == digest,
            None => name.tag() == wanted.tag(),
        }
}

fn looks_like_a_path(spec: &str) -> bool {
    spec.starts_with(['/', '.', '~'])
}
