//! `tree`: a directory and what is below, drawn.

use super::bytes_text::{Quoting, safe_json, shown};
use super::entry::{Entry, kind_word};
use super::listing::{entries, layer_error};
use super::{LookError, Sink, find};
use crate::model::limits::DEPTH_MAX;
use crate::union::{LastSymlink, LinkCounts, Lower, LowerDir, Union};

/// Draws a tree, or gives it as nested JSON objects (`contents` of directories), down to `depth_max` levels.
///
/// # Errors
/// [`LookError`]; what was given before is right.
pub fn tree(
    union: &Union,
    path: &[u8],
    depth_max: Option<usize>,
    json: bool,
    quoting: Quoting,
    sink: &mut Sink<'_>,
) -> Result<(), LookError> {
    let (real, lower) = find(union, path, LastSymlink::Follow)?;
    let root = Entry::of(union, &real, lower).map_err(layer_error(path))?;
    let Lower::Dir(_) = root.lower else {
        return Err(LookError::NotDirectory {
            path: shown(path),
            at: format!("a {}", kind_word(root.metadata.kind)),
        });
    };
    let depth_max = depth_max.unwrap_or(DEPTH_MAX).min(DEPTH_MAX);
    let counts = LinkCounts::default();
    let mut drawing = Drawing { union, counts, depth_max, quoting, sink, dirs: 0, others: 0 };
    if json {
        drawing.object(&root, 0)?;
        return drawing.put(b"\n");
    }
    drawing.put(&[&quoting.quoted(path)[..], b"\n"].concat())?;
    let mut bars = Vec::new();
    if let Lower::Dir(dir) = &root.lower {
        drawing.branches(&root, dir, &mut bars)?;
    }
    let (dirs, others) = (drawing.dirs, drawing.others);
    let word = |count, one, many| if count == 1 { one } else { many };
    let (dirs_word, others_word) = (word(dirs, "directory", "directories"), word(others, "file", "files"));
    drawing.put(format!("\n{dirs} {dirs_word}, {others} {others_word}\n").as_bytes())
}

struct Drawing<'a, 'b> {
    union: &'a Union,
    counts: LinkCounts,
    depth_max: usize,
    quoting: Quoting,
    sink: &'a mut Sink<'b>,
    dirs: u64,
    others: u64,
}

impl Drawing<'_, '_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), LookError> {
        (self.sink)(bytes).map_err(LookError::Output)
    }

    /// `bars` says of each level above whether more comes there.
    fn branches(&mut self, of: &Entry, dir: &LowerDir, bars: &mut Vec<bool>) -> Result<(), LookError> {
        if bars.len() >= self.depth_max {
            return Ok(());
        }
        let entries = entries(self.union, &of.path(), dir)?;
        let count = entries.len();
        for (number, entry) in entries.into_iter().enumerate() {
            let is_last = number + 1 == count;
            let mut line: Vec<u8> =
                bars.iter().flat_map(|more| if *more { b"|   " } else { b"    " }).copied().collect();
            line.extend_from_slice(if is_last { b"`-- " } else { b"|-- " });
            let label = entry.label(self.union, entry.name(), self.quoting);
            line.extend(label.map_err(|error| layer_error(&entry.path())(error))?);
            line.push(b'\n');
            self.put(&line)?;
            match &entry.lower {
                Lower::Dir(below) => {
                    self.dirs += 1;
                    bars.push(!is_last);
                    self.branches(&entry, below, bars)?;
                    bars.pop();
                }
                _ => self.others += 1,
            }
        }
        Ok(())
    }

    fn object(&mut self, entry: &Entry, depth: usize) -> Result<(), LookError> {
        let object = entry.json(self.union, &self.counts).map_err(layer_error(&entry.path()))?;
        let text = safe_json(&serde_json::Value::from(object).to_string());
        let Lower::Dir(dir) = &entry.lower else { return self.put(text.as_bytes()) };
        // Contents are written as they are met, behind the object's other members.
        self.put(text.strip_suffix('}').unwrap_or(&text).as_bytes())?;
        self.put(b",\"contents\":[")?;
        if depth < self.depth_max {
            for (number, child) in entries(self.union, &entry.path(), dir)?.iter().enumerate() {
                self.put(if number > 0 { b",\n" } else { b"\n" })?;
                self.object(child, depth + 1)?;
            }
        }
        self.put(b"]}")
    }
}
