//! A Tetragon `TracingPolicy` → a policy of ours, as YAML.
//!
//! Source of the format: the custom resource `cilium.io/v1alpha1`, `TracingPolicy` and `TracingPolicyNamespaced`
//! (tetragon.io/docs/concepts/tracing-policy). A Tetragon policy names kernel functions; those that ask for files and
//! connections have a meaning here, and each of their selectors becomes a rule. **What cannot be said is refused with its
//! line**: a filter that is left out in silence would be another policy.

use std::fmt::Write as _;

use crate::fields::Problems;
use crate::policy::Policy;
use crate::problem::{InvalidPolicy, Problem, did_you_mean, one_of, quoted};
use crate::yaml::{self, Node, Value};

mod paths;
mod selector;

use self::selector::{Rule, Who};

/// Whether a document is one of Tetragon's.
pub(crate) fn is_tracing_policy(root: &Node) -> bool {
    matches!(get(root, "apiVersion").map(|node| &node.value), Some(Value::Text(version)) if version.starts_with("cilium.io/"))
}

/// Converts the policy of a file; `name` is what its mistakes are reported under.
pub fn import_tetragon(name: &str, text: &str) -> Result<String, InvalidPolicy> {
    let root = yaml::parse(text).map_err(|problem| InvalidPolicy::new(name, text, vec![problem]))?;
    let converted = convert(&root).map_err(|problems| InvalidPolicy::new(name, text, problems))?;
    // What is said right there may be wrong here: a rule that would kill anybody, a network with host bits.
    Policy::parse(&format!("{name} (converted)"), &converted)?;
    Ok(converted)
}

/// Converts a tree.
pub(crate) fn convert(root: &Node) -> Result<String, Problems> {
    let mut problems = Problems::new();
    let policy = policy(root, &mut problems);
    match policy {
        Some(policy) if problems.is_empty() => Ok(policy),
        _ if problems.is_empty() => Err(vec![Problem::new(&root.at, "this is not a TracingPolicy")]),
        _ => Err(problems),
    }
}

/// What a function of the kernel is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Files, and what is done to them.
    File(&'static [&'static str]),
    Connect(&'static str),
}

/// Functions that kprobes name, hooks that `lsmhooks` name without their `security_`, what they mean, and whether an
/// `Override` of them denies what our `deny` does.
const FUNCTIONS: &[(&str, Meaning, bool)] = &[
    ("security_file_open", Meaning::File(&["open"]), true),
    ("security_file_permission", Meaning::File(&["read", "write"]), false),
    ("security_mmap_file", Meaning::File(&["map"]), false),
    ("security_path_truncate", Meaning::File(&["write"]), false),
    ("security_file_truncate", Meaning::File(&["write"]), false),
    ("security_socket_connect", Meaning::Connect("[tcp, udp]"), true),
    ("tcp_connect", Meaning::Connect("tcp"), true),
    ("udp_sendmsg", Meaning::Connect("udp"), false),
];

fn policy(root: &Node, problems: &mut Problems) -> Option<String> {
    let fields = mapping(root, "a TracingPolicy", &["apiVersion", "kind", "metadata", "spec"], problems)?;
    expect(fields.get("apiVersion")?, &["cilium.io/v1alpha1"], problems);
    let kind = expect(fields.get("kind")?, &["TracingPolicy", "TracingPolicyNamespaced"], problems);
    let known =
        &["name", "namespace", "labels", "annotations", "uid", "resourceVersion", "creationTimestamp", "generation"];
    let metadata = mapping(fields.get("metadata")?, "`metadata`", known, problems)?;
    let name_node = metadata.get("name")?;
    let name = text(name_node, problems)?;
    let mut who = Who::default();
    if kind == Some("TracingPolicyNamespaced") {
        // Without one it is `default`, as for every object of Kubernetes.
        let namespace = metadata.get("namespace").and_then(|node| text(node, problems)).unwrap_or("default");
        who.namespace = Some(namespace.to_owned());
    }
    let known = &["podSelector", "kprobes", "lsmhooks", "options"];
    let spec = mapping(fields.get("spec")?, "`spec`", known, problems)?;
    if let Some(node) = spec.get("podSelector") {
        who.pod_selector(node, problems);
    }
    let is_monitor = spec.get("options").is_some_and(|node| options(node, problems));
    let mut rules = Vec::new();
    for list in ["kprobes", "lsmhooks"] {
        let Some(node) = spec.get(list) else { continue };
        for hook in items(node, &format!("`{list}`"), problems) {
            hook_rules(hook, list == "lsmhooks", &mut rules, problems);
        }
    }
    if rules.is_empty() && problems.is_empty() {
        problems.push(Problem::new(&fields.get("spec")?.at, "the policy has no `kprobes` and no `lsmhooks`"));
    }
    Some(document(name, &who, is_monitor, &rules))
}

/// `options` may switch the mode; nothing else of them changes what a policy says.
fn options(node: &Node, problems: &mut Problems) -> bool {
    let mut is_monitor = false;
    for option in items(node, "`options`", problems) {
        let Some(fields) = mapping(option, "an option", &["name", "value"], problems) else { continue };
        let (Some(name), Some(value)) = (fields.get("name"), fields.get("value")) else { continue };
        match text(name, problems) {
            Some("policy-mode") => is_monitor = expect(value, &["monitor", "enforce"], problems) == Some("monitor"),
            Some(other) => problems.push(refused(name, &format!("option {} has no counterpart here", quoted(other)))),
            None => {}
        }
    }
    is_monitor
}

fn hook_rules(hook: &Node, is_lsm: bool, rules: &mut Vec<Rule>, problems: &mut Problems) -> Option<()> {
    let key = if is_lsm { "hook" } else { "call" };
    let known = [key, "syscall", "return", "args", "selectors", "message", "tags"];
    let fields = mapping(hook, "a hook", &known, problems)?;
    let Some(node) = fields.get(key) else {
        problems.push(Problem::new(&hook.at, format!("the hook lacks `{key}`")));
        return None;
    };
    let given = text(node, problems)?;
    let function = if is_lsm { format!("security_{given}") } else { given.to_owned() };
    let Some(&(call, meaning, denies)) = FUNCTIONS.iter().find(|(name, _, _)| *name == function) else {
        let known = || FUNCTIONS.iter().map(|(name, _, _)| *name);
        let problem = refused(node, &format!("{} has no counterpart here", quoted(given)));
        problems.push(match did_you_mean(&function, known()) {
            Some(meant) => problem.help(format!("write `{meant}`")),
            None => problem.help(format!("known are {}", one_of(known()))),
        });
        return None;
    };
    for name in ["syscall", "return"] {
        if let Some(node) = fields.get(name).filter(|node| node.value != Value::Bool(false)) {
            problems.push(refused(node, &format!("`{name}: true` of {call} has no counterpart here")));
        }
    }
    let types = arguments(fields.get("args"), problems);
    let message = fields.get("message").and_then(|node| text(node, problems));
    let selectors = fields.get("selectors").map(|node| items(node, "`selectors`", problems)).unwrap_or_default();
    if selectors.is_empty() {
        problems.push(
            refused(node, &format!("{call} without `selectors` is every call of it"))
                .help("say which with `matchArgs`"),
        );
    }
    for selector in selectors {
        rules.extend(Rule::read(selector, (call, meaning, denies), message, &types, problems));
    }
    Some(())
}

/// The types of arguments, by index.
fn arguments(node: Option<&Node>, problems: &mut Problems) -> Vec<(i128, String)> {
    let mut types = Vec::new();
    for argument in node.map(|node| items(node, "`args`", problems)).unwrap_or_default() {
        let known = &["index", "type", "label", "sizeArgIndex", "maxData", "returnCopy"];
        let Some(fields) = mapping(argument, "an argument", known, problems) else { continue };
        if let (Some(Value::Integer(index)), Some(kind)) =
            (fields.get("index").map(|node| &node.value), fields.get("type"))
        {
            types.extend(text(kind, problems).map(|kind| (*index, kind.to_owned())));
        }
    }
    types
}

fn document(name: &str, who: &Who, is_monitor: bool, rules: &[Rule]) -> String {
    let mut out = format!(
        "# Converted from the Tetragon TracingPolicy `{}` by `plumbline policy import`.\napiVersion: plumbline/v1\nkind: Policy\n\
         metadata:\n  name: {}\n",
        // One line, whatever is in it.
        name.escape_debug(),
        own_name(name)
    );
    let enforces = rules.iter().any(Rule::enforces) && !is_monitor;
    let _ = write!(out, "spec:\n  mode: {}\n", if enforces { "enforce" } else { "monitor" });
    let subject = who.fields();
    if !subject.is_empty() {
        let _ = write!(out, "  subject:\n    {}\n", subject.join("\n    "));
    }
    out.push_str("  rules:\n");
    let mut names: Vec<String> = Vec::new();
    for rule in rules {
        let base = own_name(rule.call);
        let used = names.iter().filter(|name| **name == base || name.starts_with(&format!("{base}-"))).count();
        let name = if used == 0 { base } else { format!("{base}-{}", used + 1) };
        out.push_str(&rule.yaml(&name));
        names.push(name);
    }
    out
}

/// A name of ours: lower-case letters, digits and hyphens.
fn own_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = name.chars().map(plain).take(63).collect();
    let name = name.trim_matches('-').to_owned();
    if name.is_empty() { "imported".to_owned() } else { name }
}

/// A JSON string, which is a YAML one.
pub(super) fn yaml_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

// Reading Tetragon's mappings: what is not known is refused.

pub(super) struct Mapping<'n>(&'n [(yaml::Key, Node)]);

impl<'n> Mapping<'n> {
    pub(super) fn get(&self, name: &str) -> Option<&'n Node> {
        self.0.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }
}

pub(super) fn mapping<'n>(node: &'n Node, what: &str, known: &[&str], problems: &mut Problems) -> Option<Mapping<'n>> {
    let Value::Map(entries) = &node.value else {
        problems.push(Problem::new(&node.at, format!("{what} is a mapping, not {}", node.value.kind())));
        return None;
    };
    for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&&*key.name)) {
        let problem = Problem::new(&key.at, format!("{} of {what} has no counterpart here", quoted(&key.name)));
        let problem = problem.label("cannot be said in a policy");
        problems.push(match did_you_mean(&key.name, known.iter().copied()) {
            Some(meant) => problem.help(format!("if it is misspelt, write `{meant}`")),
            None => problem.help("take it out if the policy is right without it"),
        });
    }
    Some(Mapping(entries))
}

fn get<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
}

pub(super) fn items<'n>(node: &'n Node, what: &str, problems: &mut Problems) -> &'n [Node] {
    match &node.value {
        Value::List(items) => items,
        other => {
            problems.push(Problem::new(&node.at, format!("{what} is a list, not {}", other.kind())));
            &[]
        }
    }
}

pub(super) fn text<'n>(node: &'n Node, problems: &mut Problems) -> Option<&'n str> {
    match &node.value {
        Value::Text(text) => Some(text),
        other => {
            problems.push(Problem::new(&node.at, format!("this is text, not {}", other.kind())));
            None
        }
    }
}

pub(super) fn expect<'n>(node: &'n Node, words: &[&str], problems: &mut Problems) -> Option<&'n str> {
    let given = text(node, problems)?;
    if words.contains(&given) {
        return Some(given);
    }
    problems.push(
        Problem::new(&node.at, format!("{} cannot be converted", quoted(given)))
            .help(format!("what can be is {}", one_of(words.iter().copied()))),
    );
    None
}

pub(super) fn refused(node: &Node, message: &str) -> Problem {
    Problem::new(&node.at, message).label("cannot be said in a policy")
}
