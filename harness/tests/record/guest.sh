#!/bin/busybox sh
# The only program of the guest that records: loads the drivers, then does what the other end of the
# second serial port says, a line at a time, and answers in lines that end with a dot alone.
#
#   off                 every CXL driver lets go of its device
#   on ADDRESS...       the root comes up, then the memory devices in this order; what came of it
#   table               what the log says of the CEDT
#
# An answer of `on` has a line for each fact, its kind first: P port, D decoder, R region, M memory, N persistent
# region, L line of the log. A line that starts with a question mark is a failure.
B=/bin/busybox
$B mkdir -p /proc /sys /dev
$B mount -t proc proc /proc
$B mount -t sysfs sysfs /sys
$B mount -t devtmpfs devtmpfs /dev
exec 3<>/dev/ttyS1
$B stty raw -echo <&3
cxl=/sys/bus/cxl/devices
pci=/sys/bus/pci/drivers/cxl_pci
root=/sys/bus/platform/drivers/cxl_acpi

while read -r module; do
    $B insmod "$module" dyndbg=+p || echo "? insmod $module" >&3
done </lib/modules

# Probing is in part asynchronous: until the log has stood still so many times a tenth of a second.
settle() {
    before='' same=0 turns=0
    while [ $same -lt "$1" ] && [ $turns -lt 1000 ]; do
        now=$($B dmesg | $B tail -n 1)
        if [ "$now" = "$before" ]; then same=$((same + 1)); else same=0; fi
        before=$now turns=$((turns + 1))
        $B usleep 100000
    done
}

table() { $B dmesg | $B grep 'ACPI: CEDT'; }

off() {
    for device in $pci/0*; do
        [ -e "$device" ] && echo "${device##*/}" >$pci/unbind
    done
    [ -e $root/ACPI0017:00 ] && echo ACPI0017:00 >$root/unbind
    settle 1
    # What is left is said: the next set would not be alone.
    for device in $cxl/*; do [ -e "$device" ] && echo "? left ${device##*/}"; done
}

# The value of an attribute, or a dash.
of() { value=-; [ -r "$1" ] && read -r value <"$1"; echo "${value:--}"; }

on() {
    $B dmesg -c >/dev/null
    echo ACPI0017:00 >$root/bind
    settle 1
    for device; do echo "$device" >$pci/bind; settle 1; done
    settle 3
    for port in $cxl/port* $cxl/endpoint*; do
        [ -e "$port" ] && echo "P ${port##*/} $($B readlink -f "$port/uport")"
    done
    for decoder in $cxl/decoder*; do [ -e "$decoder" ] && echo "D ${decoder##*/}"; done
    for region in $cxl/region*; do
        [ -e "$region" ] || continue
        targets=
        for target in "$region"/target*; do targets="$targets $(of "$target")"; done
        echo "R ${region##*/} $(of "$region/resource") $(of "$region/size")" \
            "$(of "$region/interleave_ways") $(of "$region/interleave_granularity")" \
            "$(of "$region/mode") $(of "$region/commit") $(of "$region/locked")$targets"
    done
    $B grep -e kmem -e Persistent -e namespace -e pmem -e 'dax[0-9]' /proc/iomem | $B sed 's/^ */M /'
    for region in /sys/bus/nd/devices/region*; do
        [ -e "$region" ] || continue
        driver=-
        [ -e "$region/driver" ] && driver=$($B basename "$($B readlink -f "$region/driver")")
        echo "N ${region##*/} $(of "$region/resource") $(of "$region/size") $driver"
    done
    $B dmesg -r | $B sed 's/^/L /'
}

settle 5
echo ready >&3
while read -r order <&3; do
    $order >&3 2>&1
    echo . >&3
done
$B poweroff -f
