//! Exports of readers that are slow: every event once, although an export keeps neither files nor events while it waits for its reader.

use std::collections::BTreeSet;

use weir_proto::analytics::v1::{ExportEventsRequest, export_events_request::Format};
use weir_store::EventStore as _;

use super::{questions::consumers, *};
use crate::testing::HOUR;

const EVENTS_STORED: u64 = 12_000;

/// Reads an export, with a pause before each of so many pieces that is longer than a turn waits: the numbers of its events.
async fn numbers(system: &System, format: Format, pauses: usize) -> Vec<u64> {
    let request = ExportEventsRequest { format: format.into(), ..ExportEventsRequest::default() };
    let mut pieces = system.client.clone().export_events(request).await.unwrap().into_inner();
    let (mut file, mut told, mut count) = (Vec::new(), 0, 0);
    while let Some(piece) = tokio::time::timeout(PATIENCE, pieces.message()).await.unwrap().unwrap() {
        told += piece.events;
        file.extend_from_slice(&piece.body.unwrap().data);
        count += 1;
        if count <= pauses {
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    }
    let text = String::from_utf8(file).unwrap();
    let number = |line: &str| {
        let (_, user) = line.split_once("user-").unwrap();
        user.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
    };
    let header = usize::from(format == Format::Csv);
    let found: Vec<u64> = text.lines().skip(header).map(number).collect();
    assert_eq!(told, found.len() as u64);
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_readers_get_every_event_once_while_segments_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path()).await;
    let [mut one, mut other] = consumers(&system).await;
    let event = |user: u64| Event { user, ..Event::at(now_micros() - HOUR + user.cast_signed()) };
    let third = EVENTS_STORED / 3;
    let events = |range: std::ops::Range<u64>| range.map(event).collect::<Vec<_>>();
    one.take(&system, &events(0..third)).await;
    one = one.flush(&system).await;
    // The rest is in memory, in both partitions.
    one.take(&system, &events(third..2 * third)).await;
    other.take(&system, &events(2 * third..EVENTS_STORED)).await;

    let flushed = async {
        // While the first pieces wait.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let both = (one.flush(&system).await, other.flush(&system).await);
        system.store.compact(0).await.unwrap();
        both
    };
    let [slow, slower, csv] = [(Format::Ndjson, 4), (Format::Ndjson, 8), (Format::Csv, 6)];
    let all = tokio::join!(
        numbers(&system, slow.0, slow.1),
        numbers(&system, slower.0, slower.1),
        numbers(&system, csv.0, csv.1),
        numbers(&system, Format::Ndjson, 0),
        flushed,
    );
    for found in [all.0, all.1, all.2, all.3] {
        assert_eq!(found.len() as u64, EVENTS_STORED);
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>().len() as u64, EVENTS_STORED, "each once");
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_finds_no_room_is_told_when_to_retry() {
    let dir = tempfile::tempdir().unwrap();
    let system =
        System::start_with(dir.path(), |config| config.analytics.export_buffer_bytes = 130_000).await;
    let [mut one, _other] = consumers(&system).await;
    // More than waits on a connection.
    one.take(&system, &(0..60_000).map(recent).collect::<Vec<_>>()).await;
    let export = || {
        let mut request = Request::new(ExportEventsRequest::default());
        request.set_timeout(Duration::from_millis(700));
        request
    };
    // Not read: it holds all the room that there is.
    let waiting = system.client.clone().export_events(ExportEventsRequest::default()).await.unwrap();
    let refused = system.client.clone().export_events(export()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("export_buffer_bytes"), "{refused}");
    drop(waiting);
    tokio::time::timeout(PATIENCE, async {
        while system.client.clone().export_events(export()).await.is_err() {}
    })
    .await
    .expect("the room is given back");
    system.stop().await;
}
