//! `/api/v1/policies`: what is in force, and how often it matched.

use serde::{Deserialize, Serialize};

use super::Node;
use crate::series::{Point, agent, kernel};

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct PolicyStatuses {
    pub digest: String,
    pub generation: u64,
    /// Of all kernel maps, which every policy shares; `None` where no kernel program runs.
    pub kernel_memory_bytes: Option<u64>,
    pub policies: Vec<PolicyStatus>,
}

/// One policy.
#[derive(Debug, Serialize, Deserialize)]
pub struct PolicyStatus {
    pub name: String,
    /// The mode that it is in, which may be less than what is written.
    pub mode: String,
    pub rules: usize,
    /// Events that its rules matched since the daemon started.
    pub matches: u64,
    pub last_match_unix_seconds: Option<f64>,
    /// Keys and values of the kernel's tables that are its own, and its share of those that several have, when it was put in
    /// force; `None` where no kernel program runs.
    pub kernel_table_bytes: Option<u64>,
    /// Why it does less than is written.
    pub note: Option<String>,
}

/// A policy as it was put in force.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct InForce {
    pub name: String,
    pub mode: String,
    pub rules: usize,
    pub kernel_table_bytes: Option<u64>,
    pub note: Option<String>,
}

/// What the store says of the policies that are in force.
pub(super) fn statuses(node: &Node, points: &[Point]) -> PolicyStatuses {
    let of = |series: &crate::series::Series, policy: &str| {
        let policy = policy.to_owned();
        let points = points.iter().filter(|point| point.series.name == series.name);
        points
            .filter(move |point| point.labels.first() == Some(&policy))
            .filter_map(Point::number)
            .collect::<Vec<f64>>()
    };
    let status = |policy: &InForce| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
        let matches = of(&agent::POLICY_MATCHES, &policy.name).iter().sum::<f64>() as u64;
        PolicyStatus {
            name: policy.name.clone(),
            mode: policy.mode.clone(),
            rules: policy.rules,
            matches,
            last_match_unix_seconds: of(&agent::POLICY_LAST_MATCH, &policy.name).into_iter().reduce(f64::max),
            kernel_table_bytes: policy.kernel_table_bytes,
            note: policy.note.clone(),
        }
    };
    let memory = points.iter().find(|point| point.series.name == kernel::MAP_MEMORY.name).and_then(Point::number);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes")]
    let kernel_memory_bytes = memory.map(|bytes| bytes as u64);
    PolicyStatuses {
        digest: node.policy_digest.clone(),
        generation: node.policy_generation,
        kernel_memory_bytes,
        policies: node.policies.iter().map(status).collect(),
    }
}
