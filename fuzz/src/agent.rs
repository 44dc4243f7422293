//! What must hold for either decoder of the agent protocol.

use std::fmt::Debug;

use sandbox_guest::protocol::{FrameDecoder, FrameError, Message, encode};

/// Decodes `stream` in pieces of `piece` bytes and checks that the size of pieces makes no difference and that every
/// message survives being sent on.
///
/// # Panics
/// It does not hold.
pub fn check<M: Message + Debug + PartialEq>(piece: usize, stream: &[u8]) {
    let whole = decode::<M>(stream.len().max(1), stream);
    assert_eq!(
        whole,
        decode::<M>(piece.max(1), stream),
        "pieces of {piece}"
    );
    for message in &whole.0 {
        let mut frame = Vec::new();
        // postcard accepts longer forms of a number than it writes, so it can only get shorter.
        encode(message, &mut frame).expect("what was received can be sent");
        assert_eq!(
            decode::<M>(frame.len(), &frame).0,
            std::slice::from_ref(message)
        );
    }
}

/// All messages of a stream, and how it ended.
fn decode<M: Message>(piece: usize, stream: &[u8]) -> (Vec<M>, Result<(), FrameError>) {
    let (mut decoder, mut messages) = (FrameDecoder::default(), Vec::new());
    for mut piece in stream.chunks(piece) {
        loop {
            match decoder.decode(&mut piece) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Err(error)),
            }
        }
    }
    (messages, decoder.finish())
}

/// Puts the right length before each body, so that the fuzzer need not find it: a body is as long as its first byte says.
pub fn frames(input: &mut crate::Input<'_>) -> Vec<u8> {
    let mut stream = Vec::new();
    while !input.is_empty() {
        let body = input.blob();
        stream.extend(u32::try_from(body.len()).unwrap_or(0).to_le_bytes());
        stream.extend(body);
    }
    stream
}
