//! `layerfs images`

use super::environment;
use super::forms::Form;
use super::image_args::{ImageListArgs, ImageSortArg};
use crate::container::Moment;
use crate::container::view::{Width, aligned};
use crate::image::Catalog;
use crate::images::filter::Filters;
use crate::images::view::{self, Columns, Row, Sort};

/// Prints a table, or whatever was asked for.
pub(super) fn run(args: &ImageListArgs) -> anyhow::Result<u8> {
    let form = Form::parse(args.format.as_deref())?;
    let now = Moment::now();
    let width = if args.no_trunc { Width::Full } else { Width::Short };
    let catalog = Catalog::read(&environment::store()?)?;
    let mut filters = Filters::parse(&args.filter, &catalog, now)?;
    if let Some(name) = &args.name {
        filters = filters.named(name)?;
    }
    let rows = view::rows(&catalog, &filters, sort(args.sort));
    if args.quiet {
        super::print(&ids(&rows, width))?;
    } else {
        match &form {
            Form::Json => super::print_json(&view::json_list(&rows)?)?,
            Form::Table => {
                let table = view::table(&rows, now, Columns { width, digests: args.digests });
                super::print(&aligned(&table[usize::from(args.noheading)..]))?;
            }
            Form::Lines(_) | Form::Columns(_) => {
                let words = rows.iter().map(|row| view::words(row, now, width));
                super::print(&form.filled(words, &view::headings(), args.noheading)?)?;
            }
        }
    }
    let broken = catalog.images.iter().filter(|image| image.broken.is_some()).count();
    if broken > 0 {
        super::complain(&format!("{broken} images cannot be read: see `layerfs store check`"));
    }
    Ok(0)
}

/// Each id once, as podman has it.
fn ids(rows: &[Row<'_>], width: Width) -> String {
    let mut seen = std::collections::HashSet::new();
    let images = rows.iter().map(|row| row.image).filter(|image| seen.insert(image.id));
    images.map(|image| view::id(image, width) + "\n").collect()
}

fn sort(arg: ImageSortArg) -> Sort {
    match arg {
        ImageSortArg::Created => Sort::Created,
        ImageSortArg::Id => Sort::Id,
        ImageSortArg::Repository => Sort::Repository,
        ImageSortArg::Size => Sort::Size,
        ImageSortArg::Tag => Sort::Tag,
    }
}
