//! Row 0: Go templates over JSON values, as far as people use them in `--format`. Bounded: a template ends, soon.
//!
//! Known are fields, `$` and variables, literals, pipelines, parentheses, comments, trimming, `if`, `with`, `range`, the
//! functions of Go that compare, count, cut and print, and those that docker adds. What is not known is refused by its name
//! before anything is printed. Values of JSON are a little less than those of Go: a mapping has its keys in order, and
//! one that is called with a key (`.Label "x"`) gives what is there.

mod functions;
mod lexer;
mod parser;
mod printing;
mod render;

use serde_json::Value;

/// A template that was understood.
#[derive(Clone, Debug)]
pub struct Template {
    text: String,
    nodes: Vec<parser::Node>,
}

/// What is wrong with a template, in Go's words where Go has some.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It is no template, or one that is not supported.
    #[error("template: :{line}: {message}")]
    Parse {
        /// In which line, from 1 on.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// It does not go with the data.
    #[error("template: :{line}:{column}: executing \"\" at <{place}>: {message}")]
    Execute {
        /// In which line, from 1 on.
        line: usize,
        /// How many bytes of the line come before.
        column: usize,
        /// The piece of the template.
        place: String,
        /// What is wrong.
        message: String,
    },
}

impl Template {
    /// Understands a template.
    ///
    /// # Errors
    /// [`TemplateError::Parse`]
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        Ok(Self { text: text.to_owned(), nodes: parser::parse(text)? })
    }

    /// Fills it in.
    ///
    /// # Errors
    /// [`TemplateError::Execute`]
    pub fn render(&self, data: &Value) -> Result<String, TemplateError> {
        render::render(&self.text, &self.nodes, data, render::Words::OfData)
    }

    /// Fills it in with the headings of a table: what would change a word leaves them as they are.
    ///
    /// # Errors
    /// [`TemplateError::Execute`]
    pub fn render_headings(&self, headings: &Value) -> Result<String, TemplateError> {
        render::render(&self.text, &self.nodes, headings, render::Words::Headings)
    }
}

#[cfg(test)]
mod tests;
