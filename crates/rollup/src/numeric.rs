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

/// Equal when they hold the same exactly, and the quantile sketches have the same items.
impl PartialEq for Summary {
    fn eq(&self, other: &Summary) -> bool {
        (self.sum, self.rest) == (other.sum, other.rest)
            && self.sketch.serialize() == other.sketch.serialize()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64]) -> Summary {
        let mut summary = Summary::default();
        values.iter().for_each(|value| assert!(summary.add(*value)));
        summary
    }

    fn merged(a: &Summary, b: &Summary) -> Summary {
        let mut sum = a.clone();
        sum.merge(b);
        sum
    }

    #[test]
    fn sums_do_not_lose_small_values_among_great_ones() {
        let mut values = vec![1e16];
        values.extend([1.0; 1000]);
        values.push(-1e16);
        assert_eq!(of(&values).sum(), 1000.0);
        let (great, small) = values.split_at(1);
        assert_eq!(merged(&of(small), &of(great)).sum(), 1000.0);
        assert_eq!(of(&[0.1; 10]).sum(), 1.0);
    }

    #[test]
    fn what_is_not_a_finite_number_is_left_out() {
        let mut summary = of(&[1.0]);
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(!summary.add(value));
        }
        assert_eq!(summary, of(&[1.0]));
        assert_eq!(of(&[f64::MAX, f64::MAX]).sum(), f64::INFINITY);
    }

    #[test]
    fn nothing_has_no_figures() {
        let none = Summary::default();
        assert_eq!((none.min(), none.max(), none.average(), none.quantile(0.5)), (None, None, None, None));
        assert_eq!(none.to_proto(0), None);
    }

    #[test]
    fn quantiles_of_few_values_are_exact() {
        let summary = of(&[4.0, 1.0, 3.0, 2.0]);
        for (rank, value) in [(0.0, 1.0), (0.25, 1.0), (0.26, 2.0), (0.5, 2.0), (0.75, 3.0), (1.0, 4.0)] {
            assert_eq!(summary.quantile(rank), Some(Estimate::exact(value)), "{rank}");
        }
    }

    #[test]
    fn quantile_bounds_hold_however_the_values_came_together() {
        // 40 parts of values in disorder: 7919 is prime, so that all of 0..100000 occur once.
        let values: Vec<f64> = (0..100_000u64).map(|n| (n * 7_919 % 100_000) as f64).collect();
        let whole = values.chunks(2_500).map(of).reduce(|a, b| merged(&a, &b)).unwrap();
        assert_eq!((whole.count(), whole.sum()), (100_000, 4_999_950_000.0));
        let quantiles = (1..100u32).map(|percent| f64::from(percent) / 100.0);
        let held = quantiles.filter(|rank| {
            let estimate = whole.quantile(*rank).unwrap();
            let truth = (rank * 100_000.0).ceil() - 1.0;
            assert!(!estimate.exact && estimate.lower <= estimate.value && estimate.value <= estimate.upper);
            assert!((estimate.value - truth).abs() < 4_000.0, "{rank}: {estimate:?}");
            estimate.lower <= truth && truth <= estimate.upper
        });
        // The bounds have 99 % confidence; neighbouring quantiles share their error.
        let held = held.count();
        assert!(held >= 85, "{held} of 99");
    }

    #[test]
    fn foreign_bytes_are_refused() {
        let good = of(&[1.0, 2.0]).to_proto(0).unwrap();
        let k100 = {
            let mut sketch = Sketch::new(100).unwrap();
            sketch.update(KllFloat::<f64>::new(1.0).unwrap());
            sketch.serialize()
        };
        for wire in [
            proto::NumericSummary { kll: vec![1, 2], ..good.clone() },
            proto::NumericSummary { kll: k100, count: 1, max: 1.0, ..good.clone() },
            proto::NumericSummary { count: 3, ..good.clone() },
            proto::NumericSummary { min: 0.0, ..good.clone() },
        ] {
            assert!(matches!(Summary::from_proto(&wire), Err(Error::Malformed(_))), "{wire:?}");
        }
    }

    fn any_values() -> impl Strategy<Value = Vec<f64>> {
        proptest::collection::vec(-1e9..1e9f64, 0..400)
    }

    proptest! {
        // Which items a full quantile sketch keeps is random: what it answers is bounded, not equal.
        #[test]
        fn merging_is_associative_commutative_and_has_an_identity(
            a in any_values(), b in any_values(), c in any_values(),
        ) {
            let (sa, sb, sc) = (of(&a), of(&b), of(&c));
            let all: Vec<f64> = a.iter().chain(&b).chain(&c).copied().collect();
            let left = merged(&merged(&sa, &sb), &sc);
            for other in [merged(&sa, &merged(&sb, &sc)), merged(&merged(&sc, &sa), &sb), of(&all)] {
                prop_assert_eq!(
                    (left.count(), left.sum(), left.min(), left.max()),
                    (other.count(), other.sum(), other.min(), other.max())
                );
            }
            prop_assert_eq!(merged(&sa, &Summary::default()), sa.clone());
            prop_assert_eq!(merged(&Summary::default(), &sa).quantile(0.5), sa.quantile(0.5));
            let mut sorted = all.clone();
            sorted.sort_by(f64::total_cmp);
            prop_assert_eq!(left.count() as usize, all.len());
            if let Some(median) = left.quantile(0.5) {
                let below = sorted.partition_point(|value| *value <= median.value) as f64 / sorted.len() as f64;
                prop_assert!((below - 0.5).abs() < 0.06, "rank {} for the median", below);
            }
        }

        #[test]
        fn the_wire_form_holds_everything(values in any_values()) {
            let summary = of(&values);
            match summary.to_proto(3) {
                Some(wire) => prop_assert_eq!(Summary::from_proto(&wire), Ok(summary)),
                None => prop_assert!(values.is_empty()),
            }
        }
    }
}
