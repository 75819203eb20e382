//! Events become rows.

use std::{borrow::Cow, sync::Arc};

use arrow::{
    array::{
        Array, ArrayBuilder, ArrayRef, BooleanBuilder, Decimal128Builder, FixedSizeBinaryBuilder,
        Int64Builder, MapArray, RecordBatch, StringBuilder, StringViewBuilder, StructArray,
        TimestampMicrosecondBuilder,
    },
    buffer::OffsetBuffer,
};
use prost_types::value;
use uuid::Uuid;
use weir_proto::{event::v1::EventRecord, time::micros};
use weir_rollup::field::{ContextField, event_type_text, write_number};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::schema::{self, Kind, REVENUE_DIGITS};

/// Billionths in a unit of money.
pub const NANOS: i128 = 1_000_000_000;

/// An event without its properties, borrowed. Empty texts stand for absent ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row<'a> {
    /// Offset in the partition of `analytics-events`.
    pub offset: u64,
    /// Whether it was late.
    pub late: bool,
    /// Corrected time, receive time and the time by the client's clock: microseconds since the Unix epoch.
    pub time_micros: i64,
    /// Likewise.
    pub receive_micros: i64,
    /// Likewise, if there is one.
    pub client_micros: Option<i64>,
    /// The deduplication key. The producer takes only UUIDs; of another text this is the XXH3 (128 bit).
    pub event_id: Uuid,
    /// What happened.
    pub event_name: &'a str,
    /// `event.v1.EventType` by number.
    pub event_type: i32,
    /// The signed-in user.
    pub user_id: &'a str,
    /// The visitor before signing in.
    pub anonymous_id: &'a str,
    /// The visit.
    pub session_id: &'a str,
    /// The installation.
    pub install_id: &'a str,
    /// Number within the installation; 0 when there is none.
    pub sequence: u64,
    /// Currency, whole units and billionths.
    pub revenue: Option<(&'a str, i64, i32)>,
    /// The texts of the context, in the order of [`ContextField::ALL`].
    pub context: [&'a str; ContextField::ALL.len()],
}

/// The value of a property.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// A text.
    Text(&'a str),
    /// A number. Not finite: stored as null.
    Number(f64),
    /// A boolean.
    Boolean(bool),
    /// A list or a struct, as JSON.
    Json(Cow<'a, str>),
    /// Null.
    Null,
}

impl<'a> Row<'a> {
    /// The row of a record, but for its properties. `None` when the record has no event.
    pub fn of(record: &'a EventRecord, offset: u64, late: bool) -> Option<Self> {
        let event = record.event.as_ref()?;
        let mut context = [""; ContextField::ALL.len()];
        if let Some(of) = &event.context {
            for (text, field) in context.iter_mut().zip(ContextField::ALL) {
                *text = field.of(of).unwrap_or_default();
            }
        }
        let money =
            event.revenue.as_ref().filter(|m| !m.currency_code.is_empty() || m.units != 0 || m.nanos != 0);
        Some(Self {
            offset,
            late,
            time_micros: record.corrected_time_micros,
            receive_micros: record.receive_time_micros,
            client_micros: event.event_time.as_ref().map(micros),
            event_id: Uuid::try_parse(&event.event_id)
                .unwrap_or_else(|_| Uuid::from_u128(xxh3_128(event.event_id.as_bytes()))),
            event_name: &event.event_name,
            event_type: event.event_type,
            user_id: &event.user_id,
            anonymous_id: &event.anonymous_id,
            session_id: &event.session_id,
            install_id: &event.install_id,
            sequence: event.sequence,
            revenue: money.map(|money| (money.currency_code.as_str(), money.units, money.nanos)),
            context,
        })
    }
}

/// The properties of a record.
pub fn properties(record: &EventRecord) -> impl Iterator<Item = (&str, Value<'_>)> {
    let fields =
        record.event.iter().flat_map(|event| &event.properties).flat_map(|properties| &properties.fields);
    fields.map(|(key, value)| {
        let value = match &value.kind {
            Some(value::Kind::StringValue(text)) => Value::Text(text),
            Some(value::Kind::NumberValue(number)) => Value::Number(*number),
            Some(value::Kind::BoolValue(boolean)) => Value::Boolean(*boolean),
            Some(value::Kind::StructValue(_) | value::Kind::ListValue(_)) => {
                Value::Json(Cow::Owned(json(value).to_string()))
            }
            Some(value::Kind::NullValue(_)) | None => Value::Null,
        };
        (key.as_str(), value)
    })
}

/// A Protobuf value as JSON; what JSON can't express is null.
fn json(value: &prost_types::Value) -> serde_json::Value {
    match &value.kind {
        Some(value::Kind::StringValue(text)) => text.clone().into(),
        Some(value::Kind::NumberValue(number)) => (*number).into(),
        Some(value::Kind::BoolValue(boolean)) => (*boolean).into(),
        Some(value::Kind::ListValue(list)) => list.values.iter().map(json).collect(),
        Some(value::Kind::StructValue(of)) => {
            of.fields.iter().map(|(key, value)| (key.clone(), json(value))).collect()
        }
        Some(value::Kind::NullValue(_)) | None => serde_json::Value::Null,
    }
}

/// Makes a batch, row by row.
#[derive(Debug)]
pub struct Encoder {
    user_hash: Int64Builder,
    time: TimestampMicrosecondBuilder,
    log_offset: Int64Builder,
    event_name: StringViewBuilder,
    event_type: StringViewBuilder,
    user_id: StringViewBuilder,
    anonymous_id: StringViewBuilder,
    session_id: StringViewBuilder,
    install_id: StringViewBuilder,
    sequence: Int64Builder,
    event_id: FixedSizeBinaryBuilder,
    client_time: TimestampMicrosecondBuilder,
    receive_time: TimestampMicrosecondBuilder,
    late: BooleanBuilder,
    revenue: Decimal128Builder,
    currency: StringViewBuilder,
    context: [StringViewBuilder; ContextField::ALL.len()],
    keys: StringBuilder,
    values: StringBuilder,
    ends: Vec<i32>,
    kinds: StringViewBuilder,
    /// Space for the texts of one row.
    letters: String,
    text: String,
    bytes: usize,
}

impl Default for Encoder {
    fn default() -> Self {
        let time = || TimestampMicrosecondBuilder::new().with_timezone("UTC");
        let (precision, scale) = REVENUE_DIGITS;
        let revenue = Decimal128Builder::new().with_precision_and_scale(precision, scale);
        Self {
            user_hash: Int64Builder::new(),
            time: time(),
            log_offset: Int64Builder::new(),
            event_name: StringViewBuilder::new(),
            event_type: StringViewBuilder::new(),
            user_id: StringViewBuilder::new(),
            anonymous_id: StringViewBuilder::new(),
            session_id: StringViewBuilder::new(),
            install_id: StringViewBuilder::new(),
            sequence: Int64Builder::new(),
            event_id: FixedSizeBinaryBuilder::new(16),
            client_time: time(),
            receive_time: time(),
            late: BooleanBuilder::new(),
            revenue: revenue.expect("28 digits, 9 of them behind the point, are within 38"),
            currency: StringViewBuilder::new(),
            context: std::array::from_fn(|_| StringViewBuilder::new()),
            keys: StringBuilder::new(),
            values: StringBuilder::new(),
            ends: vec![0],
            kinds: StringViewBuilder::new(),
            letters: String::new(),
            text: String::new(),
            bytes: 0,
        }
    }
}

impl Encoder {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ends.len() - 1
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the texts of the rows take, roughly: bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds an event.
    pub fn push<'p>(&mut self, row: &Row<'_>, properties: impl Iterator<Item = (&'p str, Value<'p>)>) {
        let user = if row.user_id.is_empty() { row.anonymous_id } else { row.user_id };
        self.user_hash.append_value(user_hash(user));
        self.time.append_value(row.time_micros);
        self.log_offset.append_value(row.offset.cast_signed());
        self.event_name.append_value(row.event_name);
        self.event_type.append_option(event_type_text(row.event_type));
        for (builder, text) in [
            (&mut self.user_id, row.user_id),
            (&mut self.anonymous_id, row.anonymous_id),
            (&mut self.session_id, row.session_id),
            (&mut self.install_id, row.install_id),
        ] {
            append_text(builder, text, &mut self.bytes);
        }
        self.sequence.append_option(i64::try_from(row.sequence).ok().filter(|sequence| *sequence > 0));
        self.event_id.append_value(row.event_id.as_bytes()).expect("a UUID has 16 bytes");
        self.client_time.append_option(row.client_micros.filter(|micros| *micros != row.time_micros));
        self.receive_time.append_value(row.receive_micros);
        self.late.append_value(row.late);
        let (currency, amount) = row.revenue.map_or(("", None), |(currency, units, nanos)| {
            (currency, Some(i128::from(units) * NANOS + i128::from(nanos)))
        });
        self.revenue.append_option(amount);
        append_text(&mut self.currency, currency, &mut self.bytes);
        for (builder, text) in self.context.iter_mut().zip(row.context) {
            append_text(builder, text, &mut self.bytes);
        }
        self.properties(properties);
        self.bytes += 100;
    }

    fn properties<'p>(&mut self, properties: impl Iterator<Item = (&'p str, Value<'p>)>) {
        self.letters.clear();
        for (key, value) in properties {
            self.keys.append_value(key);
            let (kind, text) = match &value {
                Value::Text(text) => (Kind::Text, Some(*text)),
                Value::Number(number) if number.is_finite() => {
                    self.text.clear();
                    write_number(*number, &mut self.text);
                    (Kind::Number, Some(self.text.as_str()))
                }
                Value::Boolean(true) => (Kind::Boolean, Some("true")),
                Value::Boolean(false) => (Kind::Boolean, Some("false")),
                Value::Json(json) => (Kind::Json, Some(json.as_ref())),
                Value::Number(_) | Value::Null => (Kind::Null, None),
            };
            self.values.append_option(text);
            self.letters.push(char::from(kind.letter()));
            self.bytes += key.len() + text.map_or(0, str::len) + 8;
        }
        self.ends.push(i32::try_from(self.keys.len()).expect("batches are far smaller than 2^31 entries"));
        self.kinds.append_value(&self.letters);
    }

    /// The rows so far, as a batch with the columns of [`schema::schema`]; begins anew.
    pub fn finish(&mut self) -> RecordBatch {
        let offsets = std::mem::replace(&mut self.ends, vec![0]);
        self.bytes = 0;
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.user_hash.finish()),
            Arc::new(self.time.finish()),
            Arc::new(self.log_offset.finish()),
            Arc::new(self.event_name.finish()),
            Arc::new(self.event_type.finish()),
            Arc::new(self.user_id.finish()),
            Arc::new(self.anonymous_id.finish()),
            Arc::new(self.session_id.finish()),
            Arc::new(self.install_id.finish()),
            Arc::new(self.sequence.finish()),
            Arc::new(self.event_id.finish()),
            Arc::new(self.client_time.finish()),
            Arc::new(self.receive_time.finish()),
            Arc::new(self.late.finish()),
            Arc::new(self.revenue.finish()),
            Arc::new(self.currency.finish()),
        ];
        columns.extend(self.context.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef));
        columns.push(Arc::new(map(self.keys.finish(), self.values.finish(), offsets)));
        columns.push(Arc::new(self.kinds.finish()));
        RecordBatch::try_new(schema::schema(), columns)
            .expect("one builder for each column, one value for each row")
    }
}

/// A map of properties; entry `i` of the rows ends at `offsets[i + 1]`.
pub(crate) fn map(keys: impl Array + 'static, values: impl Array + 'static, offsets: Vec<i32>) -> MapArray {
    let entries = StructArray::new(schema::map_fields(), vec![Arc::new(keys), Arc::new(values)], None);
    MapArray::new(schema::map_entries(), OffsetBuffer::new(offsets.into()), entries, None, false)
}

/// What stands for a user wherever users are counted or sorted.
pub fn user_hash(user: &str) -> i64 {
    xxh3_64(user.as_bytes()).cast_signed()
}

fn append_text(builder: &mut StringViewBuilder, text: &str, bytes: &mut usize) {
    *bytes += text.len();
    if text.is_empty() {
        builder.append_null();
    } else {
        builder.append_value(text);
    }
}
