//! `weir query events` and `weir query properties`: what there is to ask about.

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use weir_proto::analytics::v1::{
    EventName, ListEventNamesRequest, ListPropertiesRequest, Property, property_kind,
};

use super::{
    form::Shape,
    note_lacking,
    show::{footer, records},
};
use crate::{
    ask::range::Range,
    client::Connection,
    output, protojson,
    render::{
        figure::{self, grouped, plain_value},
        table::{self, numeric},
    },
    usage::Usage,
};

/// Names of events and how often they happened
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  weir query events
  weir query events purch --last 7d")]
pub(super) struct Events {
    /// Only names that contain this
    #[arg(default_value = "", hide_default_value = true)]
    search: String,
    /// Names at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    #[command(flatten)]
    range: Range,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    connection: Connection,
}

/// Properties that events have, with kinds and most frequent values
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  weir query properties
  weir query properties --event purchase --values 10
  weir query properties os --last 24h --json")]
pub(super) struct Properties {
    /// Only fields whose name contains this
    #[arg(default_value = "", hide_default_value = true)]
    search: String,
    /// Of events of this name; repeatable
    #[arg(long = "event", value_name = "NAME")]
    events: Vec<String>,
    /// Most frequent values shown of each; 0 saves the work of counting them
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=100))]
    values: u32,
    /// Properties at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    #[command(flatten)]
    range: Range,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    connection: Connection,
}

/// Lists names.
pub(super) async fn events(args: Events, now: Timestamp) -> Result<()> {
    let Events { search, limit, range, shape, connection } = args;
    let request = ListEventNamesRequest {
        search,
        time_range: range.resolve(now).map_err(Usage::from)?,
        page_size: limit,
        page_token: String::new(),
    };
    let answer = connection.analytics()?.list_event_names(shape.request(request)).await;
    let answer = answer.map_err(|status| connection.explain(status))?.into_inner();
    if shape.json || shape.csv {
        note_lacking(answer.info.as_ref(), &range.zone);
    }
    if shape.json {
        return Ok(output::line(protojson::to_pretty(&answer))?);
    }
    if shape.csv {
        return Ok(output::text(records(name_rows(&answer.event_names)))?);
    }
    let columns = [table::text("event"), numeric("events")];
    let rows = answer.event_names.iter().map(|name| vec![name.event_name.clone(), grouped(name.events)]);
    output::text(table::table(&columns, rows))?;
    finish(&answer.next_page_token, answer.info.as_ref(), &range)
}

/// Lists properties.
pub(super) async fn properties(args: Properties, now: Timestamp) -> Result<()> {
    let Properties { search, events, values, limit, range, shape, connection } = args;
    let request = ListPropertiesRequest {
        event_names: events,
        search,
        time_range: range.resolve(now).map_err(Usage::from)?,
        top_values: values,
        page_size: limit,
        page_token: String::new(),
    };
    let answer = connection.analytics()?.list_properties(shape.request(request)).await;
    let answer = answer.map_err(|status| connection.explain(status))?.into_inner();
    if shape.json || shape.csv {
        note_lacking(answer.info.as_ref(), &range.zone);
    }
    if shape.json {
        return Ok(output::line(protojson::to_pretty(&answer))?);
    }
    if shape.csv {
        return Ok(output::text(records(property_rows(&answer.properties)))?);
    }
    output::text(property_table(&answer.properties, values > 0))?;
    finish(&answer.next_page_token, answer.info.as_ref(), &range)
}

fn finish(
    next_page: &str,
    info: Option<&weir_proto::analytics::v1::ResultInfo>,
    range: &Range,
) -> Result<()> {
    if !next_page.is_empty() {
        output::line("and more: narrow the search or raise --limit")?;
    }
    if let Some(info) = info {
        output::text(footer(info, &range.zone))?;
    }
    Ok(())
}

fn name_rows(names: &[EventName]) -> Vec<Vec<String>> {
    let header = ["event_name", "events"].map(str::to_owned).to_vec();
    let rows = names.iter().map(|name| vec![name.event_name.clone(), name.events.to_string()]);
    std::iter::once(header).chain(rows).collect()
}

fn kind_name(kind: property_kind::Kind) -> &'static str {
    match kind {
        property_kind::Kind::Unspecified => "unknown",
        property_kind::Kind::Text => "text",
        property_kind::Kind::Number => "number",
        property_kind::Kind::Boolean => "boolean",
        property_kind::Kind::Structured => "list or structure",
        property_kind::Kind::Null => "null",
    }
}

fn property_table(properties: &[Property], with_values: bool) -> String {
    let mut columns = vec![table::text("property"), numeric("events"), table::text("kind")];
    if with_values {
        columns.extend([numeric("distinct"), table::text("most frequent")]);
    }
    let rows = properties.iter().map(|property| {
        let kinds: Vec<_> = property.kinds.iter().map(|kind| kind_name(kind.kind())).collect();
        let mut row = vec![property.field.clone(), grouped(property.events), kinds.join(", ")];
        if with_values {
            let top = property.top_values.iter();
            let top = top.filter_map(|top| {
                let up_to = if top.lower_bound < top.events { "up to " } else { "" };
                Some(format!("{} ({up_to}{})", figure::value(top.value.as_ref()?), grouped(top.events)))
            });
            row.push(property.distinct_values.as_ref().map(figure::figure).unwrap_or_default());
            row.push(top.collect::<Vec<_>>().join(", "));
        }
        row
    });
    table::table(&columns, rows)
}

/// A row for each kind of each property, then one for each of its values.
fn property_rows(properties: &[Property]) -> Vec<Vec<String>> {
    let mut rows = vec![["property", "kind", "value", "events"].map(str::to_owned).to_vec()];
    for property in properties {
        let row = |kind: &str, value: String, events: u64| {
            vec![property.field.clone(), kind.to_owned(), value, events.to_string()]
        };
        rows.extend(
            property.kinds.iter().map(|kind| row(kind_name(kind.kind()), String::new(), kind.events)),
        );
        rows.extend(
            property
                .top_values
                .iter()
                .map(|top| row("", top.value.as_ref().map(plain_value).unwrap_or_default(), top.events)),
        );
    }
    rows
}

#[cfg(test)]
mod tests {
    use prost_types::{Value, value::Kind};
    use weir_proto::analytics::v1::{Figure, PropertyKind, PropertyValue};

    use super::{super::show::stripped, *};

    fn property() -> Property {
        let kind = |kind: property_kind::Kind, events| PropertyKind { kind: kind.into(), events };
        let value = |text: &str, events| PropertyValue {
            value: Some(Value { kind: Some(Kind::StringValue(text.into())) }),
            events,
            lower_bound: events,
        };
        Property {
            field: "properties.plan".into(),
            events: 1500,
            kinds: vec![kind(property_kind::Kind::Text, 1499), kind(property_kind::Kind::Null, 1)],
            top_values: vec![value("free", 1200), value("pro", 299)],
            distinct_values: Some(Figure { value: 2.0, exact: true, ..Figure::default() }),
        }
    }

    #[test]
    fn properties_have_kinds_and_values() {
        insta::assert_snapshot!(stripped(&property_table(&[property()], true)), @r"
        property         events  kind        distinct  most frequent
        properties.plan   1,500  text, null         2  free (1,200), pro (299)
        ");
        insta::assert_snapshot!(stripped(&property_table(&[property()], false)), @r"
        property         events  kind
        properties.plan   1,500  text, null
        ");
        insta::assert_snapshot!(records(property_rows(&[property()])), @r"
        property,kind,value,events
        properties.plan,text,,1499
        properties.plan,null,,1
        properties.plan,,free,1200
        properties.plan,,pro,299
        ");
    }
}
