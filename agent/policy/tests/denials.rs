//! What can be denied at once, and what is said of more.

use std::fs;

use plumbline_policy::{MAX_EXCEPTIONS, MAX_NARROW, MAX_USERS, PolicySet, check};

/// A policy that denies, in `enforce`: its subjects, and how many exceptions its rule has.
fn policy(name: &str, subjects: usize, exceptions: usize) -> String {
    let many = |count: usize, one: fn(usize) -> String| (0..count).map(one).collect::<Vec<_>>().join(", ");
    let subjects = many(subjects, |number| format!("{{uid: {number}}}"));
    let except = many(exceptions, |number| format!("{{exe: /opt/program-{number}}}"));
    format!(
        "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {{name: {name}}}\nspec:\n  mode: enforce\n  subject: [{subjects}]\n  rules:\n    - {{name: r, \
         severity: low, effect: deny, message: m, match: {{file: {{watch: [/models]}}}}, except: [{except}]}}\n"
    )
}

#[track_caller]
fn refused(documents: &[(&str, &str)], because: &str) {
    let mistakes = PolicySet::from_documents(documents.iter().copied()).expect_err("a mistake");
    assert!(mistakes.iter().any(|one| one.to_string().contains(because)), "{mistakes:?}");
}

#[test]
fn a_rule_that_denies_has_as_many_exceptions_as_fit_into_a_word() {
    let fits = policy("p", 1, MAX_EXCEPTIONS);
    assert!(!PolicySet::from_documents([("p.yaml", fits.as_str())]).unwrap().denials().unwrap().is_empty());
    let because = "a rule that denies can have 63 exceptions, and this would be more";
    refused(&[("p.yaml", &policy("p", 1, MAX_EXCEPTIONS + 1))], because);
    // Those of another file count.
    let more = "apiVersion: plumbline/v1\nkind: Exceptions\nmetadata: {name: more}\nspec:\n  exceptions:\n    - {policy: p, rule: r, except: [{exe: \
                /opt/one-more}]}\n";
    refused(&[("p.yaml", &fits), ("more.yaml", more)], because);
}

#[test]
fn more_than_the_kernel_takes_is_said_before_it_is_in_force() {
    let directory = tempfile::tempdir().unwrap();
    // Sixteen subjects are sixteen ways.
    for number in 0..MAX_NARROW / 16 {
        fs::write(directory.path().join(format!("p{number}.yaml")), policy(&format!("p{number}"), 16, 1)).unwrap();
    }
    assert!(check(directory.path(), None).unwrap().is_ok());
    fs::write(directory.path().join("one-more.yaml"), policy("one-more", 1, 1)).unwrap();
    let report = check(directory.path(), None).unwrap();
    let said = report.to_string();
    assert!(
        !report.is_ok() && said.contains("refused the rules that deny apply in 2049 ways with up to 7 exceptions"),
        "{said}"
    );
    assert!(PolicySet::load(directory.path()).unwrap().denials().is_err());
}

/// A policy of one rule that denies, in `enforce`.
fn denying(subject: &str, rule: &str) -> String {
    format!(
        "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {{name: p}}\nspec:\n  mode: enforce\n  subject: {{{subject}}}\n  rules:\n    - {{name: r, \
         severity: low, effect: deny, message: m, match: {{{rule}}}}}\n"
    )
}

#[test]
fn names_that_the_kernel_has_no_room_for_are_counted() {
    let numbers = |numbers: &mut dyn Iterator<Item = usize>| {
        numbers.map(|number| number.to_string()).collect::<Vec<_>>().join(", ")
    };
    let said = |text: &str| match PolicySet::from_documents([("p.yaml", text)]).unwrap().denials() {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.to_string(),
    };
    let users = |count: usize| denying(&format!("uid: [{}]", numbers(&mut (0..count))), "file: {watch: [/models]}");
    assert_eq!(said(&users(MAX_USERS)), "ok");
    assert_eq!(
        said(&users(MAX_USERS + 1)),
        "the rules that deny name 2048 users, and the kernel takes 2047: let fewer policies enforce"
    );
    // Each port alone, and each between two of them, under each protocol.
    let ports = |count: usize| {
        let ports = numbers(&mut (0..count).map(|number| 1 + 2 * number));
        denying("uid: 7", &format!("connect: {{to: [192.0.2.0/24], port: [{ports}]}}"))
    };
    assert_eq!(said(&ports(16_000)), "ok");
    assert!(said(&ports(17_000)).ends_with("runs of ports, and the kernel takes 65536: let fewer policies enforce"));
}
