//! What is asked while processes die, and what in the end.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use tokio::{sync::watch, task::JoinHandle};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use weir_proto::analytics::v1::{
    Condition, Filter, Measure, QueryBreakdownRequest, QueryBreakdownResponse, QuerySqlRequest, ResultInfo,
    TimeRange, analytics_service_client::AnalyticsServiceClient, condition::Operator, filter::Expression,
    measure, query_sql_response, result_info::Source,
};
use weir_tests::{
    process::{PATIENCE, Ports},
    system::System,
};

use super::load::{Ledger, Load, Tally};

/// How long one question may wait for the events that it wants.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Between two questions: the machine has other things to do.
const PAUSE: Duration = Duration::from_millis(5);

/// Questions under way: some about all that was acknowledged, which wait for it where need be, others about what there is at once.
pub(super) struct Questions {
    whole: Asking,
    at_once: Asking,
}

struct Asking {
    task: JoinHandle<Result<()>>,
    /// How many answers there were, all of them right.
    answers: watch::Receiver<u64>,
}

impl Questions {
    /// Asks about one client after the other, in SQL and otherwise, and compares each answer with what the client knows.
    pub(super) fn start(system: &System, load: &Load) -> Self {
        let asking = |whole: bool| {
            let (answered, answers) = watch::channel(0);
            let task = tokio::spawn(ask(system.addresses.analytics, load.ledgers.clone(), whole, answered));
            Asking { task, answers }
        };
        Self { whole: asking(true), at_once: asking(false) }
    }

    /// Waits for an answer about all that is acknowledged now.
    pub(super) async fn more(&mut self) -> Result<()> {
        let Asking { task, answers } = &mut self.whole;
        // The next one may be to a question that is under way.
        let target = *answers.borrow() + 2;
        match tokio::time::timeout(PATIENCE, answers.wait_for(|answers| *answers >= target)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => task.await?.and(Err(anyhow!("nothing is asked any more"))),
            Err(_) => bail!("questions are not answered any more"),
        }
    }

    /// How many answers there were.
    pub(super) async fn stop(self) -> Result<[u64; 2]> {
        Ok([self.whole.stop().await?, self.at_once.stop().await?])
    }
}

impl Asking {
    async fn stop(self) -> Result<u64> {
        let answers = *self.answers.borrow();
        drop(self.answers);
        self.task.await??;
        Ok(answers)
    }
}

/// Asks as long as anybody looks at the number of answers.
async fn ask(
    analytics: Ports,
    ledgers: Vec<watch::Receiver<Ledger>>,
    whole: bool,
    answers: watch::Sender<u64>,
) -> Result<()> {
    let channel = Endpoint::from_shared(analytics.grpc())?.timeout(TIMEOUT).connect_lazy();
    let mut analytics = AnalyticsServiceClient::new(channel);
    for turn in (0..).take_while(|_| !answers.is_closed()) {
        let client = turn % ledgers.len();
        let known = if whole { ledgers[client].borrow().clone() } else { Ledger::default() };
        let found = match turn / ledgers.len() % 2 {
            0 => by_sql(&mut analytics, client, known.token).await,
            _ => by_breakdown(&mut analytics, client, known.token).await,
        };
        let sent = ledgers[client].borrow().sent;
        match found {
            Ok([events, different, users]) => {
                ensure!(events == different, "{events} events of client {client} with {different} ids");
                ensure!(
                    (known.acknowledged as f64..=sent as f64).contains(&events),
                    "{events} events of client {client}, of which {} were acknowledged and {sent} sent",
                    known.acknowledged
                );
                ensure!(
                    users <= events && (users > 0.0) == (events > 0.0),
                    "{users} users of {events} events"
                );
                answers.send_modify(|answers| *answers += 1);
            }
            // What it takes to answer was killed meanwhile.
            Err(status) => {
                let passes = [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::Unknown];
                ensure!(passes.contains(&status.code()), "a question about client {client}: {status}");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Events of a client, different ids of events, and users.
type Figures = [f64; 3];

async fn by_sql(
    analytics: &mut AnalyticsServiceClient<Channel>,
    client: usize,
    token: String,
) -> Result<Figures, Status> {
    let statement = format!(
        "select count(*), count(distinct event_id), count(distinct user_id) from events \
         where property('client') = 'client {client}'"
    );
    let request = QuerySqlRequest { statement, min_consistency_token: token, ..QuerySqlRequest::default() };
    let mut parts = analytics.query_sql(request).await?.into_inner();
    let mut figures = Vec::new();
    while let Some(part) = parts.message().await? {
        if let Some(query_sql_response::Part::Rows(more)) = part.part {
            figures.extend(more.rows.into_iter().flat_map(|row| row.values).map(|value| match value.kind {
                Some(prost_types::value::Kind::NumberValue(number)) => number,
                _ => f64::NAN,
            }));
        }
    }
    figures.try_into().map_err(|figures| Status::internal(format!("three figures: {figures:?}")))
}

/// A question that no rollup covers. It can't tell ids apart.
async fn by_breakdown(
    analytics: &mut AnalyticsServiceClient<Channel>,
    client: usize,
    token: String,
) -> Result<Figures, Status> {
    let of_client = Expression::Condition(Condition {
        field: "properties.client".into(),
        operator: Operator::In.into(),
        values: vec![prost_types::Value::from(format!("client {client}"))],
    });
    let request = QueryBreakdownRequest {
        filter: Some(Filter { expression: Some(of_client) }),
        ..by_event_name(true, token)
    };
    let answer = analytics.query_breakdown(request).await?.into_inner();
    let figure = |figure: usize| answer.totals.get(figure).map_or(0.0, |figure| figure.value);
    Ok([figure(0), figure(0), figure(1)])
}

fn by_event_name(exact: bool, min_consistency_token: String) -> QueryBreakdownRequest {
    let measure = |kind: measure::Kind| Measure { kind: kind.into(), exact, ..Measure::default() };
    QueryBreakdownRequest {
        time_range: Some(TimeRange {
            last: Some(prost_types::Duration { seconds: 86_400, nanos: 0 }),
            ..TimeRange::default()
        }),
        group_by: vec!["event_name".into()],
        measures: vec![
            measure(measure::Kind::Events),
            measure(measure::Kind::UniqueUsers),
            Measure { currency: "EUR".into(), ..measure(measure::Kind::Revenue) },
        ],
        min_consistency_token,
        ..QueryBreakdownRequest::default()
    }
}

/// Compares what rollups and events tell with what was acknowledged.
pub(super) async fn check(system: &System, expected: &Tally, tokens: &[String]) -> Result<()> {
    check_by(system, expected, tokens, false).await.context("from rollups")?;
    check_by(system, expected, tokens, true).await.context("from the events")
}

async fn check_by(system: &System, expected: &Tally, tokens: &[String], exact: bool) -> Result<()> {
    let channel: Channel = Endpoint::from_shared(system.addresses.analytics.grpc())?.connect().await?;
    let mut analytics = AnalyticsServiceClient::new(channel);
    let mut answer = QueryBreakdownResponse::default();
    for token in tokens {
        let asking = analytics.query_breakdown(by_event_name(exact, token.clone()));
        answer = tokio::time::timeout(PATIENCE, asking).await??.into_inner();
    }
    let mut cents = 0;
    let source = answer.info.as_ref().map(ResultInfo::source);
    ensure!((source == Some(Source::Store)) == exact, "{source:?} where exact is {exact}");
    ensure!(answer.rows.len() == expected.events.len(), "{:?}", answer.rows);
    for row in &answer.rows {
        let name = match &row.group[0].kind {
            Some(prost_types::value::Kind::StringValue(name)) => name.as_str(),
            other => bail!("an event name: {other:?}"),
        };
        let (events, users) = (row.figures[0].value, row.figures[1].value);
        ensure!(
            events == expected.events[name] as f64,
            "{name}: {events} counted, {} acknowledged",
            expected.events[name]
        );
        ensure!(row.figures[1].exact && users == expected.users[name].len() as f64, "{name}: {users} users");
        if let Some(money) = &row.figures[2].money {
            cents += money.units * 100 + i64::from(money.nanos) / 10_000_000;
        }
    }
    ensure!(cents == expected.cents, "revenue of {cents} cents counted, {} acknowledged", expected.cents);
    Ok(())
}
