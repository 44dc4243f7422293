# Runs the command in temporary folders of its own, with what is executed in memory: in the emulated host, a wait for a
# file of the machine below lets the deterministic clock run on by an arbitrary time.
# The workspace may itself lie in one of them.
target=$(cd "$(dirname "$1")/.." && pwd) || exit
mkdir /run/target && mount --bind "$target" /run/target || exit
for folder in /tmp /var/tmp; do mount -t tmpfs tmp "$folder" || exit; done
mkdir -p "$target" && mount --bind /run/target "$target" || exit
in_memory() {
    while read -r file; do
        # A new link, or opening to append, makes the overlay take a copy of its own. Links are never cached below it.
        if [ -L "$file" ]; then ln -sfn "$(readlink "$file")" "$file" || exit; fi
        if [ -f "$file" ]; then : >>"$file" || exit; fi
    done
}
peer=$(command -v qemu-system-x86_64)
ldd "$1" "$peer" | grep -o '/[^ :]*' | sort -u | in_memory
printf '%s\n' /bin /sbin /lib /lib64 "$1" "$peer" /etc/ld.so.cache /etc/localtime /usr/share/qemu/*.bin \
    /usr/share/qemu/*.rom /usr/share/seabios/*.bin | in_memory
exec "$@"
