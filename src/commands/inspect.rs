//! `layerfs inspect`

use std::sync::Arc;

use super::args::{InspectArgs, PlatformArg};
use super::environment;
use super::progress::{Indexing, Told};
use crate::container::{ContainerError, Containers, view};
use crate::image::{self, Image, ImageError, Sought};
use crate::store::Store;

/// Prints a JSON array, in the order of the names.
pub(super) fn run(args: &InspectArgs) -> anyhow::Result<u8> {
    let store = environment::store()?;
    let containers = environment::containers(&store)?;
    let mut documents = Vec::new();
    for name in &args.names {
        let array = if args.image {
            opened(args, name, &store)?.describe()?
        } else {
            either(args, name, &store, &containers)?
        };
        documents.push(array.trim_start_matches("[\n").trim_end_matches("\n]\n").to_owned());
    }
    super::print_json(&format!("[\n{}\n]", documents.join(",\n")))?;
    Ok(0)
}

fn either(args: &InspectArgs, name: &str, store: &Store, containers: &Containers) -> anyhow::Result<String> {
    match containers.find(name) {
        Ok(container) => {
            let status = container.status()?;
            Ok(view::inspect(&[(container, status)])?)
        }
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
