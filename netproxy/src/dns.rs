//! The guest's name server: a pure function from a query to an answer.
//!
//! It asks nobody. A name that policy can allow has a synthetic address, and nothing else has anything: no IPv6 address, no `HTTPS` or
//! `SVCB` record with hints or keys, no reverse name. What it follows: RFC 1035 for messages, RFC 2308 for negative answers, RFC 6891 for
//! EDNS, RFC 8482 for `ANY`, RFC 9619 for the number of questions.
//!
//! It is stricter than it would have to be, because a guest's resolver has no need of more: a query is one question and at most one `OPT`
//! record, without compression and with nothing behind it.

use std::net::Ipv4Addr;

use hickory_proto::op::{Edns, Message, MessageType, Metadata, ResponseCode};
use hickory_proto::rr::rdata::{A, HINFO, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::name::HostName;

mod request;

use request::{Request, host_name};

/// How long a guest may remember an address, in seconds.
pub const TTL: u32 = 30;
/// How long a guest may remember that there is none, in seconds: a changed policy can allow the name.
pub const NEGATIVE_TTL: u32 = 5;
/// The longest query that is read, in octets; it is what EDNS tells the guest (the size that passes every link unfragmented).
pub const LONGEST_QUERY: u16 = 1232;
/// The longest answer, in octets: what every resolver takes without EDNS (RFC 1035, section 4.2.1), so that none is ever truncated.
pub const LONGEST_ANSWER: usize = 512;

/// Which names there are.
pub trait Zone {
    /// What is to be said of `name`.
    fn resolve(&mut self, name: &HostName) -> Answer;
}

/// What is said of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Policy can allow connections to it. This address stands for it.
    Address(Ipv4Addr),
    /// Policy cannot allow any connection to it: it does not exist.
    Denied,
    /// It could be allowed, but no address is free: the guest may ask again.
    Unavailable,
}

/// The answer to `query`, which is a datagram, or a message of a stream without its two octets of length.
///
/// `None` is for what must not be answered: what is no query (an answer to an answer could go round for ever), or is too short to say so.
/// Answers have at most [`LONGEST_ANSWER`] octets.
pub fn answer(query: &[u8], zone: &mut impl Zone) -> Option<Vec<u8>> {
    let header = request::header(query)?;
    let reply = match Request::read(query) {
        Ok(request) => reply(&request, zone),
        Err(code) => blank(&header, code),
    };
    encode(&reply)
}

/// An answer without a question and without records.
fn blank(asked: &Metadata, code: ResponseCode) -> Message {
    let mut reply = Message::new(asked.id, MessageType::Response, asked.op_code);
    reply.metadata = Metadata::response_from_request(asked);
    // A stub resolver that asked for recursion takes an answer without it for a broken server.
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = code;
    reply
}

fn reply(request: &Request, zone: &mut impl Zone) -> Message {
    let mut reply = blank(&request.metadata, ResponseCode::NoError);
    // As it was asked: resolvers compare the letters' case, too.
    reply.add_query(request.question.clone());
    reply.edns = request.edns.as_ref().map(edns);
    if request
        .edns
        .as_ref()
        .is_some_and(|edns| edns.version() != 0)
    {
        reply.metadata.response_code = ResponseCode::BADVERS;
    } else if request.question.query_class() != DNSClass::IN {
        reply.metadata.response_code = ResponseCode::Refused;
    } else {
        say(&mut reply, request, zone);
    }
    reply
}

/// RFC 6891, section 6.1.1, and RFC 3225, section 3, for the one flag.
fn edns(asked: &Edns) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(LONGEST_QUERY);
    edns.set_dnssec_ok(asked.flags().dnssec_ok);
    edns
}

/// Says what `zone` knows of the question's name.
fn say(reply: &mut Message, request: &Request, zone: &mut impl Zone) {
    let name = request.question.name();
    // The root exists. If it did not, nothing would (RFC 8020).
    if name.is_root() {
        return deny(reply, name, ResponseCode::NoError);
    }
    let answer = host_name(name).map_or(Answer::Denied, |name| zone.resolve(&name));
    match answer {
        Answer::Address(address) => {
            give(reply, name, request.question.query_type(), address);
        }
        Answer::Denied => deny(reply, name, ResponseCode::NXDomain),
        Answer::Unavailable => reply.metadata.response_code = ResponseCode::ServFail,
    }
}

/// Of a name that has an address, what is of the type that was asked for.
fn give(reply: &mut Message, name: &Name, kind: RecordType, address: Ipv4Addr) {
    let data = match kind {
        RecordType::A => RData::A(A(address)),
        // RFC 8482, section 4.2.
        RecordType::ANY => RData::HINFO(HINFO::from_bytes(b"RFC8482".as_slice().into(), [].into())),
        _ => return deny(reply, name, ResponseCode::NoError),
    };
    reply.metadata.authoritative = true;
    reply.add_answer(Record::from_rdata(name.clone(), TTL, data));
}

/// That there is nothing, and for how long (RFC 2308, section 5).
fn deny(reply: &mut Message, name: &Name, code: ResponseCode) {
    reply.metadata.authoritative = true;
    reply.metadata.response_code = code;
    // Of the name's parent, not of the root: that a name is denied must not say anything of all names beside it.
    let zone = Name::from_labels(name.iter().skip(1)).unwrap_or_else(|_| Name::root());
    reply.add_authority(Record::from_rdata(zone, NEGATIVE_TTL, RData::SOA(soa())));
}

fn soa() -> SOA {
    let (nobody, refresh, retry, expire) = (Name::root(), 3600, 600, 86400);
    SOA::new(
        nobody.clone(),
        nobody,
        1,
        refresh,
        retry,
        expire,
        NEGATIVE_TTL,
    )
}

/// The longest there is, of the longest name with its parent's `SOA` and `OPT`, has 316 octets. Not by the encoder's own limit: that counts
/// names before they are compressed, and leaves what it then takes back at the end.
fn encode(reply: &Message) -> Option<Vec<u8>> {
    let octets = reply.to_vec().ok()?;
    (octets.len() <= LONGEST_ANSWER).then_some(octets)
}

#[cfg(test)]
mod tests;
