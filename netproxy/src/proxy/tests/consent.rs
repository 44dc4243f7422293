//! Connections about which somebody is asked. What is allowed then is dialled, which in a test comes to its end at an address that is not public.

use super::*;

/// Tells its questions, and answers what it is told to.
struct Told {
    asked: Sender<String>,
    answers: tokio::sync::Mutex<tokio::sync::mpsc::UnboundedReceiver<Option<Consent>>>,
}

struct Shared(Rc<Told>);

impl Prompt for Shared {
    fn ask(&self, question: Question) -> Asking {
        let Question {
            destination,
            reason,
            rule,
        } = question;
        drop(
            self.0
                .asked
                .send(format!("{destination}: {reason}: {rule}")),
        );
        let told = Rc::clone(&self.0);
        Box::pin(async move { told.answers.lock().await.recv().await.unwrap() })
    }
}

struct Asked {
    bench: Bench,
    asked: Receiver<String>,
    answers: tokio::sync::mpsc::UnboundedSender<Option<Consent>>,
}

impl Asked {
    fn new(policy: &str, repository: &str) -> Self {
        let (tell, asked) = channel();
        let (answers, next) = tokio::sync::mpsc::unbounded_channel();
        let prompt = |proxy: Proxy<Everything>| {
            let answers = tokio::sync::Mutex::new(next);
            let told = Told {
                asked: tell,
                answers,
            };
            proxy.ask(Some(Rc::new(Shared(Rc::new(told)))));
            proxy
        };
        let engine = engine_within(policy, repository);
        let own = || Ok(HostAddresses::default());
        Self {
            bench: Bench::set_up(engine, own, prompt),
            asked,
            answers,
        }
    }

    fn answer(&self, consent: impl Into<Option<Consent>>) {
        self.answers.send(consent.into()).unwrap();
    }

    /// Why a connection did not come about.
    fn attempt(&mut self, name: &str, port: u16) -> String {
        let connection = self.bench.connect(name, port);
        assert!(!self.bench.guest.is_connected(connection));
        self.bench.told()
    }

    fn asked(&mut self) -> String {
        let asked = &self.asked;
        self.bench.guest.until(|_| asked.try_recv().ok()).unwrap()
    }
}

const NO_RULE: &str = "a.example:443: no rule allows this host";
const RULE: &str = "allow = [{ host = \"a.example\" }]";

fn is_dialled(told: &str) -> bool {
    told.contains("127.0.0.1 may not be dialled")
}

#[test]
fn a_no_holds_until_there_is_another_policy() {
    let mut asked = Asked::new("", "");
    asked.answer(Consent::No);
    assert_eq!(asked.attempt("a.example", 443), NO_RULE);
    assert_eq!(asked.asked(), format!("{NO_RULE}: {RULE}"));
    assert_eq!(asked.attempt("a.example", 443), NO_RULE);
    assert!(asked.asked.try_recv().is_err(), "asked again");
    asked.bench.policies.send(String::new()).unwrap();
    asked.answer(Consent::Once);
    // It holds a moment after it was sent.
    let mut tries = 0..1000;
    while !is_dialled(&asked.attempt("a.example", 443)) {
        assert!(tries.next().is_some());
    }
    assert_eq!(asked.asked(), format!("{NO_RULE}: {RULE}"));
}

#[test]
fn once_is_for_one_connection() {
    let mut asked = Asked::new("", "");
    for _ in 0..3 {
        asked.answer(Consent::Once);
        assert!(is_dialled(&asked.attempt("a.example", 443)));
        assert_eq!(asked.asked(), format!("{NO_RULE}: {RULE}"));
    }
}

#[test]
fn always_holds_over_other_policies_and_for_what_the_rule_says() {
    let mut asked = Asked::new("", "");
    asked.answer(Consent::Always);
    assert!(is_dialled(&asked.attempt("a.example", 443)));
    asked.asked();
    assert!(is_dialled(&asked.attempt("a.example", 443)));
    // One that says the same itself, and one that says nothing of it.
    for policy in ["[[allow]]\nhost = \"a.example\"\n", "mode = \"enforce\"\n"] {
        asked.bench.policies.send(policy.to_owned()).unwrap();
        assert!(is_dialled(&asked.attempt("a.example", 443)));
    }
    assert!(asked.asked.try_recv().is_err(), "asked again");
    asked.answer(Consent::No);
    let other = "a.example:22: no rule allows this port of the host";
    assert_eq!(asked.attempt("a.example", 22), other);
    let rule = "allow = [{ host = \"a.example\", scheme = \"tcp\", ports = [22] }]";
    assert_eq!(asked.asked(), format!("{other}: {rule}"));
    // What denies it is stronger.
    let deny = "[[deny]]\nhost = \"a.example\"\n";
    asked.bench.policies.send(deny.to_owned()).unwrap();
    // It holds a moment after it was sent.
    let mut tries = 0..1000;
    while asked.bench.guest.resolve("a.example").is_some() {
        assert!(tries.next().is_some());
    }
    assert_eq!(asked.bench.told(), "a.example: a rule denies it");
}

#[test]
fn what_nobody_answers_is_asked_again() {
    let mut asked = Asked::new("", "");
    for _ in 0..2 {
        asked.answer(None);
        assert_eq!(asked.attempt("a.example", 443), NO_RULE);
        assert_eq!(asked.asked(), format!("{NO_RULE}: {RULE}"));
    }
}

#[test]
fn a_rule_holds_though_the_guest_gave_up_before_the_answer() {
    let mut asked = Asked::new("", "");
    let connection = asked.bench.connect("a.example", 443);
    asked.asked();
    asked.bench.guest.abort(connection);
    // It has come when something behind it is answered.
    asked.bench.guest.resolve("b.example");
    asked.answer(Consent::Always);
    let mut tries = 0..1000;
    while !is_dialled(&asked.attempt("a.example", 443)) {
        assert!(tries.next().is_some());
    }
    assert!(asked.asked.try_recv().is_err(), "asked again");
}

#[test]
fn only_what_a_rule_of_the_user_could_allow_is_asked_about() {
    let denied = "[[deny]]\nhost = \"evil.example\"\n[[allow]]\nhost = \"half.example\"\n[[deny]]\nhost = \"half.example\"\nports = [80]\nscheme = \"http\"\n";
    let service = service("a.host", SocketAddr::from(([127, 0, 0, 1], 9)), "tcp", 7);
    let mut asked = Asked::new(&(denied.to_owned() + &service), "");
    assert_eq!(asked.bench.guest.resolve("evil.example"), None);
    assert_eq!(asked.bench.guest.resolve("localhost"), None);
    asked.bench.told();
    asked.bench.told();
    asked.attempt("a.host", 8);
    asked.attempt("half.example", 80);
    for address in ["10.0.0.1:443", "127.0.0.1:80", "169.254.169.254:80"] {
        let connection = asked.bench.guest.connect(address.parse().unwrap());
        assert!(!asked.bench.guest.is_connected(connection), "{address}");
        asked.bench.told();
    }
    assert!(asked.asked.try_recv().is_err());
    let repository = "[[allow]]\nhost = \"b.example\"\n";
    let user = "[[allow]]\nhost = \"a.example\"\n";
    let mut asked = Asked::new(user, repository);
    assert_eq!(asked.bench.guest.resolve("a.example"), None);
    // The user's rule would not be enough.
    assert_eq!(asked.bench.guest.resolve("c.example"), None);
    assert!(asked.asked.try_recv().is_err());
}

#[test]
fn several_attempts_are_one_question() {
    let mut asked = Asked::new("", "");
    let all: Vec<_> = (0..5)
        .map(|_| asked.bench.connect("a.example", 443))
        .collect();
    asked.asked();
    // All have come when something behind them is answered.
    asked.bench.guest.resolve("b.example");
    asked.answer(Consent::Once);
    for connection in all {
        assert!(!asked.bench.guest.is_connected(connection));
        assert!(is_dialled(&asked.bench.told()));
    }
    assert!(asked.asked.try_recv().is_err(), "asked again");
}

#[test]
fn no_more_questions_wait_than_the_cap_and_a_rule_answers_them() {
    let mut asked = Asked::new("", "");
    let connections: Vec<_> = (0..MAX_QUESTIONS)
        .map(|number| asked.bench.connect(&format!("n{number}.example"), 443))
        .collect();
    for _ in &connections {
        asked.asked();
    }
    let told = asked.attempt("a.example", 443);
    assert_eq!(told, NO_RULE);
    assert!(asked.asked.try_recv().is_err(), "one too many");
    let rules = "[[allow]]\nhost = \"n0.example\"\n".to_owned();
    asked.bench.policies.send(rules).unwrap();
    assert!(!asked.bench.guest.is_connected(connections[0]));
    assert!(is_dialled(&asked.bench.told()));
}

#[test]
fn another_scheme_is_another_question() {
    let mut asked = Asked::new("", "");
    let itself = asked.bench.connect("a.example", 8080);
    assert!(
        asked
            .asked()
            .ends_with("allow = [{ host = \"a.example\", ports = [8080] }]")
    );
    let gateway = asked.bench.guest.network().gateway;
    let to = SocketAddrV4::new(gateway, PROXY_PORT);
    let fetch = asked.bench.guest.connect(to);
    let head = b"GET http://a.example:8080/ HTTP/1.1\r\nHost: a.example:8080\r\n\r\n";
    assert!(asked.bench.guest.send(fetch, head));
    let rule = "allow = [{ host = \"a.example\", scheme = \"http\", ports = [8080] }]";
    assert!(asked.asked().ends_with(rule));
    asked.answer(Consent::Once);
    asked.answer(Consent::No);
    assert!(!asked.bench.guest.is_connected(itself));
    let (answer, _) = asked.bench.guest.receive_all(fetch);
    let both = [asked.bench.told(), asked.bench.told()];
    assert_eq!(
        both.iter().filter(|told| is_dialled(told)).count(),
        1,
        "{both:?}"
    );
    assert!(!answer.is_empty());
}
