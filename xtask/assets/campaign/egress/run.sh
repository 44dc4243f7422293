#!/bin/sh
# The test world: runs in network and mount namespaces of its own, without a link to the outside. On the host: this machine, or the emulated
# one. Arguments: the coffer program, the guest's kernel, initial RAM disk and root image.
set -eu
assets=$(cd "$(dirname "$0")" && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
# The emulated host reads this machine's files slowly; what is booted must be near.
cp "$1" "$place/coffer"
cp "$2" "$place/kernel"
cp "$3" "$place/initrd"
unshare --net --mount /usr/bin/python3 -B "$assets/driver.py" "$place" "$4"
