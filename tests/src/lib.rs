//! What the whole-system tests stand on: a real Kafka, real `weir` processes, and data with known answers.
//!
//! The tests themselves are in `tests/system/`, modules named for behaviours, one test binary. `data/` holds a real
//! clickstream with exact answers that were computed by other means (`answers.py`).

pub mod kafka;
pub mod process;
pub mod system;
