//! The RPCs: `weir.processing.v1.ProcessingService`.

use std::{pin::Pin, time::Duration};

use futures::{Stream, stream};
use tonic::{Request, Response, Status};
use weir_proto::processing::v1::{
    GetStatusRequest, GetStatusResponse, WatchStatusRequest, WatchStatusResponse,
    processing_service_server::ProcessingService,
};
use weir_runtime::{Shutdown, status};

use crate::board::Board;

/// Time between two responses of `WatchStatus` when the caller names none; as `processing.proto` says.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest and longest that may be asked for.
const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);

/// Answers from the board.
#[derive(Clone, Debug)]
pub(crate) struct Processing {
    pub(crate) board: Board,
    pub(crate) shutdown: Shutdown,
}

#[tonic::async_trait]
impl ProcessingService for Processing {
    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(GetStatusResponse { status: Some(self.board.status().await) }))
    }

    type WatchStatusStream = Pin<Box<dyn Stream<Item = Result<WatchStatusResponse, Status>> + Send>>;

    async fn watch_status(
        &self,
        request: Request<WatchStatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        let interval = match request.into_inner().interval {
            None => DEFAULT_INTERVAL,
            Some(asked) => Duration::try_from(asked)
                .ok()
                .filter(|interval| INTERVALS.contains(interval))
                .ok_or_else(|| status::invalid_argument([("interval", "must be between 0.1s and 60s")]))?,
        };
        let mut tick = tokio::time::interval(interval);
        // A reader that is slow gets the state of the moment when it comes, not a backlog.
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let states = stream::unfold((tick, self.board.clone()), |(mut tick, board)| async {
            tick.tick().await;
            let response = WatchStatusResponse { status: Some(board.status().await) };
            Some((Ok(response), (tick, board)))
        });
        Ok(Response::new(Box::pin(self.shutdown.end(states))))
    }
}
