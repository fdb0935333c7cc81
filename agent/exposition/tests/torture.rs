//! Everything that producers in the field were seen to do, and what the parser makes of it.

use std::fmt::Write as _;
use std::hash::RandomState;

use expect_test::{Expect, expect};
use plumbline_exposition::{Format, Line, Lines, MAX_LABELS, MAX_LINE_BYTES, shape};

fn render(page: &[u8], format: Format) -> String {
    let mut out = String::new();
    for line in Lines::new(page, format) {
        match line {
            Ok(Line::Type { family, kind }) => writeln!(out, "type {family:?} {kind:?}"),
            Ok(Line::Help { family, help }) => writeln!(out, "help {family:?} {help:?}"),
            Ok(Line::Unit { family, unit }) => writeln!(out, "unit {family:?} {unit:?}"),
            Ok(Line::Eof) => writeln!(out, "eof"),
            Ok(Line::Sample(sample)) => {
                let labels: Vec<_> =
                    sample.labels.map(|label| format!("{}={:?}", label.name.unescape(), label.value)).collect();
                let at = sample.timestamp_ms.map(|at| format!(" @{at}")).unwrap_or_default();
                writeln!(out, "{:?} [{}] {}{at}", sample.name, labels.join(" "), sample.value)
            }
            Err(error) => writeln!(out, "error: {error}"),
        }
        .expect("a String takes everything");
    }
    out
}

#[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
fn check(page: &str, expect: Expect) {
    expect.assert_eq(&render(page.as_bytes(), Format::Text));
}

#[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
fn check_openmetrics(page: &str, expect: Expect) {
    expect.assert_eq(&render(page.as_bytes(), Format::OpenMetrics));
}

#[test]
fn a_plain_page() {
    check(
        "# HELP up Is it\\nup? A \\\\ too.\n# TYPE up gauge\nup 1\n\n# just a comment\n#TYPE neither\n#\nup{a=\"b\"} 0 1700000000123\n",
        expect![[r#"
            help "up" "Is it\nup? A \\ too."
            type "up" Gauge
            "up" [] 1
            "up" [a="b"] 0 @1700000000123
        "#]],
    );
}

#[test]
fn names_keep_their_colons_and_their_misleading_suffixes() {
    check(
        "# TYPE vllm:iteration_tokens_total histogram\nvllm:iteration_tokens_total_bucket{le=\"1\"} 3\nvllm:prompt_tokens_created{engine=\"0\"} 1.7953543787420605e+09\n:odd: 1\n_ 2\n",
        expect![[r#"
            type "vllm:iteration_tokens_total" Histogram
            "vllm:iteration_tokens_total_bucket" [le="1"] 3
            "vllm:prompt_tokens_created" [engine="0"] 1795354378.7420604
            ":odd:" [] 1
            "_" [] 2
        "#]],
    );
}

#[test]
fn label_values_may_hold_anything_once_escaped() {
    check(
        "m{a=\"x\\\"y\",b=\"\\\\\",c=\"l1\\nl2\",d=\"}\",e=\"a,b=\\\"c\\\"\",f=\"größe 模型\",g=\"\",h=\"\\d\\ü\"} 1\n",
        expect![[r#"
            "m" [a="x\"y" b="\\" c="l1\nl2" d="}" e="a,b=\"c\"" f="größe 模型" g="" h="\\d\\ü"] 1
        "#]],
    );
}

#[test]
fn every_spelling_of_a_number_is_read() {
    check(
        "m NaN\nm nan\nm -nan\nm +Inf\nm -Inf\nm Inf\nm inf\nm 1e-5\nm 1.5E+3\nm .5\nm -0\nm 18446744073709551615\nm 0x10\nm 1_000\nm one\nm\n",
        expect![[r#"
            "m" [] NaN
            "m" [] NaN
            "m" [] NaN
            "m" [] inf
            "m" [] -inf
            "m" [] inf
            "m" [] inf
            "m" [] 0.00001
            "m" [] 1500
            "m" [] 0.5
            "m" [] -0
            "m" [] 18446744073709552000
            error: line 13, column 3: expected a number, found '0'
            error: line 14, column 3: expected a number, found '1'
            error: line 15, column 3: expected a number, found 'o'
            error: line 16, column 2: expected a number, found the end of the line
        "#]],
    );
}

#[test]
fn blanks_carriage_returns_and_a_missing_final_newline_do_no_harm() {
    check(
        "  m\t{ a = \"1\" , b=\"2\" , }\t 3  4  \r\n# \t TYPE\tm   counter \r\n\r\nm{} 5\r\nm{a=\"1\"}6",
        expect![[r#"
            "m" [a="1" b="2"] 3 @4
            type "m" Counter
            "m" [] 5
            "m" [a="1"] 6
        "#]],
    );
}

#[test]
fn an_error_names_the_place_and_the_next_line_is_read() {
    check(
        "m{a=b} 1\nm{a=\"b} 1\nm{a=\"b\" c=\"d\"} 1\nm{,} 1\nm{a} 1\nm{ü=\"1\"} 1\nm{a=\"ü\"} x\nm{a=\"1\"\n{a=\"1\"} 1\n1m 2\n-\nm 1 2 3\nm 1 1.5\nm 1 # note\n# TYPE m rocket\n# TYPE\n# TYPE m\n# TYPE m! gauge\nm 9\n",
        expect![[r##"
            error: line 1, column 5: expected a quoted label value, found 'b'
            error: line 2, column 10: expected a closing quote, found the end of the line
            error: line 3, column 9: expected `,` or `}`, found 'c'
            error: line 4, column 3: expected a label name or `}`, found ','
            error: line 5, column 4: expected `=`, found '}'
            error: line 6, column 3: expected a label name or `}`, found 'ü'
            error: line 7, column 10: expected a number, found 'x'
            error: line 8, column 8: expected `,` or `}`, found the end of the line
            error: line 9, column 1: expected a metric name before or within the braces, found '{'
            error: line 10, column 1: expected a metric name, found '1'
            error: line 11, column 1: expected a metric name, found '-'
            error: line 12, column 7: expected the end of the line, found '3'
            error: line 13, column 5: expected a timestamp or the end of the line, found '1'
            error: line 14, column 7: expected the labels of an exemplar, found 'n'
            error: line 15, column 10: expected a metric type, found 'r'
            error: line 16, column 7: expected a metric name, found the end of the line
            error: line 17, column 9: expected a metric type, found the end of the line
            error: line 18, column 9: expected a blank after the metric name, found '!'
            "m" [] 9
        "##]],
    );
}

#[test]
fn json_and_html_are_errors_and_not_samples() {
    check(
        "{\"error\":{\"code\":501,\"message\":\"no\"}}\n<!DOCTYPE html>\n<p>\n",
        expect![[r#"
            error: line 1, column 9: expected `,` or `}`, found ':'
            error: line 2, column 1: expected a metric name, found '<'
            error: line 3, column 1: expected a metric name, found '<'
        "#]],
    );
}

#[test]
fn names_may_be_quoted() {
    check(
        "# TYPE \"my.metric\" gauge\n{\"my.metric\",\"k.8s\"=\"x\"} 1\n{a=\"b\",\"größe\\\"\"} 2\n{\"one\",\"two\"} 3\nm{\"two\"} 3\n",
        expect![[r#"
            type "my.metric" Gauge
            "my.metric" [k.8s="x"] 1
            "größe\"" [a="b"] 2
            error: line 4, column 13: expected `=`, found '}'
            error: line 5, column 8: expected `=`, found '}'
        "#]],
    );
}

#[test]
fn openmetrics_has_units_exemplars_seconds_and_an_end() {
    check_openmetrics(
        "# TYPE foo_seconds counter\n# UNIT foo_seconds seconds\nfoo_seconds_total{a=\"b\"} 1.5 1520879607.789 # {trace_id=\"KOO5S4vxi0o\"} 0.67 1520879607.8\nfoo_seconds_total 3 # {} 1\nbar 1 # {a=\"b\" 1\n# EOF\n",
        expect![[r##"
            type "foo_seconds" Counter
            unit "foo_seconds" "seconds"
            "foo_seconds_total" [a="b"] 1.5 @1520879607789
            "foo_seconds_total" [] 3
            error: line 5, column 16: expected `,` or `}`, found '1'
            eof
        "##]],
    );
}

#[test]
fn an_openmetrics_page_without_its_end_is_truncated() {
    check_openmetrics(
        "a 1\n",
        expect![[r##"
            "a" [] 1
            error: line 2, column 1: expected `# EOF`, found the end of the page
        "##]],
    );
    check_openmetrics(
        "a 1\n# EOF\n\nb 2\n",
        expect![[r##"
            "a" [] 1
            error: line 3, column 1: expected nothing after `# EOF`, found 'b'
        "##]],
    );
    check(
        "a 1\n# EOF\nb 2",
        expect![[r#"
            "a" [] 1
            "b" [] 2
        "#]],
    );
}

#[test]
fn bytes_that_are_not_utf8_cost_one_line() {
    expect![[r#"
        "a" [] 1
        error: line 2, column 5: expected UTF-8, found bytes that are not UTF-8
        "c" [] 3
    "#]]
    .assert_eq(&render(b"a 1\nb{x=\xff\"} 2\nc 3\n", Format::Text));
}

#[test]
fn a_line_and_its_labels_are_bounded() {
    let labels = |count: usize| (0..count).map(|n| format!("l{n}=\"\",")).collect::<String>();
    let render = |page: String| render(page.as_bytes(), Format::Text);
    assert_eq!(render(format!("m{{{}}} 1\nn 2\n", labels(MAX_LABELS))).matches("error").count(), 0);
    assert!(
        render(format!("m{{{}}} 1\nn 2\n", labels(MAX_LABELS + 1)))
            .ends_with("expected at most 128 labels, found '}'\n\"n\" [] 2\n")
    );

    let long = |bytes: usize| format!("m{{a=\"{}\"}} 1\nn 2\n", "x".repeat(bytes - "m{a=\"\"} 1".len()));
    assert_eq!(render(long(MAX_LINE_BYTES)).matches("error").count(), 0);
    expect![[r#"
        error: line 1, column 1: expected a line of at most 65536 bytes, found the end of the line
        "n" [] 2
    "#]]
    .assert_eq(&render(long(MAX_LINE_BYTES + 1)));
}

#[test]
fn the_content_type_names_the_format() {
    for (content_type, format) in [
        ("text/plain; version=0.0.4; charset=utf-8", Format::Text),
        ("text/plain; version=1.0.0; charset=utf-8", Format::Text),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", Format::OpenMetrics),
        ("Application/OpenMetrics-Text", Format::OpenMetrics),
        ("", Format::Text),
    ] {
        assert_eq!(Format::from_content_type(content_type), format, "{content_type}");
    }
}

#[test]
fn pages_have_one_shape_if_their_values_alone_differ() {
    let seed = RandomState::new();
    let is_one = |one: &str, other: &str| {
        let of = |page: &str| shape(page.as_bytes(), &seed, &mut Vec::new());
        of(one).is_some() && of(one) == of(other)
    };
    assert!(is_one("# HELP m x 1\nm{a=\"b c\"} 1\n\nn 2\n", "# HELP m x 1\nm{a=\"b c\"} NaN\n\nn -3e9\n"));
    for (one, other) in [
        ("m 1\n# EOF\n", "m 1\n# EO\n"),
        ("m 1\nn 2\n", "m n 2\n"),
        ("m 1\n", "m 1\nm 1\n"),
        ("m{a=\"b 1\"} 1\n", "m{a=\"b 2\"} 1\n"),
        ("m 1 5\n", "m 2 5\n"),
        ("m\t1\n", "m\t1\n"),
        ("m 1\r\n", "m 1\r\n"),
        ("m\n", "m\n"),
    ] {
        assert!(!is_one(one, other), "{one:?} {other:?}");
    }
}
