//! Queries for the addresses of names, and answers to them.

use std::net::Ipv4Addr;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// Asks for a name's address.
pub(crate) fn query(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let name = Name::from_ascii(name).ok()?;
    message.add_query(Query::query(name, RecordType::A));
    message.to_vec().ok()
}

/// Says that every name is at one address.
pub(crate) fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    let question = query.queries.first()?.clone();
    let mut message = Message::response(query.metadata.id, OpCode::Query);
    let data = RData::A(A(Ipv4Addr::new(198, 51, 100, 9)));
    message.add_answer(Record::from_rdata(question.name().clone(), 60, data));
    message.add_query(question);
    message.to_vec().ok()
}

/// The address in an answer.
pub(crate) fn address(answer: &[u8]) -> Option<Ipv4Addr> {
    let answer = Message::from_vec(answer).ok()?;
    answer.answers.iter().find_map(|record| match &record.data {
        RData::A(A(address)) => Some(*address),
        _ => None,
    })
}
