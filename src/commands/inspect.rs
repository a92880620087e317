//! `layerfs inspect`

use std::io::{self, IsTerminal as _};
use std::sync::Arc;

use anyhow::Context as _;

use super::args::{InspectArgs, KindArg, PlatformArg};
use super::environment;
use super::progress::{Indexing, Told};
use crate::container::view::{self, Inspected, Inspecting};
use crate::container::{ContainerError, Containers};
use crate::image::{self, Image, ImageError, Sought};
use crate::look::told;
use crate::store::Store;
use crate::template::Template;

/// Prints a JSON array, in the order of the names; or a template, filled in for each.
pub(super) fn run(args: &InspectArgs) -> anyhow::Result<u8> {
    let template = match args.format.as_deref() {
        None => None,
        Some("json") => Some(Template::parse("{{json .}}")?),
        Some(text) => Some(Template::parse(text).context("--format")?),
    };
    let store = environment::store()?;
    let containers = environment::containers(&store)?;
    let mut documents = Vec::new();
    for name in &args.names {
        let array = if args.image || args.kind == Some(KindArg::Image) {
            opened(args, name, &store)?.describe()?
        } else {
            either(args, name, &store, &containers)?
        };
        match &template {
            None => documents.push(array.trim_start_matches("[\n").trim_end_matches("\n]\n").to_owned()),
            Some(template) => super::print(&filled(template, &array)?)?,
        }
    }
    if template.is_none() {
        super::print_json(&format!("[\n{}\n]", documents.join(",\n")))?;
    }
    Ok(0)
}

/// A line. A terminal must not obey what an image says; a program gets it as it is.
fn filled(template: &Template, array: &str) -> anyhow::Result<String> {
    let documents: Vec<serde_json::Value> = serde_json::from_str(array)?;
    let document = documents.first().context("there is no document")?;
    let text = template.render(document)? + "\n";
    let shown = |text: &str| {
        let columns: Vec<String> = text.split('\t').map(told).collect();
        columns.join("\t")
    };
    Ok(match io::stdout().is_terminal() {
        true => text.split('\n').map(shown).collect::<Vec<_>>().join("\n"),
        false => text,
    })
}

fn either(args: &InspectArgs, name: &str, store: &Store, containers: &Containers) -> anyhow::Result<String> {
    match containers.find(name) {
        Ok(container) => {
            let status = container.status()?;
            let inspecting = if args.size { Inspecting::Size } else { Inspecting::Known };
            let written = if args.size { super::ps::written(&container) } else { None };
            Ok(view::inspect(&[Inspected { container, status, written }], inspecting)?)
        }
        Err(error @ ContainerError::NotFound(_)) if args.kind.is_some() => Err(error.into()),
        // Most names are of containers, so that is what is said when there is no such image either.
        Err(error @ ContainerError::NotFound(_)) => match opened(args, name, store) {
            Err(ImageError::NotFound { .. } | ImageError::Reference { .. }) => Err(error.into()),
            image => Ok(image?.describe()?),
        },
        Err(error) => Err(error.into()),
    }
}

/// Also one with broken layers: that is something to look at.
fn opened(args: &InspectArgs, name: &str, store: &Store) -> Result<Image, ImageError> {
    let sought = Sought { with_broken_layers: true, ..args.platform.sought(Told::Progress) };
    image::open_sought(name, store, &sought)
}

impl PlatformArg {
    /// Opens an image, for the platform that was asked for.
    pub(super) fn open(&self, spec: &str, store: &Store, told: Told) -> anyhow::Result<Image> {
        Ok(image::open_sought(spec, store, &self.sought(told))?)
    }

    /// What is looked for, and who is told when that takes long.
    pub(super) fn sought(&self, told: Told) -> Sought {
        Sought { platform: self.platform.clone(), ..any(told) }
    }
}

/// Whatever there is.
pub(super) fn any(told: Told) -> Sought {
    Sought { progress: Some(Arc::new(Indexing::decompressing(told))), ..Sought::default() }
}
