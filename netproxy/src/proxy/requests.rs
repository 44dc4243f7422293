//! Connections whose requests are read, because they are plain HTTP or their TLS is ended here: each is judged by the policy of its moment.

use std::io;
use std::rc::Rc;
use std::time::Instant;

use tokio::net::TcpStream;

use super::{Denial, Flow, Proxy, Running, Target, Via, Why};
use crate::dial::Resolver;
use crate::http::{self, Authority, Connecting, Denied, Judge, Refused};
use crate::intercept::Intercepted;
use crate::policy::{Decision, Engine, Host, Scheme, Verdict};
use crate::quota;
use crate::relay::{Meter, Metered};
use crate::stack::GuestStream;

/// Serves the requests of a connection until it ends, or the policy does not allow it any more.
pub(super) async fn serve<R: Resolver + 'static>(
    proxy: Rc<Proxy<R>>,
    guest: GuestStream,
    upstream: TcpStream,
    target: &Target,
    running: &Running,
) -> Result<(), Why> {
    let Host::Name(name) = &target.host else {
        // An address is allowed for bytes that nobody reads only.
        return Ok(());
    };
    let authority = Authority {
        name: name.clone(),
        port: target.port,
    };
    let judge = Rc::new(ByPolicy {
        proxy: Rc::clone(&proxy),
        target: target.copy(),
        flow: running.flow.clone(),
        meter: running.meter.clone(),
    });
    let upstream = Metered::new(upstream, running.meter.clone());
    let scheme = running.flow.scheme;
    let served = async {
        let interceptor = proxy
            .interceptor
            .as_ref()
            .filter(|_| scheme == Scheme::Https);
        if let Some(interceptor) = interceptor {
            let connection = Intercepted {
                guest,
                upstream,
                authority,
                judge,
            };
            drop(interceptor.intercept(connection).await);
        } else {
            // What a guest asks of a proxy next may be for another host.
            let keeps_alive = target.via != Via::Fetch;
            drop(http::serve(guest, upstream, authority, judge, keeps_alive).await);
        }
    };
    tokio::select! {
        biased;
        // Before the parties learn of it and make an answer of it.
        spent = running.meter.until_spent() => Err(Why::Quota(spent)),
        () = proxy.until_denied(target, scheme) => Ok(()),
        // What went wrong between the two is theirs.
        () = served => {
            running.meter.spent().map_or(Ok(()), |spent| Err(Why::Quota(spent)))
        }
    }
}

struct ByPolicy<R> {
    proxy: Rc<Proxy<R>>,
    target: Target,
    flow: Flow,
    meter: Meter,
}

impl<R: Resolver + 'static> Judge for ByPolicy<R> {
    fn judge(&self, method: &str, target: &str) -> Result<(), Refused> {
        let engine = self.proxy.rules(&self.target);
        let decision = self.decide(&engine, method, target);
        self.check(&decision, method, target)?;
        let tallies = self.proxy.ledger.tallies(&decision);
        let charged = quota::count_request(&tallies, Instant::now())
            .and_then(|()| self.meter.charge(tallies));
        if let Err(spent) = charged {
            let denied = Denied {
                reason: spent.to_string(),
                rule: Some(format!("{}: {}", spent.place, spent.rule)),
            };
            self.tell(Some((method, target)), Why::Quota(spent));
            return Err(Refused::Quota(denied));
        }
        let observer = &self.proxy.observer;
        observer.requested(&self.flow, (method, target), &decision);
        if let Verdict::Audited(reason) = decision.verdict {
            let request = Some((method, target));
            let denial = self.denial(request, Why::Policy(reason));
            observer.audited(&denial);
        }
        Ok(())
    }

    fn permit(&self, method: &str, target: &str) -> Result<(), Refused> {
        let engine = self.proxy.rules(&self.target);
        self.check(&self.decide(&engine, method, target), method, target)
    }

    fn misdirected(&self, refused: &Refused) {
        self.tell(None, Why::Request(refused.clone()));
    }

    fn connect(&self) -> Connecting<'_> {
        Box::pin(async {
            let dialled = self.proxy.dial(&self.target).await;
            let (stream, _) = dialled.map_err(|why| io::Error::other(why.to_string()))?;
            Ok(Metered::new(stream, self.meter.clone()))
        })
    }
}

impl<R: Resolver + 'static> ByPolicy<R> {
    fn decide<'e>(&self, engine: &'e Engine, method: &str, target: &str) -> Decision<'e> {
        let Target { host, port, .. } = &self.target;
        engine.request(host, *port, self.flow.scheme, method, target)
    }

    /// Whether the request may go by what was decided about it.
    fn check(&self, decision: &Decision<'_>, method: &str, target: &str) -> Result<(), Refused> {
        let Verdict::Deny(reason) = decision.verdict else {
            return Ok(());
        };
        let rule = self.tell(Some((method, target)), Why::Policy(reason));
        Err(Refused::Policy(Denied {
            reason: reason.to_string(),
            rule,
        }))
    }

    fn denial(&self, request: Option<(&str, &str)>, why: Why) -> Denial {
        self.proxy
            .denial(&self.target, Some(self.flow.scheme), request, why)
    }

    fn tell(&self, request: Option<(&str, &str)>, why: Why) -> Option<String> {
        self.proxy
            .tell(&self.target, Some(self.flow.scheme), request, why)
    }
}
