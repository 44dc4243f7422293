use super::*;

fn rules(hidden: &[&str], protected: &[&str]) -> Rules {
    let mut rules = Rules::none();
    for pattern in hidden {
        rules.hide(pattern).unwrap();
    }
    for pattern in protected {
        rules.protect(pattern).unwrap();
    }
    rules
}

/// What the rules say of a path from the top whose last name is no directory.
fn guard(rules: &Rules, path: &str) -> Option<Guard> {
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    let folders = folders.split('/').filter(|folder| !folder.is_empty());
    let state = folders.fold(State::TOP, |state, folder| {
        rules.judge(state, folder.as_bytes()).state(true)
    });
    rules.judge(state, name.as_bytes()).guard(false)
}

#[test]
fn a_pattern_holds_at_every_depth_or_at_the_top() {
    let rules = rules(&[".env", "a/b", "/top", "/x/y"], &[]);
    for (path, hidden) in [
        (".env", true),
        ("deep/er/.env", true),
        (".ENV", true),
        (".env. ", true),
        (".environment", false),
        ("a/b", true),
        ("z/a/b", true),
        ("a/z/b", false),
        ("b", false),
        ("top", true),
        ("z/top", false),
        ("x/y", true),
        ("z/x/y", false),
    ] {
        assert_eq!(guard(&rules, path).is_some(), hidden, "{path}");
    }
}

#[test]
fn any_depth_is_none_or_many_folders() {
    let rules = rules(&[], &["m/**/c", "**/d", "/**/n"]);
    for (path, protected) in [
        ("m/c", true),
        ("m/1/c", true),
        ("m/1/2/3/c", true),
        ("0/m/1/c", true),
        ("c", false),
        ("x/c", false),
        ("d", true),
        ("x/y/d", true),
        ("n", true),
        ("x/y/n", true),
    ] {
        assert_eq!(guard(&rules, path).is_some(), protected, "{path}");
    }
}

#[test]
fn later_exceptions_win_and_hiding_beats_protecting() {
    let rules = rules(
        &[".env.*", "!.env.example", "secret"],
        &["secret", "*.lock", "!Cargo.lock"],
    );
    for (path, expected) in [
        (".env.local", Some(Guard::Hidden)),
        (".env.example", None),
        ("secret", Some(Guard::Hidden)),
        ("yarn.lock", Some(Guard::Protected)),
        ("cargo.lock", None),
    ] {
        assert_eq!(guard(&rules, path), expected, "{path}");
    }
}

#[test]
fn what_lies_below_a_protected_folder_is_protected() {
    let rules = rules(&["*.key"], &[".git/hooks"]);
    assert_eq!(guard(&rules, ".git/hooks/a/b"), Some(Guard::Protected));
    assert_eq!(guard(&rules, ".git/hooks/a.key"), Some(Guard::Hidden));
    assert_eq!(guard(&rules, "hooks/a"), None);
}

#[test]
fn the_way_to_a_rule_shows_in_the_state() {
    let rules = rules(&[], &[".git/hooks"]);
    let state = |name: &str| rules.judge(State::TOP, name.as_bytes()).state(true);
    assert_ne!(state(".git"), state("a"));
    assert_eq!(state("b"), state("a"));
}

#[test]
fn patterns_that_are_none_are_refused() {
    let mut rules = Rules::none();
    for pattern in [
        "",
        "!",
        "/",
        "a//b",
        "a/",
        "a/..",
        "./a",
        "**",
        "a/**",
        "**/",
        "*.{key,pem",
        "{a,b/c}",
        "a/!b*",
        "*.",
        "[",
        " ",
        "...",
        "a/. ",
    ] {
        let refused = RuleError::Pattern(pattern.into());
        assert_eq!(rules.hide(pattern), Err(refused), "{pattern}");
    }
    let long = vec!["x"; 31].join("/");
    assert_eq!(rules.hide(&long), Ok(()));
    assert_eq!(rules.protect(&long), Ok(()));
    assert_eq!(rules.hide("a/b"), Err(RuleError::TooMany));
}

#[test]
fn the_usual_rules_are_valid_and_mean_what_they_say() {
    #[cfg(target_os = "linux")]
    Rules::try_run_on_host().unwrap();
    let usual = Rules::try_usual().unwrap();
    for (path, expected) in [
        ("app/.env", Some(Guard::Hidden)),
        (".env.production", Some(Guard::Hidden)),
        (".env.example", None),
        ("server.pem", Some(Guard::Hidden)),
        ("cert-key.pem", Some(Guard::Hidden)),
        ("pip/_vendor/certifi/cacert.pem", None),
        ("fullchain.pem", None),
        ("ca.pem", None),
        (".git/worktrees/w/commondir", Some(Guard::Protected)),
        (".git/objects/info/alternates", Some(Guard::Protected)),
        ("node_modules/a/b/.vscode/x", None),
        ("node_modules/a/.env", Some(Guard::Hidden)),
        ("id_ed25519", Some(Guard::Hidden)),
        ("id_ed25519.pub", None),
        ("id_card.rs", None),
        (".aws/credentials", Some(Guard::Hidden)),
        (".git/hooks/pre-commit", Some(Guard::Protected)),
        (".GIT/hooks/pre-commit", Some(Guard::Protected)),
        ("sub/.git", Some(Guard::Protected)),
        (".git/config", Some(Guard::GitConfig)),
        (".git/modules/a/b/config", Some(Guard::GitConfig)),
        (".git/index", None),
        (".git/config.lock", None),
        (".vscode/tasks.json", Some(Guard::Protected)),
        ("src/main.rs", None),
        ("Makefile", None),
    ] {
        assert_eq!(guard(&usual, path), expected, "{path}");
    }
    for (path, concerns) in [
        ("/home/u/project", false),
        ("/home/u/.config/tool", false),
        ("/home/u/.config", false),
        ("/home/u/.config/gcloud", true),
        ("/p/.git", false),
        ("/p/.git/hooks", true),
        ("/p/.git/modules/x", false),
        ("/p/.git/modules/x/hooks", true),
        ("/p/node_modules/x", false),
        ("/p/.vscode", true),
        ("/p/.vscode/x", true),
        ("/", false),
    ] {
        assert_eq!(usual.concern(Path::new(path)), concerns, "{path}");
    }
    assert!(
        usual.steps <= 45,
        "{}: a user has patterns too",
        usual.steps
    );
    let directory = usual.judge(State::TOP, b".git");
    assert_eq!(directory.guard(true), None);
}

#[test]
fn rules_go_on_in_a_tree_that_lies_where_they_have_begun() {
    let mut rules = Rules::usual();
    rules.protect("/top").unwrap();
    for (place, name, expected) in [
        ("", "hooks", None),
        ("/p/.git", "hooks", Some(Guard::Protected)),
        ("/p/.GIT", "Hooks", Some(Guard::Protected)),
        ("/p/.git", "config", Some(Guard::GitConfig)),
        ("/p/.git", "index", None),
        ("/p/.git/modules/a/b", "hooks", Some(Guard::Protected)),
        ("/p/.git/modules/a/b", "HEAD", None),
        ("/p/git", "hooks", None),
        ("/home/u/.config", "gcloud", Some(Guard::Hidden)),
        // What is at the top of the tree is there, not above it.
        ("/p", "top", Some(Guard::Protected)),
        ("/top", "x", None),
    ] {
        let judged = rules.judge(rules.at(Path::new(place)), name.as_bytes());
        assert_eq!(judged.guard(true), expected, "{place} {name}");
    }
}
