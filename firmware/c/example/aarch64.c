/*
 * QEMU's aarch64 machine `virt`, bare: PL011, the generic timer, tables out of fw_cfg. Nobody has
 * assigned a bus or a BAR here: each bridge gets a range of the machine's PCI memory for it.
 */
#include "machine.h"

const uint64_t mapped = 1ull << 48; /* there is no MMU */

/* Places of QEMU's hw/arm/virt.c. */
#define UART 0x09000000
#define FW_CFG 0x09020000
#define PCI_MEMORY 0x10000000
#define OF_A_BRIDGE 0x04000000
#define MOST_BRIDGES 8

void put(char c)
{
    *(volatile uint32_t *)UART = (unsigned char)c;
}

uint64_t microseconds(void *context)
{
    uint64_t count, frequency;
    (void)context;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(count));
    __asm__ volatile("mrs %0, cntfrq_el0" : "=r"(frequency));
    return count / (frequency / 1000000 ? frequency / 1000000 : 1);
}

uint32_t address_bits(void)
{
    static const unsigned char bits[] = {32, 36, 40, 42, 44, 48, 52};
    uint64_t features;
    __asm__ volatile("mrs %0, id_aa64mmfr0_el1" : "=r"(features));
    return (features & 0xF) < sizeof bits ? bits[features & 0xF] : 48;
}

/* Selects an item of fw_cfg; its bytes come one after the other. */
static void item(uint16_t select)
{
    *(volatile uint16_t *)(FW_CFG + 8) = __builtin_bswap16(select);
}

static uint32_t next(int bytes)
{
    uint32_t value = 0;
    while (bytes--)
        value = value << 8 | *(volatile uint8_t *)FW_CFG;
    return value;
}

/* Reads a file of fw_cfg; its bytes, 0: none, or it does not fit. */
static uint32_t file(const char *name, unsigned char *to, uint32_t room)
{
    item(0x19);
    for (uint32_t left = next(4); left; left--) {
        uint32_t size = next(4), select = next(2), same = 1;
        next(2);
        for (int i = 0, ended = 0; i < 56; i++) {
            char c = (char)next(1);
            same &= ended || c == name[i];
            ended |= !c;
        }
        if (!same)
            continue;
        if (size > room)
            return 0;
        item((uint16_t)select);
        for (uint32_t i = 0; i < size; i++)
            to[i] = (unsigned char)next(1);
        return size;
    }
    return 0;
}

static uint32_t dword(const unsigned char *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* The table with a signature, with the checksum that firmware would have put in; NULL: none. */
static unsigned char *table(unsigned char *all, uint32_t size, const char *name, uint32_t *length)
{
    for (uint32_t at = 0; at + 36 <= size; at++) {
        unsigned char *found = all + at, sum = 0;
        if (dword(found) != dword((const unsigned char *)name))
            continue;
        *length = dword(found + 4);
        if (*length < 36 || *length > size - at)
            continue;
        for (uint32_t i = 0; i < *length; i++)
            sum += found[i];
        found[9] -= sum;
        return found;
    }
    return NULL;
}

void find_platform(const struct cxl_hardware *hw, uint64_t info, struct cxl_platform *to)
{
    static unsigned char tables[1 << 20];
    static struct cxl_resource resources[MOST_BRIDGES];
    uint32_t size = file("etc/acpi/tables", tables, sizeof tables);
    (void)hw, (void)info;
    to->mcfg = table(tables, size, "MCFG", &to->mcfg_size);
    to->cedt = table(tables, size, "CEDT", &to->cedt_size);
    if (!to->mcfg || !to->cedt)
        must("no MCFG or no CEDT in fw_cfg", CXL_STATUS_END);
    /* A record: its type, a byte, its bytes; of type 0 (CHBS) the UID follows. */
    for (uint32_t at = 36; at + 8 <= to->cedt_size && to->resource_count < MOST_BRIDGES;) {
        const unsigned char *found = to->cedt + at;
        uint32_t bytes = found[2] | (uint32_t)found[3] << 8, number = to->resource_count;
        if (found[0] == 0) {
            resources[number].uid = dword(found + 4);
            resources[number].range.base = PCI_MEMORY + (uint64_t)number * OF_A_BRIDGE;
            resources[number].range.size = OF_A_BRIDGE;
            to->resource_count++;
        }
        at += bytes < 4 ? 4 : bytes;
    }
    to->resources = resources;
}
