# Runs in a guest that has a directory shared at /share: puts loads on it and prints what each took. What follows calls `fresh` and `load`.
set -eu
tag=$(sed -n 's| /share virtiofs .*||p' /proc/mounts)
cd /root
# Mounts the share again, so that nothing of it is remembered, and lets the server come to rest: it is told what was forgotten.
fresh() {
    umount /share
    mount -t virtiofs -o nodev "$tag" /share
    sleep 0.2
}
load() {
    name=$1
    shift
    took=$(/root/tools/share_load "$@")
    echo "figure $name=$took"
}
