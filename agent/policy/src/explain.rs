//! Why a verdict is what it is: of every rule that speaks of such an event, whether it matched, and what kept it from it.
//!
//! It asks the rules the same questions in the same order as `decide`, so that it cannot say otherwise.

use std::fmt;

use crate::decide::Miss;
use crate::facts::Facts;
use crate::object::When;
use crate::policy::{Effect, Mode, Policy, Severity};
use crate::set::PolicySet;
use crate::template::{Placeholder, fill};

/// What every rule says of one event. Its `Display` is what a person reads.
#[derive(Debug)]
pub struct Explanation {
    pub rules: Vec<RuleSays>,
    /// Rules that speak of other kinds of events.
    pub of_other_kinds: usize,
}

/// What one rule says of an event.
#[derive(Debug)]
pub struct RuleSays {
    pub policy: String,
    pub rule: String,
    pub severity: Severity,
    pub effect: Effect,
    pub mode: Mode,
    /// The message, where the rule matched.
    pub matched: Option<String>,
    /// Why it did, or did not, line by line.
    pub because: Vec<String>,
}

impl PolicySet {
    pub fn explain(&self, facts: &Facts<'_>) -> Explanation {
        let mut explanation = Explanation { rules: Vec::new(), of_other_kinds: 0 };
        for policy in self.policies() {
            for rule in &policy.rules {
                let judged = rule.judge(policy, facts);
                if judged == Err(Miss::Match(rule.when.kind().name)) {
                    explanation.of_other_kinds += 1;
                    continue;
                }
                explanation.rules.push(RuleSays {
                    policy: policy.name.to_string(),
                    rule: rule.name.to_string(),
                    severity: rule.severity,
                    effect: rule.effect,
                    mode: policy.mode,
                    matched: judged.is_ok().then(|| rule.message.render(facts)),
                    because: because(policy, rule, judged, facts),
                });
            }
        }
        explanation
    }
}

fn because(policy: &Policy, rule: &crate::policy::Rule, judged: Result<(), Miss>, facts: &Facts<'_>) -> Vec<String> {
    match judged {
        Err(Miss::Match(field)) => {
            vec![format!("`match.{}.{field}` does not hold: {}", rule.when.kind().name, object(&rule.when, facts))]
        }
        Err(Miss::Subject(field, of_policy)) => {
            let (whose, several) = if of_policy {
                ("the policy's", policy.subjects.len() > 1)
            } else {
                ("the rule's", rule.subjects.len() > 1)
            };
            let also = if several { ", nor does another entry" } else { "" };
            vec![format!(
                "it does not speak of this process: {whose} `subject.{field}` does not hold{also} ({})",
                known(field, facts)
            )]
        }
        Err(Miss::Excused(index)) => vec![format!("exception {} excuses it", index + 1)],
        Ok(()) if rule.except.is_empty() => vec!["`match` holds, and there is no exception".to_owned()],
        Ok(()) => {
            let missed = rule.except.iter().enumerate().filter_map(|(index, exception)| {
                let field = exception.excuses(facts).err()?;
                Some(format!(
                    "exception {} does not excuse it: `{field}` does not hold ({})",
                    index + 1,
                    known(field, facts)
                ))
            });
            std::iter::once("`match` holds".to_owned()).chain(missed).collect()
        }
    }
}

/// What the event has in the place of a field of subjects and exceptions.
fn known(field: &str, facts: &Facts<'_>) -> String {
    let mut text = String::new();
    let placeholder = match field {
        "exe" => Placeholder::Exe,
        "comm" => Placeholder::Comm,
        "uid" => Placeholder::Uid,
        "user" => Placeholder::User,
        "container" => Placeholder::Container,
        "image" => Placeholder::Image,
        "namespace" | "pod" => Placeholder::Pod,
        "cgroup" | "unit" => Placeholder::Cgroup,
        "path" => Placeholder::Path,
        "to" => Placeholder::Address,
        "port" => Placeholder::Port,
        "exeSha256" => return facts.subject.exe_sha256.unwrap_or("(unknown)").to_owned(),
        "podLabels" => {
            let labels = facts.subject.pod.map_or(&[][..], |pod| pod.labels);
            let words: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            return if words.is_empty() { "(unknown)".to_owned() } else { words.join(", ") };
        }
        "descendantsOf" => {
            let names =
                facts.subject.ancestors.iter().map(|one| one.exe.map_or("(unknown)".into(), String::from_utf8_lossy));
            let above = names.collect::<Vec<_>>().join(", ").escape_debug().to_string();
            return if above.is_empty() { "nothing is known above".to_owned() } else { above };
        }
        _ => return "unknown".to_owned(),
    };
    fill(&mut text, placeholder, facts);
    text
}

/// The event's object, as its own placeholders show it.
fn object(when: &When, facts: &Facts<'_>) -> String {
    let mut words = Vec::new();
    for placeholder in when.kind().placeholders {
        let mut text = String::new();
        fill(&mut text, *placeholder, facts);
        if text != "(unknown)" && !text.is_empty() {
            words.push(text);
        }
    }
    words.join(", ")
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for says in &self.rules {
            let RuleSays { policy, rule, severity, effect, mode, matched, because } = says;
            match matched {
                Some(message) => writeln!(
                    f,
                    "match     {policy}/{rule}  {} {} ({})\n          {message}",
                    severity.as_str(),
                    effect.as_str(),
                    mode.as_str()
                )?,
                None => writeln!(f, "no match  {policy}/{rule}")?,
            }
            for line in because {
                writeln!(f, "          {line}")?;
            }
        }
        if self.rules.is_empty() {
            writeln!(f, "no rule speaks of such events")?;
        }
        if self.of_other_kinds > 0 {
            writeln!(f, "{} rules speak of other kinds of events", self.of_other_kinds)?;
        }
        Ok(())
    }
}
