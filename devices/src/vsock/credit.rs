//! Credit: how many bytes each side may have under way (virtio 1.3, section 5.10.6.3).
//!
//! All counters run freely modulo 2^32, as they do on the wire.

/// Bytes of each connection's receive buffer in this device: the most that a guest can make the
/// host hold for one connection, and what `buf_alloc` announces.
pub const RECEIVE_BUFFER: u32 = 64 * 1024;

/// A counter that differs by less than this is ahead of the other, else behind it.
const HALF_A_CYCLE: u32 = 1 << 31;

/// The guest broke the credit rules. A correct driver cannot do this.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Violation;

/// What this side may still send.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct SendCredit {
    sent: u32,
    peer_alloc: u32,
    peer_forwarded: u32,
}

impl SendCredit {
    /// Takes over what the peer tells in each of its packets. What is older than what it told
    /// before is ignored: it can only mean less credit.
    ///
    /// # Errors
    /// The peer claims to have forwarded bytes that were never sent.
    pub(super) fn update(&mut self, buf_alloc: u32, fwd_cnt: u32) -> Result<(), Violation> {
        let ahead = fwd_cnt.wrapping_sub(self.sent);
        if (1..HALF_A_CYCLE).contains(&ahead) {
            return Err(Violation);
        }
        if self.sent.wrapping_sub(fwd_cnt) <= self.under_way() {
            self.peer_alloc = buf_alloc;
            self.peer_forwarded = fwd_cnt;
        }
        Ok(())
    }

    /// Bytes that may be sent now. A peer may shrink its buffer below what is under way.
    pub(super) fn available(self) -> u32 {
        self.peer_alloc.saturating_sub(self.under_way())
    }

    /// Counts bytes as sent.
    pub(super) fn sent(&mut self, bytes: u32) {
        self.sent = self.sent.wrapping_add(bytes);
    }

    fn under_way(self) -> u32 {
        self.sent.wrapping_sub(self.peer_forwarded)
    }
}

/// What the peer may still send.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct ReceiveCredit {
    received: u32,
    forwarded: u32,
    told: u32,
}

impl ReceiveCredit {
    /// Counts bytes as received.
    ///
    /// # Errors
    /// They are more than [`RECEIVE_BUFFER`] has room for.
    pub(super) fn receive(&mut self, bytes: u32) -> Result<(), Violation> {
        let held = self.received.wrapping_sub(self.forwarded);
        if bytes > RECEIVE_BUFFER - held {
            return Err(Violation);
        }
        self.received = self.received.wrapping_add(bytes);
        Ok(())
    }

    /// Counts bytes as gone from the buffer.
    pub(super) fn forward(&mut self, bytes: u32) {
        self.forwarded = self.forwarded.wrapping_add(bytes);
    }

    /// True when enough of the buffer became free since the peer was told to be worth a packet.
    ///
    /// A quarter: a peer that filled the buffer always gets told, because then all of it becomes
    /// free, and a sender of small pieces costs one packet in sixteen kilobytes.
    pub(super) fn is_stale(self) -> bool {
        self.forwarded.wrapping_sub(self.told) >= RECEIVE_BUFFER / 4
    }

    /// The `fwd_cnt` for a packet that is about to be sent.
    pub(super) fn tell(&mut self) -> u32 {
        self.told = self.forwarded;
        self.forwarded
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn claims_about_what_was_sent_are_checked() {
        let base = SendCredit {
            sent: 100,
            peer_alloc: 64,
            peer_forwarded: 60,
        };
        for (fwd_cnt, expected) in [
            (60, Ok(24)),
            (61, Ok(25)),
            (100, Ok(64)),
            (101, Err(Violation)),
            (100 + HALF_A_CYCLE - 1, Err(Violation)),
            (59, Ok(24)),
            (0, Ok(24)),
            (100_u32.wrapping_sub(HALF_A_CYCLE), Ok(24)),
        ] {
            let mut credit = base;
            let result = credit.update(64, fwd_cnt).map(|()| credit.available());
            assert_eq!(result, expected, "fwd_cnt {fwd_cnt}");
        }
    }

    #[test]
    fn a_shrunken_buffer_gives_no_credit_and_no_underflow() {
        let mut credit = SendCredit {
            sent: u32::MAX,
            peer_alloc: 9,
            peer_forwarded: u32::MAX - 9,
        };
        assert_eq!(credit.available(), 0);
        credit.update(0, u32::MAX).unwrap();
        assert_eq!(credit.available(), 0);
        credit.update(u32::MAX, u32::MAX).unwrap();
        credit.sent(u32::MAX);
        assert_eq!((credit.sent, credit.available()), (u32::MAX - 1, 0));
    }

    #[test]
    fn the_receive_buffer_can_be_filled_but_not_overfilled() {
        let mut credit = ReceiveCredit {
            received: u32::MAX,
            forwarded: u32::MAX,
            told: u32::MAX,
        };
        credit.receive(RECEIVE_BUFFER).unwrap();
        assert_eq!(credit.receive(1), Err(Violation));
        credit.receive(0).unwrap();
        credit.forward(1);
        assert_eq!(credit.receive(2), Err(Violation));
        credit.receive(1).unwrap();
        assert_eq!(ReceiveCredit::default().receive(u32::MAX), Err(Violation));
    }

    proptest! {
        /// Two correct ends: whatever the pieces, neither sees a violation, what is under way never
        /// exceeds the buffer, and a sender that waits is always told of free space.
        #[test]
        fn correct_ends_never_violate_nor_starve(
            steps in proptest::collection::vec((0_u32..40_000, 0_u32..40_000), 1..200),
            start in any::<u32>(),
        ) {
            let mut sender = SendCredit { sent: start, peer_alloc: 0, peer_forwarded: start };
            let mut receiver = ReceiveCredit { received: start, forwarded: start, told: start };
            sender.update(RECEIVE_BUFFER, start).unwrap();
            let mut held = 0;
            for (wanted, taken) in steps {
                let piece = wanted.min(sender.available());
                sender.sent(piece);
                receiver.receive(piece).unwrap();
                held += piece;
                prop_assert!(held <= RECEIVE_BUFFER);
                let taken = taken.min(held);
                receiver.forward(taken);
                held -= taken;
                if receiver.is_stale() {
                    sender.update(RECEIVE_BUFFER, receiver.tell()).unwrap();
                }
            }
            receiver.forward(held);
            if receiver.is_stale() {
                sender.update(RECEIVE_BUFFER, receiver.tell()).unwrap();
            }
            prop_assert!(sender.available() > RECEIVE_BUFFER / 2);
        }
    }
}
