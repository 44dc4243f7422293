//! What a TLS client's first message says beside the name that rustls finds in it: whether a server could take it to be for another one.
//!
//! rustls has accepted the message before it gets here, so what is not as expected is refused without a closer look.

/// Extensions by their numbers (IANA, TLS ExtensionType Values).
const SERVER_NAME: u16 = 0;
const OUTER_EXTENSIONS: u16 = 0xfd00;
const ENCRYPTED_HELLO: u16 = 0xfe0d;
/// The drafts before it encrypted the name alone.
const ENCRYPTED_NAME: u16 = 0xffce;
const HOST_NAME: u8 = 0;

/// Bytes of a record's header, of a message's, and of what a hello has before its first list: version and random number.
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;
const FIXED: usize = 2 + 32;

/// For whom a hello is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// For the one name that it says, if it says one.
    Clear,
    /// Another hello may be encrypted within, for whomever (RFC 9849). Clients send such an extension without anything in it, too; nobody but the
    /// server can tell.
    Hidden,
    /// Its names can be read in several ways.
    Unclear,
}

/// How the hello in these records reads, the first of which is a handshake's.
pub(super) fn read(records: &[u8]) -> Reading {
    message(records)
        .and_then(|(message, _)| read_message(&message))
        .unwrap_or(Reading::Unclear)
}

/// How many bytes the records of the first message are, if it is whole.
pub(crate) fn hello_len(records: &[u8]) -> Option<usize> {
    let (_, behind) = message(records)?;
    Some(records.len() - behind.len())
}

/// The first message of the records, put together, and what is behind them.
fn message(mut records: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut message = Vec::new();
    loop {
        if let Some(&[_, high, middle, low]) = message.first_chunk::<MESSAGE_HEADER>() {
            let len = u32::from_be_bytes([0, high, middle, low]);
            let len = MESSAGE_HEADER + usize::try_from(len).ok()?;
            if message.len() >= len {
                message.truncate(len);
                return Some((message, records));
            }
        }
        let (header, behind) = records.split_first_chunk::<RECORD_HEADER>()?;
        let [super::HANDSHAKE, _, _, high, low] = *header else {
            return None;
        };
        let len = u16::from_be_bytes([high, low]).into();
        let (content, behind) = behind.split_at_checked(len)?;
        message.extend_from_slice(content);
        records = behind;
    }
}

/// RFC 8446, section 4.1.2.
fn read_message(message: &[u8]) -> Option<Reading> {
    let mut rest = message.get(MESSAGE_HEADER + FIXED..)?;
    let _session = list_of_bytes(&mut rest)?;
    let _ciphers = list(&mut rest)?;
    let _compressions = list_of_bytes(&mut rest)?;
    let mut reading = Reading::Clear;
    if rest.is_empty() {
        return Some(reading);
    }
    let mut extensions = list(&mut rest)?;
    while !extensions.is_empty() {
        let kind = number(&mut extensions)?;
        let content = list(&mut extensions)?;
        match kind {
            SERVER_NAME if !is_one_name(content) => return Some(Reading::Unclear),
            OUTER_EXTENSIONS | ENCRYPTED_HELLO | ENCRYPTED_NAME => reading = Reading::Hidden,
            _ => {}
        }
    }
    rest.is_empty().then_some(reading)
}

/// Whether a list of names (RFC 6066, section 3) is one name and nothing else.
fn is_one_name(mut content: &[u8]) -> bool {
    let mut only = || {
        let mut names = list(&mut content)?;
        let (kind, behind) = names.split_first()?;
        names = behind;
        list(&mut names)?;
        Some(*kind == HOST_NAME && names.is_empty())
    };
    only() == Some(true) && content.is_empty()
}

fn number(rest: &mut &[u8]) -> Option<u16> {
    let (bytes, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(u16::from_be_bytes(*bytes))
}

/// As many bytes as two before them say.
fn list<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = number(rest)?;
    take(rest, len.into())
}

/// As many bytes as one before them says.
fn list_of_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, behind) = rest.split_first()?;
    *rest = behind;
    take(rest, usize::from(*len))
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, behind) = rest.split_at_checked(len)?;
    *rest = behind;
    Some(taken)
}
