//! Which web pages may read the answers.

use tower_http::cors::{AllowOrigin, Any, CorsLayer};

/// For the origins in `server.cors_origins`; none without them.
pub(super) fn layer(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| origin.parse().ok()))
    };
    let exposed = ["grpc-status", "grpc-message", "grpc-status-details-bin", "x-request-id", "retry-after"];
    Some(
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods(Any)
            .allow_headers(Any)
            .expose_headers(exposed.map(http::HeaderName::from_static)),
    )
}
