//! Measures by the values of fields.

use std::ops::Range;

use weir_proto::{
    analytics::v1::{self as pb, Figure},
    validate::{Path, Validate as _, Violations},
};
use weir_query::{fields, filter::Filter};
use weir_rollup::{definition::Definition, field::Field};

use super::{
    Provenance, greatest_first, group_values,
    measure::{Measure, Needs, Sum},
    range::TimeRange,
    rollup::{self, Setting},
    table::{Patience, Table},
};
use crate::{
    error::Error,
    materialise::{PartRequest, View},
};

/// Rows when the request says nothing.
const DEFAULT_ROWS: usize = 100;

/// The question.
#[derive(Debug, Clone)]
pub(crate) struct Breakdown {
    pub(super) range: TimeRange,
    group_by: Vec<Field>,
    measures: Vec<Measure>,
    filter: Filter,
    max_rows: usize,
}

/// How it is answered.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(super) parts: Vec<PartRequest>,
    question: Breakdown,
    range: Range<i64>,
    definition: Definition,
    needs: Needs,
}

impl Breakdown {
    /// Reads a request.
    pub(crate) fn parse(request: &pb::QueryBreakdownRequest) -> Result<Self, Violations> {
        request.validate()?;
        let (at, mut found) = (Path::ROOT, Violations::default());
        let question = Self {
            range: TimeRange::parse(request.time_range.as_ref(), &at.field("time_range"), &mut found),
            group_by: fields::parse_all(&request.group_by, &at.field("group_by"), &mut found),
            measures: Measure::parse_all(&request.measures, &at.field("measures"), &mut found),
            filter: Filter::parse(request.filter.as_ref(), &at.field("filter"), &mut found)
                .with_event_names(&request.event_names),
            max_rows: if request.max_rows == 0 { DEFAULT_ROWS } else { request.max_rows as usize },
        };
        found.into_result()?;
        Ok(question)
    }

    pub(super) fn plan(&self, setting: &Setting<'_>) -> Result<Plan, Error> {
        let dimensions = self.group_by.iter().chain(self.filter.fields()).cloned().collect();
        let definition = rollup::choose(setting.catalog, &dimensions, &self.measures)?.clone();
        let range = self.range.resolve(setting.now, &setting.whole, 1);
        let spans = rollup::spans(range.clone(), 0, setting)?;
        Ok(Plan {
            parts: vec![PartRequest { definition: definition.id(), spans }],
            range,
            needs: Needs::of(&self.measures, &definition.numerics),
            definition,
            question: Self { max_rows: self.max_rows.min(setting.max_rows), ..self.clone() },
        })
    }
}

impl Plan {
    pub(super) fn answer(
        &self,
        views: &[View],
        patience: Patience<'_>,
    ) -> Result<pb::QueryBreakdownResponse, Error> {
        let Breakdown { group_by, measures, filter, max_rows, .. } = &self.question;
        let table = Table::gather(views, 0, &self.definition, filter, group_by, patience)?;
        let total = table.total(&self.needs, patience)?;
        let measures = settle_currencies(measures, &total)?;
        let figures =
            |sum: &Sum| -> Vec<Figure> { measures.iter().map(|measure| sum.figure(measure)).collect() };

        let first = Needs::of(&measures[..1], &self.definition.numerics);
        let groups = greatest_first(&table, |group| {
            Ok(table.group_total(group, &first, patience)?.figure(&measures[0]))
        })?;
        let rows: Result<Vec<_>, Error> = groups
            .iter()
            .take(*max_rows)
            .map(|group| {
                let sum = table.group_total(*group, &self.needs, patience)?;
                let (group, other) = group_values(table.values(*group));
                Ok(pb::BreakdownRow { group, other, figures: figures(&sum), ..Default::default() })
            })
            .collect();
        let late = total.late();
        let provenance = Provenance {
            range: &self.range,
            rollup: &self.definition.name,
            part: 0,
            late,
            rows_read: table.rows_read(),
        };
        Ok(pb::QueryBreakdownResponse {
            rows: rows?,
            omitted_rows: groups.len().saturating_sub(*max_rows) as u64,
            totals: figures(&total),
            info: Some(provenance.info(views)),
            ..Default::default()
        })
    }
}

/// Fills in the currency where a measure leaves it open, or asks which is meant.
pub(super) fn settle_currencies(measures: &[Measure], total: &Sum) -> Result<Vec<Measure>, Error> {
    let currencies: Vec<_> = total.amounts().map(|amount| amount.currency).collect();
    let root = Path::ROOT;
    let at = root.field("measures");
    let settle = |(index, measure): (usize, &Measure)| match (measure, currencies.as_slice()) {
        (Measure::Revenue(None), [only]) => Ok(Measure::Revenue(Some(*only))),
        (Measure::Revenue(None), [_, _, ..]) => {
            let codes: Vec<_> = currencies.iter().map(|currency| currency.as_str()).collect();
            let description = format!("must be given: there is revenue in {}", codes.join(", "));
            Err(Error::invalid(&at.index(index).field("currency"), description))
        }
        (other, _) => Ok(other.clone()),
    };
    measures.iter().enumerate().map(settle).collect()
}
