//! Which layers an upper was made with: the second line of `work/format`.
//!
//! `made-with ID...`, or `complete-over ID...` when nothing of their content is missing in it; the base first, each by its
//! diffID or as `directory`. Numbers in the marks and in the link index are those of objects of these layers: over others they
//! would mean other files. Directories are not told from each other: nothing that lasts says which one it is, and engines
//! give the same one by different paths.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::AtFlags;

use super::error::At as _;
use super::handle::{self, path_of, pin};
use super::marks::Attributes;
use super::{Upper, UpperError};
use crate::model::{Digest, FileKind};
use crate::sys::files;

const MADE_WITH: &str = "made-with";
const COMPLETE_OVER: &str = "complete-over";
const DIRECTORY: &str = "directory";

/// The layers of an upper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MadeWith {
    /// Their diffIDs, base first; `None` for a directory.
    pub(super) layers: Vec<Option<Digest>>,
    /// Others may take their place: the numbers of these are then forgotten.
    pub(super) complete: bool,
}

impl MadeWith {
    /// What is to be written down: `layers`, or those that were `known` before.
    pub(super) fn to_be(layers: Option<&[Option<Digest>]>, known: Option<&Self>) -> Option<Self> {
        let layers = layers.or(known.map(|known| &known.layers[..]))?.to_vec();
        Some(Self { layers, complete: false })
    }

    pub(super) fn line(&self) -> String {
        let mut line = if self.complete { COMPLETE_OVER } else { MADE_WITH }.to_owned();
        for layer in &self.layers {
            line.push(' ');
            line.push_str(&named(*layer));
        }
        line.push('\n');
        line
    }

    /// Undoes [`Self::line`], the end of the line left out.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let complete = match words.next()? {
            MADE_WITH => false,
            COMPLETE_OVER => true,
            _ => return None,
        };
        let layer = |word: &str| match word {
            DIRECTORY => Some(None),
            digest => digest.parse().ok().map(Some),
        };
        Some(Self { layers: words.map(layer).collect::<Option<_>>()?, complete })
    }

    /// Whether these layers may be others under the same names, so that what they show is to be counted anew.
    pub(super) fn is_of_any_directory(&self) -> bool {
        self.complete && self.layers.contains(&None)
    }

    /// Whether the numbers in the upper at `path` are of other layers than these, and may be forgotten.
    pub(super) fn gives_way(&self, layers: &[Option<Digest>], path: &Path) -> Result<bool, UpperError> {
        if self.layers == layers {
            return Ok(false);
        }
        if self.complete {
            return Ok(true);
        }
        let first = self.layers.iter().zip(layers).take_while(|(one, other)| one == other).count();
        let told = |layers: &[Option<Digest>]| match layers.get(first) {
            Some(layer) => format!("layer {} of {} is {}", first + 1, layers.len(), named(*layer)),
            None => format!("only {} layers", layers.len()),
        };
        let (made_with, these) = (told(&self.layers), told(layers));
        Err(UpperError::OtherLayers { path: PathBuf::from(path), made_with, these })
    }
}

fn named(layer: Option<Digest>) -> String {
    layer.map_or_else(|| DIRECTORY.to_owned(), |diff_id| diff_id.to_string())
}

impl Upper {
    /// Says that nothing of the layers is missing in the upper, so that it may be used over others from now on. Nothing
    /// may be changed any more before it is opened anew.
    ///
    /// # Errors
    /// [`UpperError`]; then it still belongs to its layers.
    pub fn completed(&self) -> Result<(), UpperError> {
        match &self.made_with {
            Some(made_with) => {
                self.write_format_with(Some(&MadeWith { complete: true, ..made_with.clone() }))
            }
            None => Ok(()),
        }
    }

    /// Takes away all numbers of other layers' objects, after having seen that nothing else needs those layers. A crash
    /// leaves some, and a record that says that the numbers are nobody's.
    pub(super) fn forget_numbers(&self) -> Result<(), UpperError> {
        self.each_with_marks(|pinned, name, kind| {
            let marks = self.namespace.read(&Attributes::of(pinned.as_fd()), name, self.boot)?;
            let shares = marks.partial.is_some_and(|partial| partial.map.lower_bytes() > 0);
            let (problem, remedy) = if shares {
                ("shares content with a file of", "run layerfs complete over those")
            } else if kind == FileKind::Directory && marks.redirect.is_some() {
                ("is a renamed directory of", "mount it over those")
            } else {
                return Ok(());
            };
            let problem = format!("{problem} the layers that the upper was made with");
            Err(UpperError::Form { path: path_of(pinned, name), problem, remedy })
        })?;
        self.write_format_with(Some(&MadeWith { layers: Vec::new(), complete: true }))?;
        self.each_with_marks(|pinned, _, _| self.namespace.forget_ino(pinned))?;
        for numbered in [&self.links, &self.numbers] {
            for name in super::scratch::names(numbered)? {
                files::unlinkat(numbered, &name[..], AtFlags::empty()).at("forget a number")?;
            }
        }
        Ok(())
    }

    fn each_with_marks(
        &self,
        mut each: impl FnMut(&OwnedFd, &[u8], FileKind) -> Result<(), UpperError>,
    ) -> Result<(), UpperError> {
        super::adopt::walk(&self.root, &mut |dir| {
            for name in super::scratch::names(dir)? {
                let pinned = pin(dir, &name).at("open")?;
                let kind = handle::stat(&pinned)?.metadata.kind;
                if self.can_carry_marks(kind) {
                    each(&pinned, &name, kind)?;
                }
            }
            Ok(true)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Ino, Metadata, Name};
    use crate::upper::{Looked, Object, Origin, UpperOptions};

    const fn digest(byte: u8) -> Option<Digest> {
        Some(Digest::from_bytes([byte; 32]))
    }

    fn open(dir: &Path, layers: &[Option<Digest>]) -> Result<Upper, UpperError> {
        Upper::open_over(&dir.join("upper"), &dir.join("work"), UpperOptions::default(), layers)
    }

    fn record(dir: &Path) -> String {
        let text = std::fs::read_to_string(dir.join("work/format")).unwrap();
        text.split_once('\n').unwrap().1.to_owned()
    }

    /// A copy of an object of the first layer.
    fn copy(upper: &Upper, name: &str, kind: FileKind) -> Object {
        let root = upper.root().unwrap();
        let metadata = Metadata { kind, mode: 0o644, size: 0, ..root.attr.metadata };
        let ino = Ino(1 << 40 | 7);
        let mut origin = Origin {
            metadata,
            xattrs: Vec::new(),
            ino,
            target: b"x",
            content: &mut |_, _| Ok(0),
            keep_bytes: 0,
            later: None,
        };
        let copied = upper.copy_up(&mut origin).unwrap();
        upper.place(copied, &root.pinned, Name::new(name.as_bytes()).unwrap()).unwrap()
    }

    fn number(upper: &Upper, name: &str) -> Option<Ino> {
        match upper.look(&upper.root().unwrap().pinned, Name::new(name.as_bytes()).unwrap()).unwrap() {
            Looked::Object(object) => object.marks.ino,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn over_other_layers_it_is_refused_until_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let made_with = [digest(1), None, digest(2)];
        let upper = open(dir.path(), &made_with).unwrap();
        for (name, kind) in [("f", FileKind::Regular), ("l", FileKind::Symlink), ("d", FileKind::Directory)] {
            copy(&upper, name, kind);
        }
        upper.set_names_gone(Ino(1 << 40 | 9), 1).unwrap();
        drop(upper);
        open(dir.path(), &made_with).unwrap();
        for others in [&[digest(1), None, digest(3)][..], &[digest(1), None], &[]] {
            let error = open(dir.path(), others).unwrap_err();
            assert!(matches!(error, UpperError::OtherLayers { .. }), "{error}");
        }
        let error = open(dir.path(), &[digest(1), None, digest(3)]).unwrap_err().to_string();
        for text in
            ["layer 3 of 3 is sha256:0202", "layer 3 of 3 is sha256:0303", "layerfs complete", "upper"]
        {
            assert!(error.contains(text), "{error}");
        }
        let upper = open(dir.path(), &made_with).unwrap();
        upper.completed().unwrap();
        drop(upper);
        assert!(record(dir.path()).starts_with("complete-over sha256:0101"));
        // Its own layers: the numbers go on. One is a directory, and may have become another.
        let upper = open(dir.path(), &made_with).unwrap();
        assert!(upper.is_taking_over());
        upper.taken_over().unwrap();
        assert!(record(dir.path()).starts_with("made-with sha256:0101"));
        assert!(["f", "l", "d"].iter().all(|name| number(&upper, name) == Some(Ino(1 << 40 | 7))));
        assert_eq!(upper.with_names_gone().unwrap(), [Ino(1 << 40 | 9)]);
        upper.completed().unwrap();
        drop(upper);
        // A renamed directory needs them: nothing is forgotten.
        let renamed = dir.path().join("upper/d");
        let redirect = "trusted.overlay.redirect";
        let redirect =
            if open(dir.path(), &made_with).unwrap().namespace == crate::upper::marks::Namespace::Trusted {
                redirect
            } else {
                "user.overlay.redirect"
            };
        open(dir.path(), &made_with).unwrap().completed().unwrap();
        rustix::fs::setxattr(&renamed, redirect, b"/e", rustix::fs::XattrFlags::empty()).unwrap();
        let error = open(dir.path(), &[digest(3)]).unwrap_err().to_string();
        assert!(error.contains("upper/d: is a renamed directory of the layers"), "{error}");
        assert!(record(dir.path()).starts_with("complete-over sha256:0101"));
        rustix::fs::removexattr(&renamed, redirect).unwrap();
        // Nor when it goes back to its own: what is not taken over is counted anew by the next.
        drop(open(dir.path(), &[digest(4)]).unwrap());
        assert_eq!(record(dir.path()), "complete-over\n");
        assert!(open(dir.path(), &made_with).unwrap().is_taking_over());
        let upper = open(dir.path(), &[digest(3)]).unwrap();
        assert!(["f", "l", "d"].iter().all(|name| number(&upper, name).is_none()));
        assert_eq!(upper.with_names_gone().unwrap(), []);
        assert!(upper.is_taking_over(), "names of the new layers that it hides are to be counted");
        assert!(record(dir.path()).starts_with("complete-over"), "should this mount die here");
        upper.taken_over().unwrap();
        drop(upper);
        assert_eq!(record(dir.path()), format!("made-with sha256:{}\n", "03".repeat(32)));
        assert!(open(dir.path(), &made_with).is_err());
    }

    #[test]
    fn one_without_a_record_is_taken_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let upper = Upper::open(&dir.path().join("upper"), &dir.path().join("work")).unwrap();
        copy(&upper, "f", FileKind::Regular);
        drop(upper);
        assert_eq!(record(dir.path()), "");
        let upper = open(dir.path(), &[None]).unwrap();
        assert_eq!(number(&upper, "f"), Some(Ino(1 << 40 | 7)));
        drop(upper);
        assert_eq!(record(dir.path()), "made-with directory\n");
    }

    #[test]
    fn what_engines_share_has_no_record() {
        let dir = tempfile::tempdir().unwrap();
        let options = UpperOptions { shared: true, ..UpperOptions::default() };
        let open = |layers: &[_]| {
            Upper::open_over(&dir.path().join("upper"), &dir.path().join("work"), options, layers).map(drop)
        };
        open(&[None]).unwrap();
        open(&[None, None]).unwrap();
        assert!(!dir.path().join("work/format").exists());
    }

    #[test]
    fn lines() {
        for complete in [false, true] {
            for layers in [vec![], vec![None], vec![digest(7), None, digest(8)]] {
                let made_with = MadeWith { layers, complete };
                let line = made_with.line();
                assert_eq!(MadeWith::parse(line.strip_suffix('\n').unwrap()), Some(made_with));
            }
        }
        for line in ["", "made-with ", "made-with sha256:12", "made-by directory", "made-with directory "] {
            assert_eq!(MadeWith::parse(line), None, "{line}");
        }
    }
}
