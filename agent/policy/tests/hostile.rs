//! Whatever stands in a file: an answer comes, soon, and every place in it lies in the file.

use plumbline_policy::{InvalidPolicy, Occurrence, Policy, PolicySet, import_tetragon};
use proptest::prelude::*;

const GOOD: &str = include_str!("../../../policies/model-weights.yaml");
const LISTS: &str = include_str!("../../../policies/lists.yaml");
const EXCEPTIONS: &str = "apiVersion: plumbline/v1\nkind: Exceptions\nmetadata: {name: mine}\nspec:\n  exceptions:\n    - policy: \
                          model-weights\n      rule: weights-opened-by-stranger\n      except: [{exe: /bin/cat, unit: [a.service]}]\n";
const TRACING: &str = include_str!("vllm-runtime-watch.yaml");
const EVENT: &str = "{file: {path: /m/a, access: [read, map], percent: 7}, process: {exe: /bin/a, podLabels: {a: b}}}";

/// Reads and draws, in every place in which it could stand; the result is of no interest, a panic is.
fn survives(text: &str) {
    for documents in [
        [("lists.yaml", LISTS), ("p.yaml", text)],
        [("lists.yaml", text), ("p.yaml", GOOD)],
        [("p.yaml", GOOD), ("x.yaml", text)],
    ] {
        drawn(PolicySet::from_documents(documents).err().unwrap_or_default());
    }
    drawn(import_tetragon("t.yaml", text).err().into_iter().collect());
    drawn(Occurrence::parse("e.yaml", text).err().into_iter().collect());
}

/// As a policy alone.
fn answered(text: &str) {
    drawn(Policy::parse("p.yaml", text).err().into_iter().collect());
}

fn drawn(mistakes: Vec<InvalidPolicy>) {
    for mistakes in mistakes {
        let mut drawn = String::new();
        mistakes.render(&mut drawn).expect("writing into a string");
        assert!(!mistakes.problems().is_empty(), "refused without a reason");
        assert!(!drawn.chars().any(|character| character.is_control() && character != '\n'), "{drawn:?}");
        for problem in mistakes.problems() {
            let (line, column) = mistakes.place(problem);
            assert!(line >= 1 && column >= 1);
        }
    }
}

/// Pieces of the language, and of what YAML has beyond it.
fn scraps() -> impl Strategy<Value = String> {
    let scrap = prop::sample::select(vec![
        "apiVersion: plumbline/v1\n",
        "kind: Policy\n",
        "kind: Lists\n",
        "kind: Exceptions\n",
        "kind: TracingPolicy\n",
        "$weights",
        "include: [node]\n",
        "0:65535",
        "metadata:",
        "name:",
        "spec:",
        "rules:",
        "- ",
        "match:",
        "file:",
        "watch:",
        "[",
        "]",
        "{",
        "}",
        ",",
        "&a ",
        "*a ",
        "<<: ",
        "|\n",
        ">\n",
        "? ",
        "!!int ",
        "!!binary ",
        "~",
        "\n",
        "\n  ",
        "\n    ",
        "\t",
        "'",
        "\"",
        "\\",
        "#",
        "é",
        "\u{1b}[31m",
        "\u{9b}",
        "\u{feff}",
        "\u{2028}",
        "\0",
        "---\n",
        "...\n",
        "%YAML 1.1\n",
        "0x10",
        "-.inf",
        ".nan",
        "1e999",
        "9223372036854775808",
        "/a/[",
        "10.0.0.1/8",
        "::ffff:1.2.3.4/100",
    ]);
    prop::collection::vec(scrap, 0..40).prop_map(|scraps| scraps.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_gets_an_answer(text in any::<String>()) {
        survives(&text);
    }

    #[test]
    fn scraps_of_the_language_get_an_answer(text in scraps()) {
        survives(&text);
    }

    #[test]
    fn a_good_document_with_one_change_gets_an_answer(
        good in prop::sample::select(vec![GOOD, LISTS, EXCEPTIONS, TRACING, EVENT]),
        at in any::<prop::sample::Index>(),
        cut in 0..40usize,
        new in scraps(),
    ) {
        let at = good.floor_char_boundary(at.index(good.len()));
        let end = good.ceil_char_boundary((at + cut).min(good.len()));
        survives(&format!("{}{new}{}", &good[..at], &good[end..]));
    }
}

/// The worst files that fit are answered within seconds, unoptimized.
#[test]
fn large_files_are_answered_soon() {
    let began = std::time::Instant::now();
    for pattern in ["- ", "a: ", "[", "{", "'", "&a ", "*a ", "? ", "!", "\n- x", "\nk: v", "\na: [x]", "x", "\t", "é"]
    {
        answered(&pattern.repeat((1 << 20) / pattern.len()));
    }
    let rule = "    - {name: r, severity: high, effect: alert, message: m, match: {file: {watch: [/m]}}, excep: []}\n";
    answered(&format!("spec:\n  rules:\n{}", rule.repeat(9_000)));
    let map: String = (0..40_000).map(|index| format!("k{index}: 1\n")).collect();
    answered(&map);
    let globs = vec!["'/{a,b,{c,d}}*/?[a-z]{e,f}'"; 10_000].join(", ");
    answered(&format!("spec: {{rules: [{{match: {{file: {{watch: [/m]}}}}, except: [{{exe: [{globs}]}}]}}]}}"));
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}

/// Lines are cut where they are shown; a mistake may lie before, on and behind the cut.
#[test]
fn mistakes_around_the_cut_of_a_long_line_are_shown() {
    for place in 380..420 {
        let text = format!("{{{}zz: 1, {}}}\n", " ".repeat(place - 1), "é: 1, ".repeat(100));
        let mistakes = Policy::parse("p.yaml", &text).expect_err("no such field");
        for problem in mistakes.problems() {
            let (_, column) = mistakes.place(problem);
            assert!((380..=402).contains(&column), "column {column} for a mistake behind {place}");
        }
        survives(&text);
    }
}

#[test]
fn a_tab_in_a_pattern_does_not_come_back_in_the_advice() {
    survives(&LISTS.replacen("- \"/opt/sglang", "- \"\t/opt/sglang", 1));
}

/// Small files that would become large are refused before they do.
#[test]
fn what_would_grow_without_end_is_refused_soon() {
    let began = std::time::Instant::now();
    let policy = |lists: &str, rule: &str| {
        format!(
            "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {{name: p}}\nspec:\n  lists:\n{lists}  rules:\n{rule}"
        )
    };
    let rule = |index: usize| {
        format!(
            "    - {{name: r{index}, severity: low, effect: audit, message: m, match: {{file: {{watch: [/m{index}]}}}}}}\n"
        )
    };
    let many = |word: &str, count: usize| vec![word; count].join(", ");
    let nested =
        format!("    a: [{}]\n    b: [{}]\n    c: [{}]\n", many("/x", 300), many("$a", 300), many("$b", 60_000));
    let wide = format!("    a: [[{}]]\n    b: [{}]\n", many("1", 40_000), many("$a", 40_000));
    let unknown: String = (0..20_000).map(|index| format!("    l{index}: [$x{index}]\n")).collect();
    let rules: String = (0..6000).map(rule).collect();
    let except = format!(
        "    - {{name: r, severity: low, effect: audit, message: m, match: {{file: {{watch: [/m]}}}}, except: [{}]}}\n",
        many("{exe: /a}", 15_000)
    );
    let ports = format!(
        "apiVersion: cilium.io/v1alpha1\nkind: TracingPolicy\nmetadata: {{name: t}}\nspec:\n  kprobes:\n    - call: tcp_connect\n      args: [{{index: 0, type: sock}}]\n      selectors:\n        - matchArgs: [{{index: 0, operator: DPort, values: [{}]}}]\n",
        many("'0:65535'", 40_000)
    );
    for text in [
        policy(&nested, &rule(0)),
        policy(&wide, &rule(0)),
        policy(&unknown, &rule(0)),
        policy("    a: [/x]\n", &rules),
        policy("    a: [/x]\n", &except),
        ports,
    ] {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("p.yaml"), &text).unwrap();
        let report = plumbline_policy::check(directory.path(), None).unwrap();
        assert!(report.to_string().len() < 200_000);
    }
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}
