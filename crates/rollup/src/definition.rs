//! Which rollups are kept: a definition names the dimensions by which events are told apart and the numeric fields that are
//! summarised; the catalog is the list in force.

use xxhash_rust::xxh3::xxh3_64;

use crate::{Error, field::Field, level::Retention};

/// Definitions in one catalog at most: each costs every event one cell update.
pub const MAX_DEFINITIONS: usize = 64;
/// Dimensions of one definition at most: cells multiply with each.
pub const MAX_DIMENSIONS: usize = 4;
/// Numeric fields at most: each is a quantile sketch (about 2 KB once full) in every cell.
pub const MAX_NUMERICS: usize = 16;
/// Values of a dimension are cut at this many bytes, on a character boundary.
pub const MAX_VALUE_BYTES: usize = 200;

/// Whether a value in a cell may be the beginning of a longer one, and then of several: it has as many bytes as values that were
/// cut. A cut at a character boundary takes up to three bytes more than needed.
pub fn may_be_cut(text: &str) -> bool {
    text.len() > MAX_VALUE_BYTES - 4
}

/// One rollup: events counted by the values of its dimensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// A unique name for people. Not part of the identity: renaming keeps what was counted.
    pub name: String,
    /// The dimensions, at most [`MAX_DIMENSIONS`].
    pub dimensions: Vec<Field>,
    /// The numeric fields that are summarised; a position here is [`NumericSummary.index`] on the wire.
    ///
    /// [`NumericSummary.index`]: weir_proto::rollup::v1::NumericSummary
    pub numerics: Vec<Field>,
}

impl Definition {
    /// Identifies what is counted, for all time: XXH3 (64 bit) of the canonical names of dimensions and numeric fields.
    pub fn id(&self) -> u64 {
        // Lengths come first so that no two definitions have the same text, whatever property keys contain.
        let mut text = String::from("rollup/1");
        for (kind, fields) in [('d', &self.dimensions), ('n', &self.numerics)] {
            for field in fields {
                let name = field.to_string();
                text.push_str(&format!("\n{kind}{}:{name}", name.len()));
            }
        }
        xxh3_64(text.as_bytes())
    }
}

/// What a configuration says about rollups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogSpec {
    /// Names of fields that each get a rollup together with the event name.
    pub dimensions: Vec<String>,
    /// Names of the numeric fields that every rollup summarises.
    pub numerics: Vec<String>,
    /// Further rollups: a unique name (lower case letters, digits and `_`) and the names of 1 to [`MAX_DIMENSIONS`] fields.
    pub definitions: Vec<(String, Vec<String>)>,
    /// How long buckets are kept.
    pub retention: Retention,
}

/// The rollups in force, with what the accumulator needs to know about them.
#[derive(Debug, Clone)]
pub struct Catalog {
    definitions: Vec<Definition>,
    ids: Vec<u64>,
    slots: Vec<Vec<usize>>,
    /// By definition: the coarser one whose cells its cells add up to, if it was chosen for that.
    feeds: Vec<Option<usize>>,
    /// The definitions that no other feeds.
    finest: Vec<usize>,
    dimension_fields: Vec<Field>,
    numeric_fields: Vec<Field>,
    retention: Retention,
}

impl Catalog {
    /// Checks a configuration and adds the built-in rollups: `total` (no dimension), `by_event` (`event_name`), and
    /// `by_event_and_<name>` for each configured dimension.
    ///
    /// # Errors
    /// [`Error::Field`], [`Error::Definition`] or [`Error::Catalog`], saying what to change.
    pub fn new(spec: CatalogSpec) -> Result<Catalog, Error> {
        let numerics = distinct_fields(&spec.numerics)?;
        if numerics.len() > MAX_NUMERICS {
            let problem =
                format!("{} numeric fields, but at most {MAX_NUMERICS} are possible", numerics.len());
            return Err(Error::Catalog(problem));
        }

        let mut named = vec![("total".to_owned(), vec![]), ("by_event".to_owned(), vec![Field::EventName])];
        for field in distinct_fields(&spec.dimensions)? {
            if field != Field::EventName {
                named.push((format!("by_event_and_{}", short_name(&field)), vec![Field::EventName, field]));
            }
        }
        for (name, dimensions) in &spec.definitions {
            named.push((checked_name(name)?, checked_dimensions(name, dimensions)?));
        }

        let mut catalog = Catalog {
            definitions: Vec::with_capacity(named.len()),
            ids: Vec::with_capacity(named.len()),
            slots: Vec::with_capacity(named.len()),
            feeds: vec![None; named.len()],
            finest: Vec::new(),
            dimension_fields: Vec::new(),
            numeric_fields: numerics,
            retention: spec.retention,
        };
        for (name, dimensions) in named {
            catalog.push(name, dimensions)?;
        }
        if catalog.definitions.len() > MAX_DEFINITIONS {
            let problem = format!(
                "{} definitions, built-in ones included, but at most {MAX_DEFINITIONS} are possible: remove some",
                catalog.definitions.len()
            );
            return Err(Error::Catalog(problem));
        }
        catalog.link();
        Ok(catalog)
    }

    /// Finds what need not be counted event by event: a definition is the sum of any other that begins with its dimensions.
    fn link(&mut self) {
        for coarse in 0..self.slots.len() {
            let begins = |fine: &usize| {
                self.slots[*fine].len() > self.slots[coarse].len()
                    && self.slots[*fine].starts_with(&self.slots[coarse])
                    && self.feeds[*fine].is_none()
            };
            let candidates = (0..self.slots.len()).filter(begins);
            match candidates.min_by_key(|fine| self.slots[*fine].len()) {
                Some(fine) => self.feeds[fine] = Some(coarse),
                None => self.finest.push(coarse),
            }
        }
    }

    fn push(&mut self, name: String, dimensions: Vec<Field>) -> Result<(), Error> {
        if self.definitions.iter().any(|other| other.name == name) {
            let problem = "the name is taken: choose another".to_owned();
            return Err(Error::Definition { name, problem });
        }
        let same = |other: &&Definition| {
            other.dimensions.len() == dimensions.len()
                && dimensions.iter().all(|d| other.dimensions.contains(d))
        };
        if let Some(other) = self.definitions.iter().find(same) {
            let problem = format!("`{}` has the same dimensions: remove one of them", other.name);
            return Err(Error::Definition { name, problem });
        }
        let mut slots = Vec::with_capacity(dimensions.len());
        for field in &dimensions {
            slots.push(self.dimension_fields.iter().position(|known| known == field).unwrap_or_else(|| {
                self.dimension_fields.push(field.clone());
                self.dimension_fields.len() - 1
            }));
        }
        let definition = Definition { name, dimensions, numerics: self.numeric_fields.clone() };
        self.ids.push(definition.id());
        self.slots.push(slots);
        self.definitions.push(definition);
        Ok(())
    }

    /// The definitions, built-in ones first.
    pub fn definitions(&self) -> &[Definition] {
        &self.definitions
    }

    /// Their identifiers, in the same order: the `definitions` of a micro-batch.
    pub fn ids(&self) -> &[u64] {
        &self.ids
    }

    /// Dimensions of every definition without repetition. A position here is the slot of
    /// [`Observation::dimensions`](crate::accumulate::Observation::dimensions).
    pub fn dimension_fields(&self) -> &[Field] {
        &self.dimension_fields
    }

    /// The slots of a definition's dimensions, by its position in [`Catalog::definitions`].
    pub(crate) fn slots(&self, definition: usize) -> &[usize] {
        &self.slots[definition]
    }

    /// The definitions to which events are added; the cells of all others are sums of theirs.
    pub(crate) fn finest(&self) -> &[usize] {
        &self.finest
    }

    /// The coarser definition whose cells this one's add up to: its dimensions are the first of this one's.
    pub(crate) fn feeds(&self, definition: usize) -> Option<usize> {
        self.feeds[definition]
    }

    /// Numeric fields. A position here is the slot of
    /// [`Observation::numerics`](crate::accumulate::Observation::numerics).
    pub fn numeric_fields(&self) -> &[Field] {
        &self.numeric_fields
    }

    /// How long buckets are kept.
    pub fn retention(&self) -> &Retention {
        &self.retention
    }
}

fn distinct_fields(names: &[String]) -> Result<Vec<Field>, Error> {
    let mut fields = Vec::with_capacity(names.len());
    for name in names {
        let field = Field::parse(name)?;
        if fields.contains(&field) {
            return Err(Error::Catalog(format!("`{name}` is listed twice: remove one")));
        }
        fields.push(field);
    }
    Ok(fields)
}

/// `platform` for `properties.platform`, `context_os_name` for `context.os.name`.
fn short_name(field: &Field) -> String {
    match field {
        Field::Property(key) => key.clone(),
        _ => field.to_string().replace('.', "_"),
    }
}

fn checked_name(name: &str) -> Result<String, Error> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() || name.len() > 100 || !name.chars().all(plain) {
        let problem = "names have 1 to 100 lower case letters, digits and `_`".to_owned();
        return Err(Error::Definition { name: name.chars().take(100).collect(), problem });
    }
    Ok(name.to_owned())
}

fn checked_dimensions(name: &str, dimensions: &[String]) -> Result<Vec<Field>, Error> {
    let fields = distinct_fields(dimensions)
        .map_err(|error| Error::Definition { name: name.to_owned(), problem: error.to_string() })?;
    if !(1..=MAX_DIMENSIONS).contains(&fields.len()) {
        let problem = format!("it has {} dimensions, but 1 to {MAX_DIMENSIONS} are possible", fields.len());
        return Err(Error::Definition { name: name.to_owned(), problem });
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> CatalogSpec {
        CatalogSpec {
            dimensions: vec!["platform".to_owned(), "context.os.name".to_owned()],
            numerics: vec!["price".to_owned()],
            definitions: vec![("by_plan".to_owned(), vec!["plan".to_owned(), "platform".to_owned()])],
            retention: Retention::FOREVER,
        }
    }

    #[test]
    fn built_in_rollups_come_first_and_slots_are_shared() {
        let catalog = Catalog::new(spec()).unwrap();
        let names: Vec<_> = catalog.definitions().iter().map(|d| d.name.as_str()).collect();
        assert_eq!(
            names,
            ["total", "by_event", "by_event_and_platform", "by_event_and_context_os_name", "by_plan"]
        );
        let fields: Vec<_> = catalog.dimension_fields().iter().map(Field::to_string).collect();
        assert_eq!(fields, ["event_name", "properties.platform", "context.os.name", "properties.plan"]);
        assert_eq!(catalog.slots(4), [3, 1]);
    }

    #[test]
    fn what_is_a_sum_of_finer_cells_is_not_counted_again() {
        let catalog = Catalog::new(spec()).unwrap();
        // total <- by_event <- by_event_and_platform
        assert_eq!(catalog.finest(), [2, 3, 4]);
        assert_eq!([1, 2, 3, 4].map(|d| catalog.feeds(d)), [Some(0), Some(1), None, None]);
        let plain = CatalogSpec { dimensions: vec![], definitions: vec![], ..spec() };
        assert_eq!(Catalog::new(plain).unwrap().finest(), [1]);
    }

    #[test]
    fn identifiers_stay_the_same_for_all_time() {
        let total =
            |name: &str| Definition { name: name.to_owned(), dimensions: vec![], numerics: vec![] }.id();
        assert_eq!(total("total"), total("renamed"));
        // Fixed values: a change would orphan everything already counted.
        let catalog = Catalog::new(CatalogSpec { numerics: vec![], ..spec() }).unwrap();
        let ids: Vec<_> = catalog.ids().iter().map(|id| format!("{id:016x}")).collect();
        assert_eq!(ids, EXPECTED_IDS);
    }

    const EXPECTED_IDS: [&str; 5] =
        ["b605d33298761d8d", "62fef6bbef4857e4", "5f66f14da1a92531", "c3113e0ff82c5b30", "37913b6b154a0418"];

    #[test]
    fn what_is_counted_makes_the_identity() {
        let plain = Catalog::new(CatalogSpec { numerics: vec![], ..spec() }).unwrap();
        let priced = Catalog::new(spec()).unwrap();
        let mut ids: Vec<_> = plain.ids().iter().chain(priced.ids()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 10);
    }

    #[test]
    fn wrong_catalogs_say_what_to_change() {
        let definition = |name: &str, dimensions: &[&str]| {
            let dimensions = dimensions.iter().map(|d| (*d).to_owned()).collect();
            CatalogSpec { definitions: vec![(name.to_owned(), dimensions)], ..spec() }
        };
        let many = (0..MAX_DEFINITIONS).map(|n| format!("d{n}")).collect();
        for (spec, hint) in [
            (definition("Plan", &["plan"]), "lower case"),
            (definition("total", &["plan"]), "taken"),
            (definition("plan", &[]), "0 dimensions"),
            (definition("plan", &["a", "b", "c", "d", "e"]), "5 dimensions"),
            (definition("plan", &["a", "properties.a"]), "listed twice"),
            (definition("plan", &["platform", "event_name"]), "`by_event_and_platform` has the same"),
            (definition("plan", &["context.nothing"]), "app.name"),
            (CatalogSpec { dimensions: many, ..spec() }, "at most 64"),
        ] {
            let error = Catalog::new(spec).unwrap_err().to_string();
            assert!(error.contains(hint), "{hint}: {error}");
        }
    }
}
