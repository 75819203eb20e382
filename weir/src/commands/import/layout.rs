//! Which columns become what: the mapping asked for, applied to the columns there are.

use std::{collections::BTreeSet, fmt};

use super::columns::{self, Constant, Mapping, Target};

/// How the header of an export of Weir's as CSV begins, and a column that it has when all fields are in it: the properties as
/// JSON, with their types.
const EXPORT: [&str; 4] = ["event_id", "time", "revenue", "currency"];
const EXPORTED_PROPERTIES: &str = "properties";
const EXPORTED_CLIENT_TIME: &str = "client_time";

/// Columns that a rejects file adds; they are never data, so that it can be mended and imported.
pub(crate) const LINE_COLUMN: &str = "weir_line";
pub(crate) const REASON_COLUMN: &str = "weir_reason";

/// Whether a column is one that a rejects file added.
pub(super) fn is_added(column: &str) -> bool {
    column == LINE_COLUMN || column == REASON_COLUMN
}

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    pub(crate) mappings: Vec<Mapping>,
    pub(crate) constants: Vec<Constant>,
    /// Columns to leave out.
    pub(crate) skip: BTreeSet<String>,
    /// Columns whose values stay text although they look like numbers.
    pub(crate) text: BTreeSet<String>,
    /// Texts that mean no value, such as `NA`.
    pub(crate) nulls: BTreeSet<String>,
    /// Whether the columns that remain become properties.
    pub(crate) properties: bool,
}

/// What becomes of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Fill(Target),
    /// A property that stays text.
    Text(String),
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fill(target) => target.fmt(f),
            Self::Text(key) => write!(f, "properties.{key}"),
        }
    }
}

impl Layout {
    /// The targets that are filled from a column or a constant by request.
    fn requested(&self) -> impl Iterator<Item = &Target> {
        self.mappings
            .iter()
            .map(|mapping| &mapping.target)
            .chain(self.constants.iter().map(|constant| &constant.target))
    }

    /// Whether a column that was not mapped fills this target by its name.
    pub(crate) fn by_name(&self, column: &str) -> Option<Target> {
        columns::by_name(column).filter(|target| !self.requested().any(|requested| requested == target))
    }

    /// Whether a column is not to be looked at.
    pub(crate) fn is_skipped(&self, column: &str) -> bool {
        self.skip.contains(column) || is_added(column)
    }

    /// Whether a text means no value.
    pub(crate) fn is_null(&self, text: &str) -> bool {
        !self.nulls.is_empty() && self.nulls.contains(text.trim())
    }

    /// Whether a header is that of an export of Weir's as CSV, which needs no mapping.
    pub(crate) fn is_export(&self, header: &[String]) -> bool {
        let begins = header.len() > EXPORT.len() && EXPORT.iter().zip(header).all(|(a, b)| a == b);
        begins && self.mappings.is_empty() && header.iter().any(|column| column == "event_name")
    }

    /// Refuses what can't be asked of an export with the columns of the store: its events are what they were.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn refuse_for_stored(&self) -> Result<(), String> {
        let is_plain = self.mappings.is_empty() && self.skip.is_empty() && self.text.is_empty();
        match is_plain && self.properties {
            true => Ok(()),
            false => Err("the file is an export of Weir's, whose events are restored as they were: leave --map, --skip, \
                          --text and --no-properties out"
                .to_owned()),
        }
    }

    /// What becomes of each column of a header.
    ///
    /// # Errors
    /// A mapping to a column that is not there; no column for the event's name or its user.
    pub(crate) fn resolve(&self, header: &[String]) -> Result<Vec<Vec<Use>>, String> {
        let columns = || listed(header);
        let missing =
            self.mappings.iter().map(|mapping| &mapping.column).find(|column| !header.contains(column));
        let missing =
            missing.or_else(|| self.skip.iter().chain(&self.text).find(|column| !header.contains(column)));
        if let Some(column) = missing {
            return Err(format!("there is no column `{column}`; the columns are: {}", columns()));
        }
        let is_export = self.is_export(header);
        let has_properties = is_export && header.iter().any(|column| column == EXPORTED_PROPERTIES);
        let uses = header.iter().map(|column| match is_export {
            true => self.uses_of_exported(column, has_properties),
            false => self.uses(column),
        });
        let uses: Vec<Vec<Use>> = uses.collect();
        let is_filled = |target: &Target| {
            uses.iter().flatten().any(|used| *used == Use::Fill(target.clone()))
                || self.requested().any(|t| t == target)
        };
        if !is_filled(&Target::EventName) {
            return Err(format!(
                "no column is the event's name: say which with --map event_name=COLUMN, or --value event_name=TEXT for \
                 all; the columns are: {}",
                columns()
            ));
        }
        if !is_filled(&Target::UserId) && !is_filled(&Target::AnonymousId) {
            return Err(format!(
                "no column is the user: say which with --map user_id=COLUMN or --map anonymous_id=COLUMN; the columns \
                 are: {}",
                columns()
            ));
        }
        Ok(uses)
    }

    /// What becomes of a column of an export.
    fn uses_of_exported(&self, column: &str, has_properties: bool) -> Vec<Use> {
        let target = match column {
            "time" => Target::EventTime,
            "revenue" => Target::Revenue(None),
            "currency" => Target::Currency,
            EXPORTED_CLIENT_TIME => Target::ClientTime,
            EXPORTED_PROPERTIES => Target::Properties,
            _ if column.starts_with("properties.") && has_properties => return Vec::new(),
            _ => match column.parse() {
                Ok(target) => target,
                Err(_) => return Vec::new(),
            },
        };
        if self.is_skipped(column) { Vec::new() } else { vec![Use::Fill(target)] }
    }

    fn uses(&self, column: &str) -> Vec<Use> {
        if self.is_skipped(column) || column.is_empty() {
            return Vec::new();
        }
        let mapped = self.mappings.iter().filter(|mapping| mapping.column == column);
        let mapped: Vec<Use> = mapped.map(|mapping| Use::Fill(mapping.target.clone())).collect();
        if !mapped.is_empty() {
            return mapped;
        }
        if let Some(target) = self.by_name(column) {
            return vec![Use::Fill(target)];
        }
        match self.properties {
            true if self.text.contains(column) => vec![Use::Text(column.to_owned())],
            true => vec![Use::Fill(Target::Property(column.to_owned()))],
            false => Vec::new(),
        }
    }
}

/// Columns that an error names.
const LISTED_COLUMNS: usize = 100;

/// Names of columns, as an error shows them.
fn listed(header: &[String]) -> String {
    let shown = header.iter().take(LISTED_COLUMNS).map(String::as_str).collect::<Vec<_>>().join(", ");
    match header.len().checked_sub(LISTED_COLUMNS) {
        Some(more @ 1..) => format!("{shown} and {more} more"),
        Some(0) | None => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(mappings: &[&str]) -> Layout {
        let mappings = mappings.iter().map(|text| text.parse().unwrap()).collect();
        Layout { mappings, properties: true, ..Layout::default() }
    }

    fn header(columns: &str) -> Vec<String> {
        columns.split(',').map(Into::into).collect()
    }

    #[test]
    fn what_is_not_mapped_is_known_by_name_or_becomes_a_property() {
        let mut layout = layout(&["event_name=event", "event_time=timestamp"]);
        layout.skip.insert("cohort".into());
        layout.text.insert("zip".into());
        let uses = layout.resolve(&header("user_id,event,timestamp,platform,cohort,zip,weir_line")).unwrap();
        let property = |name: &str| vec![Use::Fill(Target::Property(name.into()))];
        assert_eq!(
            uses,
            [
                vec![Use::Fill(Target::UserId)],
                vec![Use::Fill(Target::EventName)],
                vec![Use::Fill(Target::EventTime)],
                property("platform"),
                Vec::new(),
                vec![Use::Text("zip".into())],
                Vec::new(),
            ]
        );
    }

    #[test]
    fn a_mapping_wins_over_a_name() {
        let uses = layout(&["event_name=event", "user_id=customer"])
            .resolve(&header("event,customer,user_id"))
            .unwrap();
        assert_eq!(uses[2], [Use::Fill(Target::Property("user_id".into()))]);
    }

    #[test]
    fn an_export_needs_no_mapping() {
        let columns = "event_id,time,revenue,currency,event_name,user_id,context.os.name,properties.plan";
        let last = |text: &str| layout(&[]).resolve(&header(text)).unwrap().last().unwrap().clone();
        assert_eq!(last(columns), [Use::Fill(Target::Property("plan".into()))]);
        let full = format!("{columns},sequence,client_time,properties");
        assert_eq!(last(&full), [Use::Fill(Target::Properties)]);
        let uses = layout(&[]).resolve(&header(&full)).unwrap();
        assert_eq!((uses[1].as_slice(), uses[7].len()), ([Use::Fill(Target::EventTime)].as_slice(), 0));
        let mapped = layout(&["event_name=event_name", "user_id=user_id"]);
        assert!(!mapped.is_export(&header(&full)));
    }

    #[test]
    fn a_column_may_have_several_uses() {
        let layout = layout(&["event_name=event", "user_id=mail", "properties.mail=mail"]);
        let uses = layout.resolve(&header("event,mail")).unwrap();
        assert_eq!(uses[1].len(), 2);
    }

    #[test]
    fn what_is_missing_is_named_with_what_there_is() {
        let columns = header("who,what");
        for (mappings, part) in [
            (vec!["event_name=action", "user_id=who"], "`action`"),
            (vec!["user_id=who"], "--map event_name="),
            (vec!["event_name=what"], "--map user_id="),
        ] {
            let error = layout(&mappings).resolve(&columns).unwrap_err();
            assert!(error.contains(part) && error.contains("who, what"), "{error}");
        }
    }
}
