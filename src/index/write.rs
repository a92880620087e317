//! Turns what a build found into the bytes of an index.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};

use zerocopy::IntoBytes as _;

use super::format::{
    self, BelowRecord, DirentRecord, ExtentRecord, Header, InodeRecord, LinkRecord, PAGE_BYTES, SECTIONS,
    Section, SectionRecord, SpanRecord,
};
use super::tree::{Child, Data, NameOf, Node, NodeId, NodeKind, ROOT, Tree, to_usize};
use crate::model::{Digest, FileKind};

/// What is known of the layer besides its tree.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) encoding: u32,
    pub(super) blob_digest: Digest,
    pub(super) diff_id: Digest,
    pub(super) blob_bytes: u64,
    pub(super) tar_bytes: u64,
    pub(super) granules: Vec<[u8; 32]>,
    pub(super) spans: Vec<SpanRecord>,
    pub(super) windows: Vec<u8>,
}

/// Writes the index.
pub(super) fn write(file: &mut dyn Write, facts: &Facts, tree: &Tree, names: &[NameOf]) -> io::Result<()> {
    let mut objects = Objects::new(tree, names);
    objects.number_all()?;
    let (inodes, extents, xattrs) = objects.records()?;
    let mut body = Vec::new();
    let mut sections = [SectionRecord::default(); SECTIONS];
    let mut add = |section: Section, bytes: &[u8]| {
        let (offset, len) = ((body.len() as u64).into(), (bytes.len() as u64).into());
        sections[section as usize] = SectionRecord { offset, len };
        body.extend_from_slice(bytes);
    };
    add(Section::Inodes, inodes.as_bytes());
    add(Section::Dirents, objects.dirents.as_bytes());
    add(Section::Strings, &tree.strings.heap);
    add(Section::Xattrs, &xattrs);
    add(Section::Extents, extents.as_bytes());
    add(Section::Links, objects.links().as_bytes());
    add(Section::Below, objects.below.as_bytes());
    add(Section::Spans, facts.spans.as_bytes());
    add(Section::Windows, &facts.windows);
    add(Section::Granules, facts.granules.as_bytes());

    let page_bytes = usize::try_from(PAGE_BYTES).map_err(io::Error::other)?;
    let table: Vec<[u8; 32]> = body.chunks(page_bytes).map(|page| *blake3::hash(page).as_bytes()).collect();
    let mut header = Header {
        magic: format::MAGIC,
        version: format::VERSION.into(),
        encoding: facts.encoding.into(),
        checksum: [0; 32],
        blob_digest: *facts.blob_digest.as_bytes(),
        diff_id: *facts.diff_id.as_bytes(),
        blob_bytes: facts.blob_bytes.into(),
        tar_bytes: facts.tar_bytes.into(),
        body_bytes: (body.len() as u64).into(),
        sections,
        reserved: [0; 24],
    };
    header.checksum = format::checksum(&header, table.as_bytes());
    file.write_all(header.as_bytes())?;
    file.write_all(table.as_bytes())?;
    file.write_all(&body)
}

/// Numbers objects from the root down, directory by directory, so that what is listed together lies together.
struct Objects<'a> {
    tree: &'a Tree,
    names: &'a [NameOf],
    /// For each node its number, once it has one.
    numbers: Vec<Option<u32>>,
    order: Vec<Numbered>,
    dirents: Vec<DirentRecord>,
    below: Vec<BelowRecord>,
    all_links: Vec<LinkRecord>,
}

/// A node that has a number.
struct Numbered {
    node: NodeId,
    names: u32,
    /// Of a directory.
    parent: u32,
    own_dirent: u32,
    first: u32,
    count: u32,
}

fn narrow(number: usize) -> io::Result<u32> {
    u32::try_from(number).map_err(|_| io::Error::other("the layer has too many objects for an index"))
}

impl<'a> Objects<'a> {
    fn new(tree: &'a Tree, names: &'a [NameOf]) -> Self {
        let numbers = vec![None; tree.nodes.len()];
        Self {
            tree,
            names,
            numbers,
            order: Vec::new(),
            dirents: Vec::new(),
            below: Vec::new(),
            all_links: Vec::new(),
        }
    }

    fn node(&self, id: NodeId) -> io::Result<&'a Node> {
        self.tree.nodes.get(to_usize(id)).ok_or_else(|| io::Error::other("an object is not there"))
    }

    fn number_all(&mut self) -> io::Result<()> {
        let mut directories = VecDeque::from([self.number(ROOT, 0, 0)?]);
        while let Some(directory) = directories.pop_front() {
            let node = self.order[to_usize(directory)].node;
            let start = self.names.partition_point(|name| name.dir < node);
            let stop = self.names.partition_point(|name| name.dir <= node);
            let first = narrow(self.dirents.len())?;
            for name in &self.names[start..stop] {
                if let Some(child) = self.add_name(directory, *name)? {
                    directories.push_back(child);
                }
            }
            let count = narrow(stop - start)?;
            let numbered = &mut self.order[to_usize(directory)];
            (numbered.first, numbered.count) = (first, count);
        }
        Ok(())
    }

    fn number(&mut self, node: NodeId, parent: u32, own_dirent: u32) -> io::Result<u32> {
        let number = narrow(self.order.len())?;
        self.order.push(Numbered { node, names: 0, parent, own_dirent, first: 0, count: 0 });
        if let Some(slot) = self.numbers.get_mut(to_usize(node)) {
            *slot = Some(number);
        }
        Ok(number)
    }

    /// Adds a dirent; returns the number of the directory that it names, if it does.
    fn add_name(&mut self, parent: u32, name: NameOf) -> io::Result<Option<u32>> {
        let dirent = narrow(self.dirents.len())?;
        let mut directory = None;
        let (kind, target) = match name.child {
            Child::Whiteout => (format::DIRENT_WHITEOUT, 0),
            Child::Pending(pending) => {
                let path = self.tree.pending.get(to_usize(pending)).copied().unwrap_or_default();
                let (offset, len) = self.tree.strings.place(path);
                self.below.push(BelowRecord { offset: offset.into(), len: len.into() });
                (format::DIRENT_BELOW, narrow(self.below.len() - 1)?)
            }
            Child::Node(id) => {
                let known = self.numbers.get(to_usize(id)).copied().flatten();
                let number = match known {
                    Some(number) => number,
                    None => self.number(id, parent, dirent)?,
                };
                if matches!(self.node(id)?.kind, NodeKind::Directory { .. }) {
                    directory = Some(number);
                }
                self.order[to_usize(number)].names += 1;
                self.all_links.push(LinkRecord {
                    inode: number.into(),
                    parent: parent.into(),
                    dirent: dirent.into(),
                });
                (format::DIRENT_OBJECT, number)
            }
        };
        let (offset, len) = self.tree.strings.place(name.name);
        self.dirents.push(DirentRecord {
            name: offset.into(),
            target: target.into(),
            name_len: u16::try_from(len).map_err(io::Error::other)?.into(),
            kind,
            reserved: 0,
        });
        Ok(directory)
    }

    fn links(&self) -> Vec<LinkRecord> {
        let has_more = |link: &&LinkRecord| {
            self.order.get(to_usize(link.inode.get())).is_some_and(|node| node.names > 1)
        };
        let mut links: Vec<_> = self.all_links.iter().filter(has_more).copied().collect();
        links.sort_by_key(|link| (link.inode.get(), link.dirent.get()));
        links
    }

    fn records(&self) -> io::Result<(Vec<InodeRecord>, Vec<ExtentRecord>, Vec<u8>)> {
        let mut extents = Vec::new();
        let mut xattrs = Xattrs::new();
        let mut inodes = Vec::with_capacity(self.order.len());
        for numbered in &self.order {
            let node = self.node(numbered.node)?;
            inodes.push(self.record(numbered, node, &mut extents, &mut xattrs)?);
        }
        Ok((inodes, extents, xattrs.heap))
    }

    fn record(
        &self,
        numbered: &Numbered,
        node: &Node,
        extents: &mut Vec<ExtentRecord>,
        xattrs: &mut Xattrs,
    ) -> io::Result<InodeRecord> {
        let (mut first, mut count, mut size, mut flags) = (numbered.first, numbered.count, 0, 0);
        let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        let (kind, place) = match &node.kind {
            NodeKind::File { size: bytes, data: Data::Contiguous(place) } => {
                size = *bytes;
                (FileKind::Regular, *place)
            }
            NodeKind::File { size: bytes, data: Data::Sparse(hunks) } => {
                (size, flags) = (*bytes, format::FLAG_SPARSE);
                (first, count) = (narrow(extents.len())?, narrow(hunks.len())?);
                extents.extend(hunks.iter().map(|hunk| ExtentRecord {
                    file_offset: hunk.file_offset.into(),
                    len: hunk.len.into(),
                    tar_offset: hunk.tar_offset.into(),
                }));
                (FileKind::Regular, 0)
            }
            NodeKind::Directory { implied, opaque } => {
                flags |= if *implied { format::FLAG_IMPLIED } else { 0 };
                flags |= if *opaque { format::FLAG_OPAQUE } else { 0 };
                (FileKind::Directory, pair(numbered.parent, numbered.own_dirent))
            }
            NodeKind::Symlink(target) => {
                let (offset, len) = self.tree.strings.place(*target);
                size = u64::from(len);
                (FileKind::Symlink, u64::from(offset))
            }
            NodeKind::CharDevice(id) => (FileKind::CharDevice, pair(id.major, id.minor)),
            NodeKind::BlockDevice(id) => (FileKind::BlockDevice, pair(id.major, id.minor)),
            NodeKind::Fifo => (FileKind::Fifo, 0),
        };
        if numbered.names > 1 {
            flags |= format::FLAG_LINKED;
        }
        let attributes = &node.attributes;
        // Nothing else is possible for a symlink on Linux, whatever the archive says.
        let mode = if kind == FileKind::Symlink { 0o777 } else { attributes.mode };
        Ok(InodeRecord {
            size: size.into(),
            place: place.into(),
            mtime_secs: attributes.mtime.secs.into(),
            mtime_nanos: attributes.mtime.nanos.into(),
            uid: attributes.uid.into(),
            gid: attributes.gid.into(),
            xattrs: xattrs.add(&attributes.xattrs)?.into(),
            first: first.into(),
            count: count.into(),
            mode: mode.into(),
            kind: u8::try_from(kind.st_mode() >> 12).map_err(io::Error::other)?,
            flags,
        })
    }
}

/// Sets of extended attributes, each once: most objects that have any have the same.
struct Xattrs {
    heap: Vec<u8>,
    known: HashMap<Vec<u8>, u32>,
}

impl Xattrs {
    fn new() -> Self {
        // At 0 the empty set.
        Self { heap: vec![0; 4], known: HashMap::new() }
    }

    fn add(&mut self, xattrs: &[(Vec<u8>, Vec<u8>)]) -> io::Result<u32> {
        if xattrs.is_empty() {
            return Ok(0);
        }
        let mut set = narrow(xattrs.len())?.to_le_bytes().to_vec();
        for (name, value) in xattrs {
            set.extend(u16::try_from(name.len()).map_err(io::Error::other)?.to_le_bytes());
            set.extend(narrow(value.len())?.to_le_bytes());
            set.extend_from_slice(name);
            set.extend_from_slice(value);
        }
        if let Some(offset) = self.known.get(&set) {
            return Ok(*offset);
        }
        let offset = narrow(self.heap.len())?;
        self.heap.extend_from_slice(&set);
        self.known.insert(set, offset);
        Ok(offset)
    }
}
