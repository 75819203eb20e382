//! The Python of the tests, with the packages of `tests/python/requirements.txt`. Included by the tests of several crates, so it
//! needs the standard library only.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// Runs Python: that of `WEIR_PYTHON`, else the one that `make setup` has made in `WEIR_CACHE`.
pub(crate) fn python() -> Command {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = || set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let cache = || set("WEIR_CACHE").or_else(|| Some(caches()?.join("weir")));
    let found = set("WEIR_PYTHON").or_else(|| Some(cache()?.join("tools/python/bin/python")));
    let python = found.filter(|python| python.exists()).unwrap_or_else(|| {
        panic!("there is no Python with the packages of tests/python/requirements.txt: run `make setup`")
    });
    let mut command = Command::new(python);
    // The source tree stays as it is.
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONUTF8", "1");
    command
}

/// A file or folder of `tests/python`.
pub(crate) fn script(name: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = file.ancestors().find(|folder| folder.join("Cargo.lock").exists());
    root.expect("a crate lies in the workspace").join("tests/python").join(name)
}
