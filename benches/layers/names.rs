//! Finding names: in the index of one layer, and through many.

use std::fs::File;
use std::hint::black_box;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use layerfs::index::{Child, Inode, InodeNumber, LayerIndex};
use layerfs::layer::Layer;
use layerfs::model::Name;
use layerfs::union::{Lower, LowerDir, Union};

use super::Bench;
use super::made::{append, name_of, open};

/// Names in the merged directory, whatever the number of layers.
const NAMES: usize = 1200;
/// Names in the one directory of a layer: as the largest that images have.
const VIEW_NAMES: usize = 10_000;
/// How often each is asked for, so that a round takes long enough to be measured.
const VIEW_TIMES: usize = 20;

impl Bench {
    /// What the index of one layer answers.
    pub(crate) fn view(&self) {
        let names = ["lookup", "lookup absent", "attributes", "list"].map(|verb| format!("view {verb}"));
        if !self.wants_any(&names) {
            return;
        }
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = dir.path().join("layer.tar");
        let mut tar = tar::Builder::new(BufWriter::new(File::create(&path).unwrap()));
        (0..VIEW_NAMES).for_each(|number| append(&mut tar, &name_of(number), b"content"));
        tar.into_inner().unwrap().flush().unwrap();
        let layer = open(&path, dir.path());
        let index = layer.index();
        let root = index.inode(index.root()).unwrap();
        self.measure(&names[0], "names/s", || ask(index, &root, 0, true));
        self.measure(&names[1], "names/s", || ask(index, &root, VIEW_NAMES, false));
        let children = index.children(&root).unwrap();
        let number = |child: &Child| match child {
            Child::Object(number) => *number,
            other => unreachable!("{other:?}"),
        };
        let objects: Vec<InodeNumber> = children.iter().map(|(_, child)| number(child)).collect();
        self.measure(&names[2], "objects/s", || {
            let start = Instant::now();
            for object in (0..VIEW_TIMES).flat_map(|_| &objects) {
                black_box(index.inode(*object).unwrap());
            }
            ((objects.len() * VIEW_TIMES) as f64, start.elapsed())
        });
        self.measure(&names[3], "names/s", || {
            let start = Instant::now();
            let listed: usize =
                (0..VIEW_TIMES).map(|_| black_box(index.children(&root).unwrap()).len()).sum();
            assert_eq!(listed, VIEW_NAMES * VIEW_TIMES);
            (listed as f64, start.elapsed())
        });
    }

    /// Lookups and listings through so many layers.
    pub(crate) fn union(&self, layers: usize) {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let names = ["lookup", "lookup absent", "lookup hidden", "list", "list hidden"];
        let names = names.map(|verb| format!("union {layers} {verb}"));
        if !self.wants_any(&names) {
            return;
        }
        let union = Union::new((0..layers).map(|layer| small_layer(dir.path(), layer, layers)).collect());
        let merged = directory(&union, "dir");
        let hidden = directory(&union, "hidden");
        assert_eq!([merged.parts.len(), hidden.parts.len()], [layers; 2]);
        self.measure(&names[0], "names/s", || look_up(&union, &merged, 0, true));
        self.measure(&names[1], "names/s", || look_up(&union, &merged, NAMES, false));
        self.measure(&names[2], "names/s", || look_up(&union, &hidden, 0, false));
        self.measure(&names[3], "names/s", || list(&union, &merged, NAMES));
        self.measure(&names[4], "names/s", || list(&union, &hidden, 0));
    }
}

/// A directory that every layer has.
fn directory(union: &Union, name: &str) -> LowerDir {
    match union.lookup(&union.root().unwrap(), Name::new(name.as_bytes()).unwrap()).unwrap() {
        Some(Lower::Dir(dir)) => dir,
        other => unreachable!("{other:?}"),
    }
}

/// Names that were gone through, each once, of which `shown` are shown.
fn list(union: &Union, dir: &LowerDir, shown: usize) -> (f64, Duration) {
    let start = Instant::now();
    assert_eq!(black_box(union.list(dir).unwrap()).len(), shown);
    (NAMES as f64, start.elapsed())
}

/// Asks for names one after the other.
fn ask(index: &LayerIndex, dir: &Inode, first: usize, there: bool) -> (f64, Duration) {
    let names: Vec<String> = (first..first + VIEW_NAMES).map(name_of).collect();
    let start = Instant::now();
    for name in (0..VIEW_TIMES).flat_map(|_| &names) {
        let found = index.child(dir, Name::new(name.as_bytes()).unwrap()).unwrap();
        assert_eq!(found.is_some(), there);
    }
    ((VIEW_NAMES * VIEW_TIMES) as f64, start.elapsed())
}

fn look_up(union: &Union, dir: &LowerDir, first: usize, there: bool) -> (f64, Duration) {
    let names: Vec<String> = (first..first + NAMES).map(name_of).collect();
    let start = Instant::now();
    for name in &names {
        let found = union.lookup(dir, Name::new(name.as_bytes()).unwrap()).unwrap();
        assert_eq!(found.is_some(), there);
    }
    (NAMES as f64, start.elapsed())
}

/// A layer with its share of the names of one directory, and of the whiteouts in another, whose names the base has.
fn small_layer(dir: &Path, number: usize, layers: usize) -> Arc<dyn Layer> {
    let path = dir.join(format!("{number}.tar"));
    let mut tar = tar::Builder::new(BufWriter::new(File::create(&path).unwrap()));
    for name in (number..NAMES).step_by(layers) {
        append(&mut tar, &format!("dir/{}", name_of(name)), b"content");
    }
    let (hidden, mark) = match number {
        0 => ((0..NAMES).step_by(1), ""),
        _ => ((number - 1..NAMES).step_by(layers - 1), ".wh."),
    };
    for name in hidden {
        append(&mut tar, &format!("hidden/{mark}{}", name_of(name)), b"");
    }
    tar.into_inner().unwrap().flush().unwrap();
    let own = dir.join(format!("{number}"));
    std::fs::create_dir(&own).unwrap();
    Arc::new(open(&path, &own))
}
