//! One connection: whom it is to, and that it runs.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use super::consent::OneTime;
use super::{Destination, Flow, Observer, Proxy};
use crate::names::HeldName;
use crate::policy::{Host, Scheme};
use crate::relay::Meter;

/// How a guest asks for a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Via {
    /// To the address that stands for whom it means.
    #[default]
    Itself,
    /// By `CONNECT` to the proxy at the gateway.
    Connect,
    /// By a request to that, which is for the one behind it.
    Fetch,
}

/// Whom a connection is to.
pub(super) struct Target {
    /// The connection's.
    pub(super) number: u64,
    pub(super) host: Host,
    pub(super) port: u16,
    /// As long as the connection lasts, the address goes on standing for the name.
    pub(super) held: Option<HeldName>,
    /// The rule that a person made for it.
    pub(super) once: Rc<RefCell<Option<Rc<OneTime>>>>,
    pub(super) via: Via,
}

impl Target {
    /// What is probably spoken there. To an address only what nobody reads can be let through: it has no name that TLS or HTTP could be for.
    pub(super) const fn usual_scheme(&self) -> Scheme {
        match (&self.host, self.via, self.port) {
            (Host::Address(_), _, _) | (_, _, 22) => Scheme::Tcp,
            (_, Via::Fetch, _) | (_, _, 80) => Scheme::Http,
            _ => Scheme::Https,
        }
    }

    pub(super) fn allow_once(&self, rule: Rc<OneTime>) {
        self.once.replace(Some(rule));
    }

    pub(super) fn copy(&self) -> Self {
        Self {
            number: self.number,
            host: self.host.clone(),
            port: self.port,
            held: self.held.clone(),
            once: Rc::clone(&self.once),
            via: self.via,
        }
    }

    pub(super) fn destination(&self) -> Destination {
        Destination {
            host: self.host.clone(),
            port: self.port,
        }
    }
}

/// A connection that was let through, until it ends: in whichever way that is, it is told.
pub(super) struct Running {
    pub(super) observer: Rc<dyn Observer>,
    pub(super) flow: Flow,
    pub(super) meter: Meter,
    pub(super) begin: Instant,
}

impl Running {
    pub(super) fn new<R>(proxy: &Proxy<R>, flow: Flow, meter: Meter) -> Self {
        let observer = Rc::clone(&proxy.observer);
        observer.opened(&flow);
        Self {
            observer,
            flow,
            meter,
            begin: Instant::now(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let carried = self.meter.carried();
        self.observer
            .ended(&self.flow, carried, self.begin.elapsed());
    }
}
