//! A Dockerfile's lines: comments, continuations, the escape directive. What the instructions mean is in `steps`.

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The number of its first line.
    pub(super) number: usize,
    /// Its name, in capitals.
    pub(super) keyword: String,
    /// All that follows, continuations joined.
    pub(super) rest: String,
}

/// What is wrong with which line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct DockerfileError {
    /// Counted from 1.
    pub line: usize,
    /// The reason.
    pub reason: String,
}

/// The instructions and the escape character.
pub(super) fn lines(text: &str) -> Result<(Vec<Line>, char), DockerfileError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let escape = escape(text)?;
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim_start();
        if trimmed.starts_with('#') || trimmed.is_empty() {
            continue;
        }
        // Blanks in front of a continued line belong to it.
        let (start, mut joined) = open.take().unwrap_or((number, String::new()));
        let piece = if joined.is_empty() { trimmed } else { line };
        match piece.trim_end().strip_suffix(escape) {
            Some(piece) => {
                joined.push_str(piece);
                open = Some((start, joined));
            }
            None => {
                joined.push_str(piece);
                found.push(instruction(start, &joined)?);
            }
        }
    }
    if let Some((start, joined)) = open {
        found.push(instruction(start, &joined)?);
    }
    Ok((found, escape))
}

fn instruction(number: usize, text: &str) -> Result<Line, DockerfileError> {
    let text = text.trim();
    let (keyword, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim().to_owned();
    if rest.is_empty() {
        return Err(DockerfileError { line: number, reason: format!("{keyword} needs an argument") });
    }
    Ok(Line { number, keyword: keyword.to_ascii_uppercase(), rest })
}

/// Directives are comments `# name=value` before anything else. `syntax` names another parser; there is only this one.
fn escape(text: &str) -> Result<char, DockerfileError> {
    for (line, text) in (1..).zip(text.lines()) {
        let Some((key, value)) = text.trim().strip_prefix('#').and_then(|text| text.split_once('=')) else {
            break;
        };
        if key.trim().eq_ignore_ascii_case("escape") {
            return match value.trim() {
                "\\" => Ok('\\'),
                "`" => Ok('`'),
                other => Err(DockerfileError { line, reason: format!("escape={other}: must be \\ or `") }),
            };
        }
        if !key.trim().chars().all(|c| c.is_ascii_alphanumeric()) {
            break;
        }
    }
    Ok('\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<(usize, String, String)> {
        let lines = lines(text).unwrap().0.into_iter();
        lines.map(|line| (line.number, line.keyword, line.rest)).collect()
    }

    #[test]
    fn comments_and_continuations() {
        let text = "# comment\n\nfrom x\nRUN a && \\\n  # not this\n\n  b \\  \n  c\n  env A=1 \\\n";
        let expected = [(3, "FROM", "x"), (4, "RUN", "a &&   b   c"), (9, "ENV", "A=1")];
        let expected = expected.map(|(number, keyword, rest)| (number, keyword.to_owned(), rest.to_owned()));
        assert_eq!(of(text), expected);
    }

    #[test]
    fn directives() {
        let (found, escape) =
            lines("# syntax=docker/dockerfile:1\n# escape=`\nRUN a`\n b \\\nRUN c").unwrap();
        assert_eq!(escape, '`');
        assert_eq!(found[0].rest, "a b \\");
        assert_eq!(lines("# comment\n# escape=`\nRUN a").unwrap().1, '\\');
        assert_eq!(lines("#escape=x\n").unwrap_err().line, 1);
    }

    #[test]
    fn an_instruction_needs_something() {
        assert_eq!(lines("FROM x\nRUN\n").unwrap_err().to_string(), "line 2: RUN needs an argument");
    }
}
