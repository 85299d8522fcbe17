/* x86-64: COM1, the time-stamp counter, and ACPI tables from the RSDP of the PVH start-info. */
#include "machine.h"

const uint64_t mapped = 1ull << 41; /* by x86_64.S */

void put(char c)
{
    __asm__ volatile("outb %0, %1" ::"a"(c), "Nd"((uint16_t)0x3F8));
}

uint64_t microseconds(void *context)
{
    uint32_t low, high;
    (void)context;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    /* No counter runs faster: waits are longer than asked for, never shorter. */
    return ((uint64_t)high << 32 | low) / 10000;
}

uint32_t address_bits(void)
{
    uint32_t a = 0x80000008, b, c, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
    return a & 0xFF;
}

void find_platform(const struct cxl_hardware *hw, uint64_t info, struct cxl_platform *to)
{
    static unsigned char mcfg[1 << 16], cedt[1 << 16];
    uint64_t rsdp = *(uint64_t *)(info + 32); /* hvm_start_info.rsdp_paddr */
    size_t length;
    must("MCFG", cxl_find_table(work, hw, rsdp, "MCFG", mcfg, sizeof mcfg, &length));
    to->mcfg_size = (uint32_t)length;
    must("CEDT", cxl_find_table(work, hw, rsdp, "CEDT", cedt, sizeof cedt, &length));
    to->cedt_size = (uint32_t)length;
    to->mcfg = mcfg;
    to->cedt = cedt;
}
