#!/bin/busybox sh
# The guest's only program: loads the drivers, waits for what they make, says what Linux sees, and
# powers off. Nothing here configures CXL, unless a task says so.
#
# What is said goes to the second serial port, one fact a line: PATH=TEXT, the lines of TEXT with
# "|" between them; PATH:HEX for binary files; PATH>TARGET for links.
B=/bin/busybox
$B mkdir -p /proc /sys /dev /cxl
$B mount -t proc proc /proc
$B mount -t sysfs sysfs /sys
$B mount -t devtmpfs devtmpfs /dev
port=/dev/ttyS1
[ -e /dev/ttyAMA1 ] && port=/dev/ttyAMA1
exec 3>$port
$B stty raw <&3

text() {
    [ -f "$1" ] || return 0
    value=
    while IFS= read -r line || [ -n "$line" ]; do value="$value|$line"; done 2>/dev/null <"$1" &&
        echo "$1=${value#|}" >&3
}
hex() { echo "$1:$($B xxd -p "$1" | $B tr -d '\n')" >&3; }
link() { [ -e "$1" ] && echo "$1>$($B readlink -f "$1")" >&3; }
say() { echo "$1=$2" >&3; }

text /proc/version
# What has to happen before the drivers load: how a test puts a fault in.
[ -f /before ] && . /before

while read -r module; do
    $B insmod "$module" || say "insmod$module" failed
done </lib/modules

# Probing is asynchronous: until nothing has changed for a second, ten at most.
settle() {
    before='' same=0 turns=0
    while [ $same -lt 5 ] && [ $turns -lt 50 ]; do
        now=$(echo /sys/bus/cxl/devices/* /sys/bus/dax/devices/* /sys/bus/nd/devices/* \
            /sys/devices/system/memory/*)
        if [ "$now" = "$before" ]; then same=$((same + 1)); else same=0; fi
        before=$now turns=$((turns + 1))
        $B usleep 200000
    done
}
settle
# What has to happen now, and what comes of it.
[ -f /task/script ] && . /task/script && settle

for bus in cxl dax nd; do
    for device in /sys/bus/$bus/devices/*; do
        [ -e "$device" ] || continue
        link "$device"
        for name in uport driver parent_dport; do link "$device/$name"; done
        for port in "$device"/dport*; do link "$port" && link "$port/firmware_node"; done
        for file in "$device"/* "$device"/ram/* "$device"/pmem/*; do text "$file"; done
    done
done
for device in /sys/bus/pci/devices/*; do
    link "$device"
    hex "$device/config"
    text "$device/resource"
done
for table in CEDT SRAT; do
    [ -f /sys/firmware/acpi/tables/$table ] && hex /sys/firmware/acpi/tables/$table
done
for file in /sys/devices/system/node/online /sys/devices/system/node/node*/meminfo \
    /sys/devices/system/memory/block_size_bytes /sys/devices/system/memory/memory*/state \
    /proc/iomem; do
    text "$file"
done
# Which node has a block of memory.
for block in /sys/devices/system/node/node*/memory*; do link "$block"; done
# What was said is held against the machine of this moment.
[ -f /looked ] && . /looked

# Memory of each DAX device that is online: a program is copied there, compared, and run from
# there; its page map says at which physical addresses its bytes lie.
for device in /sys/bus/dax/devices/dax*; do
    [ -e "$device/driver" ] || continue
    read -r node <"$device/target_node"
    name=${device##*/}
    # Of a node without memory online nothing can be had, and Linux complains.
    $B grep -q 'MemTotal: *[1-9]' "/sys/devices/system/node/node$node/meminfo" || continue
    $B mkdir -p "/cxl/$name"
    $B mount -t tmpfs -o "mpol=bind:$node" cxl "/cxl/$name" || continue
    $B cp $B "/cxl/$name/busybox" && $B cmp $B "/cxl/$name/busybox" && say "run/$name/copy" same
    "/cxl/$name/busybox" sleep 1000 &
    pid=$!
    $B usleep 300000
    while read -r range mode offset rest; do
        case "$mode $rest" in r-?p*"/cxl/$name/busybox") ;; *) continue ;; esac
        start=$((0x${range%-*} / 4096)) end=$((0x${range#*-} / 4096))
        pages=$($B dd if=/proc/$pid/pagemap bs=8 skip=$start count=$((end - start)) 2>/dev/null |
            $B xxd -p | $B tr -d '\n')
        echo "run/$name/pages/$offset:$pages" >&3
    done </proc/$pid/maps
    $B kill $pid
done
# What is to happen once all of that is known.
[ -f /after ] && . /after
$B dmesg >/log
text /log
# What it warns of, level 4 or worse: each line starts with its level.
$B dmesg -r | $B grep '^<[0-4]>' >/warnings
text /warnings
say end reached
exec 3>&-
$B usleep 200000
$B poweroff -f
