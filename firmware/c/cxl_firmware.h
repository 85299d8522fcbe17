/*
 * CXL memory for bootloaders in C: discover, plan, program, commit, lock, verify, probe, describe.
 *
 * Written by cbindgen from firmware/c/src; do not edit. Licensed under Apache-2.0 or MIT, at your
 * option.
 *
 * What every function needs, and no function can see:
 *
 * - A pointer is NULL, or leads to as many values of its type as the function is told. Nobody changes
 *   them while the function runs.
 * - The memory of a workspace is the library's alone from cxl_workspace_init on. Two workspaces may be
 *   used at the same time, one may not.
 * - Callbacks do what their comments say and return; they do not leave by longjmp.
 *
 * Nothing is allocated, and no state is kept but in workspaces. What can be seen to be wrong is a
 * cxl_status below 0.
 */

#ifndef CXL_FIRMWARE_H
#define CXL_FIRMWARE_H

#include <stddef.h>
#include <stdint.h>

/**
 * Changes where a function or a struct of this header changes its meaning.
 */
#define CXL_API 1

/**
 * The base of a window that the platform found no place for.
 */
#define CXL_NO_BASE UINT64_MAX

/**
 * Bit of `cxl_window.restrictions`, as in a CFMWS: memory that its device keeps coherent (HDM-D,
 * HDM-DB) may lie there.
 */
#define CXL_WINDOW_DEVICE_COHERENT (1 << 0)

/**
 * Host-only coherent memory (HDM-H) may.
 */
#define CXL_WINDOW_HOST_ONLY (1 << 1)

/**
 * Volatile memory may.
 */
#define CXL_WINDOW_VOLATILE (1 << 2)

/**
 * Persistent memory may.
 */
#define CXL_WINDOW_PERSISTENT (1 << 3)

/**
 * What lies there must not be moved.
 */
#define CXL_WINDOW_FIXED (1 << 4)

/**
 * Memory with back-invalidate (HDM-DB) may.
 */
#define CXL_WINDOW_BACK_INVALIDATE (1 << 5)

/**
 * Alignment of a workspace's memory in bytes.
 */
#define CXL_WORKSPACE_ALIGN 16

/**
 * What a function gives back: 0 is success, 1 a success with losses, below 0 nothing was done, or
 * what `cxl_last_error` says.
 */
enum cxl_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Done.
   */
  CXL_STATUS_OK = 0,
  /**
   * Done, with losses that the policy allows: see the components' outcomes.
   */
  CXL_STATUS_LESS = 1,
  /**
   * The library refuses, or something failed: `cxl_last_error` has its number.
   */
  CXL_STATUS_REFUSED = -1,
  /**
   * A pointer or a callback that is needed is NULL.
   */
  CXL_STATUS_NULL = -2,
  /**
   * A pointer is not aligned as its type needs, or the workspace's memory is not to
   * `CXL_WORKSPACE_ALIGN`.
   */
  CXL_STATUS_UNALIGNED = -3,
  /**
   * A buffer, or the workspace's memory, is too short; where a function tells lengths, it tells
   * what is enough.
   */
  CXL_STATUS_SHORT = -4,
  /**
   * The field `size` of a struct is smaller than the first version of the struct was, or larger
   * than this library knows with something behind that is not 0.
   */
  CXL_STATUS_SIZE = -5,
  /**
   * A value means nothing: `cxl_last_error` has the argument, the entry and the value.
   */
  CXL_STATUS_ARGUMENT = -6,
  /**
   * Too early: what the function works on was not made yet.
   */
  CXL_STATUS_ORDER = -7,
  /**
   * More entries than the workspace was made for: `cxl_last_error` has the argument, and how
   * many it has room for.
   */
  CXL_STATUS_ROOM = -8,
  /**
   * The list has no such entry.
   */
  CXL_STATUS_END = -9,
  /**
   * This is no workspace that `cxl_workspace_init` made, or it lies elsewhere now.
   */
  CXL_STATUS_WORKSPACE = -10,
  /**
   * A callback called a function with the workspace that called it.
   */
  CXL_STATUS_BUSY = -11,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum cxl_status cxl_status;
#else
typedef int32_t cxl_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What an argument is, where one is refused: the field `detail` of a `cxl_error` whose `code` is 0.
 */
enum cxl_argument {
  /**
   * None.
   */
  CXL_ARGUMENT_NONE = 0,
  /**
   * `cxl_limits`: a number is above 65535, or the memory would have more bytes than there are.
   */
  CXL_ARGUMENT_LIMITS = 1,
  /**
   * `cxl_ecam`: `first_bus` lies behind `last_bus`.
   */
  CXL_ARGUMENT_ECAM_BUSES = 2,
  /**
   * `cxl_bridge.kind`: see `cxl_bridge_kind`.
   */
  CXL_ARGUMENT_BRIDGE_KIND = 3,
  /**
   * `cxl_window.ways`: 1, 2, 3, 4, 6, 8, 12 or 16.
   */
  CXL_ARGUMENT_WAYS = 4,
  /**
   * `cxl_window.granularity`: 256 to 16384, a power of two.
   */
  CXL_ARGUMENT_GRANULARITY = 5,
  /**
   * `cxl_window.arithmetic`: see `cxl_arithmetic`.
   */
  CXL_ARGUMENT_ARITHMETIC = 6,
  /**
   * `cxl_window.target_count`: 16 at most.
   */
  CXL_ARGUMENT_TARGETS = 7,
  /**
   * `cxl_window.xor_map_count`: 4 at most.
   */
  CXL_ARGUMENT_XOR_MAPS = 8,
  /**
   * `cxl_range`: no bytes, or it would pass the end of the address space.
   */
  CXL_ARGUMENT_RANGE = 9,
  /**
   * `cxl_platform`: ECAM regions, bridges or windows beside tables that have them.
   */
  CXL_ARGUMENT_TABLES_AND_VALUES = 10,
  /**
   * `cxl_path.port_count`: 16 at most.
   */
  CXL_ARGUMENT_PATH = 11,
  /**
   * `cxl_policy.path`: see `cxl_path_policy`.
   */
  CXL_ARGUMENT_PATH_POLICY = 12,
  /**
   * `cxl_policy.target`: see `cxl_target`.
   */
  CXL_ARGUMENT_TARGET = 13,
  /**
   * `cxl_width.kind`: see `cxl_width_kind`.
   */
  CXL_ARGUMENT_WIDTH_KIND = 14,
  /**
   * `cxl_policy.prefer`: see `cxl_prefer`.
   */
  CXL_ARGUMENT_PREFER = 15,
  /**
   * `cxl_policy.probe`: see `cxl_probe_policy`.
   */
  CXL_ARGUMENT_PROBE = 16,
  /**
   * `cxl_policy.on_failure`: see `cxl_on_failure`.
   */
  CXL_ARGUMENT_ON_FAILURE = 17,
  /**
   * `cxl_policy.broken_sets`: see `cxl_broken_sets`.
   */
  CXL_ARGUMENT_BROKEN_SETS = 18,
  /**
   * `partition`: see `cxl_partition`.
   */
  CXL_ARGUMENT_PARTITION = 19,
  /**
   * `cxl_leave_out.kind`: see `cxl_leave_out_kind`.
   */
  CXL_ARGUMENT_LEAVE_OUT = 20,
  /**
   * `cxl_set_request.member_count`: 16 at most.
   */
  CXL_ARGUMENT_MEMBERS = 21,
  /**
   * A flag that is neither 0 nor 1.
   */
  CXL_ARGUMENT_FLAG = 22,
  /**
   * A field for later that is not 0.
   */
  CXL_ARGUMENT_RESERVED = 23,
  /**
   * ECAM regions.
   */
  CXL_ARGUMENT_ECAM_COUNT = 24,
  /**
   * Bridges.
   */
  CXL_ARGUMENT_BRIDGE_COUNT = 25,
  /**
   * Windows.
   */
  CXL_ARGUMENT_WINDOW_COUNT = 26,
  /**
   * Ranges of address space, of one list.
   */
  CXL_ARGUMENT_RANGE_COUNT = 27,
  /**
   * Root buses.
   */
  CXL_ARGUMENT_ROOT_COUNT = 28,
  /**
   * Entries of a list of the policy.
   */
  CXL_ARGUMENT_POLICY_COUNT = 29,
  /**
   * `which` of `cxl_error_count` and `cxl_error_at`: see `cxl_error_list`.
   */
  CXL_ARGUMENT_ERROR_LIST = 30,
  /**
   * `pci` of `cxl_restore`: see `cxl_pci`.
   */
  CXL_ARGUMENT_PCI = 31,
  /**
   * `cxl_hardware`: one callback for configuration space without the other.
   */
  CXL_ARGUMENT_CONFIG_CALLBACKS = 32,
  /**
   * The workspace's memory: it has `found` bytes, and needs `expected`.
   */
  CXL_ARGUMENT_MEMORY = 33,
  /**
   * A length that no object of this machine has.
   */
  CXL_ARGUMENT_LENGTH = 34,
};

/**
 * How addresses choose a target of a window.
 */
enum cxl_arithmetic {
  /**
   * Modulo.
   */
  CXL_ARITHMETIC_MODULO = 0,
  /**
   * XOR, with the window's maps.
   */
  CXL_ARITHMETIC_XOR = 1,
};

/**
 * What a bridge's registers are.
 */
enum cxl_bridge_kind {
  /**
   * CXL 2.0 and later: a component register block of 64 KiB.
   */
  CXL_BRIDGE_KIND_COMPONENT_REGISTERS = 0,
  /**
   * CXL 1.1: a root complex register block. In the table, and not programmed.
   */
  CXL_BRIDGE_KIND_RCRB = 1,
};

/**
 * What becomes of devices whose set lost a member, with best effort.
 */
enum cxl_broken_sets {
  /**
   * Narrower sets, and ranges of their own for the rest.
   */
  CXL_BROKEN_SETS_NARROWER = 0,
  /**
   * Each has a range of its own.
   */
  CXL_BROKEN_SETS_FLAT = 1,
  /**
   * They stay unused.
   */
  CXL_BROKEN_SETS_UNUSED = 2,
};

/**
 * Who keeps memory coherent.
 */
enum cxl_coherency {
  /**
   * The host (HDM-H).
   */
  CXL_COHERENCY_HOST_ONLY = 0,
  /**
   * The device (HDM-D).
   */
  CXL_COHERENCY_DEVICE = 1,
  /**
   * The device, by back-invalidate (HDM-DB).
   */
  CXL_COHERENCY_BACK_INVALIDATE = 2,
};

/**
 * What a component is. The numbers are those of the hand-off record.
 */
enum cxl_component_kind {
  /**
   * A memory device.
   */
  CXL_COMPONENT_KIND_DEVICE = 0,
  /**
   * A host bridge.
   */
  CXL_COMPONENT_KIND_HOST_BRIDGE = 1,
  /**
   * A switch's upstream port.
   */
  CXL_COMPONENT_KIND_UPSTREAM_PORT = 2,
  /**
   * A root port.
   */
  CXL_COMPONENT_KIND_ROOT_PORT = 3,
  /**
   * A switch's downstream port.
   */
  CXL_COMPONENT_KIND_DOWNSTREAM_PORT = 4,
  /**
   * Nobody came to know.
   */
  CXL_COMPONENT_KIND_UNKNOWN = 255,
};

/**
 * A list of errors.
 */
enum cxl_error_list {
  /**
   * What discovery passed over, or lost.
   */
  CXL_ERROR_LIST_REMARKS = 0,
  /**
   * What the owner should know of the plan: `code` is a note's number, `place` a device, window or
   * range, `found` bytes. The log has it in words.
   */
  CXL_ERROR_LIST_NOTES = 1,
  /**
   * What the verifier found wrong, or worth knowing.
   */
  CXL_ERROR_LIST_FINDINGS = 2,
  /**
   * Memory that did not answer.
   */
  CXL_ERROR_LIST_PROBE = 3,
};

/**
 * What became of a decoder. The numbers are those of the hand-off record.
 */
enum cxl_fate {
  /**
   * Not written to.
   */
  CXL_FATE_UNTOUCHED = 0,
  /**
   * Written to, and reads as it did before.
   */
  CXL_FATE_ROLLED_BACK = 1,
  /**
   * Cannot be put back, and serves nothing.
   */
  CXL_FATE_STRANDED = 2,
  /**
   * Committed as it should be.
   */
  CXL_FATE_DONE = 3,
};

/**
 * What is not to be touched.
 */
enum cxl_leave_out_kind {
  /**
   * What lies at `at`.
   */
  CXL_LEAVE_OUT_KIND_PLACE = 0,
  /**
   * Devices with `vendor` and `device`.
   */
  CXL_LEAVE_OUT_KIND_DEVICE = 1,
  /**
   * The one with `vendor`, `device` and `serial`.
   */
  CXL_LEAVE_OUT_KIND_SERIAL = 2,
};

/**
 * What a failure of one component costs.
 */
enum cxl_on_failure {
  /**
   * Everything.
   */
  CXL_ON_FAILURE_STRICT = 0,
  /**
   * That component, and what lies below it.
   */
  CXL_ON_FAILURE_BEST_EFFORT = 1,
};

/**
 * What became of a component. The numbers are those of the hand-off record.
 */
enum cxl_outcome {
  /**
   * A region leads through it, or to it.
   */
  CXL_OUTCOME_IN_USE = 0,
  /**
   * The policy left it out.
   */
  CXL_OUTCOME_LEFT_OUT = 1,
  /**
   * It failed, or what it cannot do without did.
   */
  CXL_OUTCOME_BROKEN = 2,
  /**
   * It is of CXL, and has no CXL.mem that could be used.
   */
  CXL_OUTCOME_NOT_MEM = 3,
  /**
   * Nothing is wrong, and no region needs it.
   */
  CXL_OUTCOME_UNUSED = 4,
};

/**
 * A part of a device's memory.
 */
enum cxl_partition {
  /**
   * Lost with power.
   */
  CXL_PARTITION_VOLATILE = 0,
  /**
   * Kept.
   */
  CXL_PARTITION_PERSISTENT = 1,
};

/**
 * Who programs the decoders, and whether they stay as programmed.
 */
enum cxl_path_policy {
  /**
   * The library programs every decoder on each path, and locks all of them.
   */
  CXL_PATH_POLICY_LOCK_ALL = 0,
  /**
   * The guest programs the decoders; the topology has to leave it no choice.
   */
  CXL_PATH_POLICY_GUEST_PROGRAMS = 1,
  /**
   * Describe, do not program: the operating system programs the decoders.
   */
  CXL_PATH_POLICY_DESCRIBE = 2,
  /**
   * Program and commit, lock nothing.
   */
  CXL_PATH_POLICY_UNLOCKED = 3,
};

/**
 * Who restores what PCI needs: bus numbers, windows, BARs, Command.
 */
enum cxl_pci {
  /**
   * The library, from the record.
   */
  CXL_PCI_LIBRARY = 0,
  /**
   * Somebody has, to what is recorded.
   */
  CXL_PCI_DONE = 1,
};

/**
 * Which of several windows that fit is taken.
 */
enum cxl_prefer {
  /**
   * None: that there are several is an error.
   */
  CXL_PREFER_NONE = 0,
  /**
   * The one that spreads over the most bridges.
   */
  CXL_PREFER_WIDEST = 1,
  /**
   * The one that spreads over the fewest.
   */
  CXL_PREFER_NARROWEST = 2,
  /**
   * The lowest.
   */
  CXL_PREFER_LOWEST = 3,
};

/**
 * Which memory is asked by marks whether it answers.
 */
enum cxl_probe_policy {
  /**
   * All of it: `read32` and `write32` reach the windows past the caches.
   */
  CXL_PROBE_POLICY_ALL = 0,
  /**
   * Regions that end below `probe_below`.
   */
  CXL_PROBE_POLICY_BELOW = 1,
  /**
   * None.
   */
  CXL_PROBE_POLICY_SKIP = 2,
};

/**
 * What a region's memory was asked.
 */
enum cxl_probed {
  /**
   * Nothing.
   */
  CXL_PROBED_NO = 0,
  /**
   * It was only read, as it is persistent.
   */
  CXL_PROBED_READ = 1,
  /**
   * It held marks at both ends of every way.
   */
  CXL_PROBED_HELD = 2,
};

/**
 * Whose rules the result has to satisfy beyond the specification's.
 */
enum cxl_target {
  /**
   * Linux: what its CXL driver refuses is refused.
   */
  CXL_TARGET_LINUX = 0,
  /**
   * Nobody's.
   */
  CXL_TARGET_SPECIFICATION = 1,
};

/**
 * How many devices share a region.
 */
enum cxl_width_kind {
  /**
   * One: every device has ranges of its own.
   */
  CXL_WIDTH_KIND_FLAT = 0,
  /**
   * As many as the topology allows.
   */
  CXL_WIDTH_KIND_WIDEST = 1,
  /**
   * As many as `ways` says, at `granularity`.
   */
  CXL_WIDTH_KIND_EXACTLY = 2,
};

/**
 * All that the library keeps, in memory that the caller lends. Opaque.
 */
struct cxl_workspace;

/**
 * How large a machine the workspace has room for. What is 0, but for bridges and devices, follows
 * from these two.
 *
 * Set `size` to `sizeof(struct cxl_limits)`. One more of anything than fits is an error that says so,
 * by `CXL_STATUS_ROOM` or by a number of the library.
 */
struct cxl_limits {
  /**
   * Bytes of this struct.
   */
  uint32_t size;
  /**
   * Host bridges.
   */
  uint32_t bridges;
  /**
   * Memory devices.
   */
  uint32_t devices;
  /**
   * Root ports, and upstream and downstream ports of switches: 4 for each bridge and 3 for each
   * device.
   */
  uint32_t ports;
  /**
   * Windows: 2 for each bridge and 4 more.
   */
  uint32_t windows;
  /**
   * Regions: 2 for each device.
   */
  uint32_t regions;
  /**
   * Decoders in use, over all components: 3 for each region. With `burn_spares` all that there
   * are.
   */
  uint32_t decoders;
  /**
   * Configuration regions, and ranges of each list of `cxl_platform`: 16.
   */
  uint32_t ranges;
  /**
   * Entries of each list of `cxl_policy`: as many as devices, and 4 more.
   */
  uint32_t policy_entries;
};

/**
 * Configuration space of a PCI segment, in memory.
 */
struct cxl_ecam {
  /**
   * Address of bus 0, whether or not that bus is decoded.
   */
  uint64_t base;
  /**
   * PCI segment group.
   */
  uint16_t segment;
  /**
   * First bus that is decoded.
   */
  uint8_t first_bus;
  /**
   * Last bus that is decoded.
   */
  uint8_t last_bus;
  /**
   * 0.
   */
  uint32_t reserved;
};

/**
 * A CXL host bridge.
 */
struct cxl_bridge {
  /**
   * Address of its register block.
   */
  uint64_t registers;
  /**
   * ACPI `_UID`: what CHBS records and window targets call it.
   */
  uint32_t uid;
  /**
   * A `cxl_bridge_kind`.
   */
  uint8_t kind;
  /**
   * 1: `segment` and `bus` are its root bus; 0: the library looks for it at the bus with the
   * number of the UID.
   */
  uint8_t has_root;
  /**
   * PCI segment group of the root bus.
   */
  uint16_t segment;
  /**
   * Number of the root bus.
   */
  uint8_t bus;
  /**
   * 0.
   */
  uint8_t reserved[7];
};

/**
 * A window: host addresses that the platform routes to CXL.
 */
struct cxl_window {
  /**
   * First address, by which the window is known; `CXL_NO_BASE` when the platform found no place.
   */
  uint64_t base;
  /**
   * Bytes.
   */
  uint64_t size;
  /**
   * Ways of its interleave across the targets: 1, 2, 3, 4, 6, 8, 12 or 16.
   */
  uint32_t ways;
  /**
   * Granularity of the interleave in bytes: 256 to 16384, a power of two; also of one way.
   */
  uint32_t granularity;
  /**
   * What may be mapped here: `CXL_WINDOW_HOST_ONLY | ...`.
   */
  uint16_t restrictions;
  /**
   * QoS throttling group.
   */
  uint16_t qtg;
  /**
   * A `cxl_arithmetic`.
   */
  uint8_t arithmetic;
  /**
   * How many targets there are, 16 at most.
   */
  uint8_t target_count;
  /**
   * How many XOR maps there are, 4 at most; none for modulo.
   */
  uint8_t xor_map_count;
  /**
   * 0.
   */
  uint8_t reserved;
  /**
   * UIDs of the bridges, way 0 first.
   */
  uint32_t targets[16];
  /**
   * XOR maps.
   */
  uint64_t xor_maps[4];
};

/**
 * Where a bridge's PCI hierarchy starts, for bridges out of a CEDT (`_BBN` and `_SEG` are in AML).
 */
struct cxl_root {
  /**
   * UID of the bridge; one that no table has means nothing.
   */
  uint32_t uid;
  /**
   * PCI segment group.
   */
  uint16_t segment;
  /**
   * Bus number of the root ports.
   */
  uint8_t bus;
  /**
   * 0.
   */
  uint8_t reserved;
};

/**
 * A range of addresses.
 */
struct cxl_range {
  /**
   * First address.
   */
  uint64_t base;
  /**
   * Bytes.
   */
  uint64_t size;
};

/**
 * Address space that discovery may hand out below one bridge to what the board left unassigned.
 */
struct cxl_resource {
  /**
   * Memory for BARs and forwarding windows.
   */
  struct cxl_range range;
  /**
   * UID of the bridge.
   */
  uint32_t uid;
  /**
   * 0.
   */
  uint32_t reserved;
};

/**
 * The platform, as far as CXL is concerned. All of it is copied.
 *
 * Set `size` to `sizeof(struct cxl_platform)` and what is not said to 0. Either `ecam`, `bridges` and
 * `windows` say what there is, or `mcfg` and `cedt` do.
 */
struct cxl_platform {
  /**
   * Bytes of this struct.
   */
  uint32_t size;
  /**
   * Width of a physical address in bits (CPUID leaf 0x80000008 on x86, ID_AA64MMFR0_EL1 on Arm).
   */
  uint32_t address_bits;
  /**
   * Configuration regions.
   */
  const struct cxl_ecam *ecam;
  /**
   * Host bridges, in any order.
   */
  const struct cxl_bridge *bridges;
  /**
   * Windows, in any order. None: discovery needs none, and `cxl_size_windows` makes them.
   */
  const struct cxl_window *windows;
  /**
   * The MCFG, or NULL.
   */
  const uint8_t *mcfg;
  /**
   * The CEDT, or NULL.
   */
  const uint8_t *cedt;
  /**
   * Root buses of the CEDT's bridges, as far as they are known.
   */
  const struct cxl_root *roots;
  /**
   * What may be assigned, a range for a bridge. Below a bridge without one everything is used as
   * found, or refused.
   */
  const struct cxl_resource *resources;
  /**
   * Where something else answers: RAM, registers of the chip set. No window may reach there.
   */
  const struct cxl_range *occupied;
  /**
   * How many configuration regions.
   */
  uint32_t ecam_count;
  /**
   * How many host bridges.
   */
  uint32_t bridge_count;
  /**
   * How many windows.
   */
  uint32_t window_count;
  /**
   * Bytes of the MCFG.
   */
  uint32_t mcfg_size;
  /**
   * Bytes of the CEDT.
   */
  uint32_t cedt_size;
  /**
   * How many root buses.
   */
  uint32_t root_count;
  /**
   * How many resources.
   */
  uint32_t resource_count;
  /**
   * How many occupied ranges.
   */
  uint32_t occupied_count;
};

/**
 * How many devices share a region.
 */
struct cxl_width {
  /**
   * A `cxl_width_kind`.
   */
  uint32_t kind;
  /**
   * Ways over all levels, for `CXL_WIDTH_KIND_EXACTLY`.
   */
  uint32_t ways;
  /**
   * Granularity in bytes, likewise.
   */
  uint32_t granularity;
  /**
   * 0.
   */
  uint32_t reserved;
};

/**
 * The width of one window's regions.
 */
struct cxl_window_width {
  /**
   * The window, by its base.
   */
  uint64_t window;
  /**
   * Its width.
   */
  struct cxl_width width;
};

/**
 * A component's place: the bridge's UID and the port numbers on the way. No bus number is in it.
 */
struct cxl_path {
  /**
   * The bridge's UID.
   */
  uint32_t uid;
  /**
   * How many ports there are on the way, 16 at most; 0 for a bridge.
   */
  uint32_t port_count;
  /**
   * Their port numbers (Link Capabilities 31:24), root port first.
   */
  uint8_t ports[16];
};

/**
 * One region that is asked for.
 */
struct cxl_request {
  /**
   * The device.
   */
  struct cxl_path device;
  /**
   * The window, by its base, if `has_window`; else the only one that fits.
   */
  uint64_t window;
  /**
   * Offset into the window, if `has_offset`; else the first free place.
   */
  uint64_t offset;
  /**
   * Bytes, if `has_size`; else all that is left of the partition. 0: none, the device is left
   * out.
   */
  uint64_t bytes;
  /**
   * Bytes of the partition left out in front.
   */
  uint64_t skip;
  /**
   * A `cxl_partition`.
   */
  uint8_t partition;
  /**
   * Whether `window` counts.
   */
  uint8_t has_window;
  /**
   * Whether `offset` counts.
   */
  uint8_t has_offset;
  /**
   * Whether `bytes` counts.
   */
  uint8_t has_size;
  /**
   * 0.
   */
  uint32_t reserved;
};

/**
 * One region whose members are named.
 */
struct cxl_set_request {
  /**
   * The devices, in any order.
   */
  const struct cxl_path *members;
  /**
   * How many, 16 at most.
   */
  uint32_t member_count;
  /**
   * Granularity in bytes, in a window of one way; 0: the window's.
   */
  uint32_t granularity;
  /**
   * The window, by its base, if `has_window`.
   */
  uint64_t window;
  /**
   * Offset into the window, if `has_offset`.
   */
  uint64_t offset;
  /**
   * Bytes, all members together, if `has_size`.
   */
  uint64_t bytes;
  /**
   * Bytes of each member's partition left out in front.
   */
  uint64_t skip;
  /**
   * A `cxl_partition`.
   */
  uint8_t partition;
  /**
   * Whether `window` counts.
   */
  uint8_t has_window;
  /**
   * Whether `offset` counts.
   */
  uint8_t has_offset;
  /**
   * Whether `bytes` counts.
   */
  uint8_t has_size;
  /**
   * 0.
   */
  uint32_t reserved;
};

/**
 * What is not to be touched, from discovery on.
 */
struct cxl_leave_out {
  /**
   * Serial number.
   */
  uint64_t serial;
  /**
   * A `cxl_leave_out_kind`.
   */
  uint32_t kind;
  /**
   * Vendor ID.
   */
  uint16_t vendor;
  /**
   * Device ID.
   */
  uint16_t device;
  /**
   * The place.
   */
  struct cxl_path at;
};

/**
 * Room for ports that are empty: addresses, and a decoder on each level of their way.
 */
struct cxl_reserve {
  /**
   * Bytes for each port, a multiple of 256 MiB.
   */
  uint64_t bytes;
  /**
   * A port, or a bridge or switch for each port below it that is empty.
   */
  struct cxl_path at;
  /**
   * A `cxl_partition`.
   */
  uint8_t partition;
  /**
   * 0.
   */
  uint8_t reserved[7];
};

/**
 * What the owner of the machine wants. All of it is copied.
 *
 * Set `size` to `sizeof(struct cxl_policy)`; zeroes are the default.
 */
struct cxl_policy {
  /**
   * Bytes of this struct.
   */
  uint32_t size;
  /**
   * A `cxl_path_policy`.
   */
  uint32_t path;
  /**
   * A `cxl_target`.
   */
  uint32_t target;
  /**
   * A `cxl_on_failure`.
   */
  uint32_t on_failure;
  /**
   * A `cxl_broken_sets`.
   */
  uint32_t broken_sets;
  /**
   * A `cxl_prefer`.
   */
  uint32_t prefer;
  /**
   * A `cxl_probe_policy`.
   */
  uint32_t probe;
  /**
   * 1: set CONFIG_LOCK in each device once its memory is enabled.
   */
  uint8_t config_lock;
  /**
   * 1: commit and lock the spare decoders at size 0. Linux gives up on a port that has one.
   */
  uint8_t burn_spares;
  /**
   * 1: enable CXL.cache on Type 2 devices.
   */
  uint8_t enable_cache;
  /**
   * 1: map what is left of a set's larger members in narrower sets.
   */
  uint8_t map_leftovers;
  /**
   * For `CXL_PROBE_POLICY_BELOW`.
   */
  uint64_t probe_below;
  /**
   * How many devices share a region, in windows that `widths` does not name.
   */
  struct cxl_width width;
  /**
   * 1: with best effort, lock with the first commit.
   */
  uint8_t no_trial;
  /**
   * 0.
   */
  uint8_t reserved[3];
  /**
   * How many windows have a width of their own.
   */
  uint32_t width_count;
  /**
   * How many regions are asked for.
   */
  uint32_t request_count;
  /**
   * How many sets.
   */
  uint32_t set_count;
  /**
   * How many components are required.
   */
  uint32_t required_count;
  /**
   * How many are left out.
   */
  uint32_t leave_out_count;
  /**
   * Windows with a width of their own.
   */
  const struct cxl_window_width *widths;
  /**
   * Regions asked for. A device named here gets these and no others.
   */
  const struct cxl_request *requests;
  /**
   * Sets asked for; their members get nothing else.
   */
  const struct cxl_set_request *sets;
  /**
   * Components without which nothing is to be brought up, with best effort.
   */
  const struct cxl_path *required;
  /**
   * What is not to be touched.
   */
  const struct cxl_leave_out *leave_out;
  /**
   * A hand-off record of before: what can stay where it was stays. Or NULL.
   */
  const void *earlier;
  /**
   * Bytes of it.
   */
  size_t earlier_size;
  /**
   * Room to be kept for what is plugged in later, which `cxl_add` brings up.
   */
  const struct cxl_reserve *reserve;
  /**
   * How many entries it has.
   */
  size_t reserve_count;
};

/**
 * How the library reaches the machine. Callbacks may be called from `cxl_*` functions that get this
 * struct, and at no other time; they must not call the library with the same workspace.
 *
 * Set `size` to `sizeof(struct cxl_hardware)` and what is not there to 0.
 */
struct cxl_hardware {
  /**
   * Bytes of this struct.
   */
  uint32_t size;
  /**
   * 0.
   */
  uint32_t reserved;
  /**
   * What every callback gets.
   */
  void *context;
  /**
   * Reads the dword at a physical address, a multiple of 4: registers, and memory in windows, past
   * the caches. One access of 32 bits. What is not there reads 0xffffffff. The library reads
   * nothing wider.
   */
  uint32_t (*read32)(void *context, uint64_t address);
  /**
   * Writes the dword at a physical address, a multiple of 4. One access of 32 bits.
   */
  void (*write32)(void *context, uint64_t address, uint32_t value);
  /**
   * Writes the 64-bit register at a physical address, a multiple of 8; NULL: two writes of 32
   * bits, the lower half first. QEMU's mailbox needs the one access.
   */
  void (*write64)(void *context, uint64_t address, uint64_t value);
  /**
   * Microseconds since some moment, for waits that have to end.
   */
  uint64_t (*microseconds)(void *context);
  /**
   * Reads a dword of configuration space; NULL: `read32` reaches it in the ECAM regions of the
   * platform. With it these regions are never touched, and need not be there: they say only which
   * segments and buses there are. Bits 7:3 of `device_function` are the device. `offset` is a
   * multiple of 4 below 4096.
   */
  uint32_t (*config_read32)(void *context,
                            uint16_t segment,
                            uint8_t bus,
                            uint8_t device_function,
                            uint16_t offset);
  /**
   * Writes a dword of configuration space; NULL exactly if `config_read32` is.
   */
  void (*config_write32)(void *context,
                         uint16_t segment,
                         uint8_t bus,
                         uint8_t device_function,
                         uint16_t offset,
                         uint32_t value);
  /**
   * Takes a line for people, without a line end, with a 0 behind; NULL: no log.
   */
  void (*log)(void *context, const char *line);
};

/**
 * Why something was refused, what was found wrong, or what is worth knowing: a number, a place, what
 * was expected and what was found.
 *
 * `code` is the library's number, whose upper byte is the phase (`cxl_phase_name`); the documentation
 * of `cxl_firmware::Code` has each in words. 0 is either no error, or an argument that was refused:
 * then `detail` is a `cxl_argument` and `place[2]` the entry of its list, counted from 0.
 */
struct cxl_error {
  /**
   * The number; 0 for an argument, or none.
   */
  uint16_t code;
  /**
   * A small number, if the kind has one.
   */
  uint16_t detail;
  /**
   * Where. The lowest four bits of the first number say what it names: 0 nothing, 1 a component,
   * 2 a decoder, 3 a function, 4 a window, 5 a device in a window, 6 a range, 7 an entry of a list,
   * 8 a byte of a table, 9 a table. Of 1, 2, 3 and 5 the third number is the bridge's UID; of 4 and
   * 6 the other two are 64 bits, the upper half first.
   */
  uint32_t place[3];
  /**
   * What it should be.
   */
  uint64_t expected;
  /**
   * What it is.
   */
  uint64_t found;
};

/**
 * A component and what became of it. Set `size` to `sizeof(struct cxl_component)`.
 */
struct cxl_component {
  /**
   * Bytes of this struct.
   */
  uint32_t size;
  /**
   * A `cxl_component_kind`.
   */
  uint32_t kind;
  /**
   * A `cxl_outcome`.
   */
  uint32_t outcome;
  /**
   * 1: `path` is its place; 0: it became no part of the topology, and `error` has the place.
   */
  uint8_t has_path;
  /**
   * 1: `segment`, `bus` and `device_function` are its PCI function.
   */
  uint8_t has_function;
  /**
   * PCI segment group.
   */
  uint16_t segment;
  /**
   * Bus number.
   */
  uint8_t bus;
  /**
   * Bits 7:3 the device, 2:0 the function.
   */
  uint8_t device_function;
  /**
   * Decoders that it has.
   */
  uint16_t decoder_count;
  /**
   * Where it is.
   */
  struct cxl_path path;
  /**
   * Bytes of a device's volatile memory.
   */
  uint64_t volatile_bytes;
  /**
   * Bytes of a device's persistent memory.
   */
  uint64_t persistent_bytes;
  /**
   * Why it is not in use, where something says so; else `code` is 0.
   */
  struct cxl_error error;
};

/**
 * A range of host addresses that leads to memory, on every path and to every member. Set `size` to
 * `sizeof(struct cxl_region)`.
 */
struct cxl_region {
  /**
   * Bytes of this struct.
   */
  uint32_t size;
  /**
   * Ways of the whole set.
   */
  uint32_t ways;
  /**
   * Base of the window it lies in.
   */
  uint64_t window;
  /**
   * First address.
   */
  uint64_t base;
  /**
   * Bytes.
   */
  uint64_t bytes;
  /**
   * Granularity in bytes.
   */
  uint32_t granularity;
  /**
   * What the memory map of the next stage shall call it: E820 type 0xefffffff (soft reserved,
   * EFI_MEMORY_SP) or 2 (reserved).
   */
  uint32_t e820;
  /**
   * A `cxl_partition`.
   */
  uint8_t partition;
  /**
   * A `cxl_coherency`.
   */
  uint8_t coherency;
  /**
   * 1: every decoder on every path is locked.
   */
  uint8_t locked;
  /**
   * A `cxl_probed`.
   */
  uint8_t probed;
  /**
   * 0.
   */
  uint32_t reserved;
};

/**
 * A decoder as the hardware has it. Set `size` to `sizeof(struct cxl_decoder)`.
 */
struct cxl_decoder {
  /**
   * Bytes of this struct.
   */
  uint32_t size;
  /**
   * A `cxl_component_kind`: device, host bridge or upstream port.
   */
  uint32_t kind;
  /**
   * Where its component is.
   */
  struct cxl_path path;
  /**
   * Its number in the component.
   */
  uint8_t index;
  /**
   * A `cxl_fate`.
   */
  uint8_t fate;
  /**
   * 1: the hardware says that it is in use.
   */
  uint8_t committed;
  /**
   * 1: it is frozen until a conventional reset.
   */
  uint8_t locked;
  /**
   * 1: the following say what it claims; 0: it claims nothing, or breaks a rule.
   */
  uint8_t has_meaning;
  /**
   * A `cxl_coherency`.
   */
  uint8_t coherency;
  /**
   * 0.
   */
  uint16_t reserved;
  /**
   * First host address.
   */
  uint64_t base;
  /**
   * Bytes of host addresses.
   */
  uint64_t bytes;
  /**
   * Bytes of a device's own memory that are left out in front.
   */
  uint64_t skip;
  /**
   * Ways: of a device's the whole set's, of a port's its own.
   */
  uint32_t ways;
  /**
   * Granularity in bytes.
   */
  uint32_t granularity;
  /**
   * Its seven registers as last read, in order of offset, and 0.
   */
  uint32_t registers[8];
};

/**
 * Who made a table: the fields of its header.
 */
struct cxl_identity {
  /**
   * OEM ID, filled with blanks.
   */
  char oem_id[6];
  /**
   * OEM table ID, likewise.
   */
  char oem_table_id[8];
  /**
   * 0.
   */
  uint16_t reserved;
  /**
   * OEM revision.
   */
  uint32_t oem_revision;
  /**
   * Creator ID.
   */
  char creator_id[4];
  /**
   * Creator revision.
   */
  uint32_t creator_revision;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * `CXL_API` of the library that is linked.
 */
uint32_t cxl_api(void);

/**
 * How many bytes a workspace needs that has room for so large a machine; 0 if `limits` is NULL, or
 * means nothing.
 */
size_t cxl_workspace_size(const struct cxl_limits *limits);

/**
 * Makes a workspace in `size` bytes of memory, which is the library's from now on and may be used
 * otherwise once no function gets the workspace any more. Nothing is to be freed.
 */
cxl_status cxl_workspace_init(void *memory,
                              size_t size,
                              const struct cxl_limits *limits,
                              struct cxl_workspace **workspace);

/**
 * Says what the platform is, and forgets everything else but the policy.
 */
cxl_status cxl_set_platform(struct cxl_workspace *workspace, const struct cxl_platform *platform);

/**
 * Says what is wanted. Without it, and after it failed, it is the default: everything in the one
 * window that fits, flat, locked, probed, or nothing.
 */
cxl_status cxl_set_policy(struct cxl_workspace *workspace, const struct cxl_policy *policy);

/**
 * Finds what is there below the platform's bridges. Writes only what lets it look, or assigns.
 */
cxl_status cxl_discover(struct cxl_workspace *workspace, const struct cxl_hardware *hardware);

/**
 * Sizes windows by what was discovered and places them in `free`, for a root complex that software
 * programs: one for each bridge, and with `across`, a granularity in bytes, one over several bridges
 * for each kind of memory. 0: none of those. The platform must have no windows yet; `cxl_window_at`
 * gives them afterwards.
 */
cxl_status cxl_size_windows(struct cxl_workspace *workspace,
                            const struct cxl_range *free,
                            uint32_t free_count,
                            uint32_t across);

/**
 * Plans which decoder will claim which range. No register is touched.
 */
cxl_status cxl_plan(struct cxl_workspace *workspace, const struct cxl_hardware *hardware);

/**
 * Programs, commits and, by policy, locks every decoder of the plan, or puts back what can be.
 */
cxl_status cxl_commit(struct cxl_workspace *workspace, const struct cxl_hardware *hardware);

/**
 * Proves that what is committed is whole: against the plan if there is one, else by itself. Only
 * reads.
 */
cxl_status cxl_verify(struct cxl_workspace *workspace, const struct cxl_hardware *hardware);

/**
 * Asks memory whether it answers, and gives it its contents back. Nobody else may use it meanwhile.
 */
cxl_status cxl_probe(struct cxl_workspace *workspace, const struct cxl_hardware *hardware);

/**
 * Puts back what `cxl_commit` has written and no lock holds.
 */
cxl_status cxl_undo(struct cxl_workspace *workspace, const struct cxl_hardware *hardware);

/**
 * Discover, plan, commit, verify and probe in one call; what can be is put back where one fails. With
 * `CXL_ON_FAILURE_BEST_EFFORT` the result may be `CXL_STATUS_LESS`.
 */
cxl_status cxl_bring_up(struct cxl_workspace *workspace,
                        const struct cxl_hardware *hardware);

/**
 * Brings up what was plugged in later, beside what is in use: each device that has no committed
 * decoder. Nothing that is committed is written to, nothing of what is there moves, and whatever fails of
 * what came costs nothing that is there; components, regions and tables are those of the whole machine
 * afterwards. Room is kept beforehand by `cxl_policy.reserve`, and for the ports that are still empty it
 * is here too.
 *
 * The whole machine is looked at: nobody else may use configuration space and mailboxes meanwhile.
 */
cxl_status cxl_add(struct cxl_workspace *workspace,
                   const struct cxl_hardware *hardware);

/**
 * Finds what is there and verifies it, whoever programmed it; writes to no decoder.
 */
cxl_status cxl_inspect(struct cxl_workspace *workspace, const struct cxl_hardware *hardware);

/**
 * How many components there are in the list of outcomes: all that was found.
 */
uint32_t cxl_component_count(struct cxl_workspace *workspace);

/**
 * The component with this number, counted from 0: those of the topology, each behind the one above
 * it, then what became no part of it. After `cxl_restore` those of the record, in its order.
 */
cxl_status cxl_component_at(struct cxl_workspace *workspace,
                            uint32_t index,
                            struct cxl_component *component);

/**
 * How many regions are whole.
 */
uint32_t cxl_region_count(struct cxl_workspace *workspace);

/**
 * The region with this number, by ascending address.
 */
cxl_status cxl_region_at(struct cxl_workspace *workspace,
                         uint32_t index,
                         struct cxl_region *region);

/**
 * How many decoders are in use, or had something done to them.
 */
uint32_t cxl_decoder_count(struct cxl_workspace *workspace);

/**
 * The decoder with this number; those of one component stand by number.
 */
cxl_status cxl_decoder_at(struct cxl_workspace *workspace,
                          uint32_t index,
                          struct cxl_decoder *decoder);

/**
 * The platform's window with this number: as it was given, read from the CEDT, or sized.
 */
cxl_status cxl_window_at(struct cxl_workspace *workspace,
                         uint32_t index,
                         struct cxl_window *window);

/**
 * The entry with this number of a list, a `cxl_error_list`.
 */
cxl_status cxl_error_at(struct cxl_workspace *workspace,
                        uint32_t list,
                        uint32_t index,
                        struct cxl_error *error);

/**
 * Why the last function on the workspace failed; all 0 if it did not, or where its status says all.
 * Functions that count, and lists that end, leave it as it is.
 */
cxl_status cxl_last_error(struct cxl_workspace *workspace, struct cxl_error *error);

/**
 * An error in words, with a 0 behind, cut to what fits; `need` becomes what all of it needs. It may
 * be NULL. Without the library's sentences it is the numbers.
 */
cxl_status cxl_error_text(const struct cxl_error *error, char *text, size_t size, size_t *need);

/**
 * The phase of an error's number in a word; "argument" for 0.
 */
const char *cxl_phase_name(uint16_t code);

/**
 * Writes the CEDT of what the hardware accepted, with checksum. `length` becomes its bytes, or where
 * the buffer is too short, what is enough. With a policy that is content with the rest, windows and bridges
 * that make no sense are left out; with any other they are refused.
 */
cxl_status cxl_write_cedt(struct cxl_workspace *workspace,
                          const struct cxl_identity *made_by,
                          void *buffer,
                          size_t size,
                          size_t *length);

/**
 * Holds a CEDT, whoever wrote it, against the decoders, which are read once more. To be called before
 * anybody relies on the table.
 */
cxl_status cxl_check_cedt(struct cxl_workspace *workspace,
                          const struct cxl_hardware *hardware,
                          const void *cedt,
                          size_t size);

/**
 * Writes the CEDT of what `cxl_bring_up` or `cxl_add` left, and holds it against the decoders, which are
 * read once more. With `CXL_ON_FAILURE_BEST_EFFORT` what changed meanwhile, or went away, costs itself
 * here too: the machine is brought up once more, which takes what is locked as it is, the table is made
 * of what that finds, and the result is `CXL_STATUS_LESS`. So nobody may use the memory yet; ask for
 * components, regions, SRAT and record afterwards. `length` is as with `cxl_write_cedt`.
 */
cxl_status cxl_describe(struct cxl_workspace *workspace,
                        const struct cxl_hardware *hardware,
                        const struct cxl_identity *made_by,
                        void *buffer,
                        size_t size,
                        size_t *length);

/**
 * Writes an SRAT with the regions alone, each in a proximity domain of its own from `first_domain` on.
 */
cxl_status cxl_write_srat(struct cxl_workspace *workspace,
                          const struct cxl_identity *made_by,
                          uint32_t first_domain,
                          void *buffer,
                          size_t size,
                          size_t *length);

/**
 * Writes the hand-off record for the next stage and for `cxl_restore`. `cedt` is the physical address
 * of the table, 0: none. After a bring-up that failed it says what is there and what became of it.
 */
cxl_status cxl_write_handoff(struct cxl_workspace *workspace,
                             const struct cxl_hardware *hardware,
                             uint64_t cedt,
                             uint32_t cedt_size,
                             void *buffer,
                             size_t size,
                             size_t *length);

/**
 * Puts a machine back as a hand-off record has it, after S3 or a reset; plans nothing. Of the platform
 * only the configuration regions are used. What is lost is an outcome of its component, and the result
 * `CXL_STATUS_LESS`. `pci` is a `cxl_pci`.
 */
cxl_status cxl_restore(struct cxl_workspace *workspace,
                       const struct cxl_hardware *hardware,
                       const void *record,
                       size_t size,
                       uint32_t pci);

/**
 * Copies the ACPI table with a signature into a buffer, from the RSDP on, and checks it. Memory is
 * read by `read32`. The buffer holds the root table first, so it has to be as large as that too;
 * `length` becomes the table's bytes, or what the one that did not fit has. `signature` leads to 4
 * bytes.
 */
cxl_status cxl_find_table(struct cxl_workspace *workspace,
                          const struct cxl_hardware *hardware,
                          uint64_t rsdp,
                          const char *signature,
                          void *buffer,
                          size_t size,
                          size_t *length);

/**
 * How many bytes a workspace needs that has room for so large a machine; 0 if `limits` is NULL, or
 * means nothing.
 */
size_t cxl_workspace_size(const struct cxl_limits *limits);

/**
 * Makes a workspace in `size` bytes of memory, which is the library's from now on and may be used
 * otherwise once no function gets the workspace any more. Nothing is to be freed.
 */
cxl_status cxl_workspace_init(void *memory,
                              size_t size,
                              const struct cxl_limits *limits,
                              struct cxl_workspace **workspace);

/**
 * Says what the platform is, and forgets everything else but the policy.
 */
cxl_status cxl_set_platform(struct cxl_workspace *workspace, const struct cxl_platform *platform);

/**
 * Says what is wanted. Without it, and after it failed, it is the default: everything in the one
 * window that fits, flat, locked, probed, or nothing.
 */
cxl_status cxl_set_policy(struct cxl_workspace *workspace, const struct cxl_policy *policy);

/**
 * Finds what is there below the platform's bridges. Writes only what lets it look, or assigns.
 */
cxl_status cxl_discover(struct cxl_workspace *workspace, const struct cxl_hardware *hardware);

/**
 * Sizes windows by what was discovered and places them in `free`, for a root complex that software
 * programs: one for each bridge, and with `across`, a granularity in bytes, one over several bridges
 * for each kind of memory. 0: none of those. The platform must have no windows yet; `cxl_window_at`
 * gives them afterwards.
 */
cxl_status cxl_size_windows(struct cxl_workspace *workspace,
                            const struct cxl_range *free,
                            uint32_t free_count,
                            uint32_t across);

/**
 * Plans which decoder will claim which range. No register is touched.
 */
cxl_status cxl_plan(struct cxl_workspace *workspace, const struct cxl_hardware *hardware);

/**
 * Programs, commits and, by policy, locks every decoder of the plan, or puts back what can be.
 */
cxl_status cxl_commit(struct cxl_workspace *workspace, const struct cxl_hardware *hardware);

/**
 * Proves that what is committed is whole: against the plan if there is one, else by itself. Only
 * reads.
 */
cxl_status cxl_verify(struct cxl_workspace *workspace, const struct cxl_hardware *hardware);

/**
 * Asks memory whether it answers, and gives it its contents back. Nobody else may use it meanwhile.
 */
cxl_status cxl_probe(struct cxl_workspace *workspace, const struct cxl_hardware *hardware);

/**
 * Puts back what `cxl_commit` has written and no lock holds.
 */
cxl_status cxl_undo(struct cxl_workspace *workspace, const struct cxl_hardware *hardware);

/**
 * Discover, plan, commit, verify and probe in one call; what can be is put back where one fails. With
 * `CXL_ON_FAILURE_BEST_EFFORT` the result may be `CXL_STATUS_LESS`.
 */
cxl_status cxl_bring_up(struct cxl_workspace *workspace,
                        const struct cxl_hardware *hardware);

/**
 * Brings up what was plugged in later, beside what is in use: each device that has no committed
 * decoder. Nothing that is committed is written to, nothing of what is there moves, and whatever fails of
 * what came costs nothing that is there; components, regions and tables are those of the whole machine
 * afterwards. Room is kept beforehand by `cxl_policy.reserve`, and for the ports that are still empty it
 * is here too.
 *
 * The whole machine is looked at: nobody else may use configuration space and mailboxes meanwhile.
 */
cxl_status cxl_add(struct cxl_workspace *workspace,
                   const struct cxl_hardware *hardware);

/**
 * Finds what is there and verifies it, whoever programmed it; writes to no decoder.
 */
cxl_status cxl_inspect(struct cxl_workspace *workspace, const struct cxl_hardware *hardware);

/**
 * How many components there are in the list of outcomes: all that was found.
 */
uint32_t cxl_component_count(struct cxl_workspace *workspace);

/**
 * The component with this number, counted from 0: those of the topology, each behind the one above
 * it, then what became no part of it. After `cxl_restore` those of the record, in its order.
 */
cxl_status cxl_component_at(struct cxl_workspace *workspace,
                            uint32_t index,
                            struct cxl_component *component);

/**
 * How many regions are whole.
 */
uint32_t cxl_region_count(struct cxl_workspace *workspace);

/**
 * The region with this number, by ascending address.
 */
cxl_status cxl_region_at(struct cxl_workspace *workspace,
                         uint32_t index,
                         struct cxl_region *region);

/**
 * How many decoders are in use, or had something done to them.
 */
uint32_t cxl_decoder_count(struct cxl_workspace *workspace);

/**
 * The decoder with this number; those of one component stand by number.
 */
cxl_status cxl_decoder_at(struct cxl_workspace *workspace,
                          uint32_t index,
                          struct cxl_decoder *decoder);

/**
 * The platform's window with this number: as it was given, read from the CEDT, or sized.
 */
cxl_status cxl_window_at(struct cxl_workspace *workspace,
                         uint32_t index,
                         struct cxl_window *window);

/**
 * The entry with this number of a list, a `cxl_error_list`.
 */
cxl_status cxl_error_at(struct cxl_workspace *workspace,
                        uint32_t list,
                        uint32_t index,
                        struct cxl_error *error);

/**
 * Why the last function on the workspace failed; all 0 if it did not, or where its status says all.
 * Functions that count, and lists that end, leave it as it is.
 */
cxl_status cxl_last_error(struct cxl_workspace *workspace, struct cxl_error *error);

/**
 * An error in words, with a 0 behind, cut to what fits; `need` becomes what all of it needs. It may
 * be NULL. Without the library's sentences it is the numbers.
 */
cxl_status cxl_error_text(const struct cxl_error *error, char *text, size_t size, size_t *need);

/**
 * The phase of an error's number in a word; "argument" for 0.
 */
const char *cxl_phase_name(uint16_t code);

/**
 * Writes the CEDT of what the hardware accepted, with checksum. `length` becomes its bytes, or where
 * the buffer is too short, what is enough. With a policy that is content with the rest, windows and bridges
 * that make no sense are left out; with any other they are refused.
 */
cxl_status cxl_write_cedt(struct cxl_workspace *workspace,
                          const struct cxl_identity *made_by,
                          void *buffer,
                          size_t size,
                          size_t *length);

/**
 * Holds a CEDT, whoever wrote it, against the decoders, which are read once more. To be called before
 * anybody relies on the table.
 */
cxl_status cxl_check_cedt(struct cxl_workspace *workspace,
                          const struct cxl_hardware *hardware,
                          const void *cedt,
                          size_t size);

/**
 * Writes the CEDT of what `cxl_bring_up` or `cxl_add` left, and holds it against the decoders, which are
 * read once more. With `CXL_ON_FAILURE_BEST_EFFORT` what changed meanwhile, or went away, costs itself
 * here too: the machine is brought up once more, which takes what is locked as it is, the table is made
 * of what that finds, and the result is `CXL_STATUS_LESS`. So nobody may use the memory yet; ask for
 * components, regions, SRAT and record afterwards. `length` is as with `cxl_write_cedt`.
 */
cxl_status cxl_describe(struct cxl_workspace *workspace,
                        const struct cxl_hardware *hardware,
                        const struct cxl_identity *made_by,
                        void *buffer,
                        size_t size,
                        size_t *length);

/**
 * Writes an SRAT with the regions alone, each in a proximity domain of its own from `first_domain` on.
 */
cxl_status cxl_write_srat(struct cxl_workspace *workspace,
                          const struct cxl_identity *made_by,
                          uint32_t first_domain,
                          void *buffer,
                          size_t size,
                          size_t *length);

/**
 * Writes the hand-off record for the next stage and for `cxl_restore`. `cedt` is the physical address
 * of the table, 0: none. After a bring-up that failed it says what is there and what became of it.
 */
cxl_status cxl_write_handoff(struct cxl_workspace *workspace,
                             const struct cxl_hardware *hardware,
                             uint64_t cedt,
                             uint32_t cedt_size,
                             void *buffer,
                             size_t size,
                             size_t *length);

/**
 * Puts a machine back as a hand-off record has it, after S3 or a reset; plans nothing. Of the platform
 * only the configuration regions are used. What is lost is an outcome of its component, and the result
 * `CXL_STATUS_LESS`. `pci` is a `cxl_pci`.
 */
cxl_status cxl_restore(struct cxl_workspace *workspace,
                       const struct cxl_hardware *hardware,
                       const void *record,
                       size_t size,
                       uint32_t pci);

/**
 * Copies the ACPI table with a signature into a buffer, from the RSDP on, and checks it. Memory is
 * read by `read32`. The buffer holds the root table first, so it has to be as large as that too;
 * `length` becomes the table's bytes, or what the one that did not fit has. `signature` leads to 4
 * bytes.
 */
cxl_status cxl_find_table(struct cxl_workspace *workspace,
                          const struct cxl_hardware *hardware,
                          uint64_t rsdp,
                          const char *signature,
                          void *buffer,
                          size_t size,
                          size_t *length);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CXL_FIRMWARE_H */

/*
 * Registers, for whoever reads or models them: offsets, and the bits of each field in place. Names are
 * those of the CXL specification (r3.1, section 8).
 */

/* A component register block, and the parts of it. */
#define CXL_COMPONENT_BLOCK_SIZE 0x10000
#define CXL_CACHE_MEM_RANGE_OFFSET 0x1000

/* IDs in the capability array of a CXL.cache/mem range. */
#define CXL_CAPABILITY_ID_NULL 0x0000
#define CXL_CAPABILITY_ID_ARRAY 0x0001
#define CXL_CAPABILITY_ID_RAS 0x0002
#define CXL_CAPABILITY_ID_SECURITY 0x0003
#define CXL_CAPABILITY_ID_LINK 0x0004
#define CXL_CAPABILITY_ID_HDM_DECODER 0x0005
#define CXL_CAPABILITY_ID_EXTENDED_SECURITY 0x0006
#define CXL_CAPABILITY_ID_IDE 0x0007
#define CXL_CAPABILITY_ID_SNOOP_FILTER 0x0008
#define CXL_CAPABILITY_ID_TIMEOUT_ISOLATION 0x0009
#define CXL_CAPABILITY_ID_EXTENDED_REGISTER 0x000a
#define CXL_CAPABILITY_ID_BI_ROUTE_TABLE 0x000b
#define CXL_CAPABILITY_ID_BI_DECODER 0x000c
#define CXL_CAPABILITY_ID_CACHE_ID_ROUTE_TABLE 0x000d
#define CXL_CAPABILITY_ID_CACHE_ID_DECODER 0x000e
#define CXL_CAPABILITY_ID_EXTENDED_HDM_DECODER 0x000f
#define CXL_CAPABILITY_ID_EXTENDED_METADATA 0x0010

/* The capability array; each further entry is 4 bytes on. */
#define CXL_CAPABILITY_HEADER_OFFSET 0x00
#define CXL_CAPABILITY_HEADER_CXL_CAPABILITY_ID 0x0000ffff
#define CXL_CAPABILITY_HEADER_CXL_CAPABILITY_VERSION 0x000f0000
#define CXL_CAPABILITY_HEADER_CXL_CACHE_MEM_VERSION 0x00f00000
#define CXL_CAPABILITY_HEADER_ARRAY_SIZE 0xff000000
#define CXL_CAPABILITY_ARRAY_ENTRY_OFFSET 0x04
#define CXL_CAPABILITY_ARRAY_ENTRY_CXL_CAPABILITY_ID 0x0000ffff
#define CXL_CAPABILITY_ARRAY_ENTRY_CXL_CAPABILITY_VERSION 0x000f0000
#define CXL_CAPABILITY_ARRAY_ENTRY_POINTER 0xfff00000

/* The HDM decoder structure. */
#define CXL_HDM_DECODER_CAPABILITY_OFFSET 0x00
#define CXL_HDM_DECODER_CAPABILITY_DECODER_COUNT 0x0000000f
#define CXL_HDM_DECODER_CAPABILITY_TARGET_COUNT 0x000000f0
#define CXL_HDM_DECODER_CAPABILITY_A11TO8_INTERLEAVE 0x00000100
#define CXL_HDM_DECODER_CAPABILITY_A14TO12_INTERLEAVE 0x00000200
#define CXL_HDM_DECODER_CAPABILITY_POISON_ON_ERROR 0x00000400
#define CXL_HDM_DECODER_CAPABILITY_3_6_12_WAY 0x00000800
#define CXL_HDM_DECODER_CAPABILITY_16_WAY 0x00001000
#define CXL_HDM_DECODER_CAPABILITY_UIO 0x00002000
#define CXL_HDM_DECODER_CAPABILITY_UIO_DECODER_COUNT 0x000f0000
#define CXL_HDM_DECODER_CAPABILITY_MEMDATA_NXM 0x00100000
#define CXL_HDM_DECODER_CAPABILITY_COHERENCY_MODELS 0x00600000
#define CXL_HDM_DECODER_GLOBAL_CONTROL_OFFSET 0x04
#define CXL_HDM_DECODER_GLOBAL_CONTROL_POISON_ON_DECODE_ERROR_ENABLE 0x00000001
#define CXL_HDM_DECODER_GLOBAL_CONTROL_HDM_DECODER_ENABLE 0x00000002

/* Its decoders, and the registers of one. */
#define CXL_HDM_DECODER_FIRST_OFFSET 0x10
#define CXL_HDM_DECODER_SIZE 0x20
#define CXL_HDM_DECODER_BASE_LOW_OFFSET 0x00
#define CXL_HDM_DECODER_BASE_HIGH_OFFSET 0x04
#define CXL_HDM_DECODER_SIZE_LOW_OFFSET 0x08
#define CXL_HDM_DECODER_SIZE_HIGH_OFFSET 0x0c
#define CXL_HDM_DECODER_TARGET_LIST_LOW_OFFSET 0x14
#define CXL_HDM_DECODER_TARGET_LIST_HIGH_OFFSET 0x18
#define CXL_HDM_DECODER_DPA_SKIP_LOW_OFFSET 0x14
#define CXL_HDM_DECODER_DPA_SKIP_HIGH_OFFSET 0x18
#define CXL_HDM_DECODER_CONTROL_OFFSET 0x10
#define CXL_HDM_DECODER_CONTROL_IG 0x0000000f
#define CXL_HDM_DECODER_CONTROL_IW 0x000000f0
#define CXL_HDM_DECODER_CONTROL_LOCK_ON_COMMIT 0x00000100
#define CXL_HDM_DECODER_CONTROL_COMMIT 0x00000200
#define CXL_HDM_DECODER_CONTROL_COMMITTED 0x00000400
#define CXL_HDM_DECODER_CONTROL_ERROR_NOT_COMMITTED 0x00000800
#define CXL_HDM_DECODER_CONTROL_TARGET_RANGE_TYPE 0x00001000
#define CXL_HDM_DECODER_CONTROL_BI 0x00002000
#define CXL_HDM_DECODER_CONTROL_UIO 0x00004000
#define CXL_HDM_DECODER_CONTROL_UIG 0x000f0000
#define CXL_HDM_DECODER_CONTROL_UIW 0x00f00000
#define CXL_HDM_DECODER_CONTROL_ISP 0x0f000000

/* The BI route table of an upstream port. */
#define CXL_BI_RT_CAPABILITY_OFFSET 0x00
#define CXL_BI_RT_CAPABILITY_EXPLICIT_BI_RT_COMMIT_REQUIRED 0x00000001
#define CXL_BI_RT_CONTROL_OFFSET 0x04
#define CXL_BI_RT_CONTROL_BI_RT_COMMIT 0x00000001
#define CXL_COMMIT_STATUS_OFFSET 0x08
#define CXL_COMMIT_STATUS_COMMITTED 0x00000001
#define CXL_COMMIT_STATUS_ERROR_NOT_COMMITTED 0x00000002
#define CXL_COMMIT_STATUS_COMMIT_TIMEOUT_SCALE 0x00000f00
#define CXL_COMMIT_STATUS_COMMIT_TIMEOUT_BASE 0x0000f000

/* The BI decoder of a port or device. */
#define CXL_BI_DECODER_CAPABILITY_OFFSET 0x00
#define CXL_BI_DECODER_CAPABILITY_HDM_D_CAPABLE 0x00000001
#define CXL_BI_DECODER_CAPABILITY_EXPLICIT_BI_DECODER_COMMIT_REQUIRED 0x00000002
#define CXL_BI_DECODER_CONTROL_OFFSET 0x04
#define CXL_BI_DECODER_CONTROL_BI_FORWARD 0x00000001
#define CXL_BI_DECODER_CONTROL_BI_ENABLE 0x00000002
#define CXL_BI_DECODER_CONTROL_BI_DECODER_COMMIT 0x00000004

/* DVSECs: the vendor, and IDs. */
#define CXL_DVSEC_VENDOR 0x1e98
#define CXL_DVSEC_ID_DEVICE 0x0000
#define CXL_DVSEC_ID_NON_CXL_FUNCTION_MAP 0x0002
#define CXL_DVSEC_ID_PORT_EXTENSIONS 0x0003
#define CXL_DVSEC_ID_GPF_PORT 0x0004
#define CXL_DVSEC_ID_GPF_DEVICE 0x0005
#define CXL_DVSEC_ID_FLEX_BUS_PORT 0x0007
#define CXL_DVSEC_ID_REGISTER_LOCATOR 0x0008
#define CXL_DVSEC_ID_MLD 0x0009
#define CXL_DVSEC_ID_TEST_CAPABILITY 0x000a

/* Every DVSEC's header. */
#define CXL_DESIGNATED_VENDOR_SPECIFIC_HEADER_1_OFFSET 0x04
#define CXL_DESIGNATED_VENDOR_SPECIFIC_HEADER_1_DVSEC_VENDOR_ID 0x0000ffff
#define CXL_DESIGNATED_VENDOR_SPECIFIC_HEADER_1_DVSEC_REVISION 0x000f0000
#define CXL_DESIGNATED_VENDOR_SPECIFIC_HEADER_1_DVSEC_LENGTH 0xfff00000
#define CXL_DESIGNATED_VENDOR_SPECIFIC_HEADER_2_OFFSET 0x08
#define CXL_DESIGNATED_VENDOR_SPECIFIC_HEADER_2_DVSEC_ID 0xffff

/* The DVSEC of CXL devices. */
#define CXL_DVSEC_CXL_CAPABILITY_OFFSET 0x0a
#define CXL_DVSEC_CXL_CAPABILITY_CACHE_CAPABLE 0x0001
#define CXL_DVSEC_CXL_CAPABILITY_IO_CAPABLE 0x0002
#define CXL_DVSEC_CXL_CAPABILITY_MEM_CAPABLE 0x0004
#define CXL_DVSEC_CXL_CAPABILITY_MEM_HWINIT_MODE 0x0008
#define CXL_DVSEC_CXL_CAPABILITY_HDM_COUNT 0x0030
#define CXL_DVSEC_CXL_CAPABILITY_CACHE_WRITEBACK_AND_INVALIDATE_CAPABLE 0x0040
#define CXL_DVSEC_CXL_CAPABILITY_CXL_RESET_CAPABLE 0x0080
#define CXL_DVSEC_CXL_CAPABILITY_CXL_RESET_TIMEOUT 0x0700
#define CXL_DVSEC_CXL_CAPABILITY_CXL_RESET_MEM_CLR_CAPABLE 0x0800
#define CXL_DVSEC_CXL_CAPABILITY_TSP_CAPABLE 0x1000
#define CXL_DVSEC_CXL_CAPABILITY_MULTIPLE_LOGICAL_DEVICE 0x2000
#define CXL_DVSEC_CXL_CAPABILITY_VIRAL_CAPABLE 0x4000
#define CXL_DVSEC_CXL_CAPABILITY_PM_INIT_COMPLETION_REPORTING_CAPABLE 0x8000
#define CXL_DVSEC_CXL_CONTROL_OFFSET 0x0c
#define CXL_DVSEC_CXL_CONTROL_CACHE_ENABLE 0x0001
#define CXL_DVSEC_CXL_CONTROL_IO_ENABLE 0x0002
#define CXL_DVSEC_CXL_CONTROL_MEM_ENABLE 0x0004
#define CXL_DVSEC_CXL_CONTROL_CACHE_SF_COVERAGE 0x00f8
#define CXL_DVSEC_CXL_CONTROL_CACHE_SF_GRANULARITY 0x0700
#define CXL_DVSEC_CXL_CONTROL_CACHE_CLEAN_EVICTION 0x0800
#define CXL_DVSEC_CXL_CONTROL_DIRECT_P2P_MEM_ENABLE 0x1000
#define CXL_DVSEC_CXL_CONTROL_VIRAL_ENABLE 0x4000
#define CXL_DVSEC_CXL_STATUS_OFFSET 0x0e
#define CXL_DVSEC_CXL_STATUS_VIRAL_STATUS 0x4000
#define CXL_DVSEC_CXL_CONTROL2_OFFSET 0x10
#define CXL_DVSEC_CXL_CONTROL2_DISABLE_CACHING 0x0001
#define CXL_DVSEC_CXL_CONTROL2_INITIATE_CACHE_WRITE_BACK_AND_INVALIDATION 0x0002
#define CXL_DVSEC_CXL_CONTROL2_INITIATE_CXL_RESET 0x0004
#define CXL_DVSEC_CXL_CONTROL2_CXL_RESET_MEM_CLR_ENABLE 0x0008
#define CXL_DVSEC_CXL_CONTROL2_DESIRED_VOLATILE_HDM_STATE_AFTER_HOT_RESET 0x0010
#define CXL_DVSEC_CXL_CONTROL2_MODIFIED_COMPLETION_ENABLE 0x0020
#define CXL_DVSEC_CXL_STATUS2_OFFSET 0x12
#define CXL_DVSEC_CXL_STATUS2_CACHE_INVALID 0x0001
#define CXL_DVSEC_CXL_STATUS2_CXL_RESET_COMPLETE 0x0002
#define CXL_DVSEC_CXL_STATUS2_CXL_RESET_ERROR 0x0004
#define CXL_DVSEC_CXL_STATUS2_VOLATILE_HDM_PRESERVATION_ERROR 0x0008
#define CXL_DVSEC_CXL_STATUS2_POWER_MANAGEMENT_INITIALIZATION_COMPLETE 0x8000
#define CXL_DVSEC_CXL_LOCK_OFFSET 0x14
#define CXL_DVSEC_CXL_LOCK_CONFIG_LOCK 0x0001
#define CXL_DVSEC_CXL_CAPABILITY2_OFFSET 0x16
#define CXL_DVSEC_CXL_CAPABILITY2_CACHE_SIZE_UNIT 0x000f
#define CXL_DVSEC_CXL_CAPABILITY2_FALLBACK_CAPABILITY 0x0030
#define CXL_DVSEC_CXL_CAPABILITY2_MODIFIED_COMPLETION_CAPABLE 0x0040
#define CXL_DVSEC_CXL_CAPABILITY2_NO_CLEAN_WRITEBACK 0x0080
#define CXL_DVSEC_CXL_CAPABILITY2_CACHE_SIZE 0xff00
#define CXL_DVSEC_CXL_RANGE_1_SIZE_HIGH_OFFSET 0x18
#define CXL_DVSEC_CXL_RANGE_1_SIZE_HIGH_MEMORY_SIZE_HIGH 0xffffffff
#define CXL_DVSEC_CXL_RANGE_1_SIZE_LOW_OFFSET 0x1c
#define CXL_DVSEC_CXL_RANGE_1_SIZE_LOW_MEMORY_INFO_VALID 0x00000001
#define CXL_DVSEC_CXL_RANGE_1_SIZE_LOW_MEMORY_ACTIVE 0x00000002
#define CXL_DVSEC_CXL_RANGE_1_SIZE_LOW_MEDIA_TYPE 0x0000001c
#define CXL_DVSEC_CXL_RANGE_1_SIZE_LOW_MEMORY_CLASS 0x000000e0
#define CXL_DVSEC_CXL_RANGE_1_SIZE_LOW_DESIRED_INTERLEAVE 0x00001f00
#define CXL_DVSEC_CXL_RANGE_1_SIZE_LOW_MEMORY_ACTIVE_TIMEOUT 0x0000e000
#define CXL_DVSEC_CXL_RANGE_1_SIZE_LOW_MEMORY_ACTIVE_DEGRADED 0x00010000
#define CXL_DVSEC_CXL_RANGE_1_SIZE_LOW_MEMORY_SIZE_LOW 0xf0000000
#define CXL_DVSEC_CXL_RANGE_1_BASE_HIGH_OFFSET 0x20
#define CXL_DVSEC_CXL_RANGE_1_BASE_HIGH_MEMORY_BASE_HIGH 0xffffffff
#define CXL_DVSEC_CXL_RANGE_1_BASE_LOW_OFFSET 0x24
#define CXL_DVSEC_CXL_RANGE_1_BASE_LOW_MEMORY_BASE_LOW 0xf0000000
#define CXL_DVSEC_CXL_RANGE_2_SIZE_HIGH_OFFSET 0x28
#define CXL_DVSEC_CXL_RANGE_2_SIZE_HIGH_MEMORY_SIZE_HIGH 0xffffffff
#define CXL_DVSEC_CXL_RANGE_2_SIZE_LOW_OFFSET 0x2c
#define CXL_DVSEC_CXL_RANGE_2_SIZE_LOW_MEMORY_INFO_VALID 0x00000001
#define CXL_DVSEC_CXL_RANGE_2_SIZE_LOW_MEMORY_ACTIVE 0x00000002
#define CXL_DVSEC_CXL_RANGE_2_SIZE_LOW_MEDIA_TYPE 0x0000001c
#define CXL_DVSEC_CXL_RANGE_2_SIZE_LOW_MEMORY_CLASS 0x000000e0
#define CXL_DVSEC_CXL_RANGE_2_SIZE_LOW_DESIRED_INTERLEAVE 0x00001f00
#define CXL_DVSEC_CXL_RANGE_2_SIZE_LOW_MEMORY_ACTIVE_TIMEOUT 0x0000e000
#define CXL_DVSEC_CXL_RANGE_2_SIZE_LOW_MEMORY_ACTIVE_DEGRADED 0x00010000
#define CXL_DVSEC_CXL_RANGE_2_SIZE_LOW_MEMORY_SIZE_LOW 0xf0000000
#define CXL_DVSEC_CXL_RANGE_2_BASE_HIGH_OFFSET 0x30
#define CXL_DVSEC_CXL_RANGE_2_BASE_HIGH_MEMORY_BASE_HIGH 0xffffffff
#define CXL_DVSEC_CXL_RANGE_2_BASE_LOW_OFFSET 0x34
#define CXL_DVSEC_CXL_RANGE_2_BASE_LOW_MEMORY_BASE_LOW 0xf0000000

/* What its revision 2 added. */
#define CXL_DVSEC_CXL_CAPABILITY3_OFFSET 0x38
#define CXL_DVSEC_CXL_CAPABILITY3_DEFAULT_VOLATILE_HDM_STATE_AFTER_COLD_RESET 0x0001
#define CXL_DVSEC_CXL_CAPABILITY3_DEFAULT_VOLATILE_HDM_STATE_AFTER_WARM_RESET 0x0002
#define CXL_DVSEC_CXL_CAPABILITY3_DEFAULT_VOLATILE_HDM_STATE_AFTER_HOT_RESET 0x0004
#define CXL_DVSEC_CXL_CAPABILITY3_VOLATILE_HDM_STATE_AFTER_HOT_RESET_CONFIGURABILITY 0x0008
#define CXL_DVSEC_CXL_CAPABILITY3_DIRECT_P2P_MEM_CAPABLE 0x0010

/* The DVSEC of CXL ports. */
#define CXL_PORT_EXTENSION_STATUS_OFFSET 0x0a
#define CXL_PORT_EXTENSION_STATUS_PORT_POWER_MANAGEMENT_INITIALIZATION_COMPLETE 0x0001
#define CXL_PORT_EXTENSION_STATUS_VIRAL_STATUS 0x4000
#define CXL_PORT_CONTROL_EXTENSIONS_OFFSET 0x0c
#define CXL_PORT_CONTROL_EXTENSIONS_UNMASK_SBR 0x0001
#define CXL_PORT_CONTROL_EXTENSIONS_UNMASK_LINK_DISABLE 0x0002
#define CXL_PORT_CONTROL_EXTENSIONS_ALT_MEMORY_AND_ID_SPACE_ENABLE 0x0004
#define CXL_PORT_CONTROL_EXTENSIONS_ALT_BME 0x0008
#define CXL_PORT_CONTROL_EXTENSIONS_UIO_TO_HDM_ENABLE 0x0010
#define CXL_PORT_CONTROL_EXTENSIONS_VIRAL_ENABLE 0x4000
#define CXL_ALTERNATE_BUS_BASE_OFFSET 0x0e
#define CXL_ALTERNATE_BUS_BASE_ALT_BUS_BASE 0xff
#define CXL_ALTERNATE_BUS_LIMIT_OFFSET 0x0f
#define CXL_ALTERNATE_BUS_LIMIT_ALT_BUS_LIMIT 0xff
#define CXL_ALTERNATE_MEMORY_BASE_OFFSET 0x10
#define CXL_ALTERNATE_MEMORY_BASE_ALT_MEM_BASE 0xfff0
#define CXL_ALTERNATE_MEMORY_LIMIT_OFFSET 0x12
#define CXL_ALTERNATE_MEMORY_LIMIT_ALT_MEM_LIMIT 0xfff0
#define CXL_ALTERNATE_PREFETCHABLE_MEMORY_BASE_OFFSET 0x14
#define CXL_ALTERNATE_PREFETCHABLE_MEMORY_BASE_ALT_PREFETCH_MEM_BASE 0xfff0
#define CXL_ALTERNATE_PREFETCHABLE_MEMORY_LIMIT_OFFSET 0x16
#define CXL_ALTERNATE_PREFETCHABLE_MEMORY_LIMIT_ALT_PREFETCH_MEM_LIMIT 0xfff0
#define CXL_ALTERNATE_PREFETCHABLE_MEMORY_BASE_HIGH_OFFSET 0x18
#define CXL_ALTERNATE_PREFETCHABLE_MEMORY_BASE_HIGH_ALT_PREFETCH_BASE_HIGH 0xffffffff
#define CXL_ALTERNATE_PREFETCHABLE_MEMORY_LIMIT_HIGH_OFFSET 0x1c
#define CXL_ALTERNATE_PREFETCHABLE_MEMORY_LIMIT_HIGH_ALT_PREFETCH_LIMIT_HIGH 0xffffffff
#define CXL_RCRB_BASE_OFFSET 0x20
#define CXL_RCRB_BASE_CXL_RCRB_ENABLE 0x00000001
#define CXL_RCRB_BASE_CXL_RCRB_BASE_ADDRESS_LOW 0xffffe000
#define CXL_RCRB_BASE_HIGH_OFFSET 0x24
#define CXL_RCRB_BASE_HIGH_CXL_RCRB_BASE_ADDRESS_HIGH 0xffffffff

/* The DVSEC of Flex Bus ports. */
#define CXL_DVSEC_FLEX_BUS_PORT_CAPABILITY_OFFSET 0x0a
#define CXL_DVSEC_FLEX_BUS_PORT_CAPABILITY_CACHE_CAPABLE 0x0001
#define CXL_DVSEC_FLEX_BUS_PORT_CAPABILITY_IO_CAPABLE 0x0002
#define CXL_DVSEC_FLEX_BUS_PORT_CAPABILITY_MEM_CAPABLE 0x0004
#define CXL_DVSEC_FLEX_BUS_PORT_CAPABILITY_CXL_68B_FLIT_AND_VH_CAPABLE 0x0020
#define CXL_DVSEC_FLEX_BUS_PORT_CAPABILITY_CXL_MULTI_LOGICAL_DEVICE_CAPABLE 0x0040
#define CXL_DVSEC_FLEX_BUS_PORT_CAPABILITY_CXL_LATENCY_OPTIMIZED_256B_FLIT_CAPABLE 0x2000
#define CXL_DVSEC_FLEX_BUS_PORT_CAPABILITY_CXL_PBR_FLIT_CAPABLE 0x4000
#define CXL_DVSEC_FLEX_BUS_PORT_CONTROL_OFFSET 0x0c
#define CXL_DVSEC_FLEX_BUS_PORT_CONTROL_CACHE_ENABLE 0x0001
#define CXL_DVSEC_FLEX_BUS_PORT_CONTROL_IO_ENABLE 0x0002
#define CXL_DVSEC_FLEX_BUS_PORT_CONTROL_MEM_ENABLE 0x0004
#define CXL_DVSEC_FLEX_BUS_PORT_CONTROL_CXL_SYNC_HDR_BYPASS_ENABLE 0x0008
#define CXL_DVSEC_FLEX_BUS_PORT_CONTROL_DRIFT_BUFFER_ENABLE 0x0010
#define CXL_DVSEC_FLEX_BUS_PORT_CONTROL_CXL_68B_FLIT_AND_VH_ENABLE 0x0020
#define CXL_DVSEC_FLEX_BUS_PORT_CONTROL_CXL_MULTI_LOGICAL_DEVICE_ENABLE 0x0040
#define CXL_DVSEC_FLEX_BUS_PORT_CONTROL_DISABLE_RCD_TRAINING 0x0080
#define CXL_DVSEC_FLEX_BUS_PORT_CONTROL_RETIMER1_PRESENT 0x0100
#define CXL_DVSEC_FLEX_BUS_PORT_CONTROL_RETIMER2_PRESENT 0x0200
#define CXL_DVSEC_FLEX_BUS_PORT_CONTROL_CXL_LATENCY_OPTIMIZED_256B_FLIT_ENABLE 0x2000
#define CXL_DVSEC_FLEX_BUS_PORT_CONTROL_CXL_PBR_FLIT_ENABLE 0x4000
#define CXL_DVSEC_FLEX_BUS_PORT_STATUS_OFFSET 0x0e
#define CXL_DVSEC_FLEX_BUS_PORT_STATUS_CACHE_ENABLED 0x0001
#define CXL_DVSEC_FLEX_BUS_PORT_STATUS_IO_ENABLED 0x0002
#define CXL_DVSEC_FLEX_BUS_PORT_STATUS_MEM_ENABLED 0x0004
#define CXL_DVSEC_FLEX_BUS_PORT_STATUS_CXL_SYNC_HDR_BYPASS_ENABLED 0x0008
#define CXL_DVSEC_FLEX_BUS_PORT_STATUS_DRIFT_BUFFER_ENABLED 0x0010
#define CXL_DVSEC_FLEX_BUS_PORT_STATUS_CXL_68B_FLIT_AND_VH_ENABLED 0x0020
#define CXL_DVSEC_FLEX_BUS_PORT_STATUS_CXL_MULTI_LOGICAL_DEVICE_ENABLED 0x0040
#define CXL_DVSEC_FLEX_BUS_PORT_STATUS_EVEN_HALF_FAILED 0x0080
#define CXL_DVSEC_FLEX_BUS_PORT_STATUS_CXL_CORRECTABLE_PROTOCOL_ID_FRAMING_ERROR 0x0100
#define CXL_DVSEC_FLEX_BUS_PORT_STATUS_CXL_UNCORRECTABLE_PROTOCOL_ID_FRAMING_ERROR 0x0200
#define CXL_DVSEC_FLEX_BUS_PORT_STATUS_CXL_UNEXPECTED_PROTOCOL_ID_DROPPED 0x0400
#define CXL_DVSEC_FLEX_BUS_PORT_STATUS_CXL_RETIMERS_PRESENT_MISMATCHED 0x0800
#define CXL_DVSEC_FLEX_BUS_PORT_STATUS_FLEXBUSENABLEBITS_PHASE2_MISMATCH 0x1000
#define CXL_DVSEC_FLEX_BUS_PORT_STATUS_CXL_LATENCY_OPTIMIZED_256B_FLIT_ENABLED 0x2000
#define CXL_DVSEC_FLEX_BUS_PORT_STATUS_CXL_PBR_FLIT_ENABLED 0x4000
#define CXL_DVSEC_FLEX_BUS_PORT_STATUS_CXL_IO_THROTTLE_REQUIRED_AT_64GT_S 0x8000
#define CXL_DVSEC_FLEX_BUS_PORT_RECEIVED_MODIFIED_TS_DATA_PHASE1_OFFSET 0x10
#define CXL_DVSEC_FLEX_BUS_PORT_RECEIVED_MODIFIED_TS_DATA_PHASE1_RECEIVED_FLEX_BUS_DATA_PHASE_1 0x00ffffff

/* What its revision 2 added. */
#define CXL_DVSEC_FLEX_BUS_PORT_CAPABILITY2_OFFSET 0x14
#define CXL_DVSEC_FLEX_BUS_PORT_CAPABILITY2_NOP_HINT_CAPABLE 0x00000001
#define CXL_DVSEC_FLEX_BUS_PORT_CONTROL2_OFFSET 0x18
#define CXL_DVSEC_FLEX_BUS_PORT_CONTROL2_NOP_HINT_ENABLE 0x00000001
#define CXL_DVSEC_FLEX_BUS_PORT_STATUS2_OFFSET 0x1c
#define CXL_DVSEC_FLEX_BUS_PORT_STATUS2_NOP_HINT_INFO 0x00000003

/* The Register Locator; each further entry is 8 bytes on. */
#define CXL_REGISTER_OFFSET_LOW_OFFSET 0x0c
#define CXL_REGISTER_OFFSET_LOW_REGISTER_BIR 0x00000007
#define CXL_REGISTER_OFFSET_LOW_REGISTER_BLOCK_IDENTIFIER 0x0000ff00
#define CXL_REGISTER_OFFSET_LOW_REGISTER_BLOCK_OFFSET_LOW 0xffff0000
#define CXL_REGISTER_OFFSET_HIGH_OFFSET 0x10
#define CXL_REGISTER_OFFSET_HIGH_REGISTER_BLOCK_OFFSET_HIGH 0xffffffff
