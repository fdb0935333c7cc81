//! What may not be denied, who may not be killed, and rules that cannot be meant.

use expect_test::{Expect, expect};

use crate::check;

/// A policy with one rule of this effect, which gives `match` and what follows.
fn effect(effect: &str, rest: &str) -> String {
    format!(
        "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {{name: p}}\nspec:\n  rules:\n    - name: r\n      severity: high\n      effect: {effect}\n      message: m\n{rest}"
    )
}

fn deny(rest: &str, expect: &Expect) {
    check(&effect("deny", rest), expect);
}

#[test]
fn denying_where_pid_1_or_the_daemon_must_read_is_refused() {
    for (watch, needed) in [
        ("/usr", "/usr/bin"),
        ("/etc", "/etc/group"),
        ("/var/lib/plumbline/log", "/var/lib/plumbline"),
        ("/lib", "/lib"),
        ("/var/run/systemd", "/var/run"),
        ("/usr/l*/systemd/system", "/usr/lib/systemd"),
        ("/et[c]/ssl/certs", "/etc/ssl"),
        ("/etc/pam.d", "/etc/pam.d"),
        ("/?ib", "/lib"),
        ("/usr/lib/{systemd,x}", "/usr/lib/systemd"),
        ("/proc/self", "/proc"),
    ] {
        let text = effect("deny", &format!("      match: {{file: {{watch: ['{watch}']}}}}\n"));
        let mistakes = plumbline_policy::Policy::parse("p.yaml", &text).unwrap_err();
        let said = mistakes.problems()[0].to_string();
        assert!(said.contains("could stop the node") && said.contains(&format!("`{needed}`")), "{watch}: {said}");
    }
    deny(
        "      match: {file: {watch: [/models, /etc/systemd/system]}}\n",
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 10, column 7: denying in `/etc/systemd/system` could stop the node: `/etc/systemd` is needed by pid 1, the loader or the daemon
              × denying in `/etc/systemd/system` could stop the node: `/etc/systemd` is needed by pid 1, the loader or
              │ the daemon
                ╭─[policy.yaml:10:7]
              9 │       message: m
             10 │       match: {file: {watch: [/models, /etc/systemd/system]}}
                ·       ──┬──
                ·         ╰── too close to what the node needs
                ╰────
              help: name the directories that hold what you protect

        "#]],
    );
    deny("      match: {file: {watch: [/models, /usr/share/ollama/.ollama/models]}}\n", &expect!["ok: p"]);
}

#[test]
fn a_name_denies_nothing() {
    deny(
        "      match: {connect: {notTo: [10.0.0.0/8, {matchName: hf.co}]}}\n",
        &expect![[r#"
        policy file `policy.yaml` has 1 mistake; line 10, column 7: a name never denies: it is what a name server said of an address
          × a name never denies: it is what a name server said of an address
            ╭─[policy.yaml:10:7]
          9 │       message: m
         10 │       match: {connect: {notTo: [10.0.0.0/8, {matchName: hf.co}]}}
            ·       ──┬──
            ·         ╰── cannot be denied
            ╰────
          help: write networks, or `alert`

    "#]],
    );
    deny(
        "      match: {connect: {notTo: [10.0.0.0/8]}}\n      except: [{to: {matchPattern: '*.hf.co'}}]\n",
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 10, column 7: a name never excuses from being denied: the kernel knows none
              × a name never excuses from being denied: the kernel knows none
                ╭─[policy.yaml:10:7]
              9 │       message: m
             10 │       match: {connect: {notTo: [10.0.0.0/8]}}
                ·       ──┬──
                ·         ╰── cannot be denied
             11 │       except: [{to: {matchPattern: '*.hf.co'}}]
                ╰────
              help: write networks

        "#]],
    );
}

#[test]
fn what_the_kernel_does_not_decide_by_cannot_deny() {
    deny(
        "      match: {file: {watch: [/m], access: [open, read]}}\n",
        &expect![[r#"
        policy file `policy.yaml` has 1 mistake; line 10, column 7: only opening can be denied
          × only opening can be denied
            ╭─[policy.yaml:10:7]
          9 │       message: m
         10 │       match: {file: {watch: [/m], access: [open, read]}}
            ·       ──┬──
            ·         ╰── cannot be denied
            ╰────
          help: write `access: [open]`; who cannot open cannot read

    "#]],
    );
    deny(
        "      match: {file: {watch: [/m], path: '/**/*.pt'}}\n      except: [{comm: vllm}]\n",
        &expect![[r#"
        policy file `policy.yaml` has 2 mistakes; line 10, column 7: the kernel denies by directory: `path`, `artefact`, `atLeast` and `whileServed` are known too late
          × the kernel denies by directory: `path`, `artefact`, `atLeast` and `whileServed` are known too late
            ╭─[policy.yaml:10:7]
          9 │       message: m
         10 │       match: {file: {watch: [/m], path: '/**/*.pt'}}
            ·       ──┬──
            ·         ╰── cannot be denied
         11 │       except: [{comm: vllm}]
            ╰────
          help: take them out, or write `alert`

          × `comm` is nothing that the kernel decides by, so a rule that denies cannot rest on it
            ╭─[policy.yaml:10:7]
          9 │       message: m
         10 │       match: {file: {watch: [/m], path: '/**/*.pt'}}
            ·       ──┬──
            ·         ╰── cannot be denied
         11 │       except: [{comm: vllm}]
            ╰────
          help: name the executable, the unit, the cgroup, the pod or the user

    "#]],
    );
    deny(
        "      match: {exec: {path: /tmp/**}}\n",
        &expect![[r#"
        policy file `policy.yaml` has 1 mistake; line 10, column 7: only `file` and `connect` can be denied
          × only `file` and `connect` can be denied
            ╭─[policy.yaml:10:7]
          9 │       message: m
         10 │       match: {exec: {path: /tmp/**}}
            ·       ──┬──
            ·         ╰── cannot be denied
            ╰────
          help: write `alert`, or `kill`

    "#]],
    );
    deny(
        "      match: {connect: {notTo: [10.0.0.0/8], afterReading: [/m]}}\n",
        &expect![[r#"
        policy file `policy.yaml` has 1 mistake; line 10, column 7: `afterReading` is known too late to deny
          × `afterReading` is known too late to deny
            ╭─[policy.yaml:10:7]
          9 │       message: m
         10 │       match: {connect: {notTo: [10.0.0.0/8], afterReading: [/m]}}
            ·       ──┬──
            ·         ╰── cannot be denied
            ╰────
          help: write `kill` or `alert`

    "#]],
    );
}

#[test]
fn killing_needs_to_say_whom() {
    check(
        &effect("kill", "      match: {file: {watch: [/m]}}\n"),
        &expect![[r#"
        policy file `policy.yaml` has 1 mistake; line 8, column 7: `kill` without a subject could kill anybody
          × `kill` without a subject could kill anybody
           ╭─[policy.yaml:8:7]
         7 │       severity: high
         8 │       effect: kill
           ·       ───┬──
           ·          ╰── whom?
         9 │       message: m
           ╰────
          help: name under `subject` whom it may kill, in the rule or in `spec`

    "#]],
    );
    check(
        &effect("kill", "      match: {finding: {kind: gpu.lost}}\n"),
        &expect![[r#"
        policy file `policy.yaml` has 2 mistakes; line 8, column 7: a finding has no process that could be killed
          × a finding has no process that could be killed
           ╭─[policy.yaml:8:7]
         7 │       severity: high
         8 │       effect: kill
           ·       ───┬──
           ·          ╰── here
         9 │       message: m
           ╰────
          help: write `alert`

          × `kill` without a subject could kill anybody
           ╭─[policy.yaml:8:7]
         7 │       severity: high
         8 │       effect: kill
           ·       ───┬──
           ·          ╰── whom?
         9 │       message: m
           ╰────
          help: name under `subject` whom it may kill, in the rule or in `spec`

    "#]],
    );
    check(
        &effect("kill", "      subject: {cgroup: /kubepods.slice/**}\n      match: {file: {watch: [/m]}}\n"),
        &expect!["ok: p"],
    );
}

#[test]
fn rules_that_match_the_same_with_other_effects_contradict() {
    let rule = |name: &str, effect: &str| {
        format!(
            "    - name: {name}\n      severity: high\n      effect: {effect}\n      message: m\n      match: {{file: {{watch: [/m]}}}}\n"
        )
    };
    let head = "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {name: p}\nspec:\n  rules:\n";
    check(
        &format!("{head}{}{}", rule("a", "deny"), rule("b", "audit")),
        &expect![[r#"
        policy file `policy.yaml` has 1 mistake; line 11, column 13: rules `a` and `b` match the same events, and `audit` contradicts `deny`
          × rules `a` and `b` match the same events, and `audit` contradicts `deny`
            ╭─[policy.yaml:11:13]
          5 │   rules:
          6 │     - name: a
            ·             ┬
            ·             ╰── the first
          7 │       severity: high
          8 │       effect: deny
          9 │       message: m
         10 │       match: {file: {watch: [/m]}}
         11 │     - name: b
            ·             ┬
            ·             ╰── the second
         12 │       severity: high
            ╰────
          help: keep one of them, or make their `match`, `subject` or `except` differ

    "#]],
    );
}

#[test]
fn rules_that_can_never_match_are_refused() {
    check(
        &effect("alert", "      match: {connect: {notTo: [0.0.0.0/0, '::/0']}}\n"),
        &expect![[r#"
        policy file `policy.yaml` has 1 mistake; line 10, column 25: the rule can never match: every address lies in `notTo`
          × the rule can never match: every address lies in `notTo`
            ╭─[policy.yaml:10:25]
          9 │       message: m
         10 │       match: {connect: {notTo: [0.0.0.0/0, '::/0']}}
            ·                         ──┬──
            ·                           ╰── here
            ╰────
          help: leave out `0.0.0.0/0` and `::/0`

    "#]],
    );
    check(
        &effect("alert", "      match: {connect: {to: [10.1.0.0/16], notTo: [10.0.0.0/8]}}\n"),
        &expect![[r#"
        policy file `policy.yaml` has 1 mistake; line 10, column 44: the rule can never match: `notTo` takes out all that is in `to`
          × the rule can never match: `notTo` takes out all that is in `to`
            ╭─[policy.yaml:10:44]
          9 │       message: m
         10 │       match: {connect: {to: [10.1.0.0/16], notTo: [10.0.0.0/8]}}
            ·                         ─┬                 ──┬──
            ·                          │                   ╰── takes out all
            ·                          ╰── of this
            ╰────
          help: take one of them out

    "#]],
    );
    check(
        &effect(
            "alert",
            "      subject: {exe: /bin/a}\n      match: {file: {watch: [/m]}}\n      except: [{exe: /bin/*}]\n",
        ),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 12, column 17: rule `r` can never match: this excuses everybody
              × rule `r` can never match: this excuses everybody
                ╭─[policy.yaml:12:17]
             11 │       match: {file: {watch: [/m]}}
             12 │       except: [{exe: /bin/*}]
                ·                 ─┬─
                ·                  ╰── covers all that the rule watches
                ╰────
              help: name whom you mean besides, or narrow it

        "#]],
    );
}

#[test]
fn rules_that_match_everything_are_refused() {
    check(
        &effect("alert", "      match: {connect: {protocol: tcp}}\n"),
        &expect![[r#"
        policy file `policy.yaml` has 1 mistake; line 10, column 25: `connect` would match every event of its kind
          × `connect` would match every event of its kind
            ╭─[policy.yaml:10:25]
          9 │       message: m
         10 │       match: {connect: {protocol: tcp}}
            ·                         ────┬───
            ·                             ╰── here
            ╰────
          help: write `notTo: […]` with what is allowed, or `to: […]`

    "#]],
    );
    check(
        &effect("alert", "      match: {exec: {}}\n"),
        &expect![[r#"
        policy file `policy.yaml` has 1 mistake; line 10, column 21: `exec` would match every event of its kind
          × `exec` would match every event of its kind
            ╭─[policy.yaml:10:21]
          9 │       message: m
         10 │       match: {exec: {}}
            ·                     ┬
            ·                     ╰── here
            ╰────
          help: name a `path`, or what was read before with `afterReading`

    "#]],
    );
    check(
        &effect("alert", "      match: {finding: {kind: '*'}}\n"),
        &expect![[r#"
        policy file `policy.yaml` has 1 mistake; line 10, column 31: `*` matches everything
          × `*` matches everything
            ╭─[policy.yaml:10:31]
          9 │       message: m
         10 │       match: {finding: {kind: '*'}}
            ·                               ─┬─
            ·                                ╰── here
            ╰────
          help: name what you mean

    "#]],
    );
    check(
        &effect("alert", "      subject: {}\n      match: {file: {watch: [/m]}}\n"),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 10, column 16: a subject without a field would be everybody
              × a subject without a field would be everybody
                ╭─[policy.yaml:10:16]
              9 │       message: m
             10 │       subject: {}
                ·                ┬
                ·                ╰── here
             11 │       match: {file: {watch: [/m]}}
                ╰────
              help: name whom you mean by `exe`, `exeSha256`, `comm`, `uid`, `user`, `container`, `contained`, `image`,
                    `namespace`, `pod`, `podLabels`, `cgroup`, `unit` or `descendantsOf`

        "#]],
    );
}

#[test]
fn words_of_other_kinds_are_told() {
    check(
        &effect("alert", "      match: {finding: {kind: gpu.losst}}\n"),
        &expect![[r#"
        policy file `policy.yaml` has 1 mistake; line 10, column 31: there is no finding of kind `gpu.losst`
          × there is no finding of kind `gpu.losst`
            ╭─[policy.yaml:10:31]
          9 │       message: m
         10 │       match: {finding: {kind: gpu.losst}}
            ·                               ────┬────
            ·                                   ╰── here
            ╰────
          help: write `gpu.lost`

    "#]],
    );
    check(
        &effect("alert", "      match: {finding: {kind: gpu.lost}}\n      except: [{exe: /bin/a}]\n"),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 11, column 17: nothing of a process can excuse a finding, which no process made
              × nothing of a process can excuse a finding, which no process made
                ╭─[policy.yaml:11:17]
             10 │       match: {finding: {kind: gpu.lost}}
             11 │       except: [{exe: /bin/a}]
                ·                 ─┬─
                ·                  ╰── here
                ╰────
              help: narrow `kind`, `atLeast` or `entity` instead

        "#]],
    );
    check(
        &effect("alert", "      match: {socket: {family: AF_PACKETS}}\n"),
        &expect![[r#"
        policy file `policy.yaml` has 1 mistake; line 10, column 32: `AF_PACKETS` is not a family of sockets
          × `AF_PACKETS` is not a family of sockets
            ╭─[policy.yaml:10:32]
          9 │       message: m
         10 │       match: {socket: {family: AF_PACKETS}}
            ·                                ─────┬────
            ·                                     ╰── here
            ╰────
          help: write `AF_PACKET`

    "#]],
    );
    check(
        &effect("alert", "      match: {connect: {from: [{matchName: a.b}]}}\n"),
        &expect![[r#"
        policy file `policy.yaml` has 1 mistake; line 10, column 25: the node's own addresses have no names here
          × the node's own addresses have no names here
            ╭─[policy.yaml:10:25]
          9 │       message: m
         10 │       match: {connect: {from: [{matchName: a.b}]}}
            ·                         ──┬─
            ·                           ╰── here
            ╰────
          help: write networks

    "#]],
    );
    check(
        &effect(
            "alert",
            "      match: {file: {watch: [/m], atLeast: {percent: 101}}}\n      throttle: {every: 5, by: address}\n",
        ),
        &expect![[r#"
            policy file `policy.yaml` has 2 mistakes; line 10, column 54: 101 is not a number of hundredths
              × 101 is not a number of hundredths
                ╭─[policy.yaml:10:54]
              9 │       message: m
             10 │       match: {file: {watch: [/m], atLeast: {percent: 101}}}
                ·                                                      ─┬─
                ·                                                       ╰── here
             11 │       throttle: {every: 5, by: address}
                ╰────
              help: write 1 to 100

              × `5` is not a time
                ╭─[policy.yaml:11:25]
             10 │       match: {file: {watch: [/m], atLeast: {percent: 101}}}
             11 │       throttle: {every: 5, by: address}
                ·                         ┬
                ·                         ╰── here
                ╰────
              help: write a number and `s`, `m` or `h`, from `1s` to `24h`, as in `5m`

        "#]],
    );
    check(
        &effect("alert", "      subject: {podLabels: vllm, exeSha256: abc}\n      match: {file: {watch: [/m]}}\n"),
        &expect![[r#"
            policy file `policy.yaml` has 2 mistakes; line 10, column 28: `podLabels` is a mapping of labels, not text
              × `podLabels` is a mapping of labels, not text
                ╭─[policy.yaml:10:28]
              9 │       message: m
             10 │       subject: {podLabels: vllm, exeSha256: abc}
                ·                            ──┬─
                ·                              ╰── here
             11 │       match: {file: {watch: [/m]}}
                ╰────
              help: write `podLabels: {app: vllm}`

              × `abc` is not a SHA-256
                ╭─[policy.yaml:10:45]
              9 │       message: m
             10 │       subject: {podLabels: vllm, exeSha256: abc}
                ·                                             ─┬─
                ·                                              ╰── here
             11 │       match: {file: {watch: [/m]}}
                ╰────
              help: write the 64 digits that `sha256sum` prints

        "#]],
    );
}
