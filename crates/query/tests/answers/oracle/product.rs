//! The product's answers, in the form of the oracle's.

use serde_json::{Value as Json, json};
use weir_proto::analytics::v1::{self as pb, condition::Operator, filter::Expression};
use weir_query::{
    Actor, Error,
    filter::Filter,
    fold::{funnel::Order, paths::Direction, retention::Cohorts},
    formula::Formula,
    funnel::{self, Exclusion},
    measure::{Measure, Statistic},
    paths, retention,
    series::{self, Figure, Measured, Shape},
};
use weir_rollup::{
    calendar::{Interval, Zone},
    field::Field,
    money::Currency,
};

use super::world::Laid;
use crate::events::{LIMIT, filter};

/// What the product says to a question about a world.
pub(crate) async fn answer(laid: &Laid, question: &Json) -> Result<Json, Error> {
    let Laid { engine, events } = laid;
    let events = events.clone();
    Ok(match text(&question["kind"]) {
        "series" => match engine.series(events, series(question), LIMIT).await {
            Ok(answer) => shown_series(&answer, question),
            Err(Error::Question { what: "measures", .. }) => json!({"error": "currency"}),
            Err(other) => return Err(other),
        },
        "funnel" => shown_funnel(&engine.funnel(events, funnel(question), LIMIT).await?),
        "retention" => shown_retention(&engine.retention(events, retention(question), LIMIT).await?),
        "paths" => shown_path(&engine.paths(events, paths(question), LIMIT).await?.root),
        other => panic!("{other}"),
    })
}

fn text(json: &Json) -> &str {
    json.as_str().unwrap()
}

fn number(json: &Json) -> i64 {
    json.as_i64().unwrap()
}

fn size(json: &Json) -> usize {
    number(json) as usize
}

fn list<T>(json: &Json, read: impl FnMut(&Json) -> T) -> Vec<T> {
    json.as_array().unwrap().iter().map(read).collect()
}

fn range(question: &Json) -> std::ops::Range<i64> {
    number(&question["range"][0])..number(&question["range"][1])
}

fn fields(json: &Json) -> Vec<Field> {
    list(json, |name| Field::parse(text(name)).unwrap())
}

fn actor(question: &Json) -> Actor {
    if question["count_by"] == "sessions" { Actor::Session } else { Actor::User }
}

fn passing(json: &Json) -> Filter {
    if json.is_null() { Filter::default() } else { filter(&proto(json)) }
}

fn proto(json: &Json) -> pb::Filter {
    let several = |json: &Json| pb::FilterList { filters: list(json, proto) };
    let expression = if !json["all_of"].is_null() {
        Expression::AllOf(several(&json["all_of"]))
    } else if !json["any_of"].is_null() {
        Expression::AnyOf(several(&json["any_of"]))
    } else if !json["not"].is_null() {
        Expression::Not(Box::new(proto(&json["not"])))
    } else {
        let operator = format!("OPERATOR_{}", text(&json["operator"]).to_uppercase());
        Expression::Condition(pb::Condition {
            field: text(&json["field"]).to_owned(),
            operator: Operator::from_str_name(&operator).unwrap().into(),
            values: list(&json["values"], value),
        })
    };
    pb::Filter { expression: Some(expression) }
}

fn value(json: &Json) -> prost_types::Value {
    use prost_types::value::Kind;
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(boolean) => Kind::BoolValue(*boolean),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap()),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(_) | Json::Object(_) => panic!("filters compare with {json}"),
    };
    prost_types::Value { kind: Some(kind) }
}

fn interval(json: &Json) -> Interval {
    match text(json) {
        "second" => Interval::Second,
        "minute" => Interval::Minute,
        "quarter_hour" => Interval::QuarterHour,
        "hour" => Interval::Hour,
        "day" => Interval::Day,
        "week" => Interval::Week,
        "month" => Interval::Month,
        "quarter" => Interval::Quarter,
        "year" => Interval::Year,
        other => panic!("{other}"),
    }
}

fn series(question: &Json) -> series::Question {
    let measures = list(&question["measures"], |json| {
        let property = || Field::parse(text(&json["property"])).unwrap();
        let numeric = |statistic| Measure::Numeric(property(), statistic);
        let measure = match text(&json["kind"]) {
            "events" => Measure::Events,
            "unique_users" => Measure::UniqueUsers,
            "sessions" => Measure::Sessions,
            "visits" => Measure::Visits,
            "unique_values" => Measure::UniqueValues(property()),
            "revenue" => {
                Measure::Revenue(json["currency"].as_str().map(|code| Currency::parse(code).unwrap()))
            }
            "sum" => numeric(Statistic::Sum),
            "min" => numeric(Statistic::Min),
            "max" => numeric(Statistic::Max),
            "average" => numeric(Statistic::Average),
            "quantile" => numeric(Statistic::Quantile(json["quantile"].as_f64().unwrap())),
            other => panic!("{other}"),
        };
        Measured { measure, filter: passing(&json["filter"]) }
    });
    series::Question {
        range: range(question),
        interval: (!question["interval"].is_null()).then(|| interval(&question["interval"])),
        zone: Zone::parse(text(&question["zone"])).unwrap(),
        formulas: list(&question["formulas"], |formula| {
            Formula::parse(text(formula), measures.len()).unwrap()
        }),
        measures,
        filter: passing(&question["filter"]),
        by: fields(&question["by"]),
        shape: match &question["shape"] {
            Json::String(shape) if shape == "plain" => Shape::Plain,
            Json::String(_) => Shape::Cumulative,
            shape => Shape::Rolling(number(&shape["rolling"]) as u32),
        },
        max_series: size(&question["max_series"]),
        only: None,
        max_points: 10_000_000,
    }
}

fn shown_series(answer: &series::Answer, question: &Json) -> Json {
    let revenue =
        |place: usize| question["measures"].get(place).is_some_and(|measure| measure["kind"] == "revenue");
    let figures = |figures: &[Figure]| {
        let one = |(place, figure): (usize, &Figure)| {
            let value = figure.estimate.map(|estimate| {
                assert!(estimate.exact, "{estimate:?} of so few values is exact");
                estimate.value
            });
            if revenue(place) {
                json!({"value": value, "nanos": figure.money.map(|amount| amount.nanos.to_string())})
            } else {
                json!(value)
            }
        };
        figures.iter().enumerate().map(one).collect::<Json>()
    };
    let series = |one: &series::Series| {
        let points: Json =
            one.points.iter().map(|point| json!([point.bucket, figures(&point.figures)])).collect();
        json!({"values": one.values, "points": points, "totals": figures(&one.totals)})
    };
    json!({
        "buckets": answer.buckets.iter().map(|bucket| bucket.start).collect::<Vec<_>>(),
        "series": answer.series.iter().map(series).collect::<Json>(),
        "omitted": answer.omitted_series,
        "totals": figures(&answer.totals),
        "late": answer.read.late,
    })
}

fn funnel(question: &Json) -> funnel::Question {
    let steps = list(&question["steps"], passing);
    funnel::Question {
        range: range(question),
        filter: passing(&question["filter"]),
        exclusions: list(&question["exclusions"], |json| {
            let after = size(&json["after_step"]).max(1) - 1;
            let before = match size(&json["before_step"]) {
                0 => steps.len() - 1,
                number => number - 1,
            };
            Exclusion {
                filter: passing(&json["filter"]),
                between: (after < before).then_some((after, before)),
            }
        })
        .into_iter()
        // After the last step there is nothing to end.
        .filter(|exclusion| exclusion.between.is_some())
        .collect(),
        steps,
        window: number(&question["window"]),
        order: if question["order"] == "any" { Order::Any } else { Order::Strict },
        actor: actor(question),
        by: fields(&question["by"]),
        max_groups: size(&question["max_groups"]),
    }
}

fn shown_funnel(answer: &funnel::Answer) -> Json {
    let steps = |steps: &[funnel::Step]| -> Json {
        let step = |step: &funnel::Step| {
            json!([step.count, step.median, step.p90, step.median_from_previous, step.p90_from_previous])
        };
        steps.iter().map(step).collect()
    };
    let group = |group: &funnel::Group| json!({"values": group.values, "steps": steps(&group.steps)});
    json!({
        "total": steps(&answer.total),
        "groups": answer.groups.iter().map(group).collect::<Json>(),
        "omitted": answer.omitted_groups,
    })
}

fn retention(question: &Json) -> retention::Question {
    retention::Question {
        range: range(question),
        interval: interval(&question["period"]),
        zone: Zone::parse(text(&question["zone"])).unwrap(),
        cohorts: if question["cohorts"] == "first" { Cohorts::First } else { Cohorts::Recurring },
        start: passing(&question["start"]),
        returns: passing(&question["return"]),
        watched: size(&question["periods"]),
        by: fields(&question["by"]),
        max_cohorts: 1_000_000,
    }
}

fn shown_retention(answer: &retention::Answer) -> Json {
    let cohort = |cohort: &retention::Cohort| json!({"values": cohort.values, "start": cohort.start, "size": cohort.size, "returned": cohort.returned});
    answer.cohorts.iter().map(cohort).collect()
}

fn paths(question: &Json) -> paths::Question {
    paths::Question {
        range: range(question),
        anchor: passing(&question["event"]),
        shown: passing(&question["filter"]),
        by: Field::parse(text(&question["field"])).unwrap(),
        fold_repeats: question["fold_repeats"] == true,
        direction: if question["direction"] == "before" { Direction::Before } else { Direction::After },
        depth: size(&question["depth"]),
        width: size(&question["max_branches"]),
        max_gap: number(&question["max_gap"]),
        actor: actor(question),
    }
}

fn shown_path(node: &paths::Node) -> Json {
    json!({
        "value": node.value,
        "count": node.count,
        "next": node.next.iter().map(shown_path).collect::<Json>(),
        "omitted": node.omitted,
        "ended": node.ended,
    })
}
