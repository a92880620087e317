//! `layerfs verify`

use super::args::ImagesArgs;
use super::progress::{Indexing, Told};
use super::{environment, failure};
use crate::image::{self, ImageError, Sought};
use crate::look::{self, Verified, told};
use crate::store::Store;

/// Something is damaged.
const DAMAGED: u8 = 1;

/// Checks all images, also after one that is damaged.
pub(super) fn run(args: &ImagesArgs) -> anyhow::Result<u8> {
    let store = environment::store()?;
    let mut code = 0;
    let mut documents = Vec::new();
    for name in &args.images {
        let document = match verified(args, name, &store) {
            Ok(verified) => {
                if !verified.defects.is_empty() {
                    code = code.max(DAMAGED);
                }
                for reason in &verified.unread {
                    code = super::OWN_FAILURE;
                    super::complain(&format!("Error: {reason}"));
                }
                if !args.json {
                    super::print(&text(&verified))?;
                }
                verified.json()
            }
            Err(error) => {
                code = code.max(if error.is_damage() { DAMAGED } else { super::OWN_FAILURE });
                let line = failure::line(&error);
                super::complain(&format!("Error: {line}"));
                serde_json::json!({ "image": name, "ok": false, "error": line })
            }
        };
        documents.push(document);
    }
    if args.json {
        super::print_json(&serde_json::to_string_pretty(&documents)?)?;
    }
    Ok(code)
}

fn verified(args: &ImagesArgs, name: &str, store: &Store) -> Result<Verified, ImageError> {
    let told = Told::unless(args.quiet);
    let sought = Sought { with_broken_layers: true, ..args.platform.sought(told) };
    let image = image::open_sought(name, store, &sought)?;
    let progress = Indexing::checking(&image.layers, told);
    Ok(look::verify(&image, &store.index_dir(), &progress))
}

fn text(verified: &Verified) -> String {
    let name = told(&verified.name);
    let defects: String = verified.defects.iter().map(|defect| format!("{}\n", defect.text())).collect();
    let unverifiable = match verified.unverifiable {
        0 => String::new(),
        _ => "; a plain directory has no digest to check against".to_owned(),
    };
    let state = match verified.defects.len() {
        0 if !verified.unread.is_empty() => "not all of it could be read".to_owned(),
        0 => "good".to_owned(),
        1 => "1 thing is broken".to_owned(),
        count => format!("{count} things are broken"),
    };
    let (layers, bytes) = (verified.layers, verified.bytes);
    format!("{defects}{name}: {state}: {layers} layers, {bytes} bytes{unverifiable}\n")
}
