//! Who calls, and what they may do.

use std::{fmt, num::NonZeroU32, str::FromStr, sync::Arc};

use tonic::{Request, Status};

pub use weir_proto::auth::v1::Scope;

use crate::status::Reason;

/// A project: what events, questions and limits belong to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProjectId(Arc<str>);

/// A text that names no project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a project's name has 1 to 63 characters of a-z, 0-9, - and _, and begins with a letter or digit")]
pub struct NotAProject;

impl FromStr for ProjectId {
    type Err = NotAProject;

    fn from_str(name: &str) -> Result<Self, NotAProject> {
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = name.len() <= 63
            && name.bytes().next().is_some_and(is_word)
            && name.bytes().all(|byte| is_word(byte) || matches!(byte, b'-' | b'_'));
        if fits { Ok(Self(name.into())) } else { Err(NotAProject) }
    }
}

impl ProjectId {
    /// The project of events and questions for which none is named.
    pub fn default_project() -> Self {
        Self("default".into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u32);

impl Scopes {
    /// All of them but `internal`: what a caller may do while no credentials are asked for.
    pub const DEVELOPMENT: Self = Self::of(&[
        Scope::EventsWrite,
        Scope::EventsImport,
        Scope::QueryRead,
        Scope::EventsRead,
        Scope::DlqAdmin,
        Scope::BoardsWrite,
        Scope::ProjectAdmin,
        Scope::InstanceAdmin,
    ]);

    /// These.
    pub const fn of(scopes: &[Scope]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < scopes.len() {
            bits |= 1 << scopes[at] as u32;
            at += 1;
        }
        Self(bits)
    }

    /// These, too.
    #[must_use]
    pub const fn with(self, scope: Scope) -> Self {
        Self(self.0 | 1 << scope as u32)
    }

    /// Whether it is among them.
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & 1 << scope as u32 != 0
    }
}

/// The name of a scope as credentials and errors show it: `events:write`.
pub fn scope_name(scope: Scope) -> String {
    let name = scope.as_str_name().trim_start_matches("SCOPE_").to_ascii_lowercase();
    name.replacen('_', ":", 1)
}

/// Who calls, in the extensions of every request. It is the only source of the project.
#[derive(Debug, Clone)]
pub struct Principal {
    /// The project of what they send and ask.
    pub project: ProjectId,
    /// What names them in logs: the id of a key or of a person.
    pub subject: Arc<str>,
    /// What they may do.
    pub scopes: Scopes,
    /// How much of it their project may do; `None` is any.
    pub quota: Option<Quota>,
}

/// How many calls a project may make, counted by each process for itself (a token bucket).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// In the long run.
    pub calls_per_second: NonZeroU32,
    /// At once, after a time without any.
    pub burst: NonZeroU32,
}

impl Principal {
    /// The caller of an RPC, as the layers found them.
    ///
    /// # Errors
    /// When the call came past the layers.
    pub fn of<T>(request: &Request<T>) -> Result<&Self, NotAuthenticated> {
        request.extensions().get::<Self>().ok_or(NotAuthenticated)
    }
}

/// An RPC that was called without its layers: a fault of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the call was not authenticated")]
pub struct NotAuthenticated;

impl From<NotAuthenticated> for Status {
    fn from(error: NotAuthenticated) -> Self {
        Reason::Internal.status(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_named_as_credentials_name_them() {
        assert_eq!(scope_name(Scope::EventsWrite), "events:write");
        assert_eq!(scope_name(Scope::InstanceAdmin), "instance:admin");
        assert_eq!(scope_name(Scope::Internal), "internal");
    }

    #[test]
    fn projects_have_plain_names() {
        for name in ["default", "a", "shop-2", "0_x", &"a".repeat(63)] {
            assert_eq!(name.parse::<ProjectId>().unwrap().as_str(), name);
        }
        for name in ["", "-a", "_a", "Shop", "a b", "a/b", "ä", &"a".repeat(64)] {
            assert_eq!(name.parse::<ProjectId>(), Err(NotAProject), "{name}");
        }
    }

    #[test]
    fn a_set_has_what_was_put_into_it() {
        let set = Scopes::of(&[Scope::QueryRead]).with(Scope::DlqAdmin);
        assert!(set.contains(Scope::QueryRead) && set.contains(Scope::DlqAdmin));
        assert!(!set.contains(Scope::EventsRead));
    }
}
