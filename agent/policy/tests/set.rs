//! Sets of policies: loading, digest, watched directories, verdicts, and `plumbline check`.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use expect_test::{Expect, expect};
use plumbline_policy::{
    Access, Accesses, CheckReport, Effect, Facts, File, LoadError, Object, PolicySet, Protocol, Severity, Subject,
    Taken, WatchPath,
};

fn policy(name: &str, rules: &[(&str, &str, &str)]) -> String {
    let mut out = format!("apiVersion: plumbline/v1\nkind: Policy\nmetadata: {{name: {name}}}\nspec:\n  rules:\n");
    for (rule, severity, effect) in rules {
        out += &format!(
            "    - name: {rule}\n      severity: {severity}\n      effect: {effect}\n      \
             message: '{{comm}} {{exe}} {{path}} {{{{ok}}}}'\n      match: {{file: {{watch: [/m, '~/.cache/hub', /of/{rule}]}}}}\n"
        );
    }
    out
}

fn open<'a>(path: &'a [u8]) -> Facts<'a> {
    Facts {
        subject: Subject { pid: 7, comm: b"cat", ..Subject::default() },
        object: Object::File(File { accesses: Accesses::of([Access::Open]), path, ..File::default() }),
    }
}

fn connect(address: &str) -> Facts<'static> {
    let address: IpAddr = address.parse().expect("an address");
    Facts {
        subject: Subject::default(),
        object: Object::Connect { protocol: Protocol::Tcp, address, port: 443, names: &[], source: None },
    }
}

fn check(directory: &Path) -> Result<CheckReport, LoadError> {
    plumbline_policy::check(directory, None)
}

fn shipped() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../policies"))
}

#[test]
fn the_shipped_policies_pass_their_own_tests() {
    let report = check(shipped()).unwrap();
    assert!(report.is_ok(), "{report}");
    assert_eq!(report.untested, Vec::<String>::new());
    assert!(report.tests.len() >= 12);
}

#[test]
fn the_embedded_set_is_the_shipped_one() {
    assert_eq!(PolicySet::embedded().digest(), PolicySet::load(shipped()).unwrap().digest());
    assert_eq!(fs::read_dir(shipped()).unwrap().count(), PolicySet::embedded().policies().len() + 1);
    // One of them is lists.
}

#[test]
fn a_message_names_the_file_that_was_read_last_and_says_whether_there_are_others() {
    let text = "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {name: p}\nspec:\n  rules:\n    - name: r\n      severity: low\n      \
                effect: audit\n      message: '{read}'\n      match: {connect: {notTo: [10.0.0.0/8], afterReading: [/m]}}\n";
    let set = PolicySet::from_documents([("p.yaml", text)]).unwrap();
    let says = |has_read: &[Taken<'_>]| {
        let facts = connect("203.0.113.7");
        let verdict = set.decide(&Facts { subject: Subject { has_read, ..facts.subject }, ..facts });
        verdict.matched().first().map(|matched| matched.message.clone())
    };
    let named = Taken { path: Some(b"/m/\x1b"), watched: None };
    let unnamed = Taken { path: None, watched: Some(b"/m") };
    assert_eq!(says(&[]), None);
    assert_eq!(says(&[named]).as_deref(), Some("/m/\\u{1b}"));
    assert_eq!(says(&[unnamed, named]).as_deref(), Some("/m and others"));
}

#[test]
fn the_digest_is_what_coreutils_print() {
    let one = policy("one", &[("r", "low", "audit")]);
    let set = PolicySet::from_documents([("one.yaml", one.as_str())]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("one.yaml"), &one).unwrap();
    let output = std::process::Command::new("sh")
        .args(["-c", "LC_ALL=C sha256sum *.yaml | sha256sum | cut -d' ' -f1"])
        .current_dir(directory.path())
        .output();
    let output = output.expect("coreutils");
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), set.digest());
}

#[test]
fn the_order_of_files_does_not_matter_but_their_bytes_do() {
    let (one, two) = (policy("one", &[("r", "low", "audit")]), policy("two", &[("r", "low", "audit")]));
    let set = |documents: [(&str, &str); 2]| PolicySet::from_documents(documents).unwrap().digest().to_owned();
    let digest = set([("one.yaml", &one), ("two.yaml", &two)]);
    assert_eq!(set([("two.yaml", &two), ("one.yaml", &one)]), digest);
    let commented = format!("{two}# a comment\n");
    assert_ne!(set([("one.yaml", &one), ("two.yaml", &commented)]), digest);
}

#[test]
fn the_generation_counts_changes() {
    let (one, two) = (policy("one", &[("r", "low", "audit")]), policy("two", &[("r", "low", "audit")]));
    let set = |text: &str| PolicySet::from_documents([("p.yaml", text)]).unwrap();
    let first = set(&one);
    assert_eq!(first.generation(), 1);
    assert_eq!(set(&one).following(&first).generation(), 1);
    assert_eq!(set(&two).following(&first).generation(), 2);
}

#[test]
fn every_matching_rule_is_kept_the_most_severe_first() {
    let text =
        policy("p", &[("a", "low", "alert"), ("b", "critical", "audit"), ("c", "low", "audit"), ("d", "low", "alert")]);
    let verdict = PolicySet::from_documents([("p.yaml", text.as_str())]).unwrap().decide(&open(b"/m/x"));
    let order: Vec<&str> = verdict.matched().iter().map(|matched| &*matched.rule).collect();
    assert_eq!(order, ["b", "a", "d", "c"]);
    assert_eq!((verdict.severity(), verdict.effect()), (Some(Severity::Critical), Some(Effect::Alert)));
}

#[test]
fn messages_show_hostile_bytes_escaped_and_the_unknown_as_unknown() {
    let text = policy("p", &[("a", "low", "alert")]);
    let set = PolicySet::from_documents([("p.yaml", text.as_str())]).unwrap();
    let verdict = set.decide(&open(b"/m/\xff\x1b[31m\n\xc3\xa9"));
    assert_eq!(verdict.matched()[0].message, "cat (unknown) /m/\\xff\\u{1b}[31m\\né {ok}");
}

#[test]
fn nothing_matches_what_no_rule_speaks_of() {
    let set = PolicySet::embedded();
    assert!(set.decide(&open(b"/etc/passwd")).is_none());
    assert!(set.decide(&connect("10.1.2.3")).is_none());
    assert_eq!(set.decide(&connect("8.8.8.8")).effect(), Some(Effect::Alert));
}

#[test]
fn watched_paths_are_told_once_and_homes_are_expanded() {
    let text = policy("p", &[("a", "low", "alert"), ("b", "low", "alert")]);
    let set = PolicySet::from_documents([("p.yaml", text.as_str())]).unwrap();
    let literal = |path: &str| WatchPath::Literal(path.to_owned());
    let pattern = WatchPath::Pattern("/home/*/.cache/hub".to_owned());
    let of = [literal("/m"), literal("/of/a"), literal("/of/b"), literal("/root/.cache/hub"), pattern];
    assert_eq!(set.watched_paths(), of);
}

#[test]
fn a_pattern_expands_to_the_directories_that_exist() {
    let root = tempfile::tempdir().unwrap();
    for directory in ["ada/hub", "bob/hub", "eve/other"] {
        fs::create_dir_all(root.path().join(directory)).unwrap();
    }
    fs::create_dir(root.path().join("mallory")).unwrap();
    fs::write(root.path().join("mallory/hub"), "a file, not a directory").unwrap();
    let expand = |tail: &str| {
        let found = WatchPath::Pattern(format!("{}/{tail}", root.path().display())).expand();
        found.iter().map(|path| path.strip_prefix(root.path()).unwrap().display().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(expand("*/hub"), ["ada/hub", "bob/hub"]);
    assert_eq!(expand("[ab]*/{hub,none}"), ["ada/hub", "bob/hub"]);
    assert_eq!(expand("?/hub"), Vec::<String>::new());
    let file = root.path().join("mallory/hub");
    assert_eq!(WatchPath::Literal(file.display().to_string()).expand(), [file]);
}

/// What `plumbline check` prints for a directory of these files, and its exit code.
fn report(files: &[(&str, &[u8])], expect: &Expect) {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, bytes) in files {
        fs::write(directory.path().join(name), bytes).expect("a file");
    }
    let seen = match check(directory.path()) {
        Ok(report) => format!("{report}exit {}\n", report.exit_code()),
        Err(error) => format!("error: {error}\n").replace(&directory.path().display().to_string(), "DIR"),
    };
    expect.assert_eq(&seen);
}

#[test]
fn the_report_counts_and_names_what_failed() {
    let tests = "tests:\n  - {name: fits, event: {file: {path: /m/x}}, expect: alert, rule: a}\n  \
                 - {name: fails, event: {file: {path: /m/x}}, expect: none}\n  \
                 - {name: fails too, event: {file: {path: /n}}, expect: audit, rule: a}\n";
    let text = policy("p", &[("a", "low", "alert")]) + tests;
    report(
        &[("p.yaml", text.as_bytes())],
        &expect![[r#"
        failed  p: fails
                expected none, but rule `a` matched (alert):  (unknown) /m/x {ok}
        failed  p: fails too
                expected audit of rule `a`, but no rule matched
        1 policy ok, 0 files invalid; 1 rule; 1 test passed, 2 failed
        exit 1
    "#]],
    );
}

#[test]
fn one_bad_file_does_not_hide_the_others() {
    let good = policy("p", &[("a", "low", "alert")]);
    report(
        &[("a.yaml", b"kind: [\n"), ("b.yaml", good.as_bytes()), ("c.yaml", b"a: \xff\n"), ("d.yml", b"")],
        &expect![[r#"
              × this is not valid YAML: unclosed bracket '['
               ╭─[a.yaml:1:7]
             1 │ kind: [
               ·       ▲
               ·       ╰── here
               ╰────

              × the file is not UTF-8
               ╭─[c.yaml:1:4]
             1 │ a: �
               ·    ┬
               ·    ╰── not a character
               ╰────
              help: save it as UTF-8

              × policies are read from `*.yaml`; this file would be ignored
               ╭─[d.yml:1:1]
               ╰────
              help: rename it

            note    no test makes rule p/a match
            1 policy ok, 3 files invalid; 1 rule; 0 tests passed, 0 failed
            exit 1
        "#]],
    );
}

#[test]
fn a_name_taken_by_another_file_is_refused() {
    let text = policy("p", &[("a", "low", "alert")]);
    report(
        &[("a.yaml", text.as_bytes()), ("b.yaml", text.as_bytes())],
        &expect![[r#"
              × another file has a document called `p` as well
               ╭─[b.yaml:3:18]
             2 │ kind: Policy
             3 │ metadata: {name: p}
               ·                  ┬
               ·                  ╰── here
             4 │ spec:
               ╰────
              help: give each its own name

            note    no test makes rule p/a match
            1 policy ok, 1 file invalid; 1 rule; 0 tests passed, 0 failed
            exit 1
        "#]],
    );
}

#[test]
fn nothing_to_check_is_an_error() {
    report(
        &[("notes.txt", b"")],
        &expect![[r#"
        error: no policy in DIR
    "#]],
    );
    assert!(matches!(check(Path::new("/nonexistent")), Err(LoadError::Io { .. })));
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let large = vec![b'#'; (1 << 20) + 1];
    report(
        &[("p.yaml", &large)],
        &expect![[r#"
              × the file is larger than 1048576 bytes
               ╭─[p.yaml:1:1]
               ╰────
              help: split it into several files

            0 policies ok, 1 file invalid; 0 rules; 0 tests passed, 0 failed
            exit 1
        "#]],
    );
}
