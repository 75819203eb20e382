//! Where a file is in the answers of an RPC: those that are, or have as their body, a `google.api.HttpBody`.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

/// The message that means raw bytes.
const HTTP_BODY: &str = "google.api.HttpBody";

/// Where a file is in an answer.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) output: MessageDescriptor,
    /// The field; the answer itself when absent.
    pub(crate) field: Option<FieldDescriptor>,
}

/// Where the file is in the answers of an RPC, if they are files.
pub(crate) fn place(output: &MessageDescriptor, response_body: Option<&FieldDescriptor>) -> Option<Place> {
    let is_file = match response_body {
        None => output.full_name() == HTTP_BODY,
        Some(field) => {
            !field.is_list()
                && matches!(field.kind(), Kind::Message(message) if message.full_name() == HTTP_BODY)
        }
    };
    is_file.then(|| Place { output: output.clone(), field: response_body.cloned() })
}
