//! Which names the guest does not see, and which it must not change.
//!
//! A rule speaks of names, at every depth of the tree, whether the file exists or not. No path is stored for it: each directory
//! that the guest holds carries a [`State`], how far the rules have come along the names that led there, and a name in it is judged by
//! that state alone. So that a state stays true, a directory whose name is part of a rule cannot be renamed by the guest.
//!
//! Names are compared without regard to case, Unicode form, ignorable characters and trailing dots and spaces ([`mod@fold`]), because some
//! file system or tool of the host ignores each of these.

mod defaults;
mod fold;
pub(crate) mod git_config;

use std::fmt;
use std::path::{Component, Path};

use thiserror::Error;

use self::fold::fold;

/// Steps of all rules together, short of each one's last.
const MOST_STEPS: u32 = 60;

/// Why a pattern is no rule.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RuleError {
    /// Nothing, `.` or `..` between two slashes, `**` at the end, or brackets that do not close within a name.
    #[error(
        "`{0}` is no pattern of names: write `name`, `*.suffix`, `folder/name`, `folder/**/name` or `/name-at-the-top`"
    )]
    Pattern(String),
    /// The patterns have too many parts.
    #[error("the patterns have more than {MOST_STEPS} folders in all")]
    TooMany,
}

/// What a rule does to the names that match it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// The guest does not see it and cannot make it.
    Hidden,
    /// The guest reads it, and can neither change, make, replace nor remove it, nor anything below it.
    Protected,
    /// As protected, except that it may be removed while it holds harmless settings only, and that a file may be renamed to it whose content [`git_config`] admits, as git does.
    GitConfig,
}

/// The rules of a share: hidden names (the guest sees `ENOENT`, and cannot make them) and protected names (readable, and
/// otherwise `EPERM`).
///
/// A pattern is one name or several with `/` between them, with `*`, `?`, `[...]` and `{a,b}` as in a shell, `**` for any number of folders.
/// It holds at every depth; with a leading `/`, at the top only. A leading `!` takes back what earlier patterns of the same list say of
/// the name; it frees nothing below a protected folder. All patterns together, the usual ones too, have room for 60 folders. `?` and `[...]` stand for one byte of UTF-8.
#[derive(Clone, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    steps: u32,
}

#[derive(Clone)]
struct Rule {
    parts: Vec<Part>,
    guard: Guard,
    /// It takes an earlier rule back.
    exception: bool,
    anchored: bool,
    /// Directories of that name are free.
    spares_directories: bool,
    /// Bit of the first step that is remembered.
    first: u32,
}

#[derive(Clone)]
enum Part {
    AnyDepth,
    Exactly(String),
    Glob(String),
}

/// How far the rules have come along the way to a directory, and what that says of the node itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State(u64);

impl State {
    /// The directory at the top.
    pub(crate) const TOP: Self = Self(1 << 63);
    /// Nothing of the node may change.
    const PROTECTED: u64 = 1 << 62;
    /// The file had several names when it was seen first: nothing of it may change.
    const LINKED: u64 = 1 << 60;
    /// Its content may not change. (Git tries by a `config` whether modes can be set.)
    const FROZEN: u64 = 1 << 61;

    pub(crate) const fn is_protected(self) -> bool {
        self.0 & Self::PROTECTED != 0
    }

    /// Whether its content may not change.
    pub(crate) const fn is_frozen(self) -> bool {
        self.0 & (Self::PROTECTED | Self::FROZEN | Self::LINKED) != 0
    }

    /// Whether a rule keeps its content as it is.
    pub(crate) const fn is_guarded(self) -> bool {
        self.0 & (Self::PROTECTED | Self::FROZEN) != 0
    }

    /// Whether it had several names when it was seen first.
    pub(crate) const fn is_linked(self) -> bool {
        self.0 & Self::LINKED != 0
    }

    #[must_use]
    pub(crate) const fn linked(self) -> Self {
        Self(self.0 | Self::LINKED)
    }

    #[must_use]
    pub(crate) const fn frozen(self) -> Self {
        Self(self.0 | Self::FROZEN)
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    pub(crate) const fn of_bits(bits: u64) -> Self {
        Self(bits)
    }

    const fn has(self, bit: u32) -> bool {
        self.0 & 1 << bit != 0
    }
}

/// What the rules say of a name in a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// The guard of a directory of that name, and of anything else.
    guards: [Option<Guard>; 2],
    steps: State,
    /// A rule that guards something goes on below the name.
    leads: bool,
}

impl Judgement {
    pub(crate) fn guard(self, is_directory: bool) -> Option<Guard> {
        let [directory, other] = self.guards;
        if is_directory { directory } else { other }
    }

    /// Whether the name is like any other.
    pub(crate) fn is_free(self) -> bool {
        self.guards == [None; 2]
    }

    /// Whether a rule goes on below the name: a link of that name would lead the host elsewhere.
    pub(crate) fn is_on_the_way(self) -> bool {
        self.leads
    }

    pub(crate) fn is_hidden(self) -> bool {
        self.guards.contains(&Some(Guard::Hidden))
    }

    /// The state of a node of that name.
    pub(crate) fn state(self, is_directory: bool) -> State {
        match self.guard(is_directory) {
            Some(Guard::Protected) => State(self.steps.0 | State::PROTECTED),
            Some(Guard::GitConfig) => self.steps.frozen(),
            Some(Guard::Hidden) | None => self.steps,
        }
    }
}

impl Rules {
    /// No rules.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a pattern of names that the guest does not see.
    ///
    /// # Errors
    /// [`RuleError`]; the rules are as before.
    pub fn hide(&mut self, pattern: &str) -> Result<(), RuleError> {
        self.add(pattern, Guard::Hidden, false)
    }

    /// Adds a pattern of names that the guest cannot change.
    ///
    /// # Errors
    /// [`RuleError`]; the rules are as before.
    pub fn protect(&mut self, pattern: &str) -> Result<(), RuleError> {
        self.add(pattern, Guard::Protected, false)
    }

    /// Whether a directory at this path is hidden or protected, or lies in what is: shared by itself it would be free.
    #[must_use]
    pub fn concern(&self, directory: &Path) -> bool {
        let mut state = State::default();
        names(directory).any(|name| {
            let judged = self.judge(state, name);
            state = judged.state(true);
            judged.guard(true).is_some()
        })
    }

    /// The state of the top of a tree that lies at this path: rules that have begun on the way there go on below it. What they say of the way
    /// itself does not count.
    pub(crate) fn at(&self, place: &Path) -> State {
        let way = names(place).fold(State::default(), |state, name| {
            self.judge(state, name).steps
        });
        State(way.0 | State::TOP.0)
    }

    fn add(&mut self, text: &str, guard: Guard, spares_directories: bool) -> Result<(), RuleError> {
        let (exception, pattern) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (anchored, pattern) = match pattern.strip_prefix('/') {
            Some(rest) => (true, rest),
            None => (false, pattern),
        };
        // At any depth is where a pattern holds without a slash before it.
        let (anchored, pattern) = match pattern.strip_prefix("**/") {
            Some(rest) => (false, rest),
            None => (anchored, pattern),
        };
        let parts: Option<Vec<Part>> = pattern.split('/').map(Part::new).collect();
        let parts = parts
            .filter(|parts| !matches!(parts.last(), None | Some(Part::AnyDepth)))
            .ok_or_else(|| RuleError::Pattern(text.into()))?;
        let steps = u32::try_from(parts.len() - 1).map_err(|_| RuleError::TooMany)?;
        let all = self.steps.saturating_add(steps);
        if all > MOST_STEPS {
            return Err(RuleError::TooMany);
        }
        self.rules.push(Rule {
            parts,
            guard,
            exception,
            anchored,
            spares_directories,
            first: self.steps,
        });
        self.steps = all;
        Ok(())
    }

    /// What the rules say of `name` in a directory in this state.
    pub(crate) fn judge(&self, directory: State, name: &[u8]) -> Judgement {
        let mut judged = Judgement::default();
        if self.rules.is_empty() {
            return judged;
        }
        let name = fold(&String::from_utf8_lossy(name));
        let mut protects = [None; 2];
        let mut hides = [None; 2];
        for rule in &self.rules {
            let (matched, steps) = rule.follow(directory, &name);
            judged.steps.0 |= steps;
            judged.leads |= steps != 0 && !rule.exception;
            if matched {
                let guards = if rule.guard == Guard::Hidden {
                    &mut hides
                } else {
                    &mut protects
                };
                rule.decide(guards);
            }
        }
        if directory.is_protected() {
            protects = [Some(Guard::Protected); 2];
        }
        let [directory, other] = [0, 1].map(|kind: usize| {
            let of = |guards: &[Option<Guard>; 2]| guards.get(kind).copied().flatten();
            of(&hides).or(of(&protects))
        });
        judged.guards = [directory, other];
        judged
    }
}

fn names(path: &Path) -> impl Iterator<Item = &[u8]> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.as_encoded_bytes()),
        _ => None,
    })
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.rules).finish()
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {self}", self.guard)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.exception { "!" } else { "" };
        let top = if self.anchored { "/" } else { "" };
        let parts: Vec<_> = self.parts.iter().map(Part::text).collect();
        write!(f, "{sign}{top}{}", parts.join("/"))
    }
}

impl Rule {
    /// Takes one step from the directory's state: whether the rule ends with this name, and the steps that go on below it.
    fn follow(&self, directory: State, name: &str) -> (bool, u64) {
        let (mut matched, mut steps) = (false, 0);
        let mut came_by_any_depth = false;
        for (at, part) in (0..).zip(&self.parts) {
            let begins = at == 0 && (!self.anchored || directory.has(63));
            let is_here = begins || came_by_any_depth || (at > 0 && directory.has(self.bit(at)));
            came_by_any_depth = false;
            if !is_here {
                continue;
            }
            if let Part::AnyDepth = part {
                // Any name may come here; or none, and the next part begins in the same directory.
                steps |= if at > 0 { 1 << self.bit(at) } else { 0 };
                came_by_any_depth = true;
            } else if part.matches(name) {
                if (at as usize) + 1 == self.parts.len() {
                    matched = true;
                } else {
                    steps |= 1 << self.bit(at + 1);
                }
            }
        }
        (matched, steps)
    }

    /// The bit that says that part `at`, which is not the first, comes next.
    const fn bit(&self, at: u32) -> u32 {
        self.first + at - 1
    }

    fn decide(&self, guards: &mut [Option<Guard>; 2]) {
        let guard = (!self.exception).then_some(self.guard);
        let [directory, other] = guards;
        if !self.spares_directories {
            *directory = guard;
        }
        *other = guard;
    }
}

impl Part {
    fn new(text: &str) -> Option<Self> {
        match text {
            "" | "." | ".." => None,
            "**" => Some(Self::AnyDepth),
            _ if text.contains(['*', '?', '[', '{', '\\']) => Self::glob(text),
            // A file system that ignores all of the name has no such file.
            _ => Some(Self::Exactly(fold(text))).filter(|part| !part.text().is_empty()),
        }
    }

    fn glob(text: &str) -> Option<Self> {
        let folded = fold(text);
        // A pattern may not lose its end, nor turn its meaning round.
        let is_whole = !text.ends_with(['.', ' ']) && !text.starts_with('!');
        let closes = fast_glob::validate(&folded).is_ok();
        (is_whole && closes).then_some(Self::Glob(folded))
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::AnyDepth => true,
            Self::Exactly(text) => text == name,
            Self::Glob(pattern) => fast_glob::glob_match(pattern, name),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::AnyDepth => "**",
            Self::Exactly(text) | Self::Glob(text) => text,
        }
    }
}

#[cfg(test)]
mod tests;
