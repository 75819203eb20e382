//! The standalone gateway: every service of Weir at one address, as REST, gRPC-Web and gRPC.

use std::collections::HashSet;

use prost_reflect::DescriptorPool;
use tonic::service::Routes;
use weir_runtime::{Context, Host, Listeners, metrics};
use weir_transcode::rest;

use crate::{Error, upstream::Upstream};

/// Serves until the shutdown. The services may come and go meanwhile: calls to one that is away get `UNAVAILABLE`, and
/// `/readyz` names it.
///
/// # Errors
/// [`Error`]; only before the first connection is accepted.
pub async fn serve(context: Context, listeners: Listeners) -> Result<(), Error> {
    let config = &context.config;
    let upstreams = [
        ("producer", "gateway.producer_url", &config.gateway.producer_url, "weir.ingest.v1.IngestService"),
        (
            "consumer",
            "gateway.consumer_url",
            &config.gateway.consumer_url,
            "weir.processing.v1.ProcessingService",
        ),
        (
            "analytics",
            "gateway.analytics_url",
            &config.gateway.analytics_url,
            "weir.analytics.v1.AnalyticsService",
        ),
    ];
    let pool = DescriptorPool::decode(weir_proto::DESCRIPTORS).map_err(weir_transcode::Error::from)?;
    let host = Host::new("gateway", context.clone());
    // Calls are passed on as they are: message bytes and metadata of gRPC are the same on both sides.
    let mut proxy = Routes::default().into_axum_router();
    for (name, key, url, service) in upstreams {
        let endless = streaming(&pool, service)?;
        let upstream = Upstream::new(name, key, url, endless, context.shutdown.clone())?;
        context.shutdown.spawn(upstream.clone().watch(host.health().register(name)));
        proxy = proxy.route_service(&format!("/{service}/{{*method}}"), upstream);
    }
    let routes = Routes::from(proxy).prepare();
    let [producer, consumer, analytics] = upstreams.map(|upstream| upstream.3);
    let services = [producer, consumer, analytics, metrics::SERVICE_NAME];
    let limits = config.server.clone();
    host.grpc(routes, &[producer, consumer, analytics], &[weir_proto::DESCRIPTORS])?
        // Every service has metrics of its own; here they are the gateway's.
        .http(move |rpc| rest(weir_proto::DESCRIPTORS, &services, rpc, &limits))
        .serve(listeners)
        .await?;
    Ok(())
}

/// The gRPC paths of a service's RPCs that stream their answers.
fn streaming(pool: &DescriptorPool, service: &str) -> Result<HashSet<String>, Error> {
    let schema = pool
        .get_service_by_name(service)
        .ok_or_else(|| weir_transcode::Error::UnknownService(service.to_owned()))?;
    let methods = schema.methods().filter(|method| method.is_server_streaming());
    Ok(methods.map(|method| format!("/{service}/{}", method.name())).collect())
}
