//! What the whole-system tests stand on: a real Kafka, real `weir` processes, and data with known answers.
//!
//! The tests themselves are in `tests/system/`, modules named for behaviours, and in `tests/crash/`, which cuts the [`power`]. `data/` holds a real
//! clickstream with exact answers that were computed by other means (`answers.py`).

pub mod allocations;
pub mod kafka;
pub mod power;
pub mod process;
pub mod python;
pub mod s3;
pub mod system;

use std::{env, path::PathBuf};

use anyhow::{Context, Result};

/// Where what is fetched or built once is kept for all clones: `$WEIR_CACHE`, else `$XDG_CACHE_HOME/weir`, else `~/.cache/weir`.
pub(crate) fn cache() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("WEIR_CACHE") {
        return Ok(dir.into());
    }
    let base = match env::var_os("XDG_CACHE_HOME") {
        Some(dir) => PathBuf::from(dir),
        None => {
            PathBuf::from(env::var_os("HOME").context("neither WEIR_CACHE nor HOME is set")?).join(".cache")
        }
    };
    Ok(base.join("weir"))
}
