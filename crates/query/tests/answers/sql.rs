//! SQL: what it can do, and what it can't.

use std::sync::Arc;

use arrow::{
    array::{AsArray as _, RecordBatch},
    datatypes::Int32Type,
    util::pretty::pretty_format_batches,
};
use futures::StreamExt as _;
use weir_query::{Error, Events, sql::Limits};

use crate::events::{Event, Held, LIMIT, engine, funnel, run};

fn events() -> Arc<dyn Events> {
    let event = |(time, user, name, plan, price): (i64, &str, &str, Option<&str>, Option<f64>)| Event {
        user: user.to_owned(),
        name: name.to_owned(),
        time: time * 1_000_000,
        texts: plan.map(|plan| ("plan".to_owned(), plan.to_owned())).into_iter().collect(),
        numbers: price.map(|price| ("price".to_owned(), price)).into_iter().collect(),
        ..Event::default()
    };
    let all = [
        (1, "ann", "visit", Some("pro"), None),
        (2, "ann", "buy", Some("pro"), Some(9.5)),
        (3, "bob", "visit", None, None),
        (4, "bob", "visit", Some("free"), None),
        (90, "bob", "buy", None, Some(0.5)),
        (91, "cyd", "buy", None, Some(7.0)),
    ];
    Held::of(&all.map(event), 4)
}

fn ask(text: &str) -> Result<Vec<RecordBatch>, Error> {
    ask_of(events(), text)
}

fn ask_of(events: Arc<dyn Events>, text: &str) -> Result<Vec<RecordBatch>, Error> {
    run(async {
        let limits = Limits { time: LIMIT, rows: 100 };
        let rows = engine().sql(events, text.to_owned(), limits).await?;
        rows.collect::<Vec<_>>().await.into_iter().collect()
    })
}

fn shown(text: &str) -> String {
    let table = pretty_format_batches(&ask(text).unwrap_or_else(|error| panic!("{text}: {error}")))
        .unwrap()
        .to_string();
    let rows = table.lines().filter(|line| line.starts_with('|')).skip(1);
    let cells = |row: &str| row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(",");
    rows.map(cells).collect::<Vec<_>>().join(";")
}

#[test]
fn properties_are_columns() {
    let text = "select property('plan') plan, count(*), sum(property_number('price')) from events \
                group by 1 order by plan nulls last";
    assert_eq!(shown(text), "free,1,;pro,2,9.5;,3,7.5");
    let joined = "select count(*) from events a join events b on property(a, 'plan') = property(b, 'plan')";
    assert_eq!(shown(joined), "5");
    assert_eq!(shown("with v as (select * from events) select max(extract(minute from time)) from v"), "1");
}

#[test]
fn funnels_and_retention_are_functions() {
    let text = "select user_id, funnel_depth(time, 60, event_name = 'visit', event_name = 'buy') depth \
                from events group by user_id order by user_id";
    assert_eq!(shown(text), "ann,2;bob,1;cyd,0");
    let text = "select user_id, retention(event_name = 'visit', event_name = 'buy') \
                from events group by user_id order by user_id";
    assert_eq!(shown(text), "ann,[true, true];bob,[true, true];cyd,[false, false]");
}

#[test]
fn events_at_one_time_are_in_the_order_of_the_log_for_funnels_and_sql_alike() {
    let depths = |names: [&str; 2]| {
        let event = |name: &str| Event { user: "dan".into(), name: name.into(), time: 5, ..Event::default() };
        let held = Held::of(&names.map(event), 4);
        let question = funnel(0..10, &["see", "buy"], 60_000_000);
        let answer = run(engine().funnel(held.clone(), question, LIMIT)).unwrap();
        let depth = answer.total.iter().filter(|step| step.count > 0).count();
        let steps = "event_name = 'see', event_name = 'buy'";
        for text in [
            format!("select funnel_depth(time, 60, {steps}) from events group by user_hash"),
            format!("select funnel_depth(e.time, 60, {steps}) from events e group by user_hash"),
            format!("select funnel_depth(time, log_offset, 60, {steps}) from events group by user_hash"),
        ] {
            let table = pretty_format_batches(&ask_of(held.clone(), &text).unwrap()).unwrap().to_string();
            assert!(table.contains(&format!(" {depth} ")), "{names:?}, {depth}: {text}: {table}");
        }
        depth
    };
    assert_eq!((depths(["see", "buy"]), depths(["buy", "see"])), (2, 1));
}

#[test]
fn nothing_but_queries_over_events_can_be_planned() {
    for text in [
        "drop table events",
        "create table t as select 1",
        "create external table t stored as csv location '/etc/passwd'",
        "insert into events values (1)",
        "copy events to 'x.csv'",
        "copy (select 1) to 'x.csv' stored as csv",
        "set datafusion.execution.batch_size = 1",
        "explain drop table events",
        "explain insert into events values (1)",
        "explain analyze copy events to 'x.csv'",
        "describe other",
        "show tables",
        "show all",
        "select 1; select 2",
        "select * from '/etc/passwd'",
        "select * from \"/etc/passwd\"",
        "select * from read_csv('/etc/passwd')",
        "select * from generate_series(1, 1000000000)",
        "select * from information_schema.tables",
        "select * from other_project.public.events",
        "select repeat('x', 1000000000)",
        "with recursive r as (select 1 as n union all select n + 1 from r) select * from r",
        "prepare p as select 1",
        "execute p",
        "begin",
        "select funnel_depth(time, 60) from events",
        "",
        "select",
    ] {
        match ask(text) {
            Err(Error::Sql(message)) => assert!(!message.is_empty()),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn chains_are_refused_before_they_overflow_a_stack() {
    // (beginning, link, end), and how many keywords and operators a link has.
    let chains = [
        ("select 1", "+1", "", 1),
        ("select 1", " - -1", "", 2),
        ("select 'a'", "||'a'", "", 1),
        ("select count(*) from events where true", " or user_hash=1", "", 2),
        ("select true", " is null", "", 2),
        ("select 1", "::int", "", 2),
        ("select 1", " union all select 1", "", 3),
        ("select case when false then 1", " when false then 1", " end", 2),
        ("select count(*) from events", " natural join events", "", 2),
    ];
    for (start, link, end, links) in chains {
        let of = |count: usize| format!("{start}{}{end}", link.repeat(count));
        match ask(&of(1001)) {
            Err(Error::Sql(message)) => assert!(message.contains("at most 1000 keywords"), "{message}"),
            other => panic!("{link}: {other:?}"),
        }
        // As long as one may be: answered or refused, but alive.
        let _ = ask(&of((1000 - 10) / links));
    }
    let listed: Vec<String> = (0..5000).map(|number| number.to_string()).collect();
    let listed = format!("select count(*) from events where log_offset in ({})", listed.join(","));
    assert_eq!(shown(&listed), "6");
}

#[test]
fn common_table_expressions_that_double_are_refused() {
    // Forty, of which each uses the one before twice.
    let doubled = |first: &str, next: &str, last: &str| {
        let nexts = (1..=40).map(|level| {
            let of = next.replace("{}", &format!("t{}", level - 1));
            format!(", t{level} as ({of})")
        });
        format!("with t0 as ({first}){} {last}", nexts.collect::<String>())
    };
    let conditions = |mentions: usize| {
        let wide = format!("select concat(late{}) x from events", ", late".repeat(mentions));
        format!("select count(*) from ({wide}) where 'x' in (x{})", ", x".repeat(mentions))
    };
    for (text, told) in [
        (
            doubled("select user_hash x from events", "select p.x from {} p, {} q", "select * from t40"),
            "at most 1000 tables",
        ),
        (
            doubled(
                "select user_hash x from events",
                "select p.x from `{}` p, `{}` q",
                "select * from `t40`",
            ),
            "at most 1000 tables",
        ),
        (
            format!("select log_offset x from events {} |> where x > 3", "|> select x+x as x ".repeat(40)),
            "instead of `|>`",
        ),
        (conditions(900), "at most 100000 columns"),
        // In expressions, planning spells out what a column is.
        (
            doubled(
                "select log_offset x from events",
                "select x+x x from {}",
                "select * from t40 where x > 3",
            ),
            "at most 1000 of `events`",
        ),
    ] {
        match ask(&text) {
            Err(Error::Sql(message)) => assert!(message.contains(told), "{message}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    let used = "with a as (select 1 x from events) select count(*) from a natural join a b";
    assert_eq!(shown(used), "36");
    assert_eq!(shown(&conditions(100)), "0");
}

#[test]
fn texts_do_not_grow_without_end() {
    let nested =
        |of: &str, times: usize| (0..times).fold("event_name".to_owned(), |text, _| of.replace("{}", &text));
    for growing in ["replace({}, 'i', 'ii')", "regexp_replace({}, 'i', 'ii', 'g')"] {
        let of = |times| format!("select max(length({})) from events", nested(growing, times));
        assert!(shown(&of(3)).parse::<u64>().unwrap() >= 5, "{growing}");
        match ask(&of(40)) {
            Err(Error::OutOfMemory { .. }) => {}
            other => panic!("{growing}: {other:?}"),
        }
    }
    // Thirty times as long, and again.
    let joined = |text: &str| {
        let all = |of: &str| format!("concat({of}{})", format!(", {of}").repeat(30));
        let long = format!("select concat(a.event_name, '{text}') x from events a, events b, events c");
        format!("select max(length({})) from (select {} y from ({long}))", all("y"), all("x"))
    };
    assert!(shown(&joined("")).parse::<u64>().unwrap() >= 31 * 31 * 3);
    // Refused, unless batches are of so few rows that it is not too much.
    match ask(&joined(&"x".repeat(60_000))) {
        Err(Error::OutOfMemory { .. }) => {}
        Ok(batches) => {
            let length = batches[0].column(0).as_primitive::<Int32Type>().value(0);
            assert!(length >= 31 * 31 * 60_000, "{length}");
        }
        other => panic!("{other:.300?}"),
    }
    let long = "x".repeat(30_000);
    let squared = format!("select max(length(replace('{long}', 'x', '{long}'))) from events");
    assert!(matches!(ask(&squared), Err(Error::OutOfMemory { .. })), "of literals, too");
    assert_eq!(shown("select replace(max(event_name), 'vis', 'h') from events"), "hit");
}

#[test]
fn mistakes_that_only_the_events_show_are_the_statement_s() {
    for (text, told) in [
        ("select cast(event_name as int) from events", "cast"),
        ("select 1 / (log_offset - log_offset) from events", "zero"),
        ("select (select user_id from events)", "one row"),
        ("select power(10, 20)::int * log_offset from events", ""),
    ] {
        match ask(text) {
            Err(Error::Sql(message)) => assert!(message.to_lowercase().contains(told), "{text}: {message}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn a_slip_is_told_in_words() {
    let slip = ask("select count(*) form events where late = true").unwrap_err().to_string();
    assert!(slip.contains("end of statement, found: events") && !slip.contains("ParserError"), "{slip}");
}

#[test]
fn plans_and_columns_can_be_shown() {
    assert!(shown("explain select property('plan') from events").contains("properties.plan"));
    assert!(shown("describe events").contains("log_offset"));
}

#[test]
fn rows_beyond_the_limit_are_cut_off() {
    run(async {
        let limits = Limits { time: LIMIT, rows: 100 };
        let text = "select a.time from events a, events b, events c".to_owned();
        let mut rows = engine().sql(events(), text, limits).await.unwrap();
        let mut count = 0;
        while let Some(batch) = rows.next().await {
            count += batch.unwrap().num_rows();
        }
        assert!(count == 100 && rows.truncated(), "{count}");
    });
}
