//! What the answers must be, counted plainly beside the events as they are made: no sketch, no rollup, no window.

use std::collections::{BTreeMap, HashMap, HashSet};

use prost_types::value::Kind;
use weir_proto::{analytics::v1::QueryBreakdownResponse, event::v1::Event};

use crate::render::figure;

/// The numeric property that is summed and whose quantiles are checked.
pub(super) const PROPERTY: &str = "price";
/// Quantiles that are checked.
pub(super) const QUANTILES: [f64; 3] = [0.5, 0.95, 0.99];
/// Currencies that the made-up world pays in.
pub(super) const CURRENCIES: [&str; 3] = ["USD", "EUR", "GBP"];
/// Largest error in rank that is taken for right: twice the 1.65 % that Apache DataSketches states for the KLL sketch with
/// k = 200 at 99 % confidence, single-sided.
const RANK_ERROR: f64 = 0.033;
/// How many times the stated bound (95 %) an estimate of unique users may be off: about four standard deviations, so that a
/// right sketch passes and a wrong one does not.
const BOUND_FACTOR: f64 = 2.0;
/// Sums of doubles depend on the order of addition.
const SUM_ERROR: f64 = 1e-9;

#[derive(Debug, Default)]
struct Tally {
    events: u64,
    users: HashSet<String>,
    values: Vec<f64>,
    /// Nanounits by currency.
    revenue: HashMap<String, i128>,
}

/// Plain counts by event name.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    by_name: BTreeMap<String, Tally>,
}

impl Oracle {
    /// Counts an event that was not seen before.
    pub(super) fn count(&mut self, event: &Event) {
        if !self.by_name.contains_key(&event.event_name) {
            self.by_name.insert(event.event_name.clone(), Tally::default());
        }
        let tally = self.by_name.get_mut(&event.event_name).expect("just made sure of");
        tally.events += 1;
        let user = if event.user_id.is_empty() { &event.anonymous_id } else { &event.user_id };
        if !tally.users.contains(user) {
            tally.users.insert(user.clone());
        }
        let property = event.properties.as_ref().and_then(|properties| properties.fields.get(PROPERTY));
        if let Some(Kind::NumberValue(value)) = property.and_then(|value| value.kind.as_ref()) {
            tally.values.push(*value);
        }
        if let Some(money) = &event.revenue {
            let nanos = i128::from(money.units) * 1_000_000_000 + i128::from(money.nanos);
            *tally.revenue.entry(money.currency_code.clone()).or_default() += nanos;
        }
    }

    /// Events counted.
    pub(super) fn events(&self) -> u64 {
        self.by_name.values().map(|tally| tally.events).sum()
    }

    /// Compares an answer by event name whose measures are events, unique users, the sum of [`PROPERTY`], its
    /// [`QUANTILES`], and revenue in [`CURRENCIES`]. Returns how many figures were compared.
    ///
    /// # Errors
    /// Every figure that is wrong, one a line.
    pub(super) fn check(mut self, answer: &QueryBreakdownResponse) -> Result<usize, String> {
        let mut wrong = Vec::new();
        let mut compared = 0;
        let mut verify = |name: &str, what: &str, holds: bool, expected: String, found: String| {
            compared += 1;
            if !holds {
                wrong.push(format!("{name}: {what} should be {expected}, is {found}"));
            }
        };
        let mut rows = HashMap::new();
        for row in &answer.rows {
            rows.insert(row.group.first().map(figure::value).unwrap_or_default(), &row.figures);
        }
        verify(
            "names",
            "number",
            rows.len() == self.by_name.len(),
            self.by_name.len().to_string(),
            rows.len().to_string(),
        );
        for (name, tally) in &mut self.by_name {
            let Some(figures) =
                rows.get(name).filter(|figures| figures.len() == 3 + QUANTILES.len() + CURRENCIES.len())
            else {
                verify(name, "row", false, "there".into(), "missing or short".into());
                continue;
            };
            let show = |value: f64| value.to_string();
            let (events, users, sum) = (&figures[0], &figures[1], &figures[2]);
            verify(
                name,
                "events",
                events.value == tally.events as f64,
                tally.events.to_string(),
                show(events.value),
            );
            let (true_users, tolerance) =
                (tally.users.len() as f64, (users.upper_bound - users.lower_bound) / 2.0);
            let is_right = match users.exact {
                true => users.value == true_users,
                false => (users.value - true_users).abs() <= tolerance * BOUND_FACTOR,
            };
            verify(
                name,
                "unique users",
                is_right,
                show(true_users),
                format!("{} ± {tolerance}", users.value),
            );
            for (figure, currency) in figures[3 + QUANTILES.len()..].iter().zip(CURRENCIES) {
                let expected = tally.revenue.get(currency).copied().unwrap_or_default();
                let money = figure.money.as_ref();
                let found = money
                    .map_or(0, |money| i128::from(money.units) * 1_000_000_000 + i128::from(money.nanos));
                verify(name, currency, found == expected, expected.to_string(), found.to_string());
            }
            if tally.values.is_empty() {
                continue;
            }
            tally.values.sort_by(f64::total_cmp);
            let true_sum: f64 = tally.values.iter().sum();
            let is_right = (sum.value - true_sum).abs() <= true_sum.abs() * SUM_ERROR;
            verify(name, "sum", is_right, show(true_sum), show(sum.value));
            for (figure, quantile) in figures[3..].iter().zip(QUANTILES) {
                // Equal values share a range of ranks.
                let below = tally.values.partition_point(|value| *value < figure.value) as f64;
                let up_to = tally.values.partition_point(|value| *value <= figure.value) as f64;
                let count = tally.values.len() as f64;
                let is_right =
                    below / count - RANK_ERROR <= quantile && quantile <= up_to / count + RANK_ERROR;
                let exact = tally.values[((count - 1.0) * quantile) as usize];
                verify(name, &format!("p{}", quantile * 100.0), is_right, show(exact), show(figure.value));
            }
        }
        if wrong.is_empty() { Ok(compared) } else { Err(wrong.join("\n")) }
    }
}

#[cfg(test)]
mod tests {
    use prost_types::{Struct, Value};
    use weir_proto::{
        analytics::v1::{BreakdownRow, Figure},
        google::r#type::Money,
    };

    use super::*;

    fn number(kind: Kind) -> Value {
        Value { kind: Some(kind) }
    }

    fn oracle() -> Oracle {
        let mut oracle = Oracle::default();
        for index in 1..=100 {
            oracle.count(&Event {
                event_name: "a".into(),
                user_id: format!("u{}", index % 10),
                properties: Some(Struct {
                    fields: [(PROPERTY.into(), number(Kind::NumberValue(index.into())))].into(),
                }),
                revenue: Some(Money { currency_code: "EUR".into(), units: 1, nanos: 5 }),
                ..Event::default()
            });
        }
        oracle
    }

    fn answer() -> QueryBreakdownResponse {
        let exact = |value: f64| Figure { value, exact: true, ..Figure::default() };
        let money = |units: i64, nanos: i32| Figure {
            money: Some(Money { currency_code: String::new(), units, nanos }),
            ..Figure::default()
        };
        let figures = [100.0, 10.0, 5050.0, 50.0, 95.0, 99.0].map(exact);
        let revenue = [money(0, 0), money(100, 500), money(0, 0)];
        QueryBreakdownResponse {
            rows: vec![BreakdownRow {
                group: vec![number(Kind::StringValue("a".into()))],
                figures: figures.into_iter().chain(revenue).collect(),
                ..BreakdownRow::default()
            }],
            ..QueryBreakdownResponse::default()
        }
    }

    #[test]
    fn right_answers_pass() {
        assert_eq!(oracle().check(&answer()), Ok(10));
    }

    #[test]
    fn each_wrong_figure_is_found() {
        for (index, what) in
            [(0, "events"), (1, "unique users"), (2, "sum"), (3, "p50"), (5, "p99"), (7, "EUR")]
        {
            let mut answer = answer();
            let figure = &mut answer.rows[0].figures[index];
            figure.value -= 9.0;
            figure.money = None;
            let wrong = oracle().check(&answer).unwrap_err();
            assert!(wrong.contains(what), "{what}: {wrong}");
        }
        assert!(oracle().check(&QueryBreakdownResponse::default()).is_err());
    }
}
