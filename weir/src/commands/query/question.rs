//! A question that can be watched, asked.

use anyhow::Result;
use weir_proto::analytics::v1::{
    WatchQueryRequest, watch_query_request::Query as Question, watch_query_response::Result as Answer,
};

use super::{form::Form, show};
use crate::{client::Connection, output, protojson};

/// A question with what is needed to show its answer.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) question: Question,
    pub(super) frame: show::Frame,
    pub(super) form: Form,
    pub(super) connection: Connection,
}

/// Asks, and prints the answer.
pub(super) async fn run(asked: Asked) -> Result<()> {
    if asked.form.watch { watch(asked).await } else { once(asked).await }
}

async fn once(asked: Asked) -> Result<()> {
    let mut client = asked.connection.analytics()?;
    let shape = &asked.form.shape;
    macro_rules! ask {
        ($rpc:ident, $kind:ident, $question:expr) => {
            client.$rpc(shape.request($question)).await.map(|answer| Answer::$kind(answer.into_inner()))
        };
    }
    let answer = match asked.question {
        Question::Summary(question) => ask!(get_summary, Summary, question),
        Question::TimeSeries(question) => ask!(query_time_series, TimeSeries, question),
        Question::Breakdown(question) => ask!(query_breakdown, Breakdown, question),
        Question::Funnel(question) => ask!(query_funnel, Funnel, question),
        Question::Retention(question) => ask!(query_retention, Retention, question),
        Question::Paths(question) => ask!(query_paths, Paths, question),
        Question::UserEvents(question) => ask!(list_user_events, UserEvents, question),
    };
    let answer = answer.map_err(|status| asked.connection.explain(status))?;
    if shape.json {
        output::line(match &answer {
            Answer::Summary(answer) => protojson::to_pretty(answer),
            Answer::TimeSeries(answer) => protojson::to_pretty(answer),
            Answer::Breakdown(answer) => protojson::to_pretty(answer),
            Answer::Funnel(answer) => protojson::to_pretty(answer),
            Answer::Retention(answer) => protojson::to_pretty(answer),
            Answer::Paths(answer) => protojson::to_pretty(answer),
            Answer::UserEvents(answer) => protojson::to_pretty(answer),
        })?;
        super::note_lacking(show::info(&answer), &asked.frame.zone);
    } else {
        print(&answer, &asked.frame, &asked.form)?;
    }
    Ok(())
}

async fn watch(asked: Asked) -> Result<()> {
    let request = WatchQueryRequest { query: Some(asked.question), min_interval: None };
    let explain = |status| asked.connection.explain(status);
    let mut stream = asked.connection.analytics()?.watch_query(request).await.map_err(explain)?.into_inner();
    while let Some(response) = stream.message().await.map_err(explain)? {
        if asked.form.shape.json {
            output::line(protojson::to_line(&response))?;
        } else if let Some(answer) = &response.result {
            output::redraw(true)?;
            print(answer, &asked.frame, &asked.form)?;
        }
    }
    anyhow::bail!("the service closed the stream")
}

fn print(answer: &Answer, frame: &show::Frame, form: &Form) -> Result<()> {
    if form.shape.csv {
        output::text(show::csv(answer, frame))?;
        super::note_lacking(show::info(answer), &frame.zone);
    } else {
        output::text(show::text(answer, frame, form.has_chart()))?;
    }
    Ok(())
}
