//! Pure aggregation: definitions, mergeable cells, micro-batches and the claim/accept machine.
