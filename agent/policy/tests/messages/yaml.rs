//! Mistakes of YAML itself, hostile input included.

use expect_test::expect;

use crate::{check, with_rule};

#[test]
fn a_duplicate_key_shows_both_places() {
    check(
        &with_rule("      match: {file: {watch: [/models]}}\n      severity: low\n"),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 11, column 7: `severity` stands twice in a rule
              × `severity` stands twice in a rule
                ╭─[policy.yaml:11:7]
              6 │     - name: r
              7 │       severity: high
                ·       ────┬───
                ·           ╰── first
              8 │       effect: alert
              9 │       message: m
             10 │       match: {file: {watch: [/models]}}
             11 │       severity: low
                ·       ────┬───
                ·           ╰── again
                ╰────
              help: keep one of them; to give several values write a list

        "#]],
    );
}

#[test]
fn tabs_are_named() {
    check(
        &with_rule("\t  match: {file: {watch: [/models]}}\n"),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 10, column 1: a tab indents this line; YAML forbids it
              × a tab indents this line; YAML forbids it
                ╭─[policy.yaml:10:1]
              9 │       message: m
             10 │       match: {file: {watch: [/models]}}
                · ──┬─
                ·   ╰── tab
                ╰────
              help: indent with spaces

        "#]],
    );
}

#[test]
fn wrong_types_say_what_was_expected() {
    check(
        "apiVersion: plumbline/v1\nkind: Policy\nmetadata: p\nspec: {rules: {name: r}}\n",
        &expect![[r#"
            policy file `policy.yaml` has 2 mistakes; line 3, column 11: `metadata` is a mapping of `name` or `description`, not text
              × `metadata` is a mapping of `name` or `description`, not text
               ╭─[policy.yaml:3:11]
             2 │ kind: Policy
             3 │ metadata: p
               ·           ┬
               ·           ╰── here
             4 │ spec: {rules: {name: r}}
               ╰────

              × `rules` is a list, not a mapping
               ╭─[policy.yaml:4:15]
             3 │ metadata: p
             4 │ spec: {rules: {name: r}}
               ·               ┬
               ·               ╰── here
               ╰────
              help: begin each entry with `- `

        "#]],
    );
}

#[test]
fn another_version_of_the_language_is_refused() {
    check(
        &with_rule("      match: {file: {watch: [/m]}}\n").replace("plumbline/v1", "cilium.io/v1alpha1"),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 1, column 13: `cilium.io/v1alpha1` is not the version of the policy language that is read here
              × `cilium.io/v1alpha1` is not the version of the policy language that is read here
               ╭─[policy.yaml:1:13]
             1 │ apiVersion: cilium.io/v1alpha1
               ·             ─────────┬────────
               ·                      ╰── unknown
             2 │ kind: Policy
               ╰────
              help: write `plumbline/v1`

        "#]],
    );
}

#[test]
fn broken_yaml_shows_the_place() {
    check(
        "apiVersion: plumbline/v1\nspec: [\n",
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 2, column 7: this is not valid YAML: unclosed bracket '['
              × this is not valid YAML: unclosed bracket '['
               ╭─[policy.yaml:2:7]
             1 │ apiVersion: plumbline/v1
             2 │ spec: [
               ·       ▲
               ·       ╰── here
               ╰────

        "#]],
    );
    check(
        "apiVersion: 'plumbline/v1\n",
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 1, column 13: this is not valid YAML: unclosed quote
              × this is not valid YAML: unclosed quote
               ╭─[policy.yaml:1:13]
             1 │ apiVersion: 'plumbline/v1
               ·             ▲
               ·             ╰── here
               ╰────

        "#]],
    );
    check(
        "",
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 1, column 1: the file is empty
              × the file is empty
               ╭─[policy.yaml:1:1]
               ╰────
              help: see docs/policies.md for a first policy

        "#]],
    );
}

#[test]
fn a_second_document_is_refused() {
    check(
        "kind: Policy\n---\nkind: Policy\n",
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 3, column 1: a second document begins here; a file holds one
              × a second document begins here; a file holds one
               ╭─[policy.yaml:3:1]
             2 │ ---
             3 │ kind: Policy
               · ▲
               · ╰── here
               ╰────
              help: move it to a file of its own

        "#]],
    );
}

#[test]
fn merge_keys_are_refused() {
    check(
        "a: &a {kind: Policy}\nb: {<<: *a}\n",
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 2, column 5: merge keys (`<<`) are not part of the policy language
              × merge keys (`<<`) are not part of the policy language
               ╭─[policy.yaml:2:5]
             1 │ a: &a {kind: Policy}
             2 │ b: {<<: *a}
               ·     ─┬
               ·      ╰── here
               ╰────
              help: write the fields out

        "#]],
    );
}

#[test]
fn control_characters_of_a_hostile_file_do_not_reach_the_terminal() {
    check(
        "kind: \"\\e[31mred\"\nspec: '\u{9b}31m'\n\u{1b}[31m: x\n",
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 2, column 8: this is not valid YAML: unexpected character: `\u{9b}'
              × this is not valid YAML: unexpected character: `\u{9b}'
               ╭─[policy.yaml:2:8]
             1 │ kind: "\e[31mred"
             2 │ spec: '¿31m'
               ·        ▲
               ·        ╰── here
             3 │ ?[31m: x
               ╰────

        "#]],
    );
}

#[test]
fn a_document_that_multiplies_itself_is_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let below = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![below; 10].join(", ")));
    }
    check(
        &bomb,
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 1, column 22: the document is too deep, too large or repeats itself too often through aliases
              × the document is too deep, too large or repeats itself too often through aliases
               ╭─[policy.yaml:1:22]
             1 │ a0: &a0 [x, x, x, x, x, x, x, x, x, x]
               ·                      ┬
               ·                      ╰── here
             2 │ a1: &a1 [*a0, *a0, *a0, *a0, *a0, *a0, *a0, *a0, *a0, *a0]
               ╰────
              help: stay within 16 levels and 100000 values; write aliases out

        "#]],
    );
}

#[test]
fn a_document_without_end_is_refused() {
    check(
        &"[".repeat(100_000),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 1, column 256: this is not valid YAML: recursion limit exceeded
              × this is not valid YAML: recursion limit exceeded
               ╭─[policy.yaml:1:256]
             1 │ [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[…
               ·                                                                                                                                                                                                                                                                ▲
               ·                                                                                                                                                                                                                                                                ╰── here
               ╰────

        "#]],
    );
    check(
        &format!("# {}\n", "x".repeat(1 << 20)),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 1, column 1: the file is 1048579 bytes long; a policy may have 1048576
              × the file is 1048579 bytes long; a policy may have 1048576
               ╭─[policy.yaml:1:1]
             1 │ # xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…
               · ▲
               · ╰── too long
               ╰────
              help: split it into several files

        "#]],
    );
}
