//! Amounts as Kubernetes writes them: `500m`, `2`, `16Gi`, `1.5e3` (kubernetes, `apimachinery/pkg/api/resource/quantity.go`).

/// By suffix; what is not among them is no amount.
const SUFFIXES: &[(&str, f64)] = &[
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
    ("", 1.0),
];

/// Finite and not negative, else none.
pub(super) fn parse(text: &str) -> Option<f64> {
    let is_plain = |number: &str| number.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    let of = |(suffix, factor): &(&str, f64)| {
        let number = text.strip_suffix(suffix).filter(|number| is_plain(number))?;
        Some(number.parse::<f64>().ok()? * factor)
    };
    SUFFIXES.iter().find_map(of).filter(|amount| amount.is_finite() && *amount >= 0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_read_as_kubernetes_writes_them() {
        for (text, amount) in [
            ("2", Some(2.0)),
            ("500m", Some(0.5)),
            ("1.5", Some(1.5)),
            ("16Gi", Some(17_179_869_184.0)),
            ("128974848", Some(128_974_848.0)),
            ("129e6", Some(129e6)),
            ("129M", Some(129e6)),
            ("1E", Some(1e18)),
            ("1e3", Some(1e3)),
            ("0", Some(0.0)),
            ("", None),
            ("Gi", None),
            ("-1", None),
            ("1 Gi", None),
            ("1gi", None),
            ("inf", None),
            ("nan", None),
            ("1e999", None),
        ] {
            let found = parse(text);
            assert!(
                found.zip(amount).map_or(found.is_none() && amount.is_none(), |(a, b)| (a - b).abs() <= b * 1e-12),
                "{text}: {found:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_broken(text: String) {
            prop_assert!(parse(&text).is_none_or(f64::is_finite));
        }
    }
}
