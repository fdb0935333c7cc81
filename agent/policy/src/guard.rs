//! What may be denied, and who may be killed: rules that could stop the node, or that the kernel could not decide, are
//! refused when they are read.

use std::ops::Range;

use crate::compile::MAX_EXCEPTIONS;
use crate::facts::{Access, Accesses, Facts, Object, Subject};
use crate::fields::Problems;
use crate::object::When;
use crate::pattern::WatchPath;
use crate::policy::{Effect, Exception};
use crate::problem::Problem;
use crate::subject::Selector;

/// What pid 1, the loader of every program, or the daemon itself opens. A rule that denies above, at or below one of
/// these could stop the node.
const NEEDED: &[&str] = &[
    "/bin",
    "/boot",
    "/dev",
    "/etc/group",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/localtime",
    "/etc/machine-id",
    "/etc/nsswitch.conf",
    "/etc/pam.d",
    "/etc/passwd",
    "/etc/plumbline",
    "/etc/resolv.conf",
    "/etc/shadow",
    "/etc/ssl",
    "/etc/sudoers",
    "/etc/systemd",
    "/lib",
    "/lib64",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/usr/bin",
    "/usr/lib/systemd",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/usr/local/bin/plumbline",
    "/usr/sbin",
    "/var/lib/plumbline",
    "/var/lock",
    "/var/run",
];

/// A rule as far as it was read.
pub(crate) struct Guarded<'a> {
    pub(crate) effect: Effect,
    pub(crate) effect_at: &'a Range<usize>,
    pub(crate) when: &'a When,
    pub(crate) when_at: &'a Range<usize>,
    /// Those of the policy and those of the rule.
    pub(crate) subjects: [&'a [Selector]; 2],
    pub(crate) except: &'a [Exception],
    /// Exceptions that the rule has besides.
    pub(crate) others: usize,
}

impl Guarded<'_> {
    pub(crate) fn check(&self, problems: &mut Problems) {
        match self.effect {
            Effect::Audit | Effect::Alert => {}
            Effect::Deny => self.check_deny(problems),
            Effect::Kill => self.check_kill(problems),
        }
    }

    fn check_kill(&self, problems: &mut Problems) {
        if matches!(self.when, When::Finding(_)) {
            problems.push(
                Problem::new(self.effect_at, "a finding has no process that could be killed").help("write `alert`"),
            );
        }
        // Of several entries any will do, so each must; of the policy's and the rule's, both hold.
        let is_placed = |level: &&[Selector]| !level.is_empty() && level.iter().all(Selector::names_a_place);
        if self.subjects.iter().any(|level| !level.is_empty()) && !self.subjects.iter().any(is_placed) {
            problems.push(
                Problem::new(self.effect_at, "`kill` with a subject of nobody in particular could kill what the node needs")
                    .help("name a cgroup, unit, container, image, namespace, pod or label, or an executable without wildcards"),
            );
        }
        if self.subjects.iter().all(|subjects| subjects.is_empty()) {
            problems.push(
                Problem::new(self.effect_at, "`kill` without a subject could kill anybody")
                    .label("whom?")
                    .help("name under `subject` whom it may kill, in the rule or in `spec`"),
            );
        }
    }

    fn refuse_needed(&self, watch: &[WatchPath], problems: &mut Problems) {
        if let Some((watch, needed)) = watch.iter().find_map(stops_the_node) {
            let message = format!(
                "denying in `{watch}` could stop the node: `{needed}` is needed by pid 1, the loader or the daemon"
            );
            problems.push(
                Problem::new(self.when_at, message)
                    .label("too close to what the node needs")
                    .help("name the directories that hold what you protect"),
            );
        }
    }

    fn check_deny(&self, problems: &mut Problems) {
        if let When::File(rule) = self.when {
            self.refuse_needed(&rule.watched.watch, problems);
        }
        let mut refuse = |message: &str, help: &str| {
            problems.push(Problem::new(self.when_at, message).label("cannot be denied").help(help));
        };
        match self.when {
            When::File(rule) => {
                if rule.accesses != Accesses::of([Access::Open]) {
                    refuse("only opening can be denied", "write `access: [open]`; who cannot open cannot read");
                }
                if rule.path.is_some() || rule.artefact.is_some() || rule.at_least.is_some() || rule.while_served {
                    refuse(
                        "the kernel denies by directory: `path`, `artefact`, `atLeast` and `whileServed` are known too late",
                        "take them out, or write `alert`",
                    );
                }
            }
            When::Connect(rule) => {
                if rule.names_hosts() {
                    refuse(
                        "a name never denies: it is what a name server said of an address",
                        "write networks, or `alert`",
                    );
                }
                if rule.is_everything() && self.subjects.iter().all(|subjects| subjects.is_empty()) {
                    refuse(
                        "denying every connection of everybody would cut the node off",
                        "write `notTo` with the node's own networks, or name a `subject`",
                    );
                }
                if rule.from.is_some() {
                    refuse("`from` is known too late to deny", "take it out, or write `alert`");
                }
                if rule.after_reading.is_some() {
                    refuse("`afterReading` is known too late to deny", "write `kill` or `alert`");
                }
            }
            _ => refuse("only `file` and `connect` can be denied", "write `alert`, or `kill`"),
        }
        let nobody = Facts { subject: Subject::default(), object: Object::Socket { family: "" } };
        for selector in self.subjects.into_iter().flatten().chain(self.except.iter().map(|exception| &exception.who)) {
            for field in selector.beyond_the_kernel(&nobody) {
                refuse(
                    &format!(
                        "`{field}` is nothing that the kernel decides by, so a rule that denies cannot rest on it"
                    ),
                    "name the executable, the unit, the cgroup, the pod or the user",
                );
            }
        }
        if self.others + self.except.len() > MAX_EXCEPTIONS {
            refuse(
                &format!("a rule that denies can have {MAX_EXCEPTIONS} exceptions, and this would be more"),
                "write several values into the fields of one exception: of several values any will do",
            );
        }
        for exception in self.except {
            if exception.path.is_some() {
                refuse(
                    "the kernel denies by directory: `path` is known too late to excuse",
                    "write a rule for each directory",
                );
            }
            if exception.to.as_ref().is_some_and(crate::destination::Destinations::has_names) {
                refuse("a name never excuses from being denied: the kernel knows none", "write networks");
            }
        }
    }
}

/// What is needed that the watched directory is above, at or below: as far as both go, their components match.
fn stops_the_node(watch: &WatchPath) -> Option<(String, &'static str)> {
    let pattern = watch.pattern();
    let meets = |needed: &&&str| {
        let mut pairs = pattern.split('/').zip(needed.split('/'));
        pairs.all(|(component, name)| crate::pattern::component_matches(component, name))
    };
    NEEDED.iter().find(meets).map(|needed| (pattern.to_owned(), *needed))
}
