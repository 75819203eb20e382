//! What keeps an answer from rollups from being exact, although the events may tell.

use std::{cell::RefCell, collections::BTreeSet};

/// A reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Flaw {
    /// A value that the question filters or groups by was cut.
    CutValues,
    /// Values that it filters or groups by were folded together.
    FoldedValues,
    /// There were more currencies than are told apart.
    Currencies,
    /// A sum is beyond what its type holds.
    GreatSum,
    /// Users or sessions are estimated.
    Distinct,
    /// Quantiles are estimated.
    Quantiles,
    /// Events before the rollup was configured are missing.
    Since,
}

impl Flaw {
    /// Whether the events have an answer without it.
    pub(crate) fn is_mended_by_events(self) -> bool {
        match self {
            Self::CutValues
            | Self::FoldedValues
            | Self::Currencies
            | Self::Distinct
            | Self::Quantiles
            | Self::Since => true,
            Self::GreatSum => false,
        }
    }

    /// Says so to people.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::CutValues => "the rollup cuts values at 200 bytes",
            Self::FoldedValues => {
                "a day has more different values than the rollup tells apart ([rollups] max_values_per_dimension)"
            }
            Self::Currencies => "there is revenue in more currencies than the rollup tells apart",
            Self::GreatSum => "a sum is beyond the greatest amount",
            Self::Distinct => "the rollup estimates so many users or sessions",
            Self::Quantiles => "the rollup estimates quantiles of so many values",
            Self::Since => "it has counted only since it was configured",
        }
    }
}

/// The flaws that an answer turns out to have while it is made.
#[derive(Debug, Default)]
pub(crate) struct Flaws(RefCell<BTreeSet<Flaw>>);

impl Flaws {
    /// Notes one.
    pub(crate) fn note(&self, flaw: Flaw) {
        self.0.borrow_mut().insert(flaw);
    }

    /// Notes one if that is so.
    pub(crate) fn note_if(&self, is_so: bool, flaw: Flaw) {
        if is_so {
            self.note(flaw);
        }
    }

    /// All that were noted.
    pub(crate) fn into_inner(self) -> BTreeSet<Flaw> {
        self.0.into_inner()
    }
}
