//! Summary of the values of one numeric field: count, sum, extremes and a quantile sketch.

use datasketches::{
    common::SearchCriteria,
    kll::{KllFloat, KllSketch},
};
use weir_proto::rollup::v1 as proto;

use crate::{Error, Estimate};

/// DataSketches' default: ranks are right within 1.33 % (single-sided, 99 % confidence).
const K: u16 = 200;

type Sketch = KllSketch<KllFloat<f64>>;

/// Mergeable summary of finite numbers.
///
/// Count, extremes and sum are exact (the sum to the last bit in practice: it carries 106 bits, so that the order of merging
/// does not show). Quantiles are exact while there are at most about 200 values.
#[derive(Debug, Clone)]
pub struct Summary {
    sum: f64,
    /// What `sum` lacks: the exact sum is `sum + rest`, |rest| at most half a unit in the last place of `sum`.
    rest: f64,
    sketch: Sketch,
}

impl Default for Summary {
    fn default() -> Summary {
        Summary { sum: 0.0, rest: 0.0, sketch: Sketch::new(K).expect("200 is within 8 to 65535") }
    }
}

impl Summary {
    /// Adds a value. Returns whether it was: infinities and NaN have no place in a sum and are left out.
    #[inline]
    pub fn add(&mut self, value: f64) -> bool {
        if !value.is_finite() {
            return false;
        }
        let Ok(item) = KllFloat::<f64>::new(value) else { return false };
        self.sketch.update(item);
        self.add_to_sum(value, 0.0);
        true
    }

    /// Adds all values of another summary.
    pub fn merge(&mut self, other: &Summary) {
        self.sketch
            .merge(&other.sketch)
            .expect("fewer than 2^64 values, all sketches made with the same parameters");
        self.add_to_sum(other.sum, other.rest);
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.sketch.n()
    }

    /// Their sum. Infinite when it is beyond what a double can hold.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// Least value.
    pub fn min(&self) -> Option<f64> {
        self.sketch.min_item().map(|item| item.into_inner())
    }

    /// Greatest value.
    pub fn max(&self) -> Option<f64> {
        self.sketch.max_item().map(|item| item.into_inner())
    }

    /// Their mean.
    pub fn average(&self) -> Option<f64> {
        (self.count() > 0).then(|| self.sum / self.count() as f64)
    }

    /// The least value such that at least the fraction `rank` (0 to 1, clamped) of all values is not greater: SQL's
    /// `percentile_disc`. The bounds are the values at the ranks that the sketch's rank error reaches. `None` when there
    /// are no values.
    pub fn quantile(&self, rank: f64) -> Option<Estimate> {
        let rank = if rank.is_nan() { 0.5 } else { rank.clamp(0.0, 1.0) };
        let view = self.sketch.sorted_view();
        let at = |rank: f64| {
            let found = view.quantile(rank.clamp(0.0, 1.0), SearchCriteria::Inclusive);
            Some(found.expect("the rank is clamped to 0 to 1")?.into_inner())
        };
        let value = at(rank)?;
        if !self.sketch.is_estimation_mode() || rank == 0.0 || rank == 1.0 {
            return Some(Estimate::exact(value));
        }
        let error = self.sketch.normalized_rank_error();
        Some(Estimate { value, exact: false, lower: at(rank - error)?, upper: at(rank + error)? })
    }

    /// The wire form, for the field at this position in its definition; `None` when there are no values.
    pub fn to_proto(&self, index: u32) -> Option<proto::NumericSummary> {
        Some(proto::NumericSummary {
            index,
            count: self.count(),
            sum: self.sum,
            sum_rest: self.rest,
            min: self.min()?,
            max: self.max()?,
            kll: self.sketch.serialize(),
        })
    }

    /// From the wire form.
    ///
    /// # Errors
    /// [`Error::Malformed`] for bytes that are no KLL sketch of doubles with k = 200, or that contradict the other fields.
    pub fn from_proto(wire: &proto::NumericSummary) -> Result<Summary, Error> {
        let malformed = |why: String| Error::Malformed(format!("numeric summary: {why}"));
        let sketch = Sketch::deserialize(&wire.kll).map_err(|error| malformed(error.to_string()))?;
        if sketch.k() != K {
            return Err(malformed(format!("quantile sketch with k = {} instead of {K}", sketch.k())));
        }
        let summary = Summary { sum: wire.sum, rest: wire.sum_rest, sketch };
        if summary.count() != wire.count || summary.min() != Some(wire.min) || summary.max() != Some(wire.max)
        {
            return Err(malformed("count and extremes contradict the quantile sketch".to_owned()));
        }
        Ok(summary)
    }

    /// Double-double addition: TwoSum (Knuth, The Art of Computer Programming, vol. 2, 4.2.2, theorem B) of the leading and
    /// of the trailing parts.
    #[inline]
    fn add_to_sum(&mut self, value: f64, value_rest: f64) {
        let (high, low) = two_sum(self.sum, value);
        let (mid, tail) = two_sum(self.rest, value_rest);
        let (high, low) = two_sum(high, low + mid);
        let (sum, rest) = two_sum(high, low + tail);
        // Beyond the range of doubles the rests turn to NaN: only the infinite sum is left to tell.
        (self.sum, self.rest) = if sum.is_finite() { (sum, rest) } else { (self.sum + value, 0.0) };
    }
}

/// The rounded sum, and exactly what rounding lost.
#[inline]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}
