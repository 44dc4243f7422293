use std::net::IpAddr;

use super::{Abilities, Engine, Host, Layers, Origin, Policy, PolicyError};
use crate::HostName;

mod decisions;
mod files;
mod layers;
mod matcher;
mod paths;
mod refusals;
mod rules;
mod scale;
mod suggestions;

const INTERCEPTING: Abilities = Abilities {
    intercepts_tls: true,
};
const NOT_INTERCEPTING: Abilities = Abilities {
    intercepts_tls: false,
};

/// A filter of addresses for tests only: it knows a few networks.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !v4.is_private() && !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified()
        }
        IpAddr::V6(v6) => v6.segments()[0] & 0xe000 == 0x2000,
    }
}

fn policy(text: &str) -> Policy {
    Policy::parse(text.as_bytes(), Origin::new("p.toml")).unwrap()
}

fn user(text: &str) -> Layers {
    Layers {
        global: Some(policy(text)),
        ..Layers::default()
    }
}

fn compile(layers: &Layers) -> Result<Engine, PolicyError> {
    Engine::compile(layers, INTERCEPTING, is_public)
}

fn engine(text: &str) -> Engine {
    compile(&user(text)).unwrap()
}

fn host(text: &str) -> Host {
    let address = text.parse::<IpAddr>().map(Host::Address);
    address.unwrap_or_else(|_| Host::Name(HostName::parse(text).unwrap()))
}

/// The error of a policy that must not compile.
fn refusal(bytes: &[u8]) -> PolicyError {
    let compiled = Policy::parse(bytes, Origin::new("p.toml")).and_then(|policy| {
        compile(&Layers {
            sandbox: Some(policy),
            ..Layers::default()
        })
    });
    match compiled {
        Err(error) => error,
        Ok(_) => panic!("compiles: {}", String::from_utf8_lossy(bytes)),
    }
}
