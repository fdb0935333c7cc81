//! Names of hosts among destinations.

use expect_test::expect;

use super::{check, with_rule};

#[test]
fn what_is_no_name_of_a_host_is_explained() {
    check(
        &with_rule(
            "      match: {connect: {notTo: [{matchName: \"https://hf.co/x\"}, {matchName: \"*.hf.co\"}, {matchPattern: \"a.**.co\"}, {matchName: \"bücher.de\"}, {name: hf.co}, hf.co]}}\n",
        ),
        &expect![[r#"
            policy file `policy.yaml` has 7 mistakes; line 10, column 45: `https://hf.co/x` is not the name of a host
              × `https://hf.co/x` is not the name of a host
                ╭─[policy.yaml:10:45]
              9 │       message: m
             10 │       match: {connect: {notTo: [{matchName: "https://hf.co/x"}, {matchName: "*.hf.co"}, {matchPattern: "a.**.co"}, {matchName: "bücher.de"}, {name: hf.co}, hf.co]}}
                ·                                             ────────┬────────
                ·                                                     ╰── here
                ╰────
              help: write the name alone, without scheme, port and path

              × `*.hf.co` is a pattern
                ╭─[policy.yaml:10:77]
              9 │       message: m
             10 │       match: {connect: {notTo: [{matchName: "https://hf.co/x"}, {matchName: "*.hf.co"}, {matchPattern: "a.**.co"}, {matchName: "bücher.de"}, {name: hf.co}, hf.co]}}
                ·                                                                             ────┬────
                ·                                                                                 ╰── here
                ╰────
              help: write `matchPattern` for it

              × `a.**.co` has `**` elsewhere than in front
                ╭─[policy.yaml:10:104]
              9 │       message: m
             10 │       match: {connect: {notTo: [{matchName: "https://hf.co/x"}, {matchName: "*.hf.co"}, {matchPattern: "a.**.co"}, {matchName: "bücher.de"}, {name: hf.co}, hf.co]}}
                ·                                                                                                        ────┬────
                ·                                                                                                            ╰── here
                ╰────
              help: write `**.` in front for any number of labels, `*` within one label

              × `bücher.de` is not the name of a host
                ╭─[policy.yaml:10:128]
              9 │       message: m
             10 │       match: {connect: {notTo: [{matchName: "https://hf.co/x"}, {matchName: "*.hf.co"}, {matchPattern: "a.**.co"}, {matchName: "bücher.de"}, {name: hf.co}, hf.co]}}
                ·                                                                                                                                ─────┬─────
                ·                                                                                                                                     ╰── here
                ╰────
              help: write it as it is asked for, in ASCII: `xn--…`

              × a name has no field `name`
                ╭─[policy.yaml:10:144]
              9 │       message: m
             10 │       match: {connect: {notTo: [{matchName: "https://hf.co/x"}, {matchName: "*.hf.co"}, {matchPattern: "a.**.co"}, {matchName: "bücher.de"}, {name: hf.co}, hf.co]}}
                ·                                                                                                                                               ──┬─
                ·                                                                                                                                                 ╰── unknown
                ╰────
              help: write `matchName` or `matchPattern`

              × a name names nothing
                ╭─[policy.yaml:10:144]
              9 │       message: m
             10 │       match: {connect: {notTo: [{matchName: "https://hf.co/x"}, {matchName: "*.hf.co"}, {matchPattern: "a.**.co"}, {matchName: "bücher.de"}, {name: hf.co}, hf.co]}}
                ·                                                                                                                                               ──┬─
                ·                                                                                                                                                 ╰── here
                ╰────
              help: write `matchName` or `matchPattern`

              × `hf.co` is not a network
                ╭─[policy.yaml:10:158]
              9 │       message: m
             10 │       match: {connect: {notTo: [{matchName: "https://hf.co/x"}, {matchName: "*.hf.co"}, {matchPattern: "a.**.co"}, {matchName: "bücher.de"}, {name: hf.co}, hf.co]}}
                ·                                                                                                                                                             ──┬──
                ·                                                                                                                                                               ╰── here
                ╰────
              help: write CIDR notation, as in `10.0.0.0/8` or `fd00::/8`, or one address; for a name write `matchName:
                    …`

        "#]],
    );
}
