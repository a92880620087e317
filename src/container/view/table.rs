//! The table of `ps`.

use super::{Row, harmless, status_text};
use crate::container::{Moment, Purpose, moment, ports, size};

/// Characters of the command in the table, as docker has it.
const COMMAND_CHARS_MAX: usize = 20;
/// Spaces between columns.
const GAP: usize = 3;
const HEADINGS: [&str; 7] = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
const SIZE_HEADING: &str = "SIZE";

/// How much of ids and commands a table shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 12 digits, 20 characters.
    Short,
    /// All (`--no-trunc`).
    Full,
}

/// The lines of `ps`, headings first; with sizes if they are known.
#[must_use]
pub fn table(rows: &[Row], now: Moment, width: Width, with_size: bool) -> Vec<Vec<String>> {
    let size_heading = with_size.then_some(SIZE_HEADING);
    let headings = HEADINGS.into_iter().chain(size_heading).map(str::to_owned).collect();
    let size = |row: &Row| with_size.then(|| size_text(row));
    let lines = rows.iter().map(|row| cells(row, now, width).into_iter().chain(size(row)).collect());
    [headings].into_iter().chain(lines).collect()
}

/// Lines whose cells stand below each other.
#[must_use]
pub fn aligned(lines: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for line in lines {
        widths.resize(widths.len().max(line.len()), 0);
        for (widest, cell) in widths.iter_mut().zip(line) {
            *widest = cell.chars().count().max(*widest);
        }
    }
    let aligned = |line: &Vec<String>| {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width + GAP - cell.chars().count()));
        }
        format!("{}\n", text.trim_end())
    };
    lines.iter().map(aligned).collect()
}

/// The column IMAGE, COMMAND, and so on.
fn cells(row: &Row, now: Moment, width: Width) -> [String; 7] {
    let about = &row.listed.about;
    let cells = [
        id(row, width),
        about.image.name.clone(),
        command(row, width),
        format!("{} ago", moment::in_words(about.created.age(now))),
        status_text(&row.listed, now),
        ports::cell_of(&row.listed),
        about.name.clone(),
    ];
    cells.map(|cell| harmless(&cell))
}

/// The column CONTAINER ID.
#[must_use]
pub fn id(row: &Row, width: Width) -> String {
    match width {
        Width::Short => row.listed.about.id.short(),
        Width::Full => row.listed.about.id.to_string(),
    }
}

/// The column COMMAND.
pub(super) fn command(row: &Row, width: Width) -> String {
    let about = &row.listed.about;
    let command = about.command.join(" ");
    match (about.purpose, width) {
        (Purpose::Mount, _) => "(mount)".to_owned(),
        (Purpose::Run, Width::Short) => format!("\"{}\"", shortened(&command)),
        (Purpose::Run, Width::Full) => format!("\"{command}\""),
    }
}

/// The column SIZE.
pub(super) fn size_text(row: &Row) -> String {
    row.written.map_or_else(|| "unknown".to_owned(), size::in_words)
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= COMMAND_CHARS_MAX {
        return text.to_owned();
    }
    text.chars().take(COMMAND_CHARS_MAX - 1).chain(['\u{2026}']).collect()
}
