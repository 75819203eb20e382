//! The event store.

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
mod objects;
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
mod writer;

pub use decode::{Decoder, property};
pub use delete_user::Erased;
pub use error::{Error, Result};
pub use hot::{CleanBatch, HotRead, Part};
pub use objects::{Bucket, Created, Location, Object, Objects, Upload};
pub use reader::{HotSource, Missing, Reader, Snapshot};
pub use store::{EventStore, Settings, Store};
pub use writer::{Status, Writer};
