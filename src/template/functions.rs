//! The functions of Go's text/template that are supported, and those that docker and podman add.

use std::cmp::Ordering;

use serde_json::Value;

use super::printing::{formatted, printed};

/// Pieces that a text is split into.
const PIECES_MAX: usize = 1 << 16;
/// Spaces that a text is filled up with.
const PAD_MAX: u64 = 1000;

/// Something that is called by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    And,
    Or,
    Not,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Len,
    Index,
    Slice,
    Print,
    Println,
    Printf,
    Json,
    Split,
    Join,
    Title,
    Lower,
    Upper,
    Pad,
    Truncate,
}

const NAMES: [(&str, Function); 23] = [
    ("and", Function::And),
    ("or", Function::Or),
    ("not", Function::Not),
    ("eq", Function::Eq),
    ("ne", Function::Ne),
    ("lt", Function::Lt),
    ("le", Function::Le),
    ("gt", Function::Gt),
    ("ge", Function::Ge),
    ("len", Function::Len),
    ("index", Function::Index),
    ("slice", Function::Slice),
    ("print", Function::Print),
    ("println", Function::Println),
    ("printf", Function::Printf),
    ("json", Function::Json),
    ("split", Function::Split),
    ("join", Function::Join),
    ("title", Function::Title),
    ("lower", Function::Lower),
    ("upper", Function::Upper),
    ("pad", Function::Pad),
    ("truncate", Function::Truncate),
];

/// Those of Go that nobody needs here.
const NOT_SUPPORTED: [&str; 4] = ["call", "html", "js", "urlquery"];

/// The function of this name.
pub(super) fn named(name: &str) -> Result<Function, String> {
    match NAMES.iter().find(|(known, _)| *known == name) {
        Some((_, function)) => Ok(*function),
        None if NOT_SUPPORTED.contains(&name) => Err(format!("function {name:?} is not supported")),
        None => Err(format!("function {name:?} not defined")),
    }
}

impl Function {
    pub(super) fn name(self) -> &'static str {
        NAMES.iter().find(|(_, function)| *function == self).map_or("", |(name, _)| name)
    }

    /// Whether it makes a text of its first operand to be read: a heading stays as it is.
    pub(super) fn is_for_reading(self) -> bool {
        use Function::{Join, Json, Lower, Pad, Split, Title, Truncate, Upper};
        matches!(self, Json | Split | Join | Title | Lower | Upper | Pad | Truncate)
    }

    /// Calls it; `and` and `or` are elsewhere, as they do not look at all of their operands.
    pub(super) fn call(self, values: &[Value]) -> Result<Value, String> {
        match (self, values) {
            (Self::Not, [value]) => Ok((!is_true(value)).into()),
            (Self::Eq, [first, others @ ..]) if !others.is_empty() => {
                for other in others {
                    if equal(first, other)? {
                        return Ok(true.into());
                    }
                }
                Ok(false.into())
            }
            (Self::Ne, [one, two]) => Ok((!equal(one, two)?).into()),
            (Self::Lt, [one, two]) => Ok(order(one, two)?.is_lt().into()),
            (Self::Le, [one, two]) => Ok(order(one, two)?.is_le().into()),
            (Self::Gt, [one, two]) => Ok(order(one, two)?.is_gt().into()),
            (Self::Ge, [one, two]) => Ok(order(one, two)?.is_ge().into()),
            (Self::Len, [value]) => length(value).map(Into::into),
            (Self::Index, [value, keys @ ..]) => {
                keys.iter().try_fold(value.clone(), |value, key| index(&value, key))
            }
            (Self::Slice, [value, ends @ ..]) if ends.len() <= 2 => slice(value, ends),
            (Self::Print, values) => printed(values, false).map(Into::into),
            (Self::Println, values) => printed(values, true).map(Into::into),
            (Self::Printf, [Value::String(format), values @ ..]) => formatted(format, values).map(Into::into),
            (Self::Json, [value]) => serde_json::to_string(value).map(Into::into).map_err(|e| e.to_string()),
            (Self::Split, [Value::String(text), Value::String(separator)]) => split(text, separator),
            (Self::Join, [Value::Array(items), Value::String(separator)]) => join(items, separator),
            (Self::Title, [Value::String(text)]) => Ok(title(text).into()),
            (Self::Lower, [Value::String(text)]) => Ok(text.to_lowercase().into()),
            (Self::Upper, [Value::String(text)]) => Ok(text.to_uppercase().into()),
            (Self::Pad, [Value::String(text), before, after]) => {
                let spaces = |number: &Value| {
                    let number = number.as_u64().filter(|number| *number <= PAD_MAX);
                    let number = number.and_then(|number| usize::try_from(number).ok());
                    number.map(|n| " ".repeat(n)).ok_or_else(|| format!("pad: from 0 to {PAD_MAX}"))
                };
                Ok(if text.is_empty() { String::new() } else { spaces(before)? + text + &spaces(after)? }
                    .into())
            }
            (Self::Truncate, [Value::String(text), count]) => {
                let count = count.as_u64().and_then(|count| usize::try_from(count).ok());
                let count = count.ok_or("truncate: a number of characters is needed")?;
                Ok(text.chars().take(count).collect::<String>().into())
            }
            _ => Err(self.misused(values)),
        }
    }

    fn misused(self, values: &[Value]) -> String {
        let kinds: Vec<&str> = values.iter().map(kind).collect();
        format!("{} cannot be called with ({})", self.name(), kinds.join(", "))
    }
}

/// What Go calls true: everything but nothing.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// What a value is, for messages.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "map",
    }
}

/// What a mapping has for a key. Where all values are texts, Go's nothing is an empty one.
pub(super) fn entry(fields: &serde_json::Map<String, Value>, key: &str) -> Value {
    let empty = || if fields.values().all(Value::is_string) { "".into() } else { Value::Null };
    fields.get(key).cloned().unwrap_or_else(empty)
}

fn index(value: &Value, key: &Value) -> Result<Value, String> {
    match (value, key) {
        (Value::Object(fields), Value::String(key)) => Ok(entry(fields, key)),
        (Value::Array(items), Value::Number(number)) => {
            let place = number.as_u64().and_then(|place| usize::try_from(place).ok());
            let found = place.and_then(|place| items.get(place)).cloned();
            found.ok_or_else(|| format!("index out of range: {number}"))
        }
        (Value::Null, _) => Err("index of untyped nil".to_owned()),
        _ => Err(format!("cannot index {} with {}", kind(value), kind(key))),
    }
}

fn slice(value: &Value, ends: &[Value]) -> Result<Value, String> {
    let len = length(value)?;
    let end = |place: usize, unset: usize| match ends.get(place) {
        None => Ok(unset),
        Some(end) => {
            let end = end.as_u64().and_then(|end| usize::try_from(end).ok());
            end.filter(|end| *end <= len).ok_or_else(|| format!("index out of range: {}", ends[place]))
        }
    };
    let (from, to) = (end(0, 0)?, end(1, len)?);
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    match value {
        Value::String(text) => Ok(String::from_utf8_lossy(&text.as_bytes()[from..to]).into_owned().into()),
        Value::Array(items) => Ok(items[from..to].to_vec().into()),
        _ => Err(format!("can't slice {}", kind(value))),
    }
}

fn length(value: &Value) -> Result<usize, String> {
    match value {
        Value::String(text) => Ok(text.len()),
        Value::Array(items) => Ok(items.len()),
        Value::Object(fields) => Ok(fields.len()),
        Value::Null => Err("len of nil pointer".to_owned()),
        _ => Err(format!("len of type {}", kind(value))),
    }
}

fn equal(one: &Value, two: &Value) -> Result<bool, String> {
    match (one, two) {
        (Value::Array(_) | Value::Object(_), _) | (_, Value::Array(_) | Value::Object(_)) => {
            match one.is_null() || two.is_null() {
                true => Ok(false),
                false => Err("non-comparable type for comparison".to_owned()),
            }
        }
        _ if one.is_null() || two.is_null() || kind(one) == kind(two) => Ok(one == two),
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

fn order(one: &Value, two: &Value) -> Result<Ordering, String> {
    let order = match (one, two) {
        (Value::String(one), Value::String(two)) => Some(one.cmp(two)),
        (Value::Number(one), Value::Number(two)) if one.is_f64() == two.is_f64() => {
            match (one.as_i64(), two.as_i64()) {
                (Some(one), Some(two)) => Some(one.cmp(&two)),
                _ => one.as_f64().partial_cmp(&two.as_f64()),
            }
        }
        _ => None,
    };
    order.ok_or_else(|| "incompatible types for comparison".to_owned())
}

fn split(text: &str, separator: &str) -> Result<Value, String> {
    let pieces: Vec<Value> = match separator {
        "" => text.chars().map(|char| char.to_string().into()).take(PIECES_MAX + 1).collect(),
        _ => text.split(separator).map(Into::into).take(PIECES_MAX + 1).collect(),
    };
    if pieces.len() > PIECES_MAX {
        Err(format!("split: more than {PIECES_MAX} pieces"))
    } else {
        Ok(pieces.into())
    }
}

fn join(items: &[Value], separator: &str) -> Result<Value, String> {
    let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
    let texts = texts.ok_or("join: only lists of strings can be joined")?;
    let mut joined = super::printing::Bounded::default();
    for (place, text) in texts.into_iter().enumerate() {
        joined.push(if place == 0 { "" } else { separator })?;
        joined.push(text)?;
    }
    Ok(joined.into_text().into())
}

/// A capital letter at the beginning of each word.
fn title(text: &str) -> String {
    let mut is_inside = false;
    let mut titled = String::with_capacity(text.len());
    for char in text.chars() {
        if is_inside {
            titled.push(char)
        } else {
            titled.extend(char.to_uppercase())
        }
        is_inside = char.is_alphanumeric() || matches!(char, '_' | '\'');
    }
    titled
}
