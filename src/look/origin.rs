//! `which`: which layer each version of a path comes from, and what hides it.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::LookError;
use super::bytes_text::{self, shown, told};
use super::entry::{kind_word, mode_text};
use super::listing::layer_error;
use crate::image::{Image, created_by};
use crate::layer::LayerSource;
use crate::model::rfc3339::{self, Precision};
use crate::model::{FileKind, Metadata};
use crate::union::{FollowError, Hider, How, LastSymlink, Said, Target, Union, What};

/// What the layers say of a path, topmost first.
#[derive(Debug)]
pub struct Origin {
    /// As it was typed.
    pub typed: Vec<u8>,
    /// Where symlinks on the way lead; the last name is not followed.
    pub real: Vec<u8>,
    /// Whether anything is there.
    pub is_visible: bool,
    said: Vec<Said>,
    layers: Vec<LayerFacts>,
}

#[derive(Debug)]
struct LayerFacts {
    /// A diffID, or the path of a directory.
    id: String,
    created_by: Option<String>,
}

/// Asks all layers of an image for a path.
///
/// # Errors
/// [`LookError`]; that nothing is there is none.
pub fn which(image: &Image, union: &Union, path: &[u8]) -> Result<Origin, LookError> {
    let place = union.follow(path, LastSymlink::Keep).map_err(|error| match error {
        FollowError::Loop => LookError::Loop { path: shown(path) },
        FollowError::Layer(source) => layer_error(path)(source),
    })?;
    let said = union.trace(&place.path).map_err(layer_error(path))?;
    let made = created_by(&image.config, image.layers.len());
    let facts = |(source, created_by): (&LayerSource, Option<String>)| LayerFacts {
        id: match source {
            LayerSource::Tar(tar) => tar.diff_id.to_string(),
            LayerSource::Directory(path) => path.display().to_string(),
        },
        created_by,
    };
    let layers = image.layers.iter().zip(made).map(facts).collect();
    let is_visible = matches!(place.target, Target::Found(_));
    Ok(Origin { typed: path.to_vec(), real: place.path, is_visible, said, layers })
}

impl Origin {
    fn facts(&self, said: &Said) -> Option<&LayerFacts> {
        self.layers.get(usize::from(said.layer.0))
    }

    /// A part of the path, from the root.
    fn part(&self, bytes: usize) -> String {
        shown(&[b"/", self.real.get(..bytes).unwrap_or_default()].concat())
    }

    fn hider(&self, hider: Hider) -> String {
        let layer = hider.layer.0 + 1;
        let at = self.part(hider.of.0);
        match hider.how {
            How::Replaced => format!("hidden by what layer {layer} has there"),
            How::Whiteout => format!("hidden by layer {layer}, which deletes {at}"),
            How::Opaque => format!("hidden by layer {layer}, whose {at} is opaque"),
            How::NotDirectory => format!("hidden by layer {layer}, where {at} is no directory"),
        }
    }

    fn what(&self, what: &What) -> String {
        match what {
            What::Object(_, entry) => {
                let note = match (entry.opaque, entry.implied) {
                    (true, _) => ", opaque",
                    (_, true) => ", not mentioned itself",
                    _ => "",
                };
                format!("{}{note}", described(&entry.metadata))
            }
            What::LinkBelow(target) => {
                format!("hard link to {} of a layer below", shown(&[b"/", &target[..]].concat()))
            }
            What::Whiteout(of) => format!("deletes {}", self.part(of.0)),
            What::Opaque(of) => format!("makes {} opaque: nothing from below is in it", self.part(of.0)),
            What::NotDirectory(of, kind) => format!("has a {} at {}", kind_word(*kind), self.part(of.0)),
        }
    }

    /// For people: a line for each statement, and who made the layer.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.part(self.real.len()));
        let mut seen = false;
        for said in &self.said {
            let is_object = matches!(said.what, What::Object(..) | What::LinkBelow(_));
            let state = match said.hidden_by {
                Some(hider) => format!("  [{}]", self.hider(hider)),
                None if is_object && seen => "  [visible, merged]".to_owned(),
                None if is_object && self.is_visible => "  [visible]".to_owned(),
                None => String::new(),
            };
            seen |= is_object && said.hidden_by.is_none();
            let id = self.facts(said).map_or_else(String::new, |facts| told(&facts.id));
            // Writing into a String cannot fail.
            writeln!(text, "layer {} {id}\n    {}{state}", said.layer.0 + 1, self.what(&said.what)).ok();
            if let Some(made) = self.facts(said).and_then(|facts| facts.created_by.as_deref()) {
                writeln!(text, "    made by: {}", told(made)).ok();
            }
        }
        if self.said.is_empty() {
            text.push_str("no layer says anything of it\n");
        }
        text
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut object = Map::new();
        bytes_text::put(&mut object, "path", &self.typed);
        bytes_text::put(&mut object, "resolved", &[b"/", &self.real[..]].concat());
        object.insert("visible".to_owned(), self.is_visible.into());
        let statements: Vec<Value> = self.said.iter().map(|said| self.statement(said).into()).collect();
        object.insert("layers".to_owned(), statements.into());
        object.into()
    }

    fn statement(&self, said: &Said) -> Map<String, Value> {
        let facts = self.facts(said);
        let mut object = Map::new();
        let mut set = |key: &str, value: Value| object.insert(key.to_owned(), value);
        set("layer", (said.layer.0 + 1).into());
        set("id", facts.map(|facts| facts.id.clone()).into());
        set("created_by", facts.and_then(|facts| facts.created_by.clone()).into());
        set("text", self.what(&said.what).into());
        set("visible", (said.hidden_by.is_none() && matches!(said.what, What::Object(..))).into());
        match &said.what {
            What::Object(_, entry) => {
                set("what", "object".into());
                set("opaque", entry.opaque.into());
                set("implied", entry.implied.into());
                let metadata = &entry.metadata;
                set("type", kind_word(metadata.kind).into());
                set("mode", format!("{:04o}", metadata.mode).into());
                set("uid", metadata.uid.into());
                set("gid", metadata.gid.into());
                set("size", metadata.size.into());
                set("mtime", rfc3339::text(metadata.mtime, Precision::Nanoseconds).into());
            }
            What::LinkBelow(_) => {
                set("what", "hard link below".into());
                set("visible", (said.hidden_by.is_none() && self.is_visible).into());
            }
            What::Whiteout(_) => drop(set("what", "whiteout".into())),
            What::Opaque(_) => drop(set("what", "opaque".into())),
            What::NotDirectory(..) => drop(set("what", "not a directory".into())),
        }
        if let Some(hider) = said.hidden_by {
            let how = match hider.how {
                How::Replaced => "replaced",
                How::Whiteout => "whiteout",
                How::Opaque => "opaque",
                How::NotDirectory => "not a directory",
            };
            set("hidden_by", json!({ "layer": hider.layer.0 + 1, "how": how, "at": self.part(hider.of.0) }));
        }
        object
    }
}

fn described(metadata: &Metadata) -> String {
    let time = rfc3339::text(metadata.mtime, Precision::Seconds);
    let size = match metadata.kind {
        FileKind::Regular => format!(" {} bytes", metadata.size),
        _ => String::new(),
    };
    let (kind, mode) = (kind_word(metadata.kind), mode_text(metadata));
    format!("{kind} {mode} {}:{}{size} {time}", metadata.uid, metadata.gid)
}
