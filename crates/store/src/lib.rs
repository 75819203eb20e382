//! The event store: every event of a partition's log, once, as rows of Parquet files that other tools read, too.
//!
//! Its owner hands over batches of clean events with the offsets that they stand for. They are seen at once, from memory, and
//! written to segments within a minute; a chain of manifests says which segments count. Readers take both as of one moment, as
//! tables for DataFusion.
//!
//! It does not decide what is a duplicate or late, nor answer questions, and it keeps no order between partitions. Nobody is locked out
//! either: whoever loses a race for a manifest goes on after the winner.
//!
//! In reading order:
//! - `store` opens one, and has the trait that others may implement; `objects` is the folder or bucket below it
//! - events as rows: `schema` the columns, `encode` and `decode`, `texts` and `map` two kinds of columns, `chosen` and
//!   `shape` which properties have columns of their own
//! - from a batch to a segment: `writer`, `hot` what is in memory, `segment`, `manifest`
//! - behind the writer: `upkeep` calls `compact`, `retain` and `gc`; `passed_over` what is not compacted; `delete_user`
//! - from a question to rows: `reader`, `damage` when that fails, `view` one form of all shapes, `within` values in structs,
//!   `table`, `numbered` tests of texts by their numbers
//! - `width` how much memory rows take, `error` and `clock`

mod chosen;
mod clock;
mod compact;
mod damage;
mod decode;
mod delete_user;
pub mod encode;
mod error;
mod gc;
mod hot;
pub mod manifest;
mod map;
mod numbered;
mod objects;
mod passed_over;
mod reader;
mod retain;
pub mod schema;
mod segment;
pub mod shape;
mod store;
pub mod table;
mod texts;
mod upkeep;
pub mod view;
pub mod width;
mod within;
mod writer;

pub use chosen::json;
pub use compact::Compacted;
pub use decode::{Decoder, property};
pub use delete_user::Erased;
pub use error::{Error, Result};
pub use hot::{CleanBatch, HotRead, Part};
pub use objects::{Bucket, Created, Location, Object, Objects, Upload};
pub use reader::{HotSource, Missing, Reader, Snapshot};
pub use store::{EventStore, Settings, Store};
pub use writer::{Status, Writer};
