//! A user: who they are, and their events by day.

use jiff::{Timestamp, tz::TimeZone};
use weir_proto::{
    analytics::v1::{ListUserEventsResponse, User, UserEvent},
    event::v1::Event,
};

use super::Frame;
use crate::{
    moment, money, protojson,
    render::{
        ACCENT, BAD, FAINT, STRONG,
        figure::{self, grouped},
        paint,
    },
};

/// What is known of a user, as names and values.
pub(in super::super) fn profile(user: &User, zone: &TimeZone) -> Vec<(String, String)> {
    let time = |moment: &Option<prost_types::Timestamp>| {
        moment.as_ref().map(|moment| figure::time(moment::from_proto(moment), zone)).unwrap_or_default()
    };
    let mut facts = vec![("user".to_owned(), paint(STRONG, &user.user_id))];
    let mut add = |name: &str, value: String| {
        if !value.is_empty() {
            facts.push((name.to_owned(), value));
        }
    };
    add("also seen as", user.anonymous_ids.join(", "));
    add("first event", time(&user.first_event_time));
    add("last event", time(&user.last_event_time));
    add("events", grouped(user.events));
    add("visits", grouped(user.visits));
    let revenue =
        user.revenue.iter().map(|amount| format!("{} {}", money::display(amount), amount.currency_code));
    add("revenue", revenue.collect::<Vec<_>>().join(", "));
    let most =
        user.top_events.iter().take(5).map(|top| format!("{} {}", grouped(top.events), top.event_name));
    add("most", most.collect::<Vec<_>>().join(", "));
    for (key, value) in user.traits.iter().flat_map(|traits| &traits.fields) {
        add(key, figure::value(value));
    }
    facts
}

/// A line for each event under its day.
pub(super) fn text(answer: &ListUserEventsResponse, frame: &Frame) -> String {
    if answer.events.is_empty() {
        return "no events\n".to_owned();
    }
    let mut out = String::new();
    let mut day = None;
    for entry in &answer.events {
        let time = time(entry).to_zoned(frame.zone.clone());
        if day != Some(time.date()) {
            day = Some(time.date());
            out.push_str(&format!("{}\n", paint(STRONG, time.strftime("%A, %Y-%m-%d"))));
        }
        let nothing = Event::default();
        let event = entry.event.as_ref().unwrap_or(&nothing);
        let late = if entry.late { paint(BAD, "  late") } else { String::new() };
        out.push_str(&format!(
            "  {}  {}{}{late}\n",
            paint(FAINT, time.strftime("%H:%M:%S")),
            paint(ACCENT, &event.event_name),
            details(event)
        ));
    }
    if !answer.next_page_token.is_empty() {
        out.push_str("and more: --limit shows them\n");
    }
    out
}

fn details(event: &Event) -> String {
    let mut out = String::new();
    if let Some(amount) = &event.revenue {
        out.push_str(&format!("  {} {}", money::display(amount), amount.currency_code));
    }
    for (key, value) in event.properties.iter().flat_map(|properties| &properties.fields) {
        out.push_str(&format!("  {}{}", paint(FAINT, format_args!("{key}=")), figure::value(value)));
    }
    out
}

fn time(event: &UserEvent) -> Timestamp {
    event.corrected_time.as_ref().map(moment::from_proto).unwrap_or_default()
}

/// A row for each event; its properties as JSON.
pub(super) fn rows(events: &[UserEvent]) -> Vec<Vec<String>> {
    let header = ["time", "event_name", "session_id", "revenue", "currency", "properties", "event_id"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(events.iter().map(|entry| {
        let nothing = Event::default();
        let event = entry.event.as_ref().unwrap_or(&nothing);
        let (revenue, currency) = match &event.revenue {
            Some(amount) => (money::display(amount).replace(',', ""), amount.currency_code.clone()),
            None => Default::default(),
        };
        let properties = event.properties.as_ref().map(protojson::to_line).unwrap_or_default();
        let (name, session) = (event.event_name.clone(), event.session_id.clone());
        vec![time(entry).to_string(), name, session, revenue, currency, properties, event.event_id.clone()]
    }));
    rows
}

#[cfg(test)]
mod tests {
    use weir_proto::analytics::v1::{UserEventCount, watch_query_response::Result as Answer};

    use super::super::{csv, stripped, text};
    use super::*;

    fn answer() -> Answer {
        let event = |seconds: i64, json: serde_json::Value| UserEvent {
            event: Some(protojson::from_value(json).unwrap()),
            corrected_time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            late: seconds == 86_399,
            ..UserEvent::default()
        };
        Answer::UserEvents(ListUserEventsResponse {
            events: vec![
                event(86_399, serde_json::json!({"eventName": "view", "properties": {"page": "/a", "n": 2}})),
                event(
                    86_400,
                    serde_json::json!({
                        "eventName": "purchase", "sessionId": "s",
                        "revenue": {"currencyCode": "EUR", "units": "1234", "nanos": 500_000_000},
                    }),
                ),
            ],
            next_page_token: "more".into(),
            info: None,
        })
    }

    #[test]
    fn events_stand_under_their_day() {
        let frame = Frame::new(TimeZone::UTC);
        insta::assert_snapshot!(stripped(&text(&answer(), &frame, false)), @r"
        Thursday, 1970-01-01
          23:59:59  view  n=2  page=/a  late
        Friday, 1970-01-02
          00:00:00  purchase  1,234.50 EUR
        and more: --limit shows them
        ");
        insta::assert_snapshot!(csv(&answer(), &frame), @r#"
        time,event_name,session_id,revenue,currency,properties,event_id
        1970-01-01T23:59:59Z,view,,,,"{""n"":2.0,""page"":""/a""}",
        1970-01-02T00:00:00Z,purchase,s,1234.50,EUR,,
        "#);
    }

    #[test]
    fn a_profile_leaves_out_what_is_not_known() {
        let top = UserEventCount { event_name: "view".into(), events: 1200, last_time: None };
        let user = User { user_id: "ada".into(), events: 1300, top_events: vec![top], ..User::default() };
        let facts = profile(&user, &TimeZone::UTC);
        let shown: Vec<String> =
            facts.iter().map(|(name, value)| stripped(&format!("{name}: {value}"))).collect();
        assert_eq!(shown, ["user: ada", "events: 1,300", "visits: 0", "most: 1,200 view"]);
    }
}
