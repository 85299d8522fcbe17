#!/nested/busybox sh
# The first program inside: makes a machine with KVM of what the kernel has started, runs the one
# command, and sends back how it ended and the files that it made. Everything here goes through
# three virtio ports: out and err carry what the command prints, and result the rest.
B=/nested/busybox
$B mkdir -p /proc /sys /dev /tmp /nested/bin
$B mount -t proc proc /proc
$B mount -t sysfs sysfs /sys
$B mount -t devtmpfs devtmpfs /dev
$B mkdir -p /dev/shm
$B mount -t tmpfs tmpfs /dev/shm
$B chmod 1777 /tmp /dev/shm
$B ln -s /proc/self/fd /dev/fd
$B --install -s /nested/bin
export PATH=/nested/bin HOME=/root
[ -e /bin/sh ] || { mkdir -p /bin /root && ln -s /nested/busybox /bin/sh; }

# What cannot be said through a port is said on the console, and the machine ends.
die() {
    echo "nested: $1"
    poweroff -f
}

port() {
    for entry in /sys/class/virtio-ports/*; do
        read -r name <"$entry/name" && [ "$name" = "$1" ] && echo "/dev/${entry##*/}"
    done 2>/dev/null
}
turns=0
while [ -z "$(port out)" ] || [ -z "$(port err)" ] || [ -z "$(port result)" ]; do
    turns=$((turns + 1))
    [ $turns -lt 100 ] || die "no virtio ports"
    usleep 100000
done
exec 3<>"$(port result)" 4>"$(port out)" 5>"$(port err)" || die "the virtio ports do not open"
# Whoever started this machine has the other end: without it nobody waits for anything here.
{ cat <&3 >/dev/null 2>&1; poweroff -f; } 4>&- 5>&- &

while read -r module; do
    insmod "$module" || echo "nested: $module does not load"
done </nested/modules
[ -c /dev/kvm ] || echo "no-kvm" >&3

# The command's files are older than the mark, and what it writes is newer.
find / -xdev -type f -exec touch -c -d '2000-01-01 00:00:00' {} + 2>/dev/null
touch -d '2001-01-01 00:00:00' /nested/mark

sh /nested/command </nested/input >&4 2>&5 3>&- 4>&- 5>&-
code=$?
{ printf '\000' && cat /nested/end; } >&4
{ printf '\000' && cat /nested/end; } >&5
echo "exit $code" >&3
while IFS= read -r root; do
    [ -e "$root" ] && find "$root" -xdev -type f -newer /nested/mark -print0
done </nested/roots | cpio -o -0 -H newc 2>/dev/null >&3
# Whoever waits for this ends the machine.
sleep 600
poweroff -f
