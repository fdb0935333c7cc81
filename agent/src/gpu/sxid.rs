//! SXIDs: error numbers of NVSwitches up to Hopper's, which only the kernel's log tells (open-gpu-kernel-modules,
//! `nvswitch/kernel/inc/error_nvswitch.h`; newer switches tell nothing here).
//!
//! `nvidia-nvswitchN: SXid (PCI:DDDD:BB:DD.F): NNNNN, Fatal|Non-fatal[, Link LL] TEXT` is an error. Lines with `Severity` or `Data`
//! in that place tell more of the one before.

use std::sync::LazyLock;

use regex::bytes::Regex;

/// One error.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SxidLine {
    /// `nvidia-nvswitch0`, as the driver counts them.
    pub switch: String,
    /// `0000:c1:00.0`.
    pub pci_bus_id: String,
    pub sxid: u32,
    /// What is fatal ends the fabric's traffic, and wants a reset.
    pub is_fatal: bool,
    pub link: Option<u32>,
    pub text: String,
}

static LINE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?-u)^(?<switch>nvidia-nvswitch[0-9]{1,3}): SXid \(PCI:(?<pci>[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}(?:\.[0-7])?)\)",
        r": (?<sxid>[0-9]{1,5}), (?<severity>Fatal|Non-fatal)(?:, Link (?<link>[0-9]{1,3}))?,?(?: (?<text>.*))?$",
    ))
    .ok()
});

impl SxidLine {
    /// `None` for a line of something else, and for one that tells more of the one before.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let found = LINE.as_ref()?.captures(line.trim_ascii())?;
        let text = |name: &str| found.name(name).map(|part| String::from_utf8_lossy(part.as_bytes()).into_owned());
        let number = |name: &str| text(name).and_then(|digits| digits.parse().ok());
        Some(Self {
            switch: text("switch")?,
            pci_bus_id: text("pci")?.to_ascii_lowercase(),
            sxid: number("sxid")?,
            is_fatal: text("severity")? == "Fatal",
            link: number("link"),
            text: text("text").unwrap_or_default(),
        })
    }

    /// `fatal` or `non_fatal`.
    pub const fn severity(&self) -> &'static str {
        if self.is_fatal { "fatal" } else { "non_fatal" }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn check(lines: &[&str], expect: &Expect) {
        let words = |line: &&str| match SxidLine::parse(line.as_bytes()) {
            None => "-\n".to_owned(),
            Some(line) => {
                let severity = line.severity();
                let SxidLine { switch, pci_bus_id, sxid, link, text, .. } = line;
                format!("{switch} {pci_bus_id} {sxid} {severity} {link:?} {text:?}\n")
            }
        };
        expect.assert_eq(&lines.iter().map(words).collect::<String>());
    }

    #[test]
    fn errors_are_told_from_what_is_said_of_them_and_from_other_lines() {
        check(
            &[
                "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 12028, Non-fatal, Link 32 egress non-posted PRIV error (First)",
                "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 12028, Severity 0 Engine instance 32 Sub-engine instance 00",
                "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 12028, Data {0x00140004, 0x00100000, 0x00140004}",
                "nvidia-nvswitch0: SXid (PCI:0000:C3:00.0): 20034, Fatal, Link 27 LTSSM Fault Up",
                "nvidia-nvswitch0: SXid (PCI:0000:c3:00.0): 10003, Fatal Host_req_timeout",
                "nvidia-nvswitch0: SXid (PCI:0000:c3:00.0): 22013, Non-fatal, Minion Link DLREQ interrupt",
                "nvidia-nvswitch0: using MSI",
                "NVRM: Xid (PCI:0000:1b:00): 79, GPU has fallen off the bus.",
                "x nvidia-nvswitch0: SXid (PCI:0000:c3:00.0): 20034, Fatal, Link 27 LTSSM Fault Up",
                "nvidia-nvswitch0: SXid (PCI:0000:c3:00.0): 999999, Fatal, Link 27",
                "",
            ],
            &expect![[r#"
                nvidia-nvswitch3 0000:c1:00.0 12028 non_fatal Some(32) "egress non-posted PRIV error (First)"
                -
                -
                nvidia-nvswitch0 0000:c3:00.0 20034 fatal Some(27) "LTSSM Fault Up"
                nvidia-nvswitch0 0000:c3:00.0 10003 fatal None "Host_req_timeout"
                nvidia-nvswitch0 0000:c3:00.0 22013 non_fatal None "Minion Link DLREQ interrupt"
                -
                -
                -
                -
                -
            "#]],
        );
    }

    proptest! {
        #[test]
        fn no_line_is_too_strange(rest in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..100) {
            let _ = SxidLine::parse(&rest);
            let whole = b"nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 12028, Non-fatal, Link 32 egress";
            let mut mixed = whole[..cut.min(whole.len())].to_vec();
            mixed.extend(&rest);
            if let Some(found) = SxidLine::parse(&mixed) {
                prop_assert!(found.sxid <= 99_999 && found.switch.len() <= 20);
            }
        }
    }
}
