//! Which of the names in a question no event has, which they may have been meant to be, and what is no number.

use std::collections::BTreeSet;

use arrow::array::{Array as _, RecordBatch};
use weir_proto::analytics::v1::{Note, note::Kind};
use weir_query::fields::nearest;
use weir_store::{
    manifest::Segment,
    schema::{Kind as ValueKind, column},
    shape::{Entries, chosen_column, text_counts},
};

use super::Seen;
use crate::question::Named;

impl Seen {
    /// Notes on the names that none of these events has, and on numbers that are none. Nothing is said where the manifest has no
    /// whole list of names, as for products with more than [`Segment::MAX_NAMES`] names: looking through all events would take
    /// longer than the answer.
    pub(crate) fn notes(&self, named: &Named) -> Vec<Note> {
        if self.is_partial() {
            return Vec::new();
        }
        let events = named.events.iter().filter(|name| !self.knows_event(name)).map(|name| Note {
            kind: Kind::UnknownEvent.into(),
            text: format!("no event that is kept is named `{name}`"),
            name: name.clone(),
            nearest_names: nearest(name, self.event_names().iter()),
        });
        let properties = named.properties.iter().filter(|key| !self.knows_property(key)).map(|key| Note {
            kind: Kind::UnknownProperty.into(),
            text: match key.split_once('.').filter(|(outer, _)| self.knows_property(outer)) {
                Some((outer, _)) => format!(
                    "no event that is kept has the property `{key}`: `{outer}` is never an object; JSON that is sent as a text stays \
                     a text"
                ),
                None => format!("no event that is kept has the property `{key}`"),
            },
            name: key.clone(),
            nearest_names: nearest(key, self.property_keys().iter()),
        });
        let texts = named.numbers.iter().filter(|key| self.knows_property(key) && !self.has_number(key));
        let texts = texts.map(|key| Note {
            kind: Kind::WrongKind.into(),
            text: format!("the property `{key}` is never a number"),
            name: key.clone(),
            nearest_names: Vec::new(),
        });
        let mixed = named.numbers.iter().filter(|key| self.has_number(key) && self.has_text(key));
        let mixed = mixed.map(|key| Note {
            kind: Kind::Remark.into(),
            text: format!(
                "the property `{key}` has values that are text, too; measures of numbers leave them out"
            ),
            name: key.clone(),
            nearest_names: Vec::new(),
        });
        events.chain(properties).chain(texts).chain(mixed).collect()
    }

    fn knows_event(&self, wanted: &str) -> bool {
        let listed =
            |segment: &Segment| segment.names.as_ref().is_none_or(|names| names.contains_key(wanted));
        self.snapshot.segments.iter().any(|segment| listed(segment))
            || self.snapshot.hot.iter().any(|batch| names(batch).any(|name| name == wanted))
    }

    /// Whether some event has a property, or one that holds lists or structs where a dot in the name may descend.
    fn knows_property(&self, wanted: &str) -> bool {
        if wanted.split_once('.').is_some_and(|(outer, _)| self.has_structs(outer)) {
            return true;
        }
        let listed = |segment: &Segment| segment.more_properties || segment.properties.contains_key(wanted);
        self.snapshot.segments.iter().any(|segment| listed(segment))
            || self.snapshot.hot.iter().any(|batch| has(batch, wanted, |_| true))
    }

    fn has_structs(&self, wanted: &str) -> bool {
        let listed = |segment: &Segment| segment.properties.get(wanted).is_some_and(|kinds| kinds.json > 0);
        self.snapshot.segments.iter().any(|segment| listed(segment))
            || self.snapshot.hot.iter().any(|batch| has(batch, wanted, |kind| kind == ValueKind::Json))
    }

    /// Of values within structs nothing is known: they may be.
    fn has_number(&self, wanted: &str) -> bool {
        if wanted.split_once('.').is_some_and(|(outer, _)| self.has_structs(outer)) {
            return true;
        }
        let listed = |segment: &Segment| {
            let kinds = segment.properties.get(wanted);
            kinds.map_or(segment.more_properties, |kinds| kinds.number > 0)
        };
        let number = |kind| kind == ValueKind::Number;
        self.snapshot.segments.iter().any(|segment| listed(segment))
            || self.snapshot.hot.iter().any(|batch| has(batch, wanted, number))
    }

    /// Whether a property is known to have texts.
    fn has_text(&self, wanted: &str) -> bool {
        let listed = |segment: &Segment| segment.properties.get(wanted).is_some_and(|kinds| kinds.text > 0);
        let text = |kind| kind == ValueKind::Text;
        self.snapshot.segments.iter().any(|segment| listed(segment))
            || self.snapshot.hot.iter().any(|batch| has(batch, wanted, text))
    }

    fn event_names(&self) -> BTreeSet<&str> {
        let listed = self.snapshot.segments.iter().flat_map(|segment| segment.names.iter().flatten());
        let hot = self.snapshot.hot.iter().flat_map(names);
        listed.map(|(name, _)| name.as_str()).chain(hot).collect()
    }

    /// Which properties the events have; `None` where the manifest does not list all of them.
    pub(crate) fn all_property_keys(&self) -> Option<BTreeSet<&str>> {
        let whole = self.snapshot.segments.iter().all(|segment| !segment.more_properties);
        whole.then(|| self.property_keys())
    }

    fn property_keys(&self) -> BTreeSet<&str> {
        let listed = self.snapshot.segments.iter().flat_map(|segment| segment.properties.keys());
        let hot = self.snapshot.hot.iter().flat_map(keys);
        listed.map(String::as_str).chain(hot).collect()
    }
}

fn names(batch: &RecordBatch) -> impl Iterator<Item = &str> {
    let counts = batch.column_by_name(column::EVENT_NAME).and_then(text_counts);
    counts.into_iter().flatten().map(|(name, _)| name)
}

fn keys(batch: &RecordBatch) -> BTreeSet<&str> {
    let mut keys = BTreeSet::new();
    each(batch, |key, _| {
        keys.insert(key);
    });
    keys
}

/// Whether a property has values of these kinds.
fn has(batch: &RecordBatch, wanted: &str, of: impl Fn(ValueKind) -> bool) -> bool {
    let mut found = false;
    each(batch, |key, kind| found |= key == wanted && of(kind));
    found
}

/// Each property that has a value, at least once for each kind of its values: those that are columns and those of the map.
fn each<'b>(batch: &'b RecordBatch, mut take: impl FnMut(&'b str, ValueKind)) {
    let columns = batch.schema_ref().fields().iter().zip(batch.columns());
    for (field, _) in columns.filter(|(_, values)| values.null_count() < values.len()) {
        if let Some((kind, key)) = chosen_column(field.name()) {
            take(key, kind);
        }
    }
    if let Ok(Some(entries)) = Entries::of(batch) {
        entries.each(|_, key, kind, _| take(key, kind));
    }
}
