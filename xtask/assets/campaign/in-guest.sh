#!/bin/sh
# In the guest, in the workspace: the suites one after the other, and what each said below its own line.
export RUST_BACKTRACE=0 GIT_CONFIG_GLOBAL=/dev/null GIT_TEMPLATE_DIR=
export GIT_AUTHOR_NAME=campaign GIT_AUTHOR_EMAIL=campaign@localhost GIT_COMMITTER_NAME=campaign GIT_COMMITTER_EMAIL=campaign@localhost
top=$PWD
suite() {
    mkdir -p "$1"
    "$top/tools/pjdfstest" -c "$top/tools/pjdfstest.toml" -p "$1" 2>/dev/null
}
echo "== pjdfstest on the share"
suite "$top/pjdfstest"
echo "== pjdfstest on the guest's own"
suite /tmp/pjdfstest
echo "== fsx"
mkdir fsx
"$top/tools/fsx" -q -S 7 -N 10000 -P /tmp "$top/fsx/a" & first=$!
"$top/tools/fsx" -q -S 11 -N 10000 -P /tmp "$top/fsx/b"
second=$?
wait "$first" && [ "$second" = 0 ] && echo "fsx: no difference"
echo "== git"
mkdir repository && cd repository && git init -q . || exit 1
round=0
while [ "$round" -lt 50 ]; do
    echo "$round" >> "file$((round % 7))" && git add -A && git status --porcelain > /dev/null && git commit -qm "$round" || exit 1
    round=$((round + 1))
done
git fsck --full --strict && git gc -q && git fsck --full --strict && git diff --quiet HEAD && echo "git: $(git rev-list --count HEAD) commits"
echo "== done"
