//! The columns of a stored event: in memory, in segments, and for whoever reads segments with other tools.
//!
//! | column | type | what it is |
//! |---|---|---|
//! | `user_hash` | Int64 | XXH3 (64 bit) of the user: `user_id`, else `anonymous_id`; first sort key |
//! | `time` | Timestamp(µs, UTC) | when it happened by the server's clock; second sort key |
//! | `log_offset` | Int64 | its offset in the partition of `analytics-events`; third sort key: ties keep the order of acceptance |
//! | `event_name` | Utf8 | what happened |
//! | `event_type` | Utf8 | `TRACK`, `PAGE`, …; null for a type that this version does not know |
//! | `user_id`, `anonymous_id`, `session_id`, `install_id` | Utf8, nullable | as sent; null where empty |
//! | `sequence` | Int64, nullable | number of the event within its install |
//! | `event_id` | FixedSizeBinary(16) | the UUID |
//! | `client_time` | Timestamp(µs, UTC), nullable | what the client's clock showed, where that differs from `time` |
//! | `receive_time` | Timestamp(µs, UTC) | when the producer received it |
//! | `late` | Boolean | whether it reached the log later after its time than the configured lateness |
//! | `revenue` | Decimal128(28, 9), nullable | money earned |
//! | `currency` | Utf8, nullable | its ISO 4217 code |
//! | `context_…` | Utf8, nullable | the texts of the context by their paths, dots as underscores: `context_os_name` |
//! | `p_<key>` | Utf8, nullable | text values of the property `<key>`, for chosen keys |
//! | `n_<key>` | Float64, nullable | its numeric values |
//! | `b_<key>` | Boolean, nullable | its boolean values |
//! | `properties` | Map(Utf8, Utf8) | all other properties: numbers as [`number_text`](weir_rollup::field::number_text) writes them, booleans as `true` and `false`, lists and structs as JSON |
//! | `property_kinds` | Utf8 | one letter for each entry of `properties`, in their order: see [`Kind`] |
//!
//! Columns without any value are left out, the map of properties with them when it is empty. In segments texts are Utf8View to Arrow,
//! Parquet's own encodings below; in memory they are `Dictionary(UInt16, Utf8)` where few are distinct and Utf8View where they are
//! many. Readers see [one form](crate::view) of all. Not stored: `sent_time` and `clock_offset`, which have done their work when the producer corrects the time.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use weir_rollup::field::ContextField;

/// Version of this schema, in the metadata of every segment.
pub const VERSION: u32 = 1;

/// Names of the columns.
pub mod column {
    #![allow(missing_docs, reason = "the table of the parent module documents them")]
    pub const USER_HASH: &str = "user_hash";
    pub const TIME: &str = "time";
    pub const LOG_OFFSET: &str = "log_offset";
    pub const EVENT_NAME: &str = "event_name";
    pub const EVENT_TYPE: &str = "event_type";
    pub const USER_ID: &str = "user_id";
    pub const ANONYMOUS_ID: &str = "anonymous_id";
    pub const SESSION_ID: &str = "session_id";
    pub const INSTALL_ID: &str = "install_id";
    pub const SEQUENCE: &str = "sequence";
    pub const EVENT_ID: &str = "event_id";
    pub const CLIENT_TIME: &str = "client_time";
    pub const RECEIVE_TIME: &str = "receive_time";
    pub const LATE: &str = "late";
    pub const REVENUE: &str = "revenue";
    pub const CURRENCY: &str = "currency";
    pub const PROPERTIES: &str = "properties";
    pub const PROPERTY_KINDS: &str = "property_kinds";
}

/// Digits of a revenue, and those of them behind the point: whole units of 64 bits and billionths.
pub const REVENUE_DIGITS: (u8, i8) = (28, 9);

/// The kind of a property's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A text.
    Text,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A list or a struct, as JSON.
    Json,
    /// Null.
    Null,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 5] = [Kind::Text, Kind::Number, Kind::Boolean, Kind::Json, Kind::Null];

    /// Its letter in `property_kinds`.
    pub const fn letter(self) -> u8 {
        match self {
            Kind::Text => b't',
            Kind::Number => b'n',
            Kind::Boolean => b'b',
            Kind::Json => b'j',
            Kind::Null => b'z',
        }
    }

    /// The kind of a letter; a letter that no version has written is read as text.
    pub const fn of(letter: u8) -> Kind {
        match letter {
            b'n' => Kind::Number,
            b'b' => Kind::Boolean,
            b'j' => Kind::Json,
            b'z' => Kind::Null,
            _ => Kind::Text,
        }
    }

    /// What the name of a chosen property's column begins with; lists, structs and null stay in `properties`.
    pub const fn prefix(self) -> Option<&'static str> {
        match self {
            Kind::Text => Some("p_"),
            Kind::Number => Some("n_"),
            Kind::Boolean => Some("b_"),
            Kind::Json | Kind::Null => None,
        }
    }
}

/// The name of the column with a field of the context.
pub fn context_column(field: ContextField) -> &'static str {
    static NAMES: LazyLock<Vec<(ContextField, String)>> = LazyLock::new(|| {
        let name = |field: &ContextField| format!("context_{}", field.path().replace('.', "_"));
        ContextField::ALL.iter().map(|field| (*field, name(field))).collect()
    });
    let found = NAMES.iter().find(|(of, _)| *of == field);
    &found.expect("ALL has every field").1
}

/// The type of all times.
pub fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The entry of the map of properties.
pub fn map_fields() -> Fields {
    Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)])
}

/// The type of the map of properties.
pub fn map_type() -> DataType {
    DataType::Map(map_entries(), false)
}

pub(crate) fn map_entries() -> FieldRef {
    Arc::new(Field::new("key_value", DataType::Struct(map_fields()), false))
}

/// The columns of every event, with the types of segments; a batch or a segment has those of them that hold a value.
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let text = |name: &str, nullable| Field::new(name, DataType::Utf8View, nullable);
        let mut fields = vec![
            Field::new(column::USER_HASH, DataType::Int64, false),
            Field::new(column::TIME, time_type(), false),
            Field::new(column::LOG_OFFSET, DataType::Int64, false),
            text(column::EVENT_NAME, false),
            text(column::EVENT_TYPE, true),
            text(column::USER_ID, true),
            text(column::ANONYMOUS_ID, true),
            text(column::SESSION_ID, true),
            text(column::INSTALL_ID, true),
            Field::new(column::SEQUENCE, DataType::Int64, true),
            Field::new(column::EVENT_ID, DataType::FixedSizeBinary(16), false),
            Field::new(column::CLIENT_TIME, time_type(), true),
            Field::new(column::RECEIVE_TIME, time_type(), false),
            Field::new(column::LATE, DataType::Boolean, false),
            Field::new(column::REVENUE, DataType::Decimal128(REVENUE_DIGITS.0, REVENUE_DIGITS.1), true),
            text(column::CURRENCY, true),
        ];
        fields.extend(ContextField::ALL.iter().map(|field| text(context_column(*field), true)));
        fields.push(Field::new(column::PROPERTIES, map_type(), false));
        fields.push(text(column::PROPERTY_KINDS, false));
        Arc::new(Schema::new(fields))
    });
    Arc::clone(&SCHEMA)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_name_kinds() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of(kind.letter()), kind);
        }
    }

    #[test]
    fn context_columns_are_named_by_their_path() {
        assert_eq!(context_column(ContextField::OsName), "context_os_name");
        assert_eq!(context_column(ContextField::UserAgent), "context_user_agent");
        let schema = schema();
        let mut names: Vec<_> = schema.fields().iter().map(|field| field.name()).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all, "every column has a name of its own");
    }
}
