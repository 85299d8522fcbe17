/*
 * For edk2: a DXE library's constructor that brings CXL memory up once PCI is enumerated, replaces the
 * CEDT and tells UEFI of the memory. Where bridges and windows are, the platform says: see
 * CxlPlatform() below.
 *
 * In the INF: LibraryClasses BaseLib, DebugLib, DxeServicesTableLib, IoLib, MemoryAllocationLib,
 * PciSegmentLib, TimerLib, UefiBootServicesTableLib; Protocols gEfiAcpiTableProtocolGuid; and
 * libcxl_firmware_c.a. The archive has to call functions as the tool chain does: with GCC on x86-64
 * it is the one of the target x86_64-unknown-none, with CLANGPDB or VS x86_64-unknown-uefi; on Arm
 * aarch64-unknown-none. These targets bring memcpy and its like along.
 */
#include <PiDxe.h>

#include <Library/BaseLib.h>
#include <Library/DebugLib.h>
#include <Library/DxeServicesTableLib.h>
#include <Library/IoLib.h>
#include <Library/MemoryAllocationLib.h>
#include <Library/PciSegmentLib.h>
#include <Library/TimerLib.h>
#include <Library/UefiBootServicesTableLib.h>
#include <Protocol/AcpiTable.h>

#include "cxl_firmware.h"

/* The platform's: configuration regions, bridges and windows, with all lists in memory that stays. */
extern VOID CxlPlatform(struct cxl_platform *Platform, struct cxl_limits *Limits);

STATIC uint32_t Read32(void *Context, uint64_t Address)
{
    return MmioRead32((UINTN)Address);
}

STATIC void Write32(void *Context, uint64_t Address, uint32_t Value)
{
    MmioWrite32((UINTN)Address, Value);
}

STATIC void Write64(void *Context, uint64_t Address, uint64_t Value)
{
    MmioWrite64((UINTN)Address, Value);
}

STATIC uint64_t Microseconds(void *Context)
{
    return GetTimeInNanoSecond(GetPerformanceCounter()) / 1000;
}

STATIC UINT64 Config(uint16_t Segment, uint8_t Bus, uint8_t Function, uint16_t Offset)
{
    return PCI_SEGMENT_LIB_ADDRESS((UINT64)Segment, Bus, Function >> 3, Function & 7, Offset);
}

STATIC uint32_t ConfigRead32(void *Context, uint16_t Segment, uint8_t Bus, uint8_t Function,
                             uint16_t Offset)
{
    return PciSegmentRead32(Config(Segment, Bus, Function, Offset));
}

STATIC void ConfigWrite32(void *Context, uint16_t Segment, uint8_t Bus, uint8_t Function,
                          uint16_t Offset, uint32_t Value)
{
    PciSegmentWrite32(Config(Segment, Bus, Function, Offset), Value);
}

STATIC void Log(void *Context, const char *Line)
{
    DEBUG((DEBUG_INFO, "cxl: %a\n", Line));
}

/* What a status of the library is in UEFI. */
STATIC EFI_STATUS Status(cxl_status Found)
{
    switch (Found) {
    case CXL_STATUS_OK:
        return EFI_SUCCESS;
    case CXL_STATUS_LESS:
        return EFI_WARN_STALE_DATA;
    case CXL_STATUS_REFUSED:
        return EFI_DEVICE_ERROR;
    case CXL_STATUS_SHORT:
        return EFI_BUFFER_TOO_SMALL;
    default:
        return EFI_INVALID_PARAMETER;
    }
}

EFI_STATUS EFIAPI CxlBringUp(IN EFI_HANDLE ImageHandle, IN EFI_SYSTEM_TABLE *SystemTable)
{
    STATIC UINT8 Cedt[SIZE_8KB];
    struct cxl_hardware Hw = {.size = sizeof Hw, .read32 = Read32, .write32 = Write32,
        .write64 = Write64, .microseconds = Microseconds, .config_read32 = ConfigRead32,
        .config_write32 = ConfigWrite32, .log = Log};
    struct cxl_limits Limits = {.size = sizeof Limits};
    struct cxl_platform Platform = {.size = sizeof Platform};
    /* Memory in windows is cached here: the probe would ask the caches. */
    struct cxl_policy Policy = {.size = sizeof Policy, .on_failure = CXL_ON_FAILURE_BEST_EFFORT,
        .probe = CXL_PROBE_POLICY_SKIP};
    struct cxl_identity MadeBy = {"EDK2  ", "CXLDXE  ", 0, 1, "CXLF", 1};
    struct cxl_workspace *Work;
    EFI_ACPI_TABLE_PROTOCOL *Acpi;
    size_t Length;
    UINTN Key;

    CxlPlatform(&Platform, &Limits);
    UINTN Size = cxl_workspace_size(&Limits);
    VOID *Memory = AllocatePages(EFI_SIZE_TO_PAGES(Size));
    cxl_status Found = cxl_workspace_init(Memory, Size, &Limits, &Work);
    if (Found == CXL_STATUS_OK)
        Found = cxl_set_platform(Work, &Platform);
    if (Found == CXL_STATUS_OK)
        Found = cxl_set_policy(Work, &Policy);
    if (Found == CXL_STATUS_OK)
        Found = cxl_bring_up(Work, &Hw);
    if (Found >= 0)
        Found = cxl_describe(Work, &Hw, &MadeBy, Cedt, sizeof Cedt, &Length);
    if (Found < 0)
        return Status(Found);

    for (UINT32 Index = 0; Index < cxl_region_count(Work); Index++) {
        struct cxl_region Region = {.size = sizeof Region};
        if (cxl_region_at(Work, Index, &Region) == CXL_STATUS_OK
            && Region.partition == CXL_PARTITION_VOLATILE)
            gDS->AddMemorySpace(EfiGcdMemoryTypeSystemMemory, Region.base, Region.bytes,
                                EFI_MEMORY_WB | EFI_MEMORY_SP);
    }
    EFI_STATUS Located = gBS->LocateProtocol(&gEfiAcpiTableProtocolGuid, NULL, (VOID **)&Acpi);
    return EFI_ERROR(Located) ? Located : Acpi->InstallAcpiTable(Acpi, Cedt, Length, &Key);
}
