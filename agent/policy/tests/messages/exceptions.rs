//! Mistakes in exceptions and in the values they share with rules.

use expect_test::expect;

use crate::{check, with_rule};

#[test]
fn relative_paths_are_refused() {
    check(
        &with_rule("      match: {file: {watch: [models]}}\n      except: [{exe: vllm}]\n"),
        &expect![[r#"
            policy file `policy.yaml` has 2 mistakes; line 10, column 30: `models` is a relative path
              × `models` is a relative path
                ╭─[policy.yaml:10:30]
              9 │       message: m
             10 │       match: {file: {watch: [models]}}
                ·                              ───┬──
                ·                                 ╰── does not begin with `/`
             11 │       except: [{exe: vllm}]
                ╰────
              help: write the whole path; `~/` stands for every home

              × `vllm` is a relative path
                ╭─[policy.yaml:11:22]
             10 │       match: {file: {watch: [models]}}
             11 │       except: [{exe: vllm}]
                ·                      ──┬─
                ·                        ╰── does not begin with `/`
                ╰────
              help: write the whole path, or `/**/vllm` for any directory

        "#]],
    );
}

#[test]
fn a_home_in_an_exception_is_to_be_written_out() {
    check(
        &with_rule("      match: {file: {watch: [/m]}}\n      except: [{exe: ~/bin/vllm}]\n"),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 11, column 22: `~/bin/vllm` is a relative path
              × `~/bin/vllm` is a relative path
                ╭─[policy.yaml:11:22]
             10 │       match: {file: {watch: [/m]}}
             11 │       except: [{exe: ~/bin/vllm}]
                ·                      ─────┬────
                ·                           ╰── does not begin with `/`
                ╰────
              help: write out the home, as in `/home/*/bin/vllm`

        "#]],
    );
}

#[test]
fn a_number_where_text_belongs_is_to_be_quoted() {
    check(
        &with_rule("      match: {file: {watch: [/m]}}\n      except: [{comm: 7}]\n"),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 11, column 23: the name of a task is text, not a number
              × the name of a task is text, not a number
                ╭─[policy.yaml:11:23]
             10 │       match: {file: {watch: [/m]}}
             11 │       except: [{comm: 7}]
                ·                       ┬
                ·                       ╰── here
                ╰────
              help: put it in quotes

        "#]],
    );
}

#[test]
fn an_exception_that_excuses_everybody_is_refused() {
    check(
        &with_rule("      match: {file: {watch: [/m]}}\n      except: [{}, {exe: /**}]\n"),
        &expect![[r#"
            policy file `policy.yaml` has 2 mistakes; line 11, column 16: an exception without a field would be everybody
              × an exception without a field would be everybody
                ╭─[policy.yaml:11:16]
             10 │       match: {file: {watch: [/m]}}
             11 │       except: [{}, {exe: /**}]
                ·                ┬
                ·                ╰── here
                ╰────
              help: name whom you mean by `exe`, `exeSha256`, `comm`, `uid`, `user`, `container`, `contained`, `image`,
                    `namespace`, `pod`, `podLabels`, `cgroup`, `unit`, `descendantsOf`, `path`, `to` or `port`

              × `/**` matches everything
                ╭─[policy.yaml:11:26]
             10 │       match: {file: {watch: [/m]}}
             11 │       except: [{}, {exe: /**}]
                ·                          ─┬─
                ·                           ╰── here
                ╰────
              help: name what you mean

        "#]],
    );
}

#[test]
fn an_exception_for_the_other_kind_of_object_is_refused() {
    check(
        &with_rule("      match: {file: {watch: [/m]}}\n      except: [{port: 443}]\n"),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 11, column 17: `port` can only excuse in rules that match `connect`
              × `port` can only excuse in rules that match `connect`
                ╭─[policy.yaml:11:17]
             10 │       match: {file: {watch: [/m]}}
             11 │       except: [{port: 443}]
                ·                 ──┬─
                ·                   ╰── here
                ╰────
              help: take it out, or move it to such a rule

        "#]],
    );
}

#[test]
fn numbers_out_of_range_say_the_range() {
    check(
        &with_rule("      match: {connect: {notTo: ['::1']}}\n      except: [{port: 70000}, {uid: -1}, {port: 4.5}]\n"),
        &expect![[r#"
            policy file `policy.yaml` has 3 mistakes; line 11, column 23: 70000 is not a port
              × 70000 is not a port
                ╭─[policy.yaml:11:23]
             10 │       match: {connect: {notTo: ['::1']}}
             11 │       except: [{port: 70000}, {uid: -1}, {port: 4.5}]
                ·                       ──┬──
                ·                         ╰── here
                ╰────
              help: write 0 to 65535

              × -1 is not a user id
                ╭─[policy.yaml:11:37]
             10 │       match: {connect: {notTo: ['::1']}}
             11 │       except: [{port: 70000}, {uid: -1}, {port: 4.5}]
                ·                                     ─┬
                ·                                      ╰── here
                ╰────
              help: write 0 to 4294967295

              × a port is a whole number, not a number with a fraction
                ╭─[policy.yaml:11:49]
             10 │       match: {connect: {notTo: ['::1']}}
             11 │       except: [{port: 70000}, {uid: -1}, {port: 4.5}]
                ·                                                 ─┬─
                ·                                                  ╰── here
                ╰────

        "#]],
    );
}

#[test]
fn names_that_the_kernel_would_have_cut_are_refused() {
    check(
        &with_rule("      match: {file: {watch: [/m]}}\n      except: [{comm: text-generation-server}]\n"),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 11, column 23: `text-generation-server` is longer than a task's name can be
              × `text-generation-server` is longer than a task's name can be
                ╭─[policy.yaml:11:23]
             10 │       match: {file: {watch: [/m]}}
             11 │       except: [{comm: text-generation-server}]
                ·                       ───────────┬──────────
                ·                                  ╰── here
                ╰────
              help: the kernel keeps 15 bytes: write `text-generation`

        "#]],
    );
}

#[test]
fn short_container_prefixes_are_refused() {
    check(
        &with_rule("      match: {file: {watch: [/m]}}\n      except: [{container: abc}]\n"),
        &expect![[r#"
            policy file `policy.yaml` has 1 mistake; line 11, column 28: `abc` is not the prefix of a container id
              × `abc` is not the prefix of a container id
                ╭─[policy.yaml:11:28]
             10 │       match: {file: {watch: [/m]}}
             11 │       except: [{container: abc}]
                ·                            ─┬─
                ·                             ╰── here
                ╰────
              help: write 12 to 64 lower-case hexadecimal digits

        "#]],
    );
}

#[test]
fn broken_globs_are_refused() {
    check(
        &with_rule("      match: {file: {watch: ['/m/[a']}}\n      except: [{exe: '/a**/b'}]\n"),
        &expect![[r#"
            policy file `policy.yaml` has 2 mistakes; line 10, column 30: the glob does not parse: unclosed character class; missing ']'
              × the glob does not parse: unclosed character class; missing ']'
                ╭─[policy.yaml:10:30]
              9 │       message: m
             10 │       match: {file: {watch: ['/m/[a']}}
                ·                              ───┬───
                ·                                 ╰── here
             11 │       except: [{exe: '/a**/b'}]
                ╰────
              help: to mean one of `*?[]{}` itself, put a backslash before it

              × `**` stands beside other characters
                ╭─[policy.yaml:11:22]
             10 │       match: {file: {watch: ['/m/[a']}}
             11 │       except: [{exe: '/a**/b'}]
                ·                      ────┬───
                ·                          ╰── here
                ╰────
              help: `**` must be a whole component, as in `/opt/**/vllm`; within a component write `*`

        "#]],
    );
}
