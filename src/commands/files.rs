//! Reaching the files of a container.

use super::progress::Told;
use super::{environment, mount};
use crate::container::inside::{Idle, Inside};
use crate::container::{Config, Containers};
use crate::mount::Layers;
use crate::store::Store;

/// The way to the files of a container, whether it runs, is mounted, or neither.
pub(super) fn inside(store: &Store, containers: &Containers, name: &str) -> anyhow::Result<Inside> {
    let container = containers.find(name)?;
    if let Some(served) = Inside::of_served(&container)? {
        return Ok(served);
    }
    let held = match containers.hold(container.clone()) {
        Ok(held) => held,
        // It has just been started.
        Err(error) => return Inside::of_served(&container)?.ok_or_else(|| error.into()),
    };
    let layers = layers(store, held.config())?;
    Ok(Inside::Idle(Box::new(Idle { held, layers })))
}

/// The layers below a container.
pub(super) fn layers(store: &Store, config: &Config) -> anyhow::Result<Layers> {
    let image = mount::image_of(config, store, Told::Nothing)?;
    let caches = environment::caches(store, &image, &[])?;
    mount::open_layers_told(store, &image, caches, Told::Nothing)
}
