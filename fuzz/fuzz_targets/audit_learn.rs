//! Audit logs of any records and lines, learned from: what comes of it is a policy, which allows what was let through, and nothing of it acts on a terminal.
#![no_main]

use cofferdam_fuzz::Input;
use libfuzzer_sys::fuzz_target;
use netproxy::HostName;
use netproxy::audit::{Digest, Event, Record, Verdict};
use netproxy::learn::{Learner, Wildcards};
use netproxy::policy::{
    Abilities, Engine, Host, Layers, Origin, Policy, Scheme, Verdict as Decided,
};

const ABILITIES: Abilities = Abilities {
    intercepts_tls: false,
};
/// Policies that deny nothing and judge no requests, so that all that is learned can stand beside them.
const EXISTING: [&str; 3] = [
    "",
    "mode = 'audit'\n[[allow]]\nhost = 'a.example'",
    "[[allow]]\nhost = '*.d.example'\nscheme = 'tcp'\nports = [22, 80]",
];
const HOSTS: [&str; 8] = [
    "a.example",
    "b.example",
    "d.example",
    "x.d.example",
    "y.d.example",
    "z.d.example",
    "8.8.8.8",
    "x.co.uk",
];
const PATHS: [&str; 8] = ["/", "/a", "/a/", "/a/b?c=", "/%61", "//", "/a*", "*"];

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let existing = input.choose(&EXISTING);
    let wildcards = input.choose(&[Wildcards::Never, Wildcards::Below]);
    let mut learner = Learner::new(policy(existing), ABILITIES, is_public).expect("a policy");
    let mut permitted = Vec::new();
    while !input.is_empty() && permitted.len() < 200 {
        if input.below(8) == 0 {
            learner.learn(input.blob());
            continue;
        }
        let record = record(&mut input);
        let sandbox = text(&mut input, &["box"]);
        learner.learn(record.line(&Digest::default(), &sandbox).as_bytes());
        permitted.push(record);
    }
    let learned = learner
        .finish(wildcards)
        .expect("what was learned can be added");
    let text = learned.to_string();
    assert!(
        !text.chars().any(|c| c.is_control() && c != '\n'),
        "{text:?}"
    );
    let rules = policy(&text);
    assert!(rules.deny.is_empty() && rules.service.is_empty() && rules.mode.is_none());
    assert_eq!(rules.allow.len(), learned.rules().len(), "{text}");
    let named = |host: &str| !host.contains('*') || wildcards == Wildcards::Below;
    assert!(rules.allow.iter().all(|rule| named(&rule.host)), "{text}");
    let layers = Layers {
        global: Some(policy(existing)),
        sandbox: Some(rules),
        repository: None,
    };
    let engine = Engine::compile(&layers, ABILITIES, is_public).expect("a policy");
    for record in &permitted {
        assert!(is_allowed(&engine, record), "{record:?} {text}");
    }
});

fn policy(text: &str) -> Policy {
    Policy::parse(text.as_bytes(), Origin::new("fuzz")).expect("a policy")
}

fn is_public(address: std::net::IpAddr) -> bool {
    netproxy::address::check(address).is_ok()
}

/// One of `known`, or any.
fn text(input: &mut Input<'_>, known: &[&str]) -> String {
    match input.below(known.len() + 1) {
        0 => String::from_utf8_lossy(input.blob()).into_owned(),
        at => known[at - 1].to_owned(),
    }
}

fn record(input: &mut Input<'_>) -> Record {
    let scheme = input.choose(&Scheme::ALL);
    let request = (scheme == Scheme::Http).then(|| {
        let method = text(input, &["GET", "HEAD", "POST", "get"]);
        (method, text(input, &PATHS))
    });
    Record {
        event: match request {
            Some(_) => Event::Request,
            None => Event::Opened,
        },
        host: Some(text(input, &HOSTS)),
        port: Some(input.choose(&[22, 80, 443, 8080])),
        scheme: Some(scheme),
        request,
        verdict: Some(input.choose(&[Verdict::Allow, Verdict::Audit])),
        ..Record::lost(input.u64() >> 20, 0)
    }
}

/// Whether a rule allows what is recorded, if it is something that a policy could be about.
fn is_allowed(engine: &Engine, record: &Record) -> bool {
    let (Some(text), Some(port), Some(scheme)) = (&record.host, record.port, record.scheme) else {
        return true;
    };
    let host = match (text.parse(), HostName::parse(text)) {
        (Ok(address), _) if is_public(address) && address.to_string() == *text => {
            Host::Address(address)
        }
        (_, Ok(name)) if name.as_str() == text => Host::Name(name),
        _ => return true,
    };
    let verdict = match &record.request {
        _ if engine.is_carried_unread(&host, port) => Decided::Allow,
        Some((method, path)) => engine.request(&host, port, scheme, method, path).verdict,
        None => engine.connection(&host, port, scheme).verdict,
    };
    verdict == Decided::Allow
}
