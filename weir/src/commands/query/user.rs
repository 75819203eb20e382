//! `weir query user`: who somebody is and what they did.

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use weir_proto::analytics::v1::{
    GetUserRequest, GetUserResponse, ListUserEventsRequest, ListUserEventsResponse,
    watch_query_request::Query as Question, watch_query_response::Result as Answer,
};

use super::{
    form::{Form, Which},
    note_lacking,
    question::{self, Asked},
    show,
};
use crate::{
    ask::{filter, range::Range},
    client::Connection,
    output, protojson,
    usage::Usage,
};

/// Events that one call brings at most.
const PAGE: u32 = 1000;

/// One user: a profile, and their events as they happened
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  weir query user user_000042
  weir query user user_000042 --limit 500 --event purchase --csv
  weir query user user_000042 --oldest-first --from 2024-01-01
  weir query user user_000042 --watch")]
pub(super) struct User {
    /// The user's id, or the anonymous id of somebody who is not signed in
    id: String,
    /// Events at most
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Begin with the first event instead of the latest
    #[arg(long)]
    oldest_first: bool,
    #[command(flatten)]
    range: Range,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    connection: Connection,
}

/// Runs it. Watched, it shows the events alone: they are what changes.
pub(super) async fn run(args: User, now: Timestamp) -> Result<()> {
    let User { id, limit, oldest_first, range, which, form, connection } = args;
    let timeline = ListUserEventsRequest {
        user_id: id.clone(),
        page_size: u32::try_from(limit).unwrap_or(PAGE).min(PAGE),
        page_token: String::new(),
        newest_first: !oldest_first,
        time_range: range.resolve(now).map_err(Usage::from)?,
        event_names: which.events,
        filter: filter::all_of(which.passing.filters),
        min_consistency_token: form.token.clone(),
        explain: form.explain,
    };
    let frame = show::Frame::new(range.zone);
    if form.watch {
        return question::run(Asked { question: Question::UserEvents(timeline), frame, form, connection })
            .await;
    }
    let explain = |status| connection.explain(status);
    let profile = GetUserRequest {
        user_id: id,
        min_consistency_token: form.token.clone(),
        // The plan of the events is shown.
        explain: false,
    };
    let profile = connection.analytics()?.get_user(form.shape.request(profile)).await.map_err(explain)?;
    let profile = profile.into_inner();
    let events = events(&connection, &form, timeline, limit).await?;
    if form.shape.json || form.shape.csv {
        note_lacking(events.info.as_ref(), &frame.zone);
    }
    if form.shape.json {
        output::line(json(&profile, &events))?;
    } else if form.shape.csv {
        output::text(show::csv(&Answer::UserEvents(events), &frame))?;
    } else {
        output::facts(show::profile(&profile.user.unwrap_or_default(), &frame.zone))?;
        output::line("")?;
        output::text(show::text(&Answer::UserEvents(events), &frame, false))?;
    }
    Ok(())
}

/// So many events, by as many calls as it takes.
async fn events(
    connection: &Connection,
    form: &Form,
    mut request: ListUserEventsRequest,
    limit: u64,
) -> Result<ListUserEventsResponse> {
    let mut client = connection.analytics()?;
    let mut all = ListUserEventsResponse::default();
    loop {
        let page = client.list_user_events(form.shape.request(request.clone())).await;
        let page = page.map_err(|status| connection.explain(status))?.into_inner();
        all.events.extend(page.events);
        (all.next_page_token, all.info) = (page.next_page_token.clone(), page.info);
        let left = limit.saturating_sub(all.events.len() as u64);
        if left == 0 || page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_size = u32::try_from(left).unwrap_or(PAGE).min(PAGE);
        request.page_token = page.next_page_token;
    }
}

/// Both answers in one object.
fn json(profile: &GetUserResponse, events: &ListUserEventsResponse) -> String {
    format!("{{\"profile\":{},\"timeline\":{}}}", protojson::to_line(profile), protojson::to_line(events))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: User,
    }

    #[test]
    fn a_user_is_named() {
        assert!(Line::try_parse_from(["weir"]).is_err());
        assert!(Line::try_parse_from(["weir", "ada", "--limit", "0"]).is_err());
        let args = Line::try_parse_from(["weir", "ada", "--oldest-first", "--limit", "5000"]).unwrap().args;
        assert_eq!((args.id.as_str(), args.limit, args.oldest_first), ("ada", 5000, true));
    }

    #[test]
    fn both_answers_are_one_object() {
        let json: serde_json::Value =
            serde_json::from_str(&json(&GetUserResponse::default(), &ListUserEventsResponse::default()))
                .unwrap();
        assert!(json["profile"].is_object() && json["timeline"]["events"].is_array(), "{json}");
    }
}
