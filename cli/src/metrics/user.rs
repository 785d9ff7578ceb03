//! The metrics of a program: those of all processes, added up.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use mobula_runtime::metrics::{MetricKind, MetricSeries};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::exposition::Labels;

/// A metric: its series by their labels.
#[derive(Debug)]
pub(super) struct Family {
    name: String,
    help: String,
    kind: MetricKind,
    bounds: Vec<f64>,
    series: BTreeMap<Labels, Vec<f64>>,
}

/// Counters and histograms of all processes are added up, including those of processes that have ended. A gauge is
/// shown for each living process, with its pid. If processes describe a metric differently, the first description is
/// used.
pub(super) fn families(all: &[MetricSeries], living: &HashSet<u32>) -> Vec<Family> {
    let mut families: BTreeMap<&str, Family> = BTreeMap::new();
    for series in all {
        let description = &series.description;
        let family = families.entry(&description.name).or_insert_with(|| Family {
            name: description.name.clone(),
            help: description.help.replace(['\n', '\r'], " "),
            kind: description.kind,
            bounds: description.bounds.clone(),
            series: BTreeMap::new(),
        });
        if family.kind != description.kind || family.bounds != description.bounds {
            continue;
        }
        let mut labels = description.tags.clone();
        if description.kind == MetricKind::Gauge {
            if !living.contains(&series.pid) {
                continue;
            }
            if !labels.iter().any(|(name, _)| name == "pid") {
                labels.push(("pid".to_owned(), series.pid.to_string()));
            }
        }
        let sum = family.series.entry(labels).or_insert_with(|| vec![0.0; series.values.len()]);
        for (sum, value) in sum.iter_mut().zip(&series.values) {
            *sum += value;
        }
    }
    families.into_values().filter(|family| !family.series.is_empty()).collect()
}

impl Family {
    pub(super) fn encode(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kind = match self.kind {
            MetricKind::Counter => MetricType::Counter,
            MetricKind::Histogram => MetricType::Histogram,
            _ => MetricType::Gauge,
        };
        // The format adds this to the name of a counter itself.
        let name = match kind {
            MetricType::Counter => self.name.strip_suffix("_total").unwrap_or(&self.name),
            _ => &self.name,
        };
        let mut family = to.encode_descriptor(name, &self.help, None, kind)?;
        for (labels, values) in &self.series {
            let mut encoder = family.encode_family(labels)?;
            match self.kind {
                MetricKind::Counter => ConstCounter::new(values[0]).encode(encoder)?,
                MetricKind::Histogram => {
                    let (counts, sum) = values.split_at(values.len() - 1);
                    let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
                    let buckets: Vec<(f64, u64)> =
                        bounds.zip(counts.iter().map(|count| *count as u64)).collect();
                    let count = buckets.iter().map(|(_, count)| count).sum();
                    encoder.encode_histogram::<NoLabelSet>(sum[0], count, &buckets, None)?;
                }
                _ => ConstGauge::new(values[0]).encode(encoder)?,
            }
        }
        Ok(())
    }
}
