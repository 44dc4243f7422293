#!/bin/sh
# Runs suites on the workspace of a sandbox. On the host: this machine, or the emulated one. Arguments: the coffer program, the guest's kernel, initial
# RAM disk and root image, and the folder with the suites' programs.
set -eu
assets=$(cd "$(dirname "$0")" && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
# The emulated host reads this machine's files slowly while its clock runs on; what is booted must be near.
cp "$2" "$place/kernel"
cp "$3" "$place/initrd"
workspace=$place/workspace
mkdir "$workspace" "$workspace/tools"
cp "$5/pjdfstest" "$5/fsx" "$assets/in-guest.sh" "$workspace/tools"
cp "$assets/pjdfstest.toml" "$workspace/tools"
status=0
"$1" run -w "$workspace" --kernel "$place/kernel" --initrd "$place/initrd" --root "$4" -- sh tools/in-guest.sh || status=$?
echo "== the host looks"
git -c safe.directory='*' -C "$workspace/repository" fsck --full --strict && echo "fsck: clean"
exit "$status"
