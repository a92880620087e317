//! `layerfs history`

use super::environment;
use super::forms::Form;
use super::image_args::HistoryArgs;
use super::progress::Told;
use crate::container::Moment;
use crate::container::view::{Width, aligned};
use crate::image::{self, Sought};
use crate::images::history::{self, Shown};
use crate::look::told;

/// Prints the steps, the last one first.
pub(super) fn run(args: &HistoryArgs) -> anyhow::Result<u8> {
    let form = Form::parse(args.format.as_deref())?;
    let sought = Sought { with_broken_layers: true, ..args.platform.sought(Told::Progress) };
    let image = image::open_sought(&args.image, &environment::store()?, &sought)?;
    let steps = history::steps(&image);
    let now = Moment::now();
    let width = if args.no_trunc { Width::Full } else { Width::Short };
    let shown = Shown { width, human: args.human };
    if args.quiet {
        let ids: String = steps.iter().map(|step| step.id(width) + "\n").collect();
        super::print(&ids)?;
        return Ok(0);
    }
    match &form {
        Form::Json => super::print_json(&history::json_list(&steps)?)?,
        Form::Table => {
            let mut table = history::table(&steps, now, shown);
            table.iter_mut().flatten().for_each(|cell| *cell = told(cell));
            super::print(&aligned(&table))?;
        }
        Form::Lines(_) | Form::Columns(_) => {
            let words = steps.iter().map(|step| harmless(history::words(step, now, shown)));
            super::print(&form.filled(words, &history::headings(), false)?)?;
        }
    }
    Ok(0)
}

/// What an image says of itself moves no cursor.
fn harmless(mut words: serde_json::Value) -> serde_json::Value {
    for word in words.as_object_mut().into_iter().flat_map(serde_json::Map::values_mut) {
        if let serde_json::Value::String(text) = word {
            *text = told(text);
        }
    }
    words
}
