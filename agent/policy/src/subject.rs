//! Who acted: the selector that policies, rules and exceptions share.
//!
//! Every field that is given must hold, of several values in a field any may, and a fact that is not known satisfies no
//! field. A field is one entry of [`FIELDS`], one of [`CONDITIONS`], and one in [`Selector`].

use std::ops::Range;

use crate::facts::Facts;
use crate::fields::{Fields, Problems, boolean, integer, many, text};
use crate::pattern::{Globs, is_plain};
use crate::problem::{Problem, one_of, quoted};
use crate::shape::{Field, Holds, Shape, optional, required};
use crate::yaml::{Node, Value};

/// The kernel keeps 15 bytes of a task's name.
const MAX_COMM_BYTES: usize = 15;
/// Shorter prefixes of container ids could be those of strangers; 12 is what container tools show.
const MIN_CONTAINER_DIGITS: usize = 12;

pub(crate) const FIELDS: &[Field] = &[
    optional("exe", Holds::Texts, "the path of the executable matches a glob"),
    optional("exeSha256", Holds::Texts, "the executable has this SHA-256: 64 hexadecimal digits"),
    optional("comm", Holds::Texts, "the task's name is this, at most 15 bytes; whatever the process calls itself"),
    optional("uid", Holds::Integers(0, u32::MAX as u64), "the user id is this"),
    optional("user", Holds::Texts, "the user id has this name on the host"),
    optional("container", Holds::Texts, "the container id begins with this, at least 12 hexadecimal digits"),
    optional("contained", Holds::Bool, "whether the process is in a container, as its cgroup says"),
    optional("image", Holds::Texts, "the container's image, as its pod names it, matches a glob"),
    optional("namespace", Holds::Texts, "the pod's namespace matches a glob"),
    optional("pod", Holds::Texts, "the pod's name matches a glob"),
    optional("podLabels", Holds::Labels, "the pod has all of these labels, each with one of the values"),
    optional("cgroup", Holds::Texts, "the cgroup, or one above it, matches a glob, such as `/kubepods.slice/**`"),
    optional(
        "unit",
        Holds::Texts,
        "the systemd unit matches a glob, such as `vllm@*.service`; units inside a user's session do not count",
    ),
    optional("descendantsOf", Holds::One(&DESCENDANTS), "a process above, however far, is this"),
];

static DESCENDANTS: Shape = Shape {
    what: "`descendantsOf`",
    about: "A process above the one that acted.",
    fields: &[&[required("exe", Holds::Texts, "the path of its executable matches a glob")]],
};

pub(crate) static SUBJECT: Shape = Shape {
    what: "a subject",
    about: "Whom a policy or a rule speaks of. All fields of one entry must hold; of several entries, any.",
    fields: &[FIELDS],
};

/// Somebody, by what is known of a process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Selector {
    pub(crate) exe: Option<Globs>,
    pub(crate) exe_sha256: Option<Vec<String>>,
    pub(crate) comm: Option<Vec<Box<[u8]>>>,
    pub(crate) uid: Option<Vec<u32>>,
    pub(crate) user: Option<Vec<String>>,
    pub(crate) container: Option<Vec<String>>,
    pub(crate) contained: Option<bool>,
    pub(crate) image: Option<Globs>,
    pub(crate) namespace: Option<Globs>,
    pub(crate) pod: Option<Globs>,
    pub(crate) pod_labels: Option<Vec<(String, Vec<String>)>>,
    pub(crate) cgroup: Option<Globs>,
    pub(crate) unit: Option<Globs>,
    pub(crate) descendants_of: Option<Globs>,
}

/// What the kernel must know of a process to ask a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Its cgroup, and so its unit, container and pod.
    Place,
    /// The file that it runs.
    Program,
    User,
    /// More than the kernel decides by.
    Beyond,
}

/// Whether a field holds; `None` where the selector does not have it.
type Condition = fn(&Selector, &Facts<'_>) -> Option<bool>;

/// Cheap ones first: the first that does not hold ends the question.
pub(crate) const CONDITIONS: &[(&str, Part, Condition)] = &[
    ("uid", Part::User, |it, facts| {
        let uids = it.uid.as_ref()?;
        Some(facts.subject.uid.is_some_and(|uid| uids.contains(&uid)))
    }),
    ("comm", Part::Beyond, |it, facts| Some(it.comm.as_ref()?.iter().any(|name| **name == *facts.subject.comm))),
    ("user", Part::User, |it, facts| Some(is_one_of(it.user.as_ref()?, facts.subject.user))),
    ("exeSha256", Part::Beyond, |it, facts| Some(is_one_of(it.exe_sha256.as_ref()?, facts.subject.exe_sha256))),
    ("container", Part::Place, |it, facts| {
        let prefixes = it.container.as_ref()?;
        Some(facts.subject.container.is_some_and(|id| prefixes.iter().any(|prefix| id.starts_with(&**prefix))))
    }),
    ("contained", Part::Place, |it, facts| {
        let wanted = it.contained?;
        let is_known = facts.subject.container.is_some() || facts.subject.cgroup.is_some();
        Some(is_known && facts.subject.container.is_some() == wanted)
    }),
    ("podLabels", Part::Place, |it, facts| {
        let wanted = it.pod_labels.as_ref()?;
        let labels = facts.subject.pod.map_or(&[][..], |pod| pod.labels);
        let has = |(name, values): &(String, Vec<String>)| labels.iter().any(|(n, v)| n == name && values.contains(v));
        Some(wanted.iter().all(has))
    }),
    ("exe", Part::Program, |it, facts| Some(fits(it.exe.as_ref()?, facts.subject.exe))),
    ("image", Part::Place, |it, facts| Some(fits(it.image.as_ref()?, facts.subject.image.map(str::as_bytes)))),
    ("namespace", Part::Place, |it, facts| {
        Some(fits(it.namespace.as_ref()?, facts.subject.pod.map(|pod| pod.namespace.as_bytes())))
    }),
    ("pod", Part::Place, |it, facts| Some(fits(it.pod.as_ref()?, facts.subject.pod.map(|pod| pod.name.as_bytes())))),
    ("unit", Part::Place, |it, facts| Some(fits(it.unit.as_ref()?, facts.subject.cgroup.and_then(unit)))),
    ("cgroup", Part::Place, |it, facts| Some(fits(it.cgroup.as_ref()?, facts.subject.cgroup))),
    ("descendantsOf", Part::Beyond, |it, facts| {
        let globs = it.descendants_of.as_ref()?;
        Some(facts.subject.ancestors.iter().any(|ancestor| fits(globs, ancestor.exe)))
    }),
];

fn fits(globs: &Globs, fact: Option<&[u8]>) -> bool {
    fact.is_some_and(|fact| globs.matches(fact))
}

fn is_one_of(wanted: &[String], fact: Option<&str>) -> bool {
    fact.is_some_and(|fact| wanted.iter().any(|one| one == fact))
}

/// The systemd unit of a cgroup: the first component that is no slice. The first and not the last, because what lies
/// below a delegated unit is named by whoever the unit is delegated to.
pub(crate) fn unit(cgroup: &[u8]) -> Option<&[u8]> {
    let component = cgroup.split(|&byte| byte == b'/').find(|name| !name.is_empty() && !name.ends_with(b".slice"))?;
    (component.ends_with(b".service") || component.ends_with(b".scope")).then_some(component)
}

impl Selector {
    /// `Err` names the first field that does not hold.
    pub(crate) fn admits(&self, facts: &Facts<'_>) -> Result<(), &'static str> {
        match CONDITIONS.iter().find(|(_, _, condition)| condition(self, facts) == Some(false)) {
            Some((name, ..)) => Err(name),
            None => Ok(()),
        }
    }

    /// Whether the conditions of this part hold.
    pub(crate) fn admits_by(&self, part: Part, facts: &Facts<'_>) -> bool {
        let of_part = CONDITIONS.iter().filter(|(_, of, _)| *of == part);
        of_part.into_iter().all(|(_, _, condition)| condition(self, facts) != Some(false))
    }

    /// Whether it has a field of this part.
    pub(crate) fn asks(&self, part: Part) -> bool {
        match part {
            Part::Program => self.exe.is_some(),
            Part::User => self.uid.is_some() || self.user.is_some(),
            Part::Place => {
                self.container.is_some()
                    || self.contained.is_some()
                    || self.pod_labels.is_some()
                    || self.cgroup.is_some()
                    || self.unit.is_some()
                    || [&self.image, &self.namespace, &self.pod].into_iter().any(Option::is_some)
            }
            Part::Beyond => true,
        }
    }

    /// Its fields that the kernel does not decide by.
    pub(crate) fn beyond_the_kernel<'a>(&'a self, facts: &'a Facts<'a>) -> impl Iterator<Item = &'static str> + 'a {
        let beyond = CONDITIONS.iter().filter(|(_, of, _)| *of == Part::Beyond);
        beyond.filter(|(_, _, condition)| condition(self, facts).is_some()).map(|(name, ..)| *name)
    }

    /// Reads the fields of `node`, an entry that names somebody or is refused.
    pub(crate) fn read(node: &Node, shape: &Shape, problems: &mut Problems) -> Option<Self> {
        let fields = named(node, shape, problems)?;
        let before = problems.len();
        let selector = Self::of(&fields, problems);
        // A field that could not be read must not leave a selector that is wider than what was written.
        (problems.len() == before).then_some(selector)
    }

    /// Reads the fields of a selector among `fields`; those that are wrong are noted and left out.
    pub(crate) fn of(fields: &Fields<'_>, problems: &mut Problems) -> Self {
        let mut with = |name: &'static str, read: ReadGlobs| {
            fields.get(name).and_then(|node| globs(node, &format!("`{name}`"), read, problems))
        };
        let (exe, image) = (with("exe", Globs::of_files), with("image", Globs::of_images));
        let (namespace, pod) = (with("namespace", Globs::of_words), with("pod", Globs::of_words));
        let (cgroup, unit) = (with("cgroup", Globs::of_cgroups), with("unit", Globs::of_units));
        Self {
            exe,
            exe_sha256: fields.get("exeSha256").and_then(|node| many(node, "`exeSha256`", problems, sha256)),
            comm: fields.get("comm").and_then(|node| many(node, "`comm`", problems, comm)),
            uid: fields.get("uid").and_then(|node| {
                many(node, "`uid`", problems, |node, problems| integer(node, "a user id", "0 to 4294967295", problems))
            }),
            user: fields.get("user").and_then(|node| {
                many(node, "`user`", problems, |node, problems| Some(text(node, "a user's name", problems)?.to_owned()))
            }),
            container: fields.get("container").and_then(|node| many(node, "`container`", problems, container)),
            contained: fields.get("contained").and_then(|node| boolean(node, "`contained`", problems)),
            image,
            namespace,
            pod,
            pod_labels: fields.get("podLabels").and_then(|node| labels(node, problems)),
            cgroup,
            unit,
            descendants_of: fields.get("descendantsOf").and_then(|node| {
                let fields = Fields::of(node, &DESCENDANTS, problems)?;
                globs(fields.get("exe")?, "`exe`", Globs::of_files, problems)
            }),
        }
    }

    /// Whether it says more than which user acts: where, or by which program.
    pub(crate) fn names_a_place(&self) -> bool {
        let is_one_program = |globs: &Globs| globs.patterns().iter().all(|pattern| is_plain(pattern));
        self.exe.as_ref().is_some_and(is_one_program)
            || self.exe_sha256.is_some()
            || self.container.is_some()
            || self.image.is_some()
            || self.namespace.is_some()
            || self.pod.is_some()
            || self.pod_labels.is_some()
            || self.cgroup.is_some()
            || self.unit.is_some()
    }

    /// Whether it needs to know what a file holds.
    pub(crate) fn wants_digest(&self) -> bool {
        self.exe_sha256.is_some()
    }

    /// Whether everybody whom `other` admits is admitted, as far as patterns can be compared.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let globs = |mine: &Option<Globs>, others: &Option<Globs>| match (mine, others) {
            (None, _) => true,
            (Some(mine), Some(others)) => mine.covers(others),
            (Some(_), None) => false,
        };
        fn values<T: PartialEq>(mine: &Option<Vec<T>>, others: &Option<Vec<T>>) -> bool {
            match (mine, others) {
                (None, _) => true,
                (Some(mine), Some(others)) => others.iter().all(|one| mine.contains(one)),
                (Some(_), None) => false,
            }
        }
        globs(&self.exe, &other.exe)
            && globs(&self.image, &other.image)
            && globs(&self.namespace, &other.namespace)
            && globs(&self.pod, &other.pod)
            && globs(&self.cgroup, &other.cgroup)
            && globs(&self.unit, &other.unit)
            && globs(&self.descendants_of, &other.descendants_of)
            && values(&self.exe_sha256, &other.exe_sha256)
            && values(&self.comm, &other.comm)
            && values(&self.uid, &other.uid)
            && values(&self.user, &other.user)
            && values(&self.container, &other.container)
            && self
                .pod_labels
                .as_ref()
                .is_none_or(|mine| other.pod_labels.as_ref().is_some_and(|others| covers_labels(mine, others)))
            && (self.contained.is_none() || self.contained == other.contained)
    }
}

/// Whether whoever has the labels of `others` has these: all of them must be there, each with no more values.
fn covers_labels(mine: &[(String, Vec<String>)], others: &[(String, Vec<String>)]) -> bool {
    mine.iter().all(|(name, values)| {
        others.iter().any(|(other, theirs)| other == name && theirs.iter().all(|value| values.contains(value)))
    })
}

/// The mapping, if it names something.
pub(crate) fn named<'n>(node: &'n Node, shape: &Shape, problems: &mut Problems) -> Option<Fields<'n>> {
    let fields = Fields::of(node, shape, problems)?;
    if shape.names().any(|name| fields.get(name).is_some()) {
        return Some(fields);
    }
    if matches!(&node.value, Value::Map(entries) if entries.is_empty()) {
        problems.push(
            Problem::new(&node.at, format!("{} without a field would be everybody", shape.what))
                .help(format!("name whom you mean by {}", one_of(shape.names()))),
        );
    }
    None
}

pub(crate) type ReadGlobs = fn(&[(&str, Range<usize>)]) -> Result<Globs, Vec<Problem>>;

pub(crate) fn globs(node: &Node, what: &str, read: ReadGlobs, problems: &mut Problems) -> Option<Globs> {
    let patterns = many(node, what, problems, |node, problems| {
        Some((text(node, &format!("a pattern in {what}"), problems)?, node.at.clone()))
    })?;
    read(&patterns).map_err(|found| problems.extend(found)).ok()
}

fn comm(node: &Node, problems: &mut Problems) -> Option<Box<[u8]>> {
    let given = text(node, "the name of a task", problems)?;
    if given.len() > MAX_COMM_BYTES {
        let kept = &given[..given.floor_char_boundary(MAX_COMM_BYTES)];
        problems.push(
            Problem::new(&node.at, format!("{} is longer than a task's name can be", quoted(given)))
                .help(format!("the kernel keeps {MAX_COMM_BYTES} bytes: write `{kept}`")),
        );
        return None;
    }
    Some(given.as_bytes().into())
}

fn is_lower_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn container(node: &Node, problems: &mut Problems) -> Option<String> {
    let given = text(node, "the prefix of a container id", problems)?;
    if !is_lower_hexadecimal(given) || !(MIN_CONTAINER_DIGITS..=64).contains(&given.len()) {
        problems.push(
            Problem::new(&node.at, format!("{} is not the prefix of a container id", quoted(given)))
                .help(format!("write {MIN_CONTAINER_DIGITS} to 64 lower-case hexadecimal digits")),
        );
        return None;
    }
    Some(given.to_owned())
}

fn sha256(node: &Node, problems: &mut Problems) -> Option<String> {
    let given = text(node, "a SHA-256", problems)?;
    let digits = given.strip_prefix("sha256:").unwrap_or(given).to_ascii_lowercase();
    if digits.len() != 64 || !is_lower_hexadecimal(&digits) {
        problems.push(
            Problem::new(&node.at, format!("{} is not a SHA-256", quoted(given)))
                .help("write the 64 digits that `sha256sum` prints"),
        );
        return None;
    }
    Some(digits)
}

/// Labels of a pod, each with the values of which any will do.
fn labels(node: &Node, problems: &mut Problems) -> Option<Vec<(String, Vec<String>)>> {
    let Value::Map(entries) = &node.value else {
        problems.push(
            Problem::new(&node.at, format!("`podLabels` is a mapping of labels, not {}", node.value.kind()))
                .help("write `podLabels: {app: vllm}`"),
        );
        return None;
    };
    if entries.is_empty() {
        problems.push(Problem::new(&node.at, "`podLabels` is empty").help("give at least one label"));
        return None;
    }
    let read: Vec<Option<_>> = entries
        .iter()
        .map(|(key, node)| {
            let values = many(node, &format!("label `{}`", key.name), problems, |node, problems| match &node.value {
                // A label may be empty.
                Value::Text(text) => Some(text.clone()),
                _ => text(node, "the value of a label", problems).map(str::to_owned),
            })?;
            Some((key.name.clone(), values))
        })
        .collect();
    read.into_iter().collect()
}
