//! What is in a file of credentials, containers-auth.json(5) and docker's `config.json`:
//! `{"auths": {KEY: {"auth": base64 of USER:PASSWORD}}, "credHelpers": {HOST: NAME}, "credsStore": NAME}`.
//!
//! What is not understood here is kept as it was written. Reasons of errors never quote the file: it holds secrets.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use super::super::Access;
use super::key::{self, RegistryKey};
use super::ordered::Ordered;

type Fields = Ordered<Box<RawValue>>;

/// With padding, as RFC 4648 has it; without is read too.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// In which of two forms a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `auth.json`, and docker's `config.json`.
    Current,
    /// `~/.dockercfg`: nothing but what is in `auths` otherwise; keys are URLs.
    Dockercfg,
}

/// One file, understood as far as it is of interest.
pub(super) struct AuthFile {
    form: Form,
    fields: Fields,
    auths: Fields,
    helpers: Ordered<String>,
    store: Option<String>,
}

/// What is known of one account. All other fields are somebody else's.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    identitytoken: Option<String>,
    // In the clear, as kubernetes allows it in its secrets of type dockerconfigjson.
    username: Option<String>,
    password: Option<String>,
}

/// One field of the whole, to be written.
#[derive(Serialize)]
#[serde(untagged)]
enum Part<'a> {
    Auths(&'a Fields),
    Other(&'a RawValue),
}

impl AuthFile {
    /// An empty text is an empty file. The error is the reason.
    pub(super) fn parse(text: &[u8], form: Form) -> Result<Self, String> {
        let fields: Fields = match text.trim_ascii() {
            [] => Fields::default(),
            text => serde_json::from_slice(text).map_err(|error| reason(&error, "not an object"))?,
        };
        if form == Form::Dockercfg {
            let (helpers, store) = (Ordered::default(), None);
            return Ok(Self { form, fields: Fields::default(), auths: fields, helpers, store });
        }
        let auths = field(&fields, "auths", "an object of objects")?.unwrap_or_default();
        let helpers = field(&fields, "credHelpers", "an object of names")?.unwrap_or_default();
        let store = field(&fields, "credsStore", "a name")?.filter(|name: &String| !name.is_empty());
        Ok(Self { form, fields, auths, helpers, store })
    }

    /// The credentials for a repository: those of the longest key that it lies in (containers-auth.json(5)), else those
    /// whose key means the host in another spelling.
    pub(super) fn find(&self, key: &RegistryKey) -> Result<Option<Access>, String> {
        let exact = key.hierarchy().find_map(|name| Some((name.clone(), self.auths.get(&name)?)));
        let exact = exact.filter(|_| self.form == Form::Current);
        let other = || {
            let mut all = self.auths.iter();
            all.find(|(name, _)| self.means_host(name, key.host()))
                .map(|(name, value)| (name.to_owned(), value))
        };
        match exact.or_else(other) {
            Some((name, value)) => access(value).map_err(|reason| format!("auths: {name:?}: {reason}")),
            None => Ok(None),
        }
    }

    /// The helper that `credHelpers` names for a host.
    pub(super) fn helper_for(&self, host: &str) -> Option<&str> {
        let exact = self.helpers.get(host);
        let other =
            || self.helpers.iter().find(|(name, _)| self.means_host(name, host)).map(|(_, name)| name);
        exact.or_else(other).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// All hosts that have a helper, and its name.
    pub(super) fn helpers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.helpers.iter().map(|(host, name)| (host, name.as_str())).filter(|(_, name)| !name.is_empty())
    }

    /// The helper for all others: `credsStore`, which only docker knows.
    pub(super) fn store(&self) -> Option<&str> {
        self.store.as_deref()
    }

    /// All keys that have an entry.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.auths.iter().map(|(key, _)| key)
    }

    /// Gives a key a user and a password; other fields of its entry stay. Other spellings of the same host go.
    pub(super) fn set(&mut self, key: &RegistryKey, username: &str, password: &str) -> Result<(), String> {
        let name = key.to_string();
        let known = self.auths.get(&name);
        let mut entry: Fields =
            known.and_then(|entry| serde_json::from_str(entry.get()).ok()).unwrap_or_default();
        entry.remove_if(|field| matches!(field, "identitytoken" | "username" | "password" | "registrytoken"));
        let auth = BASE64.encode(format!("{username}:{password}"));
        entry.set("auth", to_raw_value(&auth).map_err(|error| error.to_string())?);
        let entry = to_raw_value(&entry).map_err(|error| error.to_string())?;
        self.auths.set(&name, entry);
        if key.is_host() {
            let host = key.host().to_owned();
            let form = self.form;
            self.auths.remove_if(|other| other != name && means_host(form, other, &host));
        }
        Ok(())
    }

    /// Takes the credentials of a key away, in whatever spelling; whether there were any.
    pub(super) fn remove(&mut self, key: &RegistryKey) -> bool {
        let (name, form) = (key.to_string(), self.form);
        self.auths.remove_if(|known| known == name || (key.is_host() && means_host(form, known, key.host())))
    }

    /// Takes all credentials away; which helpers there are is no secret and stays.
    pub(super) fn clear(&mut self) {
        self.auths = Fields::default();
    }

    /// The file's new text.
    pub(super) fn text(&self) -> Result<Vec<u8>, String> {
        let mut text = Vec::new();
        let mut out = Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"\t"));
        let written = match self.form {
            Form::Dockercfg => self.auths.serialize(&mut out),
            Form::Current => {
                let own = Part::Auths(&self.auths);
                let mut parts = Ordered::default();
                for (name, value) in self.fields.iter() {
                    parts.set(name, Part::Other(value));
                }
                parts.set("auths", own);
                parts.serialize(&mut out)
            }
        };
        written.map_err(|error| error.to_string())?;
        text.push(b'\n');
        Ok(text)
    }

    fn means_host(&self, name: &str, host: &str) -> bool {
        means_host(self.form, name, host)
    }
}

/// Whether a key is another spelling of a host: a URL, or one of docker.io's other names.
fn means_host(form: Form, name: &str, host: &str) -> bool {
    let plain = name.strip_prefix("https://").or_else(|| name.strip_prefix("http://"));
    let has_path = plain.is_some() || form == Form::Dockercfg;
    let plain = plain.unwrap_or(name);
    let plain = if has_path { plain.split('/').next().unwrap_or_default() } else { plain };
    key::usual_host(plain) == key::usual_host(host)
}

fn field<T: DeserializeOwned>(fields: &Fields, name: &str, expected: &str) -> Result<Option<T>, String> {
    let Some(value) = fields.get(name) else { return Ok(None) };
    serde_json::from_str(value.get()).map_err(|_| format!("{name}: expected {expected}"))
}

/// Nothing when the entry is empty, as docker writes it where a helper has the secret.
fn access(entry: &RawValue) -> Result<Option<Access>, String> {
    let entry: Option<Entry> = serde_json::from_str(entry.get())
        .map_err(|_| "expected an object with texts auth or identitytoken".to_owned())?;
    let entry = entry.unwrap_or_default();
    let set = |text: Option<String>| text.filter(|text| !text.is_empty());
    if let Some(token) = set(entry.identitytoken) {
        return Ok(Some(Access::IdentityToken(token)));
    }
    let Some(auth) = set(entry.auth) else {
        let pair = set(entry.username).zip(entry.password);
        return Ok(pair.map(|(username, password)| Access::Password { username, password }));
    };
    let wrong = || "auth is not the base64 of USER:PASSWORD: log in again".to_owned();
    let decoded = BASE64.decode(auth.trim_ascii()).map_err(|_| wrong())?;
    let decoded = String::from_utf8(decoded).map_err(|_| wrong())?;
    let (username, password) = decoded.split_once(':').ok_or_else(wrong)?;
    if username.is_empty() && password.is_empty() {
        return Ok(None);
    }
    let (username, password) = (username.to_owned(), password.trim_end_matches('\0').to_owned());
    Ok(Some(Access::Password { username, password }))
}

/// Where the text is wrong, without quoting it.
fn reason(error: &serde_json::Error, expected: &str) -> String {
    match error.classify() {
        Category::Data => format!("line {}: {expected}", error.line()),
        _ => format!("not JSON: {error}"),
    }
}
