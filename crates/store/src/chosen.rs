//! Chosen properties: those that are columns.

use std::{collections::BTreeSet, sync::Arc};

use arrow::{
    array::{ArrayBuilder, ArrayRef, BooleanBuilder, Float64Builder},
    datatypes::Schema,
};
use hashbrown::{HashMap, hash_map::EntryRef};
use weir_proto::record::Value;
use weir_rollup::field::write_number;

use crate::{
    map::Rest,
    schema::Kind,
    texts::{Texts, filled, pad},
};

/// Chosen properties at most: each costs every segment some 100 bytes of metadata and every reader a look.
const MAX_CHOSEN: usize = 64;
/// A property is chosen when at least one in so many events has it.
const ONE_IN: usize = 20;
/// Bytes of a key that can be chosen at most.
const MAX_KEY: usize = 200;

/// Events after which an encoder decides what is frequent.
const SAMPLE: usize = 200;
/// Keys that are counted at most while the most frequent ones are sought; bounds the memory for keys that never repeat.
pub(crate) const MAX_COUNTED: usize = 4096;

/// The columns of chosen properties in a schema: their kind and key.
pub fn columns(schema: &Schema) -> impl Iterator<Item = (Kind, &str)> {
    schema.fields().iter().filter_map(|field| column(field.name()))
}

/// The kind and key of the column of a chosen property; `None` for another column.
pub fn column(name: &str) -> Option<(Kind, &str)> {
    Kind::ALL.into_iter().find_map(|kind| Some((kind, name.strip_prefix(kind.prefix()?)?)))
}

/// The keys that are to be columns, by how many values each has among so many events: those of `always`, and of those that are
/// `columns` already or are frequent enough the most frequent ones, as many as may be chosen.
pub(crate) fn choose(
    mut counts: HashMap<&str, usize>,
    columns: &BTreeSet<&str>,
    events: usize,
    always: &[String],
) -> BTreeSet<String> {
    let mut chosen: BTreeSet<String> =
        always.iter().filter(|key| counts.contains_key(key.as_str())).cloned().collect();
    counts.retain(|key, count| columns.contains(key) || key.len() <= MAX_KEY && *count * ONE_IN >= events);
    let mut ranked: Vec<_> = counts.into_iter().collect();
    ranked.sort_unstable_by(|(a, many), (b, more)| more.cmp(many).then(a.cmp(b)));
    for (key, _) in ranked {
        if chosen.len() >= MAX_CHOSEN {
            break;
        }
        chosen.insert(key.to_owned());
    }
    chosen
}

/// The columns of a property in the making. Rows that are passed over are null.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    texts: Texts,
    numbers: Float64Builder,
    booleans: BooleanBuilder,
}

impl Columns {
    #[inline]
    pub(crate) fn text(&mut self, row: usize, text: &str) {
        self.texts.push(row, text);
    }

    #[inline]
    pub(crate) fn number(&mut self, row: usize, number: f64) {
        pad(&mut self.numbers, row);
        // Of the two zeros only one is equal to what people write.
        self.numbers.append_value(number + 0.0);
    }

    #[inline]
    pub(crate) fn boolean(&mut self, row: usize, boolean: bool) {
        pad_booleans(&mut self.booleans, row);
        self.booleans.append_value(boolean);
    }

    /// The columns with so many rows that have a value, by what their names begin with; begins anew.
    pub(crate) fn finish(&mut self, rows: usize) -> impl Iterator<Item = (&'static str, ArrayRef)> {
        let texts = self.texts.finish(rows);
        let numbers = filled(&mut self.numbers, rows);
        let booleans = (!self.booleans.is_empty()).then(|| {
            pad_booleans(&mut self.booleans, rows);
            Arc::new(self.booleans.finish()) as ArrayRef
        });
        let named = |kind: Kind, array: Option<ArrayRef>| kind.prefix().zip(array);
        [named(Kind::Text, texts), named(Kind::Number, numbers), named(Kind::Boolean, booleans)]
            .into_iter()
            .flatten()
    }
}

fn pad_booleans(column: &mut BooleanBuilder, row: usize) {
    if column.len() < row {
        column.append_nulls(row - column.len());
    }
}

/// Columns of chosen properties, by name.
pub(crate) type Chosen = Vec<(String, ArrayRef)>;

/// The properties of events in the making: frequent ones become columns, the others go to the map. Which ones those are it learns from
/// batch to batch.
#[derive(Debug, Default)]
pub(crate) struct Properties {
    known: HashMap<String, Property>,
    /// Events that the counts are of.
    events: usize,
    rest: Rest,
    /// Space for the text of a number.
    text: String,
}

#[derive(Debug, Default)]
struct Property {
    count: usize,
    /// If it is chosen.
    columns: Option<Columns>,
}

impl Properties {
    /// Adds a property of an event.
    pub(crate) fn push(&mut self, row: usize, key: &str, value: Value<'_>) {
        let value = match value {
            Value::Number(number) if !number.is_finite() => Value::Null,
            other => other,
        };
        let is_full = self.known.len() >= MAX_COUNTED;
        let mut unknown = Property::default();
        let property = match self.known.entry_ref(key) {
            EntryRef::Vacant(_) if is_full => &mut unknown,
            entry => entry.or_default(),
        };
        match (value, &mut property.columns) {
            (Value::Text(text), Some(columns)) => columns.text(row, text),
            (Value::Number(number), Some(columns)) => columns.number(row, number),
            (Value::Boolean(boolean), Some(columns)) => columns.boolean(row, boolean),
            (Value::Text(text), None) => self.rest.push(row, key, Kind::Text, Some(text)),
            (Value::Number(number), None) => {
                self.text.clear();
                write_number(number, &mut self.text);
                self.rest.push(row, key, Kind::Number, Some(&self.text));
            }
            (Value::Boolean(boolean), None) => {
                self.rest.push(row, key, Kind::Boolean, Some(if boolean { "true" } else { "false" }));
            }
            (Value::Nested(nested), _) => {
                self.rest.push(row, key, Kind::Json, Some(&json(&nested.read()).to_string()));
                return;
            }
            (Value::Null, _) => {
                self.rest.push(row, key, Kind::Null, None);
                return;
            }
        }
        property.count += 1;
    }

    /// The map and the kinds of its entries, unless there are none, and the columns with their names; begins anew.
    pub(crate) fn finish(&mut self, rows: usize) -> (Option<(ArrayRef, ArrayRef)>, Chosen) {
        let map = (!self.rest.is_empty()).then(|| self.rest.finish(rows));
        let mut columns = Vec::new();
        for (key, property) in &mut self.known {
            let chosen = property.columns.iter_mut().flat_map(|columns| columns.finish(rows));
            columns.extend(chosen.map(|(prefix, array)| (format!("{prefix}{key}"), array)));
        }
        columns.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        self.events += rows;
        if self.events >= SAMPLE {
            self.choose();
        }
        (map, columns)
    }

    /// Decides for the batches that come.
    fn choose(&mut self) {
        let counts = self.known.iter().map(|(key, property)| (key.as_str(), property.count));
        let chosen = choose(counts.collect(), &BTreeSet::new(), self.events, &[]);
        let mut before = std::mem::take(&mut self.known);
        for key in chosen {
            let columns = before.remove(&key).and_then(|property| property.columns).unwrap_or_default();
            self.known.insert(key, Property { count: 0, columns: Some(columns) });
        }
        self.events = 0;
    }
}

/// A Protobuf value as JSON, as segments have lists and structures; what JSON can't express is null.
pub fn json(value: &prost_types::Value) -> serde_json::Value {
    use prost_types::value::Kind;
    match &value.kind {
        Some(Kind::StringValue(text)) => text.clone().into(),
        Some(Kind::NumberValue(number)) => (*number).into(),
        Some(Kind::BoolValue(boolean)) => (*boolean).into(),
        Some(Kind::ListValue(list)) => list.values.iter().map(json).collect(),
        Some(Kind::StructValue(of)) => {
            of.fields.iter().map(|(key, value)| (key.clone(), json(value))).collect()
        }
        Some(Kind::NullValue(_)) | None => serde_json::Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};

    use super::*;

    /// Adds events of which all have `plan`, and one in so many has `rare`.
    fn push(properties: &mut Properties, events: usize, one_in: usize) {
        for row in 0..events {
            properties.push(row, "plan", Value::Text("pro"));
            if row % one_in == 0 {
                properties.push(row, "rare", Value::Number(-0.0));
            }
        }
    }

    fn names(columns: &[(String, ArrayRef)]) -> Vec<&str> {
        columns.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn frequent_properties_are_columns_from_the_next_batch_on() {
        let mut properties = Properties::default();
        push(&mut properties, SAMPLE, 2 * ONE_IN);
        let (map, columns) = properties.finish(SAMPLE);
        assert!(map.is_some() && columns.is_empty(), "nothing is known yet");
        push(&mut properties, SAMPLE, ONE_IN);
        let (map, columns) = properties.finish(SAMPLE);
        assert_eq!(names(&columns), ["p_plan"]);
        assert_eq!(columns[0].1.len(), SAMPLE);
        let (map, _) = map.expect("the rare one stays in the map");
        assert_eq!(map.as_map().keys().len(), SAMPLE / ONE_IN);

        // Now it was frequent.
        push(&mut properties, SAMPLE, SAMPLE);
        let (map, columns) = properties.finish(SAMPLE);
        assert_eq!((map.is_some(), names(&columns)), (false, vec!["n_rare", "p_plan"]));
        let rare = columns[0].1.as_primitive::<arrow::datatypes::Float64Type>();
        assert_eq!((rare.len(), rare.null_count()), (SAMPLE, SAMPLE - 1));
        assert!(rare.value(0).is_sign_positive(), "there is one zero");
        push(&mut properties, 3, 1);
        let (map, columns) = properties.finish(3);
        assert_eq!((map.is_some(), names(&columns)), (true, vec!["p_plan"]), "and now it is not");
    }

    #[test]
    fn columns_that_are_too_many_together_give_way_to_more_frequent_keys() {
        let keys: Vec<String> = (0..MAX_CHOSEN + 10).map(|key| format!("{key:03}")).collect();
        let counts = || keys.iter().enumerate().map(|(count, key)| (key.as_str(), count)).collect();
        let columns: BTreeSet<&str> = keys.iter().map(String::as_str).collect();
        let most = |chosen: &[String]| chosen.iter().cloned().collect::<BTreeSet<_>>();
        assert_eq!(choose(counts(), &columns, 1_000_000, &[]), most(&keys[10..]));
        let some = &keys[MAX_CHOSEN..].iter().map(String::as_str).collect();
        assert_eq!(choose(counts(), some, 1_000_000, &[]), most(&keys[MAX_CHOSEN..]), "though they are rare");
        let chosen = choose(counts(), &columns, 1_000_000, &keys[..1]);
        assert!(chosen.len() == MAX_CHOSEN && chosen.contains(&keys[0]) && !chosen.contains(&keys[10]));
    }

    #[test]
    fn lists_and_what_is_no_number_stay_in_the_map() {
        let mut properties = Properties::default();
        push(&mut properties, SAMPLE, 1);
        properties.finish(SAMPLE);
        properties.push(2, "plan", Value::Null);
        properties.push(3, "rare", Value::Number(f64::NAN));
        properties.push(4, "rare", Value::Boolean(true));
        let (map, columns) = properties.finish(6);
        let (map, kinds) = map.expect("they are in the map");
        assert_eq!(names(&columns), ["b_rare"]);
        assert_eq!((columns[0].1.len(), map.len()), (6, 6));
        let kinds: Vec<_> = kinds.as_string_view().iter().flatten().collect();
        assert_eq!(kinds, ["", "", "z", "z", "", ""]);
    }
}
