use std::collections::BTreeMap;

use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::{
    cell::{Placed, Value},
    definition::{CatalogSpec, MAX_VALUE_BYTES},
    level::Retention,
};

fn catalog() -> Arc<Catalog> {
    let spec = CatalogSpec {
        dimensions: vec!["platform".to_owned()],
        numerics: vec!["price".to_owned()],
        definitions: vec![(
            "by_plan_and_platform".to_owned(),
            vec!["plan".to_owned(), "platform".to_owned()],
        )],
        retention: Retention::FOREVER,
    };
    Arc::new(Catalog::new(spec).unwrap())
}

/// In the order of the catalog's slots: event name, platform, plan.
const PLAIN: Observation<'_> = Observation {
    project: "default",
    time_micros: 0,
    level: Level::Second,
    late: false,
    user: 1,
    session: None,
    revenue: None,
    dimensions: &[Some("view"), None, None],
    numerics: &[None],
};

/// Cells by definition name.
fn read(catalog: &Catalog, deltas: Vec<proto::ProjectDelta>) -> BTreeMap<(String, String), Vec<Placed>> {
    let mut cells = BTreeMap::new();
    for delta in deltas {
        for rollup in delta.rollups {
            let at = catalog.ids().iter().position(|id| *id == rollup.definition).unwrap();
            let key = (delta.project.clone(), catalog.definitions()[at].name.clone());
            let placed = rollup.cells.into_iter().map(|cell| Placed::from_proto(cell).unwrap()).collect();
            assert!(cells.insert(key, placed).is_none());
        }
    }
    cells
}

fn text(value: &str) -> Value {
    Value::Text(value.into())
}

#[test]
fn an_event_goes_to_one_cell_of_every_definition() {
    let catalog = catalog();
    let mut accumulator = Accumulator::new(catalog.clone());
    let event = Observation {
        time_micros: -1,
        late: true,
        session: Some(7),
        revenue: Some(Revenue { currency: "EUR", units: 2, nanos: 500_000_000 }),
        dimensions: &[Some("buy"), Some("ios"), None],
        numerics: &[Some(1.5)],
        ..PLAIN
    };
    accumulator.add(&event);
    accumulator.add(&Observation { user: 2, late: false, numerics: &[Some(f64::NAN)], ..event });
    assert_eq!((accumulator.cells(), accumulator.is_empty()), (4, false));

    let cells = read(&catalog, accumulator.drain());
    let dimensions: Vec<_> = cells.values().map(|cells| cells[0].dimensions.clone()).collect();
    let (buy, ios) = (text("buy"), text("ios"));
    let expected = [vec![buy.clone()], vec![buy, ios.clone()], vec![Value::Missing, ios], vec![]];
    assert_eq!(dimensions, expected);
    for cells in cells.values() {
        let [Placed { level: Level::Second, bucket: -1, cell, .. }] = cells.as_slice() else {
            panic!("{cells:?}")
        };
        assert_eq!((cell.count, cell.late), (2, 1));
        assert_eq!((cell.users.estimate().value, cell.sessions.estimate().value), (2.0, 1.0));
        assert_eq!(cell.revenue.amounts()[0].to_f64(), 5.0);
        assert_eq!((cell.numeric(0).unwrap().count(), cell.numeric(0).unwrap().sum()), (1, 1.5));
    }
    assert!(accumulator.is_empty() && accumulator.drain().is_empty());
}

#[test]
fn long_values_are_cut_between_characters() {
    let catalog = catalog();
    let mut accumulator = Accumulator::new(catalog.clone());
    let long = format!("x{}", "é".repeat(MAX_VALUE_BYTES));
    accumulator.add(&Observation { dimensions: &[Some(&long), None, None], ..PLAIN });
    accumulator.add(&Observation { dimensions: &[Some(&long[..MAX_VALUE_BYTES + 11]), None, None], ..PLAIN });
    let cells = read(&catalog, accumulator.drain());
    let by_event = &cells[&("default".to_owned(), "by_event".to_owned())];
    assert_eq!(by_event[0].dimensions, [text(&long[..MAX_VALUE_BYTES - 1])]);
    assert_eq!(by_event[0].cell.count, 2);
}

#[test]
#[should_panic(expected = "one value per dimension field")]
fn values_must_match_the_catalog() {
    Accumulator::new(catalog()).add(&Observation { dimensions: &[], ..PLAIN });
}

#[derive(Debug, Clone)]
struct Event {
    project: usize,
    seconds: i64,
    level: Level,
    user: u64,
    dimensions: [Option<usize>; 3],
    price: Option<f64>,
}

const TEXTS: [&str; 4] = ["a", "b", "", "Ω"];

fn any_event() -> impl Strategy<Value = Event> {
    let dimension = || proptest::option::of(0..TEXTS.len());
    let level = prop::sample::select(Level::ALL.to_vec());
    let price = proptest::option::of((-800..800i32).prop_map(|eighths| f64::from(eighths) / 8.0));
    (0usize..2, -100i64..100_000, level, 0u64..900, [dimension(), dimension(), dimension()], price).prop_map(
        |(project, seconds, level, user, dimensions, price)| Event {
            project,
            seconds,
            level,
            user,
            dimensions,
            price,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn cells_are_what_plain_counting_says(
        events in proptest::collection::vec(any_event(), 0..1500), batch in 1usize..2000,
    ) {
        let catalog = catalog();
        let mut accumulator = Accumulator::new(catalog.clone());
        type Key = (usize, usize, Vec<Option<usize>>, Level, i64);
        let mut counted: BTreeMap<Key, Vec<&Event>> = BTreeMap::new();
        let mut found: BTreeMap<Key, crate::cell::Cell> = BTreeMap::new();
        let projects = ["one", "two"];
        for batch in events.chunks(batch) {
            for event in batch {
                let dimensions = event.dimensions.map(|at| at.map(|at| TEXTS[at]));
                accumulator.add(&Observation {
                    project: projects[event.project],
                    time_micros: event.seconds * 1_000_000,
                    level: event.level,
                    user: xxh3_64(&event.user.to_le_bytes()),
                    dimensions: &dimensions,
                    numerics: &[event.price],
                    ..PLAIN
                });
                for definition in 0..catalog.definitions().len() {
                    let values = catalog.slots(definition).iter().map(|slot| event.dimensions[*slot]).collect();
                    let bucket = event.level.bucket_of(event.seconds * 1_000_000);
                    counted.entry((event.project, definition, values, event.level, bucket)).or_default().push(event);
                }
            }
            for delta in accumulator.drain() {
                let project = projects.iter().position(|name| *name == delta.project).unwrap();
                for rollup in delta.rollups {
                    let definition = catalog.ids().iter().position(|id| *id == rollup.definition).unwrap();
                    for cell in rollup.cells {
                        let placed = Placed::from_proto(cell).unwrap();
                        let values = placed.dimensions.iter().map(|value| match value {
                            Value::Missing => None,
                            Value::Text(text) => TEXTS.iter().position(|known| **known == **text),
                            Value::Other => panic!("a batch tells all values apart"),
                        }).collect();
                        let key = (project, definition, values, placed.level, placed.bucket);
                        found.entry(key).or_default().merge(&placed.cell);
                    }
                }
            }
        }
        prop_assert_eq!(counted.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
        for (key, events) in counted {
            let cell = &found[&key];
            prop_assert_eq!(cell.count, events.len() as u64);
            let mut users: Vec<_> = events.iter().map(|event| event.user).collect();
            users.sort_unstable();
            users.dedup();
            let estimate = cell.users.estimate();
            prop_assert_eq!(estimate.exact, users.len() <= crate::distinct::EXACT_LIMIT);
            let size = users.len() as f64;
                        let close = (estimate.value / size - 1.0).abs() < 0.1;
            let right = if estimate.exact { estimate.value == size } else { close };
            prop_assert!(right, "{:?} for {} users", estimate, size);
            let prices: Vec<_> = events.iter().filter_map(|event| event.price).collect();
            prop_assert_eq!(cell.numeric(0).map_or(0.0, |summary| summary.sum()), prices.iter().sum::<f64>());
        }
    }
}
