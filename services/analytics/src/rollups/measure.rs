//! What measures need of cells, and how cells add up to figures.

use weir_proto::{analytics::v1::Figure, google::r#type::Money};
use weir_rollup::{
    Estimate,
    cell::Cell,
    distinct::Union,
    field::Field,
    money::{Amount, Currency, Revenue},
    numeric::Summary,
};

use super::flaw::{Flaw, Flaws};

pub(crate) use weir_query::measure::{Measure, Statistic};

/// Which parts of cells are added up; the others cost nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Needs {
    users: bool,
    sessions: bool,
    revenue: bool,
    /// Numeric fields with their positions in the rollup.
    numerics: Vec<(Field, u32)>,
}

impl Needs {
    /// What these measures need of a rollup with these numeric fields, all of which it has.
    pub(crate) fn of<'a>(measures: impl IntoIterator<Item = &'a Measure>, numerics: &[Field]) -> Self {
        let mut needs = Self::default();
        for measure in measures {
            match measure {
                Measure::Events | Measure::UniqueValues(_) | Measure::Visits => {}
                Measure::UniqueUsers => needs.users = true,
                Measure::Sessions => needs.sessions = true,
                Measure::Revenue(_) => needs.revenue = true,
                Measure::Numeric(field, _) => {
                    let index = numerics.iter().position(|known| known == field);
                    let index = index.and_then(|index| u32::try_from(index).ok());
                    let index = index.expect("the plan chose a rollup with this numeric field");
                    if !needs.numerics.iter().any(|(_, known)| *known == index) {
                        needs.numerics.push((field.clone(), index));
                    }
                }
            }
        }
        needs
    }
}

/// What cells add up to, as far as it is needed.
#[derive(Debug, Clone)]
pub(crate) struct Sum {
    events: u64,
    late: u64,
    /// Events that may belong here or not: they have values that were folded together.
    doubtful: u64,
    /// Whether it is of several values under one name.
    several: bool,
    users: Option<Union>,
    sessions: Option<Union>,
    revenue: Option<Revenue>,
    numerics: Vec<(Field, u32, Summary)>,
}

impl Sum {
    /// Of nothing.
    pub(crate) fn new(needs: &Needs) -> Self {
        let numerics =
            needs.numerics.iter().map(|(field, index)| (field.clone(), *index, Summary::default()));
        Self {
            events: 0,
            late: 0,
            doubtful: 0,
            several: false,
            users: needs.users.then(Union::for_query),
            sessions: needs.sessions.then(Union::for_query),
            revenue: needs.revenue.then(Revenue::default),
            numerics: numerics.collect(),
        }
    }

    /// Adds a cell.
    pub(crate) fn add(&mut self, cell: &Cell) {
        self.events += cell.count;
        self.late += cell.late;
        if let Some(users) = &mut self.users {
            users.add(&cell.users);
        }
        if let Some(sessions) = &mut self.sessions {
            sessions.add(&cell.sessions);
        }
        if let Some(revenue) = &mut self.revenue {
            revenue.merge(&cell.revenue);
        }
        for (_, index, summary) in &mut self.numerics {
            if let Some(more) = cell.numeric(*index) {
                summary.merge(more);
            }
        }
    }

    /// Adds another sum with the same needs.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.events += other.events;
        self.late += other.late;
        self.doubtful += other.doubtful;
        self.several |= other.several;
        if let (Some(mine), Some(theirs)) = (&mut self.users, &other.users) {
            mine.merge(theirs);
        }
        if let (Some(mine), Some(theirs)) = (&mut self.sessions, &other.sessions) {
            mine.merge(theirs);
        }
        if let (Some(mine), Some(theirs)) = (&mut self.revenue, &other.revenue) {
            mine.merge(theirs);
        }
        for ((_, _, mine), (_, _, theirs)) in self.numerics.iter_mut().zip(&other.numerics) {
            mine.merge(theirs);
        }
    }

    /// Notes events of which it is not known whether they belong here.
    pub(crate) fn doubt(&mut self, events: u64) {
        self.doubtful += events;
    }

    /// Notes that it is of several values under one name.
    pub(crate) fn stands_for_several(&mut self) {
        self.several = true;
    }

    /// Late events.
    pub(crate) fn late(&self) -> u64 {
        self.late
    }

    /// Revenue by currency, where amounts in unknown ones can't be told.
    pub(crate) fn amounts(&self) -> impl Iterator<Item = &Amount> {
        let amounts = self.revenue.iter().flat_map(|revenue| revenue.amounts());
        amounts.filter(|amount| amount.currency != Currency::NONE)
    }

    /// Whether amounts of money may be missing.
    pub(crate) fn lacks_currencies(&self) -> bool {
        self.revenue.as_ref().is_some_and(Revenue::overflowed)
    }

    /// The figure of a measure, and in `flaws` what keeps it from being exact, unless it is the values that it is of. Revenue of a
    /// measure that leaves the currency open is in the only one there is.
    pub(crate) fn figure(&self, measure: &Measure, flaws: &Flaws) -> Figure {
        match measure {
            Measure::Events => self.count(Estimate::exact(self.events as f64)),
            Measure::UniqueUsers => self.size(self.users.as_ref(), flaws),
            Measure::Sessions => self.size(self.sessions.as_ref(), flaws),
            Measure::Revenue(currency) => {
                let amount =
                    self.amounts().find(|amount| currency.is_none_or(|code| code == amount.currency));
                let mut estimate = amount.map_or(Estimate::exact(0.0), Amount::estimate);
                flaws.note_if(!estimate.exact, Flaw::GreatSum);
                if self.lacks_currencies() {
                    flaws.note(Flaw::Currencies);
                    let (lower, upper) = (f64::NEG_INFINITY, f64::INFINITY);
                    estimate = Estimate { exact: false, lower, upper, ..estimate };
                }
                let figure = self.amount(Some(estimate));
                let nothing = |code: Currency| Money { currency_code: code.to_string(), units: 0, nanos: 0 };
                let money = amount.map(Amount::to_money).or_else(|| currency.map(nothing));
                Figure { money, ..figure }
            }
            Measure::UniqueValues(_) | Measure::Visits => {
                unreachable!("no plan with rollups is made for what they don't count")
            }
            Measure::Numeric(field, statistic) => {
                let (_, _, summary) = self
                    .numerics
                    .iter()
                    .find(|(known, ..)| known == field)
                    .expect("what measures need is added up");
                let estimate = match statistic {
                    Statistic::Sum => Some(Estimate::exact(summary.sum())),
                    Statistic::Min => summary.min().map(Estimate::exact),
                    Statistic::Max => summary.max().map(Estimate::exact),
                    Statistic::Average => summary.average().map(Estimate::exact),
                    Statistic::Quantile(rank) => summary.quantile(*rank),
                };
                flaws.note_if(estimate.is_some_and(|estimate| !estimate.exact), Flaw::Quantiles);
                self.amount(estimate)
            }
        }
    }

    fn size(&self, set: Option<&Union>, flaws: &Flaws) -> Figure {
        let estimate = set.expect("what measures need is added up").estimate();
        flaws.note_if(!estimate.exact, Flaw::Distinct);
        self.count(estimate)
    }

    /// A number of things, to which each doubtful event can add one.
    fn count(&self, estimate: Estimate) -> Figure {
        let upper = estimate.upper + self.doubtful as f64;
        self.known(Estimate { exact: estimate.exact && self.doubtful == 0, upper, ..estimate })
    }

    /// A number to which a doubtful event can add anything.
    fn amount(&self, estimate: Option<Estimate>) -> Figure {
        let is_sure = self.doubtful == 0;
        match estimate {
            None => Figure { empty: true, exact: is_sure && !self.several, ..Figure::default() },
            Some(estimate) if is_sure => self.known(estimate),
            Some(estimate) => {
                let (lower, upper) = (f64::NEG_INFINITY, f64::INFINITY);
                self.known(Estimate { exact: false, lower, upper, ..estimate })
            }
        }
    }

    fn known(&self, Estimate { value, exact, lower, upper }: Estimate) -> Figure {
        let exact = exact && !self.several;
        Figure { value, exact, lower_bound: lower, upper_bound: upper, ..Figure::default() }
    }
}
