#!/bin/sh
# Lets the agent work on a copy of the project in a sandbox, then looks at the result from the host.
# Runs on the host: this machine, or the emulated one. Arguments: the coffer program, and the guest's
# kernel, initial RAM disk and root image.
set -eu
export LC_ALL=C GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null
assets=$(cd "$(dirname "$0")" && pwd)
coffer=$1
root=$4

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
# The emulated host reads this machine's files slowly while its clock runs on; what is booted must be near.
cp "$2" "$place/kernel"
cp "$3" "$place/initrd"
workspace=$place/workspace
secret=$place/secret
cp -r "$assets/project" "$workspace"
echo "the host's own: $place" >"$secret"
in_workspace() { git -C "$workspace" "$@"; }
in_workspace init -q -b main
in_workspace add .
in_workspace -c user.name=Host -c user.email=host@sandbox.example commit -q -m 'A project with two bugs'

# What the agent says is passed on as it comes; its last line is for us.
{
    "$coffer" run --timeline -w "$workspace" --kernel "$place/kernel" --initrd "$place/initrd" --root "$root" \
        -- python3 - "$secret" <"$assets/agent.py" 2>"$place/errors" || echo "$?" >"$place/status"
} | tee "$place/output" | grep --line-buffered -v '^found:' || true
if [ -e "$place/status" ]; then
    cat "$place/errors" >&2
    echo "demo: the sandbox or the agent failed (status $(cat "$place/status"))" >&2
    exit 1
fi
found() { sed -n "s/^found:.*\"$1\": \(\[[^]]*\]\|\"[^\"]*\"\).*/\1/p" "$place/output" | tr -d '"[]'; }
timeline() { grep -E '^ *[0-9.]+ ms  ' "$place/errors"; }

failed=0
check() {
    what=$1
    shift
    if "$@"; then
        echo "  ok      $what"
    else
        echo "  FAILED  $what"
        failed=1
    fi
}

echo
echo "As the host sees it:"
in_workspace log -2 --format='  %h %an: %s'
in_workspace diff --stat HEAD~1 HEAD | sed 's/^/  /'
echo "  kernel of the guest $(found kernel), of the host $(uname -r)"
echo
echo "The start:"
timeline | sed 's/^/  /'
echo
# A kernel whose console driver is a module says nothing before the guest program: two of the nine phases are missing then.
rises() { timeline | sort -c -n -k1,1 2>/dev/null && [ "$(timeline | wc -l)" -ge 7 ]; }
unreached() { [ "$(found beside)" = ENOENT ] && [ "$(found above)" = ENOENT ]; }
untold() { ! grep -rqF "$(cat "$secret")" "$workspace" "$place/output"; }
check "the commit is the agent's, on top of ours" [ "$(in_workspace log --format=%an | tr '\n' ' ')" = "Agent Host " ]
check "it changed just the two files with a bug" \
    [ "$(in_workspace diff --name-only HEAD~1 HEAD | tr '\n' ' ')" = "ring.c stats.py " ]
check "nothing uncommitted is left" [ -z "$(in_workspace status --porcelain)" ]
# Two kernels may have one version, but never one boot.
check "the guest ran a kernel of its own" [ "$(found boot)" != "$(cat /proc/sys/kernel/random/boot_id)" ]
check "the file beside the workspace could not be reached ($(found beside))" unreached
check "nothing of it is in the workspace or in the output" untold
check "there was no network but $(found interfaces)" [ "$(found interfaces)" = lo ]
check "a connection failed ($(found connect))" [ "$(found connect)" = ENETUNREACH ]
check "each phase of the start came after the one before" rises
exit $failed
