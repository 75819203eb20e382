//! What the registry holds, as text and as the schema's messages.

use prometheus::{TextEncoder, proto::MetricType};
use weir_proto::metrics::v1::{Bucket, Histogram, MetricFamily, Sample, metric_family::Type};

use super::Metrics;

impl Metrics {
    /// The Prometheus text form, for `/metrics`.
    pub fn render(&self) -> String {
        self.render_some("")
    }

    /// The Prometheus text form of the metrics whose name starts with `prefix`.
    pub(super) fn render_some(&self, prefix: &str) -> String {
        let mut text = String::new();
        TextEncoder::new()
            .encode_utf8(&self.gather(prefix), &mut text)
            .expect("writing to a string cannot fail, and no family is empty");
        text
    }

    /// The metrics whose name starts with `prefix`, as data, by name. What never happened has no sample, and a metric
    /// without samples is left out.
    pub fn families(&self, prefix: &str) -> Vec<MetricFamily> {
        self.gather(prefix).iter().map(family).collect()
    }

    fn gather(&self, prefix: &str) -> Vec<prometheus::proto::MetricFamily> {
        let mut families = self.inner.registry.gather();
        families.retain(|family| family.name().starts_with(prefix));
        families
    }
}

fn family(family: &prometheus::proto::MetricFamily) -> MetricFamily {
    let kind = match family.get_field_type() {
        MetricType::COUNTER => Type::Counter,
        MetricType::HISTOGRAM => Type::Histogram,
        // Weir has no summaries, and the registry makes nothing untyped.
        MetricType::GAUGE | MetricType::SUMMARY | MetricType::UNTYPED => Type::Gauge,
    };
    MetricFamily {
        name: family.name().to_owned(),
        help: family.help().to_owned(),
        r#type: kind.into(),
        samples: family.get_metric().iter().map(|metric| sample(kind, metric)).collect(),
    }
}

fn sample(kind: Type, metric: &prometheus::proto::Metric) -> Sample {
    let labels = metric.get_label().iter().map(|label| (label.name().to_owned(), label.value().to_owned()));
    let (value, histogram) = match kind {
        Type::Counter => (metric.get_counter().get_value(), None),
        Type::Histogram => (0.0, Some(self::histogram(metric.get_histogram()))),
        Type::Gauge | Type::Unspecified => (metric.get_gauge().get_value(), None),
    };
    Sample { labels: labels.collect(), value, histogram }
}

/// The buckets have finite bounds; all observations beyond the last one are in `count` alone.
fn histogram(histogram: &prometheus::proto::Histogram) -> Histogram {
    let bucket = |bucket: &prometheus::proto::Bucket| Bucket {
        upper_bound: bucket.upper_bound(),
        cumulative_count: bucket.cumulative_count(),
    };
    Histogram {
        count: histogram.get_sample_count(),
        sum: histogram.get_sample_sum(),
        buckets: histogram.get_bucket().iter().map(bucket).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_say_the_same_as_the_text() {
        let metrics = Metrics::new();
        metrics.errors("producer", "log").inc_by(3);
        metrics.kafka_consumer_lag("analytics-events", "0").set(-7);
        for seconds in [0.002, 0.004, 99.0] {
            metrics.grpc_server_handling("s", "m").observe(seconds);
        }
        let text = metrics.render();
        let one = |name: &str| match metrics.families(name).as_slice() {
            [only] => only.clone(),
            families => panic!("{name}: {families:?}"),
        };

        let errors = one("errors_total");
        assert!(text.contains(&format!("# HELP errors_total {}\n# TYPE errors_total counter", errors.help)));
        assert_eq!(errors.r#type(), Type::Counter);
        assert_eq!(errors.samples[0].value, 3.0);
        assert_eq!(errors.samples[0].labels["kind"], "log");

        let lag = one("kafka_consumer_lag_total");
        assert_eq!((lag.r#type(), lag.samples[0].value), (Type::Gauge, -7.0));

        let handling = one("grpc_server_handling_seconds");
        assert_eq!(handling.r#type(), Type::Histogram);
        let histogram = handling.samples[0].histogram.as_ref().unwrap();
        assert_eq!(histogram.count, 3);
        assert!((histogram.sum - 99.006).abs() < 1e-9, "{}", histogram.sum);
        for bucket in &histogram.buckets {
            let line = format!(
                "grpc_server_handling_seconds_bucket{{method=\"m\",service=\"s\",le=\"{}\"}} {}",
                bucket.upper_bound, bucket.cumulative_count
            );
            assert!(text.contains(&line), "{line} is missing in\n{text}");
        }
        assert_eq!(histogram.buckets.last().unwrap().cumulative_count, 2, "99 s is beyond every bound");
    }

    #[test]
    fn a_prefix_selects_by_name() {
        let metrics = Metrics::new();
        metrics.late_events("consumer").inc();
        metrics.errors("consumer", "log").inc();
        let names: Vec<_> = metrics.families("late_").into_iter().map(|family| family.name).collect();
        assert_eq!(names, ["late_events_total"]);
        let text = metrics.render_some("late_");
        assert!(text.contains("late_events_total{") && !text.contains("errors_total"), "{text}");
        assert!(metrics.families("no_such_metric").is_empty());
    }
}
