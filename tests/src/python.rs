//! Python with the packages of `tests/python/requirements.txt`: other engines for the same questions, an S3-compatible server.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};

/// A command that runs one of the scripts in `tests/python`.
///
/// # Errors
/// When the interpreter is not there.
pub fn script(name: &str) -> Result<Command> {
    let interpreter = interpreter()?;
    ensure!(
        interpreter.exists(),
        "there is no {}: run `make setup`, which installs Python and the packages of tests/python/requirements.txt",
        interpreter.display()
    );
    let mut command = Command::new(interpreter);
    // The source tree stays as it is.
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONUTF8", "1");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name));
    Ok(command)
}

/// The one that `make test` names in `WEIR_PYTHON`, else the one in `$WEIR_CACHE`, `$XDG_CACHE_HOME/weir` or `~/.cache/weir`.
fn interpreter() -> Result<PathBuf> {
    match env::var_os("WEIR_PYTHON") {
        Some(named) => Ok(named.into()),
        None => Ok(crate::cache()?.join("tools/python/bin/python")),
    }
}
