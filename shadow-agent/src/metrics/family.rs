//! Builds metric families from values read elsewhere. Knows the library's shapes and none of our names.

use std::time::Duration;

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::report::distribution::Distribution;

/// A family under construction.
pub(super) struct Family {
    family: MetricFamily,
    kind: MetricType,
    labels: &'static [&'static str],
    metrics: Vec<Metric>,
}

impl Family {
    /// An empty family of metrics with these labels.
    pub(super) fn new(name: &str, help: &str, kind: MetricType, labels: &'static [&'static str]) -> Family {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        Family { family, kind, labels, metrics: Vec::new() }
    }

    /// Adds a value under its label values, one a label.
    pub(super) fn value(&mut self, labels: &[&str], value: f64) {
        let mut metric = self.metric(labels);
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    /// Adds a count under its label values.
    pub(super) fn count(&mut self, labels: &[&str], count: u64) {
        self.value(labels, count as f64);
    }

    /// Adds a distribution of durations, in seconds, cut at ascending `edges`.
    pub(super) fn durations(&mut self, labels: &[&str], durations: &Distribution, edges: &[Duration]) {
        let mut histogram = Histogram::default();
        histogram.set_sample_count(durations.count());
        histogram.set_sample_sum(durations.sum());
        let buckets = edges.iter().zip(durations.cumulative(edges)).map(|(edge, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(edge.as_secs_f64());
            bucket.set_cumulative_count(count);
            bucket
        });
        histogram.set_bucket(buckets.collect());
        let mut metric = self.metric(labels);
        metric.set_histogram(histogram);
        self.metrics.push(metric);
    }

    /// The family as the library wants it.
    pub(super) fn done(mut self) -> MetricFamily {
        self.family.set_metric(self.metrics);
        self.family
    }

    fn metric(&self, values: &[&str]) -> Metric {
        debug_assert_eq!(self.labels.len(), values.len(), "labels of {}", self.family.name());
        let pair = |(name, value): (&&str, &&str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        Metric::from_label(self.labels.iter().zip(values).map(pair).collect())
    }
}
