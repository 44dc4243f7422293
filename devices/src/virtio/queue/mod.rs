//! The split virtqueue (virtio 1.3 section 2.7), device side.
//!
//! [`LiveQueue::pop`] takes the next [`Chain`] of buffers that the driver made available;
//! [`Chain::finish`] gives it back. A chain borrows its queue, so there is one in flight at a time:
//! it can be neither lost nor completed twice, and a driver that offers the same head again while
//! it is in use gains nothing. A chain that is dropped (a device gave up on a malformed request) is
//! completed with nothing written, so that the queue does not run dry.
//!
//! A ring that is inconsistent is a [`QueueError`]; the device then stops until it is reset.

mod buffers;
mod error;
mod state;
#[cfg(test)]
mod tests;
mod walk;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use hv_core::GuestRam;
use virtio_bindings::virtio_ring::{VRING_AVAIL_F_NO_INTERRUPT, VRING_USED_F_NO_NOTIFY};
use vm_memory::{AtomicAccess, Bytes as _, GuestAddress};

use super::Interrupt;
pub use buffers::{Reader, ShortBuffer, Writer};
pub use error::QueueError;
pub use state::{MAX_QUEUE_SIZE, QueueState};
use walk::Buffers;

/// A queue in use.
#[derive(Debug)]
pub struct LiveQueue {
    ram: GuestRam,
    state: QueueState,
    interrupt: Interrupt,
    buffers: Buffers,
    /// Whether the driver was told to notify us; `None` before the first time.
    notified: Option<bool>,
    /// `next_used` when the driver was last considered for an interrupt.
    signalled: u16,
    /// Chains that may still be taken in this turn.
    budget: u16,
    /// The budget ran out with chains left.
    starved: bool,
    /// Set when the device is to stop: no chain is taken any more.
    stopping: Arc<AtomicBool>,
}

impl LiveQueue {
    /// The queue that `state` describes.
    ///
    /// # Errors
    /// Size, alignment or place of the rings are impossible (guest).
    pub fn new(
        ram: &GuestRam,
        state: QueueState,
        interrupt: &Interrupt,
    ) -> Result<Self, QueueError> {
        state.check(ram)?;
        Ok(Self {
            ram: ram.clone(),
            state,
            interrupt: interrupt.clone(),
            buffers: Buffers::default(),
            notified: None,
            signalled: state.next_used,
            budget: state.size,
            starved: false,
            stopping: Arc::default(),
        })
    }

    /// The same queue, which gives no more chains once `stopping` is set.
    pub(crate) fn until(self, stopping: &Arc<AtomicBool>) -> Self {
        Self {
            stopping: Arc::clone(stopping),
            ..self
        }
    }

    /// Where the queue is; what [`LiveQueue::new`] needs to go on.
    #[must_use]
    pub const fn state(&self) -> QueueState {
        self.state
    }

    /// Takes the next chain. `None`: there is none now, and the driver will notify us of the next;
    /// or this turn's budget (one queue full) is used up, and the device's turn comes again; or the
    /// device is about to stop, and the rest waits in the ring.
    ///
    /// # Errors
    /// The ring is inconsistent (guest): stop, and ask for a reset.
    pub fn pop(&mut self) -> Result<Option<Chain<'_>>, QueueError> {
        if self.stopping.load(Ordering::Relaxed) || !self.has_available()? {
            return Ok(None);
        }
        let Some(budget) = self.budget.checked_sub(1) else {
            self.starved = true;
            return Ok(None);
        };
        let head = self.head(self.state.next_avail)?;
        self.buffers.walk(&self.ram, &self.state, head)?;
        self.budget = budget;
        self.state.next_avail = self.state.next_avail.wrapping_add(1);
        Ok(Some(Chain {
            queue: self,
            head,
            open: true,
        }))
    }

    /// How many of the next chains, `most` of them at most, have room for `len` bytes between them. None is taken. `Ok(None)`: there are not
    /// enough of them now, and the driver will notify us of the next, or this turn's budget is too small for them; `Ok(Some(0))`: so many as `most` have not the room.
    ///
    /// The driver may change a chain until it is taken; then it has another room than it had here.
    ///
    /// # Errors
    ///
    /// As [`LiveQueue::pop`].
    pub fn chains_for(&mut self, len: u32, most: u16) -> Result<Option<u16>, QueueError> {
        if self.stopping.load(Ordering::Relaxed) {
            return Ok(None);
        }
        loop {
            let pending = self.pending()?;
            let count = self.count_chains(len, pending.min(most))?;
            if count.is_some_and(|count| count > self.budget) {
                self.starved = true;
                return Ok(None);
            }
            if count.is_some() || pending >= most {
                self.want_notification(None)?;
                return Ok(Some(count.unwrap_or(0)));
            }
            self.want_notification(Some(pending))?;
            // As in `has_available`.
            fence(Ordering::SeqCst);
            if self.pending()? == pending {
                return Ok(None);
            }
        }
    }

    /// How many of the next `most` chains have room for `len` bytes; `None`: all of them have not.
    fn count_chains(&mut self, len: u32, most: u16) -> Result<Option<u16>, QueueError> {
        let mut room = 0_u32;
        for count in 0..most {
            let head = self.head(self.state.next_avail.wrapping_add(count))?;
            self.buffers.walk(&self.ram, &self.state, head)?;
            room = room.saturating_add(self.buffers.writable().1);
            if room >= len {
                return Ok(Some(count + 1));
            }
        }
        Ok(None)
    }

    /// Whether there is a chain to take. If not, the driver will notify us of the next one.
    ///
    /// # Errors
    /// As [`LiveQueue::pop`].
    pub fn has_available(&mut self) -> Result<bool, QueueError> {
        if self.pending()? > 0 {
            self.want_notification(None)?;
            return Ok(true);
        }
        self.want_notification(Some(0))?;
        // The driver adds, then looks whether to notify; we ask to be notified, then look again.
        fence(Ordering::SeqCst);
        Ok(self.pending()? > 0)
    }

    /// Raises an interrupt if the driver wants one for the chains finished since the last call. The
    /// device thread does it after every turn; a device whose turns are long may do it more often.
    ///
    /// # Errors
    /// None that a checked ring can give.
    pub fn signal(&mut self) -> Result<(), QueueError> {
        let (old, new) = (self.signalled, self.state.next_used);
        if old == new {
            return Ok(());
        }
        // Our write of the used index comes before our read of what the driver wants.
        fence(Ordering::SeqCst);
        self.signalled = new;
        let wanted = if self.state.event_idx {
            let field = self.state.available + 4 + 2 * u64::from(self.state.size);
            passes(u16::from_le(self.load(field)?), old, new)
        } else {
            let flags = u16::from_le(self.load(self.state.available)?);
            u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT == 0
        };
        if wanted {
            self.interrupt.used_buffer();
        }
        Ok(())
    }

    /// A new turn of the device: as many chains as the queue has descriptors.
    pub(crate) const fn begin_turn(&mut self) {
        self.budget = self.state.size;
        self.starved = false;
    }

    /// The turn ended because of its budget: there is more to do at once.
    pub(crate) const fn is_starved(&self) -> bool {
        self.starved
    }

    /// Chains that the driver made available and we did not take.
    fn pending(&self) -> Result<u16, QueueError> {
        let index = self.load::<u16>(self.state.available + 2)?;
        let (index, next) = (u16::from_le(index), self.state.next_avail);
        let count = index.wrapping_sub(next);
        if count > self.state.size {
            return Err(QueueError::AvailableIndex { index, next });
        }
        Ok(count)
    }

    /// The first descriptor of the chain that is `index` in the available ring.
    fn head(&self, index: u16) -> Result<u16, QueueError> {
        let slot = u64::from(index % self.state.size);
        self.load(self.state.available + 4 + 2 * slot)
            .map(u16::from_le)
    }

    /// Tells the driver to notify us of the chain behind the next `after` ones, or of none (section 2.7.10). With event
    /// indices, not moving the index is what keeps it quiet.
    fn want_notification(&mut self, after: Option<u16>) -> Result<(), QueueError> {
        if self.state.event_idx {
            if let Some(after) = after {
                let field = self.state.used + 4 + 8 * u64::from(self.state.size);
                let event = self.state.next_avail.wrapping_add(after);
                self.store(event.to_le(), field)?;
            }
        } else if self.notified != Some(after.is_some()) {
            let flags = if after.is_some() {
                0
            } else {
                VRING_USED_F_NO_NOTIFY
            };
            let flags = u16::try_from(flags).unwrap_or_default();
            self.store(flags.to_le(), self.state.used)?;
        }
        self.notified = Some(after.is_some());
        Ok(())
    }

    /// Puts a chain into the used ring (section 2.7.8), where the driver does not see it before [`Self::publish`].
    fn complete(&mut self, head: u16, written: u32) -> Result<(), QueueError> {
        let slot = u64::from(self.state.next_used % self.state.size);
        let entry = self.state.used + 4 + 8 * slot;
        self.store(u32::from(head).to_le(), entry)?;
        self.store(written.to_le(), entry + 4)?;
        self.state.next_used = self.state.next_used.wrapping_add(1);
        Ok(())
    }

    /// Shows the driver every chain in the used ring.
    fn publish(&mut self) -> Result<(), QueueError> {
        self.store(self.state.next_used.to_le(), self.state.used + 2)
    }

    fn load<T: AtomicAccess>(&self, address: u64) -> Result<T, QueueError> {
        let loaded = self.ram.load(GuestAddress(address), Ordering::Acquire);
        loaded.map_err(|_| outside::<T>(address))
    }

    fn store<T: AtomicAccess>(&self, value: T, address: u64) -> Result<(), QueueError> {
        self.ram
            .store(value, GuestAddress(address), Ordering::Release)
            .map_err(|_| outside::<T>(address))
    }
}

fn outside<T>(address: u64) -> QueueError {
    QueueError::Range {
        address,
        len: u64::try_from(size_of::<T>()).unwrap_or(u64::MAX),
    }
}

/// Whether an index that went from `old` to `new` passed `event` (section 2.7.7.2).
const fn passes(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// Buffers that the driver gave the device, until [`Chain::finish`].
#[derive(Debug)]
#[must_use = "a dropped chain goes back to the driver with nothing written"]
pub struct Chain<'q> {
    queue: &'q mut LiveQueue,
    head: u16,
    open: bool,
}

impl Chain<'_> {
    /// Its first descriptor.
    #[must_use]
    pub const fn head(&self) -> u16 {
        self.head
    }

    /// What the driver wrote, from the beginning.
    #[must_use]
    pub fn reader(&self) -> Reader<'_> {
        Reader::new(&self.queue.ram, self.queue.buffers.readable())
    }

    /// What the driver wants filled, from the beginning.
    #[must_use]
    pub fn writer(&self) -> Writer<'_> {
        Writer::new(&self.queue.ram, self.queue.buffers.writable())
    }

    /// Gives the chain back with `written` bytes at the beginning of its writable part.
    ///
    /// # Errors
    /// None that a checked ring can give.
    pub fn finish(mut self, written: u32) -> Result<(), QueueError> {
        self.close(written)
    }

    /// As [`Chain::finish`], but the driver sees it only with the next chain that is finished or dropped: for what is in several chains and
    /// makes sense only as a whole.
    ///
    /// # Errors
    ///
    /// As [`Chain::finish`].
    pub fn finish_with_next(mut self, written: u32) -> Result<(), QueueError> {
        self.complete(written)
    }

    /// As [`Chain::finish`], and raises an interrupt at once if the driver wants one. For devices
    /// whose requests take long each; the others signal once a turn.
    ///
    /// # Errors
    /// As [`Chain::finish`].
    pub fn finish_and_signal(mut self, written: u32) -> Result<(), QueueError> {
        self.close(written)?;
        self.queue.signal()
    }

    fn close(&mut self, written: u32) -> Result<(), QueueError> {
        self.complete(written)?;
        self.queue.publish()
    }

    fn complete(&mut self, written: u32) -> Result<(), QueueError> {
        self.open = false;
        let (_, room) = self.queue.buffers.writable();
        self.queue.complete(self.head, written.min(room))
    }

    /// Leaves the chain in the available ring: [`LiveQueue::pop`] gives it again.
    pub fn put_back(mut self) {
        self.open = false;
        self.queue.state.next_avail = self.queue.state.next_avail.wrapping_sub(1);
        self.queue.budget += 1;
    }
}

impl Drop for Chain<'_> {
    fn drop(&mut self) {
        if self.open {
            // A checked ring cannot fail; if it did, the next `pop` would say so.
            let _ = self.close(0);
        }
    }
}
