//! `layerfs ps`

use anyhow::Context as _;

use super::container_args::{PsArgs, SortArg};
use super::environment;
use crate::container::filter::Filters;
use crate::container::view::{self, Row, Width};
use crate::container::{
    Container, ContainerError, ContainerId, Containers, Effort, Listing, Moment, State, size,
};
use crate::template::Template;

/// What is printed.
enum Form {
    Table,
    Ids,
    Json,
    /// A line for each, filled in.
    Lines(Template),
    /// The same, aligned, below headings.
    Columns(Template),
}

/// Prints a table, or whatever was asked for.
pub(super) fn run(args: &PsArgs) -> anyhow::Result<u8> {
    let form = form(args)?;
    let now = Moment::now();
    let width = if args.no_trunc { Width::Full } else { Width::Short };
    let containers = environment::containers(&environment::store()?)?;
    let (rows, effort) = rows(args, &containers, now)?;
    match form {
        Form::Ids => super::print(&rows.iter().map(|row| view::id(row, width) + "\n").collect::<String>())?,
        Form::Json => super::print_json(&view::json_list(&rows, now)?)?,
        Form::Lines(template) => super::print(&lines(&rows, &template, now, width)?)?,
        Form::Table => {
            let table = view::table(&rows, now, width, args.size);
            super::print(&view::aligned(&table[usize::from(args.noheading)..]))?;
        }
        Form::Columns(template) => {
            let cells = |line: &str| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
            let mut table = Vec::new();
            if !args.noheading {
                table.push(cells(&template.render_headings(&view::headings())?));
            }
            for row in &rows {
                table.push(cells(&template.render(&view::words(row, now, width))?));
            }
            super::print(&view::aligned(&table))?;
        }
    }
    if effort == Effort::Much {
        containers.keep_listed();
    }
    Ok(0)
}

fn form(args: &PsArgs) -> anyhow::Result<Form> {
    match args.format.as_deref() {
        None if args.quiet => Ok(Form::Ids),
        None | Some("table") => Ok(Form::Table),
        Some("json") => Ok(Form::Json),
        Some(text) => match text.strip_prefix("table ") {
            Some(columns) => template(columns).map(Form::Columns),
            None => template(text).map(Form::Lines),
        },
    }
}

/// The template of a `--format`.
pub(super) fn template(text: &str) -> anyhow::Result<Template> {
    // What a shell does not make of them, docker does.
    let text = text.replace("\\t", "\t").replace("\\n", "\n");
    Template::parse(&text).with_context(|| format!("--format {text:?}"))
}

fn lines(rows: &[Row], template: &Template, now: Moment, width: Width) -> anyhow::Result<String> {
    let line = |row| Ok(template.render(&view::words(row, now, width))? + "\n");
    rows.iter().map(line).collect()
}

/// Those that are meant, in order, and what it took to find them.
fn rows(args: &PsArgs, containers: &Containers, now: Moment) -> anyhow::Result<(Vec<Row>, Effort)> {
    let filters = Filters::parse(&args.filter, containers, now)?;
    let last = if args.latest { Some(1) } else { usize::try_from(args.last).ok() };
    // As docker and podman have it.
    let any_state = args.all || last.is_some() || filters.has_status();
    let listing = if any_state { Listing::Shown } else { Listing::Live };
    let (mut found, effort) = containers.listed_with_effort(listing)?;
    found.retain(|one| (any_state || one.status.can_stop()) && filters.admit(one));
    found.truncate(last.unwrap_or(usize::MAX));
    let wants_size = args.size
        || args.sort == Some(SortArg::Size)
        || args.format.as_deref().is_some_and(|format| format.contains(".Size"));
    let mut rows = Vec::new();
    for listed in found {
        let written = if wants_size { written_in(containers, listed.about.id)? } else { None };
        rows.push(Row { listed, written });
    }
    if let Some(sort) = args.sort {
        sort_by(&mut rows, sort);
    }
    Ok((rows, effort))
}

/// How much a container of a list has changed; it may be gone by now.
fn written_in(containers: &Containers, id: ContainerId) -> Result<Option<u64>, ContainerError> {
    match containers.find(&id.to_string()) {
        Err(ContainerError::NotFound(_)) => Ok(None),
        found => found.map(|container| written(&container)),
    }
}

/// How much it has changed. One that cannot be looked at must not hide the others.
pub(super) fn written(container: &Container) -> Option<u64> {
    let found = size::written(container);
    found.inspect_err(|error| tracing::warn!("size of container {}: {error}", container.id().short())).ok()
}

fn sort_by(rows: &mut [Row], sort: SortArg) {
    let started = |row: &Row| match &row.listed.status.state {
        State::Created => None,
        State::Running { started, .. }
        | State::Mounted { started, .. }
        | State::Restarting { started, .. }
        | State::Exited { started, .. } => Some(*started),
    };
    match sort {
        SortArg::Command => rows.sort_by_cached_key(|row| row.listed.about.command.clone()),
        SortArg::Created => rows.sort_by_key(|row| row.listed.about.created),
        SortArg::Id => rows.sort_by_key(|row| row.listed.about.id),
        SortArg::Image => rows.sort_by_cached_key(|row| row.listed.about.image.name.clone()),
        SortArg::Names => rows.sort_by_cached_key(|row| row.listed.about.name.clone()),
        SortArg::Runningfor => rows.sort_by_key(started),
        SortArg::Size => rows.sort_by_key(|row| row.written),
        SortArg::Status => rows.sort_by_key(|row| row.listed.status.word()),
    }
}
