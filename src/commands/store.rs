//! `layerfs store`

use super::environment;
use super::image_args::{StoreArgs, StoreCheckArgs, StoreCommand};
use super::progress::{Indexing, Told};
use crate::images::checking;
use crate::store::{Checked, Repaired};

/// Something is damaged, and still is.
const DAMAGED: u8 = 1;

/// One of them.
pub(super) fn run(args: &StoreArgs) -> anyhow::Result<u8> {
    match &args.command {
        StoreCommand::Check(args) => check(args),
    }
}

/// Says what is wrong and what to do, or what was done.
fn check(args: &StoreCheckArgs) -> anyhow::Result<u8> {
    let store = environment::store()?;
    let progress = Indexing::checking_all(Told::unless(args.quiet));
    let checked = checking::check(&store, &progress)?;
    drop(progress);
    let mut text = String::new();
    let mut still = checked.findings.len();
    if args.repair && still > 0 {
        let repaired = checking::repair(&store, &checked.findings)?;
        still = repaired.iter().filter(|one| one.done.is_none()).count();
        text.extend(repaired.iter().zip(advices(&checked, &repaired)).map(|(one, advice)| {
            let done = one
                .done
                .as_ref()
                .map_or_else(|| format!("not repaired: {advice}"), |done| format!("repaired: {done}"));
            line(&format!("{}: {done}", one.what))
        }));
    } else {
        text.extend(checked.findings.iter().map(|one| line(&format!("{}: {}", one.what, one.advice))));
    }
    let state = match still {
        0 if !args.repair || checked.findings.is_empty() => "good".to_owned(),
        0 => "repaired".to_owned(),
        1 => "1 thing is damaged".to_owned(),
        count => format!("{count} things are damaged"),
    };
    let Checked { blobs, bytes, images, .. } = checked;
    super::print(&format!("{text}{state}: {images} images, {blobs} blobs, {bytes} bytes\n"))?;
    Ok(if still == 0 { 0 } else { DAMAGED })
}

/// What to do about those that could not be repaired, in their order.
fn advices<'a>(checked: &'a Checked, repaired: &[Repaired]) -> Vec<&'a str> {
    let advice = |one: &Repaired| {
        let found = checked.findings.iter().find(|finding| finding.what == one.what);
        found.map_or("", |finding| finding.advice.as_str())
    };
    repaired.iter().map(advice).collect()
}

/// It may hold other people's names.
fn line(text: &str) -> String {
    format!("{}\n", crate::look::told(text))
}
