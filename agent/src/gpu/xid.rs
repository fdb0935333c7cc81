//! XIDs: the driver's error numbers, and the lines of the kernel's log that tell of them.
//!
//! The event set of NVML says which and where; only the kernel's log says which process (open-gpu-kernel-modules,
//! `kernel_rc.c`): `NVRM: Xid (PCI:DDDD:BB:DD[ GPU-I:NN[ GPU-CI:NN]]): N, pid=P, name=NAME, TEXT`, where the process is the one
//! that created the channel. Before 2021 there was no process, before that no `PCI:`, and driver 595 may leave it out.

use std::sync::LazyLock;

use plumbline_policy::Severity;
use regex::bytes::Regex;

/// A GPU's place on the bus. NVML writes eight digits of domain, the kernel four; neither function matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PciAddress {
    pub domain: u32,
    pub bus: u8,
    pub device: u8,
}

impl PciAddress {
    /// `00000000:1B:00.0` or `0000:1b:00`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let mut next = || u32::from_str_radix(parts.next()?.split('.').next()?, 16).ok();
        let (domain, bus, device) = (next()?, next()?, next()?);
        Some(Self { domain, bus: bus.try_into().ok()?, device: device.try_into().ok()? })
    }
}

/// One line of the kernel's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XidLine {
    pub pci: PciAddress,
    pub xid: u32,
    pub gpu_instance: Option<u32>,
    pub compute_instance: Option<u32>,
    pub pid: Option<u32>,
    /// As the kernel escapes it.
    pub name: Option<String>,
    pub text: String,
}

/// What the driver says is unknown is said to be nothing.
const UNKNOWN: &[&str] = &["<unknown>", "'<unknown>'", ""];

static LINE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?-u)^NVRM: Xid \((?:PCI:)?(?<pci>[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2})(?:\.[0-7])?",
        r"(?: GPU-I:(?<gi>[0-9]{1,3}))?(?: GPU-CI:(?<ci>[0-9]{1,3}))?\): (?<xid>[0-9]{1,5})",
        r"(?:, pid=(?<pid>[^,]*))?(?:, name=(?<name>[^,]*))?(?:, (?<text>.*))?$",
    ))
    .ok()
});

impl XidLine {
    /// `None` for a line of something else.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let found = LINE.as_ref()?.captures(line.trim_ascii())?;
        let text = |name: &str| found.name(name).map(|part| String::from_utf8_lossy(part.as_bytes()).into_owned());
        let number = |name: &str| text(name).and_then(|digits| digits.parse().ok());
        Some(Self {
            pci: PciAddress::parse(&text("pci")?)?,
            xid: number("xid")?,
            gpu_instance: number("gi"),
            compute_instance: number("ci"),
            pid: number("pid"),
            name: text("name").filter(|name| !UNKNOWN.contains(&name.as_str())),
            text: text("text").unwrap_or_default(),
        })
    }
}

/// What is known of an error number (NVIDIA's XID catalogue, as dcgm-exporter and NVIDIA's own tools have it).
#[derive(Debug)]
pub struct XidCode {
    pub xid: u32,
    pub words: &'static str,
    pub severity: Severity,
}

const fn code(xid: u32, severity: Severity, words: &'static str) -> XidCode {
    XidCode { xid, words, severity }
}

/// Those that a program's own mistake causes are low: nobody is to be woken by a wrong pointer in a kernel.
pub const CODES: &[XidCode] = &[
    code(13, Severity::Low, "graphics engine exception, mostly of the program's making"),
    code(31, Severity::Low, "memory page fault of a program on the GPU"),
    code(32, Severity::Medium, "corrupted push buffer stream"),
    code(38, Severity::High, "driver firmware error"),
    code(43, Severity::Low, "a program's channel was stopped; the GPU is sound"),
    code(45, Severity::Low, "channels were removed after an error or at the end of a program"),
    code(48, Severity::Critical, "double-bit memory error"),
    code(61, Severity::High, "internal microcontroller breakpoint"),
    code(62, Severity::High, "internal microcontroller halt"),
    code(63, Severity::Medium, "a row of memory is to be remapped, or a page retired"),
    code(64, Severity::High, "a row of memory could not be remapped, or a page retired"),
    code(69, Severity::Medium, "graphics engine class error"),
    code(74, Severity::High, "NVLink error"),
    code(79, Severity::Critical, "the GPU has fallen off the bus"),
    code(92, Severity::Medium, "many corrected memory errors"),
    code(94, Severity::High, "memory error that was contained to one program"),
    code(95, Severity::Critical, "memory error that was not contained"),
    code(109, Severity::High, "context switch timeout"),
    code(119, Severity::High, "the GPU's firmware (GSP) did not answer in time"),
    code(120, Severity::High, "the GPU's firmware (GSP) failed"),
    code(121, Severity::Medium, "error on the NVLink-C2C link that was corrected"),
    code(136, Severity::High, "NVLink could not be trained (ALI)"),
    code(137, Severity::Medium, "NVLink privilege error, mostly of a program's making"),
    code(140, Severity::Critical, "memory error that the GPU did not recover from"),
    code(143, Severity::Critical, "the GPU could not be initialised"),
    code(144, Severity::High, "NVLink 5: error of the link's units"),
    code(145, Severity::High, "NVLink 5: error of the link's units"),
    code(146, Severity::High, "NVLink 5: error of the link's units"),
    code(147, Severity::High, "NVLink 5: error of the link's units"),
    code(148, Severity::High, "NVLink 5: error of the link's units"),
    code(149, Severity::High, "NVLink 5: error of the network interface's units"),
    code(150, Severity::High, "NVLink 5: error of the network interface's units"),
    code(154, Severity::High, "another recovery action is wanted"),
    code(155, Severity::High, "NVLink: a link went down"),
    code(156, Severity::High, "resource retirement event"),
    code(157, Severity::High, "resource retirement failure"),
    code(158, Severity::Critical, "fatal timeout"),
    code(160, Severity::High, "channel retirement event"),
    code(163, Severity::High, "channel retirement failure"),
];

/// One that is not in the table may be anything.
pub fn words(xid: u32) -> (&'static str, Severity) {
    let known = CODES.iter().find(|code| code.xid == xid);
    known.map_or(("an error that this version does not know", Severity::Medium), |code| (code.words, code.severity))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn check(lines: &[&str], expect: &Expect) {
        let words = |line: &&str| match XidLine::parse(line.as_bytes()) {
            None => "-\n".to_owned(),
            Some(XidLine {
                pci: PciAddress { domain, bus, device },
                xid,
                gpu_instance,
                compute_instance,
                pid,
                name,
                text,
            }) => {
                format!(
                    "{domain:x}:{bus:x}:{device:x} {xid} gi {gpu_instance:?} ci {compute_instance:?} pid {pid:?} name {name:?} {text:?}\n"
                )
            }
        };
        expect.assert_eq(&lines.iter().map(words).collect::<String>());
    }

    #[test]
    fn every_known_shape_of_a_line() {
        check(
            &[
                "NVRM: Xid (PCI:0000:1b:00): 31, pid=4242, name=python3, Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS",
                "NVRM: Xid (PCI:0000:1b:00 GPU-I:07): 43, pid=4242, name=VLLM::EngineCor, Ch 0000000e",
                "NVRM: Xid (PCI:0000:1b:00 GPU-I:07 GPU-CI:00): 13, pid=4242, name=python3, Graphics SM Warp Exception",
                "NVRM: Xid (PCI:0000:1b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
                // Before there were names, before there were processes, before there was `PCI:`, and without either again.
                "NVRM: Xid (PCI:0000:41:00): 31, pid=2048, Ch 00000008, intr 10000000",
                "NVRM: Xid (PCI:0000:0a:00): 48, Double Bit ECC Error",
                "NVRM: Xid (0000:0a:00): 13, 0001 00000000 0000a06f 00000250 00000000",
                "NVRM: Xid (PCI:0000:41:00): 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
                "NVRM: Xid (PCI:0000:41:00): 45",
            ],
            &expect![[r#"
                0:1b:0 31 gi None ci None pid Some(4242) name Some("python3") "Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS"
                0:1b:0 43 gi Some(7) ci None pid Some(4242) name Some("VLLM::EngineCor") "Ch 0000000e"
                0:1b:0 13 gi Some(7) ci Some(0) pid Some(4242) name Some("python3") "Graphics SM Warp Exception"
                0:1b:0 79 gi None ci None pid None name None "GPU has fallen off the bus."
                0:41:0 31 gi None ci None pid Some(2048) name None "Ch 00000008, intr 10000000"
                0:a:0 48 gi None ci None pid None name None "Double Bit ECC Error"
                0:a:0 13 gi None ci None pid None name None "0001 00000000 0000a06f 00000250 00000000"
                0:41:0 154 gi None ci None pid None name None "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)"
                0:41:0 45 gi None ci None pid None name None ""
            "#]],
        );
    }

    #[test]
    fn what_is_no_such_line() {
        check(
            &[
                "NVRM: GPU at PCI:0000:1b:00: GPU-5eed0000-0000-4000-8000-000000000000",
                "NVRM: GPU 0000:1b:00.0: GPU has fallen off the bus.",
                "NVRM: Xid (PCI:0000:1b:00): -1, pid=1",
                "NVRM: Xid (PCI:zzzz:1b:00): 31",
                "NVRM: Xid (PCI:0000:1b:00): 999999999999",
                "somebody says NVRM: Xid (PCI:0000:1b:00): 79",
                "",
            ],
            &expect![[r#"
                -
                -
                -
                -
                -
                -
                -
            "#]],
        );
    }

    #[test]
    fn a_name_that_lies_is_a_name() {
        check(
            &[
                // A comma ends the name: what a program calls itself must not become another field.
                "NVRM: Xid (PCI:0000:1b:00): 31, pid=7, name=a, pid=1, name=init, Ch 1",
                "NVRM: Xid (PCI:0000:1b:00): 31, pid=7, name=\\x1b[31m, Ch 1",
                "NVRM: Xid (PCI:0000:1b:00): 31, pid=99999999999, name=x, Ch 1",
            ],
            &expect![[r#"
                0:1b:0 31 gi None ci None pid Some(7) name Some("a") "pid=1, name=init, Ch 1"
                0:1b:0 31 gi None ci None pid Some(7) name Some("\\x1b[31m") "Ch 1"
                0:1b:0 31 gi None ci None pid None name Some("x") "Ch 1"
            "#]],
        );
    }

    #[test]
    fn the_kernels_address_is_nvmls() {
        assert_eq!(PciAddress::parse("00000000:1B:00.0"), PciAddress::parse("0000:1b:00"));
        assert_eq!(PciAddress::parse("00010000:1B:00.0").unwrap().domain, 0x10000);
        for garbage in ["", "1b", "0000:1b", "0000:1bb:00", "0000:zz:00.0"] {
            assert_eq!(PciAddress::parse(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn what_programs_cause_wakes_nobody() {
        for xid in [13, 31, 43, 45] {
            assert_eq!(words(xid).1, Severity::Low, "{xid}");
        }
        assert_eq!((words(79).1, words(9999).1), (Severity::Critical, Severity::Medium));
        assert!(CODES.is_sorted_by_key(|code| code.xid), "each stands once, in order");
    }

    proptest! {
        #[test]
        fn no_line_is_too_strange(line in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..120) {
            let _ = XidLine::parse(&line);
            let whole = b"NVRM: Xid (PCI:0000:1b:00 GPU-I:07 GPU-CI:00): 31, pid=4242, name=python3, Ch 00000008";
            let mut mixed = whole[..cut.min(whole.len())].to_vec();
            mixed.extend(&line);
            if let Some(found) = XidLine::parse(&mixed) {
                prop_assert!(found.text.len() <= 3 * line.len() + whole.len());
            }
        }
    }
}
