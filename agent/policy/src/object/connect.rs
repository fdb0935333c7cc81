//! `connect`: a connection began or ended, or datagrams were sent.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::{AFTER_READING_FIELD, AfterReading, Kind, When, holds, says_nothing};
use crate::destination::{Destinations, name as host_name};
use crate::facts::{Facts, Object, Protocol};
use crate::fields::{Fields, Problems, each, has_port, list, many, one_or_many, port, ports, text, word};
use crate::occurrence::OwnedObject;
use crate::problem::{Problem, quoted};
use crate::shape::{Field, Holds, Shape, optional, required, words};
use crate::template::Placeholder;
use crate::yaml::Node;

pub(crate) const MATCH: &[Field] = &[optional("connect", Holds::One(&SHAPE), "a connection, or datagrams")];
pub(crate) const EVENT: &[Field] = &[optional("connect", Holds::One(&EVENT_SHAPE), "a connection, or datagrams")];

pub(crate) static KIND: Kind = Kind {
    name: "connect",
    placeholders: &[Placeholder::Address, Placeholder::Port, Placeholder::Protocol, Placeholder::Names],
    read,
    read_event,
};

static SHAPE: Shape = Shape {
    what: "`connect`",
    about: "A connection, or datagrams, to one of these destinations. A v4 address in v6 clothes counts as the v4 address.",
    fields: &[&[
        optional("from", Holds::Destinations, "from one of these addresses of the node; of datagrams it is not known"),
        optional("to", Holds::Destinations, "to one of these"),
        optional("notTo", Holds::Destinations, "to none of these"),
        optional("port", Holds::Ports, "to this port"),
        optional("protocol", Holds::Words(words::<Protocol>), "by this protocol, either by default"),
        AFTER_READING_FIELD,
    ]],
};

static EVENT_SHAPE: Shape = Shape {
    what: "`connect`",
    about: "A connection, or datagrams.",
    fields: &[&[
        required("address", Holds::Text, "where to"),
        required("port", Holds::Integer(0, 65_535), "the port there"),
        optional("protocol", Holds::Word(words::<Protocol>), "`tcp` by default"),
        optional("names", Holds::TextList, "what the address was resolved as"),
        optional("source", Holds::Text, "the address of the node that it comes from"),
    ]],
};

#[derive(Debug, Clone)]
pub(crate) struct ConnectRule {
    pub(crate) from: Option<Destinations>,
    pub(crate) to: Option<Destinations>,
    pub(crate) not_to: Option<Destinations>,
    pub(crate) ports: Option<Vec<RangeInclusive<u16>>>,
    pub(crate) protocols: Vec<Protocol>,
    pub(crate) after_reading: Option<AfterReading>,
}

impl ConnectRule {
    pub(super) fn covers(&self, facts: &Facts<'_>) -> Result<(), &'static str> {
        let Object::Connect { protocol, address, port, names, source } = &facts.object else { return Err("connect") };
        holds("protocol", self.protocols.contains(protocol))?;
        holds("port", self.ports.as_ref().is_none_or(|ports| has_port(ports, *port)))?;
        let is_from = |from: &Destinations| source.is_some_and(|source| from.include(source, &[]));
        holds("from", self.from.as_ref().is_none_or(is_from))?;
        holds("to", self.to.as_ref().is_none_or(|to| to.include(*address, names)))?;
        holds("notTo", !self.not_to.as_ref().is_some_and(|not_to| not_to.include(*address, names)))?;
        AfterReading::holds(&self.after_reading, facts)
    }

    /// Whether it is of every address of a family, at every port.
    pub(crate) fn is_everything(&self) -> bool {
        self.not_to.is_none()
            && self.to.as_ref().is_none_or(Destinations::have_a_family)
            && self.ports.as_ref().is_none_or(|ports| (1..=u16::MAX).all(|port| has_port(ports, port)))
    }

    /// Whether it rests on what an address was resolved as.
    pub(crate) fn names_hosts(&self) -> bool {
        [&self.to, &self.not_to].into_iter().flatten().any(Destinations::has_names)
    }
}

fn read(node: &Node, problems: &mut Problems) -> Option<When> {
    let fields = Fields::of(node, &SHAPE, problems)?;
    let before = problems.len();
    let protocols = match fields.get("protocol") {
        Some(node) => many(node, "`protocol`", problems, |item, problems| word(item, "a protocol", problems)),
        None => Some(vec![Protocol::Tcp, Protocol::Udp]),
    };
    let mut destinations = |name: &str| {
        let node = fields.get(name)?;
        Destinations::read(one_or_many(node, &format!("`{name}`"), problems)?, problems)
    };
    let (from, to, not_to) = (destinations("from"), destinations("to"), destinations("notTo"));
    let ports = fields.get("port").and_then(|node| many(node, "`port`", problems, ports));
    let after_reading = AfterReading::read(&fields, problems);
    if from.as_ref().is_some_and(Destinations::has_names) {
        let message = "the node's own addresses have no names here";
        problems.push(Problem::new(fields.place("from"), message).help("write networks"));
    }
    if !["from", "to", "notTo", "port", "afterReading"].iter().any(|name| fields.get(name).is_some()) {
        problems.push(says_nothing(&fields, "`connect`", "write `notTo: […]` with what is allowed, or `to: […]`"));
    }
    if let (Some(to), Some(not_to)) = (&to, &not_to)
        && not_to.covers(to)
    {
        problems.push(
            Problem::new(fields.place("notTo"), "the rule can never match: `notTo` takes out all that is in `to`")
                .label("takes out all")
                .other(fields.place("to"), "of this")
                .help("take one of them out"),
        );
    }
    if to.is_none()
        && let Some(not_to) = &not_to
        && not_to.is_everything()
    {
        problems.push(
            Problem::new(fields.place("notTo"), "the rule can never match: every address lies in `notTo`")
                .help("leave out `0.0.0.0/0` and `::/0`"),
        );
    }
    if from.is_some() && protocols.as_ref().is_some_and(|protocols| !protocols.contains(&Protocol::Tcp)) {
        let message = "the rule can never match: where datagrams come from is not known";
        problems.push(Problem::new(fields.place("from"), message).help("take it out, or write `protocol: tcp`"));
    }
    (problems.len() == before).then_some(When::Connect(ConnectRule {
        from,
        to,
        not_to,
        ports,
        protocols: protocols?,
        after_reading: after_reading?,
    }))
}

fn read_event(node: &Node, problems: &mut Problems) -> Option<OwnedObject> {
    let fields = Fields::of(node, &EVENT_SHAPE, problems)?;
    let protocol = match fields.get("protocol") {
        Some(node) => word(node, "a protocol", problems),
        None => Some(Protocol::Tcp),
    };
    let names = match fields.get("names") {
        Some(node) => each(list(node, "`names`", problems)?, problems, host_name),
        None => Some(Vec::new()),
    };
    let port = fields.get("port").and_then(|node| port(node, problems));
    let source = match fields.get("source") {
        Some(node) => address(node, problems).map(Some),
        None => Some(None),
    };
    let address = address(fields.get("address")?, problems)?;
    Some(OwnedObject::Connect { protocol: protocol?, address, port: port?, names: names?, source: source? })
}

fn address(node: &Node, problems: &mut Problems) -> Option<IpAddr> {
    let given = text(node, "an address", problems)?;
    let address = given.parse().ok();
    if address.is_none() {
        let message = format!("{} is not an IP address", quoted(given));
        problems.push(
            Problem::new(&node.at, message)
                .help("names are not resolved: write the address, and under `names` what it was resolved as"),
        );
    }
    address
}
