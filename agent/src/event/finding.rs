//! Something is wrong with a part of the node.

use plumbline_policy::Severity;

/// What a rule found, with its evidence. Findings are events, so that policies say what becomes of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// One of [`plumbline_policy::FINDINGS`].
    pub kind: &'static str,
    pub severity: Severity,
    /// The part that it is about: a GPU's UUID.
    pub entity: String,
    /// It in one sentence.
    pub text: String,
    /// The figures that it rests on: name with unit, and value.
    pub evidence: Vec<(String, f64)>,
    /// Whose doing it was, where somebody told.
    pub process: Option<FoundProcess>,
    /// UUIDs of the GPUs that the process has.
    pub gpus: Vec<String>,
    /// Who had the part when it was found.
    pub holders: Vec<FoundHolder>,
}

impl Finding {
    /// Without figures, and of nobody's doing.
    pub const fn new(kind: &'static str, severity: Severity, entity: String, text: String) -> Self {
        Self {
            kind,
            severity,
            entity,
            text,
            evidence: Vec::new(),
            process: None,
            gpus: Vec::new(),
            holders: Vec::new(),
        }
    }
}

/// A container that had the part, or an instance of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundHolder {
    pub namespace: String,
    pub pod: String,
    pub container: String,
    /// The GPU instance.
    pub instance: Option<u32>,
    /// `kubelet` or `processes`.
    pub told_by: &'static str,
}

/// A process as somebody else named it: the driver, in the kernel's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundProcess {
    /// In the initial pid namespace.
    pub pid: u32,
    pub name: String,
}
