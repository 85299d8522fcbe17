/*
 * For coreboot: a ramstage driver that brings CXL memory up once PCI devices are there, reserves its
 * ranges in the memory map, and adds the CEDT. Bridges and windows are the mainboard's to say: see
 * cxl_mainboard_platform() below.
 *
 * As src/drivers/cxl/cxl.c, with `ramstage-y += cxl.c` and the archive of target x86_64-unknown-none
 * (i686 has a target of its own) as `ramstage-libs`. cxl_write_acpi_tables() goes into the domain's
 * device operations.
 */
#include <acpi/acpi.h>
#include <bootmem.h>
#include <bootstate.h>
#include <cbmem.h>
#include <console/console.h>
#include <cpu/cpu.h>
#include <delay.h>
#include <device/mmio.h>
#include <device/pci_ops.h>
#include <stdlib.h>
#include <string.h>
#include <timer.h>

#include "cxl_firmware.h"

/* The mainboard's: bridges and windows, and for how many devices there is to be room. Configuration
   space is filled in here. */
void cxl_mainboard_platform(struct cxl_platform *platform, struct cxl_limits *limits);

static struct cxl_workspace *work;
static uint8_t cedt[8 * KiB];
static size_t cedt_size;

static uint32_t read32_(void *context, uint64_t address)
{
	return read32p((uintptr_t)address);
}

static void write32_(void *context, uint64_t address, uint32_t value)
{
	write32p((uintptr_t)address, value);
}

static void write64_(void *context, uint64_t address, uint64_t value)
{
	write64p((uintptr_t)address, value);
}

static uint64_t microseconds(void *context)
{
	struct mono_time now;

	timer_monotonic_get(&now);
	return now.microseconds;
}

static uint32_t config_read32(void *context, uint16_t segment, uint8_t bus, uint8_t function,
			      uint16_t offset)
{
	return segment ? UINT32_MAX
		       : pci_s_read_config32(PCI_DEV(bus, function >> 3, function & 7), offset);
}

static void config_write32(void *context, uint16_t segment, uint8_t bus, uint8_t function,
			   uint16_t offset, uint32_t value)
{
	if (!segment)
		pci_s_write_config32(PCI_DEV(bus, function >> 3, function & 7), offset, value);
}

static void log(void *context, const char *line)
{
	printk(BIOS_INFO, "cxl: %s\n", line);
}

static const struct cxl_hardware hw = {
	.size = sizeof(hw), .read32 = read32_, .write32 = write32_, .write64 = write64_,
	.microseconds = microseconds, .config_read32 = config_read32,
	.config_write32 = config_write32, .log = log,
};

static void cxl_init(void *unused)
{
	/* Which buses there are; configuration space itself is reached by the callbacks. */
	const struct cxl_ecam ecam = { .base = CONFIG_ECAM_MMCONF_BASE_ADDRESS,
		.last_bus = CONFIG_ECAM_MMCONF_BUS_NUMBER - 1 };
	struct cxl_platform platform = { .size = sizeof(platform), .ecam = &ecam, .ecam_count = 1,
		.address_bits = cpu_phys_address_size() };
	/* Memory in windows is cached here: the probe would ask the caches. */
	const struct cxl_policy policy = { .size = sizeof(policy),
		.on_failure = CXL_ON_FAILURE_BEST_EFFORT, .probe = CXL_PROBE_POLICY_SKIP };
	const struct cxl_identity made_by = { "COREv4", "COREBOOT", 0, 1, "CXLF", 1 };
	struct cxl_limits limits = { .size = sizeof(limits) };
	cxl_status status;

	cxl_mainboard_platform(&platform, &limits);
	const size_t size = cxl_workspace_size(&limits);

	status = cxl_workspace_init(memalign(CXL_WORKSPACE_ALIGN, size), size, &limits, &work);
	if (status == CXL_STATUS_OK)
		status = cxl_set_platform(work, &platform);
	if (status == CXL_STATUS_OK)
		status = cxl_set_policy(work, &policy);
	if (status == CXL_STATUS_OK)
		status = cxl_bring_up(work, &hw);
	if (status >= 0)
		status = cxl_describe(work, &hw, &made_by, cedt, sizeof(cedt), &cedt_size);
	if (status < 0) {
		printk(BIOS_ERR, "cxl: status %d\n", (int)status);
		cedt_size = 0;
	}
}

static void cxl_ranges(void *unused)
{
	for (uint32_t i = 0; cedt_size && i < cxl_region_count(work); i++) {
		struct cxl_region region = { .size = sizeof(region) };

		if (cxl_region_at(work, i, &region) == CXL_STATUS_OK)
			bootmem_add_range(region.base, region.bytes, BM_MEM_SOFT_RESERVED);
	}
}

/* The CEDT, where all other tables are; the end of it. */
unsigned long cxl_write_acpi_tables(const struct device *device, unsigned long current,
				    struct acpi_rsdp *rsdp)
{
	if (!cedt_size)
		return current;
	current = acpi_align_current(current);
	memcpy((void *)current, cedt, cedt_size);
	acpi_add_table(rsdp, (void *)current);
	return current + cedt_size;
}

BOOT_STATE_INIT_ENTRY(BS_DEV_INIT, BS_ON_EXIT, cxl_init, NULL);
BOOT_STATE_INIT_ENTRY(BS_WRITE_TABLES, BS_ON_ENTRY, cxl_ranges, NULL);
