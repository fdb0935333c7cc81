//! Documents that make a set together: exceptions of other files, needs of a kernel, what is explained, learned, and read
//! again.

use std::fs;
use std::net::IpAddr;

use expect_test::{Expect, expect};
use plumbline_policy::{
    Access, Accesses, Effect, Facts, File, KernelProfile, Learner, Object, PolicySet, Protocol, Subject, check,
};

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

/// What `plumbline check` prints for a directory of these files, and its exit code.
fn report(files: &[(&str, &[u8])], expect: &Expect) {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, bytes) in files {
        fs::write(directory.path().join(name), bytes).expect("a file");
    }
    let seen = match check(directory.path(), None) {
        Ok(report) => format!("{report}exit {}\n", report.exit_code()),
        Err(error) => format!("error: {error}\n").replace(&directory.path().display().to_string(), "DIR"),
    };
    expect.assert_eq(&seen);
}

const TWO: &str = "apiVersion: plumbline/v1
kind: Policy
metadata: {name: weights}
spec:
  mode: enforce
  rules:
    - name: stranger
      severity: high
      effect: deny
      message: '{exe} opened {path}'
      match: {file: {watch: [/m]}}
      except: [{exe: /usr/bin/vllm}]
    - name: elsewhere
      severity: low
      effect: audit
      message: '{exe} connects to {address}'
      match: {connect: {notTo: [10.0.0.0/8]}}
tests:
  - {name: cat may not, event: {file: {path: /m/a}, process: {exe: /bin/cat}}, expect: deny, rule: stranger}
  - {name: out, event: {connect: {address: 203.0.113.7, port: 443}}, expect: audit}
";

/// A document of exceptions to that policy.
fn exceptions(entries: &str) -> String {
    format!("apiVersion: plumbline/v1\nkind: Exceptions\nmetadata: {{name: mine}}\nspec:\n  exceptions:\n{entries}")
}

#[test]
fn exceptions_of_another_file_excuse() {
    let mine = exceptions("    - policy: weights\n      rule: stranger\n      except: [{exe: /bin/cat}]\n");
    let set = PolicySet::from_documents([("a.yaml", mine.as_str()), ("b.yaml", TWO)]).unwrap();
    let by = |exe: &'static [u8]| {
        let facts = open(b"/m/a");
        !set.decide(&Facts { subject: Subject { exe: Some(exe), ..facts.subject }, ..facts }).is_none()
    };
    assert_eq!((by(b"/bin/cat"), by(b"/usr/bin/vllm"), by(b"/bin/dd")), (false, false, true));
}

#[test]
fn exceptions_that_fit_no_rule_are_refused() {
    let entries = "    - policy: weight
      rule: stranger
      except: [{exe: /bin/cat}]
    - policy: weights
      rule: strangers
      except: [{exe: /bin/cat}]
    - policy: weights
      rule: stranger
      except: [{comm: cat}, {port: 443}]
    - policy: weights
      rule: elsewhere
      except: [{to: [0.0.0.0/0, '::/0']}]
";
    report(
        &[("a.yaml", exceptions(entries).as_bytes()), ("b.yaml", TWO.as_bytes())],
        &expect![[r#"
          × there is no policy `weight` here
           ╭─[a.yaml:6:15]
         5 │   exceptions:
         6 │     - policy: weight
           ·               ───┬──
           ·                  ╰── here
         7 │       rule: stranger
           ╰────
          help: write `weights`

          × there is no rule `strangers` here
            ╭─[a.yaml:10:13]
          9 │     - policy: weights
         10 │       rule: strangers
            ·             ────┬────
            ·                 ╰── here
         11 │       except: [{exe: /bin/cat}]
            ╰────
          help: write `stranger`

          × `comm` is nothing that the kernel decides by, so a rule that denies cannot rest on it
            ╭─[a.yaml:14:15]
         13 │       rule: stranger
         14 │       except: [{comm: cat}, {port: 443}]
            ·               ┬
            ·               ╰── cannot be denied
         15 │     - policy: weights
            ╰────
          help: name the executable, the unit, the cgroup, the pod or the user

          × `port` can only excuse in rules that match `connect`
            ╭─[a.yaml:14:30]
         13 │       rule: stranger
         14 │       except: [{comm: cat}, {port: 443}]
            ·                              ──┬─
            ·                                ╰── here
         15 │     - policy: weights
            ╰────
          help: take it out, or move it to such a rule

          × rule `elsewhere` could never match: this excuses everybody
            ╭─[a.yaml:17:17]
         16 │       rule: elsewhere
         17 │       except: [{to: [0.0.0.0/0, '::/0']}]
            ·                 ─┬
            ·                  ╰── here
            ╰────
          help: name whom you mean besides, or narrow it

        1 policy ok, 1 file invalid; 2 rules; 2 tests passed, 0 failed
        exit 1
    "#]],
    );
}

#[test]
fn what_says_nothing_is_noted() {
    let text = "apiVersion: plumbline/v1
kind: Policy
metadata: {name: p}
spec:
  rules:
    - name: wide
      severity: high
      effect: alert
      message: m
      match: {file: {watch: [/m], access: [open, read]}}
      except: [{exe: /usr/bin/*}]
    - name: narrow
      severity: low
      effect: audit
      message: m
      match: {file: {watch: [/m/x], access: [open]}}
      except: [{exe: /usr/bin/*}, {exe: /usr/bin/vllm, uid: 7}]
tests:
  - {name: t, event: {file: {path: /m/x/a}}, expect: alert}
";
    report(
        &[("p.yaml", text.as_bytes())],
        &expect![[r#"
        note    p.yaml:12: rule `narrow` says nothing that `wide` does not: it is shadowed
        note    p.yaml:17: an exception of rule `narrow` excuses nobody whom one before it does not
        1 policy ok, 0 files invalid; 2 rules; 1 test passed, 0 failed
        digest sha256:656d8a3cabc9b306e7ce7a4be0defeb22be1fa2b8b61981fd024ee979de835a0
        exit 0
    "#]],
    );
}

#[test]
fn a_kernel_meets_what_a_policy_needs_or_the_set_is_refused() {
    let refused = TWO;
    let degrading = TWO.replace("mode: enforce", "mode: enforce\n  otherwise: degrade\n  requires: [bpf-lsm]");
    let on = |text: &str, kernel: &str| {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("p.yaml"), text).unwrap();
        let kernel = KernelProfile::named(kernel).unwrap();
        let report = check(directory.path(), Some(&kernel)).unwrap();
        let mut set = PolicySet::from_documents([("p.yaml", text)]).unwrap();
        let fit = set
            .fit(&kernel)
            .map_or_else(|unmet| format!("refused {}", unmet.len()), |unmet| format!("degraded {}", unmet.len()));
        let unmet: Vec<String> = report.unmet.iter().map(ToString::to_string).collect();
        (report.is_ok(), fit, set.policies()[0].mode().as_str(), unmet.join("\n"))
    };
    assert_eq!(on(refused, "6.1+bpf-lsm"), (true, "degraded 0".into(), "enforce", String::new()));
    let why = "policy `weights` needs `bpf-lsm`, and `bpf` is not in `lsm=`: it monitors instead";
    assert_eq!(on(&degrading, "6.1"), (true, "degraded 1".into(), "monitor", why.to_owned()));
    let insisting = TWO.replace("mode: enforce", "mode: enforce\n  requires: bpf-lsm");
    let (is_ok, fit, mode, _) = on(&insisting, "5.10");
    assert_eq!((is_ok, fit.as_str(), mode), (false, "refused 1", "enforce"));
    assert!(
        KernelProfile::named("5.4").is_err()
            && KernelProfile::named("6.1+x").is_err()
            && KernelProfile::named("6").is_err()
    );
}

#[test]
fn the_mode_says_how_much_of_an_effect_is_left() {
    for (mode, effect) in [("learn", Effect::Audit), ("monitor", Effect::Alert), ("enforce", Effect::Deny)] {
        let text = TWO.replace("mode: enforce", &format!("mode: {mode}"));
        let set = PolicySet::from_documents([("p.yaml", text.as_str())]).unwrap();
        let verdict = set.decide(&open(b"/m/a"));
        assert_eq!((verdict.effect(), verdict.matched()[0].effect), (Some(effect), Effect::Deny));
    }
}

#[test]
fn an_explanation_says_which_rule_and_why() {
    let set = PolicySet::from_documents([("p.yaml", TWO)]).unwrap();
    let explain = |exe: &'static [u8], path: &'static [u8]| {
        let facts = open(path);
        set.explain(&Facts { subject: Subject { exe: Some(exe), ..facts.subject }, ..facts }).to_string()
    };
    let all = [explain(b"/bin/cat", b"/m/a"), explain(b"/usr/bin/vllm", b"/m/a"), explain(b"/bin/cat", b"/n/a")];
    expect![[r#"
        match     weights/stranger  high deny (enforce)
                  /bin/cat opened /m/a
                  `match` holds
                  exception 1 does not excuse it: `exe` does not hold (/bin/cat)
        1 rules speak of other kinds of events
        --
        no match  weights/stranger
                  exception 1 excuses it
        1 rules speak of other kinds of events
        --
        no match  weights/stranger
                  `match.file.watch` does not hold: /n/a, open
        1 rules speak of other kinds of events
    "#]]
    .assert_eq(&all.join("--\n"));
}

#[test]
fn what_was_seen_becomes_an_allow_list_to_be_reviewed() {
    let set = PolicySet::from_documents([("p.yaml", TWO)]).unwrap();
    let mut learner = Learner::new(&set);
    let cgroup = Some(&b"/system.slice/backup.service"[..]);
    for (exe, ms) in [(&b"/usr/bin/rsync"[..], 1000), (b"/usr/bin/rsync", 3000), (b"/opt/[x]/y", 2000)] {
        let facts = open(b"/m/a");
        learner.see(&Facts { subject: Subject { exe: Some(exe), cgroup, ..facts.subject }, ..facts }, ms);
    }
    learner.see(&open(b"/m/a"), 4000);
    let out = connect("203.0.113.7");
    learner.see(&Facts { subject: Subject { exe: Some(b"/usr/bin/curl"), uid: Some(7), ..out.subject }, ..out }, 5000);
    expect![[r##"
        # Learned by `plumbline policy learn` from 5 events, of which rules matched 5. Each entry excuses what was seen,
        # wrong or right: review it before this file goes into the directory of policies.
        # 1 matches are not excused: the executable, or what it was done to, is not known.
        apiVersion: plumbline/v1
        kind: Exceptions
        metadata:
          name: learned
        spec:
          exceptions:
            - policy: weights
              rule: elsewhere
              except:
                # 1 times, from 5 s to 5 s
                - exe: "/usr/bin/curl"
                  uid: 7
                  to: ["203.0.113.7"]
                  port: 443
            - policy: weights
              rule: stranger
              except:
                # 1 times, from 2 s to 2 s
                - exe: "/opt/\\[x\\]/y"
                  unit: "backup.service"
                # 2 times, from 1 s to 3 s
                - exe: "/usr/bin/rsync"
                  unit: "backup.service"
    "##]]
    .assert_eq(&learner.document("learned", |ms| format!("{} s", ms / 1000)));
}

#[test]
fn a_reload_gives_what_a_first_load_gives() {
    let lists = |directory: &str| {
        format!(
            "apiVersion: plumbline/v1\nkind: Lists\nmetadata: {{name: node}}\nspec: {{lists: {{dirs: [{directory}]}}}}\n"
        )
    };
    let policy =
        TWO.replace("watch: [/m]", "watch: $dirs").replace("  mode: enforce", "  include: [node]\n  mode: enforce");
    let mine = exceptions("    - policy: weights\n      rule: stranger\n      except: [{exe: /bin/cat}]\n");
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    let mut before: Option<PolicySet> = None;
    // What `cat` may not, in each state of the directory.
    let mut reload = |expect: &[&str]| {
        let set = PolicySet::reload(directory.path(), before.as_ref()).unwrap();
        let fresh = PolicySet::load(directory.path()).unwrap();
        assert_eq!(set.digest(), fresh.digest());
        for path in ["/m/a", "/n/a"] {
            let facts = open(path.as_bytes());
            let facts = Facts { subject: Subject { exe: Some(b"/bin/cat"), ..facts.subject }, ..facts };
            assert_eq!(set.decide(&facts), fresh.decide(&facts));
            assert_eq!(!set.decide(&facts).is_none(), expect.contains(&path), "{path}");
            assert!(set.policies().iter().all(|policy| policy.mode().as_str() == "enforce"));
        }
        let mut set = set;
        // What a kernel makes of a set is not what its files say.
        let _ = set.fit(&KernelProfile::new("none", |_| Err("nothing".to_owned())));
        before = Some(set);
    };
    write("a.yaml", &lists("/m"));
    write("b.yaml", &policy.replace("mode: enforce", "mode: enforce\n  otherwise: degrade"));
    reload(&["/m/a"]);
    write("a.yaml", &lists("/n"));
    reload(&["/n/a"]);
    write("c.yaml", &mine);
    reload(&[]);
    fs::remove_file(directory.path().join("c.yaml")).unwrap();
    reload(&["/n/a"]);
}

#[test]
fn lists_of_other_files_are_put_in_once() {
    let lists = |name: &str, list: &str| {
        format!(
            "apiVersion: plumbline/v1\nkind: Lists\nmetadata: {{name: {name}}}\nspec: {{lists: {{{list}: [/bin/cat]}}}}\n"
        )
    };
    let (one, two) = (lists("one", "readers"), lists("two", "readers"));
    let mine = exceptions("    - policy: weights\n      rule: stranger\n      except: [{exe: $readers}]\n");
    let mine = mine.replace("spec:\n", "spec:\n  include: [one]\n");
    let set = PolicySet::from_documents([("a.yaml", &*one), ("b.yaml", TWO), ("c.yaml", &*mine)]).unwrap();
    let facts = open(b"/m/a");
    let cat = Facts { subject: Subject { exe: Some(b"/bin/cat"), ..facts.subject }, ..facts };
    assert!(set.decide(&cat).is_none());
    let both = mine.replace("include: [one]", "include: [one, two]");
    report(
        &[
            ("a.yaml", one.as_bytes()),
            ("b.yaml", TWO.as_bytes()),
            ("c.yaml", both.as_bytes()),
            ("d.yaml", two.as_bytes()),
        ],
        &expect![[r#"
              × another document that is included has a list `readers` as well
               ╭─[c.yaml:5:18]
             4 │ spec:
             5 │   include: [one, two]
               ·                  ─┬─
               ·                   ╰── here
             6 │   exceptions:
               ╰────
              help: rename one, or define the list under `spec.lists`

            failed  weights: cat may not
                    expected deny of rule `stranger`, but no rule matched
            note    no test makes rule weights/stranger match
            1 policy ok, 1 file invalid; 2 rules; 1 test passed, 1 failed
            exit 1
        "#]],
    );
}
