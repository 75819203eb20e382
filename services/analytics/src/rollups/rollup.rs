//! Which rollup answers a question, and which of its buckets.

use std::{collections::BTreeSet, ops::Range};

use weir_query::fields;
use weir_rollup::{
    calendar::Zone,
    cover::cover,
    definition::{Catalog, Definition, MAX_DIMENSIONS},
    field::Field,
    level::{Level, Whole},
};

use super::measure::Measure;
use crate::{error::Error, materialise::Span, question::Measures};

/// What a plan depends on beside the question.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting<'a> {
    /// The rollups in force.
    pub(crate) catalog: &'a Catalog,
    /// Now by the wall clock, but not before the newest append time that is counted. Microseconds since the epoch, like all
    /// moments.
    pub(crate) now: i64,
    /// Where buckets hold everything.
    pub(crate) whole: Whole,
    /// Points and rows in an answer at most.
    pub(crate) max_rows: usize,
}

/// The rollup that answers a question about measures.
pub(crate) fn covering(
    question: &Measures,
    measures: &[Measure],
    setting: &Setting<'_>,
) -> Result<Definition, Error> {
    let dimensions = question.asked.by.iter().chain(question.asked.filter.fields()).cloned().collect();
    choose(setting.catalog, &dimensions, measures).cloned()
}

/// The smallest rollup that has all these dimensions and what the measures need; the first one of equals.
pub(crate) fn choose<'a>(
    catalog: &'a Catalog,
    dimensions: &BTreeSet<Field>,
    measures: &[Measure],
) -> Result<&'a Definition, Error> {
    if let Some(counted) = measures.iter().find_map(from_events) {
        return Err(Error::NotCovered {
            message: format!("no rollup counts {counted}"),
            dimensions: Vec::new(),
            numerics: Vec::new(),
            configuration: String::new(),
        });
    }
    let numerics: BTreeSet<&Field> = measures.iter().filter_map(Measure::numeric).collect();
    let covers = |definition: &&Definition| {
        dimensions.iter().all(|field| definition.dimensions.contains(field))
            && numerics.iter().all(|field| definition.numerics.contains(field))
    };
    let covering = catalog.definitions().iter().filter(covers);
    covering
        .min_by_key(|definition| definition.dimensions.len())
        .ok_or_else(|| missing(catalog, dimensions, &numerics))
}

/// What a measure counts that no rollup does.
fn from_events(measure: &Measure) -> Option<&'static str> {
    match measure {
        Measure::UniqueValues(_) => Some("the different values of a property"),
        Measure::Visits => Some("visits"),
        Measure::Events
        | Measure::UniqueUsers
        | Measure::Sessions
        | Measure::Revenue(_)
        | Measure::Numeric(..) => None,
    }
}

/// The error that says what to add for the question to be answered.
fn missing(catalog: &Catalog, dimensions: &BTreeSet<Field>, numerics: &BTreeSet<&Field>) -> Error {
    let mut sentences = Vec::new();
    let mut configuration = Vec::new();

    let unknown_numerics: Vec<&Field> =
        numerics.iter().filter(|field| !catalog.numeric_fields().contains(field)).copied().collect();
    for field in &unknown_numerics {
        let hint = alike(field, catalog.numeric_fields());
        sentences.push(format!("no rollup keeps sums and quantiles of `{field}`{hint}"));
    }
    if !unknown_numerics.is_empty() {
        let all = catalog.numeric_fields().iter().chain(unknown_numerics.iter().copied());
        configuration.push(format!("[rollups]\nnumeric = {}", list(all)));
    }

    let is_dimension = |field: &&Field| catalog.dimension_fields().contains(field);
    let mut missing: Vec<&Field> = dimensions.iter().filter(|field| !is_dimension(field)).collect();
    let fits = |definition: &Definition| dimensions.iter().all(|field| definition.dimensions.contains(field));
    if !catalog.definitions().iter().any(fits) {
        for field in &missing {
            let hint = alike(field, catalog.dimension_fields());
            sentences.push(format!("no rollup has the dimension `{field}`{hint}"));
        }
        let beside_name: Vec<&Field> =
            dimensions.iter().filter(|field| **field != Field::EventName).collect();
        match beside_name.as_slice() {
            [_] => {
                let built_in = catalog.definitions().iter().filter_map(|definition| {
                    let [Field::EventName, field] = definition.dimensions.as_slice() else { return None };
                    Some(field)
                });
                configuration.push(format!("[rollups]\ndimensions = {}", list(built_in.chain(beside_name))));
            }
            _ if dimensions.len() > MAX_DIMENSIONS => {
                sentences.push(format!(
                    "the question needs {} dimensions at once, but a rollup has at most {MAX_DIMENSIONS}; leave some out",
                    dimensions.len()
                ));
                missing = dimensions.iter().collect();
            }
            _ => {
                if missing.is_empty() {
                    let names: Vec<String> = dimensions.iter().map(|field| format!("`{field}`")).collect();
                    sentences.push(format!("no rollup has {} together", names.join(" and ")));
                    missing = dimensions.iter().collect();
                }
                let name: Vec<String> = beside_name.iter().map(|field| short(field)).collect();
                configuration.push(format!(
                    "[[rollups.definitions]]\nname = \"by_{}\"\ndimensions = {}",
                    name.join("_and_"),
                    list(dimensions)
                ));
            }
        }
    }
    let message = match configuration.as_slice() {
        [] => sentences.join("; "),
        lines => format!(
            "{}; to have events counted by it from then on, configure and restart the consumers and this service with:\n{}",
            sentences.join("; "),
            lines.join("\n")
        ),
    };
    let texts = |fields: Vec<&Field>| fields.into_iter().map(Field::to_string).collect();
    Error::NotCovered {
        message,
        dimensions: texts(missing),
        numerics: texts(unknown_numerics),
        configuration: configuration.join("\n"),
    }
}

fn alike(field: &Field, known: &[Field]) -> String {
    match fields::nearest(&field.to_string(), known.iter()).as_slice() {
        [] => String::new(),
        names => format!(" (did you mean `{}`?)", names.join("` or `")),
    }
}

/// As configurations spell it: properties by their bare key.
fn list<'a>(fields: impl IntoIterator<Item = &'a Field>) -> String {
    let names: Vec<String> = fields.into_iter().map(|field| format!("{:?}", spelled(field))).collect();
    format!("[{}]", names.join(", "))
}

fn spelled(field: &Field) -> String {
    match field {
        Field::Property(key) if Field::parse(key).as_ref() == Ok(field) => key.clone(),
        field => field.to_string(),
    }
}

/// A name that a rollup may have.
fn short(field: &Field) -> String {
    let plain = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' };
    spelled(field).to_lowercase().chars().map(plain).collect()
}

/// The buckets that make up a range, counting towards `slot`.
pub(crate) fn spans(range: Range<i64>, slot: u32, setting: &Setting<'_>) -> Result<Vec<Span>, Error> {
    let spans = cover(range, &setting.whole).map_err(|error| too_fine(&error, &setting.whole))?;
    Ok(spans.into_iter().map(|span| Span { level: span.level, buckets: span.buckets, slot }).collect())
}

/// Tells which round times to ask for instead, and since when the buckets that the question needs are kept.
fn too_fine(error: &weir_rollup::Error, whole: &Whole) -> Error {
    let weir_rollup::Error::NotCovered { at, finest } = error else {
        return Error::TooFine(error.to_string());
    };
    let time = |micros: i64| Zone::UTC.local_time(micros).unwrap_or_else(|error| error.to_string());
    if *at < whole.since(*finest) {
        return Error::TooFine(format!(
            "nothing is kept of the time before {0}; begin there or later",
            time(whole.since(*finest))
        ));
    }
    let bucket = finest.bucket_of(*at);
    let (before, after) = (finest.start_micros(bucket), finest.start_micros(bucket.saturating_add(1)));
    let width = match finest {
        Level::Second => "second",
        Level::Minute => "minute",
        Level::QuarterHour => "15 minutes",
        Level::Hour => "hour",
        Level::Day => "day of UTC",
    };
    let needed = Level::ALL.into_iter().rev().find(|level| at.rem_euclid(level.width_micros()) == 0);
    let kept = needed.map_or_else(String::new, |level| {
        format!(
            "; {level}s are kept since {}, longer from now on with more [rollups.retention]",
            time(whole.since(level))
        )
    });
    Error::TooFine(format!(
        "{} lies inside a bucket: of that time only buckets of one {width} and wider are kept; let ranges and intervals begin \
         and end at such times, here {} or {}{kept}",
        time(*at),
        time(before),
        time(after)
    ))
}
