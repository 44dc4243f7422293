//! The port behind which TLS is ended that a guest is allowed: what is read there is judged request by request, as plain HTTP is.
//!
//! Nothing in this crate ends TLS. Without an [`Interceptor`] permitted TLS is carried as it is, once its first bytes are for the right name, and a
//! rule about methods or paths of `https` is refused when the policy is read ([`Abilities`](crate::policy::Abilities)).

use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;

use crate::http::{Authority, Judge};
use crate::relay::Metered;
use crate::stack::GuestStream;

/// A connection that is being served.
pub type Serving = Pin<Box<dyn Future<Output = io::Result<()>>>>;

/// A permitted TLS connection, whose first bytes were for the name of its authority.
pub struct Intercepted {
    /// The guest's side. Its first message has been looked at, and not taken.
    pub guest: GuestStream,
    /// The other side, at an address that was checked. Nothing was said on it.
    pub upstream: Metered,
    /// Whom each request has to be for. Upstream's certificate has to be for this name, too.
    pub authority: Authority,
    /// Is asked about each request before a byte of it is passed on, and connects anew.
    pub judge: Rc<dyn Judge>,
}

/// Ends TLS.
pub trait Interceptor {
    /// Serves a connection until both sides have ended. It is dropped when the policy does not allow the connection any more, or a quota is spent:
    /// whatever it has open then is to be broken.
    fn intercept(&self, connection: Intercepted) -> Serving;
}

impl fmt::Debug for Intercepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intercepted")
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}
