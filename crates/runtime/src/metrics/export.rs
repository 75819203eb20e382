//! The metrics written out for programs that do not speak Prometheus. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;
use weir_proto::metrics::v1::{MetricFamily, metric_family::Type};

use super::LABELS;

/// The media type of [`json_lines`].
pub(super) const JSON_LINES: &str = "application/x-ndjson";
/// The media type of [`csv`].
pub(super) const CSV: &str = "text/csv; charset=utf-8; header=present";

/// A line of [`json_lines`]. Fields are named as in the schema.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    read_time: Timestamp,
    name: &'a str,
    r#type: &'static str,
    labels: BTreeMap<&'a str, &'a str>,
    #[serde(flatten)]
    value: Value,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum Value {
    Value(f64),
    Histogram { count: u64, sum: f64, buckets: Vec<Bucket> },
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Bucket {
    upper_bound: f64,
    cumulative_count: u64,
}

/// One JSON object a sample and line; a histogram is one sample. Numbers are numbers, and `null` where they are not finite.
pub(super) fn json_lines(families: &[MetricFamily], read_time: Timestamp) -> String {
    let mut text = String::new();
    for family in families {
        for sample in &family.samples {
            let value = sample.histogram.as_ref().map_or(Value::Value(sample.value), |histogram| {
                let bucket = |bucket: &weir_proto::metrics::v1::Bucket| Bucket {
                    upper_bound: bucket.upper_bound,
                    cumulative_count: bucket.cumulative_count,
                };
                let buckets = histogram.buckets.iter().map(bucket).collect();
                Value::Histogram { count: histogram.count, sum: histogram.sum, buckets }
            });
            let line = Line {
                read_time,
                name: &family.name,
                r#type: type_name(family.r#type()),
                labels: sample.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
                value,
            };
            text += &serde_json::to_string(&line).expect("its keys are strings");
            text.push('\n');
        }
    }
    text
}

/// A header line, then a line for every number. A histogram is several, named and labelled as Prometheus does: `_bucket`
/// by `le`, `_sum` and `_count`. There is a column for every label of any metric, so that exports of different moments
/// have the same columns.
pub(super) fn csv(families: &[MetricFamily], read_time: Timestamp) -> String {
    let labels: BTreeSet<&str> = LABELS.iter().copied().flatten().copied().collect();
    let header =
        ["read_time", "name", "type"].into_iter().chain(labels.iter().copied()).chain(["le", "value"]);
    let mut text = Lines::new(header);
    let read_time = read_time.to_string();
    for family in families {
        for sample in &family.samples {
            let mut push = |suffix: &str, le: &str, value: String| {
                let name = format!("{}{suffix}", family.name);
                let labels = labels.iter().map(|name| sample.labels.get(*name).map_or("", String::as_str));
                let kind = type_name(family.r#type());
                text.push([&read_time, &name, kind].into_iter().chain(labels).chain([le, &value]));
            };
            let Some(histogram) = &sample.histogram else {
                push("", "", sample.value.to_string());
                continue;
            };
            for bucket in &histogram.buckets {
                push("_bucket", &bucket.upper_bound.to_string(), bucket.cumulative_count.to_string());
            }
            push("_bucket", "+Inf", histogram.count.to_string());
            push("_sum", "", histogram.sum.to_string());
            push("_count", "", histogram.count.to_string());
        }
    }
    text.0
}

/// Lines of comma-separated values (RFC 4180).
struct Lines(String);

impl Lines {
    fn new<'a>(header: impl Iterator<Item = &'a str>) -> Self {
        let mut lines = Self(String::new());
        lines.push(header);
        lines
    }

    fn push<'a>(&mut self, fields: impl Iterator<Item = &'a str>) {
        for (at, field) in fields.enumerate() {
            if at > 0 {
                self.0.push(',');
            }
            if field.contains([',', '"', '\r', '\n']) {
                self.0.push('"');
                self.0 += &field.replace('"', "\"\"");
                self.0.push('"');
            } else {
                self.0 += field;
            }
        }
        self.0 += "\r\n";
    }
}

fn type_name(kind: Type) -> &'static str {
    match kind {
        Type::Unspecified => "unspecified",
        Type::Counter => "counter",
        Type::Gauge => "gauge",
        Type::Histogram => "histogram",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Metrics;

    fn metrics() -> Metrics {
        let metrics = Metrics::new();
        metrics.errors("a, \"quoted\" service", "log").inc();
        metrics.grpc_server_handling("s", "m").observe(0.002);
        metrics.grpc_server_handling("s", "m").observe(99.0);
        metrics
    }

    #[test]
    fn a_json_line_is_a_sample() {
        let text = json_lines(&metrics().families("errors_total"), Timestamp::UNIX_EPOCH);
        let line = r#"{"readTime":"1970-01-01T00:00:00Z","name":"errors_total","type":"counter","#;
        let labels = r#""labels":{"kind":"log","service":"a, \"quoted\" service"},"value":1.0}"#;
        assert_eq!(text, format!("{line}{labels}\n"));

        let text = json_lines(&metrics().families("grpc_server_handling"), Timestamp::UNIX_EPOCH);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["histogram"]["count"], 2);
        assert_eq!(line["histogram"]["sum"], 99.002);
        assert_eq!(line["histogram"]["buckets"][17]["upperBound"], 30.0);
        assert_eq!(line["histogram"]["buckets"][17]["cumulativeCount"], 1);
    }

    #[test]
    fn every_line_of_csv_has_every_column() {
        let text = csv(&metrics().families(""), Timestamp::UNIX_EPOCH);
        let mut lines = text.split_terminator("\r\n");
        let header: Vec<_> = lines.next().unwrap().split(',').collect();
        assert_eq!(header[..4], ["read_time", "name", "type", "code"]);
        assert_eq!(header[header.len() - 2..], ["le", "value"]);
        let (quoted, plain): (Vec<_>, Vec<_>) = lines.partition(|line| line.contains('"'));
        for line in &plain {
            assert_eq!(line.split(',').count(), header.len(), "{line}");
        }
        assert_eq!(quoted.len(), 1);
        assert!(quoted[0].contains(r#","a, ""quoted"" service","#), "{}", quoted[0]);

        let starts = |start: &str| plain.iter().filter(|line| line[21..].starts_with(start)).count();
        assert_eq!(starts("grpc_server_handling_seconds_bucket,histogram,"), 19);
        assert_eq!(starts("grpc_server_handling_seconds_count,histogram,"), 1);
        assert!(plain.iter().any(|line| line.ends_with(",+Inf,2")), "{text}");
    }

    #[test]
    fn every_label_has_a_column() {
        let metrics = metrics();
        metrics.build_info("1");
        let header = csv(&[], Timestamp::UNIX_EPOCH);
        let columns: Vec<_> = header.trim_end().split(',').collect();
        for family in metrics.families("") {
            for label in family.samples[0].labels.keys() {
                assert!(columns.contains(&label.as_str()), "{}: {label} would be lost", family.name);
            }
        }
    }
}
