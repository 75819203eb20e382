//! Where rollups and the events themselves can both answer, they agree.

use std::sync::{Arc, LazyLock};

use datafusion::{catalog::TableProvider, execution::object_store::ObjectStoreUrl};
use weir_query::{Engine, Events, engine::Settings};
use weir_store::{
    table::Table,
    view::{Column, View as Columns},
};

use super::*;

/// One for all cases.
static ENGINE: LazyLock<Engine> =
    LazyLock::new(|| Engine::new(Settings { memory_bytes: 1 << 30, threads: 1 }).unwrap());
const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

/// Like a store without segments.
#[derive(Debug)]
struct Held(arrow::array::RecordBatch);

impl Events for Held {
    fn table(&self, columns: &[Column]) -> Result<Arc<dyn TableProvider>, weir_query::Error> {
        let (url, hot) = (ObjectStoreUrl::local_filesystem(), vec![(0, self.0.clone())]);
        let none = ENGINE.environment().object_store(&url).expect("the file system is always there");
        Ok(Arc::new(Table::new(Columns::new(columns.iter().cloned()), Vec::new(), hot, url, none)))
    }
}

/// The answer from the events of the range that the rollups' answer is about.
fn from_events(measures: &Measures, info: &ResultInfo, events: &[Event]) -> weir_query::series::Answer {
    let range = micros(info.start_time.as_ref().unwrap())..micros(info.end_time.as_ref().unwrap());
    let held = Arc::new(Held(testing::stored(events, 0)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(ENGINE.series(held, measures.of(range), LIMIT)).expect("an answer")
}

/// The key figures from the events of a range.
fn key_figures(range: Range<i64>, top: usize, events: &[Event]) -> weir_query::series::Summary {
    let held = Arc::new(Held(testing::stored(events, 0)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(ENGINE.summary(held, range, top, LIMIT)).expect("an answer")
}

fn assert_agree(rollup: &[pb::Figure], events: &[weir_query::series::Figure]) {
    assert_eq!(rollup.len(), events.len());
    for (index, (rollup, events)) in rollup.iter().zip(events).enumerate() {
        assert_eq!(rollup.empty, events.estimate.is_none(), "measure {index}: {rollup:?} and {events:?}");
        let Some(estimate) = events.estimate else { continue };
        assert!(estimate.exact, "measure {index}: {events:?}");
        if rollup.exact {
            // Sums of prices, which are quarters, have no rounding; averages and revenue are divided.
            let near = (rollup.value - estimate.value).abs() <= 1e-12 * estimate.value.abs();
            assert!(near, "measure {index}: {rollup:?} and {events:?}");
        } else {
            let bounds = rollup.lower_bound..=rollup.upper_bound;
            assert!(bounds.contains(&estimate.value), "measure {index}: {rollup:?} and {events:?}");
        }
        let money = events.money.as_ref().map(weir_rollup::money::Amount::to_money);
        assert_eq!(rollup.money, money, "measure {index}");
    }
}

/// The values of a group as the events' answer has them.
fn texts(group: &[prost_types::Value]) -> Vec<Option<String>> {
    let text = |value: &prost_types::Value| match &value.kind {
        Some(prost_types::value::Kind::StringValue(text)) => Some(text.clone()),
        _ => None,
    };
    group.iter().map(text).collect()
}

fn fields(fields: &[&str]) -> Vec<String> {
    fields.iter().map(|field| (*field).to_owned()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn series_agree(
        (now, events) in prop::sample::select(NOWS.to_vec())
            .prop_flat_map(|now| (Just(now), prop::collection::vec(event(now), 0..200))),
        zone in prop::sample::select(ZONES.to_vec()),
        interval in prop::sample::select(vec![
            pb::Interval::Unspecified, pb::Interval::Hour, pb::Interval::Day, pb::Interval::Week, pb::Interval::Month, pb::Interval::Quarter,
        ]),
        group_by in prop::sample::select(vec![&[][..], &["platform"], &["plan", "platform"], &["event_name"]]),
        filter in prop::option::of(0..filters().len()),
        hours in 1..40 * 24i64,
    ) {
        let filter = filter.filter(|_| group_by != ["event_name"]).map(|index| filters().swap_remove(index).0);
        let request = pb::QueryTimeSeriesRequest {
            time_range: last(hours * HOUR),
            interval: interval.into(),
            time_zone: zone.to_owned(),
            measures: measures(),
            group_by: fields(group_by),
            filter,
            max_series: 1000,
            ..Default::default()
        };
        let rollup = match answer(&Counts::TimeSeries(Measures::series(&request, MAX_ROWS).unwrap()), &events, now) {
            Ok(Answer::TimeSeries(answer)) => answer,
            // Hours of a zone with half ones, where only whole ones are left.
            Err(Error::TooFine(_)) => return Ok(()),
            other => panic!("{other:?}"),
        };
        let chosen = pb::QueryTimeSeriesRequest { interval: rollup.interval, ..request };
        let info = rollup.info.as_ref().unwrap();
        let exact = from_events(&Measures::series(&chosen, MAX_ROWS).unwrap(), info, &events);
        prop_assert_eq!(rollup.series.len(), exact.series.len());
        for of in &exact.series {
                        let series = rollup.series.iter().find(|series| texts(&series.group) == of.values);
            let series = series.expect("both have the same groups");
            assert_agree(&series.totals, &of.totals);
            prop_assert_eq!(series.points.len(), of.points.len());
            for (point, of) in series.points.iter().zip(&of.points) {
                prop_assert_eq!(point.start_time.as_ref(), Some(&timestamp(exact.buckets[of.bucket].start)));
                assert_agree(&point.figures, &of.figures);
            }
        }
        prop_assert_eq!(info.late_events, exact.read.late);
        let all_exact = rollup.series.iter().flat_map(|of| of.points.iter().flat_map(|point| &point.figures).chain(&of.totals));
        prop_assert_eq!(info.exact, all_exact.into_iter().all(|figure| figure.exact));
    }

    #[test]
    fn summaries_agree(
        (now, events) in prop::sample::select(NOWS.to_vec())
            .prop_flat_map(|now| (Just(now), prop::collection::vec(event(now), 0..300))),
        hours in 1..40 * 24i64,
        top_events in 1..4u32,
    ) {
        let request = pb::GetSummaryRequest { time_range: last(hours * HOUR), top_events, ..Default::default() };
        let question = Counts::Summary(summary::Summary::parse(&request).unwrap());
        let Ok(Answer::Summary(rollup)) = answer(&question, &events, now) else { panic!("a summary") };
        let info = rollup.info.as_ref().unwrap();
        let range = micros(info.start_time.as_ref().unwrap())..micros(info.end_time.as_ref().unwrap());
        let current = key_figures(range.clone(), top_events as usize, &events);
        let before = rollup.previous.as_ref().map(|_| key_figures(summary::preceding(&range), 0, &events));
        let exact = |figure: &Option<pb::Figure>| {
            let figure = figure.as_ref().expect("the figure is given");
            assert!(figure.exact && (figure.lower_bound, figure.upper_bound) == (figure.value, figure.value));
            figure.value as u64
        };
        for (rollup, events) in [(&rollup.current, Some(&current)), (&rollup.previous, before.as_ref())] {
            let (Some(rollup), Some(events)) = (rollup, events) else { continue };
            let counts = [&rollup.events, &rollup.unique_users, &rollup.sessions].map(exact);
            prop_assert_eq!(counts, [events.events, events.users, events.sessions]);
            let revenue: Vec<_> = events.revenue.amounts().iter().map(|amount| amount.to_money()).collect();
            prop_assert_eq!(&rollup.revenue, &revenue);
        }
        prop_assert_eq!(info.late_events, current.read.late);
        let top: Vec<_> = rollup
            .top_events
            .iter()
            .map(|event| (event.event_name.clone(), exact(&event.events), exact(&event.unique_users)))
            .collect();
        let expected: Vec<_> = current.top.iter().map(|event| (event.name.clone(), event.events, event.users)).collect();
        prop_assert_eq!(top, expected);
    }

    #[test]
    fn breakdowns_agree(
        events in prop::collection::vec(event(NOWS[2]), 0..300),
        group_by in prop::sample::select(vec![&["platform"][..], &["plan"], &["plan", "platform"], &["event_name"]]),
        filter in prop::option::of(0..filters().len()),
        hours in 1..40 * 24i64,
    ) {
        let filter = filter.filter(|_| group_by != ["event_name"]).map(|index| filters().swap_remove(index).0);
        let request = pb::QueryBreakdownRequest {
            time_range: last(hours * HOUR),
            measures: measures(),
            group_by: fields(group_by),
            filter,
            ..Default::default()
        };
        let rollup = breakdown(&request, &events, NOWS[2]);
        let info = rollup.info.as_ref().unwrap();
        let exact = from_events(&Measures::breakdown(&request, MAX_ROWS).unwrap(), info, &events);
        assert_agree(&rollup.totals, &exact.totals);
        // In the same order, too.
        let groups: Vec<_> = rollup.rows.iter().map(|row| texts(&row.group)).collect();
        let expected: Vec<_> = exact.series.iter().map(|of| of.values.clone()).collect();
        prop_assert_eq!(groups, expected);
        for (row, of) in rollup.rows.iter().zip(&exact.series) {
            assert_agree(&row.figures, &of.totals);
        }
    }
}
