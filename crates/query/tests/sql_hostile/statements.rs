//! Statements as people, programs and attackers write them, from a seed: valid ones, ones with a slip, and ones that are nested, wide,
//! long or expensive.

use std::fmt::Write as _;

/// Statements without end. The same seed makes the same statements.
#[derive(Debug, Clone)]
pub(crate) struct Statements(u64);

impl Iterator for Statements {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let mut statement = match self.below(10) {
            0..4 => self.select(3),
            _ => self.expensive(),
        };
        if self.below(8) == 0 {
            statement = self.slip(statement);
        }
        // What is longer is refused by its length, which needs no more than one case.
        let longest = statement.floor_char_boundary(66_000.min(statement.len()));
        statement.truncate(longest);
        Some(statement)
    }
}

const COLUMNS: &[&str] = &[
    "time",
    "log_offset",
    "event_name",
    "user_id",
    "user_hash",
    "session_id",
    "late",
    "revenue",
    "event_id",
    "properties",
    "property('plan')",
    "property('text')",
    "property_number('price')",
];

const FUNCTIONS: &[&str] = &[
    "abs({n})",
    "round({n}, 2)",
    "power({n}, {n})",
    "sqrt({n})",
    "exp({n})",
    "lower({t})",
    "upper({t})",
    "length({t})",
    "reverse({t})",
    "left({t}, 5)",
    "concat({t}, {t}, {t})",
    "concat_ws({t}, {t}, {t})",
    "replace({t}, {t}, {t})",
    "split_part({t}, 'a', 2)",
    "strpos({t}, {t})",
    "substr({t}, 2)",
    "translate({t}, {t}, {t})",
    "levenshtein({t}, {t})",
    "regexp_replace({t}, '[aeiou]+', {t}, 'g')",
    "regexp_like({t}, '(a|b)*c{1,30}')",
    "regexp_match({t}, '(\\w+)e(\\w+)')",
    "regexp_count({t}, '\\w{1,20}x')",
    "regexp_like({t}, {t})",
    "date_trunc('day', {d})",
    "extract(hour from {d})",
    "({d} at time zone 'Asia/Kolkata')::date",
    "to_char({d}, '%Y')",
    "coalesce({t}, {t})",
    "nullif({n}, {n})",
    "greatest({n}, {n}, {n})",
    "make_array({t}, {t})[1]",
    "array_length(string_to_array({t}, 'a'))",
    "array_to_string(make_array({t}, {t}, {t}), {t})",
    "repeat({t}, 100000)",
    "lpad({t}, 1000000, 'x')",
    "case when {n} > 3 then {t} when {t} like '%a%' then {t} else 'x' end",
    "cast({n} as varchar)",
    "cast({t} as bigint)",
    "{t} || {t}",
    "{n} + {n}",
    "{n} * {n}",
    "{n} / {n}",
    "- {n}",
    "{t} like '%a_b%'",
    "{t} ~ 'a+b'",
    "{t} in ('a', {t})",
    "{n} between 1 and {n}",
    "{d} + interval '1 month'",
    "chr(65) || {t}",
    "arrow_typeof({t})",
    "md5({t})",
    "uuid()",
];

const AGGREGATES: &[&str] = &[
    "count(*)",
    "count(distinct {t})",
    "sum({n})",
    "avg({n})",
    "min({t})",
    "max({n})",
    "median({n})",
    "array_agg({t})",
    "string_agg({t}, ',')",
    "approx_distinct({t})",
    "approx_percentile_cont({n}, 0.9)",
    "stddev({n})",
    "sum(distinct {n})",
    "array_length(array_agg({t}))",
    "first_value({t} order by time)",
    "bool_and({n} > 1)",
    "count(*) filter (where {n} > 1)",
    "funnel_depth(time, 60, event_name = 'a', event_name = 'b')",
    "array_agg(distinct {t} order by {t})",
];

const WINDOWS: &[&str] = &[
    "row_number() over (partition by {t} order by time)",
    "lag({t}) over (order by time)",
    "sum({n}) over (order by time)",
    "max({t}) over ()",
    "first_value({t}) over (partition by event_name)",
    "ntile(7) over (order by {n})",
    "avg({n}) over (order by time rows between 100 preceding and current row)",
    "array_agg({t}) over (order by time)",
    "count(distinct {t}) over (order by time)",
    "last_value({t}) over (order by time rows between 5 preceding and 5 following)",
];

impl Statements {
    /// Those of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number (SplitMix64).
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }

    fn size(&mut self, least: u64, most: u64) -> usize {
        (least + self.below(most - least + 1)) as usize
    }

    fn one<'o>(&mut self, of: &[&'o str]) -> &'o str {
        of[self.below(of.len() as u64) as usize]
    }

    fn filled(&mut self, template: &str, depth: u32) -> String {
        let mut rest = template;
        let mut filled = String::new();
        while let Some((before, after)) = rest.split_once('{') {
            filled.push_str(before);
            match after.split_once('}') {
                Some((kind @ ("n" | "t" | "d"), after)) => {
                    let part = self.expr(kind, depth.saturating_sub(1));
                    filled.push_str(&part);
                    rest = after;
                }
                _ => {
                    filled.push('{');
                    rest = after;
                }
            }
        }
        filled + rest
    }

    fn expr(&mut self, kind: &str, depth: u32) -> String {
        if depth > 0 && self.below(3) > 0 {
            let template = self.one(FUNCTIONS);
            return self.filled(template, depth);
        }
        match (kind, self.below(4)) {
            (_, 0) => self.one(COLUMNS).to_owned(),
            ("n", 1) => self.one(&["0", "1", "-1", "2.5", "9223372036854775807", "1e300", "null"]).to_owned(),
            ("n", _) => {
                self.one(&["log_offset", "user_hash", "property_number('price')", "revenue"]).to_owned()
            }
            ("d", _) => self.one(&["time", "receive_time", "timestamp '2024-01-01'", "now()"]).to_owned(),
            (_, 1) => format!("'{}'", self.one(&["a", "", "é", "xyz"]).repeat(self.size(1, 60))),
            _ => self.one(&["event_name", "user_id", "property('text')", "property('plan')"]).to_owned(),
        }
    }

    fn select(&mut self, depth: u32) -> String {
        let mut columns = Vec::new();
        for _ in 0..self.size(1, 4) {
            let template = match self.below(6) {
                0 => self.one(AGGREGATES),
                1 => self.one(WINDOWS),
                2 => self.one(&["*", "{t}", "{n}", "{d}"]),
                _ => self.one(FUNCTIONS),
            };
            columns.push(self.filled(template, depth));
        }
        let mut text = format!("select {} from {}", columns.join(", "), self.source(depth));
        if self.below(2) == 0 {
            let condition = self.filled("{n} > {n} or {t} = {t}", depth);
            let _ = write!(text, " where {condition}");
        }
        if self.below(3) == 0 {
            let keys = self.one(&[
                "1",
                "1, 2",
                "event_name",
                "rollup(event_name, user_id)",
                "cube(event_name, late)",
            ]);
            let _ = write!(text, " group by {keys}");
        }
        if self.below(3) == 0 {
            let order = self.one(&["1", "1 desc", "time", "2 desc nulls last"]);
            let _ = write!(text, " order by {order}");
        }
        if self.below(3) == 0 {
            let _ = write!(text, " limit {}", self.size(0, 1000));
        }
        text
    }

    fn source(&mut self, depth: u32) -> String {
        if depth == 0 {
            return "events".to_owned();
        }
        match self.below(8) {
            0 => format!("({}) s", self.select(depth - 1)),
            1 => "events a join events b on a.event_name = b.event_name".to_owned(),
            2 => "events a, events b".to_owned(),
            3 => "events a left join events b on a.log_offset < b.log_offset".to_owned(),
            _ => "events".to_owned(),
        }
    }

    /// A statement that costs much, of a size by chance.
    fn expensive(&mut self) -> String {
        let size = self.size(2, 60);
        let many = |text: &str, times: usize, between: &str| vec![text; times].join(between);
        let column = self.one(COLUMNS);
        match self.below(37) {
            0 => format!("select count(*) from events group by cube({})", many(column, size, ", ")),
            1 => format!("select count(*) from events group by rollup({}), cube(late, user_id)", many(column, size, ", ")),
            2 => {
                let tables: Vec<_> = (0..size).map(|at| format!("events a{at}")).collect();
                format!("select count(*) from {}", tables.join(", "))
            }
            3 => format!("select count(*) from events{}", " natural join events".repeat(size)),
            4 => {
                let text = (0..size).fold("'aaaa'".to_owned(), |text, _| format!("replace({text}, 'a', 'aa' || 'N')"));
                format!("select length({text})")
            }
            5 => {
                let long = format!("repeat_of_{}", "ab".repeat(size * 200));
                format!("select levenshtein('{long}', reverse('{long}')) + levenshtein(event_name || '{long}', '{long}') from events")
            }
            6 => format!("select array_length(array_concat({})) from (select array_agg({column}) x from events)", many("x", size * 15, ", ")),
            7 => {
                let pattern = many("(\\w{1,9}|[a-f]+)*", size, "");
                format!("select count(*) from events where regexp_like(property('text'), '{pattern}x')")
            }
            8 => format!("select count(*) from events where regexp_like(event_name, concat('(\\w{{{size}}}){{1}}|', cast(log_offset as varchar)))"),
            9 => format!("select count(*) from events where event_name ~ '(a{{1,{size}}}){{1,{size}}}$'"),
            10 => {
                let windows = many("row_number() over (partition by event_name order by time)", size, ", ");
                format!("select {windows} from events")
            }
            11 => {
                let template = self.one(WINDOWS);
                let window = self.filled(template, 1);
                format!("select count(w) from (select {window} w from events)")
            }
            12 => "select a.*, b.* from events a, events b order by a.user_id, b.user_id".to_owned(),
            13 => "select count(*) from events a join events b on a.event_name = b.event_name where a.log_offset + b.log_offset < 0".to_owned(),
            14 => "select count(*) from events a join events b on a.event_name = b.event_name and a.user_id || b.user_id = 'x'".to_owned(),
            15 => "select count(*) from events a join events b on a.event_name = b.event_name and a.user_id > b.session_id".to_owned(),
            16 => "select count(*) from events a, events b where levenshtein(a.property_text, b.property_text) > 3".replace("a.property_text", "property(a, 'text')").replace("b.property_text", "property(b, 'text')"),
            17 => {
                let first = "with t0 as (select event_name x from events)".to_owned();
                let ctes = (1..size).fold(first, |text, at| format!("{text}, t{at} as (select p.x || q.x x from t{0} p, t{0} q)", at - 1));
                format!("{ctes} select count(*) from t{}", size - 1)
            }
            18 => {
                let first = "with t0 as (select event_name x from events)".to_owned();
                let ctes = (1..size).fold(first, |text, at| format!("{text}, t{at} as (select concat(x, x) x from t{})", at - 1));
                format!("{ctes} select max(length(x)) from t{} where x <> ''", size - 1)
            }
            19 => {
                let text = (0..size.min(40)).fold(column.to_owned(), |text, _| format!("concat({text}, {text})").chars().take(60_000).collect());
                format!("select length({text}) from events")
            }
            20 => format!("select {} from events", many("upper(property('text') || 'x')", size * 8, ", ")),
            21 => format!("select {} from (select '{}' c from events)", many("c", size * 100, ", "), "x".repeat(30_000)),
            22 => format!("select {}", many("1", size * 16, " + ")),
            23 => format!("select count(*) from events where {}", many("event_name = 'a'", size * 5, " or ")),
            24 => format!("select count(*) from events where log_offset in ({})", many("12345", size * 150, ", ")),
            25 => format!("select {}event_name{} from events", "lower(".repeat(size), ")".repeat(size)),
            26 => format!("select {}1{}", "(".repeat(size * 20), ")".repeat(size * 20)),
            27 => format!("select {}1{}", "(select ".repeat(size), ")".repeat(size)),
            28 => format!("select case {} end from events", many("when log_offset = 1 then event_name", size * 4, " ")),
            29 => many("select count(*) from events", size, " union all "),
            30 => format!("select {column}, count(*) from events a, events b group by 1, a.log_offset, b.log_offset"),
            31 => format!("select distinct {column}, a.log_offset * b.log_offset from events a, events b"),
            32 => "select string_agg(property('text'), ',') || string_agg(event_name, ',') from events a".replace("events a", "(select * from events union all select * from events)"),
            33 => format!("select count(distinct array_sort(array_agg({column}))) from events group by user_id"),
            34 => {
                let template = self.one(AGGREGATES);
                let aggregate = self.filled(template, 1);
                format!("select log_offset, count(distinct user_id), approx_distinct(user_id), {aggregate} from events group by 1")
            }
            35 => "select array_agg(property('text')) over (partition by event_name) from events".to_owned(),
            _ => format!("select sum(length(replace(property('text'), 'a', property('text')))) from events where length(property('text')) > {size}"),
        }
    }

    /// A statement with a slip: something is missing, doubled, or another.
    fn slip(&mut self, statement: String) -> String {
        let mut words: Vec<&str> = statement.split(' ').collect();
        let at = self.below(words.len() as u64) as usize;
        match self.below(4) {
            0 => drop(words.remove(at)),
            1 => words.insert(at, words[at]),
            2 => {
                words[at] =
                    self.one(&["'", "(", ")", ",", "::", ";", "\0", "\u{202e}", "select", "||", "--", "/*"])
            }
            _ => {
                let cut = statement.floor_char_boundary(self.below(statement.len() as u64 + 1) as usize);
                return statement[..cut].to_owned();
            }
        }
        words.join(" ")
    }
}
