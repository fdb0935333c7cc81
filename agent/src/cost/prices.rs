//! The `prices` part of the configuration: raw text in, a checked price book out.

use serde::Deserialize;

use super::Currency;

/// What compute costs per hour.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Raw")]
pub struct PriceBook {
    pub currency: Currency,
    /// The first whose pattern fits a GPU's name is its price.
    pub gpu_per_hour: Vec<GpuPrice>,
    /// The whole node; applies where there is no GPU.
    pub node_per_hour: Option<PerHour>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    currency: Currency,
    #[serde(default)]
    gpu_per_hour: Vec<GpuPrice>,
    node_per_hour: Option<PerHour>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuPrice {
    pub gpu: GpuPattern,
    pub price: PerHour,
}

/// A GPU's product name as NVML gives it, in any case, where `*` stands for anything; `*` alone is the default.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct GpuPattern(String);

/// An amount of the book's currency per hour, finite and not negative.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Deserialize)]
#[serde(try_from = "f64")]
pub struct PerHour(f64);

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum PriceError {
    #[error("currency {0:?}: expected an ISO 4217 code such as `EUR` or `USD`")]
    Currency(String),
    #[error("price {0}: expected an amount per hour, zero or more")]
    Price(f64),
    #[error("empty GPU pattern: expected a name such as `*H100*`, or `*` for any")]
    Pattern,
    #[error("no price: expected `gpu_per_hour`, `node_per_hour` or both")]
    Empty,
}

impl TryFrom<Raw> for PriceBook {
    type Error = PriceError;

    fn try_from(Raw { currency, gpu_per_hour, node_per_hour }: Raw) -> Result<Self, PriceError> {
        if gpu_per_hour.is_empty() && node_per_hour.is_none() {
            return Err(PriceError::Empty);
        }
        Ok(Self { currency, gpu_per_hour, node_per_hour })
    }
}

impl PriceBook {
    /// What a GPU of this name costs per hour.
    pub fn of_gpu(&self, name: &str) -> Option<PerHour> {
        self.gpu_per_hour.iter().find(|row| row.gpu.fits(name)).map(|row| row.price)
    }
}

impl TryFrom<f64> for PerHour {
    type Error = PriceError;

    fn try_from(price: f64) -> Result<Self, PriceError> {
        if price.is_finite() && price >= 0.0 { Ok(Self(price)) } else { Err(PriceError::Price(price)) }
    }
}

impl PerHour {
    pub fn as_f64(self) -> f64 {
        self.0
    }
}

impl TryFrom<String> for GpuPattern {
    type Error = PriceError;

    fn try_from(pattern: String) -> Result<Self, PriceError> {
        if pattern.trim().is_empty() { Err(PriceError::Pattern) } else { Ok(Self(pattern)) }
    }
}

impl GpuPattern {
    fn fits(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.to_lowercase(), name.to_lowercase());
        let Some((head, tail)) = pattern.split_once('*') else { return pattern == name };
        let Some(mut rest) = name.strip_prefix(head) else { return false };
        let mut parts = tail.split('*').peekable();
        while let Some(part) = parts.next() {
            // What follows the last star must end the name; anything before it is taken where it first occurs.
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
    fn check(yaml: &str, expect: Expect) {
        let said = match serde_yaml::from_str::<PriceBook>(yaml) {
            Ok(book) => format!("{book:?}"),
            // The first line; the rest shows the place.
            Err(error) => error.to_string().lines().next().unwrap_or_default().to_owned(),
        };
        expect.assert_eq(&said);
    }

    #[test]
    fn a_book_has_a_currency_and_a_price() {
        check(
            "{currency: EUR, node_per_hour: 0.12}",
            expect![[
                r#"PriceBook { currency: Currency("EUR"), gpu_per_hour: [], node_per_hour: Some(PerHour(0.12)) }"#
            ]],
        );
        check(
            "currency: USD\ngpu_per_hour:\n- {gpu: '*H100*', price: 2.5}\n- {gpu: '*', price: 1}\n",
            expect![[
                r#"PriceBook { currency: Currency("USD"), gpu_per_hour: [GpuPrice { gpu: GpuPattern("*H100*"), price: PerHour(2.5) }, GpuPrice { gpu: GpuPattern("*"), price: PerHour(1.0) }], node_per_hour: None }"#
            ]],
        );
    }

    #[test]
    fn mistakes_are_named() {
        check("{currency: EUR}", expect!["no price: expected `gpu_per_hour`, `node_per_hour` or both"]);
        check(
            "{currency: euro, node_per_hour: 1}",
            expect![[r#"error: line 1 column 12: currency "euro": expected an ISO 4217 code such as `EUR` or `USD`"#]],
        );
        check("{node_per_hour: 1}", expect!["error: line 1 column 2: missing field `currency`"]);
        check(
            "{currency: EUR, node_per_hour: -1}",
            expect!["error: line 1 column 32: price -1: expected an amount per hour, zero or more"],
        );
        check(
            "{currency: EUR, node_per_hour: .nan}",
            expect!["error: line 1 column 32: price NaN: expected an amount per hour, zero or more"],
        );
        check("{currency: EUR, node_per_hour: cheap}", expect!["error: line 1 column 32: invalid floating point"]);
        check(
            "{currency: EUR, gpu_per_hour: [{gpu: '', price: 1}]}",
            expect!["error: line 1 column 38: empty GPU pattern: expected a name such as `*H100*`, or `*` for any"],
        );
        check(
            "{currency: EUR, gpu_per_hour: [{name: '*', price: 1}]}",
            expect!["error: line 1 column 33: unknown field `name`, expected one of gpu, price"],
        );
    }

    #[test]
    fn a_pattern_fits_whole_names_in_any_case() {
        for (pattern, name, fits) in [
            ("*", "NVIDIA H100 80GB HBM3", true),
            ("*h100*", "NVIDIA H100 80GB HBM3", true),
            ("NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3", true),
            ("NVIDIA H100", "NVIDIA H100 80GB HBM3", false),
            ("NVIDIA*HBM3", "NVIDIA H100 80GB HBM3", true),
            ("NVIDIA*HBM", "NVIDIA H100 80GB HBM3", false),
            ("*H100*PCIe*", "NVIDIA H100 80GB HBM3", false),
            ("**", "", true),
            ("a*a", "a", false),
            ("*aab", "aaab", true),
        ] {
            let pattern = GpuPattern::try_from(pattern.to_owned()).expect("a pattern");
            assert_eq!(pattern.fits(name), fits, "{pattern:?} {name}");
        }
    }

    #[test]
    fn the_first_fitting_row_is_the_price() {
        let yaml = "{currency: EUR, gpu_per_hour: [{gpu: '*H100*', price: 3}, {gpu: '*', price: 1}]}";
        let book: PriceBook = serde_yaml::from_str(yaml).expect("a good book");
        assert_eq!(book.of_gpu("NVIDIA H100").map(PerHour::as_f64), Some(3.0));
        assert_eq!(book.of_gpu("NVIDIA L4").map(PerHour::as_f64), Some(1.0));
    }

    proptest! {
        #[test]
        fn a_name_fits_every_pattern_made_of_its_parts(parts in prop::collection::vec("[a-cA-C ]{0,3}", 1..5)) {
            let name = parts.concat();
            prop_assert!(GpuPattern(parts.join("*")).fits(&name));
            let open = GpuPattern(format!("*{}*", parts.join("*")));
            prop_assert!(open.fits(&name));
        }
    }
}
