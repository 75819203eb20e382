//! Questions about the events themselves: refused in words until the engine that answers them is connected.

use weir_proto::analytics::v1::{Formula, Measure, QueryBreakdownRequest, QueryTimeSeriesRequest};

use crate::error::Error;

/// The answer to an RPC that needs events.
pub(crate) fn unanswered<T>(what: &'static str) -> Result<T, Error> {
    Err(Error::NeedsEvents(what))
}

/// Refuses what rollups can't answer, rather than leaving it out of the answer.
pub(crate) fn check_time_series(request: &QueryTimeSeriesRequest) -> Result<(), Error> {
    if request.cumulative || request.rolling_buckets > 1 {
        return unanswered("a cumulative or rolling series");
    }
    check(&request.measures, &request.formulas, request.compare_previous)
}

/// Likewise.
pub(crate) fn check_breakdown(request: &QueryBreakdownRequest) -> Result<(), Error> {
    check(&request.measures, &request.formulas, request.compare_previous)
}

fn check(measures: &[Measure], formulas: &[Formula], compare_previous: bool) -> Result<(), Error> {
    if measures.iter().any(|measure| measure.exact || measure.filter.is_some()) {
        return unanswered("an exact or filtered measure");
    }
    if !formulas.is_empty() {
        return unanswered("a formula");
    }
    if compare_previous {
        return unanswered("a comparison with the range before");
    }
    Ok(())
}
