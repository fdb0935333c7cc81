//! Mistakes in rules, their objects, messages and tests.

use expect_test::expect;

use crate::{check, with_rule};

#[test]
fn a_right_policy_is_accepted() {
    check(&with_rule("      match: {file: {watch: [/models]}}\n"), &expect!["ok: p"]);
}

#[test]
fn unknown_fields_are_named_with_what_was_probably_meant() {
    check(
        &with_rule("      match: {file: {wach: [/models]}}\n"),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 10, column 22: `file` has no field `wach`
              × `file` has no field `wach`
                ╭─[policy.yaml:10:22]
              9 │       message: m
             10 │       match: {file: {wach: [/models]}}
                ·                      ──┬─
                ·                        ╰── did you mean `watch`?
                ╰────
              help: write `watch`

        "#]],
    );
}

#[test]
fn a_field_that_resembles_none_lists_what_may_stand_there() {
    check(
        &with_rule("      match: {file: {watch: [/models]}}\n      escalate: 5\n"),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 11, column 7: a rule has no field `escalate`
              × a rule has no field `escalate`
                ╭─[policy.yaml:11:7]
             10 │       match: {file: {watch: [/models]}}
             11 │       escalate: 5
                ·       ────┬───
                ·           ╰── unknown
                ╰────
              help: write `name`, `severity`, `effect`, `message`, `subject`, `match`, `except` or `throttle`

        "#]],
    );
}

#[test]
fn wrong_words_are_named_with_what_was_probably_meant() {
    let text = with_rule("      match: {file: {watch: [/models]}}\n").replace("high", "hihg");
    check(
        &text,
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 7, column 17: `hihg` is not a severity
              × `hihg` is not a severity
               ╭─[policy.yaml:7:17]
             6 │     - name: r
             7 │       severity: hihg
               ·                 ──┬─
               ·                   ╰── did you mean `high`?
             8 │       effect: alert
               ╰────
              help: write `high`

        "#]],
    );
}

#[test]
fn an_effect_that_does_not_exist_lists_those_that_do() {
    let text = with_rule("      match: {file: {watch: [/models]}}\n").replace("effect: alert", "effect: quarantine");
    check(
        &text,
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 8, column 15: `quarantine` is not an effect
              × `quarantine` is not an effect
               ╭─[policy.yaml:8:15]
             7 │       severity: high
             8 │       effect: quarantine
               ·               ─────┬────
               ·                    ╰── unknown
             9 │       message: m
               ╰────
              help: write `audit`, `alert`, `deny` or `kill`

        "#]],
    );
}

#[test]
fn several_mistakes_are_shown_at_once() {
    let text = with_rule("      match: {connect: {notTo: [10.0.0.1/8, nonsense], protocol: icmp}}\n")
        .replace("severity: high", "severity: 3");
    check(
        &text,
        &expect![[r#"
            policy file `policy.yaml` has 4 mistakes; line 7, column 17: expected `informational`, `low`, `medium`, `high` or `critical`, not a number
              × expected `informational`, `low`, `medium`, `high` or `critical`, not a number
               ╭─[policy.yaml:7:17]
             6 │     - name: r
             7 │       severity: 3
               ·                 ┬
               ·                 ╰── here
             8 │       effect: alert
               ╰────

              × `10.0.0.1/8` is not a network: it has bits set beyond the prefix
                ╭─[policy.yaml:10:33]
              9 │       message: m
             10 │       match: {connect: {notTo: [10.0.0.1/8, nonsense], protocol: icmp}}
                ·                                 ─────┬────
                ·                                      ╰── the network is `10.0.0.0/8`
                ╰────
              help: write `10.0.0.0/8` for the network, `10.0.0.1` for the one address

              × `nonsense` is not a network
                ╭─[policy.yaml:10:45]
              9 │       message: m
             10 │       match: {connect: {notTo: [10.0.0.1/8, nonsense], protocol: icmp}}
                ·                                             ────┬───
                ·                                                 ╰── here
                ╰────
              help: write CIDR notation, as in `10.0.0.0/8` or `fd00::/8`, or one address; for a name write `matchName:
                    …`

              × `icmp` is not a protocol
                ╭─[policy.yaml:10:66]
              9 │       message: m
             10 │       match: {connect: {notTo: [10.0.0.1/8, nonsense], protocol: icmp}}
                ·                                                                  ──┬─
                ·                                                                    ╰── unknown
                ╰────
              help: write `tcp` or `udp`

        "#]],
    );
}

#[test]
fn a_network_with_host_bits_says_which_network_is_meant() {
    check(
        &with_rule("      match: {connect: {notTo: [192.168.1.7/16]}}\n"),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 10, column 33: `192.168.1.7/16` is not a network: it has bits set beyond the prefix
              × `192.168.1.7/16` is not a network: it has bits set beyond the prefix
                ╭─[policy.yaml:10:33]
              9 │       message: m
             10 │       match: {connect: {notTo: [192.168.1.7/16]}}
                ·                                 ───────┬──────
                ·                                        ╰── the network is `192.168.0.0/16`
                ╰────
              help: write `192.168.0.0/16` for the network, `192.168.1.7` for the one address

        "#]],
    );
}

#[test]
fn a_v4_network_in_v6_clothes_says_how_to_write_it() {
    check(
        &with_rule("      match: {connect: {notTo: ['::ffff:10.0.0.0/104']}}\n"),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 10, column 33: `::ffff:10.0.0.0/104` is a v4 network in v6 clothes; it would never match
              × `::ffff:10.0.0.0/104` is a v4 network in v6 clothes; it would never match
                ╭─[policy.yaml:10:33]
              9 │       message: m
             10 │       match: {connect: {notTo: ['::ffff:10.0.0.0/104']}}
                ·                                 ──────────┬──────────
                ·                                           ╰── here
                ╰────
              help: write `10.0.0.0/8`

        "#]],
    );
}

#[test]
fn watching_everything_is_refused() {
    check(
        &with_rule("      match: {file: {watch: [/, /**, /a/../b]}}\n"),
        &expect![[r#"
            policy file `policy.yaml` has 3 mistakes; line 10, column 30: watching `/` would make an event of every file that is opened
              × watching `/` would make an event of every file that is opened
                ╭─[policy.yaml:10:30]
              9 │       message: m
             10 │       match: {file: {watch: [/, /**, /a/../b]}}
                ·                              ┬
                ·                              ╰── here
                ╰────
              help: name the directories that hold what you protect

              × `**` in a watched directory would search the whole tree
                ╭─[policy.yaml:10:33]
              9 │       message: m
             10 │       match: {file: {watch: [/, /**, /a/../b]}}
                ·                                 ─┬─
                ·                                  ╰── here
                ╰────
              help: a watched directory covers all that lies below it; write `*` for one component

              × `/a/../b` is not a normalized path
                ╭─[policy.yaml:10:38]
              9 │       message: m
             10 │       match: {file: {watch: [/, /**, /a/../b]}}
                ·                                      ───┬───
                ·                                         ╰── here
                ╰────
              help: leave out `.`, `..` and double slashes

        "#]],
    );
}

#[test]
fn a_duplicate_rule_name_shows_both_places() {
    let rule = "    - name: r\n      severity: low\n      effect: audit\n      message: m\n      match: {file: {watch: [/m]}}\n";
    check(
        &with_rule(&format!("      match: {{file: {{watch: [/models]}}}}\n{rule}")),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 11, column 13: two rules are called `r`
              × two rules are called `r`
                ╭─[policy.yaml:11:13]
              5 │   rules:
              6 │     - name: r
                ·             ┬
                ·             ╰── first
              7 │       severity: high
              8 │       effect: alert
              9 │       message: m
             10 │       match: {file: {watch: [/models]}}
             11 │     - name: r
                ·             ┬
                ·             ╰── again
             12 │       severity: low
                ╰────
              help: give each rule its own name

        "#]],
    );
}

#[test]
fn an_empty_list_of_rules_is_refused() {
    check(
        "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {name: p}\nspec: {rules: []}\n",
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 4, column 15: `rules` is empty
              × `rules` is empty
               ╭─[policy.yaml:4:15]
             3 │ metadata: {name: p}
             4 │ spec: {rules: []}
               ·               ┬
               ·               ╰── here
               ╰────
              help: give at least one entry

        "#]],
    );
}

#[test]
fn missing_fields_are_named() {
    check(
        "kind: Policy\nspec: {rules: [{name: r}]}\n",
        &expect![[r#"
            policy file `policy.yaml` has 6 mistakes; line 1, column 1: a policy lacks `apiVersion`
              × a policy lacks `apiVersion`
               ╭─[policy.yaml:1:1]
             1 │ kind: Policy
               · ──┬─
               ·   ╰── in this mapping
             2 │ spec: {rules: [{name: r}]}
               ╰────
              help: add `apiVersion:`

              × a policy lacks `metadata`
               ╭─[policy.yaml:1:1]
             1 │ kind: Policy
               · ──┬─
               ·   ╰── in this mapping
             2 │ spec: {rules: [{name: r}]}
               ╰────
              help: add `metadata:`

              × a rule lacks `severity`
               ╭─[policy.yaml:2:17]
             1 │ kind: Policy
             2 │ spec: {rules: [{name: r}]}
               ·                 ──┬─
               ·                   ╰── in this mapping
               ╰────
              help: add `severity:`

              × a rule lacks `effect`
               ╭─[policy.yaml:2:17]
             1 │ kind: Policy
             2 │ spec: {rules: [{name: r}]}
               ·                 ──┬─
               ·                   ╰── in this mapping
               ╰────
              help: add `effect:`

              × a rule lacks `message`
               ╭─[policy.yaml:2:17]
             1 │ kind: Policy
             2 │ spec: {rules: [{name: r}]}
               ·                 ──┬─
               ·                   ╰── in this mapping
               ╰────
              help: add `message:`

              × a rule lacks `match`
               ╭─[policy.yaml:2:17]
             1 │ kind: Policy
             2 │ spec: {rules: [{name: r}]}
               ·                 ──┬─
               ·                   ╰── in this mapping
               ╰────
              help: add `match:`

        "#]],
    );
}

#[test]
fn a_match_without_an_object_and_one_with_two_are_refused() {
    check(
        &with_rule("      match: {}\n"),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 10, column 14: `match` names nothing
              × `match` names nothing
                ╭─[policy.yaml:10:14]
              9 │       message: m
             10 │       match: {}
                ·              ┬
                ·              ╰── here
                ╰────
              help: write `file`, `connect`, `exec`, `device`, `memory`, `bpf`, `local`, `socket` or `finding`

        "#]],
    );
    check(
        &with_rule("      match: {file: {watch: [/m]}, connect: {notTo: ['::1']}}\n"),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 10, column 36: `match` names more than one kind of object
              × `match` names more than one kind of object
                ╭─[policy.yaml:10:36]
              9 │       message: m
             10 │       match: {file: {watch: [/m]}, connect: {notTo: ['::1']}}
                ·                                    ───┬───
                ·                                       ╰── the second
                ╰────
              help: write a rule for each; give them the same exceptions

        "#]],
    );
}

#[test]
fn what_was_read_can_only_be_told_by_a_rule_that_asks_for_it() {
    let text = with_rule("      match: {connect: {notTo: [10.0.0.0/8]}}\n");
    check(
        &text.replace("message: m", "message: 'a {read}'"),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 9, column 16: the message has an unknown placeholder `{read}`
              × the message has an unknown placeholder `{read}`
                ╭─[policy.yaml:9:16]
              8 │       effect: alert
              9 │       message: 'a {read}'
                ·                ─────┬────
                ·                     ╰── here
             10 │       match: {connect: {notTo: [10.0.0.0/8]}}
                ╰────
              help: in braces write `pid`, `uid`, `user`, `comm`, `exe`, `cgroup`, `container`, `image`, `pod`,
                    `address`, `port`, `protocol` or `names`

        "#]],
    );
    check(
        &with_rule("      match: {connect: {notTo: [10.0.0.0/8], afterReading: /m}}\n"),
        &expect![[r#"
        policy file `policy.yaml` has 1 mistake; line 10, column 60: `afterReading` is a list, not text
          × `afterReading` is a list, not text
            ╭─[policy.yaml:10:60]
          9 │       message: m
         10 │       match: {connect: {notTo: [10.0.0.0/8], afterReading: /m}}
            ·                                                            ─┬
            ·                                                             ╰── here
            ╰────
          help: begin each entry with `- `

    "#]],
    );
}

#[test]
fn unknown_placeholders_are_named_with_what_was_probably_meant() {
    let text = with_rule("      match: {file: {watch: [/m]}}\n");
    check(
        &text.replace("message: m", "message: 'a {pth}'"),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 9, column 16: the message has an unknown placeholder `{pth}`
              × the message has an unknown placeholder `{pth}`
                ╭─[policy.yaml:9:16]
              8 │       effect: alert
              9 │       message: 'a {pth}'
                ·                ────┬────
                ·                    ╰── here
             10 │       match: {file: {watch: [/m]}}
                ╰────
              help: write `{path}`

        "#]],
    );
    check(
        &text.replace("message: m", "message: 'a {port}'"),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 9, column 16: the message has an unknown placeholder `{port}`
              × the message has an unknown placeholder `{port}`
                ╭─[policy.yaml:9:16]
              8 │       effect: alert
              9 │       message: 'a {port}'
                ·                ─────┬────
                ·                     ╰── here
             10 │       match: {file: {watch: [/m]}}
                ╰────
              help: in braces write `pid`, `uid`, `user`, `comm`, `exe`, `cgroup`, `container`, `image`, `pod`, `path`,
                    `access` or `percent`

        "#]],
    );
    check(
        &text.replace("message: m", "message: 'a {path'"),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 9, column 16: the message has a `{` without its partner
              × the message has a `{` without its partner
                ╭─[policy.yaml:9:16]
              8 │       effect: alert
              9 │       message: 'a {path'
                ·                ────┬────
                ·                    ╰── here
             10 │       match: {file: {watch: [/m]}}
                ╰────
              help: write `{{` or `}}` for a brace that is meant as text

        "#]],
    );
}

#[test]
fn a_test_of_a_rule_that_does_not_exist_is_refused() {
    let test = "tests: [{name: t, rule: s, expect: alrt, event: {file: {path: /m/x}}}]\n";
    check(
        &with_rule(&format!("      match: {{file: {{watch: [/m]}}}}\n{test}")),
        &expect![[r#"
            policy file `policy.yaml` has 2 mistakes; line 11, column 19: this policy has no rule `s`
              × this policy has no rule `s`
                ╭─[policy.yaml:11:19]
             10 │       match: {file: {watch: [/m]}}
             11 │ tests: [{name: t, rule: s, expect: alrt, event: {file: {path: /m/x}}}]
                ·                   ──┬─
                ·                     ╰── here
                ╰────
              help: write `r`

              × `alrt` is not an expectation
                ╭─[policy.yaml:11:36]
             10 │       match: {file: {watch: [/m]}}
             11 │ tests: [{name: t, rule: s, expect: alrt, event: {file: {path: /m/x}}}]
                ·                                    ──┬─
                ·                                      ╰── did you mean `alert`?
                ╰────
              help: write `alert`

        "#]],
    );
}
