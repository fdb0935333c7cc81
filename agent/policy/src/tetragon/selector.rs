//! One selector of a Tetragon hook → one rule.

use std::fmt::Write as _;

use super::paths::{Base, escaped, suffix};
use super::{Meaning, expect, items, mapping, refused, text, yaml_text};
use crate::fields::Problems;
use crate::problem::{Problem, one_of, quoted};
use crate::yaml::{Node, Value};

/// Whom a policy or a rule speaks of.
#[derive(Debug, Default)]
pub(super) struct Who {
    pub(super) namespace: Option<String>,
    /// Name and values.
    labels: Vec<(String, Vec<String>)>,
}

impl Who {
    pub(super) fn pod_selector(&mut self, node: &Node, problems: &mut Problems) {
        let Some(fields) = mapping(node, "`podSelector`", &["matchLabels", "matchExpressions"], problems) else {
            return;
        };
        match fields.get("matchLabels").map(|node| (node, &node.value)) {
            Some((_, Value::Map(entries))) => {
                for (key, node) in entries {
                    self.labels.extend(text(node, problems).map(|value| (key.name.clone(), vec![value.to_owned()])));
                }
            }
            Some((node, other)) => {
                problems.push(Problem::new(&node.at, format!("`matchLabels` is a mapping, not {}", other.kind())));
            }
            None => {}
        }
        let Some(node) = fields.get("matchExpressions") else { return };
        for expression in items(node, "`matchExpressions`", problems) {
            let Some(fields) = mapping(expression, "an expression", &["key", "operator", "values"], problems) else {
                continue;
            };
            let (Some(key), Some(operator), Some(values)) =
                (fields.get("key"), fields.get("operator"), fields.get("values"))
            else {
                problems.push(refused(expression, "an expression without `key`, `operator` and `values`"));
                continue;
            };
            expect(operator, &["In"], problems);
            let values = items(values, "`values`", problems).iter();
            let values: Vec<String> = values.filter_map(|node| text(node, problems).map(str::to_owned)).collect();
            self.labels.extend(text(key, problems).map(|key| (key.to_owned(), values)));
        }
    }

    /// Fields of `subject`, as YAML.
    pub(super) fn fields(&self) -> Vec<String> {
        let mut fields: Vec<String> = self.namespace.iter().map(|one| format!("namespace: {}", glob(one))).collect();
        if !self.labels.is_empty() {
            let labels = self.labels.iter().map(|(name, values)| format!("{}: {}", yaml_text(name), list(values)));
            fields.push(format!("podLabels: {{{}}}", labels.collect::<Vec<_>>().join(", ")));
        }
        fields
    }
}

/// A rule as far as it was read: lines of YAML.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) call: &'static str,
    meaning: Meaning,
    message: Option<String>,
    effect: &'static str,
    every: Option<String>,
    accesses: Vec<&'static str>,
    bases: Vec<Base>,
    postfixes: Vec<String>,
    from: Vec<String>,
    to: Vec<String>,
    not_to: Vec<String>,
    ports: Vec<String>,
    /// Entries, of which any.
    subjects: Vec<String>,
    except: Vec<String>,
}

/// A port or a range of them, as policies write it.
fn port(node: &Node, value: &str, problems: &mut Problems) -> Option<String> {
    let number = |text: &str| text.trim().parse::<u16>().ok();
    let port = match value.split_once(':') {
        None => number(value).map(|port| port.to_string()),
        Some((first, last)) => number(first)
            .zip(number(last))
            .filter(|(first, last)| first <= last)
            .map(|(first, last)| format!("{first}-{last}")),
    };
    if port.is_none() {
        problems.push(Problem::new(&node.at, format!("{} is neither a port nor a range of ports", quoted(value))));
    }
    port
}

type Function = (&'static str, Meaning, bool);

impl Rule {
    pub(super) fn read(
        selector: &Node,
        (call, meaning, denies): Function,
        message: Option<&str>,
        types: &[(i128, String)],
        problems: &mut Problems,
    ) -> Option<Self> {
        let known = &["matchArgs", "matchActions", "matchBinaries"];
        let fields = mapping(selector, "a selector", known, problems)?;
        let accesses = if let Meaning::File(accesses) = meaning { accesses.to_vec() } else { Vec::new() };
        let mut rule = Self {
            call,
            meaning,
            message: message.map(str::to_owned),
            effect: "audit",
            every: None,
            accesses,
            bases: Vec::new(),
            postfixes: Vec::new(),
            from: Vec::new(),
            to: Vec::new(),
            not_to: Vec::new(),
            ports: Vec::new(),
            subjects: Vec::new(),
            except: Vec::new(),
        };
        for argument in fields.get("matchArgs").map(|node| items(node, "`matchArgs`", problems)).unwrap_or_default() {
            rule.argument(argument, types, problems);
        }
        for binary in
            fields.get("matchBinaries").map(|node| items(node, "`matchBinaries`", problems)).unwrap_or_default()
        {
            rule.binaries(binary, problems);
        }
        for action in fields.get("matchActions").map(|node| items(node, "`matchActions`", problems)).unwrap_or_default()
        {
            rule.action(action, denies, problems);
        }
        if matches!(meaning, Meaning::File(_)) && rule.bases.is_empty() && problems.is_empty() {
            problems.push(
                refused(selector, &format!("every file of {call} cannot be watched"))
                    .help("name directories with `Prefix`, or files with `Equal`"),
            );
        }
        Some(rule)
    }

    pub(super) fn enforces(&self) -> bool {
        matches!(self.effect, "deny" | "kill")
    }

    fn argument(&mut self, node: &Node, types: &[(i128, String)], problems: &mut Problems) -> Option<()> {
        let fields = mapping(node, "an argument's match", &["index", "args", "operator", "values"], problems)?;
        let index = match (fields.get("index").map(|node| &node.value), fields.get("args").map(|node| &node.value)) {
            (Some(Value::Integer(index)), None) => Some(*index),
            (None, Some(Value::List(items))) => match &items[..] {
                [Node { value: Value::Integer(index), .. }] => Some(*index),
                _ => None,
            },
            _ => None,
        };
        let Some(index) = index else {
            problems.push(
                refused(node, "a match of several arguments, or of none").help("name one argument by its `index`"),
            );
            return None;
        };
        let kind = types.iter().find(|(other, _)| *other == index).map(|(_, kind)| kind.as_str());
        let operator_node = fields.get("operator")?;
        let operator = text(operator_node, problems)?;
        let values: Vec<(&Node, String)> = fields
            .get("values")
            .map(|node| items(node, "`values`", problems))
            .unwrap_or_default()
            .iter()
            .filter_map(|node| match &node.value {
                Value::Text(text) => Some((node, text.clone())),
                Value::Integer(number) => Some((node, number.to_string())),
                other => {
                    problems.push(Problem::new(&node.at, format!("a value is text, not {}", other.kind())));
                    None
                }
            })
            .collect();
        if values.is_empty() {
            problems.push(refused(node, "a match without `values`"));
        }
        match (self.meaning, kind) {
            (Meaning::File(_), Some("file" | "path" | "dentry")) => {
                self.file(operator, operator_node, &values, problems);
            }
            // MAY_READ and MAY_WRITE of `security_file_permission`.
            (Meaning::File(_), Some("int")) if self.call == "security_file_permission" && operator == "Equal" => {
                self.accesses.clear();
                for (node, value) in &values {
                    match value.as_str() {
                        "4" => self.accesses.push("read"),
                        "2" => self.accesses.push("write"),
                        other => {
                            problems.push(refused(node, &format!("mask {} has no counterpart here", quoted(other))));
                        }
                    }
                }
            }
            (Meaning::Connect(_), Some(kind @ ("sock" | "sockaddr"))) => {
                self.socket((operator, kind), operator_node, &values, problems);
            }
            (_, Some(kind)) => problems
                .push(refused(node, &format!("argument {index} of type {} has no counterpart here", quoted(kind)))),
            (_, None) => {
                problems.push(
                    Problem::new(&node.at, format!("`args` has no argument {index}"))
                        .help("give its `index` and `type`"),
                );
            }
        }
        Some(())
    }

    fn file(&mut self, operator: &str, at: &Node, values: &[(&Node, String)], problems: &mut Problems) {
        const KNOWN: [&str; 6] = ["Prefix", "Equal", "Postfix", "NotEqual", "NotPrefix", "NotPostfix"];
        if !KNOWN.contains(&operator) {
            problems.push(
                refused(at, &format!("operator {} of files has no counterpart here", quoted(operator)))
                    .help(format!("known are {}", one_of(KNOWN))),
            );
            return;
        }
        if matches!(operator, "Prefix" | "Equal") && !self.bases.is_empty() {
            problems.push(refused(at, "a second match of the same argument by `Prefix` or `Equal`"));
        }
        if operator == "Postfix" && !self.postfixes.is_empty() {
            problems.push(refused(at, "a second match of the same argument by `Postfix`"));
        }
        for (node, value) in values {
            if !value.starts_with('/') && !operator.ends_with("Postfix") {
                problems.push(Problem::new(&node.at, format!("{} is not an absolute path", quoted(value))));
                continue;
            }
            let base = match operator {
                "Prefix" if value.ends_with('/') => Some(Base::Directory(value.trim_end_matches('/').to_owned())),
                "Prefix" => Some(Base::Prefix(value.clone())),
                "Equal" => Some(Base::Exact(value.clone())),
                _ => None,
            };
            match (operator, base) {
                (_, Some(base)) if base.directory().is_empty() => {
                    problems.push(refused(node, "this would watch `/`").help("name a directory below it"));
                }
                (_, Some(base)) => self.bases.push(base),
                ("Postfix", None) => self.postfixes.push(value.clone()),
                ("NotEqual", None) => {
                    self.except.push(format!("path: {}", list(&Base::Exact(value.clone()).patterns(""))));
                }
                ("NotPrefix", None) => {
                    let base = match value.strip_suffix('/') {
                        Some(directory) => Base::Directory(directory.to_owned()),
                        None => Base::Prefix(value.clone()),
                    };
                    self.except.push(format!("path: {}", list(&base.patterns(""))));
                }
                // `NotPostfix`.
                (_, None) => self.except.push(format!("path: {}", yaml_text(&format!("/{}", suffix(value))))),
            }
        }
    }

    fn socket(
        &mut self,
        (operator, kind): (&str, &str),
        at: &Node,
        values: &[(&Node, String)],
        problems: &mut Problems,
    ) {
        let texts: Vec<String> = values.iter().map(|(_, value)| value.clone()).collect();
        let is_udp = self.meaning == Meaning::Connect("udp");
        // Of a `sockaddr` the address and port are those of the destination, and Tetragon calls them the source's.
        let into = match (kind, operator) {
            ("sock", "DAddr") | ("sockaddr", "SAddr") => Some(&mut self.to),
            ("sock", "SAddr") if !is_udp => Some(&mut self.from),
            _ => None,
        };
        if let Some(into) = into {
            if !into.is_empty() {
                problems.push(refused(at, &format!("a second match by {}: both must hold", quoted(operator))));
            }
            into.extend(texts);
            return;
        }
        match (kind, operator) {
            ("sock", "NotDAddr") | ("sockaddr", "NotSAddr") => self.not_to.extend(texts),
            ("sock", "DPort") | ("sockaddr", "SPort") => {
                if !self.ports.is_empty() {
                    problems.push(refused(at, &format!("a second match by {}: both must hold", quoted(operator))));
                }
                self.ports.extend(values.iter().filter_map(|(node, value)| port(node, value, problems)));
            }
            ("sock", "NotDPort") | ("sockaddr", "NotSPort") => {
                let ports: Vec<String> =
                    values.iter().filter_map(|(node, value)| port(node, value, problems)).collect();
                self.except.push(format!("port: [{}]", ports.join(", ")));
            }
            _ => problems
                .push(refused(at, &format!("operator {} of a {kind} has no counterpart here", quoted(operator)))),
        }
    }

    fn binaries(&mut self, node: &Node, problems: &mut Problems) -> Option<()> {
        let fields = mapping(node, "a binary's match", &["operator", "values", "followChildren"], problems)?;
        let operator_node = fields.get("operator")?;
        let operator = text(operator_node, problems)?;
        let patterns_of = |value: &str| match operator {
            "In" | "NotIn" => Some(vec![escaped(value)]),
            // A prefix of characters: the file itself, and what lies below.
            "Prefix" | "NotPrefix" => Some(Base::Prefix(value.to_owned()).patterns("")),
            "Postfix" | "NotPostfix" => Some(vec![format!("/{}", suffix(value))]),
            _ => None,
        };
        let values = items(fields.get("values")?, "`values`", problems).iter().filter_map(|node| text(node, problems));
        let patterns: Option<Vec<Vec<String>>> = values.collect::<Vec<_>>().into_iter().map(patterns_of).collect();
        let Some(patterns) = patterns.map(|patterns| patterns.concat()) else {
            problems.push(refused(
                operator_node,
                &format!("operator {} of binaries has no counterpart here", quoted(operator)),
            ));
            return None;
        };
        let exe = format!("exe: {}", list(&patterns));
        let above = format!("descendantsOf: {{exe: {}}}", list(&patterns));
        let follows = fields.get("followChildren").is_some_and(|node| node.value == Value::Bool(true));
        let entries = if operator.starts_with("Not") { &mut self.except } else { &mut self.subjects };
        entries.push(exe);
        if follows {
            entries.push(above);
        }
        Some(())
    }

    fn action(&mut self, node: &Node, denies: bool, problems: &mut Problems) -> Option<()> {
        let known = &["action", "argError", "rateLimit"];
        let fields = mapping(node, "an action", known, problems)?;
        let action_node = fields.get("action")?;
        if let Some(rate) = fields.get("rateLimit") {
            // A number without a unit is of seconds.
            let every = match &rate.value {
                Value::Text(every) if every.bytes().all(|byte| byte.is_ascii_digit()) => Some(format!("{every}s")),
                Value::Text(every) => Some(every.clone()),
                Value::Integer(seconds) => Some(format!("{seconds}s")),
                _ => None,
            };
            if every.is_none() {
                problems.push(refused(rate, "a rate limit that is no time"));
            }
            self.every = every;
        }
        match expect(action_node, &["Post", "Sigkill", "Override"], problems)? {
            "Sigkill" => self.effect = "kill",
            "Override" => {
                let error = fields.get("argError").map(|node| &node.value);
                if error != Some(&Value::Integer(-1)) {
                    let at = fields.get("argError").unwrap_or(action_node);
                    problems.push(refused(at, "what is denied fails with EPERM").help("write `argError: -1`"));
                }
                if !denies {
                    problems.push(refused(action_node, &format!("{} cannot be denied here", self.call)));
                }
                // Who is killed needs no denial.
                if self.effect != "kill" {
                    self.effect = "deny";
                }
            }
            _ => {}
        }
        Some(())
    }

    pub(super) fn yaml(&self, name: &str) -> String {
        let severity = if self.enforces() { "high" } else { "low" };
        let said = match (&self.message, self.meaning) {
            (Some(message), _) => message.replace('{', "{{").replace('}', "}}"),
            (None, Meaning::File(_)) => "{comm} (pid {pid}, {exe}): {access} of {path}".to_owned(),
            (None, Meaning::Connect(_)) => {
                "{comm} (pid {pid}, {exe}) connects to {address} port {port} ({protocol})".to_owned()
            }
        };
        let mut out = format!(
            "    - name: {name}\n      severity: {severity}\n      effect: {}\n      message: {}\n",
            self.effect,
            yaml_text(&said)
        );
        if !self.subjects.is_empty() {
            let entries: Vec<String> = self.subjects.iter().map(|entry| format!("        - {entry}\n")).collect();
            let _ = write!(out, "      subject:\n{}", entries.concat());
        }
        let mut fields = Vec::new();
        match self.meaning {
            Meaning::File(_) => {
                let mut watch: Vec<String> = self.bases.iter().map(|base| base.directory().to_owned()).collect();
                watch.dedup();
                let watch: Vec<String> = watch.iter().map(|directory| escaped(directory)).collect();
                fields.push(format!("watch: {}", list(&watch)));
                fields.push(format!("access: [{}]", self.accesses.join(", ")));
                // A directory alone needs no pattern.
                let is_narrower = |base: &Base| !matches!(base, Base::Directory(_));
                if !self.postfixes.is_empty() || self.bases.iter().any(is_narrower) {
                    let none = [String::new()];
                    let postfixes = if self.postfixes.is_empty() { &none[..] } else { &self.postfixes };
                    let patterns =
                        postfixes.iter().flat_map(|end| self.bases.iter().flat_map(|base| base.patterns(end)));
                    fields.push(format!("path: {}", list(&patterns.collect::<Vec<_>>())));
                }
                let _ = write!(out, "      match:\n        file:\n          {}\n", fields.join("\n          "));
            }
            Meaning::Connect(protocol) => {
                for (field, values) in [("from", &self.from), ("to", &self.to), ("notTo", &self.not_to)] {
                    if !values.is_empty() {
                        fields.push(format!("{field}: {}", list(values)));
                    }
                }
                if !self.ports.is_empty() {
                    fields.push(format!("port: [{}]", self.ports.join(", ")));
                }
                if fields.is_empty() {
                    fields.push("to: [0.0.0.0/0, \"::/0\"]".to_owned());
                }
                fields.push(format!("protocol: {protocol}"));
                let _ = write!(out, "      match:\n        connect:\n          {}\n", fields.join("\n          "));
            }
        }
        if !self.except.is_empty() {
            let entries: Vec<String> = self.except.iter().map(|entry| format!("        - {entry}\n")).collect();
            let _ = write!(out, "      except:\n{}", entries.concat());
        }
        if let Some(every) = &self.every {
            let _ = write!(out, "      throttle:\n        every: {}\n", yaml_text(every));
        }
        out
    }
}

fn glob(text: &str) -> String {
    yaml_text(&escaped(text))
}

fn list(values: &[String]) -> String {
    format!("[{}]", values.iter().map(|value| yaml_text(value)).collect::<Vec<_>>().join(", "))
}
