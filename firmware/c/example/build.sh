#!/bin/sh
# Builds the bootloader: build.sh COMPILER ARCHIVE OUTPUT [x86_64|aarch64]. COMPILER is gcc or clang, or
# a cross compiler; ARCHIVE is libcxl_firmware_c.a for the same machine.
set -eu
compiler=$1 machine=${4:-x86_64}
archive=$(realpath -e "$2")
output=$(realpath -m "$3")
cd "$(dirname "$0")"
objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT
linker=
case $machine in
x86_64) base=0x100000 options=-mno-red-zone ;;
aarch64) base=0x40200000 options=-mstrict-align ;;
*) echo "no start code for $machine" >&2; exit 2 ;;
esac
case $compiler in
*clang*) options="$options --target=$machine-unknown-none-elf" linker=-fuse-ld=lld ;;
esac
for source in boot.c "$machine.c" "$machine.S"; do
    # shellcheck disable=SC2086
    "$compiler" $options -std=c11 -Os -Wall -Wextra -Wpedantic -Werror -ffreestanding -fno-pic \
        -fno-stack-protector -c "$source" -o "$objects/$source.o"
done
# shellcheck disable=SC2086
"$compiler" $options $linker -nostdlib -static -Wl,--build-id=none,--gc-sections,-z,norelro \
    -Wl,--defsym=BASE=$base,-T,boot.ld "$objects"/*.o "$archive" -o "$output"
