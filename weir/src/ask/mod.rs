//! Questions as people type them, put into the schema's words. Pure: the time is an argument.

pub(crate) mod filter;
pub(crate) mod measure;
pub(crate) mod range;
pub(crate) mod selector;
