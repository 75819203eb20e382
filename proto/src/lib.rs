//! Weir's Protobuf schemas and the code generated from them.
//!
//! The schemas lie in `weir/<area>/v1/*.proto` and are the reference manual of every API; `gen/` holds the generated code,
//! which a test keeps current. Modules follow the packages: `weir.event.v1` is [`event::v1`]. Written by hand are only
//! [`validate`], which enforces the schemas' constraints, [`mod@record`], which reads events in place, [`currency`], [`token`] and [`time`].

mod actor;
pub mod currency;
pub mod record;
pub mod time;
pub mod token;
pub mod validate;

/// Types of `google.*` packages that our schemas use.
pub mod google {
    /// Package `google.api`: of it, only [`api::HttpBody`] is more than an option of the schemas.
    pub mod api {
        #![allow(
            missing_docs,
            clippy::all,
            clippy::allow_attributes_without_reason,
            reason = "generated code"
        )]
        include!("gen/google.api.rs");
    }
    /// Package `google.type`.
    pub mod r#type {
        #![allow(
            missing_docs,
            clippy::all,
            clippy::allow_attributes_without_reason,
            reason = "generated code"
        )]
        include!("gen/google.r#type.rs");
    }
}

/// Package `google.rpc`: status and error details.
pub use tonic_types::pb as rpc;

macro_rules! package {
    ($area:ident, $file:literal, $doc:literal) => {
        #[doc = $doc]
        pub mod $area {
            #[doc = $doc]
            pub mod v1 {
                #![allow(
                    missing_docs,
                    clippy::all,
                    clippy::allow_attributes_without_reason,
                    reason = "generated code"
                )]
                include!(concat!("gen/", $file));
            }
        }
    };
}

/// Packages `weir.*`.
pub mod weir {
    package!(analytics, "weir.analytics.v1.rs", "Asking questions about events.");
    package!(auth, "weir.auth.v1.rs", "What a caller may do.");
    package!(event, "weir.event.v1.rs", "The event and the records on the log.");
    package!(ingest, "weir.ingest.v1.rs", "Sending events to Weir.");
    package!(metrics, "weir.metrics.v1.rs", "A service's own metrics as data.");
    package!(processing, "weir.processing.v1.rs", "Watching the consumers at work.");
    package!(rollup, "weir.rollup.v1.rs", "What consumers write to `metrics-data`.");
    package!(store, "weir.store.v1.rs", "What owners of partitions hold beside the store's segments.");
}
pub use weir::*;

/// Every schema with its options and comments as an encoded `google.protobuf.FileDescriptorSet`: for reflection, transcoding
/// and validation.
pub const DESCRIPTORS: &[u8] = include_bytes!("gen/descriptors.binpb");
