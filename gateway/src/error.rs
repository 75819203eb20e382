//! What keeps the gateway from starting.

/// A standalone gateway that cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The schema.
    #[error(transparent)]
    Schema(#[from] weir_transcode::Error),
    /// The configured address of an upstream service is no URI.
    #[error("`{key}` = {url:?} is not a URL: {source}; expected such as \"http://127.0.0.1:50051\"")]
    Upstream {
        /// Key of the configuration.
        key: &'static str,
        /// Its value.
        url: String,
        /// What is wrong with it.
        source: tonic::transport::Error,
    },
    /// The ports could not be served.
    #[error(transparent)]
    Server(#[from] weir_runtime::server::Error),
}
