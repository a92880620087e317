//! The rules of the house that no compiler knows: rows, confined names, sizes, words. One test per rule; a failure names
//! the file, the line and what to do instead.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken rule fails by panicking")]

#[path = "support/source.rs"]
mod source;

use std::path::Path;

use source::{Source, files_below};

/// The map of `src/`: a module imports only from modules of a lower row.
const ROWS: [(&str, u8); 21] = [
    ("model", 0),
    ("template", 0),
    ("sys", 1),
    ("store", 2),
    ("index", 2),
    ("layer", 3),
    ("union", 4),
    ("upper", 4),
    ("fs", 5),
    ("fuse", 6),
    ("mount", 7),
    ("registry", 7),
    ("image", 8),
    ("launcher", 8),
    ("container", 9),
    ("look", 9),
    ("builder", 10),
    ("doctor", 10),
    ("images", 10),
    ("commands", 11),
    ("main", 12),
];
/// What a module may name although a lower row would allow more: the launcher knows a root directory, never a layer.
const ONLY: [(&str, &[&str]); 1] = [("launcher", &["model", "sys"])];
/// What the mount helper may name of the library.
const MOUNT_HELPER: [&str; 3] = ["mount", "model", "commands"];

/// A name, the places that may use it, and what the others do instead.
const CONFINED: [(&str, &[&str], &str); 12] = [
    ("fuser", &["src/fuse"], "put the FUSE side into src/fuse and pass plain types"),
    (
        "ureq",
        &["src/registry/http.rs", "src/registry/http"],
        "put the HTTP side into src/registry/http.rs and pass plain types",
    ),
    ("unsafe", &["src/sys"], "put a safe wrapper into src/sys and call that"),
    ("libc::", &["src/sys"], "put a wrapper or a constant into src/sys, or use rustix"),
    ("use libc", &["src/sys"], "put a wrapper or a constant into src/sys, or use rustix"),
    ("clap", COMMANDS, "parse arguments in src/commands"),
    ("anyhow", COMMANDS, "return the module's own error enum"),
    ("println!", COMMANDS, "return the value and let src/commands print it"),
    ("eprintln!", COMMANDS, "use tracing, or return an error"),
    ("print!", COMMANDS, "return the value and let src/commands print it"),
    ("eprint!", COMMANDS, "use tracing, or return an error"),
    ("dbg!", &[], "use tracing"),
];
const COMMANDS: &[&str] = &["src/commands", "src/main.rs", "mount-helper"];

/// A file is read in one sitting.
const FILE_LINES_MAX: usize = 500;
/// From here on a file is worth a look when another one breaks the rule.
const FILE_LINES_SOFT: usize = 300;
/// A function fits on a screen.
const FUNCTION_LINES_MAX: usize = 70;

#[test]
fn imports_go_down() {
    let mut broken = Vec::new();
    for file in library() {
        let Some(own) = module_of(&file.path) else { continue };
        let Some(own_row) = row(&own) else {
            broken
                .push(format!("{}:1: no row for module `{own}`: add it to ROWS in tests/tidy.rs", file.path));
            continue;
        };
        for (at, module) in file.crate_modules() {
            let allowed = ONLY
                .iter()
                .find(|(name, _)| *name == own)
                .is_none_or(|(_, names)| names.contains(&module.as_str()));
            let is_lower = row(&module).is_some_and(|row| row < own_row) && allowed;
            if module != own && !is_lower {
                broken.push(at_line(&file, at, &format!("`{own}` (row {own_row}) names `{module}`: move what both need into a lower row, or have the caller pass it in")));
            }
        }
    }
    report(&broken);
}

#[test]
fn mount_helper_knows_only_its_entry() {
    let mut broken = Vec::new();
    for file in rust(&["mount-helper/src"]) {
        for at in file.tokens("layerfs::") {
            let rest = &file.code[at + "layerfs::".len()..];
            if !MOUNT_HELPER.iter().any(|module| rest.starts_with(module)) {
                broken.push(at_line(
                    &file,
                    at,
                    "use layerfs::mount, layerfs::model or layerfs::commands only, one path at a time",
                ));
            }
        }
    }
    report(&broken);
}

#[test]
fn the_map_is_in_row_order() {
    let map = rust(&["src/lib.rs"]).remove(0);
    let names = map.tokens("pub mod").into_iter().map(|at| {
        let rest = map.code[at + "pub mod".len()..].trim_start();
        (at, rest.split(';').next().unwrap_or_default().trim().to_owned())
    });
    let mut broken = Vec::new();
    let mut highest = 0;
    for (at, name) in names {
        match row(&name) {
            None => broken.push(at_line(
                &map,
                at,
                &format!("`{name}` has no row: add it to ROWS in tests/tidy.rs"),
            )),
            Some(row) if row < highest => {
                broken.push(at_line(
                    &map,
                    at,
                    &format!("`{name}` (row {row}) stands after row {highest}: keep the map in row order"),
                ));
            }
            Some(row) => highest = row,
        }
    }
    report(&broken);
}

#[test]
fn confined_names_stay_where_they_belong() {
    let mut broken = Vec::new();
    for file in library() {
        for (name, places, instead) in CONFINED {
            if places.iter().any(|place| file.is_in(place)) {
                continue;
            }
            for at in file.tokens(name) {
                broken.push(at_line(&file, at, &format!("`{name}` belongs into {places:?}: {instead}")));
            }
        }
    }
    report(&broken);
}

#[test]
fn whiteouts_are_spelled_once() {
    let mut broken = Vec::new();
    for file in library().into_iter().filter(|file| file.path != "src/model/whiteout.rs") {
        for (at, _) in file.uncommented.match_indices(".wh.") {
            if !file.in_tests(at) {
                broken.push(at_line(
                    &file,
                    at,
                    "ask model::whiteout what a name means, or how a mark is spelled",
                ));
            }
        }
    }
    report(&broken);
}

#[test]
fn files_are_short() {
    let mut files: Vec<_> =
        everything().iter().map(|file| (file.lines_outside_tests(), file.path.clone())).collect();
    files.sort();
    let too_long = |lines: usize| lines > FILE_LINES_MAX;
    let mut broken: Vec<_> = files
        .iter()
        .filter(|(lines, _)| too_long(*lines))
        .map(|(lines, path)| {
            format!(
                "{path}:1: {lines} lines outside of tests, {FILE_LINES_MAX} allowed: split it by what it owns"
            )
        })
        .collect();
    if !broken.is_empty() {
        let soft = files.iter().filter(|(lines, _)| *lines > FILE_LINES_SOFT && !too_long(*lines));
        broken.extend(soft.map(|(lines, path)| format!("(growing: {path}, {lines} lines)")));
    }
    report(&broken);
}

#[test]
fn functions_are_short() {
    let mut broken = Vec::new();
    for file in everything() {
        for function in file.functions().iter().filter(|function| function.lines > FUNCTION_LINES_MAX) {
            broken.push(at_line(
                &file,
                function.offset,
                &format!(
                    "`{}` has {} lines, {FUNCTION_LINES_MAX} allowed: name its steps and make them functions",
                    function.name, function.lines
                ),
            ));
        }
    }
    report(&broken);
}

#[test]
fn sources_are_ascii() {
    let mut broken = Vec::new();
    for (path, text) in texts(&[".rs", ".toml", ".sh", ".py"]).into_iter().chain(scripts()) {
        let file = Source::new(&path, text);
        for (at, odd) in file.text.char_indices().filter(|(_, c)| !c.is_ascii()) {
            if !file.in_tests(at) {
                broken.push(at_line(&file, at, &format!("{odd:?}: write ASCII, or an escape in a literal")));
            }
        }
    }
    report(&broken);
}

#[test]
fn nothing_is_left_for_later() {
    let mut broken = Vec::new();
    let banned = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("to", "do!"),
        concat!("unimple", "mented!"),
    ];
    for (path, text) in texts(&[".rs", ".toml", ".sh", ".py", ".md"]).into_iter().chain(scripts()) {
        for (number, line) in text.lines().enumerate() {
            for word in banned.iter().filter(|word| has_word(line, word)) {
                broken.push(format!(
                    "{path}:{}: {word}: do it now, or write down why it is not needed",
                    number + 1
                ));
            }
        }
    }
    report(&broken);
}

#[test]
fn results_are_not_dropped() {
    let mut broken = Vec::new();
    for file in library() {
        for at in file.tokens("let _ =").into_iter().filter(|at| !file.in_tests(*at)) {
            broken.push(at_line(&file, at, "handle the error, or call a named function that logs it"));
        }
    }
    report(&broken);
}

#[test]
fn files_are_named_after_what_they_own() {
    let vague = ["util.rs", "utils.rs", "helper.rs", "helpers.rs", "misc.rs", "common.rs"];
    let broken: Vec<_> = everything()
        .iter()
        .filter(|file| vague.iter().any(|name| file.path.ends_with(&format!("/{name}"))))
        .map(|file| format!("{}:1: name the file after what it owns", file.path))
        .collect();
    report(&broken);
}

#[test]
fn nothing_names_the_workplace() {
    let mut broken = Vec::new();
    let words = [concat!("sub", "agent"), concat!("issues ", "show")];
    for (path, text) in texts(&[".rs", ".toml", ".sh", ".py", ".md"]).into_iter().chain(scripts()) {
        for (number, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            let number_after = lower
                .split(concat!("iss", "ue "))
                .skip(1)
                .any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            if names_workplace(line) || number_after || words.iter().any(|word| lower.contains(word)) {
                broken.push(format!(
                    "{path}:{}: say it without naming the place or the ticket it was written in",
                    number + 1
                ));
            }
        }
    }
    report(&broken);
}

#[test]
fn the_reader_of_sources_can_read() {
    let text = r##"
use crate::{index::{Index, x}, sys};
fn a(x: [u8; 3]) -> char { let s = "fn no() { crate::fuse"; '{' /* } */ }
fn b<'a>(s: &'a str) { super::super::fs::x(br#"""#, '\'', r"\"); } // fn c() {}
#[cfg(test)]
mod tests { use super::super::super::image; fn t() { let _ = 1; } }
const AFTER: &[u8] = b".wh.";
"##;
    let file = Source::new("src/layer/one.rs", text.to_owned());
    let modules: Vec<_> = file.crate_modules().into_iter().map(|(at, name)| (file.line(at), name)).collect();
    let expected = [(2, "index"), (2, "sys"), (4, "fs"), (6, "image")];
    assert_eq!(modules, expected.map(|(line, name)| (line, name.to_owned())));
    let names: Vec<_> = file.functions().into_iter().map(|function| function.name).collect();
    assert_eq!(names, ["a", "b", "t"]);
    assert!(file.in_tests(file.tokens("let _ =")[0]));
    assert!(!file.in_tests(file.uncommented.find(".wh.").unwrap()));
    assert_eq!(file.lines_outside_tests(), text.lines().count() - 2);
    assert!(has_word("// XY: z", "XY") && !has_word("mkstemp(XYX)", "XY"));
}

fn row(module: &str) -> Option<u8> {
    ROWS.iter().find(|(name, _)| *name == module).map(|(_, row)| *row)
}

/// The top-level module that a file belongs to; none for the map itself.
fn module_of(path: &str) -> Option<String> {
    let inside = path.strip_prefix("src/")?;
    let module = inside.split('/').next().unwrap_or_default().trim_end_matches(".rs");
    (module != "lib").then(|| module.to_owned())
}

/// A path of the machine that this was written on, and not one that merely has a directory of that name in it.
fn names_workplace(line: &str) -> bool {
    let place = concat!("/wo", "rk/");
    line.match_indices(place)
        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-/})>*".contains(c)))
}

fn has_word(line: &str, word: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
    line.match_indices(word)
        .any(|(at, _)| edge(line[..at].chars().next_back()) && edge(line[at + word.len()..].chars().next()))
}

fn at_line(file: &Source, offset: usize, what: &str) -> String {
    format!("{}:{}: {what}", file.path, file.line(offset))
}

fn report(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

fn library() -> Vec<Source> {
    rust(&["src", "mount-helper/src"])
}

fn everything() -> Vec<Source> {
    rust(&["src", "mount-helper", "tests", "benches", "examples", "fuzz", "build.rs"])
}

fn rust(places: &[&str]) -> Vec<Source> {
    let sources = texts(&[".rs"]).into_iter().map(|(path, text)| Source::new(&path, text));
    let found: Vec<_> = sources.filter(|file| places.iter().any(|place| file.is_in(place))).collect();
    assert!(!found.is_empty(), "no source below {places:?}");
    found
}

/// Files without an ending in the places where we keep scripts.
fn scripts() -> Vec<(String, String)> {
    let all = texts(&[""]).into_iter();
    all.filter(|(path, _)| {
        (path.starts_with("scripts/") || path.starts_with(".ci/")) && !path.contains(".py")
    })
    .collect()
}

/// Files of the repository with one of these endings; what is not text is left out.
fn texts(endings: &[&str]) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let name = |path: &Path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    let files = files_below(root, endings).into_iter();
    files.filter_map(|path| Some((name(&path), std::fs::read_to_string(&path).ok()?))).collect()
}
