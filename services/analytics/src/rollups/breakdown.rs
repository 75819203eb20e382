//! Measures by the values of fields.

use std::ops::Range;

use weir_proto::{
    analytics::v1::{self as pb, Figure},
    validate::Path,
};
use weir_query::series::Question as Asked;
use weir_rollup::definition::Definition;

use super::{
    Provenance,
    flaw::Flaws,
    greatest_first, group_values,
    measure::{Measure, Needs, Sum},
    rollup::{self, Setting},
    table::{Patience, Table},
};
use crate::{
    error::Error,
    materialise::{PartRequest, View},
    question::Measures,
};

/// How it is answered.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(super) parts: Vec<PartRequest>,
    question: Measures,
    measures: Vec<Measure>,
    pub(super) range: Range<i64>,
    definition: Definition,
    needs: Needs,
}

impl Plan {
    pub(super) fn of(question: &Measures, setting: &Setting<'_>) -> Result<Self, Error> {
        let measures = question.measures();
        let definition = rollup::covering(question, &measures, setting)?;
        let range = question.range.resolve(setting.now, &setting.whole, 1);
        let spans = rollup::spans(range.clone(), 0, setting)?;
        Ok(Self {
            parts: vec![PartRequest { definition: definition.id(), spans }],
            range,
            needs: Needs::of(&measures, &definition.numerics),
            measures,
            definition,
            question: question.clone(),
        })
    }

    pub(super) fn answer(
        &self,
        views: &[View],
        flaws: &Flaws,
        patience: Patience<'_>,
    ) -> Result<pb::QueryBreakdownResponse, Error> {
        let Asked { filter, by: group_by, max_series: max_rows, .. } = &self.question.asked;
        let table = Table::gather(views, 0, &self.definition, filter, group_by, flaws, patience)?;
        let total = table.total(&self.needs, patience)?;
        let measures = settle_currencies(&self.measures, &total)?;
        let figures = |sum: &Sum| -> Vec<Figure> {
            measures.iter().map(|measure| sum.figure(measure, flaws)).collect()
        };

        let first = Needs::of(&measures[..1], &self.definition.numerics);
        let groups = greatest_first(&table, |group| {
            Ok(table.group_total(group, &first, patience)?.figure(&measures[0], flaws))
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
            reads: self.range.clone(),
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
