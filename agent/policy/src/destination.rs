//! Where a connection leads: networks, and names that addresses were resolved as.
//!
//! Names are matched as Cilium's `toFQDNs` matches them, so that one list serves both. A name is what a name server said of
//! the address, which others may share: it may excuse and alert, and must never deny.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::fields::{Fields, Problems, text};
use crate::problem::{Problem, quoted};
use crate::shape::{Holds, Shape, optional};
use crate::yaml::{Node, Value};

/// RFC 1035, 2.3.4, in text form.
const MAX_NAME_BYTES: usize = 253;

/// Destinations of which any may be meant.
#[derive(Debug, Clone, Default)]
pub(crate) struct Destinations {
    networks: Vec<IpNet>,
    names: Vec<NamePattern>,
}

impl Destinations {
    pub(crate) fn read(items: &[Node], problems: &mut Problems) -> Option<Self> {
        let mut destinations = Self::default();
        let before = problems.len();
        for item in items {
            match &item.value {
                Value::Map(_) => destinations.names.extend(name_pattern(item, problems)),
                _ => destinations.networks.extend(network(item, problems)),
            }
        }
        (problems.len() == before).then_some(destinations)
    }

    pub(crate) fn has_names(&self) -> bool {
        !self.names.is_empty()
    }

    pub(crate) fn networks(&self) -> &[IpNet] {
        &self.networks
    }

    /// Whether every address of this network is in one of the networks.
    pub(crate) fn cover(&self, network: &IpNet) -> bool {
        self.networks.iter().any(|mine| mine.contains(network))
    }

    /// Whether whatever is in `other` is in this, as far as that can be seen.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        other.networks.iter().all(|one| self.networks.iter().any(|mine| mine.contains(one)))
            && other.names.iter().all(|one| self.names.contains(one))
    }

    /// Whether every address is in it.
    pub(crate) fn is_everything(&self) -> bool {
        let has_all = |is_v4: bool| {
            let of_family = |network: &&IpNet| matches!(network, IpNet::V4(_)) == is_v4;
            self.networks.iter().filter(of_family).any(|network| network.prefix_len() == 0)
        };
        has_all(true) && has_all(false)
    }

    /// Whether every address of a family is in it, written as one network or as several.
    pub(crate) fn have_a_family(&self) -> bool {
        IpNet::aggregate(&self.networks).iter().any(|network| network.prefix_len() == 0)
    }

    /// Whether the address, v4-mapped v6 read as v4, lies in one of the networks, or was resolved as one of the names.
    pub(crate) fn include(&self, address: IpAddr, names: &[&str]) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
            || self.names.iter().any(|pattern| names.iter().any(|name| pattern.matches(name)))
    }
}

/// What a name must be, in lower case and without the last dot.
#[derive(Debug, Clone, PartialEq, Eq)]
enum NamePattern {
    /// `*` alone: any name.
    Any,
    /// These labels; `*` stands for any run of characters within one.
    Labels(Vec<String>),
    /// `**.` in front: at least one label more.
    Below(Vec<String>),
}

impl NamePattern {
    fn matches(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let labels: Vec<&str> = name.split('.').collect();
        let fit = |labels: &[&str], patterns: &[String]| {
            labels.len() == patterns.len() && labels.iter().zip(patterns).all(|(label, one)| fits(label, one))
        };
        match self {
            Self::Any => true,
            Self::Labels(patterns) => fit(&labels, patterns),
            Self::Below(patterns) => match labels.len().checked_sub(patterns.len()) {
                Some(more @ 1..) => {
                    labels[..more].iter().all(|label| fits(label, "*") && !label.is_empty())
                        && fit(&labels[more..], patterns)
                }
                _ => false,
            },
        }
    }
}

/// One label against one pattern, whose stars stand for letters, digits, hyphens and underscores.
fn fits(label: &str, pattern: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return label == pattern };
    let Some(mut label) = label.strip_prefix(head) else { return false };
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    // Of the pieces between stars the first place that fits is the best; the last piece must end the label.
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let Some((skipped, after)) = label.split_once(piece) else { return false };
        if !is_plain(skipped) {
            return false;
        }
        label = after;
    }
    label.strip_suffix(last).is_some_and(is_plain)
}

pub(crate) static NAME: Shape = Shape {
    what: "a name",
    about: "Names that an address was resolved as, matched as Cilium's `toFQDNs` matches them: exactly one of the two.",
    fields: &[&[
        optional("matchName", Holds::Text, "this name"),
        optional(
            "matchPattern",
            Holds::Text,
            "a pattern: `*` within one label, `**.` in front for any number of labels, `*` alone for any name",
        ),
    ]],
};

fn name_pattern(node: &Node, problems: &mut Problems) -> Option<NamePattern> {
    match Fields::of(node, &NAME, problems)?.exactly_one(&["matchName", "matchPattern"], problems)? {
        ("matchName", node) => {
            let name = name(node, problems)?;
            Some(NamePattern::Labels(name.split('.').map(str::to_owned).collect()))
        }
        (_, node) => {
            let given = text(node, "a pattern of names", problems)?;
            let pattern = normal(given);
            if pattern == "*" {
                return Some(NamePattern::Any);
            }
            let (body, is_below) = match pattern.strip_prefix("**.") {
                Some(body) => (body, true),
                None => (&*pattern, false),
            };
            if body.contains("**") {
                problems.push(
                    Problem::new(&node.at, format!("{} has `**` elsewhere than in front", quoted(given)))
                        .help("write `**.` in front for any number of labels, `*` within one label"),
                );
                return None;
            }
            let labels = labels(node, given, body, "*", problems)?;
            Some(if is_below { NamePattern::Below(labels) } else { NamePattern::Labels(labels) })
        }
    }
}

/// The name of a host, in lower case and without the last dot.
pub(crate) fn name(node: &Node, problems: &mut Problems) -> Option<String> {
    let given = text(node, "a name", problems)?;
    if given.contains('*') {
        problems.push(
            Problem::new(&node.at, format!("{} is a pattern", quoted(given))).help("write `matchPattern` for it"),
        );
        return None;
    }
    let name = normal(given);
    labels(node, given, &name, "", problems)?;
    Some(name)
}

fn normal(given: &str) -> String {
    given.strip_suffix('.').unwrap_or(given).to_ascii_lowercase()
}

/// The labels of `name`, which may hold letters, digits, hyphens, underscores and what is in `also`.
fn labels(node: &Node, given: &str, name: &str, also: &str, problems: &mut Problems) -> Option<Vec<String>> {
    let is_label = |label: &str| {
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_') || also.contains(c);
        (1..=63).contains(&label.len()) && label.chars().all(fine)
    };
    if name.len() <= MAX_NAME_BYTES && name.split('.').all(is_label) {
        return Some(name.split('.').map(str::to_owned).collect());
    }
    let problem = Problem::new(&node.at, format!("{} is not the name of a host", quoted(given)));
    problems.push(if given.contains("//") || given.contains(':') {
        problem.help("write the name alone, without scheme, port and path")
    } else if !given.is_ascii() {
        problem.help("write it as it is asked for, in ASCII: `xn--…`")
    } else {
        problem.help("write labels of letters, digits, hyphens and underscores, with a dot between them")
    });
    None
}

/// A network in CIDR notation, or one address.
fn network(node: &Node, problems: &mut Problems) -> Option<IpNet> {
    let given = text(node, "a network", problems)?;
    let parsed = given.parse::<IpNet>().or_else(|_| given.parse::<IpAddr>().map(IpNet::from));
    let Ok(parsed) = parsed else {
        problems.push(Problem::new(&node.at, format!("{} is not a network", quoted(given))).help(
            "write CIDR notation, as in `10.0.0.0/8` or `fd00::/8`, or one address; for a name write `matchName: …`",
        ));
        return None;
    };
    if parsed.addr() != parsed.network() {
        problems.push(
            Problem::new(&node.at, format!("{} is not a network: it has bits set beyond the prefix", quoted(given)))
                .label(format!("the network is `{}`", parsed.trunc()))
                .help(format!("write `{}` for the network, `{}` for the one address", parsed.trunc(), parsed.addr())),
        );
        return None;
    }
    if let IpNet::V6(v6) = parsed
        && let Some(v4) = v6.addr().to_ipv4_mapped()
    {
        problems.push(
            Problem::new(&node.at, format!("{} is a v4 network in v6 clothes; it would never match", quoted(given)))
                .help(format!("write `{v4}/{}`", v6.prefix_len().saturating_sub(96))),
        );
        return None;
    }
    Some(parsed)
}

#[cfg(test)]
mod tests {
    /// Cilium's own semantics (pkg/fqdn/matchpattern).
    #[track_caller]
    fn check(pattern: &str, fitting: &[&str], others: &[&str]) {
        let document = format!(
            "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {{name: p}}\nspec: {{rules: [{{name: r, severity: low, effect: audit, message: m, match: {{connect: {{notTo: [{{matchPattern: {pattern:?}}}]}}}}}}]}}\n"
        );
        let set = crate::PolicySet::from_documents([("p.yaml", document.as_str())]).unwrap();
        for (names, expect) in [(fitting, true), (others, false)] {
            for name in names {
                let object = crate::Object::Connect {
                    protocol: crate::Protocol::Tcp,
                    address: [203, 0, 113, 7].into(),
                    port: 443,
                    names: &[name],
                    source: None,
                };
                let facts = crate::Facts { subject: crate::Subject::default(), object };
                assert_eq!(set.decide(&facts).is_none(), expect, "{pattern} and {name}");
            }
        }
    }

    #[test]
    fn a_star_stays_within_one_label() {
        check("*.cilium.io", &["a.cilium.io", "A.Cilium.IO."], &["cilium.io", "a.b.cilium.io", "acilium.io"]);
        check("sub*.cilium.io", &["sub.cilium.io", "sub1.cilium.io"], &["su.cilium.io", "sub.a.cilium.io"]);
        check("*a*b*.io", &["ab.io", "xaxbx.io"], &["ba.io", "a.b.io"]);
        check("a*.io", &["a_-9.io"], &["a\\032.io", "a\\.x.io"]);
        check("cilium.io", &["cilium.io", "cilium.io."], &["xcilium.io", "cilium.io.evil"]);
    }

    #[test]
    fn two_stars_in_front_are_any_number_of_labels_but_none() {
        check("**.cilium.io", &["a.cilium.io", "a.b.c.cilium.io"], &["cilium.io", ".cilium.io", "a\\032.cilium.io"]);
    }

    #[test]
    fn a_star_alone_is_any_name() {
        check("*", &["cilium.io", "a.b.c", "."], &[]);
    }
}
