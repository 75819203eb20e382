//! Random questions, in the form in which the oracle gets them.

use std::ops::Range;

use serde_json::{Value as Json, json};

use super::{
    dice::Dice,
    world::{CURRENCIES, DAY, HOUR, NAMES, NUMBER_TEXTS, TEXTS, World, ZONES},
};

const MINUTE: i64 = HOUR / 60;
const FIELDS: &[&str] = &[
    "event_name",
    "event_type",
    "user_id",
    "anonymous_id",
    "session_id",
    "context.os.name",
    "plan",
    "Plan",
    "price",
    "mixed",
    "properties.mixed",
    "seldom",
    "rare",
    "Größe",
    "a.b",
    "nobody has it",
];
const NUMBERS: &[&str] = &["price", "price", "mixed", "seldom", "rare", "plan", "nobody has it"];
const PATTERNS: &[&str] =
    &["^v", "(?i)PRO", "[0-9]+", "^$", "e$", "a|f", "é", "^.$", "\\.", "^(add|buy)$", "[^a-z]", "(fr)?e{2}"];

/// A question about a world.
pub(crate) fn random(dice: &mut Dice, world: &World) -> Json {
    let zone = if dice.percent(80) { world.zone } else { dice.pick(ZONES).0 };
    match dice.below(10) {
        0..=4 => series(dice, world, zone),
        5 | 6 => funnel(dice, world),
        7 | 8 => retention(dice, world, zone),
        _ => paths(dice, world),
    }
}

/// A range of at most this length, around where most happens.
fn range(dice: &mut Dice, world: &World, longest: i64) -> Range<i64> {
    let length = dice.within(1, longest + 1);
    let start = match dice.below(4) {
        // Where buckets of most zones begin.
        0 => world.center + dice.within(-8, 3) * HOUR / 2,
        1 => world.center - length / 2,
        _ => world.center - dice.within(0, length + 1),
    };
    start..start + length
}

fn anything(dice: &mut Dice) -> Json {
    match dice.below(8) {
        0 => Json::Null,
        1 => dice.percent(50).into(),
        2 => json!(dice.within(-8, 24) as f64 / 2.0),
        3 => dice.pick(NAMES).into(),
        4 => dice.pick(NUMBER_TEXTS).into(),
        5 => dice.pick(&["ann", "s1", "iOS", "TRACK", "PAGE", "用户"]).into(),
        _ => dice.pick(TEXTS).into(),
    }
}

fn condition(dice: &mut Dice) -> Json {
    let field = dice.pick(FIELDS);
    let (operator, values) = match dice.below(8) {
        0..=3 => ("in", (0..dice.below(4)).map(|_| anything(dice)).collect()),
        4 => ("exists", vec![]),
        5 => ("contains", vec![dice.pick(&["", "e", "ro", "1", "é", " ", "'"]).into()]),
        6 => ("matches", vec![dice.pick(PATTERNS).into()]),
        _ => {
            let operator = dice.pick(&["less", "less_or_equal", "greater", "greater_or_equal"]);
            (operator, vec![dice.pick(&[json!(0), json!(1.5), json!("9.5"), json!(10), json!(-2)])])
        }
    };
    json!({"field": field, "operator": operator, "values": values})
}

fn tree(dice: &mut Dice, depth: usize) -> Json {
    match dice.below(if depth == 0 { 4 } else { 7 }) {
        0..=3 => condition(dice),
        4 => json!({"not": tree(dice, depth - 1)}),
        kind => {
            let parts: Vec<_> = (0..1 + dice.below(3)).map(|_| tree(dice, depth - 1)).collect();
            if kind == 5 { json!({"all_of": parts}) } else { json!({"any_of": parts}) }
        }
    }
}

fn filter(dice: &mut Dice) -> Json {
    match dice.below(10) {
        0..=5 => Json::Null,
        6 | 7 => condition(dice),
        _ => tree(dice, 3),
    }
}

fn named(names: &[&str]) -> Json {
    json!({"field": "event_name", "operator": "in", "values": names})
}

/// Which events are meant: mostly those with a name.
fn selector(dice: &mut Dice) -> Json {
    match dice.below(8) {
        0..=4 => named(&[dice.pick(NAMES)]),
        5 => named(&[dice.pick(NAMES), dice.pick(NAMES)]),
        6 => json!({"all_of": [named(&[dice.pick(NAMES)]), condition(dice)]}),
        _ => filter(dice),
    }
}

fn group_by(dice: &mut Dice) -> Vec<&'static str> {
    if dice.percent(50) { Vec::new() } else { dice.some(FIELDS, 3) }
}

fn measure(dice: &mut Dice) -> Json {
    let kind = dice.pick(&[
        "events",
        "events",
        "unique_users",
        "unique_users",
        "sessions",
        "visits",
        "unique_values",
        "revenue",
        "sum",
        "min",
        "max",
        "average",
        "quantile",
    ]);
    let mut measure =
        json!({"kind": kind, "filter": if dice.percent(70) { Json::Null } else { filter(dice) }});
    match kind {
        "revenue" if dice.percent(80) => measure["currency"] = dice.pick(CURRENCIES).into(),
        "unique_values" => measure["property"] = dice.pick(FIELDS).into(),
        "sum" | "min" | "max" | "average" => measure["property"] = dice.pick(NUMBERS).into(),
        "quantile" => {
            measure["property"] = dice.pick(NUMBERS).into();
            measure["quantile"] = dice.pick(&[0.0, 0.25, 0.5, 0.9, 1.0]).into();
        }
        _ => {}
    }
    measure
}

fn series(dice: &mut Dice, world: &World, zone: &str) -> Json {
    let measures: Vec<_> = (0..1 + dice.below(4)).map(|_| measure(dice)).collect();
    let intervals = [
        ("second", 5 * MINUTE),
        ("minute", 6 * HOUR),
        ("quarter_hour", 2 * DAY),
        ("hour", 6 * DAY),
        ("hour", DAY),
        ("day", 40 * DAY),
        ("day", 6 * DAY),
        ("week", 90 * DAY),
        ("month", 130 * DAY),
        ("quarter", 300 * DAY),
        ("year", 800 * DAY),
    ];
    let breakdown = dice.percent(25);
    let (interval, longest) = dice.pick(&intervals);
    let range = range(dice, world, longest);
    let shape = match dice.below(6) {
        0 if !breakdown => json!("cumulative"),
        1 | 2 if !breakdown => json!({"rolling": dice.pick(&[1, 2, 3, 7])}),
        _ => json!("plain"),
    };
    let formulas = ["A", "A / B", "100 * (A - B) / (A + B)", "-A * A", "1 / (B - B)"];
    let usable = if measures.len() == 1 { 1 } else { formulas.len() };
    json!({
        "kind": "series",
        "range": [range.start, range.end],
        "interval": if breakdown { Json::Null } else { interval.into() },
        "zone": zone,
        "measures": measures,
        "formulas": dice.some(&formulas[..usable], 2),
        "filter": filter(dice),
        "by": group_by(dice),
        "shape": shape,
        "max_series": dice.pick(&[1, 3, 1000]),
    })
}

fn funnel(dice: &mut Dice, world: &World) -> Json {
    let steps: Vec<_> = (0..1 + dice.below(4)).map(|_| selector(dice)).collect();
    let order = if dice.percent(65) { "strict" } else { "any" };
    let exclusions: Vec<_> = (0..if order == "strict" && steps.len() > 1 { dice.below(3) } else { 0 })
        .map(|_| {
            let after = dice.below(steps.len());
            let least = after.max(1) + 1;
            let before = if dice.percent(40) { 0 } else { least + dice.below(steps.len() + 1 - least) };
            let mut exclusion = json!({"after_step": after, "before_step": before});
            exclusion["filter"] = selector(dice);
            exclusion
        })
        .collect();
    let range = range(dice, world, 60 * DAY);
    // Times lie at such distances from each other: windows end exactly there, and just before.
    let window = dice.pick(&[1, 10 * MINUTE, 15 * MINUTE, HOUR, 6 * HOUR, DAY, 10 * DAY]);
    json!({
        "kind": "funnel",
        "range": [range.start, range.end],
        "filter": filter(dice),
        "steps": steps,
        "exclusions": exclusions,
        "window": (window - i64::from(dice.percent(20))).max(1),
        "order": order,
        "count_by": dice.pick(&["users", "users", "sessions"]),
        "by": group_by(dice),
        "max_groups": dice.pick(&[1, 3, 1000]),
    })
}

fn retention(dice: &mut Dice, world: &World, zone: &str) -> Json {
    let (period, longest) = dice.pick(&[
        ("day", 20 * DAY),
        ("week", 80 * DAY),
        ("month", 200 * DAY),
        ("quarter", 400 * DAY),
        ("year", 900 * DAY),
    ]);
    let range = range(dice, world, longest);
    json!({
        "kind": "retention",
        "range": [range.start, range.end],
        "zone": zone,
        "period": period,
        "cohorts": dice.pick(&["first", "recurring"]),
        "start": if dice.percent(30) { Json::Null } else { selector(dice) },
        "return": if dice.percent(30) { Json::Null } else { selector(dice) },
        "by": group_by(dice),
        "periods": dice.pick(&[1, 3, 400]),
    })
}

fn paths(dice: &mut Dice, world: &World) -> Json {
    let range = range(dice, world, 60 * DAY);
    json!({
        "kind": "paths",
        "range": [range.start, range.end],
        "event": selector(dice),
        "filter": filter(dice),
        "field": if dice.percent(60) { "event_name" } else { dice.pick(FIELDS) },
        "direction": dice.pick(&["after", "before"]),
        "depth": 1 + dice.below(5),
        "max_branches": dice.pick(&[1, 2, 50]),
        "max_gap": dice.pick(&[1, 10 * MINUTE, 30 * MINUTE, 6 * HOUR, 10 * DAY]),
        "fold_repeats": dice.percent(40),
        "count_by": dice.pick(&["users", "users", "sessions"]),
    })
}
