//! `layerfs diff`

use serde::Serialize;

use super::container_args::{DiffArgs, DiffFormat};
use super::environment;
use super::files;
use crate::container::changes::{self, Difference, Differences};
use crate::container::inside::Inside;
use crate::look;

/// Prints what a container has changed.
pub(super) fn run(args: &DiffArgs) -> anyhow::Result<u8> {
    let store = environment::store()?;
    let containers = environment::containers(&store)?;
    let found = match files::inside(&store, &containers, &args.container)? {
        Inside::Idle(idle) => changes::of_idle(*idle)?,
        served => {
            let container = containers.find(&args.container)?;
            let layers = files::layers(&store, container.config())?;
            changes::of_served(&container, served, layers)?
        }
    };
    match args.format {
        Some(DiffFormat::Json) => super::print_json(&json(&found)?)?,
        None => super::print(&lines(&found))?,
    }
    Ok(0)
}

fn lines(found: &Differences) -> String {
    let line = |(path, difference)| {
        let letter = match difference {
            Difference::Added => 'A',
            Difference::Changed => 'C',
            Difference::Deleted => 'D',
        };
        format!("{letter} {}\n", look::shown(path))
    };
    found.iter().map(line).collect()
}

/// As podman has it.
#[derive(Default, Serialize)]
struct Document {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changed: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    added: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deleted: Vec<String>,
}

fn json(found: &Differences) -> serde_json::Result<String> {
    let mut document = Document::default();
    for (path, difference) in found.iter() {
        let list = match difference {
            Difference::Added => &mut document.added,
            Difference::Changed => &mut document.changed,
            Difference::Deleted => &mut document.deleted,
        };
        list.push(String::from_utf8_lossy(path).into_owned());
    }
    serde_json::to_string(&document)
}
