//! `ls`: the objects of a directory, or of all below it.

use std::sync::Arc;

use super::bytes_text::{Quoting, safe_json, shown};
use super::entry::Entry;
use super::{LookError, Sink, find};
use crate::model::limits::DEPTH_MAX;
use crate::union::{LastSymlink, LinkCounts, Lower, LowerDir, Union};

/// How a directory is listed.
#[derive(Clone, Copy, Debug)]
pub struct Listing {
    /// With type, permissions, links, owner, size and time.
    pub long: bool,
    /// With everything below, each directory under its own heading.
    pub recursive: bool,
    /// As a JSON array of objects.
    pub json: bool,
    /// How names are shown, but in JSON.
    pub quoting: Quoting,
}

/// Lists a directory, or the object itself if it is none. All names are shown; there are no `.` and `..`.
///
/// # Errors
/// [`LookError`]; what was given before is right.
pub fn list(union: &Union, path: &[u8], listing: Listing, sink: &mut Sink<'_>) -> Result<(), LookError> {
    // As ls(1): the long form shows a symlink itself.
    let last = if listing.long { LastSymlink::Keep } else { LastSymlink::Follow };
    let (real, lower) = match find(union, path, last) {
        Err(LookError::Absent { .. }) if !listing.long => find(union, path, LastSymlink::Keep)?,
        found => found?,
    };
    let mut writer = Writer { union, listing, sink, counts: LinkCounts::default(), told: 0 };
    writer.put(if listing.json { b"[" } else { b"" })?;
    match lower {
        Lower::Dir(dir) if listing.recursive => writer.walk(path, &real, &dir, 0)?,
        Lower::Dir(dir) => writer.dir(&real, &dir).map(drop)?,
        leaf => {
            let entry = Entry::of(union, &real, leaf).map_err(layer_error(path))?;
            writer.rows(&[entry], Some(path))?;
        }
    }
    writer.put(match (listing.json, writer.told) {
        (false, _) => b"",
        (true, 0) => b"]\n",
        (true, _) => b"\n]\n",
    })
}

/// The objects of a directory, sorted by the bytes of their names.
pub(super) fn entries(union: &Union, real: &[u8], dir: &LowerDir) -> Result<Vec<Entry>, LookError> {
    let mut entries = Vec::new();
    let failed = layer_error(real);
    let place = Arc::from(real);
    for name in union.list(dir).map_err(&failed)?.into_keys() {
        // Found again, because a directory is made of several parts.
        let Some(lower) = union.lookup(dir, name.as_name()).map_err(&failed)? else { continue };
        entries.push(Entry::below(union, &place, name.as_bytes(), lower).map_err(&failed)?);
    }
    Ok(entries)
}

pub(super) fn layer_error(path: &[u8]) -> impl Fn(crate::layer::LayerError) -> LookError + use<> {
    let path = shown(path);
    move |source| LookError::Layer { path: path.clone(), source }
}

struct Writer<'a, 'b> {
    union: &'a Union,
    listing: Listing,
    sink: &'a mut Sink<'b>,
    counts: LinkCounts,
    /// Objects so far.
    told: u64,
}

impl Writer<'_, '_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), LookError> {
        (self.sink)(bytes).map_err(LookError::Output)
    }

    fn links(&self, entry: &Entry) -> Result<u32, LookError> {
        entry.links(self.union, &self.counts).map_err(layer_error(&entry.path()))
    }

    fn dir(&mut self, real: &[u8], dir: &LowerDir) -> Result<Vec<Entry>, LookError> {
        let entries = entries(self.union, real, dir)?;
        self.rows(&entries, None)?;
        Ok(entries)
    }

    /// `typed` is how the heading calls the directory.
    fn walk(&mut self, typed: &[u8], real: &[u8], dir: &LowerDir, depth: usize) -> Result<(), LookError> {
        if depth > DEPTH_MAX {
            return Ok(());
        }
        if !self.listing.json {
            let heading = self.listing.quoting.quoted(typed);
            self.put(&[if depth > 0 { b"\n" } else { &b""[..] }, &heading, b":\n"].concat())?;
        }
        for entry in self.dir(real, dir)? {
            if let Lower::Dir(below) = &entry.lower {
                let slash: &[u8] = if typed.ends_with(b"/") { b"" } else { b"/" };
                self.walk(&[typed, slash, entry.name()].concat(), &entry.path(), below, depth + 1)?;
            }
        }
        Ok(())
    }

    /// `typed` is how one is called that was asked for by itself.
    fn rows(&mut self, rows: &[Entry], typed: Option<&[u8]>) -> Result<(), LookError> {
        let columns: Vec<[String; 6]> = match self.listing.long && !self.listing.json {
            true => rows
                .iter()
                .map(|entry| Ok(entry.columns(self.links(entry)?)))
                .collect::<Result<_, LookError>>()?,
            false => Vec::new(),
        };
        let mut widths = [0; 6];
        for (width, column) in columns.iter().flat_map(|row| widths_of(row).into_iter().enumerate()) {
            widths[width] = widths[width].max(column);
        }
        for (number, entry) in rows.iter().enumerate() {
            let name = typed.unwrap_or(entry.name());
            let failed = |error| layer_error(&entry.path())(error);
            if self.listing.json {
                let object = entry.json(self.union, &self.counts).map_err(failed)?;
                let object = serde_json::Value::from(object).to_string();
                let comma = if self.told > 0 { "," } else { "" };
                self.put(format!("{comma}\n{}", safe_json(&object)).as_bytes())?;
            } else if let Some(row) = columns.get(number) {
                let cell = |(text, width): (&String, &usize)| format!("{text:>width$} ");
                let mut line: Vec<u8> =
                    row.iter().zip(&widths).flat_map(|pair| cell(pair).into_bytes()).collect();
                line.extend(entry.label(self.union, name, self.listing.quoting).map_err(failed)?);
                line.push(b'\n');
                self.put(&line)?;
            } else {
                self.put(&[&self.listing.quoting.quoted(name)[..], b"\n"].concat())?;
            }
            self.told += 1;
        }
        Ok(())
    }
}

fn widths_of(row: &[String; 6]) -> [usize; 6] {
    row.each_ref().map(String::len)
}
