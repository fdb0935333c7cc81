//! Mistakes with lists.

use expect_test::expect;

use crate::check;

fn policy(lists: &str, rule: &str) -> String {
    format!(
        "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {{name: p}}\nspec:\n{lists}  rules:\n    - name: r\n      severity: high\n      effect: alert\n      message: 'costs $dirs'\n{rule}"
    )
}

#[test]
fn a_list_stands_for_its_entries() {
    check(
        &policy(
            "  lists: {dirs: [/m, /n], more: [$dirs, /o], uids: [1, 2]}\n",
            "      match: {file: {watch: $more, access: [open]}}\n      except: [{uid: $uids}]\n",
        ),
        &expect!["ok: p"],
    );
}

#[test]
fn a_mistake_in_a_list_is_shown_where_it_stands() {
    check(
        &policy("  lists: {dirs: [/m, n]}\n", "      match: {file: {watch: $dirs}}\n"),
        &expect![[r#"
        policy file `policy.yaml` has 1 mistake; line 5, column 22: `n` is a relative path
          × `n` is a relative path
           ╭─[policy.yaml:5:22]
         4 │ spec:
         5 │   lists: {dirs: [/m, n]}
           ·                      ┬
           ·                      ╰── does not begin with `/`
         6 │   rules:
           ╰────
          help: write the whole path; `~/` stands for every home

    "#]],
    );
}

#[test]
fn a_list_that_is_not_there_is_told() {
    check(
        &policy("  lists: {dirs: [/m]}\n", "      match: {file: {watch: $dir}}\n"),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 11, column 29: there is no list `dir`
              × there is no list `dir`
                ╭─[policy.yaml:11:29]
             10 │       message: 'costs $dirs'
             11 │       match: {file: {watch: $dir}}
                ·                             ──┬─
                ·                               ╰── here
                ╰────
              help: write `$dirs`

        "#]],
    );
    check(
        &policy("", "      match: {file: {watch: [$dirs]}}\n"),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 10, column 30: there is no list `dirs`
              × there is no list `dirs`
                ╭─[policy.yaml:10:30]
              9 │       message: 'costs $dirs'
             10 │       match: {file: {watch: [$dirs]}}
                ·                              ──┬──
                ·                                ╰── here
                ╰────
              help: define it under `spec.lists`, or include the document of lists that has it

        "#]],
    );
    check(
        &policy("  include: [node]\n  lists: {a: [$b], b: [/m]}\n", "      match: {file: {watch: [/m]}}\n"),
        &expect![[r#"
            policy file `policy.yaml` has 2 mistakes; line 5, column 13: no document of lists is called `node`
              × no document of lists is called `node`
               ╭─[policy.yaml:5:13]
             4 │ spec:
             5 │   include: [node]
               ·             ──┬─
               ·               ╰── here
             6 │   lists: {a: [$b], b: [/m]}
               ╰────
              help: put a file of `kind: Lists` into the same directory

              × there is no list `b`
               ╭─[policy.yaml:6:15]
             5 │   include: [node]
             6 │   lists: {a: [$b], b: [/m]}
               ·               ─┬
               ·                ╰── here
             7 │   rules:
               ╰────
              help: define it under `spec.lists`, or include the document of lists that has it

        "#]],
    );
}

#[test]
fn a_list_of_lists_that_grows_without_end_is_refused() {
    let mut lists = String::from("  lists:\n    a: [/a1, /a2, /a3, /a4, /a5, /a6, /a7, /a8]\n");
    for (name, before) in ('b'..='g').zip('a'..) {
        let twice = vec![format!("${before}"); 8].join(", ");
        lists += &format!("    {name}: [{twice}]\n");
    }
    let text = policy(&lists, "      match: {file: {watch: $g}}\n");
    let said = plumbline_policy::Policy::parse("p.yaml", &text).unwrap_err();
    assert!(
        said.problems().iter().any(|problem| problem.to_string().contains("larger than 100000 values")),
        "{said:?}"
    );
}

#[test]
fn a_list_stands_wherever_values_may_stand() {
    // A label may be called as a field of prose is, and a list may hold mappings that name lists.
    check(
        &policy(
            "  lists: {apps: [vllm, sglang], ada: [ada], who: [{user: $ada, podLabels: {name: $apps}}]}\n",
            "      subject: $who\n      match: {local: {name: [/run/a]}}\n",
        ),
        &expect!["ok: p"],
    );
    let text = policy(
        "  lists: {apps: [vllm, sglang]}\n",
        "      subject: {podLabels: {name: $apps}}\n      match: {socket: {family: AF_PACKET}}\ntests:\n  - {name: t, event: {socket: {family: AF_PACKET}, process: {podLabels: {name: vllm}}}, expect: alert}\n",
    );
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("p.yaml"), text).unwrap();
    let report = plumbline_policy::check(directory.path(), None).unwrap();
    assert!(report.is_ok(), "{report}");
}
