//! What each instruction means. What is not supported is refused here, by name, before anything is done.

use serde_json::{Map, Value, json};

use super::dockerfile::{DockerfileError, Line};
use super::words;

/// A command in one of its two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A JSON list: executed as it is.
    Exec(Vec<String>),
    /// A text for the shell.
    Shell(String),
}

/// `COPY`, and `ADD` of local files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Copy {
    /// It was `ADD`, which would unpack archives.
    pub(super) is_add: bool,
    pub(super) chown: Option<String>,
    pub(super) chmod: Option<String>,
    pub(super) sources: Vec<String>,
    pub(super) destination: String,
}

/// One instruction. Words are as written: variables are put in when it is carried out.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    From(String),
    Run(Form),
    Copy(Copy),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Arg(Vec<(String, Option<String>)>),
    Workdir(String),
    User(String),
    Cmd(Form),
    Entrypoint(Form),
    Shell(Vec<String>),
    Expose(Vec<String>),
    Volume(Vec<String>),
    StopSignal(String),
    Healthcheck(Value),
    Maintainer(String),
}

/// Understands a line.
pub(super) fn step(line: &Line, escape: char) -> Result<Step, DockerfileError> {
    parse(line, escape).map_err(|reason| DockerfileError { line: line.number, reason })
}

fn parse(line: &Line, escape: char) -> Result<Step, String> {
    let rest = line.rest.as_str();
    let list = || words::split(rest, escape);
    if matches!(line.keyword.as_str(), "RUN" | "COPY" | "ADD") {
        no_here_document(&line.keyword, rest)?;
    }
    Ok(match line.keyword.as_str() {
        "FROM" => Step::From(from(&list())?),
        "RUN" => {
            no_flags("RUN", rest)?;
            Step::Run(form(rest))
        }
        "COPY" => Step::Copy(copy(rest, escape, false)?),
        "ADD" => Step::Copy(copy(rest, escape, true)?),
        "ENV" => Step::Env(pairs("ENV", rest, escape)?),
        "LABEL" => Step::Label(pairs("LABEL", rest, escape)?),
        "ARG" => Step::Arg(list().iter().map(|word| argument(word)).collect()),
        "WORKDIR" => Step::Workdir(rest.to_owned()),
        "USER" => Step::User(rest.to_owned()),
        "CMD" => Step::Cmd(form(rest)),
        "ENTRYPOINT" => Step::Entrypoint(form(rest)),
        "SHELL" => match form(rest) {
            Form::Exec(shell) if !shell.is_empty() => Step::Shell(shell),
            _ => return Err("SHELL needs a JSON list".to_owned()),
        },
        "EXPOSE" => Step::Expose(list()),
        "VOLUME" => Step::Volume(match form(rest) {
            Form::Exec(volumes) => volumes,
            Form::Shell(_) => list(),
        }),
        "STOPSIGNAL" => Step::StopSignal(rest.to_owned()),
        "HEALTHCHECK" => Step::Healthcheck(healthcheck(rest)?),
        "MAINTAINER" => Step::Maintainer(rest.to_owned()),
        "ONBUILD" => return Err("ONBUILD is not supported".to_owned()),
        unknown => return Err(format!("unknown instruction {unknown}")),
    })
}

fn from(words: &[String]) -> Result<String, String> {
    match words {
        [flag, ..] if flag.starts_with("--") => Err(format!("FROM {flag} is not supported")),
        [image] => Ok(image.clone()),
        [image, word, _] if word.eq_ignore_ascii_case("as") => Ok(image.clone()),
        _ => Err("expected FROM IMAGE [AS NAME]".to_owned()),
    }
}

fn form(rest: &str) -> Form {
    // What is no JSON list of texts is for the shell, as `[ -f x ] && y`.
    serde_json::from_str(rest).map_or_else(|_| Form::Shell(rest.to_owned()), Form::Exec)
}

fn no_flags(keyword: &str, rest: &str) -> Result<(), String> {
    match rest.split_whitespace().next() {
        Some(flag) if flag.starts_with("--") => Err(format!("{keyword} {flag} is not supported")),
        _ => Ok(()),
    }
}

fn no_here_document(keyword: &str, rest: &str) -> Result<(), String> {
    for (at, _) in rest.match_indices("<<") {
        let after = rest[at + 2..].trim_start_matches('-');
        let before = rest[..at].chars().next_back();
        let is_word = after.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '"' | '\''));
        if is_word && before.is_none_or(|c| c.is_whitespace() || c.is_ascii_digit()) {
            return Err(format!("{keyword}: here-documents are not supported"));
        }
    }
    Ok(())
}

fn copy(rest: &str, escape: char, is_add: bool) -> Result<Copy, String> {
    let keyword = if is_add { "ADD" } else { "COPY" };
    let mut copy = Copy { is_add, ..Copy::default() };
    let mut rest = rest;
    while rest.starts_with("--") {
        let (flag, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        match flag.split_once('=') {
            Some(("--chown", owner)) => copy.chown = Some(owner.to_owned()),
            Some(("--chmod", mode)) => copy.chmod = Some(mode.to_owned()),
            _ => return Err(format!("{keyword} {flag} is not supported")),
        }
        rest = after.trim_start();
    }
    copy.sources = match form(rest) {
        Form::Exec(words) => words,
        Form::Shell(_) => words::split(rest, escape),
    };
    copy.destination = copy.sources.pop().unwrap_or_default();
    if copy.sources.is_empty() {
        return Err(format!("expected {keyword} SOURCE... DESTINATION"));
    }
    let is_url = |source: &&String| source.contains("://") || source.starts_with("git@");
    if let Some(url) = copy.sources.iter().find(is_url) {
        return Err(format!("{keyword} {url}: downloading is not supported"));
    }
    Ok(copy)
}

/// `K=V K="V W"`, or the old form `K V W` for a single one.
fn pairs(keyword: &str, rest: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let list = words::split(rest, escape);
    if !list.first().is_some_and(|word| word.contains('=')) {
        let (key, value) = rest
            .split_once(char::is_whitespace)
            .ok_or_else(|| format!("{keyword} {rest}: expected KEY=VALUE"))?;
        return Ok(vec![(key.to_owned(), value.trim_start().to_owned())]);
    }
    let pair = |word: &String| match word.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{keyword} {word}: expected KEY=VALUE")),
    };
    list.iter().map(pair).collect()
}

fn argument(word: &str) -> (String, Option<String>) {
    match word.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (word.to_owned(), None),
    }
}

/// The object `Healthcheck` of a config, as docker writes it.
fn healthcheck(rest: &str) -> Result<Value, String> {
    let mut found = Map::new();
    let mut rest = rest;
    while rest.starts_with("--") {
        let (flag, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let (key, value) = match flag.split_once('=') {
            Some(("--interval", value)) => ("Interval", json!(nanoseconds(value)?)),
            Some(("--timeout", value)) => ("Timeout", json!(nanoseconds(value)?)),
            Some(("--start-period", value)) => ("StartPeriod", json!(nanoseconds(value)?)),
            Some(("--start-interval", value)) => ("StartInterval", json!(nanoseconds(value)?)),
            Some(("--retries", value)) => {
                let retries: u32 = value.parse().map_err(|_| format!("{flag}: not a number"))?;
                ("Retries", json!(retries))
            }
            _ => return Err(format!("HEALTHCHECK {flag} is not supported")),
        };
        found.insert(key.to_owned(), value);
        rest = after.trim_start();
    }
    let (word, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let test = match (word.to_ascii_uppercase().as_str(), form(command.trim_start())) {
        ("NONE", _) => json!(["NONE"]),
        ("CMD", Form::Exec(list)) => json!([vec!["CMD".to_owned()], list].concat()),
        ("CMD", Form::Shell(text)) if !text.is_empty() => json!(["CMD-SHELL", text]),
        _ => return Err("expected HEALTHCHECK [OPTIONS] CMD COMMAND, or NONE".to_owned()),
    };
    found.insert("Test".to_owned(), test);
    Ok(Value::Object(found))
}

/// A duration as Go writes it: `1m30s`, `500ms`.
fn nanoseconds(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 6] = [
        ("ns", 1),
        ("us", 1_000),
        ("ms", 1_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
    ];
    let wrong = || format!("{text}: not a duration such as 1m30s");
    let mut rest = text;
    let mut total = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let (unit, length) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit)).ok_or_else(wrong)?;
        rest = &rest[unit.len()..];
        total = number.checked_mul(*length).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Step, String> {
        let (lines, escape) = super::super::dockerfile::lines(text).unwrap();
        step(&lines[0], escape).map_err(|error| error.to_string())
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn both_forms() {
        assert_eq!(one(r#"CMD ["a", "b c"]"#), Ok(Step::Cmd(Form::Exec(texts(&["a", "b c"])))));
        assert_eq!(one("CMD [ -f x ]"), Ok(Step::Cmd(Form::Shell("[ -f x ]".to_owned()))));
        assert_eq!(one(r#"SHELL ["/bin/bash", "-c"]"#), Ok(Step::Shell(texts(&["/bin/bash", "-c"]))));
        assert!(one("SHELL /bin/bash").is_err());
    }

    #[test]
    fn pairs_old_and_new() {
        let env = |list: &[(&str, &str)]| {
            Ok(Step::Env(list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()))
        };
        assert_eq!(one("ENV A=1 B=\"x y\""), env(&[("A", "1"), ("B", "\"x y\"")]));
        assert_eq!(one("ENV A  1 2=3"), env(&[("A", "1 2=3")]));
        assert!(one("ENV A").is_err());
        assert!(one("ENV A=1 B").is_err());
    }

    #[test]
    fn copies() {
        let Ok(Step::Copy(copy)) = one("COPY --chown=1:2 --chmod=755 a b\\ c /d/") else { panic!() };
        assert_eq!((copy.sources, copy.destination.as_str()), (texts(&["a", "b\\ c"]), "/d/"));
        assert_eq!((copy.chown.as_deref(), copy.chmod.as_deref()), (Some("1:2"), Some("755")));
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        for (text, name) in [
            ("COPY --from=x a b", "--from=x"),
            ("COPY --link a b", "--link"),
            ("ADD http://x/y /z", "http://x/y"),
            ("ADD --checksum=x a b", "--checksum"),
            ("RUN --mount=type=cache,target=/x y", "--mount"),
            ("RUN <<EOF", "here-documents"),
            ("RUN cat <<'E' >x", "here-documents"),
            ("FROM --platform=linux/arm64 x", "--platform"),
            ("ONBUILD RUN x", "ONBUILD"),
            ("NOTHING x", "NOTHING"),
            ("HEALTHCHECK --odd=1 CMD x", "--odd"),
        ] {
            let error = one(text).unwrap_err();
            assert!(error.contains(name), "{text}: {error}");
        }
        assert!(one("RUN echo $((1<<2)) $((1 << x))").is_ok());
    }

    #[test]
    fn healthchecks() {
        let expected = json!({"Interval": 90_000_000_000_u64, "Retries": 3, "Test": ["CMD-SHELL", "x || y"]});
        assert_eq!(
            one("HEALTHCHECK --interval=1m30s --retries=3 CMD x || y"),
            Ok(Step::Healthcheck(expected))
        );
        assert_eq!(one("HEALTHCHECK NONE"), Ok(Step::Healthcheck(json!({"Test": ["NONE"]}))));
        for wrong in ["5", "s", "1x", "", "99999999999h"] {
            assert!(nanoseconds(wrong).is_err(), "{wrong}");
        }
    }
}
