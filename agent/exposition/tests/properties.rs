//! What holds for every page.

use std::fmt::Write as _;
use std::hash::RandomState;

use plumbline_exposition::{Format, Line, Lines, SyntaxError, shape};
use proptest::prelude::*;

#[derive(Debug, Clone, PartialEq)]
struct Owned {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
    timestamp_ms: Option<i64>,
}

fn owned() -> impl Strategy<Value = Owned> {
    (
        // Names beyond the classic alphabet are written quoted.
        prop_oneof![3 => "[a-zA-Z_:][a-zA-Z0-9_:]{0,20}", 1 => any::<String>()],
        prop::collection::vec(("[a-zA-Z_][a-zA-Z0-9_]{0,10}|[äöü. ]{1,4}", any::<String>()), 0..6),
        prop_oneof![any::<f64>(), any::<u32>().prop_map(f64::from), Just(f64::NAN), Just(f64::INFINITY)],
        prop::option::of(0..4_000_000_000_000_i64),
    )
        .prop_map(|(name, labels, value, timestamp_ms)| Owned { name, labels, value, timestamp_ms })
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn is_classic(name: &str, colon: bool) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || (colon && c == ':'))
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || (colon && c == ':'))
}

fn write(samples: &[Owned], format: Format) -> String {
    let mut page = String::new();
    for Owned { name, labels, value, timestamp_ms } in samples {
        let mut inside = Vec::new();
        if is_classic(name, true) {
            page += name;
        } else {
            inside.push(format!("\"{}\"", escape(name)));
        }
        for (name, value) in labels {
            let name = if is_classic(name, false) { name.clone() } else { format!("\"{}\"", escape(name)) };
            inside.push(format!("{name}=\"{}\"", escape(value)));
        }
        write!(page, "{{{}}} {value:?}", inside.join(",")).expect("a String takes everything");
        match (timestamp_ms, format) {
            (Some(ms), Format::Text) => write!(page, " {ms}"),
            (Some(ms), Format::OpenMetrics) => write!(page, " {}.{:03}", ms / 1000, ms % 1000),
            (None, _) => Ok(()),
        }
        .expect("a String takes everything");
        page += "\n";
    }
    if format == Format::OpenMetrics {
        page += "# EOF\n";
    }
    page
}

fn read(page: &str, format: Format) -> Result<Vec<Owned>, SyntaxError> {
    Lines::new(page, format)
        .filter_map(|line| match line {
            Ok(Line::Sample(sample)) => Some(Ok(Owned {
                name: sample.name.unescape().into_owned(),
                labels: sample
                    .labels
                    .map(|label| (label.name.unescape().into_owned(), label.value.unescape().into_owned()))
                    .collect(),
                value: sample.value,
                timestamp_ms: sample.timestamp_ms,
            })),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
        .collect()
}

fn walk(page: &[u8], format: Format) {
    let lines = page.split(|&byte| byte == b'\n').count();
    for line in Lines::new(page, format) {
        match line {
            Ok(Line::Sample(sample)) => {
                let _ = sample.name.unescape();
                for label in sample.labels {
                    assert!(label.value == *label.value.unescape());
                }
            }
            Ok(_) => {}
            Err(error) => {
                assert!((1..=lines + 1).contains(&error.line) && error.column >= 1, "{error}");
            }
        }
    }
}

/// Bytes that look enough like a page to get past the first check.
fn pagelike() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(&b"m"[..]),
        Just(&b"{"[..]),
        Just(&b"}"[..]),
        Just(&b"\""[..]),
        Just(&b"\\"[..]),
        Just(&b"="[..]),
        Just(&b","[..]),
        Just(&b" "[..]),
        Just(&b"\n"[..]),
        Just(&b"# TYPE "[..]),
        Just(&b"# EOF"[..]),
        Just(&b"#"[..]),
        Just(&b"1"[..]),
        Just("ü".as_bytes()),
        Just(&b"\xff"[..]),
        Just(&b"\r"[..]),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// The samples, as long as what follows a value is nothing that [`shape`] would take for it.
fn plain(page: &str) -> Option<Vec<Owned>> {
    let samples = read(page, Format::Text).ok()?;
    let has_more =
        |line| matches!(line, Ok(Line::Sample(sample)) if sample.timestamp_ms.is_some() || sample.has_exemplar);
    (!Lines::new(page, Format::Text).any(has_more)).then_some(samples)
}

/// The page with other values, where the last word of a line is one.
fn revalued(page: &str, mut value: impl FnMut() -> f64) -> String {
    let line = |line: &str| match line.rsplit_once(' ') {
        Some((before, last)) if !before.starts_with('#') && last.parse::<f64>().is_ok() => {
            format!("{before} {:?}\n", value())
        }
        _ => format!("{line}\n"),
    };
    page.lines().map(line).collect()
}

proptest! {
    #[test]
    fn pages_of_one_shape_differ_in_values_only(
        page in prop_oneof![
            prop::collection::vec(owned(), 0..12).prop_map(|samples| write(&samples, Format::Text)),
            pagelike().prop_map(|page| String::from_utf8_lossy(&page).into_owned()),
            "(m[{]a=\"[ b#]{0,3}\"[}]|# TYPE m gauge|m|) ?( 1)?( # [{][}] 1)?\n(n 2\n)?",
        ],
        value in any::<f64>(),
    ) {
        let seed = RandomState::new();
        let other = revalued(&page, || value);
        let (mut values, mut values_of_other) = (Vec::new(), Vec::new());
        let first = shape(page.as_bytes(), &seed, &mut values);
        let second = shape(other.as_bytes(), &seed, &mut values_of_other);
        if let (Some(samples), true) = (plain(&page), first.is_some() && first == second) {
            prop_assert_eq!(samples.len(), values_of_other.len());
            let expected: Vec<Owned> =
                samples.into_iter().zip(&values_of_other).map(|(sample, value)| Owned { value: *value, ..sample }).collect();
            let found = read(&other, Format::Text).map_err(|error| TestCaseError::fail(format!("{error}\n{other}")))?;
            prop_assert_eq!(format!("{found:?}"), format!("{expected:?}"));
        }
    }

    #[test]
    fn a_page_of_usual_lines_has_a_shape_that_no_other_has(
        samples in prop::collection::vec(owned(), 1..12),
        at in any::<prop::sample::Index>(),
        value in any::<f64>(),
    ) {
        let seed = RandomState::new();
        let shape_of = |samples: &[Owned]| shape(write(samples, Format::Text).as_bytes(), &seed, &mut Vec::new());
        let first = shape_of(&samples);
        prop_assert!(first.is_some());
        let mut others = samples.clone();
        let changed = &mut others[at.index(samples.len())];
        changed.value = value;
        if changed.timestamp_ms.is_none() {
            prop_assert_eq!(first, shape_of(&others));
        }
        others[at.index(samples.len())].labels.push(("more".to_owned(), String::new()));
        prop_assert_ne!(first, shape_of(&others));
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(samples in prop::collection::vec(owned(), 0..12), openmetrics: bool) {
        let format = if openmetrics { Format::OpenMetrics } else { Format::Text };
        let page = write(&samples, format);
        let read = read(&page, format).map_err(|error| TestCaseError::fail(format!("{error}\n{page}")))?;
        // Debug compares NaN with NaN.
        prop_assert_eq!(format!("{read:?}"), format!("{samples:?}"));
    }

    #[test]
    fn no_page_is_too_broken(page: Vec<u8>, openmetrics: bool) {
        walk(&page, if openmetrics { Format::OpenMetrics } else { Format::Text });
    }

    #[test]
    fn no_half_valid_page_is_too_broken(page in pagelike(), openmetrics: bool) {
        walk(&page, if openmetrics { Format::OpenMetrics } else { Format::Text });
    }

    #[test]
    fn a_bad_line_costs_no_other_line(bad in "[^\n#]*", samples in prop::collection::vec(owned(), 1..4)) {
        let page = write(&samples, Format::Text);
        let both = format!("{page}{{{bad}\n{page}");
        let kept = Lines::new(&both, Format::Text).filter_map(Result::ok);
        let samples_kept = kept.filter(|line| matches!(line, Line::Sample(_))).count();
        prop_assert!(samples_kept >= 2 * samples.len());
    }
}
