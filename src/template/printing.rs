//! Values as Go prints them, in bounds.

use serde_json::Value;

/// What one function may make, and what a template may print.
const TEXT_BYTES_MAX: usize = 8 << 20;
/// Spaces that a number or a text is filled up with.
const WIDTH_MAX: usize = 1000;

/// A text that does not grow for ever.
#[derive(Debug, Default)]
pub(super) struct Bounded(String);

impl Bounded {
    pub(super) fn push(&mut self, text: &str) -> Result<(), String> {
        if self.0.len() + text.len() > TEXT_BYTES_MAX {
            return Err(format!("more than {TEXT_BYTES_MAX} bytes"));
        }
        self.0.push_str(text);
        Ok(())
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }

    /// As `%v` has it.
    pub(super) fn show(&mut self, value: &Value) -> Result<(), String> {
        match value {
            Value::Null => self.push("<nil>"),
            Value::String(text) => self.push(text),
            Value::Bool(_) | Value::Number(_) => self.push(&value.to_string()),
            Value::Array(items) => {
                self.push("[")?;
                for (place, item) in items.iter().enumerate() {
                    self.push(if place == 0 { "" } else { " " })?;
                    self.show(item)?;
                }
                self.push("]")
            }
            Value::Object(fields) => {
                self.push("map[")?;
                for (place, (key, item)) in fields.iter().enumerate() {
                    self.push(if place == 0 { "" } else { " " })?;
                    self.push(key)?;
                    self.push(":")?;
                    self.show(item)?;
                }
                self.push("]")
            }
        }
    }
}

/// As an action prints it: what is not there has words of its own.
pub(super) fn shown(value: &Value) -> Result<String, String> {
    if value.is_null() {
        return Ok("<no value>".to_owned());
    }
    let mut text = Bounded::default();
    text.show(value)?;
    Ok(text.into_text())
}

/// `print`: a space between operands of which neither is a text. `println`: always, and a newline.
pub(super) fn printed(values: &[Value], is_line: bool) -> Result<String, String> {
    let mut text = Bounded::default();
    for (place, value) in values.iter().enumerate() {
        let between = place > 0 && (is_line || !value.is_string() && !values[place - 1].is_string());
        text.push(if between { " " } else { "" })?;
        text.show(value)?;
    }
    text.push(if is_line { "\n" } else { "" })?;
    Ok(text.into_text())
}

/// `printf`, with the verbs v s q d x X t f and the flags - 0 +.
pub(super) fn formatted(format: &str, values: &[Value]) -> Result<String, String> {
    let mut text = Bounded::default();
    let mut values = values.iter();
    let mut rest = format;
    while let Some((before, verb)) = rest.split_once('%') {
        text.push(before)?;
        if let Some(after) = verb.strip_prefix('%') {
            text.push("%")?;
            rest = after;
            continue;
        }
        let (form, after) = Form::read(verb)?;
        let value = values.next().ok_or_else(|| format!("printf: nothing is left for %{}", form.verb))?;
        text.push(&form.filled(value)?)?;
        rest = after;
    }
    text.push(rest)?;
    match values.next() {
        None => Ok(text.into_text()),
        Some(_) => Err("printf: more values than verbs".to_owned()),
    }
}

/// One `%` of a format.
struct Form {
    to_the_left: bool,
    with_zeros: bool,
    with_sign: bool,
    width: usize,
    precision: Option<usize>,
    verb: char,
}

impl Form {
    fn read(text: &str) -> Result<(Self, &str), String> {
        let rest = text.trim_start_matches(['-', '0', '+']);
        let flags = &text[..text.len() - rest.len()];
        let (width, rest) = number(rest)?;
        let (precision, rest) = match rest.strip_prefix('.') {
            Some(rest) => number(rest).map(|(precision, rest)| (Some(precision), rest))?,
            None => (None, rest),
        };
        let mut chars = rest.chars();
        let verb = chars.next().ok_or("printf: no verb after %")?;
        if !"vsqdxXtf".contains(verb) {
            return Err(format!("printf: %{verb} is not supported: v s q d x X t and f are"));
        }
        let [to_the_left, with_zeros, with_sign] = ['-', '0', '+'].map(|flag| flags.contains(flag));
        Ok((Self { to_the_left, with_zeros, with_sign, width, precision, verb }, chars.as_str()))
    }

    fn filled(&self, value: &Value) -> Result<String, String> {
        let refused = || format!("printf: %{} does not go with {value}", self.verb);
        let cut = |text: String| match self.precision {
            Some(precision) => text.chars().take(precision).collect(),
            None => text,
        };
        let text = match (self.verb, value) {
            ('v' | 's', Value::Number(_)) if self.verb == 's' => return Err(refused()),
            ('v', _) | ('s', Value::String(_) | Value::Array(_) | Value::Object(_)) => {
                let mut text = Bounded::default();
                text.show(value)?;
                cut(text.into_text())
            }
            ('q', Value::String(text)) => Value::String(cut(text.clone())).to_string(),
            ('t', Value::Bool(value)) => value.to_string(),
            ('d', Value::Number(number)) if !number.is_f64() => self.signed(number.to_string()),
            ('f', Value::Number(number)) => {
                let number = number.as_f64().filter(|_| number.is_f64()).ok_or_else(refused)?;
                self.signed(format!("{number:.*}", self.precision.unwrap_or(6)))
            }
            ('x', Value::Number(number)) => format!("{:x}", number.as_u64().ok_or_else(refused)?),
            ('X', Value::Number(number)) => format!("{:X}", number.as_u64().ok_or_else(refused)?),
            ('x', Value::String(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
            ('X', Value::String(text)) => text.bytes().map(|byte| format!("{byte:02X}")).collect(),
            _ => return Err(refused()),
        };
        let missing = self.width.saturating_sub(text.chars().count());
        Ok(match (self.to_the_left, self.with_zeros && value.is_number()) {
            (true, _) => format!("{text}{}", " ".repeat(missing)),
            (false, false) => format!("{}{text}", " ".repeat(missing)),
            (false, true) => {
                let digits = text.trim_start_matches(['-', '+']);
                format!("{}{}{digits}", &text[..text.len() - digits.len()], "0".repeat(missing))
            }
        })
    }

    fn signed(&self, text: String) -> String {
        if self.with_sign && !text.starts_with('-') { format!("+{text}") } else { text }
    }
}

/// Digits at the beginning; 0 without.
fn number(text: &str) -> Result<(usize, &str), String> {
    let rest = text.trim_start_matches(|char: char| char.is_ascii_digit());
    let digits = &text[..text.len() - rest.len()];
    let number = if digits.is_empty() { Some(0) } else { digits.parse().ok() };
    let number = number.filter(|number| *number <= WIDTH_MAX);
    number.map(|number| (number, rest)).ok_or_else(|| format!("printf: more than {WIDTH_MAX} columns"))
}
