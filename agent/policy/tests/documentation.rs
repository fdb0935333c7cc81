//! `docs/policies.md` tells the truth: its policy passes its own tests, its mistakes are those that people see.

use std::fs;

use plumbline_policy::{Policy, check};

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
    let report = check(directory.path()).unwrap();
    assert!(report.is_ok() && report.untested.is_empty() && report.tests_passed > 0, "{report}");
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
fn every_field_and_word_is_on_the_page() {
    // The parser lists what it knows when it meets what it does not know; each of those words must be explained.
    let lists = [
        "x: 1",
        "metadata: {x: 1}",
        "spec: {rules: [{x: 1}]}",
        "spec: {rules: [{severity: zzzzzz, effect: zzzzzz, match: {x: 1}}]}",
        "spec: {rules: [{match: {file: {x: 1}}}, {match: {connect: {x: 1, protocol: zzzzzz}}}]}",
        "spec: {rules: [{match: {file: {watch: [/m]}}, message: '{zzzzzz}', except: [{exe: /a, zzzzzz: 1}]}]}",
        "spec: {rules: [{match: {connect: {notTo: ['::1']}}, message: '{zzzzzz}', name: r}]}",
        "tests: [{zzzzzz: 1, expect: zzzzzz, event: {zzzzzz: 1, process: {zzzzzz: 1}}}]",
        "tests: [{event: {file: {zzzzzz: 1}}}, {event: {connect: {zzzzzz: 1}}}]",
    ];
    let mut words = 0;
    for text in lists {
        let mut drawn = String::new();
        Policy::parse("p.yaml", text).unwrap_err().render(&mut drawn).unwrap();
        for help in drawn.split("help: ").skip(1).filter_map(|rest| rest.split('×').next()) {
            for word in help.split('`').skip(1).step_by(2) {
                let word = word.trim_end_matches(':');
                words += 1;
                assert!(PAGE.contains(word), "docs/policies.md does not explain `{word}`");
            }
        }
    }
    assert!(words > 50, "only {words} words were looked up");
}

#[test]
fn the_rule_on_the_page_of_names_is_one() {
    let page = include_str!("../../../docs/names.md");
    let rule = page.split("```yaml\n- name:").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let rule = format!("- name:{rule}").replace('\n', "\n    ");
    let head = "apiVersion: plumbline/v1\nkind: Policy\nmetadata: { name: names }\nspec:\n  rules:\n    ";
    Policy::parse("names.yaml", &format!("{head}{rule}")).unwrap();
}
