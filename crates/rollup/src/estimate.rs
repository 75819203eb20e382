/// A number, and how good it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// Whether it is exact for what was counted; `lower` and `upper` equal `value` then.
    pub exact: bool,
    /// The true number is at least this with 95 % confidence.
    pub lower: f64,
    /// The true number is at most this with 95 % confidence.
    pub upper: f64,
}

impl Estimate {
    /// A number that is exact.
    pub fn exact(value: f64) -> Estimate {
        Estimate { value, exact: true, lower: value, upper: value }
    }
}
