//! The commands: one module each, with its arguments and what it does.

pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod import;
pub(crate) mod query;
pub(crate) mod send;
mod settled;
pub(crate) mod simulate;
pub(crate) mod status;
pub(crate) mod store;
pub(crate) mod tail;
pub(crate) mod up;

use import::rejection;
