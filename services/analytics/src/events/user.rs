//! `GetUser` and `ListUserEvents`.

use std::{collections::BTreeMap, ops::Range};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use prost_types::{Struct, Value};
use weir_proto::{
    analytics::v1 as pb,
    event::v1::Context,
    time::timestamp,
    validate::{Path, Violations},
};
use weir_query::{
    export::{Page, Timeline},
    user::Profile,
};
use weir_rollup::money::{Amount, Currency};
use weir_store::{Decoder, schema::Kind};

use super::Seen;
use crate::{
    error::Error,
    question::{
        TimeRange,
        reader::{Reader, number_or},
    },
};

/// Events a page when the request says nothing.
const PAGE: usize = 100;
/// Anonymous ids and event names in a profile at most.
const LISTED: usize = 100;

/// The response with a profile.
///
/// # Errors
/// [`Error::NotFound`] when there is no event of the user.
pub(crate) fn profile(user: &str, found: Profile, seen: &Seen) -> Result<pb::GetUserResponse, Error> {
    let Some((first, last)) = found.first_seen.zip(found.last_seen) else {
        return Err(Error::NotFound(format!(
            "no event of the user `{user}` is kept; users are found by `user_id`, or by `anonymous_id` if they never signed in"
        )));
    };
    let told = |amount: &&Amount| amount.currency != Currency::NONE;
    let revenue = found.revenue.amounts().iter().filter(told).map(Amount::to_money);
    let mut context = None::<Context>;
    for (field, text) in &found.context {
        text.clone_into(field.of_mut(context.get_or_insert_default()));
    }
    let top = found.did.iter().take(LISTED).map(|did| pb::UserEventCount {
        event_name: did.name.clone(),
        events: did.events,
        last_time: Some(timestamp(did.last)),
    });
    let user = pb::User {
        user_id: user.to_owned(),
        anonymous_ids: found.anonymous_ids.iter().take(LISTED).cloned().collect(),
        first_event_time: Some(timestamp(first)),
        last_event_time: Some(timestamp(last)),
        events: found.events,
        visits: found.visits,
        revenue: revenue.collect(),
        top_events: top.collect(),
        traits: traits(&found.traits),
        last_context: context,
    };
    let info = seen.info(&(first..last.saturating_add(1)), found.read, true);
    Ok(pb::GetUserResponse { user: Some(user), info: Some(info) })
}

fn traits(found: &BTreeMap<String, (Kind, Option<String>)>) -> Option<Struct> {
    let value = |(kind, text): &(Kind, Option<String>)| Value {
        kind: Some(weir_store::property(*kind, text.as_deref())),
    };
    let fields: BTreeMap<_, _> = found.iter().map(|(key, of)| (key.clone(), value(of))).collect();
    (!fields.is_empty()).then_some(Struct { fields })
}

/// A page that is asked for, but for its range, which may depend on the moment.
#[derive(Debug, Clone)]
pub(crate) struct UserEvents {
    /// `None`: all that is kept.
    pub(crate) range: Option<TimeRange>,
    timeline: Timeline,
}

impl UserEvents {
    /// Reads a request.
    pub(crate) fn parse(request: &pb::ListUserEventsRequest) -> Result<Self, Violations> {
        let mut reader = Reader::new(request)?;
        let range = reader.range_or_all(request.time_range.as_ref());
        let after = match request.page_token.as_str() {
            "" => None,
            token => {
                let place = parse_token(token);
                if place.is_none() {
                    let problem = "must be the next_page_token of the page before";
                    reader.refuse(&Path::ROOT.field("page_token"), problem);
                }
                place
            }
        };
        let timeline = Timeline {
            user: request.user_id.clone(),
            range: 0..0,
            filter: reader.events(&Path::ROOT, &request.event_names, request.filter.as_ref()),
            newest_first: request.newest_first,
            after,
            page: number_or(request.page_size, PAGE),
        };
        reader.finish(Self { range, timeline })
    }

    /// The question about a range.
    pub(crate) fn of(&self, range: Range<i64>) -> Timeline {
        Timeline { range, ..self.timeline.clone() }
    }

    /// The response with a page.
    ///
    /// # Errors
    /// When the stored events can't be read.
    pub(crate) fn response(
        &self,
        page: &Page,
        range: &Range<i64>,
        seen: &Seen,
    ) -> Result<pb::ListUserEventsResponse, Error> {
        let decoder = Decoder::new(&page.events)?;
        let rows = 0..page.events.num_rows();
        let events = rows.clone().map(|row| {
            let record = decoder.record(row);
            pb::UserEvent {
                event: record.event,
                receive_time: Some(timestamp(record.receive_time_micros)),
                corrected_time: Some(timestamp(record.corrected_time_micros)),
                late: decoder.late(row),
            }
        });
        let last = rows.clone().next_back().filter(|_| page.more);
        Ok(pb::ListUserEventsResponse {
            events: events.collect(),
            next_page_token: last
                .map(|row| token(decoder.time(row), decoder.offset(row)))
                .unwrap_or_default(),
            info: Some(seen.info(range, page.read, true)),
        })
    }
}

/// A place in a timeline: time and offset of the event before it.
fn token(time: i64, offset: u64) -> String {
    BASE64_URL_SAFE_NO_PAD.encode([time.to_be_bytes(), offset.to_be_bytes()].concat())
}

fn parse_token(text: &str) -> Option<(i64, i64)> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
    let (time, offset) = bytes.split_first_chunk::<8>()?;
    Some((i64::from_be_bytes(*time), i64::from_be_bytes(offset.try_into().ok()?)))
}
