//! The standalone gateway: it serves all of Weir at one address, and passes calls on to the services.

mod error;
mod serve;
mod upstream;

pub use error::Error;
pub use serve::serve;
