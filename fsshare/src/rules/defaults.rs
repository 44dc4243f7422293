//! The rules that a writable workspace has unless its user says otherwise.

#[cfg(target_os = "linux")]
use std::sync::LazyLock;

use super::{Guard, RuleError, Rules};

/// Secrets that lie in workspaces.
const HIDDEN: &[&str] = &[
    ".env",
    ".env.*",
    "!.env.{example,sample,template,dist}",
    "*.pem",
    "!*{cert,chain,bundle,roots}*.pem",
    "!{ca,ca-*}.pem",
    "*key*.pem",
    "id_{rsa,dsa,ecdsa,ed25519,ecdsa_sk,ed25519_sk}",
    "id_*_{rsa,dsa,ecdsa,ed25519}",
    ".netrc",
    ".git-credentials",
    ".pypirc",
    ".aws/credentials",
    ".azure",
    ".config/gcloud",
    ".docker/config.json",
    ".kube/config",
    ".ssh",
    ".gnupg",
];

/// What git runs, or what leads git to it.
const GIT: &[&str] = &[
    ".git/{hooks,commondir}",
    ".git/info/attributes",
    ".git/objects/info/{alternates,http-alternates}",
    ".git/modules/**/{hooks,commondir}",
    ".git/modules/**/objects/info/alternates",
    ".git/worktrees/*/{commondir,gitdir}",
];

/// Where git reads which programs to run.
const GIT_CONFIGS: &[&str] = &[
    ".git/{config,config.worktree}",
    ".git/modules/**/{config,config.worktree}",
    ".git/worktrees/*/config.worktree",
];

/// What editors, shells, agents and build services of the host run or obey without being asked to.
const TOOLS: &[&str] = &[
    ".vscode",
    "*.code-workspace",
    ".idea",
    ".envrc",
    ".devcontainer",
    ".devcontainer.json",
    ".claude",
    ".codex",
    ".gemini",
    ".cursor",
    ".mcp.json",
    ".cofferdam",
    ".github/workflows",
    ".gitlab-ci.yml",
    ".cargo/{config,config.toml}",
    ".npmrc",
    ".yarnrc.yml",
    ".bashrc",
    ".bash_profile",
    ".bash_login",
    ".bash_logout",
    ".profile",
    ".zshrc",
    ".zshenv",
    ".zprofile",
    ".zlogin",
    ".vimrc",
    ".nvimrc",
    ".exrc",
    ".nvim.lua",
    ".dir-locals.el",
    ".gdbinit",
    ".lldbinit",
    ".gitconfig",
    ".pre-commit-config.yaml",
    ".husky",
    // Packages bring their authors' own.
    "!node_modules/**/{.vscode,.idea,.npmrc,.husky,.pre-commit-config.yaml}",
    "!node_modules/**/.github/workflows",
];

/// What build tools of the host run or obey when its user asks them to build something.
#[cfg(target_os = "linux")]
const BUILDS: &[&str] = &[
    "{Makefile,makefile,GNUmakefile,*.mk,justfile,Justfile,Rakefile,Taskfile.yml}",
    "{CMakeLists.txt,*.cmake,meson.build,SConstruct,configure,configure.ac}",
    "{package.json,.pnpmfile.cjs,*.config.js,*.config.cjs,*.config.mjs,*.config.ts}",
    "{build.rs,Cargo.toml,rust-toolchain,rust-toolchain.toml}",
    "{setup.py,setup.cfg,pyproject.toml,conftest.py,tox.ini,noxfile.py,pytest.ini,sitecustomize.py,*.pth}",
    "{Dockerfile,Dockerfile.*,Containerfile,docker-compose*.yml,docker-compose*.yaml,compose*.yml,compose*.yaml}",
    "{build.gradle,build.gradle.kts,settings.gradle,gradlew,mvnw,pom.xml,build.xml}",
    "{Gemfile,*.gemspec,composer.json,mix.exs,dune,flake.nix,default.nix,shell.nix,BUILD,BUILD.bazel,WORKSPACE,.bazelrc}",
    "{Jenkinsfile,azure-pipelines.yml,.travis.yml,bitbucket-pipelines.yml,.drone.yml}",
    "{.circleci,.buildkite}",
    "{.gitattributes,.gitmodules,.editorconfig,.tool-versions,.mise.toml,.nvmrc}",
    "{AGENTS.md,CLAUDE.md,GEMINI.md,.cursorrules,.windsurfrules,.aider.conf.yml}",
];

impl Rules {
    /// Hides the usual places of secrets, and protects what the host's git, editors, shells and build services run.
    ///
    /// Git works: `.git/config` takes what git writes there unless it names a program, and a repository can be made without hooks (an empty
    /// `GIT_TEMPLATE_DIR`).
    ///
    /// What git cannot do here: settings that are not on the list of harmless ones, a clone from a local path, `worktree add`, new
    /// submodules, a checkout that changes a protected name.
    ///
    /// Not covered: repositories whose folder has another name than `.git`, programs that a file names which the host's own settings
    /// point to, a rebase that is under way, and a host's git that rewrites `.git/config` in the same moment.
    #[must_use]
    pub fn usual() -> Self {
        // The lists are valid, which a test makes sure of.
        Self::try_usual().unwrap_or_default()
    }

    pub(super) fn try_usual() -> Result<Self, RuleError> {
        let mut rules = Self::none();
        for pattern in HIDDEN {
            rules.hide(pattern)?;
        }
        rules.protect_tools()?;
        Ok(rules)
    }

    /// What programs of the host run or obey: without being asked to, or when their user builds something.
    #[cfg(target_os = "linux")]
    pub(crate) fn run_on_host() -> &'static Self {
        // Each path of a report asks for them. The lists are valid, which a test makes sure of.
        static RULES: LazyLock<Rules> =
            LazyLock::new(|| Rules::try_run_on_host().unwrap_or_default());
        &RULES
    }

    #[cfg(target_os = "linux")]
    pub(super) fn try_run_on_host() -> Result<Self, RuleError> {
        let mut rules = Self::none();
        for pattern in BUILDS {
            rules.protect(pattern)?;
        }
        rules.protect_tools()?;
        Ok(rules)
    }

    fn protect_tools(&mut self) -> Result<(), RuleError> {
        for pattern in GIT.iter().chain(TOOLS) {
            self.protect(pattern)?;
        }
        for pattern in GIT_CONFIGS {
            self.add(pattern, Guard::GitConfig, false)?;
        }
        // A `.git` that is no directory leads git to a repository elsewhere.
        self.add(".git", Guard::Protected, true)
    }
}
