//! `COPY`, `ADD` and `WORKDIR`: layers made from files of the caller, or of nothing but directories.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write};

use super::StepError;
use super::context::{Context, Source};
use super::layer_tar::{Entry, LayerTar};
use super::place::{self, Place};
use super::steps::Copy;
use crate::fs::Fs;
use crate::model::{DeviceId, FileKind, Metadata, Timestamp};

/// Owner and group.
type Owner = (u32, u32);

/// What makes a file an archive that docker's `ADD` unpacks: bytes and where they are.
const ARCHIVES: [(usize, &[u8]); 5] =
    [(0, b"\x1f\x8b"), (0, b"BZh"), (0, b"\xfd7zXZ"), (0, b"\x28\xb5\x2f\xfd"), (257, b"ustar")];

/// Makes the directories of a path that are not there.
pub(super) fn make_dirs<W: Write>(
    fs: &Fs,
    path: &str,
    now: Timestamp,
    layer: &mut LayerTar<W>,
) -> Result<(), StepError> {
    let place = place::resolve(fs, path.as_bytes())?;
    if place.kind.is_some_and(|kind| kind != FileKind::Directory) {
        return Err(format!("{path}: not a directory in the image").into());
    }
    missing_dirs(&place, place.names.len(), (0, 0), now, layer)
}

/// Writes what `copy`, all variables put in, brings into the image. A relative destination is below `workdir`.
pub(super) fn layer<W: Write>(
    fs: &Fs,
    context: &Context,
    copy: &Copy,
    workdir: &str,
    now: Timestamp,
    layer: &mut LayerTar<W>,
) -> Result<(), StepError> {
    let owner = owner(fs, copy.chown.as_deref())?;
    let mode = copy.chmod.as_deref().map(octal).transpose()?;
    let destination = if copy.destination.starts_with('/') {
        copy.destination.clone()
    } else {
        format!("{workdir}/{}", copy.destination)
    };
    let mut sources = Vec::new();
    for source in &copy.sources {
        sources.extend(context.find(source)?);
    }
    let place = place::resolve(fs, destination.as_bytes())?;
    let says_dir = ["/", "/.", "/.."].iter().any(|end| destination.ends_with(end));
    if sources.len() > 1 && !says_dir {
        return Err(StepError::Asked("with more than one source the destination must end with /".to_owned()));
    }
    let any_dir = sources.iter().any(|source| source.kind == FileKind::Directory);
    let into_dir = says_dir || any_dir || place.kind == Some(FileKind::Directory);
    if into_dir && place.kind.is_some_and(|kind| kind != FileKind::Directory) {
        return Err(format!("{destination}: not a directory in the image").into());
    }
    let target = place.names.join(&b'/');
    let mut items: BTreeMap<Vec<u8>, Source> = BTreeMap::new();
    for source in sources {
        match source.kind {
            FileKind::Directory => {
                for child in context.below(&source)? {
                    items.insert(below(&target, &child.name), child);
                }
            }
            _ if copy.is_add && is_archive(&source)? => {
                let path = source.path.display();
                return Err(format!("{path}: ADD does not unpack archives: use COPY and RUN tar").into());
            }
            _ if into_dir => {
                let name = source.name.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
                items.insert(below(&target, &name), source);
            }
            _ => {
                items.insert(target.clone(), source);
            }
        }
    }
    let dirs = if into_dir { place.names.len() } else { place.names.len().saturating_sub(1) };
    missing_dirs(&place, dirs, owner, now, layer)?;
    for (path, item) in &items {
        write(fs, path, item, owner, mode, layer)?;
    }
    Ok(())
}

fn write<W: Write>(
    fs: &Fs,
    path: &[u8],
    item: &Source,
    owner: Owner,
    mode: Option<u16>,
    layer: &mut LayerTar<W>,
) -> Result<(), StepError> {
    let is_dir = item.kind == FileKind::Directory;
    if place::kind_at(fs, path)?.is_some_and(|kind| (kind == FileKind::Directory) != is_dir) {
        let (what, there) = if is_dir { ("a directory", "none") } else { ("no directory", "one") };
        let path = path.escape_ascii();
        return Err(format!("/{path}: {what} in the build context, but {there} in the image").into());
    }
    let mode = mode.filter(|_| item.kind != FileKind::Symlink).unwrap_or(item.mode);
    let metadata = Metadata { size: item.size, ..object(item.kind, mode, owner, item.mtime) };
    let entry = Entry { metadata, xattrs: &[], target: &item.target };
    let written = if item.kind == FileKind::Regular {
        let mut file = File::open(&item.path).map_err(StepError::context(&item.path))?;
        layer.object(path, &entry, &mut file)
    } else {
        layer.object(path, &entry, &mut std::io::empty())
    };
    written.map_err(StepError::context(&item.path))
}

fn missing_dirs<W: Write>(
    place: &Place,
    count: usize,
    owner: Owner,
    now: Timestamp,
    layer: &mut LayerTar<W>,
) -> Result<(), StepError> {
    for length in place.existing + 1..=count {
        let path = place.names[..length].join(&b'/');
        let metadata = object(FileKind::Directory, 0o755, owner, now);
        let entry = Entry { metadata, xattrs: &[], target: &[] };
        layer.object(&path, &entry, &mut std::io::empty()).map_err(StepError::Layer)?;
    }
    Ok(())
}

fn object(kind: FileKind, mode: u16, owner: Owner, mtime: Timestamp) -> Metadata {
    Metadata { kind, mode, uid: owner.0, gid: owner.1, rdev: DeviceId::default(), size: 0, mtime }
}

fn below(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

fn is_archive(source: &Source) -> Result<bool, StepError> {
    let mut head = Vec::new();
    if source.kind == FileKind::Regular {
        let read = File::open(&source.path).and_then(|file| file.take(262).read_to_end(&mut head));
        read.map_err(StepError::context(&source.path))?;
    }
    Ok(ARCHIVES.iter().any(|(at, magic)| head.get(*at..).is_some_and(|rest| rest.starts_with(magic))))
}

fn octal(text: &str) -> Result<u16, StepError> {
    let mode = u16::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
    mode.ok_or_else(|| StepError::Asked(format!("--chmod={text}: only octal modes are supported")))
}

/// `user[:group]`, names or numbers; a user's number is also the group's, a user's name brings its own group.
fn owner(fs: &Fs, text: Option<&str>) -> Result<Owner, StepError> {
    let Some(text) = text else { return Ok((0, 0)) };
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let found = |file: &str, name: &str| -> Result<Vec<String>, StepError> {
        let text = place::read_text(fs, file.as_bytes())?;
        let lines = text.lines().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
        let mut lines = lines.filter(|fields| fields.first().is_some_and(|first| first == name));
        lines.next().ok_or_else(|| StepError::Asked(format!("--chown={name}: not in the image's {file}")))
    };
    let field = |file: &str, fields: &[String], at: usize| -> Result<u32, StepError> {
        let number = fields.get(at).and_then(|field| field.parse().ok());
        number.ok_or_else(|| StepError::Asked(format!("{file}: not a number for {}", fields.join(":"))))
    };
    let (uid, own_group) = match user.parse() {
        Ok(number) => (number, number),
        Err(_) => {
            let entry = found("/etc/passwd", user)?;
            (field("/etc/passwd", &entry, 2)?, field("/etc/passwd", &entry, 3)?)
        }
    };
    let gid = match group.map(|group| (group, group.parse())) {
        None => own_group,
        Some((_, Ok(number))) => number,
        Some((name, Err(_))) => field("/etc/group", &found("/etc/group", name)?, 2)?,
    };
    Ok((uid, gid))
}
