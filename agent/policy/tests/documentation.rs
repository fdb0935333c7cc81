//! `docs/policies.md` tells the truth: its policy passes its own tests, its mistakes are those that people see.

use std::fs;
use std::path::Path;

use plumbline_policy::{Policy, PolicySet, check};

const PAGE: &str = include_str!("../../../docs/policies.md");

/// The fenced blocks of one language.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    PAGE.split(fence.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn the_example_policy_passes_its_own_tests() {
    let directory = tempfile::tempdir().unwrap();
    let examples = blocks("yaml");
    assert!(!examples.is_empty());
    for (index, text) in examples.iter().enumerate() {
        fs::write(directory.path().join(format!("{index}.yaml")), text).unwrap();
    }
    let report = check(directory.path(), None).unwrap();
    assert!(report.is_ok() && report.untested.is_empty() && !report.tests.is_empty(), "{report}");
}

#[test]
fn the_mistakes_look_as_they_are_shown() {
    let text = "\
apiVersion: plumbline/v1
kind: Policy
metadata: { name: weights }
spec:
  rules:
    - name: stranger
      severity: high
      effect: alert
      message: m
      match:
        file: { wach: [/models] }
    - name: outside
      severity: high
      effect: alert
      message: m
      match:
        connect:
          notTo: [ 192.168.1.7/16 ]
";
    let mut drawn = String::new();
    Policy::parse("weights.yaml", text).unwrap_err().render(&mut drawn).unwrap();
    assert_eq!(blocks("text"), [format!("{}\n", drawn.trim_end())]);
}

#[test]
fn the_rule_on_the_page_of_names_is_one() {
    let page = include_str!("../../../docs/names.md");
    let rule = page.split("```yaml\n- name:").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let rule = format!("- name:{rule}").replace('\n', "\n    ");
    let head = "apiVersion: plumbline/v1\nkind: Policy\nmetadata: { name: names }\nspec:\n  rules:\n    ";
    Policy::parse("names.yaml", &format!("{head}{rule}")).unwrap();
}

#[test]
fn every_shipped_policy_has_a_page_that_tells_of_each_rule() {
    let docs = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs"));
    let set = PolicySet::embedded();
    assert!(set.policies().len() >= 12);
    for policy in set.policies() {
        let name = policy.name();
        let page = fs::read_to_string(docs.join(format!("policies/{name}.md"))).unwrap();
        assert!(page.starts_with(&format!("# `{name}`\n\n{}", policy.description())), "{name}");
        for (rule, severity, effect) in policy.effects() {
            let row = format!("| `{rule}` | {} {} | ", severity.as_str(), effect.as_str());
            assert!(page.contains(&row), "{name} does not tell of {rule}: {row}");
        }
        assert_eq!(page.matches("\n| `").count(), policy.rules().len(), "{name} tells of a rule that is not there");
        assert!(PAGE.contains(&format!("(policies/{name}.md)")), "policies.md does not lead to {name}");
    }
    assert_eq!(fs::read_dir(docs.join("policies")).unwrap().count(), set.policies().len());
}
