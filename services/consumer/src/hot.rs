//! The RPC by which analytics reads what this consumer has of its partitions beyond the store's segments.

use std::{pin::Pin, sync::Arc};

use arrow::{array::RecordBatch, error::ArrowError, ipc::writer::StreamWriter};
use futures::{Stream, StreamExt, stream};
use tonic::{Code, Request, Response, Status};
use weir_proto::store::v1::{ProjectEvents, ReadHotRequest, ReadHotResponse, hot_service_server::HotService};
use weir_store::{HotRead, HotSource, Part, Store, width};

/// Bytes of rows in one response, about, so that none comes near the limit on messages.
const BYTES: usize = 8 << 20;

/// Answers from the store of this process.
#[derive(Clone, Debug)]
pub(crate) struct Hot {
    pub(crate) store: Store,
}

#[tonic::async_trait]
impl HotService for Hot {
    type ReadHotStream = Pin<Box<dyn Stream<Item = Result<ReadHotResponse, Status>> + Send>>;

    async fn read_hot(
        &self,
        request: Request<ReadHotRequest>,
    ) -> Result<Response<Self::ReadHotStream>, Status> {
        let ReadHotRequest { partition, from_offset } = request.into_inner();
        let read = self.store.read(partition, from_offset).await.map_err(|error| match error {
            weir_store::Error::NotOwner { .. } => Status::new(Code::FailedPrecondition, error.to_string()),
            other => Status::unavailable(other.to_string()),
        })?;
        let HotRead { start, end, watermark_micros, manifest_version, complete_since_micros, parts } = read;
        let head = ReadHotResponse {
            start_offset: start,
            end_offset: end,
            watermark_micros,
            manifest_version,
            complete_since_micros: (complete_since_micros > i64::MIN).then_some(complete_since_micros),
            projects: vec![],
        };
        // One at a time: a slow reader holds the parts, which others share, and one response.
        let parts = stream::iter(parts).flat_map(|part| stream::iter(responses(&part)));
        Ok(Response::new(Box::pin(stream::iter([Ok(head)]).chain(parts))))
    }
}

/// A part as responses, each with some of its rows.
fn responses(part: &Arc<Part>) -> impl Iterator<Item = Result<ReadHotResponse, Status>> + use<> {
    let (start_offset, end_offset, watermark_micros) = (part.start, part.end, part.watermark_micros);
    let batches = part.events.iter().map(|(project, batch)| (project.to_string(), batch.clone()));
    let pieces = batches
        .collect::<Vec<_>>()
        .into_iter()
        .flat_map(|(project, batch)| width::pieces(&batch, BYTES).map(move |rows| (project.clone(), rows)));
    pieces.map(move |(project, rows)| {
        let arrow_stream = encode(&rows).map_err(|error| Status::internal(error.to_string()))?;
        Ok(ReadHotResponse {
            start_offset,
            end_offset,
            watermark_micros,
            manifest_version: 0,
            complete_since_micros: None,
            projects: vec![ProjectEvents { project, arrow_stream: arrow_stream.into() }],
        })
    })
}

fn encode(rows: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), rows.schema_ref())?;
    writer.write(rows)?;
    writer.into_inner()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Cursor};

    use arrow::ipc::reader::StreamReader;
    use weir_proto::record::Event;
    use weir_store::encode::{Encoder, Row};

    use super::*;

    #[test]
    fn every_row_arrives_as_it_was() {
        let mut encoder = Encoder::default();
        let rows = 50_000_u64;
        for offset in 0..rows {
            let user = format!("user {offset}");
            let event_name = ["view", "buy"][usize::from(offset.is_multiple_of(3))];
            let event = Event { event_name, user_id: &user, ..Event::default() };
            encoder.push(&Row { offset, event, ..Row::default() });
        }
        let batch = encoder.finish();
        let events = BTreeMap::from([("shop".into(), batch.clone())]);
        let part = Arc::new(Part { start: 0, end: rows, watermark_micros: 0, events });
        let mut from = 0;
        for response in responses(&part) {
            for project in response.unwrap().projects {
                let arrived = StreamReader::try_new(Cursor::new(project.arrow_stream), None).unwrap();
                for arrived in arrived.map(Result::unwrap) {
                    assert_eq!(arrived, batch.slice(from, arrived.num_rows()));
                    from += arrived.num_rows();
                }
            }
        }
        assert_eq!(from as u64, rows);
    }
}
