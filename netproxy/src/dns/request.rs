//! A query's octets, made into one question or refused.

use hickory_proto::op::{
    Edns, Header, HeaderCounts, Message, MessageType, Metadata, OpCode, Query, ResponseCode,
};
use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, Restrict};

use super::LONGEST_QUERY;
use crate::name::HostName;

/// One question.
pub(super) struct Request {
    pub(super) metadata: Metadata,
    pub(super) question: Query,
    /// What the guest's resolver says in its `OPT` record, if it has one.
    pub(super) edns: Option<Edns>,
}

/// The first of a query's header. `None` when there is no whole header, or it is an answer's.
pub(super) fn header(query: &[u8]) -> Option<Metadata> {
    let header = Header::read(&mut BinDecoder::new(query)).ok()?;
    (header.message_type == MessageType::Query).then_some(header.metadata)
}

impl Request {
    /// Errors are what is to be answered.
    pub(super) fn read(query: &[u8]) -> Result<Self, ResponseCode> {
        let mut decoder = BinDecoder::new(query);
        let header = Header::read(&mut decoder).map_err(malformed)?;
        if header.op_code != OpCode::Query {
            return Err(ResponseCode::NotImp);
        }
        if query.len() > LONGEST_QUERY.into() || !is_one_question(&header.counts) {
            return Err(ResponseCode::FormErr);
        }
        let question = read_question(&mut decoder)?;
        let edns = read_edns(&mut decoder, &header.counts)?;
        if !decoder.is_empty() {
            return Err(ResponseCode::FormErr);
        }
        Ok(Self {
            metadata: header.metadata,
            question,
            edns,
        })
    }
}

fn malformed<E>(_: E) -> ResponseCode {
    ResponseCode::FormErr
}

fn is_one_question(counts: &HeaderCounts) -> bool {
    let before_additionals = (counts.queries, counts.answers, counts.authorities);
    before_additionals == (1, 0, 0) && counts.additionals <= 1
}

fn read_question(decoder: &mut BinDecoder<'_>) -> Result<Query, ResponseCode> {
    let first = decoder.index();
    let question = Query::read(decoder).map_err(malformed)?;
    // Before the first name there is none that a pointer could mean (RFC 1035, section 4.1.4): it would read the header as labels.
    let spelled_out = wire_length(question.name()) + TYPE_AND_CLASS;
    if decoder.index() - first != spelled_out {
        return Err(ResponseCode::FormErr);
    }
    Ok(question)
}

const TYPE_AND_CLASS: usize = 4;

/// How many octets a name has without compression: each label with its length, and the root's.
fn wire_length(name: &Name) -> usize {
    name.iter().map(|label| label.len() + 1).sum::<usize>() + 1
}

/// The `OPT` record. Any other record is refused: signatures (`TSIG`, `SIG(0)`) have no keys here.
fn read_edns(
    decoder: &mut BinDecoder<'_>,
    counts: &HeaderCounts,
) -> Result<Option<Edns>, ResponseCode> {
    let count = counts.additionals.into();
    // Not a pointer to some other zero, which the library would take (RFC 6891, section 6.1.2).
    let root = decoder.peek().map(Restrict::unverified);
    if count != 0 && root != Some(0) {
        return Err(ResponseCode::FormErr);
    }
    let (others, edns, signature) =
        Message::read_records(decoder, count, true, OpCode::Query).map_err(malformed)?;
    if !others.is_empty() || signature.is_some() {
        return Err(ResponseCode::FormErr);
    }
    Ok(edns)
}

/// The host that `name` means. `None` when it means none: labels of DNS may have any octet, and what is not a letter, a digit, a hyphen or
/// an underscore must not be mapped to one, nor a dot within a label become one between two.
pub(super) fn host_name(name: &Name) -> Option<HostName> {
    let mut text = String::with_capacity(wire_length(name));
    for label in name.iter() {
        if !label.iter().all(is_host_octet) {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(str::from_utf8(label).ok()?);
    }
    text.make_ascii_lowercase();
    let host = HostName::parse(&text).ok()?;
    (host.as_str() == text).then_some(host)
}

fn is_host_octet(octet: &u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_')
}
