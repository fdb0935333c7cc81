//! Tree → checked policy.
//!
//! Every function notes what is wrong and goes on; a policy comes out only when nothing was noted. The fields stand in
//! the shapes beside their readers, from which `docs/policy-reference.md` and the JSON Schema are made.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::destination::Destinations;
use crate::fields::{Fields, Problems, duration, each, list, many, name, one_or_many, ports, text, word};
use crate::guard::Guarded;
use crate::lint;
use crate::lists::{self, Lists};
use crate::object::{MATCH, When, optional_globs};
use crate::occurrence;
use crate::pattern::Globs;
use crate::policy::{Effect, Exception, Mode, Otherwise, Policy, Rule, Severity, Throttle};
use crate::problem::{InvalidPolicy, Problem, did_you_mean, one_of, quoted};
use crate::requires::Need;
use crate::shape::{Holds, Shape, Words, optional, required, words};
use crate::subject::{self, SUBJECT, Selector};
use crate::template::{Placeholder, Template, placeholder};
use crate::test_case::{TEST, TestCase};
use crate::yaml::{self, Node, Value};

pub(crate) static POLICY: Shape = Shape {
    what: "a policy",
    about: "One file. It says which events are worth an alert, and who is excused.",
    fields: &[&[
        required("apiVersion", Holds::Word(API_VERSION), "`plumbline/v1`"),
        required("kind", Holds::Word(KINDS), "`Policy`"),
        required("metadata", Holds::One(&METADATA), "what it is called"),
        required("spec", Holds::One(&SPEC), "what it says"),
        optional("tests", Holds::Many(&TEST), "its own tests, run by `plumbline test` and `plumbline check`"),
    ]],
};

pub(crate) static METADATA: Shape = Shape {
    what: "`metadata`",
    about: "What the document is called.",
    fields: &[&[
        required("name", Holds::Name, "unique in the directory; 1 to 63 lower-case letters, digits, hyphens"),
        optional("description", Holds::Text, "one sentence for people"),
    ]],
};

static SPEC: Shape = Shape {
    what: "`spec`",
    about: "What the policy says.",
    fields: &[&[
        optional(
            "mode",
            Holds::Word(words::<Mode>),
            "how much of its effects it has: `learn` (matches are recorded, nobody is told), `monitor` (the default: what \
             would be denied or killed is an alert), `enforce`",
        ),
        optional("subject", Holds::OneOrMany(&SUBJECT), "whom the policy speaks of, everybody by default"),
        optional(
            "requires",
            Holds::Words(words::<Need>),
            "what it needs of the kernel; what its effects need is known without",
        ),
        optional(
            "otherwise",
            Holds::Word(words::<Otherwise>),
            "what becomes of it where the kernel has not what it needs: `refuse` the whole set, which is the default, or \
             `degrade` to `monitor`",
        ),
        optional("include", Holds::TextList, "names of documents of lists in the same directory"),
        lists::FIELD,
        required("rules", Holds::Many(&RULE), "at least one rule"),
    ]],
};

static RULE: Shape = Shape {
    what: "a rule",
    about: "It matches an event when `match` covers the event, `subject` admits who did it, and no entry of `except` excuses it.",
    fields: &[&[
        required("name", Holds::Name, "unique in the policy; spelt as the policy's name"),
        required("severity", Holds::Word(words::<Severity>), "how bad it is"),
        required(
            "effect",
            Holds::Word(words::<Effect>),
            "`audit`: recorded; `alert`: recorded, and somebody is told; `deny`: an alert, and what was asked fails with \
             EPERM; `kill`: an alert, and the process is ended",
        ),
        required("message", Holds::Text, "what is told: text with placeholders"),
        optional("subject", Holds::OneOrMany(&SUBJECT), "whom the rule speaks of, everybody by default"),
        required("match", Holds::ExactlyOne(&MATCH), "what it speaks of"),
        optional("except", Holds::Many(&EXCEPTION), "the allow-list"),
        optional("throttle", Holds::One(&THROTTLE), "how often somebody is told of the same; each match is recorded"),
    ]],
};

static THROTTLE: Shape = Shape {
    what: "`throttle`",
    about: "Of matches that are the same, the first is an alert and those that follow within the time are records.",
    fields: &[&[
        required("every", Holds::Duration, "a time, such as `5m`"),
        optional(
            "by",
            Holds::Words(words::<Placeholder>),
            "what makes two matches the same: placeholders of the message; by default the rule alone",
        ),
    ]],
};

pub(crate) static EXCEPTION: Shape = Shape {
    what: "an exception",
    about: "Whom the rule excuses. All fields of one entry must hold; what is not known satisfies none.",
    fields: &[
        subject::FIELDS,
        &[
            optional("path", Holds::Texts, "the path of the file or program matches a glob"),
            optional("to", Holds::Destinations, "the destination is one of these"),
            optional("port", Holds::Ports, "the destination's port is this"),
        ],
    ],
};

/// Every mapping that has a place of its own in the reference, by its place.
pub(crate) static DOCUMENTS: [(&str, &Shape); 3] =
    [("Policy", &POLICY), ("Lists", &lists::DOCUMENT), ("Exceptions", &crate::exceptions::DOCUMENT)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version;

impl Words for Version {
    const WORDS: &'static [(&'static str, Self)] = &[("plumbline/v1", Self)];
}

/// What a document may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DocumentKind {
    Policy,
    Lists,
    Exceptions,
}

impl Words for DocumentKind {
    const WORDS: &'static [(&'static str, Self)] =
        &[("Policy", Self::Policy), ("Lists", Self::Lists), ("Exceptions", Self::Exceptions)];
}

pub(crate) const API_VERSION: fn() -> Vec<&'static str> = words::<Version>;
pub(crate) const KINDS: fn() -> Vec<&'static str> = words::<DocumentKind>;

/// One file, read.
#[derive(Debug)]
pub(crate) enum Document {
    Policy(Box<Policy>),
    Lists(Lists),
}

/// What a document says it is; a policy where it says nothing that is known.
pub(crate) fn kind_of(root: &Node) -> DocumentKind {
    let Value::Map(entries) = &root.value else { return DocumentKind::Policy };
    let kind = entries.iter().find(|(key, _)| key.name == "kind").map(|(_, node)| &node.value);
    match kind {
        Some(Value::Text(kind)) if kind == "Lists" => DocumentKind::Lists,
        Some(Value::Text(kind)) if kind == "Exceptions" => DocumentKind::Exceptions,
        _ => DocumentKind::Policy,
    }
}

/// Checks the words that every document begins with.
pub(crate) fn version_and_kind(fields: &Fields<'_>, problems: &mut Problems) {
    if let Some(node) = fields.get("apiVersion") {
        word::<Version>(node, "the version of the policy language that is read here", problems);
    }
    if let Some(node) = fields.get("kind") {
        word::<DocumentKind>(node, "a kind of document that is read here", problems);
    }
}

impl Document {
    /// Reads a tree; `library` has the lists that it may include.
    pub(crate) fn read(name: &str, text: &str, mut root: Node, library: &[Lists]) -> Result<Self, InvalidPolicy> {
        let mut problems = Problems::new();
        let document = match kind_of(&root) {
            DocumentKind::Lists => Lists::read(&root, &mut problems).map(Self::Lists),
            // Exceptions stand for nothing alone: `set` adds them to the policies.
            DocumentKind::Policy | DocumentKind::Exceptions => {
                lists::expand(&mut root, library, &mut problems);
                // What a missing list would have been is not a second mistake.
                if !problems.is_empty() {
                    return Err(InvalidPolicy::new(name, text, problems));
                }
                policy(name, &root, &mut problems).map(|policy| Self::Policy(Box::new(policy)))
            }
        };
        match document {
            Some(document) if problems.is_empty() => Ok(document),
            _ => Err(InvalidPolicy::new(name, text, problems)),
        }
    }
}

impl Policy {
    /// Reads one policy that includes nothing; `name` is what its mistakes are reported under.
    pub fn parse(name: &str, text: &str) -> Result<Self, InvalidPolicy> {
        let root = yaml::parse(text).map_err(|problem| InvalidPolicy::new(name, text, vec![problem]))?;
        match Document::read(name, text, root, &[])? {
            Document::Policy(policy) => Ok(*policy),
            Document::Lists(_) => {
                let problem = Problem::new(&(0..0), "this is a document of lists, not a policy");
                Err(InvalidPolicy::new(name, text, vec![problem]))
            }
        }
    }
}

fn policy(file: &str, root: &Node, problems: &mut Problems) -> Option<Policy> {
    let fields = Fields::of(root, &POLICY, problems)?;
    version_and_kind(&fields, problems);
    let metadata = fields.get("metadata").and_then(|node| metadata(node, problems));
    let spec = fields.get("spec").and_then(|node| spec(node, problems));
    let rules = spec.as_ref().and_then(|spec| spec.rules.as_deref());
    let tests = match fields.get("tests") {
        Some(node) => tests(node, rules, problems),
        None => Some(Vec::new()),
    };
    let ((name, name_at), description) = metadata?;
    let Spec { mode, subjects, requires, otherwise, rules } = spec?;
    let policy = Policy {
        name,
        name_at,
        file: file.into(),
        description,
        mode: mode?,
        subjects: subjects?,
        requires: requires?,
        otherwise: otherwise?,
        rules: rules?,
        tests: tests?,
    };
    problems.extend(lint::contradictions(&policy));
    Some(policy)
}

fn metadata(node: &Node, problems: &mut Problems) -> Option<(Named, String)> {
    let fields = Fields::of(node, &METADATA, problems)?;
    let description = match fields.get("description") {
        Some(node) => text(node, "a description", problems)?.to_owned(),
        None => String::new(),
    };
    let node = fields.get("name")?;
    Some(((name(node, problems)?, node.at.clone()), description))
}

/// What was read of `spec`; `None` where it was wrong.
struct Spec {
    mode: Option<Mode>,
    subjects: Option<Vec<Selector>>,
    requires: Option<Vec<Need>>,
    otherwise: Option<Otherwise>,
    rules: Option<Vec<Rule>>,
}

fn spec(node: &Node, problems: &mut Problems) -> Option<Spec> {
    let fields = Fields::of(node, &SPEC, problems)?;
    let mode = match fields.get("mode") {
        Some(node) => word(node, "a mode", problems),
        None => Some(Mode::default()),
    };
    let subjects = subjects(&fields, problems);
    let requires = match fields.get("requires") {
        Some(node) => many(node, "`requires`", problems, |node, problems| {
            word(node, "something that a kernel may be able to do", problems)
        }),
        None => Some(Vec::new()),
    };
    let otherwise = match fields.get("otherwise") {
        Some(node) => word(node, "what can become of the policy", problems),
        None => Some(Otherwise::default()),
    };
    let of_policy = subjects.as_deref().unwrap_or_default();
    let rules = fields.get("rules").and_then(|node| rules(node, of_policy, problems));
    Some(Spec { mode, subjects, requires, otherwise, rules })
}

fn subjects(fields: &Fields<'_>, problems: &mut Problems) -> Option<Vec<Selector>> {
    let Some(node) = fields.get("subject") else { return Some(Vec::new()) };
    many(node, "`subject`", problems, |node, problems| Selector::read(node, &SUBJECT, problems))
}

fn rules(node: &Node, of_policy: &[Selector], problems: &mut Problems) -> Option<Vec<Rule>> {
    let items = list(node, "`rules`", problems)?;
    let mut seen: HashMap<Arc<str>, Range<usize>> = HashMap::new();
    each(items, problems, |item, problems| {
        let (rule, at) = rule(item, of_policy, problems);
        if let Some((name, at)) = at {
            if let Some(first) = seen.get(&name) {
                problems.push(
                    Problem::new(&at, format!("two rules are called {}", quoted(&name)))
                        .label("again")
                        .other(first, "first")
                        .help("give each rule its own name"),
                );
            }
            seen.entry(name).or_insert(at);
        }
        rule
    })
}

/// A name and where it stands.
type Named = (Arc<str>, Range<usize>);

/// The rule, and apart from it its name, which may be known where the rule is not.
fn rule(node: &Node, of_policy: &[Selector], problems: &mut Problems) -> (Option<Rule>, Option<Named>) {
    let Some(fields) = Fields::of(node, &RULE, problems) else { return (None, None) };
    let named = fields.get("name").and_then(|node| Some((name(node, problems)?, node.at.clone())));
    let severity = fields.get("severity").and_then(|node| word(node, "a severity", problems));
    let effect = fields.get("effect").and_then(|node| word(node, "an effect", problems));
    let subjects = subjects(&fields, problems);
    let when = fields.get("match").and_then(|node| When::read(node, problems));
    let known = when.as_ref().map(When::placeholders);
    let message = fields.get("message").and_then(|node| {
        let text = text(node, "a message", problems)?;
        // Which placeholders are right depends on the kind of event.
        Template::parse(text, &node.at, known.as_deref()?).map_err(|problem| problems.push(problem)).ok()
    });
    let throttle = match fields.get("throttle") {
        Some(node) => throttle(node, known.as_deref(), problems).map(Some),
        None => Some(None),
    };
    let except = match fields.get("except") {
        Some(node) => list(node, "`except`", problems)
            .and_then(|items| each(items, problems, |item, problems| exception(item, when.as_ref(), problems))),
        None => Some(Vec::new()),
    };
    if let (Some(effect), Some(when), Some(subjects), Some(except)) = (effect, &when, &subjects, &except) {
        let subjects = [of_policy, subjects.as_slice()];
        let (effect_at, when_at) = (fields.place("effect"), fields.place("match"));
        Guarded { effect, effect_at, when, when_at, subjects, except, others: 0 }.check(problems);
    }
    let written = ["match", "subject", "except"].map(|name| fields.get(name).map(Node::written).unwrap_or_default());
    let rule = (|| {
        let (name, name_at) = named.clone()?;
        Some(Rule {
            name,
            name_at,
            severity: severity?,
            effect: effect?,
            message: message?,
            subjects: subjects?,
            when: when?,
            except: except?,
            throttle: throttle?,
            written: written.join("\n"),
        })
    })();
    (rule, named)
}

fn throttle(node: &Node, known: Option<&[Placeholder]>, problems: &mut Problems) -> Option<Throttle> {
    let fields = Fields::of(node, &THROTTLE, problems)?;
    let every_ns = fields.get("every").and_then(|node| duration(node, "a time", problems));
    let by = match (fields.get("by"), known) {
        (Some(node), Some(known)) => many(node, "`by`", problems, |item, problems| {
            let word = text(item, "a placeholder", problems)?;
            placeholder(word, &item.at, known).map_err(|problem| problems.push(problem)).ok()
        }),
        _ => Some(Vec::new()),
    };
    Some(Throttle { every_ns: every_ns?, by: by? })
}

pub(crate) fn exception(node: &Node, when: Option<&When>, problems: &mut Problems) -> Option<Exception> {
    let fields = subject::named(node, &EXCEPTION, problems)?;
    let has_path = matches!(when, None | Some(When::File(_) | When::Exec(_)));
    let has_destination = matches!(when, None | Some(When::Connect(_)));
    for (name, fits, kinds) in [
        ("path", has_path, "`file` or `exec`"),
        ("to", has_destination, "`connect`"),
        ("port", has_destination, "`connect`"),
    ] {
        if fields.get(name).is_some() && !fits {
            let message = format!("`{name}` can only excuse in rules that match {kinds}");
            problems.push(Problem::new(fields.place(name), message).help("take it out, or move it to such a rule"));
        }
    }
    if matches!(when, Some(When::Finding(_))) {
        let message = "nothing of a process can excuse a finding, which no process made";
        problems.push(Problem::new(&fields.at, message).help("narrow `kind`, `atLeast` or `entity` instead"));
    }
    let before = problems.len();
    let exception = Exception {
        at: fields.at.clone(),
        is_foreign: false,
        who: Selector::of(&fields, problems),
        path: optional_globs(&fields, "path", Globs::of_files, problems),
        to: fields.get("to").and_then(|node| Destinations::read(one_or_many(node, "`to`", problems)?, problems)),
        port: fields.get("port").and_then(|node| many(node, "`port`", problems, ports)),
    };
    // A field that could not be read must not leave an exception that is wider than what was written.
    (problems.len() == before).then_some(exception)
}

fn tests(node: &Node, rules: Option<&[Rule]>, problems: &mut Problems) -> Option<Vec<TestCase>> {
    let items = list(node, "`tests`", problems)?;
    each(items, problems, |item, problems| test(item, rules, problems))
}

fn test(node: &Node, rules: Option<&[Rule]>, problems: &mut Problems) -> Option<TestCase> {
    let fields = Fields::of(node, &TEST, problems)?;
    let name = fields.get("name").and_then(|node| text(node, "the name of a test", problems));
    let expect = fields.get("expect").and_then(|node| word(node, "an expectation", problems));
    let rule = match fields.get("rule") {
        Some(node) => Some(Arc::from(text(node, "the name of a rule", problems)?)),
        None => None,
    };
    if let (Some(rules), Some(rule)) = (rules, &rule)
        && !rules.iter().any(|known| known.name == *rule)
    {
        let problem = Problem::new(fields.place("rule"), format!("this policy has no rule {}", quoted(rule)));
        let known = rules.iter().map(|rule| &*rule.name);
        problems.push(match did_you_mean(rule, known.clone()) {
            Some(meant) => problem.help(format!("write `{meant}`")),
            None => problem.help(format!("write {}", one_of(known))),
        });
    }
    let event = fields.get("event").and_then(|node| occurrence::read(node, problems));
    Some(TestCase { name: name?.to_owned(), event: event?, expect: expect?, rule })
}
