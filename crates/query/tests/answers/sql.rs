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
fn events_have_the_partition_that_they_are_in() {
    for (text, right) in [
        ("select partition, count(*) from events group by 1 order by 1", "0,4;1,2"),
        (
            "select partition, log_offset, user_id from events where partition = 1 order by 2",
            "1,4,bob;1,5,cyd",
        ),
        ("select count(*) from events where partition in (0, 7) and property('plan') = 'pro'", "2"),
        (
            "select count(*) from events a join events b on a.partition = b.partition and a.log_offset = b.log_offset",
            "6",
        ),
        ("select max(partition) from (select * from events)", "1"),
    ] {
        assert_eq!(shown(text), right, "{text}");
    }
    assert!(shown("describe events").contains("partition"));
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
        // As long as one may be: answered or refused, but alive, and soon.
        let started = std::time::Instant::now();
        let _ = ask(&of((1000 - 10) / links));
        assert!(started.elapsed() < std::time::Duration::from_secs(5), "{link}: {:?}", started.elapsed());
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
            "at most 32 tables",
        ),
        (
            doubled(
                "select user_hash x from events",
                "select p.x from `{}` p, `{}` q",
                "select * from `t40`",
            ),
            "at most 32 tables",
        ),
        (
            format!("select log_offset x from events {} |> where x > 3", "|> select x+x as x ".repeat(40)),
            "instead of `|>`",
        ),
        (conditions(900), "at most 20000 columns of `events` in all expressions"),
        // In expressions, planning spells out what a column is.
        (
            doubled(
                "select log_offset x from events",
                "select x+x x from {}",
                "select * from t40 where x > 3",
            ),
            "at most 1000 columns of `events` in one column",
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
    for (growing, times) in [("replace({}, 'i', 'ii')", 40), ("regexp_replace({}, 'i', 'iiiiii', 'g')", 16)] {
        let of = |times| format!("select max(length({})) from events", nested(growing, times));
        assert!(shown(&of(3)).parse::<u64>().unwrap() >= 5, "{growing}");
        match ask(&of(times)) {
            Err(Error::OutOfMemory { .. }) => {}
            other => panic!("{growing}: {other:?}"),
        }
    }
    // Nine hundred times as long, in one step and in two.
    let many = |of: &str, times: usize| vec![of; times].join(", ");
    let at_once = format!("select max(length(concat({}))) from events", many("property('text')", 900));
    let in_steps = format!(
        "select max(length(concat({}))) from (select concat({}) y from events)",
        many("y", 30),
        many("property('text')", 30)
    );
    let event = |at| Event {
        user: "ann".into(),
        name: "visit".into(),
        time: at,
        texts: vec![("text".to_owned(), "x".repeat(4000))],
        ..Event::default()
    };
    let of = |events: i64| Held::of(&(0..events).map(event).collect::<Vec<_>>(), 1000);
    let length = |answer: Vec<RecordBatch>| answer[0].column(0).as_primitive::<Int32Type>().value(0);
    for text in [&at_once, &in_steps] {
        assert_eq!(length(ask_of(of(2), text).unwrap()), 900 * 4000, "of two rows");
    }
    match ask_of(of(200), &at_once) {
        Err(Error::OutOfMemory { .. }) => {}
        other => panic!("{other:.300?}"),
    }
    // Between the steps batches are cut to a megabyte, which may become 32.
    assert_eq!(length(ask_of(of(200), &in_steps).unwrap()), 900 * 4000, "of many rows");
    let constant = format!(
        "select max(length(concat({}))) from (select '{}' y from events)",
        many("y", 30),
        "x".repeat(60_000)
    );
    match ask(&constant) {
        Err(Error::Sql(message)) => assert!(message.contains("bytes of constants"), "{message}"),
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

#[test]
fn what_is_not_listed_is_refused_with_its_place_and_the_nearest_name() {
    for (text, told) in [
        (
            "select levenshtien(event_name, 'a') from events",
            "line 1, column 8: there is no function levenshtien: did you mean levenshtein?",
        ),
        (
            "select\n  repeat('x', 10) from events",
            "line 2, column 3: the function repeat can't be used: it makes large values out of small ones",
        ),
        ("select arrow_cast(time, 'Utf8') from events", "shows types and files of the engine"),
        ("select \"lower\"(event_name) from events", "there is no function"),
        (
            "select evnt_name from events",
            "line 1, column 8: there is no column `evnt_name`: did you mean `event_name`?",
        ),
        ("select * from evens", "line 1, column 15: there is no table `evens`: the events are in `events`"),
        ("select event_name ~ user_id from events", "must be a literal"),
        ("select event_name like user_id from events", "must be a literal"),
        (
            "select regexp_like(event_name, concat('(\\w{60}){1}|', cast(log_offset as varchar))) from events",
            "must be a literal",
        ),
        (
            "select regexp_like(event_name, '(\\w{500}){500}') from events",
            "the regular expression is too large",
        ),
        (
            "select regexp_like(event_name, '(') from events",
            "the regular expression can't be read: unclosed group",
        ),
        ("select time at time zone 'Mars/Olympus' from events", "there is no time zone `Mars/Olympus`"),
        ("select unnest(make_array(1, 2))", "there is no function unnest"),
        ("select * from unnest(make_array(1, 2))", "unnest"),
        ("select * from events a, lateral (select a.time) b", "can't be used here"),
        ("select array_agg(event_name) over () from events", "array_agg can't be used with `over`"),
        (
            "select lag(event_name) ignore nulls over (order by time) from events",
            "`ignore nulls` with `over`",
        ),
        ("select row_number() from events", "row_number needs `over (…)`"),
        ("select event_name from events for update", "can't be used here"),
        ("select event_name into x from events", "can't be used here"),
        ("explain analyze select 1", "`explain` shows the logical plan"),
        ("explain verbose select 1", "`explain` shows the logical plan"),
        (
            "select *, user_hash from events",
            "line 1, column 11: two columns are named `user_hash`: give one another name",
        ),
        (
            "select x from (select event_name x from events) where property('plan') = 'pro'",
            "line 1, column 64: property('plan') is not in what is read here",
        ),
        (
            "select time + interval interval '1 month' from events",
            "line 1, column 33: an interval is of a literal",
        ),
        ("select make_array(event_name)::bigint from events", "list of text"),
        ("select count(*) from events order by 2", "order by"),
        ("select event_name from events where \u{202e}", "\\u{202e}"),
        (
            "select count(*) from events where 1 < (row_number() over (order by time))",
            "functions with `over` stand among the selected columns",
        ),
        (
            "select sqrt(-1.0 * user_hash) from events where user_hash > 0",
            "cannot take square root of a negative number",
        ),
        (
            "select make_array(user_id) like '%a%' from events",
            "the operator `like` does not take (list of text and text)",
        ),
        ("select lower(late) from events", "line 1, column 8: the function lower does not take (boolean)"),
        (
            "select event_name + 1 from events",
            "line 1, column 8: the operator `+` does not take (text and bigint)",
        ),
        (
            "select time > log_offset from events",
            "line 1, column 8: the operator `>` does not take (timestamptz and bigint)",
        ),
        ("select - event_name from events", "line 1, column 8: the operator `-` does not take (text)"),
        (
            "select count(*) from events where event_name in (",
            "line 1, column 50: expected: an expression, found: its end",
        ),
        ("select event_name, count(*) from events", "event_name"),
        ("select abs(event_name) from events", ""),
        ("select 1 / (log_offset - log_offset) from events", "nullif"),
        ("select cast(event_name as int) from events", "integer"),
    ] {
        match ask(text) {
            Err(Error::Sql(message)) => {
                assert!(message.contains(told), "{text}: {message}");
                for engine in
                    ["DataFusion", "Utf8", "Int64", "Int32", "Error during", "Candidate", "backtrace"]
                {
                    assert!(!message.contains(engine), "{text}: {message}");
                }
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn statements_that_would_grow_are_refused_at_once() {
    let many = |text: &str, times: usize| vec![text; times].join(", ");
    let folded = (0..40).fold("'a'".to_owned(), |text, _| {
        format!("replace({text}, 'a', 'bbbbbbbbbbbbbbbbbbbb' || 'a' || 'a')")
    });
    let text = "abcdefgh".repeat(2500);
    let tables: Vec<_> = (0..401).map(|at| format!("events a{at}")).collect();
    for (text, told) in [
        (format!("select count(*) from events group by cube({})", many("event_name", 26)), "grouping sets"),
        (
            format!("select count(*) from events group by rollup({0}), rollup({0})", many("late", 9)),
            "grouping sets",
        ),
        (format!("select count(*) from {}", tables.join(", ")), "tables"),
        (format!("select count(*) from events{}", " natural join events".repeat(40)), "tables"),
        (format!("select length({folded}) from events"), "memory"),
        (format!("select levenshtein('{text}', reverse('{text}'))"), "memory"),
        (format!("select {} from events", many("late", 501)), "columns in one `select`"),
        (format!("select {}", many("row_number() over (order by late)", 17)), "functions with `over`"),
        (
            format!("select {} from (select '{}' x from events)", many("x", 400), "y".repeat(30_000)),
            "bytes of constants",
        ),
        (format!("select 1{}", " + 1".repeat(990)), "operators of arithmetic"),
        (format!("select event_name{} from events", " || 'a'".repeat(101)), "operators of arithmetic"),
        (format!("select {}", many("-log_offset", 101)), "operators of arithmetic"),
        (format!("select log_offset{} from events", "::double".repeat(101)), "operators of arithmetic"),
        (format!("select 1 where {}", vec!["exists (select 1 from events)"; 20].join(" and ")), "subqueries"),
        (
            format!(
                "select array_length(array_concat({})) from (select array_agg(a.user_id || b.user_id || c.user_id || d.user_id || e.user_id) x \
                     from events a, events b, events c, events d, events e)",
                many("x", 901)
            ),
            "columns of `events` in one column",
        ),
    ] {
        let started = std::time::Instant::now();
        let error = ask(&text).expect_err("it is refused").to_string();
        assert!(error.contains(told), "{:.100}: {error}", text);
        assert!(
            started.elapsed() < std::time::Duration::from_secs(2),
            "{:.100}: {:?}",
            text,
            started.elapsed()
        );
    }
    assert_eq!(
        shown("select count(*) from (select 1 from events group by cube(event_name, late, user_id))"),
        "22"
    );
}

#[test]
fn columns_are_titled_as_they_were_written() {
    for (text, titles) in [
        (
            "select 1 + 1, count(*), Count(*), max(log_offset) AS last from events",
            "1 + 1|count(*)|Count(*)|last",
        ),
        (
            "select count(*), count(*), property('plan') from events group by 3",
            "count(*)|count(*)_2|property('plan')",
        ),
        ("select a.time, b.time from events a, events b", "time|time_2"),
        ("select distinct a.time, b.time from events a, events b order by b.time, a.time", "time|time_2"),
        (
            "select time at time zone 'UTC', event_name is distinct from 'a' from events",
            "time at time zone 'UTC'|event_name is distinct from 'a'",
        ),
        ("select * from (select 2 * 3, -log_offset from events)", "2 * 3|- log_offset"),
        ("select distinct lower(event_name) from events order by lower(event_name)", "lower(event_name)"),
        (
            "select distinct late, 2 * log_offset from events order by 2 * log_offset desc",
            "late|2 * log_offset",
        ),
    ] {
        let batches = ask(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let names: Vec<_> = batches[0].schema().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(names.join("|").replace("-log_offset", "- log_offset"), titles, "{text}");
    }
}

#[test]
fn plans_name_no_files() {
    let plan = shown("explain select property('plan') from events where log_offset > 1");
    assert!(plan.contains("TableScan: events"), "{plan}");
    for word in ["parquet", "file", "memory", "partition", "Exec"] {
        assert!(!plan.contains(word), "{word}: {plan}");
    }
}
