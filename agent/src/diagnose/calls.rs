//! Calls of CUDA that failed: told once for each process, call and result. How many there were is a series.

use std::collections::HashSet;

use plumbline_policy::Severity;

use crate::{
    cuda::SOURCE,
    event::{Finding, FoundProcess},
    series::{Sample, cuda},
};

/// What ends a process's work on its GPU, as `cuda.h` says of these results.
const FATAL: [&str; 12] = [
    "ecc_uncorrectable",
    "nvlink_uncorrectable",
    "illegal_address",
    "launch_timeout",
    "launch_failed",
    "device_unavailable",
    "assert",
    "hardware_stack_error",
    "illegal_instruction",
    "misaligned_address",
    "invalid_address_space",
    "invalid_pc",
];

/// What is an answer to a question, and no failure: of programs that can do without a GPU.
const ANSWERS: [&str; 3] = ["no_device", "insufficient_driver", "not_ready"];

/// Failures that are told; of processes without number there are more.
const MOST: usize = 4096;

/// By process, device, call and result: what else is told of a process may come later.
#[derive(Debug, Default)]
pub struct Failures(HashSet<[String; 4]>);

impl Failures {
    pub fn observe(&mut self, sample: &Sample) -> Vec<Finding> {
        let Some(points) = sample.points.as_ref().ok().filter(|_| sample.source == SOURCE) else { return Vec::new() };
        let failures: Vec<_> = points.iter().filter(|point| *point.series == cuda::FAILURES_TOTAL).collect();
        // Of another process of the same number it is told anew.
        let now: HashSet<[String; 4]> = failures.iter().filter_map(|point| key(&point.labels)).collect();
        self.0.retain(|key| now.contains(key));
        let mut findings = Vec::new();
        for point in failures {
            let Some(key) = key(&point.labels).filter(|_| self.0.len() < MOST) else { continue };
            if self.0.insert(key) {
                findings.extend(finding(&point.labels, point.number().unwrap_or_default()));
            }
        }
        findings
    }
}

fn key(labels: &[String]) -> Option<[String; 4]> {
    let [pid, _, _, _, _, device, call, result] = labels else { return None };
    Some([pid, device, call, result].map(Clone::clone))
}

fn finding(labels: &[String], count: f64) -> Option<Finding> {
    let [pid, process, pod, namespace, container, device, call, result] = labels else { return None };
    let severity = match &**result {
        result if ANSWERS.contains(&result) => return None,
        result if FATAL.contains(&result) => Severity::High,
        "out_of_memory" => Severity::Medium,
        _ => Severity::Low,
    };
    let place = if pod.is_empty() { String::new() } else { format!(" in {namespace}/{pod}, {container}") };
    let text = format!("{process} ({pid}){place}: {call} failed on its device {device}: {result}");
    let process = pid.parse().ok().map(|pid| FoundProcess { pid, name: process.clone() });
    let evidence = vec![(cuda::FAILURES_TOTAL.name.to_owned(), count)];
    Some(Finding { evidence, process, ..Finding::new("cuda.failure", severity, "node".to_owned(), text) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Point;

    /// The failures of a sample, by process and result; and what is told.
    type Step<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);

    #[track_caller]
    fn check(samples: &[Step<'_>]) {
        let mut failures = Failures::default();
        for (given, expect) in samples {
            let point = |(pid, result): &(&str, &str)| {
                let labels = [*pid, "python3", "vllm-0", "llm", "engine", "0", "stream_synchronize", *result];
                Point::new(&cuda::FAILURES_TOTAL, &labels, 3.0)
            };
            let sample =
                Sample { source: SOURCE.to_owned(), taken_boot_ns: 1, points: Ok(given.iter().map(point).collect()) };
            let told: Vec<String> = failures
                .observe(&sample)
                .into_iter()
                .map(|finding| format!("{}: {}", finding.severity.as_str(), finding.text))
                .collect();
            assert_eq!(told, *expect);
        }
    }

    #[test]
    fn a_failure_is_told_once_for_each_process_and_result() {
        let illegal =
            "high: python3 (7) in llm/vllm-0, engine: stream_synchronize failed on its device 0: illegal_address";
        let memory =
            "medium: python3 (7) in llm/vllm-0, engine: stream_synchronize failed on its device 0: out_of_memory";
        check(&[
            (&[("7", "illegal_address")], &[illegal]),
            (&[("7", "illegal_address"), ("7", "out_of_memory")], &[memory]),
            (&[("7", "illegal_address"), ("8", "no_device")], &[]),
            // It has ended, and another has its number.
            (&[], &[]),
            (&[("7", "illegal_address")], &[illegal]),
        ]);
    }
}
