//! REST, SSE and gRPC-Web for any gRPC service, from its descriptors.
