//! What keeps services from having an HTTP form.

/// A schema whose HTTP rules cannot be served.
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
}
