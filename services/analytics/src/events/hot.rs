//! The hot parts of partitions: in this process where it owns them, else from the consumer that does.
//!
//! What was read is kept, so that the next question asks only for what is new.

use std::{
    collections::{BTreeMap, HashMap},
    io::Cursor,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arrow::{array::RecordBatch, datatypes::DataType, error::ArrowError, ipc::reader::StreamReader};
use tokio::sync::watch;
use tonic::{Code, Status, codec::CompressionEncoding, transport::Endpoint};
use weir_client::channel::{Channel, Options};
use weir_proto::store::v1::{ReadHotRequest, ReadHotResponse, hot_service_client::HotServiceClient};
use weir_store::{Error, HotRead, HotSource, Part, Store, schema::column};

use crate::partition::Progress;

/// How long an owner may take to accept a connection, and to send its whole answer. Who is gone is not worth waiting for: the answer
/// says what is missing.
const CONNECT: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(10);
/// Owners send about 8 MiB at a time, and texts that rows share with each.
const MAX_MESSAGE: usize = 64 << 20;

/// Asks the owners of partitions.
#[derive(Debug)]
pub(crate) struct Owners {
    store: Store,
    /// Who they are, as their claims say.
    progress: Vec<watch::Receiver<Progress>>,
    /// To those that own a partition now, by address.
    channels: Mutex<HashMap<String, Channel>>,
    /// What was read last, by partition.
    mirrors: Vec<tokio::sync::Mutex<Option<Mirror>>>,
}

/// What an owner has had from an offset on.
#[derive(Debug)]
struct Mirror {
    from: u64,
    read: HotRead,
}

impl Owners {
    pub(crate) fn new(store: Store, progress: Vec<watch::Receiver<Progress>>) -> Self {
        let mirrors = progress.iter().map(|_| tokio::sync::Mutex::default()).collect();
        Self { store, progress, channels: Mutex::default(), mirrors }
    }

    fn channel(&self, address: &str) -> Result<Channel, tonic::transport::Error> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(address.to_owned())?.connect_timeout(CONNECT);
        let channel = Channel::new(endpoint, Options { connections: 1, deadline: Some(ANSWER) });
        channels.retain(|known, _| self.progress.iter().any(|now| *now.borrow().owner_address == **known));
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    async fn ask(&self, address: &str, partition: u32, from: u64) -> Result<HotRead, Status> {
        let channel = self.channel(address).map_err(|error| Status::unavailable(error.to_string()))?;
        let mut client = HotServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .accept_compressed(CompressionEncoding::Zstd);
        let request = ReadHotRequest { partition, from_offset: from };
        let mut responses = client.read_hot(request).await?.into_inner();
        let missing = || Status::data_loss("the owner ended its answer without saying what there is");
        let head = responses.message().await?.ok_or_else(missing)?;
        let mut read = HotRead {
            start: head.start_offset,
            end: head.end_offset,
            watermark_micros: head.watermark_micros,
            manifest_version: head.manifest_version,
            complete_since_micros: head.complete_since_micros.unwrap_or(i64::MIN),
            parts: Vec::new(),
        };
        while let Some(response) = responses.message().await? {
            let part = part(response).map_err(|error| Status::data_loss(error.to_string()))?;
            read.parts.push(Arc::new(part));
        }
        Ok(read)
    }
}

/// What an owner sends, in which parts can be told by the offsets of their rows.
fn part(response: ReadHotResponse) -> Result<Part, ArrowError> {
    let mut events = BTreeMap::new();
    for of in response.projects {
        let reader = StreamReader::try_new(Cursor::new(of.arrow_stream), None)?;
        let schema = reader.schema();
        let offsets = schema.field_with_name(column::LOG_OFFSET)?.data_type();
        if *offsets != DataType::Int64 {
            let problem = format!("{} has the type {offsets}", column::LOG_OFFSET);
            return Err(ArrowError::SchemaError(problem));
        }
        let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>()?;
        events.insert(of.project.into(), arrow::compute::concat_batches(&schema, &batches)?);
    }
    let ReadHotResponse { start_offset, end_offset, watermark_micros, .. } = response;
    Ok(Part { start: start_offset, end: end_offset, watermark_micros, events })
}

#[async_trait::async_trait]
impl HotSource for Owners {
    async fn read(&self, partition: u32, from: u64) -> weir_store::Result<HotRead> {
        match self.store.read(partition, from).await {
            Err(Error::NotOwner { .. }) => {}
            here => return here,
        }
        let index = partition as usize;
        let address = self.progress[index].borrow().owner_address.to_string();
        if address.is_empty() {
            return Err(Error::NotOwner { partition });
        }
        let mut mirror = self.mirrors[index].lock().await;
        let known = mirror.take().filter(|known| (known.from..=known.read.end).contains(&from));
        let next = known.as_ref().map_or(from, |known| known.read.end);
        let mut read = self.ask(&address, partition, next).await.map_err(|status| match status.code() {
            // It is taking the partition over, or has just given it up.
            Code::FailedPrecondition => Error::NotOwner { partition },
            Code::PermissionDenied => Error::Unavailable {
                what: format!("ask {address} for the newest events of partition {partition}"),
                source:
                    "it is no internal port: let `consumer.advertised_url` name that of `consumer.internal`"
                        .into(),
            },
            _ => Error::Unavailable {
                what: format!("ask {address} for the newest events of partition {partition}"),
                source: status.message().into(),
            },
        })?;
        if read.start > next {
            // The owner has published and forgotten what comes next; the caller reads the manifest.
            return Ok(read);
        }
        if let Some(Mirror { read: known, .. }) = known {
            // An owner that has just begun has less than the one before it, and will have the same.
            read.end = read.end.max(known.end);
            read.parts.splice(0..0, known.beyond(from).parts);
            read.start = read.start.min(from);
        }
        *mirror = Some(Mirror { from, read: read.clone() });
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{ArrayRef, Int32Array, Int64Array},
        ipc::writer::StreamWriter,
    };
    use weir_proto::store::v1::ProjectEvents;

    use super::*;

    #[test]
    fn rows_without_offsets_are_refused() {
        let read = |name: &str, array: ArrayRef| {
            let rows = RecordBatch::try_from_iter([(name, array)]).unwrap();
            let mut writer = StreamWriter::try_new(Vec::new(), rows.schema_ref()).unwrap();
            writer.write(&rows).unwrap();
            let arrow_stream = writer.into_inner().unwrap().into();
            let projects = vec![ProjectEvents { project: "p".to_owned(), arrow_stream }];
            part(ReadHotResponse { start_offset: 0, end_offset: 3, projects, ..ReadHotResponse::default() })
        };
        assert!(read(column::LOG_OFFSET, Arc::new(Int64Array::from(vec![0, 1, 2]))).is_ok());
        assert!(read(column::LOG_OFFSET, Arc::new(Int32Array::from(vec![0, 1, 2]))).is_err());
        assert!(read("offset", Arc::new(Int64Array::from(vec![0, 1, 2]))).is_err());
    }
}
