//! `weir send`: events from the command line or standard input.

use std::{
    io::{self, BufRead, IsTerminal as _, Read},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use clap::Args;
use jiff::{Timestamp, tz::TimeZone};
use prost::Message as _;
use prost_types::Struct;
use serde_json::{Deserializer, Value};
use uuid::Uuid;
use weir_client::{
    Covered, is_transient,
    stream::{self, MAX_BATCH_BYTES, MAX_BATCH_EVENTS},
};
use weir_proto::{
    event::v1::Event,
    google::r#type::Money,
    ingest::v1::{IngestEventRequest, IngestEventsRequest, event_result::Outcome},
};

use super::{import::typed, rejection, settled};
use crate::{client::Connection, moment, money, output, protojson, usage::Usage};

/// How long to wait for `--wait`, and to retry while Weir is busy or away.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(100))
    .with_max_delay(Duration::from_secs(2))
    .without_max_times();

/// Send one event, or many as JSON from standard input
///
/// Answers when the events are durable, and prints their ids. From standard input it reads JSON objects, one a line or
/// otherwise separated, or an array of them, in the form that the REST API takes.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  weir send --event signup --user ada
  weir send --event purchase --user ada --property plan=pro --revenue 9.99:EUR --wait
  echo '{\"eventName\":\"signup\",\"userId\":\"ada\"}' | weir send
  weir simulate --dry-run --json --count 1000 | weir send --quiet")]
pub(crate) struct Send {
    /// The event's name; without it events are read from standard input
    #[arg(long = "event", value_name = "NAME")]
    name: Option<String>,
    /// The user
    #[arg(long, value_name = "ID", requires = "name")]
    user: Option<String>,
    /// The visitor, before signing in
    #[arg(long, value_name = "ID", requires = "name")]
    anonymous: Option<String>,
    /// The visit
    #[arg(long, value_name = "ID", requires = "name")]
    session: Option<String>,
    /// A property; numbers, true and false are taken as such
    #[arg(long = "property", short = 'p', value_name = "KEY=VALUE", value_parser = property, requires = "name")]
    properties: Vec<(String, String)>,
    /// Money earned, such as 9.99:EUR
    #[arg(long, value_name = "AMOUNT:CURRENCY", value_parser = money::with_currency, requires = "name", allow_hyphen_values = true)]
    revenue: Option<Money>,
    /// When it happened: RFC 3339, 2024-01-31T10:00 (UTC), now-5m; now when left out
    #[arg(long, value_name = "TIME", requires = "name")]
    time: Option<String>,
    /// The event's id, a UUID; made when left out
    #[arg(long, value_name = "UUID", requires = "name")]
    id: Option<Uuid>,
    /// Accept events of any age
    #[arg(long)]
    import: bool,
    /// Wait until the events are counted
    #[arg(long)]
    wait: bool,
    /// Don't print the ids
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    connection: Connection,
}

fn property(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Runs it.
pub(crate) async fn run(args: Send) -> Result<()> {
    let token = match args.name.clone() {
        Some(name) => one(&args, event(&args, name)?).await?,
        None => many(&args).await?,
    };
    if args.wait {
        settled::counted(&args.connection, &token, PATIENCE).await?;
    }
    Ok(())
}

fn event(args: &Send, name: String) -> Result<Event> {
    let time = args.time.as_deref().unwrap_or("now");
    let time = moment::moment(time, &TimeZone::UTC, Timestamp::now()).map_err(Usage::from)?;
    let properties = args.properties.iter().map(|(key, value)| (key.clone(), typed(value)));
    Ok(Event {
        event_id: args.id.unwrap_or_else(Uuid::now_v7).to_string(),
        event_name: name,
        user_id: args.user.clone().unwrap_or_default(),
        anonymous_id: args.anonymous.clone().unwrap_or_default(),
        session_id: args.session.clone().unwrap_or_default(),
        event_time: Some(moment::to_proto(time)),
        properties: (!args.properties.is_empty()).then(|| Struct { fields: properties.collect() }),
        revenue: args.revenue.clone(),
        ..Event::default()
    })
}

fn request<T>(args: &Send, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if args.import {
        request.metadata_mut().insert("weir-import", tonic::metadata::MetadataValue::from_static("true"));
    }
    request
}

/// Calls until it succeeds or no retry helps; events have ids, so what was taken twice counts once.
async fn patiently<T>(
    connection: &Connection,
    mut call: impl AsyncFnMut() -> Result<T, tonic::Status>,
) -> Result<T> {
    let began = tokio::time::Instant::now();
    for pause in PAUSES.build() {
        match call().await {
            Ok(answer) => return Ok(answer),
            // Nobody there at all is told at once: most likely Weir is not running.
            Err(status) if !is_transient(&status) || is_refused(&status) || began.elapsed() >= PATIENCE => {
                return Err(connection.explain(status));
            }
            Err(_) => tokio::time::sleep(pause).await,
        }
    }
    unreachable!("without a number of times there is always a next pause")
}

fn is_refused(status: &tonic::Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

async fn one(args: &Send, event: Event) -> Result<String> {
    let client = args.connection.ingest()?;
    let answer = patiently(&args.connection, async || {
        client.clone().ingest_event(request(args, IngestEventRequest { event: Some(event.clone()) })).await
    });
    let answer = answer.await?.into_inner();
    if !args.quiet {
        output::line(&answer.event_id)?;
    }
    Ok(answer.consistency_token)
}

async fn many(args: &Send) -> Result<String> {
    if io::stdin().is_terminal() {
        output::note("reading events as JSON from the terminal; end with Ctrl-D (or name one with --event)");
    }
    let mut events = read(io::stdin().lock());
    let mut covered = Covered::default();
    let (mut number, mut rejected) = (0_u64, 0_u64);
    loop {
        let (mut batch, mut bytes, mut broken) = (Vec::new(), 0, None);
        while batch.len() < MAX_BATCH_EVENTS && bytes < MAX_BATCH_BYTES {
            match events.next() {
                Some(Ok(event)) => {
                    bytes += event.encoded_len();
                    batch.push(event);
                }
                // What came before it is sent all the same.
                Some(Err(error)) => {
                    broken = Some(error);
                    break;
                }
                None => break,
            }
        }
        if !batch.is_empty() {
            let count = batch.len() as u64;
            let client = args.connection.ingest()?;
            let message = IngestEventsRequest { events: batch };
            let answer = patiently(&args.connection, async || {
                let answer = client.clone().ingest_events(request(args, message.clone())).await?;
                // What the log could not take for now is no more rejected than what a broken connection lost.
                match answer.get_ref().results.iter().find_map(stream::unsettled) {
                    Some(status) => Err(status),
                    None => Ok(answer),
                }
            });
            let answer = answer.await?.into_inner();
            covered.add(&answer.consistency_token);
            for result in &answer.results {
                if result.outcome() == Outcome::Rejected {
                    let reason = result.error.as_ref().map(rejection).unwrap_or_default();
                    output::note(format!(
                        "event {} was rejected: {reason}",
                        number + u64::from(result.index) + 1
                    ));
                    rejected += 1;
                } else if !args.quiet {
                    output::line(&result.event_id)?;
                }
            }
            number += count;
        } else if broken.is_none() {
            break;
        }
        if let Some(error) = broken {
            return Err(
                error.context(format!("event {} of standard input; {number} before it are sent", number + 1))
            );
        }
    }
    match (number, rejected) {
        (0, _) => bail!("standard input holds no event; name one with --event, or see `weir send --help`"),
        (_, 0) => Ok(covered.token()),
        _ => bail!("{rejected} of {number} events were rejected"),
    }
}

/// The events of a stream of JSON objects or arrays of them.
fn read(input: impl Read) -> impl Iterator<Item = Result<Event>> {
    let mut input = io::BufReader::new(input);
    if input.fill_buf().is_ok_and(|start| start.starts_with(b"\xEF\xBB\xBF")) {
        input.consume(3);
    }
    Deserializer::from_reader(input).into_iter::<Value>().flat_map(|value| {
        let values = match value {
            Ok(Value::Array(values)) => values.into_iter().map(Ok).collect(),
            other => vec![other],
        };
        values.into_iter().map(|value| {
            let mut event: Event =
                protojson::from_value(value.context("not JSON")?).context("not an event")?;
            // With an id of our own a retry counts once.
            if event.event_id.is_empty() {
                event.event_id = Uuid::now_v7().to_string();
            }
            Ok(event)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        read(text.as_bytes())
            .map(|event| event.map_or_else(|error| format!("! {error:#}"), |event| event.event_name))
            .collect()
    }

    #[test]
    fn objects_lines_and_arrays_are_read() {
        let text = "{\"eventName\":\"a\"}\n{\n \"event_name\": \"b\"}{\"eventName\":\"c\"} [{\"eventName\":\"d\"},{\"eventName\":\"e\"}]";
        assert_eq!(names(text), ["a", "b", "c", "d", "e"]);
    }

    #[test]
    fn what_is_no_event_is_named() {
        let read = names("{\"eventName\":\"a\"} {\"nme\":1}");
        assert!(read[1].contains("nme"), "{read:?}");
        assert!(names("nonsense")[0].contains("not JSON"));
    }

    #[test]
    fn each_event_gets_an_id_of_its_own() {
        let ids: Vec<String> = read("{\"eventName\":\"a\"}{\"eventName\":\"a\"}".as_bytes())
            .map(|e| e.unwrap().event_id)
            .collect();
        assert_ne!(ids[0], ids[1]);
    }
}
