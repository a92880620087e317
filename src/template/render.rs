//! From a tree and data to text.

use std::borrow::Cow;

use serde_json::Value;

use super::TemplateError;
use super::functions::{Function, is_true, kind};
use super::parser::{Base, Branches, Command, Node, Operand, Pipeline, Span};
use super::printing::{Bounded, shown};

/// Nodes, operands and pieces of what functions make: more than any listing takes.
const STEPS_MAX: usize = 5_000_000;
/// Bytes that a function makes in what counts as one step.
const STEP_BYTES: usize = 64;
/// Bytes of a template that a message shows, as Go has it.
const PLACE_BYTES_MAX: usize = 20;

/// What words the data is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Words {
    /// Its own.
    OfData,
    /// Headings of a table.
    Headings,
}

type Held<'d> = Cow<'d, Value>;

/// What went wrong, and where in the template.
struct Wrong {
    span: Span,
    message: String,
}

type Step<T> = Result<T, Wrong>;

/// Fills a template in.
pub(super) fn render(
    text: &str,
    nodes: &[Node],
    data: &Value,
    words: Words,
) -> Result<String, TemplateError> {
    let variables = vec![(String::new(), Cow::Borrowed(data))];
    let mut render = Render { words, variables, out: Bounded::default(), steps: 0 };
    match render.nodes(nodes, &Cow::Borrowed(data)) {
        Ok(()) => Ok(render.out.into_text()),
        Err(Wrong { span, message }) => {
            let before = &text[..span.start];
            let line = 1 + before.matches('\n').count();
            let column = before.rfind('\n').map_or(span.start, |newline| span.start - newline);
            Err(TemplateError::Execute { line, column, place: place(&text[span.start..span.end]), message })
        }
    }
}

fn place(text: &str) -> String {
    match text.len() > PLACE_BYTES_MAX {
        true => format!("{}...", &text[..text.floor_char_boundary(PLACE_BYTES_MAX)]),
        false => text.to_owned(),
    }
}

struct Render<'d> {
    words: Words,
    /// The innermost last; the first one is `$`.
    variables: Vec<(String, Held<'d>)>,
    out: Bounded,
    steps: usize,
}

impl<'d> Render<'d> {
    fn nodes(&mut self, nodes: &[Node], dot: &Held<'d>) -> Step<()> {
        for node in nodes {
            match node {
                Node::Text(text) => self.print(text, Span { start: 0, end: 0 })?,
                Node::Print(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        let text = shown(&value).map_err(at(pipeline.span))?;
                        self.print(&text, pipeline.span)?;
                    }
                }
                Node::If(branches) | Node::With(branches) => {
                    let outer = self.variables.len();
                    let value = self.pipeline(&branches.pipeline, dot)?;
                    let inner = if matches!(node, Node::With(_)) { &value } else { dot };
                    match is_true(&value) {
                        true => self.nodes(&branches.then, inner)?,
                        false => self.nodes(&branches.otherwise, dot)?,
                    }
                    self.variables.truncate(outer);
                }
                Node::Range(branches) => {
                    let outer = self.variables.len();
                    self.range(branches, dot)?;
                    self.variables.truncate(outer);
                }
            }
        }
        Ok(())
    }

    fn range(&mut self, branches: &Branches, dot: &Held<'d>) -> Step<()> {
        let Branches { pipeline, then, otherwise } = branches;
        let value = self.commands(pipeline, dot)?;
        let entries: Vec<(Value, Held<'d>)> = match value {
            Cow::Borrowed(Value::Array(items)) => numbered(items.iter().map(Cow::Borrowed)),
            Cow::Owned(Value::Array(items)) => numbered(items.into_iter().map(Cow::Owned)),
            Cow::Borrowed(Value::Object(fields)) => {
                fields.iter().map(|(key, item)| (key.clone().into(), Cow::Borrowed(item))).collect()
            }
            Cow::Owned(Value::Object(fields)) => {
                fields.into_iter().map(|(key, item)| (key.into(), Cow::Owned(item))).collect()
            }
            other if other.is_null() => Vec::new(),
            other => {
                let message = format!("range can't iterate over {}", kind(&other));
                return Err(Wrong { span: pipeline.span, message });
            }
        };
        if entries.is_empty() {
            return self.nodes(otherwise, dot);
        }
        for (key, item) in entries {
            let outer = self.variables.len();
            self.spend(1, pipeline.span)?;
            let values = match pipeline.variables.len() {
                0 => Vec::new(),
                1 => vec![item.clone()],
                _ => vec![Cow::Owned(key), item.clone()],
            };
            for (name, value) in pipeline.variables.iter().zip(values) {
                self.set(name, value, pipeline.assigns);
            }
            self.nodes(then, &item)?;
            self.variables.truncate(outer);
        }
        Ok(())
    }

    /// Its value, which its variable has from then on.
    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Held<'d>) -> Step<Held<'d>> {
        let value = self.commands(pipeline, dot)?;
        for name in &pipeline.variables {
            self.set(name, value.clone(), pipeline.assigns);
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &Pipeline, dot: &Held<'d>) -> Step<Held<'d>> {
        let mut piped = None;
        for command in &pipeline.commands {
            piped = Some(self.command(command, piped.take(), dot)?);
        }
        Ok(piped.unwrap_or_default())
    }

    fn command(&mut self, command: &Command, piped: Option<Held<'d>>, dot: &Held<'d>) -> Step<Held<'d>> {
        self.spend(1, command.span)?;
        if let Base::Function(function) = command.first.base {
            return match function {
                Function::And => self.until(false, command, piped, dot),
                Function::Or => self.until(true, command, piped, dot),
                _ => self.call(function, command, piped, dot),
            };
        }
        let value = self.operand(&command.first, dot)?;
        let mut arguments = self.operands(&command.arguments, dot)?;
        arguments.extend(piped.map(Cow::into_owned));
        match (&*value, arguments.as_slice()) {
            (_, []) => Ok(value),
            (Value::Object(fields), [Value::String(key)]) => {
                Ok(Cow::Owned(fields.get(key).cloned().unwrap_or_else(|| "".into())))
            }
            (Value::String(_), [Value::String(key)]) if self.words == Words::Headings => {
                Ok(Cow::Owned(heading_of(key).into()))
            }
            _ => Err(Wrong {
                span: command.span,
                message: format!("can't give argument to non-function: it is {}", kind(&value)),
            }),
        }
    }

    fn call(
        &mut self,
        function: Function,
        command: &Command,
        piped: Option<Held<'d>>,
        dot: &Held<'d>,
    ) -> Step<Held<'d>> {
        let mut values = self.operands(&command.arguments, dot)?;
        values.extend(piped.map(Cow::into_owned));
        if self.words == Words::Headings && function.is_for_reading() {
            return Ok(Cow::Owned(values.into_iter().next().unwrap_or_default()));
        }
        let message = |message| format!("error calling {}: {message}", function.name());
        let made = function.call(&values).map_err(|wrong| at(command.span)(message(wrong)))?;
        let bytes = match &made {
            Value::String(text) => text.len(),
            Value::Array(items) => items.len() * STEP_BYTES,
            _ => 0,
        };
        self.spend(bytes / STEP_BYTES, command.span)?;
        Ok(Cow::Owned(made))
    }

    /// `and`, `or`: the first operand that decides, else the last one.
    fn until(
        &mut self,
        decides: bool,
        command: &Command,
        piped: Option<Held<'d>>,
        dot: &Held<'d>,
    ) -> Step<Held<'d>> {
        let mut last = None;
        for argument in &command.arguments {
            let value = self.operand(argument, dot)?;
            if is_true(&value) == decides {
                return Ok(value);
            }
            last = Some(value);
        }
        piped
            .or(last)
            .ok_or_else(|| at(command.span)("wrong number of args: want at least 1 got 0".to_owned()))
    }

    fn operands(&mut self, operands: &[Operand], dot: &Held<'d>) -> Step<Vec<Value>> {
        operands.iter().map(|operand| self.operand(operand, dot).map(Cow::into_owned)).collect()
    }

    fn operand(&mut self, operand: &Operand, dot: &Held<'d>) -> Step<Held<'d>> {
        self.spend(1, operand.span)?;
        let mut value = match &operand.base {
            Base::Dot => dot.clone(),
            Base::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found.map(|(_, value)| value.clone()).unwrap_or_default()
            }
            Base::Literal(value) => Cow::Owned(value.clone()),
            Base::Group(pipeline) => self.pipeline(pipeline, dot)?,
            // Without operands, as an operand itself.
            Base::Function(function) => Cow::Owned(function.call(&[]).map_err(at(operand.span))?),
        };
        for name in &operand.fields {
            value = field(value, name).map_err(at(operand.span))?;
        }
        Ok(value)
    }

    fn set(&mut self, name: &str, value: Held<'d>, assigns: bool) {
        let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
        match known.filter(|_| assigns) {
            Some((_, held)) => *held = value,
            None => self.variables.push((name.to_owned(), value)),
        }
    }

    fn print(&mut self, text: &str, span: Span) -> Step<()> {
        self.out.push(text).map_err(at(span))
    }

    fn spend(&mut self, steps: usize, span: Span) -> Step<()> {
        self.steps = self.steps.saturating_add(steps);
        match self.steps > STEPS_MAX {
            true => Err(Wrong { span, message: format!("more than {STEPS_MAX} steps") }),
            false => Ok(()),
        }
    }
}

fn numbered<'d>(items: impl Iterator<Item = Held<'d>>) -> Vec<(Value, Held<'d>)> {
    items.enumerate().map(|(place, item)| (place.into(), item)).collect()
}

fn at(span: Span) -> impl FnOnce(String) -> Wrong {
    move |message| Wrong { span, message }
}

fn field<'d>(value: Held<'d>, name: &str) -> Result<Held<'d>, String> {
    let found = match &value {
        Cow::Borrowed(Value::Object(fields)) => fields.get(name).map(Cow::Borrowed),
        Cow::Owned(Value::Object(fields)) => fields.get(name).cloned().map(Cow::Owned),
        other if other.is_null() => return Err(format!("nil pointer evaluating interface {{}}.{name}")),
        other => return Err(format!("can't evaluate field {name} in type {}", kind(other))),
    };
    found.ok_or_else(|| format!("map has no entry for key {name:?}"))
}

/// The heading of a column with a label: the last part of its key, as docker has it.
fn heading_of(key: &str) -> String {
    key.rsplit('.').next().unwrap_or_default().replace(['-', '_'], " ").to_uppercase()
}
