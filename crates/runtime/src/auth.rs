//! Who calls, and what they may do.

use std::{fmt, num::NonZeroU32, sync::Arc};

pub use weir_proto::auth::v1::Scope;

/// A project: what events, questions and limits belong to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProjectId(Arc<str>);

impl ProjectId {
    /// From its name.
    pub fn new(name: &str) -> Self {
        Self(name.into())
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
    /// All of them: what a caller may do while no credentials are asked for.
    pub const DEVELOPMENT: Self = Self::of(&[
        Scope::EventsWrite,
        Scope::EventsImport,
        Scope::QueryRead,
        Scope::EventsRead,
        Scope::DlqAdmin,
        Scope::BoardsWrite,
        Scope::ProjectAdmin,
        Scope::InstanceAdmin,
        Scope::Internal,
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
    fn a_set_has_what_was_put_into_it() {
        let set = Scopes::of(&[Scope::QueryRead]).with(Scope::DlqAdmin);
        assert!(set.contains(Scope::QueryRead) && set.contains(Scope::DlqAdmin));
        assert!(!set.contains(Scope::EventsRead));
    }
}
