//! What a message of the domain name system says (RFC 1035, section 4), as far as names of addresses go.
//!
//! Names are in the usual text form (RFC 1035, 5.1: what is no letter is escaped) and in lower case, without the last dot.

use std::net::IpAddr;

use domain::{
    base::{Message as Wire, ParsedName, Record, ToName as _, iana::Class},
    rdata::AllRecordData,
};

use crate::event::{DnsMessage, Protocol};

/// Aliases that are followed from the name that was asked for.
const MAX_ALIASES: usize = 8;

/// Records of an answer that are looked at.
const MAX_RECORDS: usize = 64;

/// Longer than a day nobody believes an answer.
const MAX_TTL_SECONDS: u32 = 86_400;

/// A message whose question is read, and whose answer is not yet.
#[derive(Debug)]
pub struct Message<'a> {
    wire: Wire<&'a [u8]>,
    pub question: Question,
    pub is_answer: bool,
    is_cut: bool,
    is_stream: bool,
}

/// What an answer must repeat of the question.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    pub id: u16,
    pub name: String,
    /// `A` is 1, `AAAA` 28.
    pub kind: u16,
}

/// What a name turned out to stand for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// Alias by alias; the name itself is not among them.
    pub aliases: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// How long it may be used: the shortest of the chain.
    pub ttl_seconds: u32,
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

type Name<'a> = ParsedName<&'a [u8]>;

impl<'a> Message<'a> {
    /// Reads the header and the question.
    pub fn read(message: &'a DnsMessage) -> Result<Self, Unread> {
        let (bytes, is_stream) = match message.protocol {
            Protocol::Udp => (&message.bytes[..], false),
            Protocol::Tcp => {
                // Whether the length stands before the message depends on how the program reads.
                let length = message.total_bytes.checked_sub(2).and_then(|length| u16::try_from(length).ok());
                match (message.bytes.split_first_chunk::<2>(), length) {
                    (Some((head, rest)), Some(length)) if *head == length.to_be_bytes() => (rest, true),
                    _ => (&message.bytes[..], true),
                }
            }
        };
        let malformed = if is_stream { Unread::Partial } else { Unread::Malformed };
        let wire = Wire::from_octets(bytes).map_err(|_| malformed)?;
        let header = wire.header();
        let asked = wire.sole_question().map_err(|_| malformed)?;
        if header.opcode().to_int() != 0 || asked.qclass() != Class::IN {
            return Err(Unread::Other);
        }
        let question = Question { id: header.id(), name: text(asked.qname()), kind: asked.qtype().to_int() };
        let is_cut = message.bytes.len() < message.total_bytes as usize;
        Ok(Self { wire, question, is_answer: header.qr(), is_cut, is_stream })
    }

    /// Follows the name that was asked for to its addresses; of a message that was cut, as far as it goes. Records of other names
    /// count for nothing, whatever they say.
    pub fn answer(&self) -> Result<Answer, Unread> {
        let malformed = if self.is_stream { Unread::Partial } else { Unread::Malformed };
        let mut records = Vec::new();
        let section = self.wire.answer().map_err(|_| malformed)?;
        for record in section.limit_to_in::<AllRecordData<_, _>>().take(MAX_RECORDS) {
            match record {
                Ok(record) => records.push(record),
                Err(_) if self.is_cut => break,
                Err(_) => return Err(malformed),
            }
        }
        let asked = self.wire.sole_question().map_err(|_| malformed)?;
        Ok(follow(*asked.qname(), &records))
    }
}

fn follow<'a>(asked: Name<'a>, records: &[Record<Name<'a>, AllRecordData<&'a [u8], Name<'a>>>]) -> Answer {
    let mut answer = Answer { ttl_seconds: MAX_TTL_SECONDS, ..Answer::default() };
    let mut name = asked;
    for _ in 0..=MAX_ALIASES {
        let mut alias = None;
        for record in records.iter().filter(|record| record.owner().name_eq(&name)) {
            let address = match record.data() {
                AllRecordData::A(a) => Some(IpAddr::V4(a.addr())),
                AllRecordData::Aaaa(aaaa) => Some(IpAddr::V6(aaaa.addr()).to_canonical()),
                AllRecordData::Cname(of) => {
                    alias = Some(*of.cname());
                    None
                }
                _ => continue,
            };
            answer.ttl_seconds = answer.ttl_seconds.min(seconds(record.ttl().as_secs()));
            answer.addresses.extend(address.filter(|address| !answer.addresses.contains(address)));
        }
        match alias {
            Some(of) if answer.addresses.is_empty() => {
                answer.aliases.push(text(&of));
                name = of;
            }
            _ => break,
        }
    }
    answer
}

/// RFC 2181, 8: with the highest bit set it is none at all.
fn seconds(ttl: u32) -> u32 {
    if ttl >> 31 == 1 { 0 } else { ttl }
}

fn text(name: &Name<'_>) -> String {
    if name.is_root() { ".".to_owned() } else { name.to_string().to_ascii_lowercase() }
}
