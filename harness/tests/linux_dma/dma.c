/*
 * Reads and writes of a disk with buffers in the memory of one node, several in flight, past the page
 * cache. The pages' physical addresses are looked up and have to lie in a window. Nothing here needs
 * more of the processor than a plain load or store of eight bytes, so that it runs where each access to
 * the memory is decoded by itself.
 *
 *   dma DISK NODE WINDOW SIZE COMPARE [COUNTxBYTES...]
 *
 * For each COUNTxBYTES: COUNT reads of BYTES from the start of the disk into buffers, each as far from the
 * one before as it is long, so that they stay apart, and all submitted at once; with COMPARE `all` the processor compares each word with what a read into ordinary memory got,
 * with `some` the first word of each page; then COUNT writes from these buffers to the second half of
 * the disk, which is read back and compared in ordinary memory. Prints a line for each, and ends with 0
 * if all of it was right.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096ul
#define MOST 16
#define BIND 2

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static uint64_t *memory(size_t bytes, unsigned long node) {
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned long mask = 1ul << node;
    if (at == MAP_FAILED) fail("mmap");
    if (syscall(SYS_mbind, at, bytes, BIND, &mask, 64, 0)) fail("mbind");
    return at;
}

/* Touches each page, and looks that it lies where it has to. */
static void placed(uint64_t *at, size_t bytes, uint64_t window, uint64_t size) {
    int map = open("/proc/self/pagemap", O_RDONLY);
    if (map < 0) fail("pagemap");
    for (size_t offset = 0; offset < bytes; offset += PAGE) {
        volatile uint64_t *word = at + offset / 8;
        uint64_t entry;
        *word = offset;
        if (pread(map, &entry, 8, ((uintptr_t)word / PAGE) * 8) != 8) fail("pagemap");
        uint64_t place = (entry & ((1ul << 55) - 1)) * PAGE;
        if (!(entry >> 63) || place < window || place >= window + size) {
            printf("dma: a page lies at %#lx\n", place);
            exit(1);
        }
    }
    close(map);
}

/* Submits all of them at once, and waits. */
static void transfer(int disk, int opcode, uint64_t **buffers, int count, size_t bytes, off_t from) {
    aio_context_t context = 0;
    struct iocb blocks[MOST] = {0}, *list[MOST];
    struct io_event events[MOST];
    if (syscall(SYS_io_setup, MOST, &context)) fail("io_setup");
    for (int n = 0; n < count; n++) {
        blocks[n].aio_lio_opcode = opcode;
        blocks[n].aio_fildes = disk;
        blocks[n].aio_buf = (uintptr_t)buffers[n];
        blocks[n].aio_nbytes = bytes;
        blocks[n].aio_offset = from + n * 2 * bytes;
        list[n] = &blocks[n];
    }
    if (syscall(SYS_io_submit, context, count, list) != count) fail("io_submit");
    if (syscall(SYS_io_getevents, context, count, count, events, NULL) != count) fail("io_getevents");
    for (int n = 0; n < count; n++)
        if (events[n].res != (long)bytes) {
            printf("dma: a transfer ended with %ld\n", (long)events[n].res);
            exit(1);
        }
    syscall(SYS_io_destroy, context);
}

static void same(const uint64_t *here, const uint64_t *there, size_t bytes, size_t step) {
    for (size_t word = 0; word < bytes / 8; word += step)
        if (((volatile const uint64_t *)here)[word] != there[word]) {
            printf("dma: word %zu of %zu bytes differs\n", word, bytes);
            exit(1);
        }
}

int main(int argc, char **argv) {
    if (argc < 6) return 2;
    int disk = open(argv[1], O_RDWR | O_DIRECT);
    if (disk < 0) fail(argv[1]);
    off_t half = lseek(disk, 0, SEEK_END) / 2;
    unsigned long node = strtoul(argv[2], NULL, 0);
    uint64_t window = strtoull(argv[3], NULL, 0), size = strtoull(argv[4], NULL, 0);
    size_t step = strcmp(argv[5], "all") ? PAGE / 8 : 1;
    for (int n = 6; n < argc; n++) {
        uint64_t *buffers[MOST];
        char *rest;
        int count = strtoul(argv[n], &rest, 0);
        size_t bytes = strtoul(rest + 1, NULL, 0);
        if (count < 1 || count > MOST || *rest != 'x' || (off_t)(2 * count * bytes) > half) return 2;
        uint64_t *expected = memory(bytes, 0), *back = memory(bytes, 0);
        for (int one = 0; one < count; one++) {
            buffers[one] = memory(bytes, node);
            placed(buffers[one], bytes, window, size);
        }
        transfer(disk, IOCB_CMD_PREAD, buffers, count, bytes, 0);
        transfer(disk, IOCB_CMD_PWRITE, buffers, count, bytes, half);
        for (int one = 0; one < count; one++) {
            off_t at = one * 2 * bytes;
            if (pread(disk, expected, bytes, at) != (ssize_t)bytes) fail("read");
            same(buffers[one], expected, bytes, step);
            if (pread(disk, back, bytes, half + at) != (ssize_t)bytes) fail("read back");
            same(back, expected, bytes, 1);
            munmap(buffers[one], bytes);
        }
        munmap(expected, bytes);
        munmap(back, bytes);
        printf("dma: %d times %zu bytes\n", count, bytes);
        fflush(stdout);
    }
    return 0;
}
