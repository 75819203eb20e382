//! Which requests rollups can't answer as asked, whatever there is of them.

use weir_proto::analytics::v1::{Formula, Measure, QueryBreakdownRequest, QueryTimeSeriesRequest};

/// What a time series has that only the events tell.
pub(crate) fn of_series(request: &QueryTimeSeriesRequest) -> Option<&'static str> {
    if request.cumulative || request.rolling_buckets > 1 {
        return Some("its points reach over several buckets");
    }
    of(&request.measures, &request.formulas, request.compare_previous)
}

/// What a breakdown has that only the events tell.
pub(crate) fn of_breakdown(request: &QueryBreakdownRequest) -> Option<&'static str> {
    of(&request.measures, &request.formulas, request.compare_previous)
}

fn of(measures: &[Measure], formulas: &[Formula], compare_previous: bool) -> Option<&'static str> {
    if measures.iter().any(|measure| measure.exact) {
        return Some("exact figures are asked for");
    }
    if measures.iter().any(|measure| measure.filter.is_some()) {
        return Some("a measure has a filter of its own");
    }
    if !formulas.is_empty() {
        return Some("it has formulas");
    }
    compare_previous.then_some("it compares with the range before")
}
