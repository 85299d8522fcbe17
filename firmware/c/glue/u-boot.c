/*
 * For U-Boot: the command `cxl`, which brings CXL memory up. Bridges and windows are read from the
 * MCFG and CEDT whose addresses it is given; what it made lies where the last two say.
 *
 * As cmd/cxl.c, with `obj-y += cxl.o libcxl_firmware_c.o` in cmd/Makefile, where the latter is the
 * archive linked into one object (`ld -r --whole-archive`).
 */
#include <command.h>
#include <cpu_func.h>
#include <mapmem.h>
#include <memalign.h>
#include <pci.h>
#include <stdio.h>
#include <time.h>
#include <vsprintf.h>
#include <asm/io.h>
#include <linux/sizes.h>
#include <dm/device.h>

#include "cxl_firmware.h"

static u32 cxl_read32(void *context, u64 address)
{
	return readl((void *)(uintptr_t)address);
}

static void cxl_write32(void *context, u64 address, u32 value)
{
	writel(value, (void *)(uintptr_t)address);
}

static void cxl_write64(void *context, u64 address, u64 value)
{
	*(volatile u64 *)(uintptr_t)address = value;
}

static u64 cxl_microseconds(void *context)
{
	return timer_get_us();
}

/* Configuration space by U-Boot's own: only functions that it has found are there. */
static u32 cxl_config_read32(void *context, u16 segment, u8 bus, u8 function, u16 offset)
{
	struct udevice *device;
	u32 value = ~0u;

	if (!dm_pci_bus_find_bdf(PCI_BDF(bus, function >> 3, function & 7), &device))
		dm_pci_read_config32(device, offset, &value);
	return value;
}

static void cxl_config_write32(void *context, u16 segment, u8 bus, u8 function, u16 offset,
			       u32 value)
{
	struct udevice *device;

	if (!dm_pci_bus_find_bdf(PCI_BDF(bus, function >> 3, function & 7), &device))
		dm_pci_write_config32(device, offset, value);
}

static void cxl_log(void *context, const char *line)
{
	printf("cxl: %s\n", line);
}

static int do_cxl(struct cmd_tbl *cmdtp, int flag, int argc, char *const argv[])
{
	static struct cxl_hardware hw = {
		.size = sizeof(hw), .read32 = cxl_read32, .write32 = cxl_write32,
		.write64 = cxl_write64, .microseconds = cxl_microseconds,
		.config_read32 = cxl_config_read32, .config_write32 = cxl_config_write32,
		.log = cxl_log,
	};
	struct cxl_limits limits = { .size = sizeof(limits), .bridges = 8, .devices = 32 };
	/* Memory in windows is cached here: the probe would ask the caches. */
	struct cxl_policy policy = { .size = sizeof(policy), .probe = CXL_PROBE_POLICY_SKIP };
	struct cxl_platform platform = { .size = sizeof(platform), .address_bits = 46 };
	struct cxl_identity made_by = { "U-BOOT", "CXL     ", 0, 1, "CXLF", 1 };
	struct cxl_workspace *work;
	size_t length;
	cxl_status status;

	if (argc != 5)
		return CMD_RET_USAGE;
	platform.mcfg = map_sysmem(hextoul(argv[1], NULL), 0);
	platform.cedt = map_sysmem(hextoul(argv[2], NULL), 0);
	platform.mcfg_size = readl(platform.mcfg + 4);
	platform.cedt_size = readl(platform.cedt + 4);

	size_t size = cxl_workspace_size(&limits);
	void *memory = memalign(CXL_WORKSPACE_ALIGN, size);

	status = cxl_workspace_init(memory, size, &limits, &work);
	if (status == CXL_STATUS_OK)
		status = cxl_set_platform(work, &platform);
	if (status == CXL_STATUS_OK)
		status = cxl_set_policy(work, &policy);
	if (status == CXL_STATUS_OK)
		status = cxl_bring_up(work, &hw);
	if (status >= 0)
		status = cxl_describe(work, &hw, &made_by, map_sysmem(hextoul(argv[3], NULL), 0),
				      SZ_8K, &length);
	if (status >= 0)
		status = cxl_write_handoff(work, &hw, hextoul(argv[3], NULL), length,
					   map_sysmem(hextoul(argv[4], NULL), 0), SZ_64K, &length);
	if (status < 0)
		printf("cxl: status %d\n", status);
	free(memory);
	return status < 0 ? CMD_RET_FAILURE : CMD_RET_SUCCESS;
}

U_BOOT_CMD(cxl, 5, 0, do_cxl, "bring CXL memory up",
	   "MCFG CEDT TABLE RECORD - addresses: of the platform's tables, of 8 KiB for the new\n"
	   "    CEDT, of 64 KiB for the hand-off record");
