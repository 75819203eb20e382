//! Sums of what became of source records.

use weir_proto::rollup::v1::Tally;

/// Adds what became of more records.
pub fn add(total: &mut Tally, more: &Tally) {
    // Every field by name, so that a new one is not forgotten.
    let Tally { records, counted, duplicates, dead_lettered, late, unavailable } = *more;
    total.records += records;
    total.counted += counted;
    total.duplicates += duplicates;
    total.dead_lettered += dead_lettered;
    total.late += late;
    total.unavailable += unavailable;
}
