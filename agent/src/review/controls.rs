//! What reviewers' rule books ask of logs, and what this log answers: one table for the report and for
//! `docs/controls.md`.
//!
//! The wording is ours and short; the rule books hold the duty. Sources: Regulation (EU) 2024/1689, NIST SP 800-53 rev. 5,
//! ISO/IEC 42001:2023, the AICPA's trust services criteria, Delegated Regulation (EU) 2024/1774, PCI DSS 4.0.

use super::document::Document;

/// One control.
#[derive(Debug, Clone, Copy)]
pub struct Control {
    pub book: &'static str,
    pub number: &'static str,
    pub asks: &'static str,
    /// What is recorded or done, by the kinds of records and the commands that show it.
    pub answered: &'static str,
    /// What is not: another system's or a person's business, or not built.
    pub not_answered: &'static str,
}

const fn control(
    book: &'static str,
    number: &'static str,
    asks: &'static str,
    answered: &'static str,
    not_answered: &'static str,
) -> Control {
    Control { book, number, asks, answered, not_answered }
}

const AI_ACT: &str = "EU AI Act";
const NIST: &str = "NIST 800-53";
const ISO: &str = "ISO 42001";
const SOC: &str = "SOC 2";
const DORA: &str = "DORA RTS 2024/1774";
const PCI: &str = "PCI DSS 4.0";

pub const CONTROLS: &[Control] = &[
    control(
        AI_ACT,
        "12(1)",
        "Events are recorded automatically over the system's lifetime",
        "start, stop, gap: when the node was watched and when not",
        "The log of inferences, which the serving application keeps; this is supporting evidence",
    ),
    control(
        AI_ACT,
        "12(2)",
        "Events that show risk or substantial modification",
        "file_open of model files with the identity they claim, policies, hook; finding: GPUs lost, memory errors, heat",
        "Verified model identity; other incidents of GPUs",
    ),
    control(
        AI_ACT,
        "12(3)",
        "Period of use, reference data, persons, for remote biometric identification",
        "",
        "Everything: out of scope",
    ),
    control(
        AI_ACT,
        "19(1), 26(6)",
        "Logs are kept for at least six months",
        "Retention of 183 days; less needs a reason, which is recorded at each start; pruned: what was removed",
        "Longer duties of a sector: set retention_days",
    ),
    control(
        NIST,
        "AU-2, AU-12",
        "Event types are selected and generated",
        "policies: each change, with digest and generation; coverage in start",
        "",
    ),
    control(
        NIST,
        "AU-3, AU-3(1)",
        "What, when, where, source, outcome, who",
        "Every record: class, time, host, boot, process with ancestors, user, container, file or address",
        "Login user, capabilities and outcome of connections",
    ),
    control(
        NIST,
        "AU-3(3)",
        "Personal data is limited",
        "Redaction before hashing; no environment, no prompt and no content of files is read",
        "",
    ),
    control(
        NIST,
        "AU-4",
        "There is room for the log",
        "disk; plumbline_log_free_bytes; audit stat projects the size",
        "",
    ),
    control(
        NIST,
        "AU-5, AU-5(1), AU-5(2)",
        "Failures of logging and low room raise alerts",
        "loss, disk, recovered; plumbline_log_errors_total and plumbline_lost_total for alert rules",
        "Sending the alert is the monitoring system's",
    ),
    control(NIST, "AU-6, AU-7", "Records are reviewed and reduced", "audit report, query, export", "The review itself"),
    control(
        NIST,
        "AU-8",
        "Time stamps in UTC of known granularity",
        "Nanoseconds of UTC and of a clock that never steps, in every record; clock_sync; clock_step",
        "Setting the clock",
    ),
    control(
        NIST,
        "AU-9, AU-9(2), AU-9(3)",
        "The log is protected, also cryptographically and elsewhere",
        "Merkle tree, signatures, epoch keys; checkpoints to a witness; records by OTLP, JSONL, webhook",
        "Access control of what receives them",
    ),
    control(
        NIST,
        "AU-10",
        "Actions cannot be denied later",
        "Process lineage in signed records; audit prove",
        "Linking a process to a person",
    ),
    control(NIST, "AU-11", "Records are retained", "As AI Act 19(1)", "Archives off the node: docs/audit.md"),
    control(
        ISO,
        "A.6.2.8",
        "Event logs are enabled at least while the system is in use",
        "start with coverage, gap, stop; report: time not watched",
        "",
    ),
    control(
        SOC,
        "CC6.8",
        "Unauthorised software is prevented or detected",
        "exec when record_processes is on; file_open by strangers; a policy may end a process (killed)",
        "Prevention before the fact",
    ),
    control(
        SOC,
        "CC7.2, CC7.3",
        "Anomalies are monitored and evaluated",
        "Policy alerts (is_alert), severities, losses",
        "The evaluation",
    ),
    control(
        SOC,
        "CC8.1",
        "Changes are authorised and recorded",
        "policies: digest before and after; build digest in every record",
        "The authorisation",
    ),
    control(
        DORA,
        "12(2)(c)",
        "Logs of access, capacity, change, operations, network traffic",
        "file_open, connect, disk, policies, hook, start, stop",
        "Bytes of traffic",
    ),
    control(
        DORA,
        "12(2)(d)",
        "Logs are protected against tampering and deletion",
        "As AU-9; pruning is a record and keeps proofs",
        "",
    ),
    control(
        DORA,
        "12(2)(e)",
        "Failures of logging are detected",
        "loss, gap, recovered; heartbeat checkpoints every ten seconds",
        "Noticing their absence is the collector's",
    ),
    control(DORA, "12(2)(f)", "Clocks follow a documented source", "clock_sync in every record", "Naming the source"),
    control(
        PCI,
        "10.2.1.3",
        "Access to audit logs is logged",
        "file_open of the log by others than the daemon (policy tamper, rule log-read)",
        "With another state_dir, the policy's paths are to be changed",
    ),
    control(PCI, "10.2.1.6", "Start, stop and pause of logging are logged", "start, stop, gap, disk", ""),
    control(PCI, "10.2.2", "User, type, time, outcome, origin, object", "As AU-3", "As AU-3"),
    control(PCI, "10.3", "Logs are protected from change", "As AU-9", ""),
    control(PCI, "10.5.1", "Twelve months of history, three at hand", "retention_days: 365", "The default is 183 days"),
    control(PCI, "10.6", "Time is synchronised", "As AU-8", "Setting the clock"),
    control(PCI, "10.7", "Failures of logging are detected and answered", "As AU-5", "The answer"),
];

/// Adds the table to a document.
pub fn add_to(document: &mut Document) {
    let row = |control: &Control| {
        [control.book, control.number, control.asks, control.answered, control.not_answered]
            .map(|text| if text.is_empty() { "–".to_owned() } else { text.to_owned() })
            .to_vec()
    };
    document.table(
        &["Rule book", "Control", "Asks for", "Answered by", "Not answered here"],
        CONTROLS.iter().map(row).collect(),
    );
}

/// The page `docs/controls.md`.
pub fn page() -> String {
    let mut document = Document::new("Controls");
    document.text(
        "Generated from the table in agent/src/review/controls.rs; `UPDATE_EXPECT=1 cargo test -p plumbline review::controls` \
         writes it anew. Words in the fourth column are kinds of records (unmapped.plumbline.kind) and commands. The wording is \
         ours and short: the rule books hold the duty, and a reviewer decides what meets it. A daemon on a node gives \
         supporting evidence; it is not the log of inferences that Article 12 of the AI Act has in mind.",
    );
    add_to(&mut document);
    document.markdown()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_the_repository_is_the_table() {
        expect_test::expect_file!["../../../docs/controls.md"].assert_eq(&page());
    }

    #[test]
    fn every_control_says_what_is_answered_or_what_is_not() {
        for control in CONTROLS {
            assert!(!control.answered.is_empty() || !control.not_answered.is_empty(), "{control:?}");
        }
    }
}
