//! What is in force together.

use std::sync::Arc;

use plumbline_policy::{Denials, PolicySet};

use super::WatchedPaths;

/// Policies and what they want watched: replaced together.
#[derive(Debug, Clone)]
pub struct Rules {
    pub policies: Arc<PolicySet>,
    pub watched: WatchedPaths,
    /// Those of the policies that the kernel decides.
    denials: Arc<Denials>,
    /// Opens are told before it is known whether they are denied.
    pub opens_are_told_before: bool,
}

impl Rules {
    pub fn new(policies: Arc<PolicySet>, watched: WatchedPaths) -> Self {
        // Too many are in force nowhere: the daemon has refused them.
        let denials = policies.denials().unwrap_or_default();
        Self { policies, watched, denials, opens_are_told_before: false }
    }

    pub fn denials(&self) -> &Denials {
        &self.denials
    }

    /// The kernel's name for these policies, as events carry it.
    pub fn generation(&self) -> u32 {
        u32::try_from(self.policies.generation()).unwrap_or(u32::MAX)
    }
}
