//! What could stop the node, what can never be, and what is right although it looks alike.

use expect_test::expect;
use plumbline_policy::PolicySet;

use crate::check;

/// A policy with one rule of this effect, which gives `match` and what follows.
fn rule(effect: &str, rest: &str) -> String {
    format!(
        "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {{name: p}}\nspec:\n  rules:\n    - name: r\n      severity: high\n      effect: {effect}\n      message: m\n{rest}"
    )
}

#[test]
fn nobody_in_particular_is_not_killed() {
    check(
        &rule("kill", "      subject: {uid: 0}\n      match: {file: {watch: [/m]}}\n"),
        &expect![[r#"
        policy file `policy.yaml` has 1 mistake; line 8, column 7: `kill` with a subject of nobody in particular could kill what the node needs
          × `kill` with a subject of nobody in particular could kill what the node needs
           ╭─[policy.yaml:8:7]
         7 │       severity: high
         8 │       effect: kill
           ·       ───┬──
           ·          ╰── here
         9 │       message: m
           ╰────
          help: name a cgroup, unit, container, image, namespace, pod or label, or an executable without wildcards

    "#]],
    );
    check(
        &rule("kill", "      subject: [{exe: /tmp/a}, {exe: '/**/?*'}]\n      match: {file: {watch: [/m]}}\n"),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 8, column 7: `kill` with a subject of nobody in particular could kill what the node needs
              × `kill` with a subject of nobody in particular could kill what the node needs
               ╭─[policy.yaml:8:7]
             7 │       severity: high
             8 │       effect: kill
               ·       ───┬──
               ·          ╰── here
             9 │       message: m
               ╰────
              help: name a cgroup, unit, container, image, namespace, pod or label, or an executable without wildcards

        "#]],
    );
    check(
        &rule("kill", "      subject: {exe: /tmp/a, uid: 7}\n      match: {file: {watch: [/m]}}\n"),
        &expect!["ok: p"],
    );
}

#[test]
fn the_node_is_not_cut_off() {
    check(
        &rule("deny", "      match: {connect: {to: [0.0.0.0/0, '::/0']}}\n"),
        &expect![[r#"
        policy file `policy.yaml` has 1 mistake; line 10, column 7: denying every connection of everybody would cut the node off
          × denying every connection of everybody would cut the node off
            ╭─[policy.yaml:10:7]
          9 │       message: m
         10 │       match: {connect: {to: [0.0.0.0/0, '::/0']}}
            ·       ──┬──
            ·         ╰── cannot be denied
            ╰────
          help: write `notTo` with the node's own networks, or name a `subject`

    "#]],
    );
    check(
        &rule("deny", "      subject: {namespace: batch}\n      match: {connect: {to: [0.0.0.0/0, '::/0']}}\n"),
        &expect!["ok: p"],
    );
    // Every address of one family, or in halves; every port, or in parts.
    for refused in [
        "to: ['::/0']",
        "to: [0.0.0.0/1, 128.0.0.0/1]",
        "to: [0.0.0.0/0], port: 1-65535",
        "port: [1-1000, 1001-65535]",
        "port: 1-65535, protocol: tcp",
    ] {
        let text = rule("deny", &format!("      match: {{connect: {{{refused}}}}}\n"));
        let mistake = &PolicySet::from_documents([("p.yaml", text.as_str())]).expect_err(refused)[0];
        assert!(mistake.to_string().contains("would cut the node off"), "{refused}: {mistake}");
    }
    for meant in ["to: [0.0.0.0/1]", "port: 23", "notTo: [10.0.0.0/8]", "to: [0.0.0.0/0], port: [25, 6667]"] {
        let text = rule("deny", &format!("      match: {{connect: {{{meant}}}}}\n"));
        assert!(PolicySet::from_documents([("p.yaml", text.as_str())]).is_ok(), "{meant}");
    }
}

#[test]
fn figures_are_of_reads_and_service_is_of_changes() {
    check(
        &rule("alert", "      match: {file: {watch: [/m], atLeast: {percent: 50}, whileServed: true}}\n"),
        &expect![[r#"
            policy file `policy.yaml` has 2 mistakes; line 10, column 35: the rule can never match: how much was taken is told of what is read, and `access` is not
              × the rule can never match: how much was taken is told of what is read, and `access` is not
                ╭─[policy.yaml:10:35]
              9 │       message: m
             10 │       match: {file: {watch: [/m], atLeast: {percent: 50}, whileServed: true}}
                ·                                   ───┬───
                ·                                      ╰── here
                ╰────
              help: write `access: [read]`

              × the rule can never match: `whileServed` is told of what is changed, and `access` is not
                ╭─[policy.yaml:10:59]
              9 │       message: m
             10 │       match: {file: {watch: [/m], atLeast: {percent: 50}, whileServed: true}}
                ·                                                           ─────┬─────
                ·                                                                ╰── here
                ╰────
              help: write `access: [change]`

        "#]],
    );
    check(
        &rule("alert", "      match: {connect: {from: [10.0.0.0/8], protocol: udp}}\n"),
        &expect![[r#"
        policy file `policy.yaml` has 1 mistake; line 10, column 25: the rule can never match: where datagrams come from is not known
          × the rule can never match: where datagrams come from is not known
            ╭─[policy.yaml:10:25]
          9 │       message: m
         10 │       match: {connect: {from: [10.0.0.0/8], protocol: udp}}
            ·                         ──┬─
            ·                           ╰── here
            ╰────
          help: take it out, or write `protocol: tcp`

    "#]],
    );
}

#[test]
fn a_class_stays_within_a_component() {
    check(
        &rule(
            "alert",
            "      match: {file: {watch: [/m]}}\n      except: [{exe: '/opt/app[!0-9]*'}, {exe: '/opt/a[+-9]'}]\n",
        ),
        &expect![[r#"
            policy file `policy.yaml` has 2 mistakes; line 11, column 22: the class `[!0-9]` stands for `/` as well, which parts components
              × the class `[!0-9]` stands for `/` as well, which parts components
                ╭─[policy.yaml:11:22]
             10 │       match: {file: {watch: [/m]}}
             11 │       except: [{exe: '/opt/app[!0-9]*'}, {exe: '/opt/a[+-9]'}]
                ·                      ────────┬────────
                ·                              ╰── here
                ╰────
              help: write the characters that are meant, as in `[a-z]`

              × the class `[+-9]` stands for `/` as well, which parts components
                ╭─[policy.yaml:11:48]
             10 │       match: {file: {watch: [/m]}}
             11 │       except: [{exe: '/opt/app[!0-9]*'}, {exe: '/opt/a[+-9]'}]
                ·                                                ──────┬──────
                ·                                                      ╰── here
                ╰────
              help: write the characters that are meant, as in `[a-z]`

        "#]],
    );
    check(
        &rule(
            "alert",
            "      match: {file: {watch: [/m]}}\n      except: [{exe: '/opt/app[0-9]*'}, {exe: '/opt/\\[!x'}]\n",
        ),
        &expect!["ok: p"],
    );
}

#[test]
fn what_looks_like_everybody_and_is_not_is_taken() {
    // Fewer pods than the subject's; files that are reached by another name; recorded all, told some.
    check(
        &rule(
            "alert",
            "      subject: {podLabels: {app: vllm}}\n      match: {file: {watch: [/m]}}\n      except: [{podLabels: {app: vllm, tier: canary}}]\n",
        ),
        &expect!["ok: p"],
    );
    check(&rule("alert", "      match: {file: {watch: [/m]}}\n      except: [{path: '/m/**'}]\n"), &expect!["ok: p"]);
    let twin = "    - {name: s, severity: low, effect: audit, message: m, match: {file: {watch: [/m]}}}\n";
    check(&rule("alert", &format!("      match: {{file: {{watch: [/m]}}}}\n{twin}")), &expect!["ok: p"]);
}

#[test]
fn ports_are_numbers_and_ranges() {
    check(
        &rule(
            "alert",
            "      match: {connect: {notTo: [10.0.0.0/8], port: [443, 8000-8010]}}\n      except: [{port: 9-1}, {port: 1:2}]\n",
        ),
        &expect![[r#"
            policy file `policy.yaml` has 2 mistakes; line 11, column 23: `9-1` is not a range of ports
              × `9-1` is not a range of ports
                ╭─[policy.yaml:11:23]
             10 │       match: {connect: {notTo: [10.0.0.0/8], port: [443, 8000-8010]}}
             11 │       except: [{port: 9-1}, {port: 1:2}]
                ·                       ─┬─
                ·                        ╰── here
                ╰────
              help: write a number, or a range such as `8000-8010`

              × `1:2` is not a range of ports
                ╭─[policy.yaml:11:36]
             10 │       match: {connect: {notTo: [10.0.0.0/8], port: [443, 8000-8010]}}
             11 │       except: [{port: 9-1}, {port: 1:2}]
                ·                                    ─┬─
                ·                                     ╰── here
                ╰────
              help: write a number, or a range such as `8000-8010`

        "#]],
    );
}
