//! One `registries.conf`: from TOML to rules. What is not known is told and left out; what has the wrong type is an error
//! that names its key.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};

use super::rewriting::{Mirror, Prefix, Pulls, Rule, place};
use super::short_names::{ShortNameMode, is_short, split_name};

/// What one file says.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) rules: Vec<Rule>,
    pub(super) search: Option<Vec<String>>,
    /// An empty target takes an alias away.
    pub(super) aliases: BTreeMap<String, String>,
    pub(super) mode: Option<ShortNameMode>,
    pub(super) credential_helpers: Option<Vec<String>>,
}

impl Document {
    /// The document and the keys that nothing is known of; the error is the reason. `path` is for messages.
    pub(super) fn parse(text: &str, path: &Path) -> Result<(Self, Vec<String>), String> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
            format!("not TOML: {line}{}", error.message())
        })?;
        if table.contains_key("registries") {
            return Err(
                "version 1 of the format ([registries.search], .insecure, .block) is not supported: write \
                        unqualified-search-registries and [[registry]] tables, containers-registries.conf(5)"
                    .to_owned(),
            );
        }
        let mut unknown = Vec::new();
        let mut fields = Fields { table, at: String::new() };
        let search = fields.texts("unqualified-search-registries")?;
        for registry in search.iter().flatten() {
            place(registry).map_err(|reason| format!("unqualified-search-registries: {reason}"))?;
        }
        let mode = match fields.text("short-name-mode")?.as_deref() {
            None | Some("") => None,
            Some("enforcing") => Some(ShortNameMode::Enforcing),
            Some("permissive") => Some(ShortNameMode::Permissive),
            Some("disabled") => Some(ShortNameMode::Disabled),
            Some(other) => {
                return Err(format!(
                    "short-name-mode: {other:?} is none of enforcing, permissive and disabled"
                ));
            }
        };
        let credential_helpers = fields.texts("credential-helpers")?;
        let aliases = aliases(&mut fields)?;
        let mut rules = Vec::new();
        for (number, table) in fields.tables("registry")?.into_iter().enumerate() {
            let at = format!("registry {}: ", number + 1);
            rules.push(rule(Fields { table, at }, path, &mut unknown)?);
        }
        fields.end(&mut unknown);
        Ok((Self { rules, search, aliases, mode, credential_helpers }, unknown))
    }
}

fn aliases(fields: &mut Fields) -> Result<BTreeMap<String, String>, String> {
    let Some(table) = fields.table("aliases")? else { return Ok(BTreeMap::new()) };
    let mut found = BTreeMap::new();
    for (name, target) in table {
        let Value::String(target) = target else {
            return Err(format!("aliases: {name:?}: expected a text, found {}", target.type_str()));
        };
        let is_plain = |text: &str| split_name(text).1.is_empty();
        if !is_short(&name) || !is_plain(&name) {
            return Err(format!("aliases: {name:?} must be a short name, without registry, tag and digest"));
        }
        if !target.is_empty() && (is_short(&target) || !is_plain(&target)) {
            return Err(format!(
                "aliases: {name:?}: {target:?} must have a registry, and neither tag nor digest"
            ));
        }
        found.insert(name, target);
    }
    Ok(found)
}

fn rule(mut fields: Fields, path: &Path, unknown: &mut Vec<String>) -> Result<Rule, String> {
    let at = fields.at.clone();
    let text = |text: Option<String>| text.filter(|text| !text.is_empty());
    let (prefix, location) = (text(fields.text("prefix")?), text(fields.text("location")?));
    let location = location.as_deref().map(place).transpose().map_err(|reason| format!("{at}{reason}"))?;
    let prefix = match (prefix, &location) {
        (Some(prefix), _) => Prefix::new(&prefix).map_err(|reason| format!("{at}{reason}"))?,
        (None, Some(location)) => Prefix::new(location).map_err(|reason| format!("{at}{reason}"))?,
        (None, None) => return Err(format!("{at}neither prefix nor location is set")),
    };
    let digest_only = fields.flag("mirror-by-digest-only")?;
    let (insecure, blocked) = (fields.flag("insecure")?, fields.flag("blocked")?);
    let mut mirrors = Vec::new();
    for (number, table) in fields.tables("mirror")?.into_iter().enumerate() {
        let at = format!("{at}mirror {}: ", number + 1);
        mirrors.push(mirror(Fields { table, at }, digest_only, unknown)?);
    }
    fields.end(unknown);
    Ok(Rule { prefix, location, insecure, blocked, mirrors, path: path.to_owned() })
}

fn mirror(mut fields: Fields, digest_only: bool, unknown: &mut Vec<String>) -> Result<Mirror, String> {
    let at = fields.at.clone();
    let location = fields.text("location")?.unwrap_or_default();
    let location = place(&location).map_err(|reason| format!("{at}{reason}"))?;
    let insecure = fields.flag("insecure")?;
    let pulls = match fields.text("pull-from-mirror")?.as_deref() {
        None | Some("") if digest_only => Pulls::Digests,
        None | Some("" | "all") => Pulls::All,
        Some("digest-only") => Pulls::Digests,
        Some("tag-only") => Pulls::Tags,
        Some(other) => {
            return Err(format!("{at}pull-from-mirror: {other:?} is none of all, digest-only and tag-only"));
        }
    };
    if digest_only && pulls != Pulls::Digests {
        return Err(format!("{at}pull-from-mirror contradicts mirror-by-digest-only = true"));
    }
    fields.end(unknown);
    Ok(Mirror { location, insecure, pulls })
}

/// A table of which one field after the other is taken.
struct Fields {
    table: Table,
    /// What messages begin with.
    at: String,
}

impl Fields {
    fn wrong(&self, key: &str, expected: &str, found: &Value) -> String {
        format!("{}{key}: expected {expected}, found {}", self.at, found.type_str())
    }

    fn text(&mut self, key: &str) -> Result<Option<String>, String> {
        match self.table.remove(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(key, "a text", &other)),
        }
    }

    fn flag(&mut self, key: &str) -> Result<bool, String> {
        match self.table.remove(key) {
            None => Ok(false),
            Some(Value::Boolean(flag)) => Ok(flag),
            Some(other) => Err(self.wrong(key, "true or false", &other)),
        }
    }

    fn table(&mut self, key: &str) -> Result<Option<Table>, String> {
        match self.table.remove(key) {
            None => Ok(None),
            Some(Value::Table(table)) => Ok(Some(table)),
            Some(other) => Err(self.wrong(key, "a table", &other)),
        }
    }

    fn list(&mut self, key: &str, expected: &str) -> Result<Option<Vec<Value>>, String> {
        match self.table.remove(key) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(other) => Err(self.wrong(key, expected, &other)),
        }
    }

    fn texts(&mut self, key: &str) -> Result<Option<Vec<String>>, String> {
        let Some(list) = self.list(key, "a list of texts")? else { return Ok(None) };
        let text = |value| match value {
            Value::String(text) => Ok(text),
            other => Err(self.wrong(key, "a list of texts", &other)),
        };
        list.into_iter().map(text).collect::<Result<_, _>>().map(Some)
    }

    fn tables(&mut self, key: &str) -> Result<Vec<Table>, String> {
        let expected = format!("tables [[{key}]]");
        let list = self.list(key, &expected)?.unwrap_or_default();
        let table = |value| match value {
            Value::Table(table) => Ok(table),
            other => Err(self.wrong(key, &expected, &other)),
        };
        list.into_iter().map(table).collect()
    }

    /// What was not taken is not known.
    fn end(self, unknown: &mut Vec<String>) {
        unknown.extend(self.table.into_iter().map(|(key, _)| format!("{}{key}", self.at)));
    }
}
