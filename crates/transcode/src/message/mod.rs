//! JSON and texts into messages, in their wire format; pure.
//!
//! | module | what it is |
//! |---|---|
//! | `json` | a JSON text into a message, with errors that name line and field |
//! | `wire` | values into the wire format as they are read |
//! | `scalar` | one value of a field from a text |
//! | `exact` | whole numbers beyond 64 bits stay as they are |

pub(crate) mod exact;
pub(crate) mod json;
pub(crate) mod scalar;
mod wire;

use std::borrow::Cow;

/// Bytes of a caller's text that an error repeats.
const MAX_REPEATED: usize = 200;

/// As much of a caller's text as an error repeats.
pub(crate) fn shortened(text: &str) -> Cow<'_, str> {
    match text.len() {
        ..=MAX_REPEATED => Cow::Borrowed(text),
        _ => Cow::Owned(format!("{}…", &text[..text.floor_char_boundary(MAX_REPEATED)])),
    }
}
