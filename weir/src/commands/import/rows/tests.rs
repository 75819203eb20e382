use std::io::Write as _;

use super::*;
use crate::{
    commands::import::{
        source::{self, Format},
        times,
    },
    protojson,
};

fn reading() -> Reading {
    Reading { time_format: times::Format::Auto, zone: jiff::tz::TimeZone::UTC }
}

fn layout(mappings: &[&str]) -> Layout {
    Layout {
        mappings: mappings.iter().map(|text| text.parse().unwrap()).collect(),
        properties: true,
        ..Layout::default()
    }
}

/// The rows of a file, or of standard input with the same bytes.
fn made(format: Format, text: &str, is_file: bool, layout: Layout, reading: Reading) -> Rows {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let mut source = source::open(file.path(), Some(format)).unwrap();
    if !is_file {
        source.once();
    }
    Rows::new(source, layout, reading).unwrap()
}

fn read(format: Format, text: &str, layout: Layout, reading: Reading) -> Vec<Row> {
    let mut rows = made(format, text, true, layout, reading);
    std::iter::from_fn(|| rows.next().unwrap()).collect()
}

fn rows(format: Format, text: &str, mappings: &[&str]) -> Vec<Row> {
    read(format, text, layout(mappings), reading())
}

fn show(rows: &[Row]) -> String {
    let lines = rows.iter().map(|row| match &row.event {
        Ok(event) => {
            let event = Event { event_id: String::new(), ..event.clone() };
            format!("{}: {}", row.line, protojson::to_line(&event))
        }
        Err(reason) => format!("{}! {reason}", row.line),
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn ids(format: Format, text: &str, mappings: &[&str]) -> Vec<String> {
    rows(format, text, mappings).into_iter().map(|row| row.event.unwrap().event_id).collect()
}

#[test]
fn csv_rows_become_events() {
    let text = "user_id,event,timestamp,price,note\n\
                u1,view,2024-03-13 10:21:14,9.5,\"two\nlines\"\n\
                u2,buy,yesterday,,\n\
                u3,buy\n\
                u4,view,1710325274,,ok\n";
    let rows = rows(Format::Csv, text, &["event_name=event", "event_time=timestamp"]);
    insta::assert_snapshot!(show(&rows), @r#"
    2: {"eventName":"view","userId":"u1","eventTime":"2024-03-13T10:21:14Z","properties":{"note":"two\nlines","price":9.5}}
    4! event_time: `yesterday` is no time that can be read in one way only: expected RFC 3339, YYYY-MM-DD HH:MM:SS or Unix time; describe other forms with --time-format, such as --time-format '%d/%m/%Y %H:%M'
    5! the row has 2 values, the header 5
    6: {"eventName":"view","userId":"u4","eventTime":"2024-03-13T10:21:14Z","properties":{"note":"ok"}}
    "#);
}

#[test]
fn a_column_has_one_type() {
    let text = "user_id,event_name,price,zip,trial,order,mixed\n\
                u1,a,5.00,0010,True,9007199254740993,7\n\
                u2,a,+5,10,FALSE,1,n/a\n\
                u3,a, 1e1,,,,\n";
    insta::assert_snapshot!(show(&rows(Format::Csv, text, &[])), @r#"
    2: {"eventName":"a","userId":"u1","properties":{"mixed":"7","order":"9007199254740993","price":5.0,"trial":true,"zip":"0010"}}
    3: {"eventName":"a","userId":"u2","properties":{"mixed":"n/a","order":"1","price":5.0,"trial":false,"zip":"10"}}
    4: {"eventName":"a","userId":"u3","properties":{"price":10.0}}
    "#);
    let mut made = made(Format::Csv, text, true, layout(&[]), reading());
    let notes = made.notes().join("\n");
    assert!(notes.contains("order: ") && notes.contains("2^53"), "{notes}");
    assert!(notes.contains("mixed: 1 of 2 look like numbers, kept as text"), "{notes}");
    while made.next().unwrap().is_some() {}
    assert_eq!(made.closing_notes(), Vec::<String>::new());

    let without = Layout { nulls: ["n/a".to_owned()].into(), text: ["zip".to_owned()].into(), ..layout(&[]) };
    let made = read(Format::Csv, text, without, reading());
    assert!(show(&made).contains(r#""mixed":7.0"#), "{}", show(&made));
}

#[test]
fn standard_input_is_typed_by_its_first_rows() {
    let mut text = "user_id,event_name,n\n".to_owned();
    text.push_str(&"u,a,7\n".repeat(10_000));
    text.push_str("u,a,many\nu,a,8.0\n");
    let mut made = made(Format::Csv, &text, false, layout(&[]), reading());
    let all: Vec<Row> = std::iter::from_fn(|| made.next().unwrap()).collect();
    let last = show(&all[9_999..]);
    assert_eq!(all.len(), 10_002);
    assert!(
        last.contains(r#""n":7.0"#) && last.contains(r#""n":"many""#) && last.contains(r#""n":8.0"#),
        "{last}"
    );
    let notes = made.closing_notes().join("\n");
    assert!(notes.contains("n: 1 values") && notes.contains("no number"), "{notes}");
    // Named as a file, the whole column is known.
    assert!(show(&rows(Format::Csv, &text, &[])[..1]).contains(r#""n":"7""#));
}

#[test]
fn blanks_behind_separators_are_no_part_of_the_values() {
    let text = "user_id, event_name, event_time, note\n\
                u1, view, 2024-01-15 10:00:00, \"a, b\"\n\
                u2, view, 2024-01-15 10:01:00, plain\n\
                u3 , view, 2024-01-15 10:02:00, \"quoted\"\n";
    insta::assert_snapshot!(show(&rows(Format::Csv, text, &[])), @r#"
    2: {"eventName":"view","userId":"u1","eventTime":"2024-01-15T10:00:00Z","properties":{"note":"a, b"}}
    3: {"eventName":"view","userId":"u2","eventTime":"2024-01-15T10:01:00Z","properties":{"note":"plain"}}
    4: {"eventName":"view","userId":"u3","eventTime":"2024-01-15T10:02:00Z","properties":{"note":"quoted"}}
    "#);
}

#[test]
fn columns_of_one_name_and_of_none() {
    let text = "user_id,event_name,plan,,plan\nu1,a,free,7,pro\n";
    insta::assert_snapshot!(show(&rows(Format::Csv, text, &[])), @r#"2: {"eventName":"a","userId":"u1","properties":{"plan":"free","plan_2":"pro"}}"#);
    let made = made(Format::Csv, text, true, layout(&[]), reading());
    let notes = made.notes().join("\n");
    assert!(notes.contains("`plan_2`") && notes.contains("column 4 has no name"), "{notes}");
}

#[test]
fn event_json_needs_no_mapping() {
    let text = r#"
{"eventName":"a","userId":"u","eventTime":"2024-03-13T10:21:14Z","properties":{"k":[1,null]},"revenue":{"currencyCode":"EUR","units":"9"},"extra":7}
{"event_name":"b","anonymous_id":"x","event_time":1710325274250,"weir_line":3,"weir_reason":"fixed"}
not json
[1]
{"event_name":"c","user_id":{"id":1}}
{"event_name":"c","user_id":"u","plan":"free","plan":"pro"}
{"event_name":"c","user_id":"u","":1}
"#;
    insta::assert_snapshot!(show(&rows(Format::Ndjson, text, &[])), @r#"
    2: {"eventName":"a","userId":"u","eventTime":"2024-03-13T10:21:14Z","properties":{"extra":7.0,"k":[1.0,null]},"revenue":{"currencyCode":"EUR","units":"9"}}
    3: {"eventName":"b","anonymousId":"x","eventTime":"2024-03-13T10:21:14.250Z"}
    4! not JSON: expected ident at line 1 column 2
    5! not a JSON object
    6! expected a text or a number where {"id":1} stands
    7! the key "plan" occurs twice: which value counts is not known
    8! a key without a name holds 1
    "#);
}

#[test]
fn numbers_of_json_are_one_id_however_they_are_written() {
    let text = r#"{"event_name":"a","user_id":101.0,"n":101.0}
{"event_name":"a","user_id":101,"n":101}
{"event_name":"a","user_id":1e2}
{"event_name":"a","user_id":9223372036854775807,"order":987654321012345678}
{"event_name":"a","user_id":9223372036854775806,"order":987654321012345679}
{"event_name":"a","user_id":340282366920938463463374607431768211456,"event_time":1710325274250001002}
"#;
    insta::assert_snapshot!(show(&rows(Format::Ndjson, text, &[])), @r#"
    1: {"eventName":"a","userId":"101","properties":{"n":101.0}}
    2: {"eventName":"a","userId":"101","properties":{"n":101.0}}
    3: {"eventName":"a","userId":"100"}
    4: {"eventName":"a","userId":"9223372036854775807","properties":{"order":"987654321012345678"}}
    5: {"eventName":"a","userId":"9223372036854775806","properties":{"order":"987654321012345679"}}
    6: {"eventName":"a","userId":"340282366920938463463374607431768211456","eventTime":"2024-03-13T10:21:14.250001002Z"}
    "#);
}

#[test]
fn amounts_from_floats_are_rounded_to_what_money_holds() {
    let text = r#"{"event_name":"a","user_id":"u","total":15.299999999999999,"c":"EUR"}
{"event_name":"a","user_id":"u","total":434.99999999999994,"c":"EUR"}
{"event_name":"a","user_id":"u","total":-0.3,"c":"EUR"}
{"event_name":"a","user_id":"u","total":1980,"c":"JPY"}
"#;
    insta::assert_snapshot!(show(&rows(Format::Ndjson, text, &["revenue=total", "currency=c"])), @r#"
    1: {"eventName":"a","userId":"u","revenue":{"currencyCode":"EUR","units":"15","nanos":300000000}}
    2: {"eventName":"a","userId":"u","revenue":{"currencyCode":"EUR","units":"435"}}
    3: {"eventName":"a","userId":"u","revenue":{"currencyCode":"EUR","nanos":-300000000}}
    4: {"eventName":"a","userId":"u","revenue":{"currencyCode":"JPY","units":"1980"}}
    "#);
}

#[test]
fn mappings_reach_into_objects() {
    let text = r#"{"actor":{"id":42},"type":"push","total":"3.50","ts":1710325274}"#;
    let mappings = ["user_id=actor.id", "event_name=type", "revenue=total:usd", "event_time=ts"];
    insta::assert_snapshot!(show(&rows(Format::Ndjson, text, &mappings)), @r#"1: {"eventName":"push","userId":"42","eventTime":"2024-03-13T10:21:14Z","properties":{"actor":{"id":42.0}},"revenue":{"currencyCode":"USD","units":"3","nanos":500000000}}"#);
}

#[test]
fn an_exported_csv_is_restored() {
    let text = "event_id,time,revenue,currency,event_name,event_type,user_id,context.os.name,properties.n,sequence,client_time,properties\n\
                0192d3a0-0000-7000-8000-000000000001,2024-01-15T10:00:05Z,9.99,EUR,a,PAGE,u,iOS,1,7,2024-01-15T10:00:00Z,\"{\"\"n\"\":\"\"1\"\",\"\"l\"\":[1.0,null,\"\"\"\"]}\"\n";
    insta::assert_snapshot!(show(&rows(Format::Csv, text, &[])), @r#"2: {"eventName":"a","eventType":"EVENT_TYPE_PAGE","userId":"u","sequence":"7","eventTime":"2024-01-15T10:00:00Z","clockOffset":"5s","properties":{"l":[1.0,null,""],"n":"1"},"revenue":{"currencyCode":"EUR","units":"9","nanos":990000000},"context":{"os":{"name":"iOS"}}}"#);
    assert_eq!(ids(Format::Csv, text, &[]), ["0192d3a0-0000-7000-8000-000000000001"]);
}

#[test]
fn rows_from_a_rejects_file_keep_their_ids() {
    let csv = ids(Format::Csv, "user_id,event_name\nu,a\n", &[]);
    assert_eq!(csv, ids(Format::Csv, "user_id,event_name,weir_line,weir_reason\nu,a,7,no\n", &[]));
    let line = r#"{"user_id":"u","event_name":"a","properties":{"n":1.50}}"#;
    let rejected =
        r#"{"event_name":"a","properties":{"n":1.5},"user_id":"u","weir_line":7,"weir_reason":"no"}"#;
    assert_eq!(ids(Format::Ndjson, line, &[]), ids(Format::Ndjson, rejected, &[]));
    assert_ne!(ids(Format::Ndjson, line, &[]), ids(Format::Ndjson, &line.replace("1.50", "1.6"), &[]));
}

#[test]
fn a_quote_that_is_not_closed_ends_the_reading_and_names_its_line() {
    let rest = "v,b\n".repeat(1 << 19);
    let text = format!("user_id,event_name,n\nu,a,1\n\"u,a\n{rest}");
    for is_file in [false, true] {
        let mut rows = made(Format::Csv, &text, is_file, layout(&[]), reading());
        assert!(rows.next().unwrap().unwrap().event.is_ok());
        let error = format!("{:#}", rows.next().unwrap_err());
        assert!(error.contains("begins in line 3") && error.contains("quote"), "{error}");
    }
}

#[test]
fn a_row_that_nests_too_deep_fails_alone() {
    let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
    let text = format!(
        "{{\"event_name\":\"a\",\"user_id\":\"u\",\"k\":{deep}}}\n{{\"event_name\":\"b\",\"user_id\":\"u\"}}\n"
    );
    let rows = rows(Format::Ndjson, &text, &[]);
    assert!(rows[0].event.as_ref().unwrap_err().contains("levels deep"), "{rows:?}");
    assert!(rows[1].event.is_ok());
}

#[test]
fn ids_follow_from_the_event_that_a_row_becomes() {
    let text = "user_id,event_name,event_time\nu,a,20240115\nu,a,20240115\nv,a,20240116\n";
    let first = ids(Format::Csv, text, &[]);
    assert_eq!(first, ids(Format::Csv, text, &[]));
    assert_eq!(first, ids(Format::Csv, &text.replace("v,a", "\"v\",a"), &[]));
    assert_ne!(first[0], first[1], "identical rows count separately");

    // Read in another way, a row is another event; rows that are not touched by it stay the same.
    let zone = Reading { zone: crate::moment::zone("Asia/Kolkata").unwrap(), ..reading() };
    let corrected = read(Format::Csv, text, layout(&[]), zone);
    assert!(corrected.iter().zip(&first).all(|(row, id)| row.event.as_ref().unwrap().event_id != *id));
    let mapped = ["user_id=user_id", "event_name=event_name", "event_time=event_time"];
    assert_eq!(first, ids(Format::Csv, text, &mapped), "the same mapping in other words");
}
