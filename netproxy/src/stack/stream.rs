//! A connection of the guest's as its other side holds it.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddrV4;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use smoltcp::socket::tcp::RecvError;
use smoltcp::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Key, MAX_OPENING, Slot, Stack};

/// A connection that the guest opened, or that was opened to it. To drop it before both sides are closed breaks it: the guest gets a reset.
pub struct GuestStream {
    stack: Stack,
    key: Key,
    id: u64,
    opening: RefCell<Option<Rc<()>>>,
}

impl GuestStream {
    pub(super) const fn new(stack: Stack, key: Key, id: u64, opening: Option<Rc<()>>) -> Self {
        Self {
            stack,
            key,
            id,
            opening: RefCell::new(opening),
        }
    }

    /// Resolves when the guest has taken a connection that was opened to it.
    ///
    /// # Errors
    ///
    /// The guest has refused it, or does not answer.
    pub(crate) async fn taken(&self) -> io::Result<()> {
        poll_fn(|cx| {
            let mut inner = self.stack.inner.borrow_mut();
            let slot = inner.slot(self.key, self.id);
            match slot.map(|slot| (slot.connection.is_taken(), slot)) {
                Some((Some(true), _)) => Poll::Ready(Ok(())),
                Some((Some(false), _)) | None => {
                    Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()))
                }
                Some((None, slot)) => {
                    slot.connection.wake_to_give(cx.waker());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Resolves when the guest has broken the connection, or it is over. For the task that reads: no other is woken for that then.
    pub(crate) fn broken(&self) -> impl Future<Output = ()> + use<> {
        let (stack, key, id) = (self.stack.clone(), self.key, self.id);
        poll_fn(move |cx| {
            let mut inner = stack.inner.borrow_mut();
            match inner.slot(key, id) {
                Some(slot) if !slot.connection.is_over() => {
                    slot.connection.wake_to_take(cx.waker());
                    Poll::Pending
                }
                _ => Poll::Ready(()),
            }
        })
    }

    /// What the guest connected to, or the gateway's end of a connection to the guest.
    #[must_use]
    pub const fn destination(&self) -> SocketAddrV4 {
        self.key.to
    }

    /// The guest's port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.key.from
    }

    /// Tells the guest that the connection stands.
    pub fn accept(&self) {
        self.change(|slot| {
            slot.connection.accept();
        });
        self.opening.take();
    }

    /// Counts as one that is being opened for as long as what it gives is held, though it was accepted. `None`: so many are already.
    pub(crate) fn opening(&self) -> Option<Rc<()>> {
        let inner = self.stack.inner.borrow();
        let has_room = Rc::strong_count(&inner.opening) <= MAX_OPENING;
        has_room.then(|| Rc::clone(&inner.opening))
    }

    /// Tells the guest that nothing more comes from this side.
    pub fn close(&self) {
        self.change(|slot| slot.connection.close());
    }

    /// Lets `take` have bytes that the guest sent; it says how many it took, which may be none. `Ok(None)`: the guest sends no more.
    ///
    /// # Errors
    ///
    /// The connection is broken.
    pub fn poll_take<R>(
        &self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut [u8]) -> (usize, R),
    ) -> Poll<io::Result<Option<R>>> {
        let mut inner = self.stack.inner.borrow_mut();
        let Some(slot) = inner.slot(self.key, self.id) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        match slot.connection.take(take) {
            None => {
                slot.connection.wake_to_take(cx.waker());
                Poll::Pending
            }
            Some(Ok(taken)) => {
                // There may be room again to be told of.
                self.stack.make_due(&mut inner, self.key);
                Poll::Ready(Ok(Some(taken)))
            }
            Some(Err(RecvError::Finished)) => Poll::Ready(Ok(None)),
            Some(Err(RecvError::InvalidState)) => {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
        }
    }

    /// Lets `look` see what the guest sent first, again whenever there is more, until it has seen enough; nothing is taken. `None`: the guest
    /// sends no more.
    ///
    /// # Errors
    ///
    /// The connection is broken.
    pub async fn peek<R>(&self, mut look: impl FnMut(&[u8]) -> Option<R>) -> io::Result<Option<R>> {
        let mut seen = 0;
        poll_fn(|cx| {
            let looked = self.poll_take(cx, |bytes| {
                let is_more = bytes.len() > seen;
                seen = bytes.len();
                (0, is_more.then(|| look(bytes)).flatten())
            });
            match looked {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(Some(None))) => self.poll_more(cx),
                Poll::Ready(Ok(looked)) => Poll::Ready(Ok(looked.flatten())),
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            }
        })
        .await
    }

    /// Waits for more than there is.
    fn poll_more<R>(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<R>>> {
        let mut inner = self.stack.inner.borrow_mut();
        match inner.slot(self.key, self.id) {
            None => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Some(slot) if !slot.connection.may_take_more() => Poll::Ready(Ok(None)),
            Some(slot) => {
                slot.connection.wake_to_take(cx.waker());
                Poll::Pending
            }
        }
    }

    /// Lets `give` fill room for bytes to the guest; it says how many it gave, which may be none.
    ///
    /// # Errors
    ///
    /// The connection is broken, or closed from this side.
    pub fn poll_give<R>(
        &self,
        cx: &mut Context<'_>,
        give: impl FnOnce(&mut [u8]) -> (usize, R),
    ) -> Poll<io::Result<R>> {
        let mut inner = self.stack.inner.borrow_mut();
        let Some(slot) = inner.slot(self.key, self.id) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        match slot.connection.give(give) {
            None => {
                slot.connection.wake_to_give(cx.waker());
                Poll::Pending
            }
            Some(Ok(given)) => {
                self.stack.make_due(&mut inner, self.key);
                Poll::Ready(Ok(given))
            }
            Some(Err(_)) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Slot)) {
        let mut inner = self.stack.inner.borrow_mut();
        if let Some(slot) = inner.slot(self.key, self.id) {
            change(slot);
            self.stack.make_due(&mut inner, self.key);
        }
    }
}

impl Drop for GuestStream {
    fn drop(&mut self) {
        self.change(|slot| {
            slot.orphaned = Some(Instant::now());
            if !slot.connection.is_closing() {
                slot.connection.abort();
            }
        });
    }
}

impl AsyncRead for GuestStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let taken = self.poll_take(cx, |bytes| {
            let len = bytes.len().min(buffer.remaining());
            buffer.put_slice(bytes.get(..len).unwrap_or_default());
            (len, ())
        });
        taken.map_ok(|_| ())
    }
}

impl AsyncWrite for GuestStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_give(cx, |room| {
            let len = room.len().min(bytes.len());
            if let (Some(to), Some(from)) = (room.get_mut(..len), bytes.get(..len)) {
                to.copy_from_slice(from);
            }
            (len, len)
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for GuestStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GuestStream").field(&self.key).finish()
    }
}
