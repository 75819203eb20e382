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

    /// Late events.
    pub(crate) fn late(&self) -> u64 {
        self.late
    }

    /// Revenue by currency, where amounts in unknown ones can't be told.
    pub(crate) fn amounts(&self) -> impl Iterator<Item = &Amount> {
        let amounts = self.revenue.iter().flat_map(|revenue| revenue.amounts());
        amounts.filter(|amount| amount.currency != Currency::NONE)
    }

    /// The figure of a measure. Revenue of a measure that leaves the currency open is in the only one there is.
    pub(crate) fn figure(&self, measure: &Measure) -> Figure {
        match measure {
            Measure::Events => self.count(Estimate::exact(self.events as f64)),
            Measure::UniqueUsers => self.count(size(self.users.as_ref())),
            Measure::Sessions => self.count(size(self.sessions.as_ref())),
            Measure::Revenue(currency) => {
                let amount =
                    self.amounts().find(|amount| currency.is_none_or(|code| code == amount.currency));
                let figure = self.amount(Some(Estimate::exact(amount.map_or(0.0, Amount::to_f64))));
                let nothing = |code: Currency| Money { currency_code: code.to_string(), units: 0, nanos: 0 };
                let money = amount.map_or_else(|| currency.map(nothing), Amount::to_money);
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
                self.amount(match statistic {
                    Statistic::Sum => Some(Estimate::exact(summary.sum())),
                    Statistic::Min => summary.min().map(Estimate::exact),
                    Statistic::Max => summary.max().map(Estimate::exact),
                    Statistic::Average => summary.average().map(Estimate::exact),
                    Statistic::Quantile(rank) => summary.quantile(*rank),
                })
            }
        }
    }

    /// A number of things, to which each doubtful event can add one.
    fn count(&self, estimate: Estimate) -> Figure {
        let Estimate { value, exact, lower, upper } = estimate;
        if exact && self.doubtful == 0 {
            return Figure { value, exact: true, ..Figure::default() };
        }
        let upper_bound = upper + self.doubtful as f64;
        Figure { value, exact: false, lower_bound: lower, upper_bound, ..Figure::default() }
    }

    /// A number to which a doubtful event can add anything.
    fn amount(&self, estimate: Option<Estimate>) -> Figure {
        let Some(Estimate { value, exact, lower, upper }) = estimate else {
            return Figure { empty: true, exact: self.doubtful == 0, ..Figure::default() };
        };
        if self.doubtful > 0 {
            let (lower_bound, upper_bound) = (f64::NEG_INFINITY, f64::INFINITY);
            return Figure { value, exact: false, lower_bound, upper_bound, ..Figure::default() };
        }
        if exact {
            return Figure { value, exact: true, ..Figure::default() };
        }
        Figure { value, exact: false, lower_bound: lower, upper_bound: upper, ..Figure::default() }
    }
}

fn size(set: Option<&Union>) -> Estimate {
    set.expect("what measures need is added up").estimate()
}
