//! Lays the sources over the defaults, remembering for every value where it came from.
//!
//! The defaults are the schema: a key exists if `default.toml` has it, and a string from the environment or the command
//! line is read as the type that the default has. `log.kafka.extra` alone is open: any key, kept with its dots.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::{Table, Value};

use super::{Config, DEFAULT_TOML, Error, Origin, Secrets, Sources};

const ENV_PREFIX: &str = "WEIR__";
/// The one table whose keys are not ours.
const OPEN_TABLE: &str = "log.kafka.extra";
/// Keys that contain one of these hold secrets, which neither errors nor listings repeat. `key.pem` is a private key, and
/// `sasl.jaas.config` and `sasl.oauthbearer.config` are texts with passwords in them.
const SECRET_WORDS: [&str; 9] =
    ["password", "passphrase", "secret", "token", "key.pem", "key_pem", "jaas", "oauthbearer", "credential"];
/// Of the keys that do: those that name something public.
const PUBLIC_SUFFIXES: [&str; 3] = ["_file", ".file", "oauthbearer.method"];
const HIDDEN: &str = "(hidden)";

pub(super) fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| key.contains(word))
        && !PUBLIC_SUFFIXES.iter().any(|suffix| key.ends_with(suffix))
}

/// The value without the password of a URL (`https://user:password@host`).
fn without_password(value: Value) -> Value {
    let Value::String(text) = &value else { return value };
    let Some((scheme, rest)) = text.split_once("://") else { return value };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((user, _)) => Value::String(format!("{scheme}://{HIDDEN}{}", &rest[user.len()..])),
        None => value,
    }
}

/// A value as it may be printed.
fn shown(key: &str, value: &Value) -> Value {
    match value.as_str() {
        Some("") => value.clone(),
        _ if is_secret(key) => Value::String(HIDDEN.to_owned()),
        _ => without_password(value.clone()),
    }
}

/// What is wrong and where, without the line itself, which may hold a secret.
fn place(text: &str, error: &toml::de::Error) -> String {
    let before = &text[..error.span().map_or(0, |span| span.start.min(text.len()))];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: {}", error.message())
}

/// The merged values and their origins.
pub(super) struct Layers {
    /// Dotted key to value, leaves only.
    leaves: BTreeMap<String, Value>,
    origins: BTreeMap<String, Origin>,
}

impl Layers {
    pub(super) fn new(sources: &Sources) -> Result<Self, Error> {
        let defaults: Table = DEFAULT_TOML.parse().expect("default.toml is TOML: held by a test");
        let mut leaves = BTreeMap::new();
        flatten("", defaults, &mut |key, value| {
            leaves.insert(key, value);
        });
        let mut layers = Self { leaves, origins: BTreeMap::new() };

        if let Some(path) = &sources.file {
            let text = std::fs::read_to_string(path)
                .map_err(|source| Error::Unreadable { path: path.clone(), source })?;
            let table: Table = text
                .parse()
                .map_err(|error| Error::Syntax { path: path.clone(), reason: place(&text, &error) })?;
            let mut entries = Vec::new();
            flatten("", table, &mut |key, value| entries.push((key, value)));
            for (key, value) in entries {
                layers.set(key, value, Origin::File(path.clone()))?;
            }
        }
        for (name, text) in &sources.env {
            if let Some(key) = name.strip_prefix(ENV_PREFIX) {
                let key = key.to_lowercase().replace("__", ".");
                layers.set_text(key, text, Origin::Env(name.clone()))?;
            }
        }
        for (key, text) in &sources.overrides {
            layers.set_text(key.clone(), text, Origin::Override)?;
        }
        Ok(layers)
    }

    /// Every key with its value.
    pub(super) fn to_toml(&self, secrets: Secrets) -> String {
        let mut tree = Self { leaves: self.leaves.clone(), origins: BTreeMap::new() };
        if secrets == Secrets::Hidden {
            for (key, value) in &mut tree.leaves {
                *value = shown(key, value);
            }
        }
        toml::to_string(&tree.tree()).expect("tables of plain values can be written")
    }

    /// The typed configuration. The path that serde reports leads back to the key's origin.
    pub(super) fn parse(self) -> Result<Config, Error> {
        let tree = Value::Table(self.tree());
        serde_path_to_error::deserialize(tree).map_err(|error| {
            let path = error.path().to_string();
            // Within a list the path goes on (`rollups.definitions[0].name`); the key is the leaf it starts with.
            let key = self
                .leaves
                .keys()
                .filter(|key| path.starts_with(key.as_str()))
                .max_by_key(|key| key.len())
                .cloned()
                .unwrap_or_else(|| path.clone());
            if is_secret(&key) {
                // serde's own words would repeat the value.
                return self.invalid(&key, "expected text in quotes".to_owned());
            }
            let reason = error.into_inner().to_string();
            let reason = reason.lines().next().unwrap_or_default();
            let reason = if path == key { reason.to_owned() } else { format!("{path}: {reason}") };
            self.invalid(&key, reason)
        })
    }

    fn set(&mut self, key: String, value: Value, origin: Origin) -> Result<(), Error> {
        let is_section = |key: &str| self.leaves.keys().any(|known| known.starts_with(&format!("{key}.")));
        match &value {
            // The bare heading of a section.
            Value::Table(_) if key == OPEN_TABLE || is_section(&key) => return Ok(()),
            _ if key == OPEN_TABLE => {
                let reason = "expected a table of librdkafka properties".to_owned();
                return Err(Error::Invalid { key, value: value.to_string(), origin, reason });
            }
            _ => {}
        }
        if !self.leaves.contains_key(&key) && !is_open(&key) {
            let nearest = self.nearest(&key);
            return Err(Error::UnknownKey { key, origin, nearest });
        }
        self.leaves.insert(key.clone(), value);
        self.origins.insert(key, origin);
        Ok(())
    }

    /// Sets a value written as plain text, read as the type that the key has.
    fn set_text(&mut self, key: String, text: &str, origin: Origin) -> Result<(), Error> {
        let parsed = match self.leaves.get(&key) {
            Some(Value::Integer(_)) => text.trim().replace('_', "").parse().ok().map(Value::Integer),
            Some(Value::Boolean(_)) => text.trim().parse().ok().map(Value::Boolean),
            Some(Value::Array(_)) => list(text),
            _ => Some(Value::String(text.to_owned())),
        };
        let unparsed = parsed.is_none();
        let expected = match self.leaves.get(&key) {
            Some(Value::Integer(_)) => "expected a whole number",
            Some(Value::Boolean(_)) => "expected true or false",
            _ => "expected a list: values with commas between them, or TOML such as [\"a\", \"b\"]",
        };
        self.set(key.clone(), parsed.unwrap_or_else(|| Value::String(text.to_owned())), origin)?;
        if unparsed { Err(self.invalid(&key, expected.to_owned())) } else { Ok(()) }
    }

    fn invalid(&self, key: &str, reason: String) -> Error {
        let value = match self.leaves.get(key) {
            Some(value) => shown(key, value).to_string(),
            None => "(missing)".to_owned(),
        };
        let origin = self.origins.get(key).cloned().unwrap_or(Origin::Default);
        Error::Invalid { key: key.to_owned(), value, origin, reason }
    }

    /// The existing key most like `key`, or none that is like it at all. A key with the right name in the wrong section
    /// is like it, too.
    fn nearest(&self, key: &str) -> Option<String> {
        let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
        let likeness = |known: &str| {
            let whole = strsim::jaro_winkler(known, key);
            if last(known) == last(key) { whole.max(0.9) } else { whole }
        };
        self.leaves
            .keys()
            .map(|known| (likeness(known), known))
            .filter(|(likeness, _)| *likeness > 0.8)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, known)| known.clone())
    }

    fn tree(&self) -> Table {
        let mut root = Table::new();
        for (key, value) in &self.leaves {
            let (path, leaf) = match key.strip_prefix(OPEN_TABLE) {
                Some(rest) if is_open(key) => (OPEN_TABLE, &rest[1..]),
                _ => key.rsplit_once('.').unwrap_or(("", key)),
            };
            let mut table = &mut root;
            for segment in path.split('.').filter(|s| !s.is_empty()) {
                let inner = table.entry(segment).or_insert_with(|| Value::Table(Table::new()));
                table = inner.as_table_mut().expect("a key that is a leaf has no keys below it");
            }
            table.insert(leaf.to_owned(), value.clone());
        }
        root
    }
}

fn is_open(key: &str) -> bool {
    key.strip_prefix(OPEN_TABLE).is_some_and(|rest| rest.starts_with('.') && rest.len() > 1)
}

/// Calls `leaf` with the dotted key of every value that is not a table; an empty table is a leaf.
fn flatten(prefix: &str, table: Table, leaf: &mut impl FnMut(String, Value)) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(inner) if !inner.is_empty() => flatten(&key, inner, leaf),
            // librdkafka takes every property as text.
            value @ (Value::Integer(_) | Value::Boolean(_) | Value::Float(_)) if is_open(&key) => {
                leaf(key, Value::String(value.to_string()));
            }
            value => leaf(key, value),
        }
    }
}

fn list(text: &str) -> Option<Value> {
    if text.trim_start().starts_with('[') {
        #[derive(Deserialize)]
        struct Wrapped {
            list: Vec<Value>,
        }
        return toml::from_str::<Wrapped>(&format!("list = {text}")).ok().map(|w| Value::Array(w.list));
    }
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    Some(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
}
