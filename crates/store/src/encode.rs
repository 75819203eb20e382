//! Events become rows.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BooleanArray, BooleanBufferBuilder, Decimal128Builder, FixedSizeBinaryArray, Int64Array,
        Int64Builder, RecordBatch, TimestampMicrosecondArray, TimestampMicrosecondBuilder,
    },
    datatypes::{Field, FieldRef, Schema},
};
use uuid::Uuid;
use weir_proto::{
    record::{self, Event, Malformed, Parts, Place, Value},
    time::micros,
};
use weir_rollup::field::{ContextField, event_type_text};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::{
    chosen::Properties,
    schema::{self, REVENUE_DIGITS},
    texts::{Texts, filled, pad},
};

/// Billionths in a unit of money.
pub const NANOS: i128 = 1_000_000_000;

/// An event to be stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Row<'a> {
    /// Offset in the partition of `analytics-events`.
    pub offset: u64,
    /// Whether it was late.
    pub late: bool,
    /// The event. The producer takes only UUIDs as `event_id`; of another text the XXH3 (128 bit) is stored.
    pub event: Event<'a>,
    /// The texts of its context, each place once.
    pub context: &'a [(Place, &'a str)],
    /// Its properties, each key once.
    pub properties: &'a [(&'a str, Value<'a>)],
}

/// Makes batches, row by row. What is null in all rows of a batch costs nothing, and one encoder for all batches of a project knows
/// which properties and texts are frequent.
#[derive(Debug)]
pub struct Encoder {
    user_hash: Vec<i64>,
    time: Vec<i64>,
    log_offset: Vec<i64>,
    event_name: Texts,
    event_type: Texts,
    user_id: Texts,
    anonymous_id: Texts,
    session_id: Texts,
    install_id: Texts,
    sequence: Int64Builder,
    /// 16 bytes each.
    event_id: Vec<u8>,
    client_time: TimestampMicrosecondBuilder,
    receive_time: Vec<i64>,
    late: BooleanBufferBuilder,
    revenue: Decimal128Builder,
    currency: Texts,
    context: [Texts; ContextField::ALL.len()],
    properties: Properties,
    bytes: usize,
}

impl Default for Encoder {
    fn default() -> Self {
        let (precision, scale) = REVENUE_DIGITS;
        let revenue = Decimal128Builder::new().with_precision_and_scale(precision, scale);
        Self {
            user_hash: Vec::new(),
            time: Vec::new(),
            log_offset: Vec::new(),
            event_name: Texts::default(),
            event_type: Texts::default(),
            user_id: Texts::default(),
            anonymous_id: Texts::default(),
            session_id: Texts::default(),
            install_id: Texts::default(),
            sequence: Int64Builder::new(),
            event_id: Vec::new(),
            client_time: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            receive_time: Vec::new(),
            late: BooleanBufferBuilder::new(0),
            revenue: revenue.expect("28 digits, 9 of them behind the point, are within 38"),
            currency: Texts::default(),
            context: Default::default(),
            properties: Properties::default(),
            bytes: 0,
        }
    }
}

impl Encoder {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.time.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the rows take, roughly: bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the event of a record, for whoever has one record at a time.
    ///
    /// # Errors
    /// When it is not an `EventRecord`.
    pub fn push_record(&mut self, value: &[u8], offset: u64, late: bool) -> Result<(), Malformed> {
        let mut parts = Parts::default();
        let event = record::read(value, &mut parts)?;
        let (context, properties) = (parts.context(&event), parts.properties(&event));
        self.push(&Row { offset, late, event, context, properties });
        Ok(())
    }

    /// Adds an event.
    pub fn push(&mut self, row: &Row<'_>) {
        let Row { offset, late, event, context, properties } = row;
        let place = self.len();
        self.user_hash.push(user_hash(event.actor()));
        self.time.push(event.corrected_time_micros);
        self.log_offset.push(offset.cast_signed());
        self.event_name.push(place, event.event_name);
        if let Some(text) = event_type_text(event.event_type) {
            self.event_type.push(place, text);
        }
        let mut bytes = 100;
        let mut add = |column: &mut Texts, text: &str| {
            if !text.is_empty() {
                column.push(place, text);
                bytes += text.len();
            }
        };
        add(&mut self.user_id, event.user_id);
        add(&mut self.anonymous_id, event.anonymous_id);
        add(&mut self.session_id, event.session_id);
        add(&mut self.install_id, event.install_id);
        for &(numbers, text) in *context {
            if let Some(field) = ContextField::at(numbers) {
                add(&mut self.context[field as usize], text);
            }
        }
        if let Some(sequence) = i64::try_from(event.sequence).ok().filter(|sequence| *sequence > 0) {
            pad(&mut self.sequence, place);
            self.sequence.append_value(sequence);
        }
        let id = Uuid::try_parse(event.event_id)
            .unwrap_or_else(|_| Uuid::from_u128(xxh3_128(event.event_id.as_bytes())));
        self.event_id.extend_from_slice(id.as_bytes());
        let client_time = event.event_time.as_ref().map(micros);
        if let Some(time) = client_time.filter(|time| *time != event.corrected_time_micros) {
            pad(&mut self.client_time, place);
            self.client_time.append_value(time);
        }
        self.receive_time.push(event.receive_time_micros);
        self.late.append(*late);
        if let Some(money) = event.revenue.filter(|money| !money.is_empty()) {
            pad(&mut self.revenue, place);
            self.revenue.append_value(i128::from(money.units) * NANOS + i128::from(money.nanos));
            add(&mut self.currency, money.currency);
        }
        for &(key, value) in *properties {
            self.properties.push(place, key, value);
            bytes += 16 + if let Value::Text(text) = value { text.len() } else { 0 };
        }
        self.bytes += bytes;
    }

    /// The rows so far, as a batch of the columns that have a value; begins anew.
    pub fn finish(&mut self) -> RecordBatch {
        let rows = self.len();
        if rows == 0 {
            return RecordBatch::new_empty(schema::schema());
        }
        self.bytes = 0;
        let numbers = |column: &mut Vec<i64>| Int64Array::new(std::mem::take(column).into(), None);
        let times = |column: &mut Vec<i64>| {
            TimestampMicrosecondArray::new(std::mem::take(column).into(), None).with_timezone("UTC")
        };
        let ids = std::mem::take(&mut self.event_id).into();
        let (map, chosen) = self.properties.finish(rows);
        let (map, kinds) = map.unzip();
        let mut core: Vec<Option<ArrayRef>> = vec![
            Some(Arc::new(numbers(&mut self.user_hash))),
            Some(Arc::new(times(&mut self.time))),
            Some(Arc::new(numbers(&mut self.log_offset))),
            self.event_name.finish(rows),
            self.event_type.finish(rows),
            self.user_id.finish(rows),
            self.anonymous_id.finish(rows),
            self.session_id.finish(rows),
            self.install_id.finish(rows),
            filled(&mut self.sequence, rows),
            Some(Arc::new(FixedSizeBinaryArray::new(16, ids, None))),
            filled(&mut self.client_time, rows),
            Some(Arc::new(times(&mut self.receive_time))),
            Some(Arc::new(BooleanArray::new(self.late.finish(), None))),
            filled(&mut self.revenue, rows),
            self.currency.finish(rows),
        ];
        core.extend(self.context.iter_mut().map(|texts| texts.finish(rows)));
        core.extend([map, kinds]);
        let schema = schema::schema();
        let core = schema.fields().iter().zip(core).filter_map(|(field, array)| {
            let array = array?;
            let field = match field.data_type() == array.data_type() {
                true => Arc::clone(field),
                false => Arc::new(field.as_ref().clone().with_data_type(array.data_type().clone())),
            };
            Some((field, array))
        });
        let chosen = chosen.into_iter().map(|(name, array)| {
            (Arc::new(Field::new(name, array.data_type().clone(), true)) as FieldRef, array)
        });
        let (fields, mut columns): (Vec<FieldRef>, Vec<ArrayRef>) = core.chain(chosen).unzip();
        // They stay for a while, and builders make room ahead.
        columns.iter_mut().filter_map(Arc::get_mut).for_each(|column| column.shrink_to_fit());
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
            .expect("one builder for each column, one value for each row")
    }
}

/// What stands for a user wherever users are counted or sorted.
pub fn user_hash(user: &str) -> i64 {
    xxh3_64(user.as_bytes()).cast_signed()
}
