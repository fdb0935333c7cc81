//! Calls of CUDA that failed, and what NCCL says went wrong meanwhile: told once for each process, call or communicator, and result.

use std::collections::HashSet;

use plumbline_policy::Severity;

use crate::{
    cuda::SOURCE,
    event::{Finding, FoundProcess},
    series::{Point, Sample, cuda, nccl},
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

/// By process, device, call and result, or by process, communicator, rank and result: what else is told of a process may come later.
#[derive(Debug, Default)]
pub struct Failures(HashSet<[String; 4]>);

impl Failures {
    pub fn observe(&mut self, sample: &Sample) -> Vec<Finding> {
        let Some(points) = sample.points.as_ref().ok().filter(|_| sample.source == SOURCE) else { return Vec::new() };
        let is_failure = |point: &&Point| [&cuda::FAILURES_TOTAL, &nccl::ASYNC_ERROR].contains(&point.series);
        let failures: Vec<_> = points.iter().filter(is_failure).collect();
        // Of another process of the same number it is told anew.
        let now: HashSet<[String; 4]> = failures.iter().filter_map(|point| key(&point.labels)).collect();
        self.0.retain(|key| now.contains(key));
        let mut findings = Vec::new();
        for point in failures {
            let Some(key) = key(&point.labels).filter(|_| self.0.len() < MOST) else { continue };
            if self.0.insert(key) {
                findings.extend(finding(point));
            }
        }
        findings
    }
}

fn key(labels: &[String]) -> Option<[String; 4]> {
    let [pid, _, _, _, _, what @ .., result] = labels else { return None };
    let [one, other] = what else { return None };
    Some([pid, one, other, result].map(Clone::clone))
}

fn finding(point: &Point) -> Option<Finding> {
    let [pid, process, pod, namespace, container, one, other, result] = &*point.labels else { return None };
    let place = if pod.is_empty() { String::new() } else { format!(" in {namespace}/{pod}, {container}") };
    let (kind, severity, what) = if *point.series == nccl::ASYNC_ERROR {
        // Nothing that is asked of the communicator is done any more.
        let what = format!("NCCL says of communicator {one}, of which it is rank {other}: {result}");
        ("nccl.async_error", Severity::High, what)
    } else {
        let severity = match &**result {
            result if ANSWERS.contains(&result) => return None,
            result if FATAL.contains(&result) => Severity::High,
            "out_of_memory" => Severity::Medium,
            _ => Severity::Low,
        };
        ("cuda.failure", severity, format!("{other} failed on its device {one}: {result}"))
    };
    let text = format!("{process} ({pid}){place}: {what}");
    let process = pid.parse().ok().map(|pid| FoundProcess { pid, name: process.clone() });
    let evidence = vec![(point.series.name.to_owned(), point.number().unwrap_or_default())];
    Some(Finding { evidence, process, ..Finding::new(kind, severity, "node".to_owned(), text) })
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn what_nccl_says_of_a_communicator_is_told_with_the_rank() {
        let labels = ["7", "python3", "", "", "", "0xc", "3", "remote_error"];
        let points = Ok(vec![Point::new(&nccl::ASYNC_ERROR, &labels, 1.0)]);
        let sample = Sample { source: SOURCE.to_owned(), taken_boot_ns: 1, points };
        let mut failures = Failures::default();
        let told = failures.observe(&sample);
        let [Finding { kind: "nccl.async_error", severity: Severity::High, text, .. }] = &*told else {
            panic!("{told:?}")
        };
        assert_eq!(text, "python3 (7): NCCL says of communicator 0xc, of which it is rank 3: remote_error");
        assert!(failures.observe(&sample).is_empty());
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
