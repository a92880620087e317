//! `--format` of lists: a table, JSON, a line for each, or columns below headings.

use serde_json::Value;

use super::ps::template;
use crate::container::view::aligned;
use crate::template::Template;

/// What is printed.
pub(super) enum Form {
    Table,
    Json,
    /// A line for each, filled in.
    Lines(Template),
    /// The same, aligned, below headings.
    Columns(Template),
}

impl Form {
    /// What was asked for.
    pub(super) fn parse(text: Option<&str>) -> anyhow::Result<Self> {
        match text {
            None | Some("table") => Ok(Self::Table),
            Some("json") => Ok(Self::Json),
            Some(text) => match text.strip_prefix("table ") {
                Some(columns) => template(columns).map(Self::Columns),
                None => template(text).map(Self::Lines),
            },
        }
    }

    /// The lines of a template; nothing for the others.
    pub(super) fn filled(
        &self,
        words: impl Iterator<Item = Value>,
        headings: &Value,
        noheading: bool,
    ) -> anyhow::Result<String> {
        let template = match self {
            Self::Table | Self::Json => return Ok(String::new()),
            Self::Lines(template) => {
                let line = |words: Value| Ok(template.render(&words)? + "\n");
                return words.map(line).collect();
            }
            Self::Columns(template) => template,
        };
        let cells = |line: &str| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
        let mut table = Vec::new();
        if !noheading {
            table.push(cells(&template.render_headings(headings)?));
        }
        for words in words {
            table.push(cells(&template.render(&words)?));
        }
        Ok(aligned(&table))
    }
}
