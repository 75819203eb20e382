//! `weir.metrics.v1.MetricsService`, which every [`crate::Host`] has.

use std::{pin::Pin, time::Duration};

use futures::{Stream, StreamExt as _};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::wrappers::IntervalStream;
use tonic::{Request, Response, Status};
use weir_proto::{
    metrics::v1::{
        ExportMetricsRequest, ExportMetricsResponse, GetMetricsRequest, GetMetricsResponse,
        WatchMetricsRequest, WatchMetricsResponse,
        export_metrics_request::Format,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    validate::Validate,
};

use super::{Metrics, TEXT_FORMAT, export};
use crate::{Shutdown, config, status};

/// The schema's file; what it imports is found from it.
const SCHEMA: &str = "weir/metrics/v1/metrics.proto";
/// Time between two responses of a watch that does not say.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);

/// The metrics as RPCs. Watches end with `UNAVAILABLE` when `shutdown` is requested.
pub(crate) fn service(
    metrics: Metrics,
    shutdown: Shutdown,
    limits: &config::Server,
) -> MetricsServiceServer<impl MetricsService> {
    crate::limited!(MetricsServiceServer::new(Rpcs { metrics, shutdown }), limits)
}

/// The files that describe the service and what it imports, imports first.
pub(crate) fn descriptors() -> FileDescriptorSet {
    let all = FileDescriptorSet::decode(weir_proto::DESCRIPTORS).expect("compiled in, and held by a test");
    let mut needed = vec![SCHEMA.to_owned()];
    let mut files = Vec::new();
    // From the end, as imports stand before what imports them.
    for file in all.file.into_iter().rev() {
        if needed.iter().any(|name| name == file.name()) {
            needed.extend_from_slice(&file.dependency);
            files.push(file);
        }
    }
    files.reverse();
    FileDescriptorSet { file: files }
}

struct Rpcs {
    metrics: Metrics,
    shutdown: Shutdown,
}

#[tonic::async_trait]
impl MetricsService for Rpcs {
    async fn get_metrics(
        &self,
        request: Request<GetMetricsRequest>,
    ) -> Result<Response<GetMetricsResponse>, Status> {
        let GetMetricsRequest { prefix } = valid(request)?;
        Ok(Response::new(GetMetricsResponse {
            families: self.metrics.families(&prefix),
            read_time: Some(std::time::SystemTime::now().into()),
        }))
    }

    type WatchMetricsStream = Pin<Box<dyn Stream<Item = Result<WatchMetricsResponse, Status>> + Send>>;

    async fn watch_metrics(
        &self,
        request: Request<WatchMetricsRequest>,
    ) -> Result<Response<Self::WatchMetricsStream>, Status> {
        let WatchMetricsRequest { prefix, interval: pause } = valid(request)?;
        let pause = pause.map_or(DEFAULT_INTERVAL, |pause| {
            pause.try_into().expect("the schema bounds it, and a duration within is one of std's")
        });
        // Pulled by the transport: a slow reader gets fewer responses, each of the moment at which it was ready for it.
        let mut ticks = interval(pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let metrics = self.metrics.clone();
        let responses = IntervalStream::new(ticks).map(move |_| {
            Ok(WatchMetricsResponse {
                families: metrics.families(&prefix),
                read_time: Some(std::time::SystemTime::now().into()),
            })
        });
        Ok(Response::new(Box::pin(self.shutdown.end(responses))))
    }

    async fn export_metrics(
        &self,
        request: Request<ExportMetricsRequest>,
    ) -> Result<Response<ExportMetricsResponse>, Status> {
        let request = valid(request)?;
        let families = || self.metrics.families(&request.prefix);
        let (content_type, content) = match request.format() {
            Format::Unspecified | Format::Prometheus => {
                (TEXT_FORMAT, self.metrics.render_some(&request.prefix))
            }
            Format::Json => (export::JSON_LINES, export::json_lines(&families(), jiff::Timestamp::now())),
            Format::Csv => (export::CSV, export::csv(&families(), jiff::Timestamp::now())),
        };
        Ok(Response::new(ExportMetricsResponse { content_type: content_type.to_owned(), content }))
    }
}

/// The request's message, if the schema allows it.
fn valid<T: Validate>(request: Request<T>) -> Result<T, Status> {
    let message = request.into_inner();
    message.validate().map_err(status::invalid_argument)?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptors_are_complete_and_no_more() {
        let files = descriptors().file;
        let names: Vec<_> = files.iter().map(|file| file.name()).collect();
        for (at, file) in files.iter().enumerate() {
            for import in &file.dependency {
                assert!(names[..at].contains(&import.as_str()), "{} lacks {import}", file.name());
            }
        }
        assert!(names.contains(&"google/api/annotations.proto"));
        let own: Vec<_> = names.iter().filter(|name| name.starts_with("weir/")).collect();
        assert_eq!(own, [&"weir/auth/v1/scope.proto", &SCHEMA]);
    }
}
