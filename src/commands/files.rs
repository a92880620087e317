//! Reaching the files of a container.

use super::progress::Told;
use super::{environment, mount};
use crate::container::Containers;
use crate::container::inside::{Idle, Inside};
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
    let image = mount::image_of(&held, store, Told::Nothing)?;
    let layers =
        mount::open_layers_told(store, &image, environment::caches(store, &image, &[])?, Told::Nothing)?;
    Ok(Inside::Idle(Box::new(Idle { held, layers })))
}
