/*
 * A bootloader that brings CXL memory up: on x86-64 behind any firmware that starts PVH kernels,
 * and bare on QEMU's aarch64 machine `virt`, where nobody has assigned buses or BARs before. It
 * prints what it did, and CEDT and hand-off record in hexadecimal, and stops.
 */
#include "machine.h"

/* What compilers, and the library, expect. The empty asm keeps a compiler from
   turning each loop into a call of itself. */
#define KEEP_LOOP __asm__ volatile("" ::: "memory")

void *memcpy(void *to, const void *from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        ((char *)to)[i] = ((const char *)from)[i];
        KEEP_LOOP;
    }
    return to;
}

void *memmove(void *to, const void *from, size_t n)
{
    if ((uintptr_t)to <= (uintptr_t)from)
        return memcpy(to, from, n);
    while (n--) {
        ((char *)to)[n] = ((const char *)from)[n];
        KEEP_LOOP;
    }
    return to;
}

void *memset(void *to, int value, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        ((char *)to)[i] = (char)value;
        KEEP_LOOP;
    }
    return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const unsigned char *x = a, *y = b;
    for (; n && *x == *y; x++, y++, n--)
        KEEP_LOOP;
    return n ? *x - *y : 0;
}

int bcmp(const void *a, const void *b, size_t n)
{
    return memcmp(a, b, n);
}

/* The machine's registers, for the library. */

static uint32_t read32(void *context, uint64_t address)
{
    (void)context;
    return address < mapped ? *(volatile uint32_t *)address : 0xFFFFFFFF;
}

static void write32(void *context, uint64_t address, uint32_t value)
{
    (void)context;
    if (address < mapped)
        *(volatile uint32_t *)address = value;
}

static void write64(void *context, uint64_t address, uint64_t value)
{
    (void)context;
    if (address < mapped)
        *(volatile uint64_t *)address = value;
}

static void say(void *context, const char *text)
{
    (void)context;
    while (*text)
        put(*text++);
    put('\n');
}

/* Text without a line end, and numbers. */
static void word(const char *text)
{
    while (*text)
        put(*text++);
}

static void hex(const char *name, uint64_t number, int digits)
{
    for (word(name); digits--;)
        put("0123456789abcdef"[number >> 4 * digits & 0xF]);
}

static void dump(const char *name, const unsigned char *bytes, size_t length)
{
    hex(name, length, 8);
    for (word(": "); length--;)
        hex("", *bytes++, 2);
    put('\n');
}

/* Memory: in a bootloader of yours it comes from an allocator. CEDT and record stay. */
static _Alignas(CXL_WORKSPACE_ALIGN) unsigned char memory[1 << 20];
static _Alignas(8) unsigned char cedt[1 << 16], record[1 << 16];
struct cxl_workspace *work;

static void stop(const char *what, cxl_status status)
{
    struct cxl_error error;
    char text[256];
    word(what);
    hex(": status -0x", (uint64_t)-status, 2);
    if (cxl_last_error(work, &error) == CXL_STATUS_OK) {
        cxl_error_text(&error, text, sizeof text, NULL);
        word(", ");
        word(cxl_phase_name(error.code));
        word(": ");
        word(text);
    }
    say(NULL, "\nend: refused");
    for (;;)
        ;
}

cxl_status must(const char *what, cxl_status status)
{
    if (status < 0)
        stop(what, status);
    return status;
}

void boot(uint64_t info)
{
    struct cxl_limits limits = {.size = sizeof limits, .bridges = 16, .devices = 32};
    struct cxl_hardware hw = {.size = sizeof hw, .read32 = read32, .write32 = write32,
        .write64 = write64, .microseconds = microseconds, .log = say};
    struct cxl_platform platform = {.size = sizeof platform, .address_bits = address_bits()};
    struct cxl_policy policy = {.size = sizeof policy, .on_failure = CXL_ON_FAILURE_BEST_EFFORT,
        .probe = CXL_PROBE_POLICY_BELOW, .probe_below = mapped};
    struct cxl_identity made_by = {"EXAMPL", "C BOOTER", 0, 1, "CXLF", 1};
    size_t table = 0, length = 0;

    hex("workspace: 0x", cxl_workspace_size(&limits), 8);
    put('\n');
    must("init", cxl_workspace_init(memory, sizeof memory, &limits, &work));
    find_platform(&hw, info, &platform);
    must("platform", cxl_set_platform(work, &platform));
    must("policy", cxl_set_policy(work, &policy));
    must("bring up", cxl_bring_up(work, &hw));
    cxl_status done =
        must("describe", cxl_describe(work, &hw, &made_by, cedt, sizeof cedt, &table));

    for (uint32_t i = 0; i < cxl_component_count(work); i++) {
        struct cxl_component part = {.size = sizeof part};
        must("component", cxl_component_at(work, i, &part));
        hex("component: uid 0x", part.path.uid, 8);
        for (uint32_t port = 0; port < part.path.port_count; port++)
            hex(port ? "." : " port ", part.path.ports[port], 2);
        hex(", kind ", part.kind, 2);
        hex(", outcome ", part.outcome, 1);
        put('\n');
    }
    for (uint32_t i = 0; i < cxl_region_count(work); i++) {
        struct cxl_region region = {.size = sizeof region};
        must("region", cxl_region_at(work, i, &region));
        hex("region: 0x", region.base, 16);
        hex(" size 0x", region.bytes, 16);
        hex(" ways ", region.ways, 2);
        hex(" granularity ", region.granularity, 4);
        word(region.locked ? " locked\n" : " unlocked\n");
        /* Here goes an entry of the memory map: region.base, region.bytes, region.e820. */
    }
    must("record", cxl_write_handoff(work, &hw, (uintptr_t)cedt, (uint32_t)table, record,
                                     sizeof record, &length));
    dump("cedt 0x", cedt, table);
    dump("record 0x", record, length);
    say(NULL, done == CXL_STATUS_OK ? "end: success" : "end: less");
}
