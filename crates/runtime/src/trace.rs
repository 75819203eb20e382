//! The W3C trace context: which request a piece of work belongs to, from the client through the log to the query.

use std::{fmt, str::FromStr};

/// The HTTP header, gRPC metadata key and Kafka header.
pub const TRACEPARENT: &str = "traceparent";

/// One span's place in a trace (<https://www.w3.org/TR/trace-context/#traceparent-header>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    sampled: bool,
}

/// The header is not a valid `traceparent`. The standard asks to go on with a new trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a W3C traceparent")]
pub struct Malformed;

impl TraceContext {
    /// The root of a new trace.
    pub fn root() -> Self {
        Self { trace_id: random_nonzero(), span_id: random_nonzero() as u64 | 1, sampled: true }
    }

    /// A new span within the same trace.
    pub fn child(self) -> Self {
        Self { span_id: random_nonzero() as u64 | 1, ..self }
    }

    /// The trace that all spans of one request share: 16 bytes, in logs as 32 hex digits.
    pub fn trace_id(self) -> u128 {
        self.trace_id
    }

    /// The trace id in hex, as the `x-request-id` of an answer.
    pub fn request_id(self) -> http::HeaderValue {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; 32];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.trace_id.to_be_bytes()) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        http::HeaderValue::from_bytes(&hex).expect("hex digits are visible ASCII")
    }

    /// This span.
    pub fn span_id(self) -> u64 {
        self.span_id
    }

    /// Whether the caller records this trace.
    pub fn is_sampled(self) -> bool {
        self.sampled
    }
}

/// 122 random bits and the version bits of a UUID, hence never 0.
fn random_nonzero() -> u128 {
    uuid::Uuid::new_v4().as_u128()
}

impl FromStr for TraceContext {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let lower_hex = |s: &str| s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let field = |range: std::ops::Range<usize>| text.get(range).filter(|s| lower_hex(s)).ok_or(Malformed);
        let (version, trace_id, span_id, flags) =
            (field(0..2)?, field(3..35)?, field(36..52)?, field(53..55)?);
        let dashes = [2, 35, 52].iter().all(|&at| text.as_bytes()[at] == b'-');
        // Later versions may append fields; version 00 has exactly these, and ff is forbidden.
        let length =
            if version == "00" { text.len() == 55 } else { text.len() == 55 || text.as_bytes()[55] == b'-' };
        if !dashes || !length || version == "ff" {
            return Err(Malformed);
        }
        let trace_id = u128::from_str_radix(trace_id, 16).map_err(|_| Malformed)?;
        let span_id = u64::from_str_radix(span_id, 16).map_err(|_| Malformed)?;
        let flags = u8::from_str_radix(flags, 16).map_err(|_| Malformed)?;
        if trace_id == 0 || span_id == 0 {
            return Err(Malformed);
        }
        Ok(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_survives_the_header() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context: TraceContext = text.parse().unwrap();
        assert_eq!(context.to_string(), text);
        assert!(context.is_sampled());
        let child = context.child();
        assert_eq!(child.trace_id(), context.trace_id());
        assert_ne!(child.span_id(), context.span_id());
        let root = TraceContext::root();
        assert_eq!(root.to_string().parse(), Ok(root));
    }

    #[test]
    fn malformed_headers_are_refused() {
        for text in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c+b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319é-b7ad6b7169203331-01",
        ] {
            assert_eq!(text.parse::<TraceContext>(), Err(Malformed), "{text}");
        }
        assert!("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x".parse::<TraceContext>().is_ok());
    }
}
