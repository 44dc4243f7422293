//! Plain HTTP: each request is judged by the policy of its moment.

use std::io;
use std::rc::Rc;

use tokio::net::TcpStream;

use super::{Proxy, Target, Why};
use crate::dial::Resolver;
use crate::http::{self, Authority, Judge, Refused};
use crate::policy::{Host, Scheme, Verdict};
use crate::stack::GuestStream;

/// Serves the requests of a connection until it ends, or the policy does not allow it any more.
pub(super) async fn serve<R: Resolver + 'static>(
    proxy: Rc<Proxy<R>>,
    guest: GuestStream,
    upstream: TcpStream,
    target: &Target,
) {
    let Host::Name(name) = &target.host else {
        // An address is allowed for bytes that nobody reads only.
        return;
    };
    let authority = Authority {
        name: name.clone(),
        port: target.port,
    };
    let judge = Rc::new(ByPolicy {
        proxy: Rc::clone(&proxy),
        target: target.copy(),
    });
    tokio::select! {
        biased;
        () = proxy.until_denied(target, Scheme::Http) => {}
        // What went wrong between the two is theirs.
        done = http::serve(guest, upstream, authority, judge) => drop(done),
    }
}

struct ByPolicy<R> {
    proxy: Rc<Proxy<R>>,
    target: Target,
}

impl<R: Resolver + 'static> Judge for ByPolicy<R> {
    fn judge(&self, method: &str, path: &str) -> Result<(), Refused> {
        let engine = self.proxy.engine();
        let Target { host, port, .. } = &self.target;
        match engine
            .request(host, *port, Scheme::Http, method, path)
            .verdict
        {
            Verdict::Deny(reason) => {
                let request = Some((method, path));
                let rule = self.proxy.tell(&self.target, request, Why::Policy(reason));
                let how = rule.map(|rule| format!("; to allow it, add: {rule}"));
                Err(Refused::Policy(format!(
                    "{reason}{}",
                    how.unwrap_or_default()
                )))
            }
            _ => Ok(()),
        }
    }

    fn misdirected(&self, refused: &Refused) {
        self.proxy
            .tell(&self.target, None, Why::Request(refused.clone()));
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        self.proxy
            .dial(&self.target)
            .await
            .map_err(|why| io::Error::other(why.to_string()))
    }
}
