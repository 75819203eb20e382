//! What a method and a path mean; pure.
//!
//! | module | what it is |
//! |---|---|
//! | `template` | path templates, parsed and matched |
//! | `rule` | the bindings of a service, read and checked from its descriptors |
//! | `file` | which answers are files |
//! | `table` | which binding a method and a path mean |

pub(crate) mod file;
pub(crate) mod rule;
pub(crate) mod table;
mod template;
