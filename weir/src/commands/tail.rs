//! `weir tail`: events as they arrive.

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use weir_proto::{
    analytics::v1::{Filter, WatchEventsRequest},
    event::v1::Event,
};

use crate::{
    ask::filter,
    client::Connection,
    moment, money, output, protojson,
    render::{ACCENT, FAINT, STRONG, figure, grouped, paint},
};

/// Show events as they arrive, until Ctrl-C
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  weir tail
  weir tail --event purchase --where 'platform in android, ios'
  weir tail --user user_000042 --json | jq .event.eventName")]
pub(crate) struct Tail {
    /// Only events of this name; repeatable
    #[arg(long = "event", value_name = "NAME")]
    events: Vec<String>,
    /// Only events of this user or visitor
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// Only events that pass, such as 'platform=ios' or 'price > 10'; repeatable: all must hold
    #[arg(long = "where", value_name = "TEST", value_parser = filter::parse)]
    filters: Vec<Filter>,
    /// Stop after that many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Print each event as a line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Runs it.
pub(crate) async fn run(args: Tail) -> Result<()> {
    let request = WatchEventsRequest {
        event_names: args.events,
        user_id: args.user.unwrap_or_default(),
        filter: filter::all_of(args.filters),
    };
    let explain = |status| args.connection.explain(status);
    let mut stream = args.connection.analytics()?.watch_events(request).await.map_err(explain)?.into_inner();
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(response) = stream.message().await.map_err(explain)? else {
            anyhow::bail!("the service closed the stream");
        };
        if response.missed > 0 {
            output::note(format!(
                "{} events were missed: this reader was too slow",
                grouped(response.missed)
            ));
        }
        for live in response.events.into_iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            left -= 1;
            if args.json {
                output::line(protojson::to_line(&live))?;
            } else {
                let time = live.corrected_time.as_ref().map_or_else(Timestamp::now, moment::from_proto);
                output::line(pretty(&live.event.unwrap_or_default(), time))?;
            }
        }
    }
    Ok(())
}

/// One line for one event.
pub(crate) fn pretty(event: &Event, time: Timestamp) -> String {
    let who = if event.user_id.is_empty() { &event.anonymous_id } else { &event.user_id };
    let mut line = format!(
        "{} {} {}",
        paint(FAINT, time.strftime("%H:%M:%S%.3f")),
        paint(STRONG, format_args!("{:<14}", event.event_name)),
        paint(ACCENT, format_args!("{who:<18}")),
    );
    if let Some(amount) = &event.revenue {
        line.push_str(&format!(" {} {}", money::display(amount), amount.currency_code));
    }
    for (key, value) in event.properties.iter().flat_map(|properties| &properties.fields) {
        line.push_str(&format!(" {}{}", paint(FAINT, format_args!("{key}=")), figure::value(value)));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event: Event = protojson::from_value(serde_json::json!({
            "eventName": "purchase", "userId": "ada", "properties": {"plan": "pro", "items": 2},
            "revenue": {"currencyCode": "EUR", "units": "9", "nanos": 990_000_000},
        }))
        .unwrap();
        let line = pretty(&event, "2024-03-13T10:21:14.250Z".parse().unwrap());
        let line = anstream::adapter::strip_str(&line).to_string();
        insta::assert_snapshot!(line, @"10:21:14.250 purchase       ada                9.99 EUR items=2 plan=pro");
    }
}
