//! Names of the parts of an event, as questions and definitions write them: `event_name`, `context.os.name`,
//! `properties.platform`, or `platform` for short.

use std::fmt;

use crate::Error;

/// Longest name of a field, bytes: the limit of `Condition.field` in `weir/analytics/v1/query.proto`.
pub const MAX_BYTES: usize = 400;

/// A part of an event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// `event_name`.
    EventName,
    /// `event_type`.
    EventType,
    /// `user_id`.
    UserId,
    /// `anonymous_id`.
    AnonymousId,
    /// `session_id`.
    SessionId,
    /// `install_id`.
    InstallId,
    /// `context.` and the path within the context.
    Context(ContextField),
    /// `properties.` and the key. The key is taken whole: dots in it do not descend.
    Property(String),
}

/// A text within `weir.event.v1.Context`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is the path that `ContextField::path` gives, documented in event.proto")]
pub enum ContextField {
    AppName,
    AppVersion,
    AppBuild,
    DeviceType,
    DeviceManufacturer,
    DeviceModel,
    OsName,
    OsVersion,
    Locale,
    PageUrl,
    PagePath,
    PageTitle,
    Referrer,
    CampaignSource,
    CampaignMedium,
    CampaignName,
    CampaignTerm,
    CampaignContent,
    Ip,
    UserAgent,
}

impl ContextField {
    /// Every one of them.
    pub const ALL: [ContextField; 20] = [
        ContextField::AppName,
        ContextField::AppVersion,
        ContextField::AppBuild,
        ContextField::DeviceType,
        ContextField::DeviceManufacturer,
        ContextField::DeviceModel,
        ContextField::OsName,
        ContextField::OsVersion,
        ContextField::Locale,
        ContextField::PageUrl,
        ContextField::PagePath,
        ContextField::PageTitle,
        ContextField::Referrer,
        ContextField::CampaignSource,
        ContextField::CampaignMedium,
        ContextField::CampaignName,
        ContextField::CampaignTerm,
        ContextField::CampaignContent,
        ContextField::Ip,
        ContextField::UserAgent,
    ];

    /// The path within the context, such as `os.name`.
    pub const fn path(self) -> &'static str {
        match self {
            ContextField::AppName => "app.name",
            ContextField::AppVersion => "app.version",
            ContextField::AppBuild => "app.build",
            ContextField::DeviceType => "device.type",
            ContextField::DeviceManufacturer => "device.manufacturer",
            ContextField::DeviceModel => "device.model",
            ContextField::OsName => "os.name",
            ContextField::OsVersion => "os.version",
            ContextField::Locale => "locale",
            ContextField::PageUrl => "page.url",
            ContextField::PagePath => "page.path",
            ContextField::PageTitle => "page.title",
            ContextField::Referrer => "referrer",
            ContextField::CampaignSource => "campaign.source",
            ContextField::CampaignMedium => "campaign.medium",
            ContextField::CampaignName => "campaign.name",
            ContextField::CampaignTerm => "campaign.term",
            ContextField::CampaignContent => "campaign.content",
            ContextField::Ip => "ip",
            ContextField::UserAgent => "user_agent",
        }
    }
}

impl Field {
    /// Reads a name. A bare name that is no field of an event is short for `properties.` and that name.
    ///
    /// # Errors
    /// [`Error::Field`] for an empty or overlong name and for a path that the context does not have.
    pub fn parse(name: &str) -> Result<Field, Error> {
        let refuse = |problem: String| {
            let shown = name.chars().take(80).collect();
            Err(Error::Field { name: shown, problem })
        };
        if name.len() > MAX_BYTES {
            return refuse(format!("names have at most {MAX_BYTES} bytes"));
        }
        match name {
            "" => refuse("write a name such as `event_name` or `properties.plan`".to_owned()),
            "event_name" => Ok(Field::EventName),
            "event_type" => Ok(Field::EventType),
            "user_id" => Ok(Field::UserId),
            "anonymous_id" => Ok(Field::AnonymousId),
            "session_id" => Ok(Field::SessionId),
            "install_id" => Ok(Field::InstallId),
            "context" | "properties" => refuse(format!("say which, as in `{name}.…`")),
            _ => {
                if let Some(path) = name.strip_prefix("context.") {
                    return match ContextField::ALL.into_iter().find(|field| field.path() == path) {
                        Some(field) => Ok(Field::Context(field)),
                        None => {
                            let known: Vec<_> =
                                ContextField::ALL.into_iter().map(ContextField::path).collect();
                            refuse(format!("the context has {}", known.join(", ")))
                        }
                    };
                }
                match name.strip_prefix("properties.") {
                    Some("") => refuse("a key must follow, as in `properties.plan`".to_owned()),
                    Some(key) => Ok(Field::Property(key.to_owned())),
                    None => Ok(Field::Property(name.to_owned())),
                }
            }
        }
    }
}

/// The canonical name: [`Field::parse`] gives the same field back.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::EventName => f.write_str("event_name"),
            Field::EventType => f.write_str("event_type"),
            Field::UserId => f.write_str("user_id"),
            Field::AnonymousId => f.write_str("anonymous_id"),
            Field::SessionId => f.write_str("session_id"),
            Field::InstallId => f.write_str("install_id"),
            Field::Context(field) => write!(f, "context.{}", field.path()),
            Field::Property(key) => write!(f, "properties.{key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bare_names_are_short_for_properties() {
        assert_eq!(Field::parse("platform"), Field::parse("properties.platform"));
        assert_eq!(Field::parse("a.b").unwrap().to_string(), "properties.a.b");
        assert_eq!(Field::parse("properties.event_name").unwrap(), Field::Property("event_name".to_owned()));
    }

    #[test]
    fn wrong_names_say_what_to_write() {
        for (name, hint) in [
            ("", "write a name"),
            ("context", "context.…"),
            ("context.os", "os.name"),
            ("properties.", "a key must follow"),
        ] {
            let error = Field::parse(name).unwrap_err().to_string();
            assert!(error.contains(hint), "{name}: {error}");
        }
        assert!(Field::parse(&"x".repeat(MAX_BYTES + 1)).is_err());
    }

    #[test]
    fn context_fields_keep_their_canonical_names() {
        for field in ContextField::ALL {
            let field = Field::Context(field);
            assert_eq!(Field::parse(&field.to_string()), Ok(field));
        }
    }

    proptest! {
        #[test]
        fn canonical_names_parse_to_the_same_field(name in "(properties\\.)?[a-z_.]{1,20}") {
            if let Ok(field) = Field::parse(&name) {
                prop_assert_eq!(Field::parse(&field.to_string()), Ok(field));
            }
        }
    }
}
