//! Which Debian mirror this machine uses, asked of `apt` itself, so that every form of sources file is understood.
//!
//! Repositories that are not Debian's (vendors' and the like) are passed over. A suite that the machine does not follow
//! is taken from the same mirror. Does not write anything.

use std::process::Command;

use super::package::stanzas;
use crate::cmd;
use crate::error::{Error, Result};

/// Asks for one line per package list: `ORIGIN|URI|SUITE|COMPONENT`.
const FORMAT: &str = "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)";

/// Releases by code name, to know Debian's repositories before their lists have ever been fetched.
const CODE_NAMES: [&str; 4] = ["bullseye", "bookworm", "trixie", "forky"];

/// One suite of one mirror, as a deb822 source (`man sources.list`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Suite {
    pub(super) name: String,
    pub(super) uri: String,
}

impl Suite {
    pub(super) fn deb822(&self, keyring: &str) -> String {
        let Self { name, uri } = self;
        // Only package lists are fetched, none of the extras that a desktop's configuration adds.
        format!(
            "Types: deb\nURIs: {uri}\nSuites: {name}\nComponents: main\nArchitectures: amd64\nTargets: Packages\nSigned-By: {keyring}\n\n"
        )
    }
}

/// The machine's Debian sources.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mirrors {
    suites: Vec<Suite>,
}

impl Mirrors {
    pub(super) fn of_machine() -> Result<Self> {
        super::debian_release()?;
        let list =
            cmd::output(Command::new("apt-get").args(["indextargets", "--format", FORMAT, "Created-By: Packages"]))?;
        Self::parse(&list)
    }

    fn parse(list: &str) -> Result<Self> {
        let mut suites: Vec<Suite> = Vec::new();
        for line in list.lines() {
            let mut words = line.split('|');
            let (Some(origin), Some(uri), Some(name), Some("main")) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                continue;
            };
            let is_debian = origin == "Debian"
                || origin.is_empty() && CODE_NAMES.iter().any(|code| name.split('-').next() == Some(code));
            let suite = Suite { name: name.to_owned(), uri: uri.trim_end_matches('/').to_owned() };
            // A local disc is not a mirror: it lacks the other suites.
            if is_debian && !uri.starts_with("cdrom:") && !suites.contains(&suite) {
                suites.push(suite);
            }
        }
        if suites.iter().all(Suite::is_security) {
            return Err(Error::said("apt's configuration names no Debian mirror (component `main`) to fetch from"));
        }
        Ok(Self { suites })
    }

    pub(super) fn machine_suites(&self) -> Vec<Suite> {
        self.suites.clone()
    }

    /// Any suite, from the machine's mirror; security suites live in an archive of their own beside the main one.
    pub(super) fn suite(&self, name: &str) -> Suite {
        let wanted = Suite { name: name.to_owned(), uri: String::new() };
        let same_archive = self.suites.iter().find(|suite| suite.is_security() == wanted.is_security());
        let uri = match same_archive {
            Some(suite) => suite.uri.clone(),
            None => match self.suites[0].uri.strip_suffix("/debian") {
                Some(host) => format!("{host}/debian-security"),
                None => format!("{}-security", self.suites[0].uri),
            },
        };
        Suite { uri, ..wanted }
    }
}

impl Suite {
    fn is_security(&self) -> bool {
        self.name.ends_with("-security")
    }
}

/// The lines of `apt-config dump` that say how to reach the network: proxies, certificates, retries, credentials.
pub(super) fn acquire_settings(dump: &str) -> String {
    const KEPT: [&str; 6] = [
        "acquire::http::",
        "acquire::https::",
        "acquire::retries",
        "acquire::proxy",
        "acquire::check-date",
        "acquire::forceipv",
    ];
    dump.lines()
        .filter(|line| {
            let line = line.to_ascii_lowercase();
            KEPT.iter().any(|kept| line.starts_with(kept))
        })
        .fold(String::new(), |mut text, line| {
            text.push_str(line);
            text.push('\n');
            text
        })
}

/// `VERSION_CODENAME` of Debian's `/etc/os-release`.
pub(super) fn debian_release(os_release: &str) -> Result<String> {
    // The file is `KEY=value` lines; read as a stanza it is the same but for the separator.
    let fields = stanzas(&os_release.replace('=', ":"));
    let field = |name| fields.iter().find_map(|stanza| stanza.get(name)).map(|value| value.trim_matches('"'));
    match (field("ID"), field("VERSION_CODENAME")) {
        (Some("debian"), Some(code_name)) => Ok(code_name.to_owned()),
        (id, _) => Err(Error::said(format!(
            "this machine is `{}`, and set-up knows only where Debian (bookworm, trixie) keeps things.\n  \
             By hand: rustc's `rust-src` component, bpf-linker 0.10.4 on PATH, qemu-system-x86_64, Python 3 with venv, promtool",
            id.unwrap_or("unknown")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(list: &str, wanted: &str, expected: &Expect) {
        let text = match Mirrors::parse(list) {
            Ok(mirrors) => {
                let Suite { name, uri } = mirrors.suite(wanted);
                format!("{uri} {name}")
            }
            Err(error) => format!("error: {error}"),
        };
        expected.assert_eq(&text);
    }

    const TWO_ARCHIVES: &str = "\
Google|https://vendor.example/apt/|cloud-sdk|main
Debian|http://mirror.example/debian/|bookworm|main
Debian|http://mirror.example/debian/|bookworm|contrib
Debian|http://security.example/sec/|bookworm-security|main
";

    #[test]
    fn another_suite_comes_from_the_mirror_of_this_machines_suite() {
        check(TWO_ARCHIVES, "trixie-backports", &expect!["http://mirror.example/debian trixie-backports"]);
    }

    #[test]
    fn a_security_suite_comes_from_the_security_archive() {
        check(TWO_ARCHIVES, "bullseye-security", &expect!["http://security.example/sec bullseye-security"]);
    }

    #[test]
    fn without_a_security_source_its_archive_is_the_neighbour_of_the_main_one() {
        let list = "|http://mirror.example/debian/|trixie|main\n";
        check(list, "bullseye-security", &expect!["http://mirror.example/debian-security bullseye-security"]);
    }

    #[test]
    fn vendors_repositories_and_discs_are_not_mirrors() {
        let list = "Node|https://vendor.example/|nodistro|main\nDebian|cdrom:[Debian 12]/|bookworm|main\n";
        check(
            list,
            "trixie",
            &expect!["error: apt's configuration names no Debian mirror (component `main`) to fetch from"],
        );
    }

    #[test]
    fn only_the_way_to_the_network_is_taken_from_the_machines_configuration() {
        let dump = "APT::Update::Post-Invoke:: \"rm -f /x\";\nAcquire::http::Proxy \"http://p:3128\";\nAcquire::Languages \"none\";\n";
        expect![[r#"
            Acquire::http::Proxy "http://p:3128";
        "#]]
        .assert_eq(&acquire_settings(dump));
    }

    #[test]
    fn debian_is_known_by_its_os_release_and_others_are_told_what_is_needed() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nVERSION_CODENAME=trixie\nID=debian\n";
        assert_eq!(debian_release(debian).unwrap(), "trixie");
        let error = debian_release("ID=ubuntu\nVERSION_CODENAME=noble\n").expect_err("not Debian").to_string();
        assert!(error.starts_with("this machine is `ubuntu`") && error.contains("bpf-linker 0.10.4"), "{error}");
        assert!(debian_release("").expect_err("empty").to_string().starts_with("this machine is `unknown`"));
    }
}
