//! The guest's network: what it may reach, and what it was kept from.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::audit::AuditLog;
use crate::error::{Error, Result};
use crate::plan::PolicyLayer;
use crate::text::printable;
use netproxy::policy::{Abilities, Engine, LARGEST_FILE, Layers, Origin, Policy};

/// What a guest may connect to, as text in the form of [`netproxy::policy`], in up to three layers. Without any it may connect to nothing, and
/// names do not resolve.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[must_use = "a policy does nothing until a sandbox is started with it"]
pub struct NetworkPolicy {
    pub(crate) layers: Vec<Layer>,
    pub(crate) audit: Option<AuditLog>,
}

/// A layer of a policy, as it was written.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Layer {
    pub(crate) whose: PolicyLayer,
    /// Where it was written, for messages.
    pub(crate) origin: String,
    pub(crate) text: Vec<u8>,
}

impl NetworkPolicy {
    /// Most bytes of a layer; a longer one is refused.
    pub const LARGEST_LAYER: usize = LARGEST_FILE;

    /// Most bytes of a layer's origin; a longer one is refused.
    pub const LONGEST_ORIGIN: usize = 4096;

    /// Denies everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the host user's policy for all sandboxes, written in `origin`.
    pub fn global(self, origin: &str, text: impl Into<Vec<u8>>) -> Self {
        self.with(PolicyLayer::Global, origin, text.into())
    }

    /// Adds this sandbox's policy, written in `origin`.
    pub fn sandbox(self, origin: &str, text: impl Into<Vec<u8>>) -> Self {
        self.with(PolicyLayer::Sandbox, origin, text.into())
    }

    /// Adds the policy of the repository that the guest works on, written in `origin`. It can only tighten the others.
    pub fn repository(self, origin: &str, text: impl Into<Vec<u8>>) -> Self {
        self.with(PolicyLayer::Repository, origin, text.into())
    }

    /// Writes every decision to a log: a path, or what [`AuditLog`] says of it.
    pub fn audit_log(mut self, log: impl Into<AuditLog>) -> Self {
        self.audit = Some(log.into());
        self
    }

    fn with(mut self, whose: PolicyLayer, origin: &str, text: Vec<u8>) -> Self {
        self.layers.retain(|layer| layer.whose != whose);
        let origin = origin.to_owned();
        self.layers.push(Layer {
            whose,
            origin,
            text,
        });
        self
    }

    /// What decides by it: the same as in the guest's network.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if it is no policy.
    pub fn engine(&self) -> Result<Engine> {
        let mut origins = self.layers.iter().map(|layer| layer.origin.len());
        if origins.any(|len| len > Self::LONGEST_ORIGIN) {
            let message = "a policy's origin is longer than a path can be";
            return Err(Error::Config(message.into()));
        }
        let layers = self
            .layers
            .iter()
            .map(|layer| (layer.whose, &*layer.origin, &*layer.text));
        compile(layers).map_err(Error::Config)
    }

    /// Whether it is a policy.
    pub(crate) fn check(&self) -> Result<()> {
        self.engine().map(drop)
    }
}

/// What a guest's network does with connections beside deciding about them: what rules can be enforced.
pub const ABILITIES: Abilities = Abilities {
    intercepts_tls: false,
};

/// Whether rules can name `address`: it is public. Whether it is one of this host's own is known when it is dialled.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    netproxy::address::check(address).is_ok()
}

/// What decides by these layers.
///
/// # Errors
///
/// What is wrong with them, in a line.
pub(crate) fn compile<'a>(
    layers: impl IntoIterator<Item = (PolicyLayer, &'a str, &'a [u8])>,
) -> std::result::Result<Engine, String> {
    let mut all = Layers::default();
    for (whose, origin, text) in layers {
        let policy = Policy::parse(text, Origin::new(origin)).map_err(|error| error.to_string())?;
        let place = match whose {
            PolicyLayer::Global => &mut all.global,
            PolicyLayer::Sandbox => &mut all.sandbox,
            PolicyLayer::Repository => &mut all.repository,
        };
        *place = Some(policy);
    }
    Engine::compile(&all, ABILITIES, is_public).map_err(|error| error.to_string())
}

/// Most connections and requests that are told of those that were denied, each once.
pub(crate) const MAX_DENIED: usize = 1024;

/// A connection or a request that the guest was kept from.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub struct Denied {
    /// Where to, safe to print.
    pub destination: String,
    /// Why, in a line.
    pub reason: String,
    /// A rule that would allow it, in a line of TOML, if a rule could and the line is short and safe to print.
    pub rule: Option<String>,
}

impl Denied {
    /// With texts of the guest's, of any length and with anything in them.
    pub(crate) fn new(destination: &str, reason: &str, rule: Option<&str>) -> Self {
        Self {
            destination: printable(destination),
            reason: printable(reason),
            // A part of a rule would be another rule.
            rule: rule
                .filter(|rule| printable(rule) == *rule)
                .map(str::to_owned),
        }
    }
}

impl Denied {
    /// As a worker told it, which may say of anything that it is safe to print.
    pub(crate) fn checked(&self) -> Self {
        Self::new(&self.destination, &self.reason, self.rule.as_deref())
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.destination, self.reason)
    }
}
