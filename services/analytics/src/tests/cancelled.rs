//! What nobody waits for is not computed.

use std::sync::Arc;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use bytes::Bytes;
use datafusion::{
    catalog::{TableProvider, streaming::StreamingTable},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{stream::RecordBatchStreamAdapter, streaming::PartitionStream},
};
use futures::stream;
use tokio::sync::mpsc;
use weir_proto::analytics::v1::{FunnelStep, QueryFunnelRequest};
use weir_query::{Engine, Error, Events, engine::Settings};
use weir_store::view::{Column, View};

use super::*;
use crate::{
    answers::{Answers, Moment},
    events::funnel::Funnel,
    testing::{DAY, FIRST_EVENT, stored},
};

/// Events without end. Each time that some are read it is told, and when they are dropped.
#[derive(Debug, Clone)]
struct Endless {
    events: RecordBatch,
    reading: mpsc::UnboundedSender<()>,
}

impl Events for Endless {
    fn table(&self, columns: &[Column]) -> Result<Arc<dyn TableProvider>, Error> {
        let view = View::new(columns.iter().cloned());
        let (events, schema) = (view.of(&self.events).map_err(Error::Execution)?, view.schema().clone());
        let stream = Arc::new(Self { events, reading: self.reading.clone() });
        let table = StreamingTable::try_new(schema, vec![stream]).map_err(Error::Execution)?;
        Ok(Arc::new(table))
    }
}

impl PartitionStream for Endless {
    fn schema(&self) -> &SchemaRef {
        self.events.schema_ref()
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let Self { events, reading } = self.clone();
        let schema = events.schema();
        let batches = stream::repeat_with(move || {
            // The test may have heard enough.
            let _ = reading.send(());
            Ok(events.clone())
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, batches))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_stops_when_the_last_who_waits_for_it_is_gone() {
    let (reading, mut read) = mpsc::unbounded_channel();
    let events = Arc::new(Endless { events: stored(&[Event::at(FIRST_EVENT)], 0), reading });
    let engine = Engine::new(Settings { memory_bytes: 1 << 30, threads: 2 }).unwrap();
    let step = FunnelStep { event_names: vec!["page_view".to_owned()], ..FunnelStep::default() };
    let request = QueryFunnelRequest { steps: vec![step], ..QueryFunnelRequest::default() };
    let range = FIRST_EVENT - DAY..FIRST_EVENT + DAY;
    let question = Funnel::parse(&request).unwrap().of(range.clone());

    let answers = Answers::new(1 << 20);
    let moment = Moment { range, next_offsets: vec![1], segments: None };
    let ask = || {
        let (answers, moment) = (answers.clone(), moment.clone());
        let (engine, events, question) = (engine.clone(), events.clone(), question.clone());
        tokio::spawn(async move {
            let computed = async move {
                engine.funnel(events, question, Duration::from_secs(3600)).await?;
                unreachable!("there is no end of events")
            };
            answers.get(&Bytes::from_static(b"a funnel"), moment, computed).await
        })
    };
    let (first, second) = (ask(), ask());
    read.recv().await.unwrap();
    drop((events, answers, engine));
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    while read.try_recv().is_ok() {}
    read.recv().await.expect("the second still waits");
    second.abort();
    // Ends when nothing reads any more.
    while read.recv().await.is_some() {}
}
