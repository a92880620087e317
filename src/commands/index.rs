//! `layerfs index`

use serde_json::json;

use super::args::ImagesArgs;
use super::environment;
use super::progress::{Indexing, Told};
use crate::look;
use crate::mount::{Caches, IndexedLayer, MountSpec};

/// Builds what is missing and prints a line for each layer.
pub(super) fn run(args: &ImagesArgs) -> anyhow::Result<u8> {
    let store = environment::store()?;
    let told = Told::unless(args.quiet);
    let mut documents = Vec::new();
    for name in &args.images {
        let image = args.platform.open(name, &store, told)?;
        let spec =
            MountSpec { layers: image.layers, index_dir: store.index_dir(), caches: Caches::default() };
        let layers = spec.build_ahead(&Indexing::of(&spec, told))?;
        if args.json {
            let layers: Vec<_> = layers.iter().map(object).collect();
            documents.push(json!({ "image": image.name, "source": image.source, "layers": layers }));
        } else {
            let lines: String = layers.iter().map(line).collect();
            super::print(&format!("{}\n{lines}", look::told(&image.name)))?;
        }
    }
    if args.json {
        super::print_json(&serde_json::to_string_pretty(&documents)?)?;
    }
    Ok(0)
}

/// What the index takes, of what the blob takes.
fn percent(layer: &IndexedLayer) -> String {
    let hundredths = u128::from(layer.index_bytes) * 10_000 / u128::from(layer.blob_bytes.max(1));
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

fn line(layer: &IndexedLayer) -> String {
    format!(
        "{} diffID {} blob {} {} {} bytes, {} uncompressed, {} entries, index {} bytes ({} %), {}\n",
        layer.layer,
        layer.diff_id,
        layer.blob_digest,
        layer.encoding,
        layer.blob_bytes,
        layer.tar_bytes,
        layer.entries,
        layer.index_bytes,
        percent(layer),
        state(layer),
    )
}

fn state(layer: &IndexedLayer) -> &'static str {
    if layer.built { "built" } else { "known" }
}

fn object(layer: &IndexedLayer) -> serde_json::Value {
    json!({
        "layer": layer.layer,
        "diff_id": layer.diff_id,
        "blob_digest": layer.blob_digest,
        "encoding": layer.encoding,
        "blob_bytes": layer.blob_bytes,
        "tar_bytes": layer.tar_bytes,
        "entries": layer.entries,
        "index_bytes": layer.index_bytes,
        "index": layer.index,
        "state": state(layer),
    })
}
