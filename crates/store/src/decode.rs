//! Rows become events again.

use arrow::{
    array::{
        Array, AsArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray, Float64Array, Int64Array,
        RecordBatch, StringViewArray, TimestampMicrosecondArray,
    },
    datatypes::{Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType},
};
use prost_types::{Struct, Value, value};
use uuid::Uuid;
use weir_proto::{
    event::v1::{Context, Event, EventRecord, EventType},
    google::r#type::Money,
    time::timestamp,
};
use weir_rollup::field::{ContextField, event_type_text};

use crate::{
    encode::NANOS,
    error::Error,
    map::Entries,
    schema::{self, Kind, column},
};

/// Reads events out of a batch that has the columns of [`schema::schema`] and any chosen properties beside them, in any order.
/// Columns that are left out count as null.
#[derive(Debug)]
pub struct Decoder<'b> {
    time: &'b TimestampMicrosecondArray,
    log_offset: &'b Int64Array,
    event_name: &'b StringViewArray,
    event_type: Option<&'b StringViewArray>,
    /// `user_id`, `anonymous_id`, `session_id`, `install_id`.
    ids: [Option<&'b StringViewArray>; 4],
    sequence: Option<&'b Int64Array>,
    event_id: &'b FixedSizeBinaryArray,
    client_time: Option<&'b TimestampMicrosecondArray>,
    receive_time: &'b TimestampMicrosecondArray,
    late: &'b BooleanArray,
    revenue: Option<&'b Decimal128Array>,
    currency: Option<&'b StringViewArray>,
    context: Vec<(ContextField, &'b StringViewArray)>,
    texts: Vec<(&'b str, &'b StringViewArray)>,
    numbers: Vec<(&'b str, &'b Float64Array)>,
    booleans: Vec<(&'b str, &'b BooleanArray)>,
    properties: Option<Entries<'b>>,
}

impl<'b> Decoder<'b> {
    /// Looks at the columns of a batch.
    ///
    /// # Errors
    /// [`Error::Column`] when a column that must be there is missing or of another type.
    pub fn new(batch: &'b RecordBatch) -> Result<Self, Error> {
        let texts = |name| optional(batch, name, |array| array.as_string_view_opt());
        let times =
            |name| optional(batch, name, |array| array.as_primitive_opt::<TimestampMicrosecondType>());
        let integers = |name| optional(batch, name, |array| array.as_primitive_opt::<Int64Type>());
        let mut context = Vec::new();
        for field in ContextField::ALL {
            context.extend(texts(schema::context_column(*field))?.map(|array| (*field, array)));
        }
        Ok(Self {
            time: needed(times(column::TIME)?, column::TIME)?,
            log_offset: needed(integers(column::LOG_OFFSET)?, column::LOG_OFFSET)?,
            event_name: needed(texts(column::EVENT_NAME)?, column::EVENT_NAME)?,
            event_type: texts(column::EVENT_TYPE)?,
            ids: [
                texts(column::USER_ID)?,
                texts(column::ANONYMOUS_ID)?,
                texts(column::SESSION_ID)?,
                texts(column::INSTALL_ID)?,
            ],
            sequence: integers(column::SEQUENCE)?,
            event_id: needed(
                optional(batch, column::EVENT_ID, |array| array.as_fixed_size_binary_opt())?,
                column::EVENT_ID,
            )?,
            client_time: times(column::CLIENT_TIME)?,
            receive_time: needed(times(column::RECEIVE_TIME)?, column::RECEIVE_TIME)?,
            late: needed(optional(batch, column::LATE, |array| array.as_boolean_opt())?, column::LATE)?,
            revenue: optional(batch, column::REVENUE, |array| array.as_primitive_opt::<Decimal128Type>())?,
            currency: texts(column::CURRENCY)?,
            context,
            texts: chosen(batch, Kind::Text, |array| array.as_string_view_opt())?,
            numbers: chosen(batch, Kind::Number, |array| array.as_primitive_opt::<Float64Type>())?,
            booleans: chosen(batch, Kind::Boolean, |array| array.as_boolean_opt())?,
            properties: Entries::of(batch)?,
        })
    }

    /// The offset of a row's record.
    pub fn offset(&self, row: usize) -> u64 {
        self.log_offset.value(row).cast_unsigned()
    }

    /// The time of a row, microseconds since the Unix epoch.
    pub fn time(&self, row: usize) -> i64 {
        self.time.value(row)
    }

    /// Whether a row's event was late.
    pub fn late(&self, row: usize) -> bool {
        self.late.value(row)
    }

    /// The event of a row, as it was accepted but for `sent_time` and `clock_offset`. The project is not in the batch and left
    /// empty.
    pub fn record(&self, row: usize) -> EventRecord {
        let [user_id, anonymous_id, session_id, install_id] = self.ids.map(|ids| text(ids, row));
        let time = self.time.value(row);
        let client =
            self.client_time.filter(|times| times.is_valid(row)).map_or(time, |times| times.value(row));
        let event_type = self.event_type.filter(|types| types.is_valid(row)).map(|types| types.value(row));
        let id = Uuid::from_slice(self.event_id.value(row)).expect("the column has 16 bytes a value");
        let event = Event {
            event_id: id.to_string(),
            event_name: self.event_name.value(row).to_owned(),
            event_type: event_type.and_then(type_number).unwrap_or_default(),
            user_id,
            anonymous_id,
            session_id,
            install_id,
            sequence: number(self.sequence, row).unwrap_or_default().cast_unsigned(),
            event_time: Some(timestamp(client)),
            properties: self.properties(row),
            revenue: self.revenue(row),
            context: self.context(row),
            ..Event::default()
        };
        EventRecord {
            receive_time_micros: self.receive_time.value(row),
            corrected_time_micros: time,
            event: Some(event),
            ..EventRecord::default()
        }
    }

    fn revenue(&self, row: usize) -> Option<Money> {
        let amount = self.revenue.filter(|amounts| amounts.is_valid(row))?.value(row);
        Some(Money {
            currency_code: text(self.currency, row),
            units: i64::try_from(amount / NANOS).unwrap_or(i64::MAX),
            nanos: (amount % NANOS) as i32,
        })
    }

    fn context(&self, row: usize) -> Option<Context> {
        let mut context = None;
        for (field, texts) in self.context.iter().filter(|(_, texts)| texts.is_valid(row)) {
            texts.value(row).clone_into(field.of_mut(context.get_or_insert_default()));
        }
        context
    }

    fn properties(&self, row: usize) -> Option<Struct> {
        let texts = self.texts.iter().filter(|(_, texts)| texts.is_valid(row));
        let texts = texts.map(|(key, texts)| (*key, value::Kind::StringValue(texts.value(row).to_owned())));
        let numbers = self.numbers.iter().filter(|(_, numbers)| numbers.is_valid(row));
        let numbers = numbers.map(|(key, numbers)| (*key, value::Kind::NumberValue(numbers.value(row))));
        let booleans = self.booleans.iter().filter(|(_, booleans)| booleans.is_valid(row));
        let booleans = booleans.map(|(key, booleans)| (*key, value::Kind::BoolValue(booleans.value(row))));
        let columns = texts.chain(numbers).chain(booleans);
        let mut fields: std::collections::BTreeMap<_, _> =
            columns.map(|(key, kind)| (key.to_owned(), Value { kind: Some(kind) })).collect();
        if let Some(entries) = &self.properties {
            entries.of_row(row, |key, kind, text| {
                fields.insert(key.to_owned(), Value { kind: Some(property(kind, text)) });
            });
        }
        (!fields.is_empty()).then_some(Struct { fields })
    }
}

/// The value of a property of which the kind and the text are stored.
pub fn property(kind: Kind, text: Option<&str>) -> value::Kind {
    let text = text.unwrap_or_default();
    let null = value::Kind::NullValue(0);
    match kind {
        Kind::Text => value::Kind::StringValue(text.to_owned()),
        Kind::Number => text.parse().map_or(null, value::Kind::NumberValue),
        Kind::Boolean => value::Kind::BoolValue(text == "true"),
        Kind::Json => serde_json::from_str(text).map_or(null, from_json),
        Kind::Null => null,
    }
}

fn from_json(json: serde_json::Value) -> value::Kind {
    let value = |json| Value { kind: Some(from_json(json)) };
    match json {
        serde_json::Value::Null => value::Kind::NullValue(0),
        serde_json::Value::Bool(boolean) => value::Kind::BoolValue(boolean),
        serde_json::Value::Number(number) => value::Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        serde_json::Value::String(text) => value::Kind::StringValue(text),
        serde_json::Value::Array(values) => {
            value::Kind::ListValue(prost_types::ListValue { values: values.into_iter().map(value).collect() })
        }
        serde_json::Value::Object(fields) => {
            let fields = fields.into_iter().map(|(key, json)| (key, value(json))).collect();
            value::Kind::StructValue(Struct { fields })
        }
    }
}

fn type_number(text: &str) -> Option<i32> {
    let all = EventType::Track as i32..=EventType::Alias as i32;
    all.into_iter().find(|number| event_type_text(*number) == Some(text))
}

fn text(texts: Option<&StringViewArray>, row: usize) -> String {
    texts.filter(|texts| texts.is_valid(row)).map(|texts| texts.value(row).to_owned()).unwrap_or_default()
}

fn number(numbers: Option<&Int64Array>, row: usize) -> Option<i64> {
    numbers.filter(|numbers| numbers.is_valid(row)).map(|numbers| numbers.value(row))
}

fn needed<T>(found: Option<T>, column: &str) -> Result<T, Error> {
    found.ok_or_else(|| Error::missing(column))
}

fn optional<'b, T>(
    batch: &'b RecordBatch,
    column: &str,
    cast: impl FnOnce(&'b dyn Array) -> Option<T>,
) -> Result<Option<T>, Error> {
    let Some(array) = batch.column_by_name(column) else { return Ok(None) };
    match cast(array.as_ref()) {
        Some(found) => Ok(Some(found)),
        None => Err(Error::mistyped(column, array.data_type())),
    }
}

/// The columns of chosen properties of a kind, with their keys.
fn chosen<'b, T>(
    batch: &'b RecordBatch,
    kind: Kind,
    cast: impl Fn(&'b dyn Array) -> Option<&'b T>,
) -> Result<Vec<(&'b str, &'b T)>, Error> {
    let prefix = kind.prefix().expect("asked for kinds that have columns");
    let mut found = Vec::new();
    for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if let Some(key) = field.name().strip_prefix(prefix) {
            let array =
                cast(array.as_ref()).ok_or_else(|| Error::mistyped(field.name(), array.data_type()))?;
            found.push((key, array));
        }
    }
    Ok(found)
}
