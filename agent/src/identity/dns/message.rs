//! What a message of the domain name system says (RFC 1035, section 4), as far as names of addresses go.
//!
//! Names are in the usual text form (RFC 1035, 5.1: what is no letter is escaped) and in lower case, without the last dot.

use std::net::IpAddr;

use domain::{
    base::{Message as Wire, ParsedName, Record, iana::Class},
    rdata::AllRecordData,
};

use crate::event::{DnsMessage, Protocol};

/// Aliases that are followed from the name that was asked for.
const MAX_ALIASES: usize = 16;

/// One question, or the answer to one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub question: Question,
    pub is_answer: bool,
    /// What the name turned out to stand for, alias by alias; the name itself is not among them.
    pub aliases: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// How long the answer may be used: the shortest of the chain.
    pub ttl_seconds: u32,
}

/// What an answer must repeat of the question.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    pub id: u16,
    pub name: String,
    /// `A` is 1, `AAAA` 28.
    pub kind: u16,
}

/// Why nothing was taken from a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// Not a message as the RFC has it.
    Malformed,
    /// Of a stream, not a whole message.
    Partial,
    /// Not a question for one name of the Internet's, nor an answer to one.
    Other,
}

impl Message {
    /// Reads the message; of one that was cut, what stands before the cut.
    pub fn read(message: &DnsMessage) -> Result<Self, Unread> {
        let is_cut = message.bytes.len() < message.total_bytes as usize;
        match message.protocol {
            Protocol::Udp => read(&message.bytes, is_cut),
            Protocol::Tcp => {
                // Whether the length stands before the message depends on how the program reads.
                let length = message.total_bytes.checked_sub(2).and_then(|length| u16::try_from(length).ok());
                let bytes = match (message.bytes.split_first_chunk::<2>(), length) {
                    (Some((head, rest)), Some(length)) if *head == length.to_be_bytes() => rest,
                    _ => &message.bytes[..],
                };
                read(bytes, is_cut).map_err(|unread| match unread {
                    Unread::Malformed => Unread::Partial,
                    other => other,
                })
            }
        }
    }
}

type Name<'a> = ParsedName<&'a [u8]>;

fn read(bytes: &[u8], is_cut: bool) -> Result<Message, Unread> {
    let wire = Wire::from_octets(bytes).map_err(|_| Unread::Malformed)?;
    let header = wire.header();
    let asked = wire.sole_question().map_err(|_| Unread::Malformed)?;
    if header.opcode().to_int() != 0 || asked.qclass() != Class::IN {
        return Err(Unread::Other);
    }
    let name = text(asked.qname());
    let question = Question { id: header.id(), name: name.clone(), kind: asked.qtype().to_int() };
    let mut message =
        Message { question, is_answer: header.qr(), aliases: Vec::new(), addresses: Vec::new(), ttl_seconds: u32::MAX };
    if !message.is_answer {
        return Ok(message);
    }
    let mut records: Vec<(String, u32, Said)> = Vec::new();
    for record in wire.answer().map_err(|_| Unread::Malformed)?.limit_to_in::<AllRecordData<_, _>>() {
        match record {
            Ok(record) => records.extend(said(&record)),
            Err(_) if is_cut => break,
            Err(_) => return Err(Unread::Malformed),
        }
    }
    message.follow(name, &records);
    Ok(message)
}

/// What an answer's record says that concerns us.
enum Said {
    Alias(String),
    Address(IpAddr),
}

fn said<'a>(record: &Record<Name<'a>, AllRecordData<&'a [u8], Name<'a>>>) -> Option<(String, u32, Said)> {
    let said = match record.data() {
        AllRecordData::A(a) => Said::Address(a.addr().into()),
        AllRecordData::Aaaa(aaaa) => Said::Address(IpAddr::V6(aaaa.addr()).to_canonical()),
        AllRecordData::Cname(alias) => Said::Alias(text(alias.cname())),
        _ => return None,
    };
    Some((text(record.owner()), record.ttl().as_secs(), said))
}

impl Message {
    /// Takes the addresses of the name, or of what it is an alias of. Records of other names count for nothing, whatever they say.
    fn follow(&mut self, asked: String, records: &[(String, u32, Said)]) {
        let mut name = asked;
        for _ in 0..=MAX_ALIASES {
            let mut alias = None;
            for (_, ttl_seconds, said) in records.iter().filter(|(owner, ..)| *owner == name) {
                self.ttl_seconds = self.ttl_seconds.min(*ttl_seconds);
                match said {
                    Said::Address(address) if !self.addresses.contains(address) => self.addresses.push(*address),
                    Said::Address(_) => {}
                    Said::Alias(of) => alias = Some(of.clone()),
                }
            }
            match alias {
                Some(of) if self.addresses.is_empty() && !self.aliases.contains(&of) => {
                    self.aliases.push(of.clone());
                    name = of;
                }
                _ => return,
            }
        }
    }
}

fn text(name: &Name<'_>) -> String {
    if name.is_root() { ".".to_owned() } else { name.to_string().to_ascii_lowercase() }
}
