//! What keeps the gateway from starting.

/// A schema whose HTTP rules cannot be served, or a standalone gateway that cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The descriptor set does not decode.
    #[error("the file descriptor set does not decode: {0}")]
    Descriptors(#[from] prost_reflect::DescriptorError),
    /// No such service in the descriptors.
    #[error("the descriptors have no service {0}")]
    UnknownService(String),
    /// A `google.api.http` rule that contradicts its RPC.
    #[error("the HTTP rule of {rpc} is wrong: {reason}")]
    Rule {
        /// Full name of the RPC.
        rpc: String,
        /// What is wrong, naming the template or field.
        reason: String,
    },
    /// Two RPCs claim the same requests.
    #[error("{first} and {second} both claim {method} {template}")]
    Collision {
        /// Full name of one RPC.
        first: String,
        /// Full name of the other.
        second: String,
        /// The HTTP method.
        method: http::Method,
        /// The second's path template.
        template: String,
    },
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
