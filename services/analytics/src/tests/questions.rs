//! Questions of every kind, asked and watched, on events that are counted and stored.

use std::collections::BTreeMap;

use futures::{StreamExt as _, future::join_all};
use prost::Message as _;
use uuid::Uuid;
use weir_proto::analytics::v1::{
    CountBy, EventSelector, FunnelStep, ListUserEventsRequest, Measure, Note, QueryFunnelRequest,
    QueryPathsRequest, QueryRetentionRequest, QuerySqlRequest, ResultInfo, RetentionPeriod,
    measure::Kind as Measured, note::Kind, query_sql_response::Part, result_info::Source,
    watch_query_response::Upkeep,
};
use weir_proto::rollup::v1::{MetricsRecord, MicroBatch, metrics_record};
use weir_store::CleanBatch;

use super::*;
use crate::{
    question::{self, Answer, Asks},
    testing::{DAY, HOUR, stored},
};

/// The consumer of one partition: counts events and stores them.
pub(super) struct Consumer {
    partition: u32,
    counts: Writer,
    stored: weir_store::Writer,
}

impl Consumer {
    async fn claim(system: &System, partition: u32) -> Self {
        let counts = Writer::new(0);
        system.append(partition, counts.claim()).await;
        let stored = system.store.writer(partition, Uuid::new_v4()).await.unwrap();
        Self { partition, counts, stored }
    }

    /// Takes events in, as a consumer does: they are stored before they are counted. The token of the last one.
    pub(super) async fn take(&mut self, system: &System, events: &[Event]) -> (u32, u64) {
        let counted = self.counts.batch(events);
        self.take_counted(system, events, counted).await
    }

    /// Takes events in before any rollup is configured.
    async fn take_without_rollups(&mut self, system: &System, events: &[Event]) -> (u32, u64) {
        let counted = MetricsRecord::decode(self.counts.batch(events).as_slice()).unwrap();
        let Some(metrics_record::Record::Batch(batch)) = counted.record else { panic!("it is a batch") };
        let batch = MicroBatch { definitions: Vec::new(), projects: Vec::new(), ..batch };
        let counted = MetricsRecord { record: Some(metrics_record::Record::Batch(batch)) };
        self.take_counted(system, events, counted.encode_to_vec()).await
    }

    async fn take_counted(&mut self, system: &System, events: &[Event], counted: Vec<u8>) -> (u32, u64) {
        let start = self.counts.next - events.len() as u64;
        self.stored.append(CleanBatch {
            start,
            end: start + events.len() as u64,
            watermark_micros: events.iter().map(|event| event.append).max().unwrap(),
            events: vec![("default".into(), stored(events, start))],
        });
        system.append(self.partition, counted).await;
        (self.partition, self.counts.next - 1)
    }

    /// Goes on after everything is written to segments.
    pub(super) async fn flush(self, system: &System) -> Self {
        self.stored.drain().await.unwrap();
        let stored = system.store.writer(self.partition, Uuid::new_v4()).await.unwrap();
        Self { partition: self.partition, counts: self.counts, stored }
    }
}

/// Those of all partitions.
pub(super) async fn consumers(system: &System) -> [Consumer; 2] {
    [Consumer::claim(system, 0).await, Consumer::claim(system, 1).await]
}

/// The last and the next hour.
fn around_now() -> Option<TimeRange> {
    let start = (now_micros() - HOUR).div_euclid(60 * SECOND) * 60 * SECOND;
    Some(TimeRange {
        start_time: Some(timestamp(start)),
        end_time: Some(timestamp(start + 2 * HOUR)),
        ..TimeRange::default()
    })
}

fn named(name: &str) -> Option<EventSelector> {
    Some(EventSelector { event_names: vec![name.to_owned()], ..EventSelector::default() })
}

pub(super) fn funnel(steps: &[&str]) -> QueryFunnelRequest {
    let step = |name: &&str| FunnelStep { event_names: vec![(*name).to_owned()], ..FunnelStep::default() };
    QueryFunnelRequest {
        time_range: around_now(),
        steps: steps.iter().map(step).collect(),
        ..QueryFunnelRequest::default()
    }
}

pub(super) fn breakdown(field: &str) -> QueryBreakdownRequest {
    QueryBreakdownRequest {
        time_range: around_now(),
        group_by: vec![field.to_owned()],
        ..QueryBreakdownRequest::default()
    }
}

/// One question of each kind, those about measures in all the ways in which they are answered.
fn every_kind() -> Vec<Query> {
    let time_range = around_now();
    let series = QueryTimeSeriesRequest {
        time_range,
        interval: Interval::Minute.into(),
        ..QueryTimeSeriesRequest::default()
    };
    let exact = Measure { kind: Measured::UniqueUsers.into(), exact: true, ..Measure::default() };
    vec![
        Query::Summary(GetSummaryRequest { time_range, ..GetSummaryRequest::default() }),
        Query::TimeSeries(series.clone()),
        Query::TimeSeries(QueryTimeSeriesRequest { measures: vec![exact], ..series.clone() }),
        Query::TimeSeries(QueryTimeSeriesRequest { cumulative: true, ..series }),
        Query::Breakdown(breakdown("platform")),
        Query::Breakdown(breakdown("price")),
        Query::Funnel(funnel(&["page_view", "purchase"])),
        Query::Retention(QueryRetentionRequest {
            time_range,
            start_event: named("page_view"),
            period: RetentionPeriod::Day.into(),
            ..QueryRetentionRequest::default()
        }),
        Query::Paths(QueryPathsRequest {
            time_range,
            event: named("page_view"),
            count_by: CountBy::Users.into(),
            ..QueryPathsRequest::default()
        }),
        Query::UserEvents(ListUserEventsRequest {
            user_id: "user-1".to_owned(),
            newest_first: true,
            ..ListUserEventsRequest::default()
        }),
    ]
}

/// Asks a question of any kind, of at least these events.
pub(super) async fn ask(system: &System, mut query: Query, min_consistency_token: String) -> Answer {
    let mut client = system.client.clone();
    macro_rules! asked {
        ($request:expr, $method:ident, $kind:ident) => {{
            $request.min_consistency_token = min_consistency_token;
            Answer::$kind(client.$method($request.clone()).await.unwrap().into_inner())
        }};
    }
    match &mut query {
        Query::Summary(request) => asked!(request, get_summary, Summary),
        Query::TimeSeries(request) => asked!(request, query_time_series, TimeSeries),
        Query::Breakdown(request) => asked!(request, query_breakdown, Breakdown),
        Query::Funnel(request) => asked!(request, query_funnel, Funnel),
        Query::Retention(request) => asked!(request, query_retention, Retention),
        Query::Paths(request) => asked!(request, query_paths, Paths),
        Query::UserEvents(request) => asked!(request, list_user_events, UserEvents),
    }
}

/// The answer without what it says about itself, and that.
pub(super) fn apart(mut answer: Answer) -> (Answer, ResultInfo) {
    let info = std::mem::take(question::info(&mut answer));
    (answer, info)
}

/// How many questions were evaluated on events, and how many answers were shared or kept.
fn answered(system: &System) -> (u64, u64) {
    let by = |kind| system.metrics.answers("analytics", kind).get();
    (by("events"), by("shared") + by("cached"))
}

/// A note: what is unknown, and what there is.
type Noted<'n> = (Kind, &'n str, Vec<&'n str>);

fn noted(note: &Note) -> Noted<'_> {
    (note.kind(), &note.name, note.nearest_names.iter().map(String::as_str).collect())
}

fn notes(info: &ResultInfo) -> Vec<Noted<'_>> {
    info.notes.iter().map(noted).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_is_watched_and_equals_its_query() {
    let dir = tempfile::tempdir().unwrap();
    // A kept answer would be compared with itself.
    let system = System::start_with(dir.path(), |config| config.analytics.cache_bytes = 0).await;
    let mut consumers = consumers(&system).await;
    let mut counted = BTreeMap::new();
    let first = consumers[0].take(&system, &[Event { price: Some(2.5), ..recent(1) }]).await;
    counted.extend([first]);
    system.summary(token::encode(&counted)).await;

    let mut watches = Vec::new();
    for query in every_kind() {
        let mut watch = system.watch(query.clone()).await;
        let answer = next(&mut watch).await.result.unwrap();
        let (answer, info) = apart(answer);
        assert_eq!(info.consistency_token, token::encode(&counted), "{query:?}");
        let (asked, _) = apart(ask(&system, query.clone(), String::new()).await);
        assert_eq!(answer, asked, "{query:?}");
        watches.push((query, watch, answer));
    }
    for round in 1..=3u64 {
        for consumer in &mut consumers {
            let user = u64::from(consumer.partition) + 1;
            let view = Event { platform: Some("web"), user, ..recent(user) };
            let buys = Event {
                name: "purchase",
                revenue: Some(250),
                time: view.time + round.cast_signed(),
                ..view.clone()
            };
            let other = Event { price: Some(round as f64), ..recent(10 * round + user) };
            counted.extend([consumer.take(&system, &[view, buys, other]).await]);
        }
        let everything = token::encode(&counted);
        for (query, watch, last) in &mut watches {
            let (upkeep, answer, info) = loop {
                let update = next(watch).await;
                let upkeep = update.upkeep();
                let (answer, info) = apart(update.result.unwrap());
                if info.consistency_token == everything {
                    break (upkeep, answer, info);
                }
            };
            let (asked, then) = apart(ask(&system, query.clone(), everything.clone()).await);
            assert_eq!(answer, asked, "{query:?}");
            assert_eq!(info.source, then.source, "{query:?}");
            assert_eq!(upkeep == Upkeep::Incremental, info.source() == Source::Rollup, "{query:?}");
            assert_ne!(answer, *last, "the events change it: {query:?}");
            *last = answer;
        }
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_update_counts_exactly_the_events_of_its_token() {
    const EVENTS: u64 = 300;
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path()).await;
    let [mut consumer, _other] = consumers(&system).await;
    let by_rollup = breakdown("event_name");
    let users = Measure { kind: Measured::UniqueUsers.into(), exact: true, ..Measure::default() };
    let measures = vec![Measure::default(), users];
    let by_events = QueryBreakdownRequest { measures, ..by_rollup.clone() };
    let (first, offset) = consumer.take(&system, &[recent(0)]).await;
    system.summary(token(first, offset)).await;

    let watch = async |query| {
        let mut watch = system.watch(Query::Breakdown(query)).await;
        let (mut updates, mut source) = (0, Source::Unspecified);
        let mut counted = 0;
        while counted < EVENTS {
            let response = next(&mut watch).await;
            counted = watched_events(&response) as u64;
            let (_, info) = apart(response.result.unwrap());
            // Each has an offset of its own.
            let named = token::decode(&info.consistency_token).unwrap();
            assert_eq!(named, [(first, counted - 1)].into(), "{counted} events are in update {updates}");
            (updates, source) = (updates + 1, info.source());
        }
        assert!(updates > 3, "{updates} updates show nothing");
        source
    };
    let feed = async {
        for user in 1..EVENTS {
            consumer.take(&system, &[recent(user)]).await;
        }
    };
    let (by_rollup, by_events, ()) = tokio::join!(watch(by_rollup), watch(by_events), feed);
    assert_eq!((by_rollup, by_events), (Source::Rollup, Source::Store));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_of_events_that_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path()).await;
    let [mut consumer, _other] = consumers(&system).await;
    let mut watch = system.watch(Query::Funnel(funnel(&["page_view"]))).await;
    let (empty, _) = apart(next(&mut watch).await.result.unwrap());
    let (partition, offset) = consumer.take(&system, &[Event { name: "purchase", ..recent(1) }]).await;
    let (answer, info) = apart(next(&mut watch).await.result.unwrap());
    assert_eq!((answer, info.consistency_token), (empty, token(partition, offset)));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_range_moves_with_the_clock() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path()).await;
    let [mut consumer, _other] = consumers(&system).await;
    consumer.take(&system, &[Event::at(now_micros()), Event::at(now_micros() - 2 * DAY)]).await;
    let last = prost_types::Duration { seconds: 2, nanos: 0 };
    let time_range = Some(TimeRange { last: Some(last), ..TimeRange::default() });
    let mut watch =
        system.watch(Query::Funnel(QueryFunnelRequest { time_range, ..funnel(&["page_view"]) })).await;
    let mut counts = Vec::new();
    while counts != [1, 0] {
        match next(&mut watch).await.result.unwrap() {
            Answer::Funnel(funnel) => counts.push(funnel.total.unwrap().steps[0].count),
            other => panic!("{other:?}"),
        }
        counts.dedup();
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn identical_questions_are_evaluated_once_until_something_changes() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path()).await;
    let [mut consumer, _other] = consumers(&system).await;
    let visit = |user| [recent(user), Event { name: "purchase", ..Event::at(now_micros()) }];
    let seen = consumer.take(&system, &visit(1)).await;
    system.summary(token(seen.0, seen.1)).await;

    let question = funnel(&["page_view"]);
    let asked = |question: &QueryFunnelRequest| {
        let (mut client, question) = (system.client.clone(), question.clone());
        async move { client.query_funnel(question).await.unwrap().into_inner() }
    };
    let answers = join_all((0..50).map(|_| asked(&question))).await;
    assert!(answers.iter().all(|answer| answer.total == answers[0].total));
    assert_eq!(answers[0].total.as_ref().unwrap().steps[0].count, 1);
    assert_eq!(answered(&system), (1, 49));

    // How it is asked does not matter, what is asked does.
    let explained = asked(&QueryFunnelRequest { explain: true, ..question.clone() }).await.info.unwrap();
    assert!(explained.cached && explained.plan.contains("nothing has changed"), "{}", explained.plan);
    asked(&funnel(&["purchase"])).await;
    assert_eq!(answered(&system), (2, 50));

    let (partition, offset) = consumer.take(&system, &visit(2)).await;
    let newer = QueryFunnelRequest { min_consistency_token: token(partition, offset), ..question.clone() };
    let newer = asked(&newer).await;
    assert_eq!((newer.total.unwrap().steps[0].count, newer.info.unwrap().cached), (2, false));
    assert_eq!(answered(&system), (3, 50));

    // Nothing is counted meanwhile, but events are where they were not.
    consumer.flush(&system).await;
    let moved = asked(&question).await;
    assert_eq!((moved.total.unwrap().steps[0].count, answered(&system)), (2, (4, 50)));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_nothing_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start_with(dir.path(), |config| config.analytics.cache_bytes = 0).await;
    let _consumers = consumers(&system).await;
    for _ in 0..2 {
        ask(&system, funnel(&["page_view"]).query(), String::new()).await;
    }
    assert_eq!(answered(&system), (2, 0));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_no_event_has_are_noted_with_the_nearest() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path()).await;
    let [mut consumer, _other] = consumers(&system).await;
    let event = Event { platform: Some("web"), price: Some(1.0), ..recent(1) };
    let purchase = Event { name: "purchase", ..event.clone() };
    let seen = consumer.take(&system, &[event, purchase]).await;
    system.summary(token(seen.0, seen.1)).await;
    let event = |name: &str| {
        let event_names = vec![name.to_owned()];
        Query::TimeSeries(QueryTimeSeriesRequest { event_names, ..QueryTimeSeriesRequest::default() })
    };
    let info = async |query: Query| apart(ask(&system, query, String::new()).await).1;
    for place in ["memory", "segments"] {
        let empty = info(event("purchse")).await;
        assert_eq!(empty.source(), Source::Rollup);
        assert_eq!(notes(&empty), [(Kind::UnknownEvent, "purchse", vec!["purchase"])]);
        let unknown = info(breakdown("platfrom").query()).await;
        assert_eq!(notes(&unknown), [(Kind::UnknownProperty, "platfrom", vec!["platform"])]);
        let unknown = info(funnel(&["page_view", "zzz"]).query()).await;
        assert_eq!(notes(&unknown), [(Kind::UnknownEvent, "zzz", vec![])]);
        let price =
            Measure { kind: Measured::Sum.into(), property: "prices".to_owned(), ..Measure::default() };
        let sum = QueryBreakdownRequest { measures: vec![price], ..breakdown("price") };
        assert_eq!(notes(&info(sum.query()).await), [(Kind::UnknownProperty, "prices", vec!["price"])]);

        let platform =
            Measure { kind: Measured::Sum.into(), property: "platform".to_owned(), ..Measure::default() };
        let sum = QueryBreakdownRequest { measures: vec![platform], ..breakdown("price") };
        assert_eq!(notes(&info(sum.query()).await), [(Kind::WrongKind, "platform", vec![])]);

        for known in [event("purchase"), funnel(&["page_view"]).query(), breakdown("price").query()] {
            assert_eq!(notes(&info(known.clone()).await), [], "in {place}: {known:?}");
        }
        consumer = consumer.flush(&system).await;
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_counts_nothing_where_nothing_was() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path()).await;
    let [mut consumer, _other] = consumers(&system).await;
    let (partition, offset) = consumer.take(&system, &[Event { price: Some(1.0), ..recent(1) }]).await;
    let priced =
        |kind: Measured| Measure { kind: kind.into(), property: "price".to_owned(), ..Measure::default() };
    let question = QueryBreakdownRequest {
        measures: vec![Measure::default(), priced(Measured::Sum), priced(Measured::Average)],
        compare_previous: true,
        min_consistency_token: token(partition, offset),
        ..breakdown("event_name")
    };
    let answer = system.client.clone().query_breakdown(question).await.unwrap().into_inner();
    let row = &answer.rows[0];
    let shown = |figures: &[Figure]| -> Vec<_> {
        figures.iter().map(|figure| (!figure.empty).then_some(figure.value)).collect()
    };
    assert_eq!(shown(&row.figures), [Some(1.0), Some(1.0), Some(1.0)]);
    assert_eq!(shown(&row.previous_figures), [Some(0.0), Some(0.0), None]);
    assert!(row.previous_figures.iter().all(|figure| figure.exact));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_compared_however_small_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path()).await;
    let [mut consumer, _other] = consumers(&system).await;
    let ago = |hours: i64, name: &'static str| Event { name, ..Event::at(now_micros() - hours * HOUR) };
    let before = [ago(30, "small"), ago(31, "large"), ago(32, "large")];
    consumer.take(&system, &before).await;
    let now = [ago(1, "small"), ago(2, "small"), ago(3, "large")];
    let (partition, offset) = consumer.take(&system, &now).await;
    let question = QueryBreakdownRequest {
        compare_previous: true,
        max_rows: 1,
        min_consistency_token: token(partition, offset),
        ..breakdown("event_name")
    };
    let question = QueryBreakdownRequest { time_range: None, ..question };
    let answer = system.client.clone().query_breakdown(question).await.unwrap().into_inner();
    let values = |figures: &[Figure]| figures[0].value;
    assert_eq!((answer.rows.len(), answer.omitted_rows), (1, 1));
    assert_eq!((values(&answer.rows[0].figures), values(&answer.rows[0].previous_figures)), (2.0, 1.0));
    assert_eq!((values(&answer.totals), values(&answer.previous_totals)), (3.0, 3.0));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollup_that_is_younger_than_the_events_leaves_them_to_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path()).await;
    let [mut consumer, _other] = consumers(&system).await;
    consumer.take_without_rollups(&system, &[recent(1), recent(2)]).await;
    let (partition, offset) = consumer.take(&system, &[recent(3)]).await;
    let question = QueryBreakdownRequest {
        min_consistency_token: token(partition, offset),
        explain: true,
        ..breakdown("event_name")
    };
    let answer = system.client.clone().query_breakdown(question).await.unwrap().into_inner();
    let info = answer.info.unwrap();
    assert_eq!((answer.totals[0].value, info.source()), (3.0, Source::Store));
    assert_eq!(info.coverage_start_time, None);
    assert!(info.plan.contains("since it was configured"), "{}", info.plan);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_with_its_reader() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path()).await;
    let watch = system.watch(funnel(&["page_view"]).query()).await;
    let first = watch.take(1).count().await;
    assert_eq!(first, 1);
    let open = system.metrics.active_streams("analytics", "watch_query");
    while open.get() > 0 {
        tokio::task::yield_now().await;
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_tells_how_much_memory_it_held() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path()).await;
    let [mut consumer, _other] = consumers(&system).await;
    let (partition, offset) = consumer.take(&system, &[recent(1), recent(2)]).await;
    let question = QuerySqlRequest {
        statement: "select user_id, count(*) from events group by 1 order by 1".to_owned(),
        min_consistency_token: token(partition, offset),
        ..QuerySqlRequest::default()
    };
    let mut parts = system.client.clone().query_sql(question).await.unwrap().into_inner();
    let statistics = loop {
        if let Some(Part::Statistics(statistics)) = parts.message().await.unwrap().unwrap().part {
            break statistics;
        }
    };
    assert_eq!(statistics.rows, 2);
    assert!(statistics.peak_memory_bytes > 0);
    system.stop().await;
}
