/* What a machine gives to the bootloader: x86_64.c or aarch64.c, and the start code beside it. */
#include "../cxl_firmware.h"

/* Addresses below this are mapped, one to one; registers and windows past the caches. */
extern const uint64_t mapped;

void put(char c);
uint64_t microseconds(void *context);
uint32_t address_bits(void);
/* Finds what the platform is; `info` is what the start code was given. */
void find_platform(const struct cxl_hardware *hw, uint64_t info, struct cxl_platform *to);

/* The bootloader's: the workspace, and an end with words where a status is below 0. */
extern struct cxl_workspace *work;
cxl_status must(const char *what, cxl_status status);
