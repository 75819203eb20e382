//! Cost of an event.
fn main() {}
