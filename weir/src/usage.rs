//! Errors in how the program was called: exit code 2, as for those that the command line parser finds.

/// What is wrong with the call.
#[derive(Debug)]
pub(crate) struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

impl From<String> for Usage {
    fn from(message: String) -> Self {
        Self(message)
    }
}
