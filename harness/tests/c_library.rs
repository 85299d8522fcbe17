//! The library for C on the models: every built-in machine, brought up through the functions of its
//! header, ends as it does in Rust: the same refusal, the same table, the same record, the same
//! accesses.
//!
//! **Invariant**: nothing of `cxl_firmware` is called on the side of C; policies reach it as C structs.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![allow(clippy::undocumented_unsafe_blocks, reason = "calls as C makes them")]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "calls as C makes them")]

use std::alloc::{Layout, alloc};
use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use cxl_firmware::bring_up::Extent;
use cxl_firmware::handoff;
use cxl_firmware::policy::{LeaveOut, OnFailure, Policy, Prefer, Probe, Width};
use cxl_firmware::topology::Path;
use cxl_firmware_c::*;
use cxl_harness::run::{self, DirectRun, IDENTITY, RunRequest};
use cxl_model::acpi::Tables;
use cxl_model::device::Reset;
use cxl_model::layout::{chip_set, memory_map, window_space};
use cxl_model::machine::{Machine, MachineClock};
use cxl_model::scenario::{Scenario, WindowSource, builtins};
use cxl_regs::acpi::Cedt;
use cxl_regs::mmio::{Clock, Mmio};

/// What callbacks get.
struct Host {
    machine: Machine,
    clock: MachineClock,
    log: Vec<String>,
}

unsafe extern "C" fn read32(context: *mut c_void, address: u64) -> u32 {
    unsafe { &mut *context.cast::<Host>() }.machine.read(address)
}

unsafe extern "C" fn write32(context: *mut c_void, address: u64, value: u32) {
    unsafe { &mut *context.cast::<Host>() }.machine.write(address, value);
}

unsafe extern "C" fn write64(context: *mut c_void, address: u64, value: u64) {
    unsafe { &mut *context.cast::<Host>() }.machine.write_qword(address, value);
}

unsafe extern "C" fn microseconds(context: *mut c_void) -> u64 {
    unsafe { &mut *context.cast::<Host>() }.clock.microseconds()
}

unsafe extern "C" fn log(context: *mut c_void, line: *const c_char) {
    let line = unsafe { CStr::from_ptr(line) }.to_str().expect("a line is text").to_owned();
    unsafe { &mut *context.cast::<Host>() }.log.push(line);
}

/// A struct of C with its size.
macro_rules! sized {
    ($type:ident { $($field:ident: $value:expr),* $(,)? }) => {{
        let zeroes: $type = unsafe { std::mem::zeroed() };
        $type { size: size_of::<$type>() as u32, $($field: $value,)* ..zeroes }
    }};
}

/// A machine and a workspace for it.
struct Rig {
    host: Box<Host>,
    work: *mut cxl_workspace,
    /// The CEDT that C is given, where it is not the machine's.
    cedt: Option<Vec<u8>>,
}

fn limits() -> cxl_limits {
    sized!(cxl_limits {
        bridges: 32,
        devices: 256,
        windows: 64,
        regions: 320,
        decoders: 1280,
        ranges: 32,
    })
}

fn place(path: &Path) -> cxl_path {
    let mut ports = [0; 16];
    ports[..path.ports().len()].copy_from_slice(path.ports());
    cxl_path { uid: path.uid(), port_count: path.ports().len() as u32, ports }
}

fn width(width: Width) -> cxl_width {
    let (kind, ways, granularity) = match width {
        Width::Flat => (cxl_width_kind::Flat, 0, 0),
        Width::Widest => (cxl_width_kind::Widest, 0, 0),
        Width::Exactly(interleave) => (
            cxl_width_kind::Exactly,
            interleave.ways.count(),
            interleave.granularity.bytes() as u32,
        ),
    };
    cxl_width { kind: kind as u32, ways, granularity, reserved: 0 }
}

impl Rig {
    fn new(scenario: &Scenario) -> Self {
        let mut machine = Machine::new(scenario);
        // As a root complex that software programs comes to its windows.
        let _ = run::prepare(&mut machine);
        let clock = machine.clock();
        let host = Box::new(Host { machine, clock, log: Vec::new() });
        let size = unsafe { cxl_workspace_size(&limits()) };
        let memory = Layout::from_size_align(size, CXL_WORKSPACE_ALIGN).unwrap();
        let mut work = ptr::null_mut();
        let status =
            unsafe { cxl_workspace_init(alloc(memory).cast(), size, &limits(), &mut work) };
        assert_eq!(status, cxl_status::Ok);
        Self { host, work, cedt: None }
    }

    fn hardware(&mut self) -> cxl_hardware {
        sized!(cxl_hardware {
            context: ptr::from_mut(&mut *self.host).cast(),
            read32: Some(read32),
            write32: Some(write32),
            write64: Some(write64),
            microseconds: Some(microseconds),
            log: Some(log),
        })
    }

    /// What the machine's tables and its memory map say.
    fn set_platform(&mut self) -> cxl_status {
        let (scenario, map) = (self.host.machine.scenario(), self.host.machine.map());
        let tables = Tables::new(scenario, map, run::TABLES_BASE);
        let (mcfg, cedt) = (tables.table(&tables.mcfg), tables.table(&tables.cedt));
        let cedt = self.cedt.as_deref().unwrap_or(cedt);
        let roots: Vec<cxl_root> = run::roots(scenario)
            .iter()
            .map(|(uid, root)| cxl_root {
                uid: *uid,
                segment: root.segment,
                bus: root.bus,
                reserved: 0,
            })
            .collect();
        let usable = memory_map(map.ram.iter().copied()).into_iter();
        let usable = usable.filter_map(|(span, usable)| usable.then_some(span));
        let occupied: Vec<cxl_range> = usable
            .chain([chip_set()])
            .map(|span| cxl_range { base: span.base().0, size: span.size() })
            .collect();
        let assigned = scenario.platform.assigned;
        let bridges = scenario.bridges.iter().zip(&map.bridges).filter(|_| !assigned);
        let resources: Vec<cxl_resource> = bridges
            .map(|(bridge, place)| cxl_resource {
                uid: bridge.uid,
                range: cxl_range { base: place.bars.base().0, size: place.bars.size() },
                reserved: 0,
            })
            .collect();
        let platform = sized!(cxl_platform {
            address_bits: scenario.platform.physical_bits.into(),
            mcfg: mcfg.as_ptr(),
            mcfg_size: mcfg.len() as u32,
            cedt: cedt.as_ptr(),
            cedt_size: cedt.len() as u32,
            roots: roots.as_ptr(),
            root_count: roots.len() as u32,
            resources: resources.as_ptr(),
            resource_count: resources.len() as u32,
            occupied: occupied.as_ptr(),
            occupied_count: occupied.len() as u32,
        });
        unsafe { cxl_set_platform(self.work, &platform) }
    }

    /// The policy of Rust as C says it.
    fn set_policy(&mut self, policy: &Policy<'_>) -> cxl_status {
        let requests: Vec<cxl_request> = policy
            .requests
            .iter()
            .map(|request| cxl_request {
                device: place(&request.device),
                window: request.window.unwrap_or_default().0,
                offset: request.offset.unwrap_or_default(),
                bytes: request.size.unwrap_or_default(),
                skip: request.skip,
                partition: request.partition as u8,
                has_window: request.window.is_some().into(),
                has_offset: request.offset.is_some().into(),
                has_size: request.size.is_some().into(),
                reserved: 0,
            })
            .collect();
        let members: Vec<Vec<cxl_path>> =
            policy.sets.iter().map(|set| set.members.iter().map(place).collect()).collect();
        let sets: Vec<cxl_set_request> = policy
            .sets
            .iter()
            .zip(&members)
            .map(|(set, members)| cxl_set_request {
                members: members.as_ptr(),
                member_count: members.len() as u32,
                granularity: set.granularity.map_or(0, |granularity| granularity.bytes() as u32),
                window: set.window.unwrap_or_default().0,
                offset: set.offset.unwrap_or_default(),
                bytes: set.size.unwrap_or_default(),
                skip: set.skip,
                partition: set.partition as u8,
                has_window: set.window.is_some().into(),
                has_offset: set.offset.is_some().into(),
                has_size: set.size.is_some().into(),
                reserved: 0,
            })
            .collect();
        let widths: Vec<cxl_window_width> = policy
            .windows
            .iter()
            .map(|named| cxl_window_width { window: named.window.0, width: width(named.width) })
            .collect();
        let leave_out: Vec<cxl_leave_out> = policy
            .leave_out
            .iter()
            .map(|left| {
                let nobody = cxl_path::default();
                let (kind, vendor, device, serial, at) = match left {
                    LeaveOut::At(path) => (cxl_leave_out_kind::Place, 0, 0, 0, place(path)),
                    LeaveOut::Device { vendor, device, serial: None } => {
                        (cxl_leave_out_kind::Device, *vendor, *device, 0, nobody)
                    }
                    LeaveOut::Device { vendor, device, serial: Some(serial) } => {
                        (cxl_leave_out_kind::Serial, *vendor, *device, *serial, nobody)
                    }
                };
                cxl_leave_out { serial, kind: kind as u32, vendor, device, at }
            })
            .collect();
        let reserve: Vec<cxl_reserve> = policy
            .reserve
            .iter()
            .map(|kept| cxl_reserve {
                bytes: kept.size,
                at: place(&kept.at),
                partition: kept.partition as u8,
                reserved: [0; 7],
            })
            .collect();
        let (probe, below) = match policy.probe {
            Probe::All => (cxl_probe_policy::All, 0),
            Probe::Below(limit) => (cxl_probe_policy::Below, limit.0),
            Probe::Skip => (cxl_probe_policy::Skip, 0),
        };
        let prefer = match policy.prefer {
            None => cxl_prefer::None,
            Some(Prefer::Widest) => cxl_prefer::Widest,
            Some(Prefer::Narrowest) => cxl_prefer::Narrowest,
            Some(Prefer::Lowest) => cxl_prefer::Lowest,
        };
        let given = sized!(cxl_policy {
            path: policy.path as u32,
            target: policy.target as u32,
            on_failure: policy.on_failure as u32,
            broken_sets: policy.broken_sets as u32,
            prefer: prefer as u32,
            probe: probe as u32,
            config_lock: policy.config_lock.into(),
            burn_spares: policy.burn_spares.into(),
            enable_cache: policy.enable_cache.into(),
            map_leftovers: policy.map_leftovers.into(),
            no_trial: policy.no_trial.into(),
            probe_below: below,
            width: width(policy.width),
            widths: widths.as_ptr(),
            width_count: widths.len() as u32,
            requests: requests.as_ptr(),
            request_count: requests.len() as u32,
            sets: sets.as_ptr(),
            set_count: sets.len() as u32,
            leave_out: leave_out.as_ptr(),
            leave_out_count: leave_out.len() as u32,
            reserve: reserve.as_ptr(),
            reserve_count: reserve.len(),
        });
        unsafe { cxl_set_policy(self.work, &given) }
    }

    fn last_error(&self) -> cxl_error {
        let mut error = cxl_error::default();
        assert_eq!(unsafe { cxl_last_error(self.work, &mut error) }, cxl_status::Ok);
        error
    }

    /// By the one function after a bring-up, by its halves where phases were called one by one.
    fn cedt(&mut self) -> (cxl_status, Vec<u8>) {
        let identity = cxl_identity {
            oem_id: IDENTITY.oem_id.map(|byte| byte as c_char),
            oem_table_id: IDENTITY.oem_table_id.map(|byte| byte as c_char),
            reserved: 0,
            oem_revision: IDENTITY.oem_revision,
            creator_id: IDENTITY.creator_id.map(|byte| byte as c_char),
            creator_revision: IDENTITY.creator_revision,
        };
        let hardware = self.hardware();
        filled(|buffer, size, length| unsafe {
            let status = cxl_describe(self.work, &hardware, &identity, buffer, size, length);
            if status != cxl_status::Order {
                return status;
            }
            let status = cxl_write_cedt(self.work, &identity, buffer, size, length);
            match status {
                cxl_status::Ok => cxl_check_cedt(self.work, &hardware, buffer, *length),
                status => status,
            }
        })
    }

    fn record(&mut self) -> (cxl_status, Vec<u8>) {
        let hardware = self.hardware();
        filled(|buffer, size, length| unsafe {
            cxl_write_handoff(self.work, &hardware, 0, 0, buffer, size, length)
        })
    }
}

/// What a function writes: it is asked first how much that is, and given as much and not a byte more.
fn filled(
    mut write: impl FnMut(*mut c_void, usize, *mut usize) -> cxl_status,
) -> (cxl_status, Vec<u8>) {
    let mut length = 0;
    let status = write(ptr::null_mut(), 0, &mut length);
    if status != cxl_status::Short {
        return (status, Vec::new());
    }
    assert!(length > 0, "a buffer that is too short, and nothing is said of its length");
    let enough = length;
    let mut buffer = vec![0xA5; enough + 1];
    let status = write(buffer.as_mut_ptr().cast(), enough, &mut length);
    assert_eq!(buffer[enough], 0xA5, "a byte behind the buffer");
    assert!(length <= enough);
    let made = [cxl_status::Ok, cxl_status::Less].contains(&status);
    buffer.truncate(if made { length } else { 0 });
    (status, buffer)
}

/// Brings a rig's machine up as its scenario says, or as `change` makes it.
fn bring_up(rig: &mut Rig, change: impl FnOnce(RunRequest) -> RunRequest) -> cxl_status {
    assert_eq!(rig.set_platform(), cxl_status::Ok);
    let wanted = change(RunRequest::of(&rig.host.machine).unwrap());
    assert_eq!(rig.set_policy(&wanted.policy()), cxl_status::Ok);
    let hardware = rig.hardware();
    unsafe { cxl_bring_up(rig.work, &hardware) }
}

/// Whether C's run ended as Rust's did.
fn same(name: &str, rig: &mut Rig, status: cxl_status, done: &DirectRun) {
    let refusal = done.refusal.as_ref().map_or(0, |refusal| refusal.code());
    if refusal == 0 {
        let cedt = rig.cedt();
        let error = rig.last_error();
        let expected = if done.extent == Extent::Whole { cxl_status::Ok } else { cxl_status::Less };
        assert_eq!((status, cedt.0), (expected, expected), "{name}: {error:x?}");
        assert_eq!(cedt.1, done.cedt, "{name}: CEDT");
    }
    if !done.handoff.is_empty() {
        let record = rig.record();
        assert_eq!(record.0, cxl_status::Ok, "{name}");
        assert_eq!(record.1, done.handoff, "{name}: hand-off record");
    }
}

#[test]
fn every_machine_ends_as_it_does_in_rust() {
    let (mut whole, mut refused) = (0, 0);
    for builtin in builtins() {
        let name = builtin.name;
        let scenario = Scenario::built_in(name).unwrap();
        for best_effort in [false, true] {
            let change = |wanted: RunRequest| match best_effort {
                true => wanted.best_effort(),
                false => wanted,
            };
            let mut machine = Machine::new(&scenario);
            let done = if best_effort {
                let _ = run::prepare(&mut machine);
                let Ok(wanted) = RunRequest::of(&machine) else { continue };
                let tables = run::platform(&machine).unwrap();
                let usable = memory_map(machine.map().ram.iter().copied()).into_iter();
                let usable = usable.filter_map(|(span, usable)| usable.then_some(span));
                let occupied: Vec<_> = usable.chain([chip_set()]).collect();
                let platform =
                    cxl_firmware::platform::Platform { occupied: &occupied, ..tables.platform() };
                let mut clock = machine.clock();
                run::on(&mut machine, &mut clock, &platform, &wanted.best_effort())
            } else {
                run::direct(&mut machine)
            };
            if RunRequest::of(&machine).is_err() {
                // The library cannot be asked for it, in no language.
                continue;
            }
            let mut rig = Rig::new(&scenario);
            let status = bring_up(&mut rig, change);
            let error = rig.last_error();
            match &done.refusal {
                Some(refusal) if status == cxl_status::Refused => {
                    assert_eq!(error.code, refusal.code(), "{name}");
                    refused += 1;
                }
                Some(refusal) => panic!("{name}: {refusal}, and C has {status:?}"),
                None => whole += 1,
            }
            same(name, &mut rig, status, &done);
            assert_eq!(
                format!("{:?}", rig.host.machine.traffic()),
                format!("{:?}", machine.traffic()),
                "{name}: accesses"
            );
        }
    }
    assert!(whole > 50 && refused > 15, "{whole} {refused}");
}

/// What changes before its table is made costs itself with best effort, and else everything; the table
/// never has it.
#[test]
fn what_changes_before_the_table_costs_itself() {
    let scenario = Scenario::built_in("four-bridges").unwrap();
    for best_effort in [true, false] {
        let mut rig = Rig::new(&scenario);
        let status = bring_up(&mut rig, |wanted| match best_effort {
            true => wanted.best_effort(),
            false => wanted,
        });
        assert_eq!(status, cxl_status::Ok);
        assert_eq!(rig.cedt().0, cxl_status::Ok);
        // A device goes.
        rig.host.machine.hot_remove(2).unwrap();
        let (status, cedt) = rig.cedt();
        if !best_effort {
            assert_eq!((status, cedt), (cxl_status::Refused, Vec::new()));
            let error = rig.last_error();
            assert_eq!(cxl_firmware::Code::TABLES_SILENT.number(), error.code, "{error:x?}");
            continue;
        }
        assert_eq!(status, cxl_status::Less, "{:x?}", rig.last_error());
        assert_eq!(unsafe { cxl_region_count(rig.work) }, 3);
        let broken = (0..unsafe { cxl_component_count(rig.work) }).filter(|at| {
            let mut component = sized!(cxl_component {});
            let status = unsafe { cxl_component_at(rig.work, *at, &mut component) };
            assert_eq!(status, cxl_status::Ok);
            component.outcome == cxl_outcome::Broken as u32
        });
        assert!(broken.count() > 0);
        assert_eq!(rig.cedt(), (cxl_status::Less, cedt), "the second time it is the same");
    }
    // Nothing was brought up: nobody knows what was wanted.
    let mut rig = ready("default");
    let (hardware, mut length) = (rig.hardware(), 0);
    let by = unsafe { std::mem::zeroed::<cxl_identity>() };
    assert_eq!(unsafe { cxl_inspect(rig.work, &hardware) }, cxl_status::Ok);
    let status = unsafe { cxl_describe(rig.work, &hardware, &by, ptr::null_mut(), 0, &mut length) };
    assert_eq!(status, cxl_status::Order);
}

/// One record that cannot be read costs what it says with best effort, and else everything, by its number.
#[test]
fn a_record_that_cannot_be_read_costs_itself() {
    const CFMWS: u8 = 1;
    let scenario = Scenario::built_in("four-bridges").unwrap();
    let machine = Machine::new(&scenario);
    let tables = Tables::new(&scenario, machine.map(), run::TABLES_BASE);
    let mut cedt = tables.table(&tables.cedt).to_vec();
    // The first window has a granularity that there is none of.
    let records = Cedt::read(&cedt).unwrap().raw_records();
    let mut windows = records.map(Result::unwrap).filter(|record| record.bytes[0] == CFMWS);
    let window = windows.next().unwrap().offset;
    cedt[window + 0x1C] = 7;
    cedt[9] = cedt[9].wrapping_sub(7);
    for best_effort in [true, false] {
        let mut rig = Rig::new(&scenario);
        rig.cedt = Some(cedt.clone());
        let status = bring_up(&mut rig, |wanted| match best_effort {
            true => wanted.best_effort(),
            false => wanted.strict(),
        });
        if !best_effort {
            assert_eq!(status, cxl_status::Refused);
            assert_eq!(rig.last_error().code, cxl_firmware::Code::TABLES_WINDOW.number());
            continue;
        }
        assert_eq!(status, cxl_status::Less, "{:x?}", rig.last_error());
        assert_eq!(unsafe { cxl_region_count(rig.work) }, 3);
        let (status, described) = rig.cedt();
        assert_eq!(status, cxl_status::Less);
        assert_eq!(Cedt::read(&described).unwrap().windows().count(), 3);
        // And so by its half, which follows the policy too.
        let identity = unsafe { std::mem::zeroed::<cxl_identity>() };
        let (status, written) = filled(|buffer, size, length| unsafe {
            cxl_write_cedt(rig.work, &identity, buffer, size, length)
        });
        assert_eq!(status, cxl_status::Ok, "{:x?}", rig.last_error());
        assert_eq!(Cedt::read(&written).unwrap().windows().count(), 3);
    }
}

/// A machine with an empty port for which room is kept, and the device that is plugged in there later.
fn with_empty_port(name: &str, late: usize) -> Scenario {
    let mut scenario = Scenario::built_in(name).unwrap();
    scenario.policy.on_failure = cxl_model::scenario::OnFailure::BestEffort;
    let device = &mut scenario.devices[late];
    device.present = false;
    let (at, size) = (cxl_model::scenario::Place::Port(device.port), device.volatile);
    let partition = cxl_model::scenario::Partition::Volatile;
    scenario.reserve = vec![cxl_model::scenario::Reserve { at, partition, size }];
    scenario
}

#[test]
fn what_is_plugged_in_later_is_brought_up_as_in_rust() {
    for (name, late) in [("four-bridges", 2), ("two-devices-one-bridge", 1), ("switch", 0)] {
        let scenario = with_empty_port(name, late);
        let mut machine = Machine::new(&scenario);
        let first = run::direct(&mut machine);
        let mut rig = Rig::new(&scenario);
        let status = bring_up(&mut rig, |wanted| wanted);
        same(name, &mut rig, status, &first);
        let regions = unsafe { cxl_region_count(rig.work) };
        for machine in [&mut machine, &mut rig.host.machine] {
            machine.hot_add(late).unwrap();
            machine.assign();
        }
        let done = run::add(&mut machine);
        let hardware = rig.hardware();
        let status = unsafe { cxl_add(rig.work, &hardware) };
        same(name, &mut rig, status, &done);
        assert_eq!(unsafe { cxl_region_count(rig.work) }, regions + 1, "{name}");
        let counts = |machine: &Machine| format!("{:?}", machine.traffic());
        assert_eq!(counts(&rig.host.machine), counts(&machine), "{name}: accesses");
    }
}

type Phase = unsafe extern "C" fn(*mut cxl_workspace, *const cxl_hardware) -> cxl_status;

/// A rig with a platform and its scenario's policy.
fn ready(name: &str) -> Rig {
    let mut rig = Rig::new(&Scenario::built_in(name).unwrap());
    assert_eq!(rig.set_platform(), cxl_status::Ok);
    let wanted = RunRequest::of(&rig.host.machine).unwrap();
    assert_eq!(wanted.policy().on_failure, OnFailure::Strict);
    assert_eq!(rig.set_policy(&wanted.policy()), cxl_status::Ok);
    rig
}

#[test]
fn phases_one_by_one_end_as_all_at_once_and_none_runs_too_early() {
    let phases: [Phase; 5] = [cxl_discover, cxl_plan, cxl_commit, cxl_verify, cxl_probe];
    for name in ["default", "switch", "two-way", "describe"] {
        let scenario = Scenario::built_in(name).unwrap();
        let done = run::direct(&mut Machine::new(&scenario));
        let mut rig = ready(name);
        let hardware = rig.hardware();
        for (at, phase) in phases.into_iter().enumerate() {
            for (early, other) in phases.into_iter().enumerate().skip(at + 1) {
                // What somebody else has committed may be verified without a plan, and what is committed
                // may be probed.
                if !(early == 3 && at > 0 || at == 3) {
                    let status = unsafe { other(rig.work, &hardware) };
                    assert_eq!(status, cxl_status::Order, "{name}: {early} before {at}");
                }
            }
            let status = unsafe { phase(rig.work, &hardware) };
            assert_eq!(status, cxl_status::Ok, "{name}: {at}: {:x?}", rig.last_error());
        }
        same(name, &mut rig, cxl_status::Ok, &done);
    }
}

#[test]
fn what_was_committed_without_locks_is_taken_back() {
    let mut rig = ready("unlocked");
    let hardware = rig.hardware();
    let before = format!("{:?}", rig.host.machine.fabric());
    for phase in [cxl_discover as Phase, cxl_plan, cxl_commit] {
        assert_eq!(unsafe { phase(rig.work, &hardware) }, cxl_status::Ok);
    }
    assert_ne!(format!("{:?}", rig.host.machine.fabric()), before);
    assert_eq!(unsafe { cxl_undo(rig.work, &hardware) }, cxl_status::Ok);
    assert_eq!(format!("{:?}", rig.host.machine.fabric()), before);
    assert_eq!(unsafe { cxl_region_count(rig.work) }, 0);
}

#[test]
fn a_machine_comes_back_from_its_record() {
    for name in ["default", "switch", "two-way"] {
        let mut rig = ready(name);
        let hardware = rig.hardware();
        assert_eq!(unsafe { cxl_bring_up(rig.work, &hardware) }, cxl_status::Ok);
        let (_, record) = rig.record();
        let before = format!("{:?}", rig.host.machine.fabric());
        rig.host.machine.reset(Reset::Warm);
        assert_ne!(format!("{:?}", rig.host.machine.fabric()), before, "{name}: a reset is one");
        let restore = |record: &[u8]| unsafe {
            let bytes = record.as_ptr().cast();
            cxl_restore(rig.work, &hardware, bytes, record.len(), cxl_pci::Library as u32)
        };
        let broken = [&record[..60], &[0xFF][..], &record[61..]].concat();
        assert_eq!(restore(&broken), cxl_status::Refused);
        assert_eq!(rig.last_error().code, 0x0707, "{name}: the digest");
        assert_eq!(restore(&record), cxl_status::Ok, "{name}: {:x?}", rig.last_error());
        assert_eq!(format!("{:?}", rig.host.machine.fabric()), before, "{name}");
        let components = handoff::read(&record).unwrap().outcomes().count();
        assert_eq!(unsafe { cxl_component_count(rig.work) } as usize, components);
    }
}

#[test]
fn an_earlier_record_is_read_or_refused() {
    let mut rig = ready("default");
    let hardware = rig.hardware();
    assert_eq!(unsafe { cxl_bring_up(rig.work, &hardware) }, cxl_status::Ok);
    let (_, record) = rig.record();
    let policy = sized!(cxl_policy { earlier: record.as_ptr().cast(), earlier_size: record.len() });
    assert_eq!(unsafe { cxl_set_policy(rig.work, &policy) }, cxl_status::Ok);
    let short = sized!(cxl_policy { earlier: record.as_ptr().cast(), earlier_size: 63 });
    assert_eq!(unsafe { cxl_set_policy(rig.work, &short) }, cxl_status::Refused);
    assert_eq!(rig.last_error().code, 0x0702);
}

#[test]
fn windows_are_sized_as_in_rust() {
    let scenario = Scenario::built_in("sized-windows").unwrap();
    // Which has its windows by the library, called from Rust.
    let sized = Rig::new(&scenario);
    let WindowSource::Sized { across } = scenario.platform.windows else {
        panic!("they are sized")
    };
    let expected = sized.host.machine.scenario().windows.clone();
    assert!(!expected.is_empty());
    let mut rig = Rig::new(&scenario);
    // One whose root complex nobody has programmed.
    rig.host.machine = Machine::new(&scenario);
    rig.host.clock = rig.host.machine.clock();
    assert_eq!(rig.set_platform(), cxl_status::Ok);
    let hardware = rig.hardware();
    assert_eq!(unsafe { cxl_discover(rig.work, &hardware) }, cxl_status::Ok);
    let free: Vec<cxl_range> = window_space(&scenario)
        .iter()
        .map(|span| cxl_range { base: span.base().0, size: span.size() })
        .collect();
    let across = across.map_or(0, |granularity| granularity.bytes() as u32);
    let size = || unsafe { cxl_size_windows(rig.work, free.as_ptr(), free.len() as u32, across) };
    assert_eq!(size(), cxl_status::Ok, "{:x?}", rig.last_error());
    for (at, expected) in expected.iter().enumerate() {
        let mut window: cxl_window = unsafe { std::mem::zeroed() };
        assert_eq!(unsafe { cxl_window_at(rig.work, at as u32, &mut window) }, cxl_status::Ok);
        let targets = &window.targets[..window.target_count.into()];
        assert_eq!((Some(window.base), window.size), (expected.base.map(|b| b.0), expected.size));
        assert_eq!(targets, expected.targets);
        assert_eq!(window.restrictions, expected.restrictions.into_bits());
    }
    let mut window: cxl_window = unsafe { std::mem::zeroed() };
    let end = unsafe { cxl_window_at(rig.work, expected.len() as u32, &mut window) };
    assert_eq!(end, cxl_status::End);
    assert_eq!(size(), cxl_status::Argument, "there are windows now");
}

#[test]
fn lists_say_what_the_record_says() {
    for name in ["default", "two-way", "two-partitions", "switch", "dpa-skip"] {
        let mut rig = ready(name);
        let hardware = rig.hardware();
        assert_eq!(unsafe { cxl_bring_up(rig.work, &hardware) }, cxl_status::Ok);
        let (_, bytes) = rig.record();
        let record = handoff::read(&bytes).unwrap();
        let mut regions = 0;
        for (at, expected) in record.regions().enumerate() {
            let mut region = sized!(cxl_region {});
            let status = unsafe { cxl_region_at(rig.work, at as u32, &mut region) };
            assert_eq!(status, cxl_status::Ok);
            assert_eq!((region.base, region.bytes), (expected.span.base().0, expected.span.size()));
            assert_eq!(region.ways, expected.interleave.ways.count());
            assert_eq!(u64::from(region.granularity), expected.interleave.granularity.bytes());
            assert_eq!(region.window, expected.window.0);
            assert_eq!(region.locked, u8::from(expected.locked));
            // Soft reserved, or reserved where it is persistent.
            assert_eq!(region.e820, [0xEFFF_FFFF, 2][usize::from(region.partition)]);
            assert_eq!(region.size as usize, size_of::<cxl_region>(), "C's size stays");
            regions += 1;
        }
        // A C that is newer than the library gets 0 for what only it knows; an older one nothing.
        #[repr(C)]
        struct Newer {
            known: cxl_region,
            unknown: u64,
        }
        let known = sized!(cxl_region {});
        let mut newer = Newer { known, unknown: 7 };
        newer.known.size = size_of::<Newer>() as u32;
        let at = ptr::from_mut(&mut newer).cast();
        assert_eq!(unsafe { cxl_region_at(rig.work, 0, at) }, cxl_status::Ok);
        assert_eq!((newer.unknown, newer.known.size as usize), (0, size_of::<Newer>()));
        assert!(newer.known.bytes != 0);
        let mut older = cxl_region { size: size_of::<cxl_region>() as u32 - 1, ..known };
        assert_eq!(unsafe { cxl_region_at(rig.work, 0, &mut older) }, cxl_status::Size);
        assert_eq!(unsafe { cxl_region_count(rig.work) }, regions);
        assert!(regions > 0);
        let mut decoders = 0;
        for (at, expected) in record.decoders().enumerate() {
            let mut decoder = sized!(cxl_decoder {});
            let status = unsafe { cxl_decoder_at(rig.work, at as u32, &mut decoder) };
            assert_eq!(status, cxl_status::Ok);
            assert_eq!(decoder.registers, expected.image.to_dwords());
            assert_eq!(decoder.path, place(&expected.place.at));
            assert_eq!(decoder.index, expected.place.index);
            let control = expected.image.control();
            assert_eq!(decoder.committed, u8::from(control.committed()));
            assert_eq!(decoder.locked, u8::from(control.locked()));
            assert_eq!(decoder.base, expected.image.base());
            assert_eq!(decoder.bytes, expected.image.size());
            decoders += 1;
        }
        assert_eq!(unsafe { cxl_decoder_count(rig.work) }, decoders);
        for (at, expected) in record.components().enumerate() {
            let mut component = sized!(cxl_component {});
            let status = unsafe { cxl_component_at(rig.work, at as u32, &mut component) };
            assert_eq!(status, cxl_status::Ok);
            assert_eq!(component.path, place(&expected.at()));
            let bytes = [component.volatile_bytes, component.persistent_bytes];
            assert_eq!(bytes, expected.capacity());
            if let Some((function, ..)) = expected.function() {
                assert_eq!(component.has_function, 1);
                assert_eq!(component.bus, function.bdf.bus());
                let bits = function.bdf.device() << 3 | function.bdf.function();
                assert_eq!(component.device_function, bits);
            }
        }
    }
}

#[test]
fn a_refusal_is_told_in_words_and_numbers_and_in_the_log() {
    let mut rig = ready("window-too-small");
    let hardware = rig.hardware();
    assert_eq!(unsafe { cxl_bring_up(rig.work, &hardware) }, cxl_status::Refused);
    let error = rig.last_error();
    assert_eq!(error.code, 0x0308);
    let phase = unsafe { CStr::from_ptr(cxl_phase_name(error.code)) };
    assert_eq!(phase.to_str(), Ok("plan"));
    let words = run::direct(&mut Machine::new(&Scenario::built_in("window-too-small").unwrap()));
    let refusal = words.refusal.unwrap().to_string();
    let sentence = refusal.strip_prefix("plan: ").unwrap();
    let (mut text, mut need) = ([0xA5_u8; 512], 0);
    let status = unsafe { cxl_error_text(&error, text.as_mut_ptr().cast(), text.len(), &mut need) };
    assert_eq!(status, cxl_status::Ok);
    let told = CStr::from_bytes_until_nul(&text).unwrap().to_str().unwrap();
    assert_eq!(told, format!("{sentence} (0x308)"));
    assert_eq!(need, told.len() + 1);
    assert!(rig.host.log.iter().any(|line| line.ends_with(told)), "{:?}", rig.host.log);
    // What does not fit is cut, with a 0 behind.
    let mut text = [0xA5_u8; 10];
    let status = unsafe { cxl_error_text(&error, text.as_mut_ptr().cast(), 8, &mut need) };
    assert_eq!(status, cxl_status::Short);
    assert_eq!(&text[..7], &told.as_bytes()[..7]);
    assert_eq!(text[7..], [0, 0xA5, 0xA5]);
}

/// Configuration space by callbacks of its own: ECAM is never touched.
#[test]
fn configuration_space_may_be_reached_by_other_means() {
    unsafe extern "C" fn no_ecam(context: *mut c_void, address: u64) -> u32 {
        let host = unsafe { &mut *context.cast::<Host>() };
        let ecam = ecam_of(host);
        assert!(!(ecam..ecam + (256 << 20)).contains(&address), "{address:#x} is in the ECAM");
        host.machine.read(address)
    }
    fn ecam_of(host: &Host) -> u64 {
        run::platform(&host.machine).unwrap().ecam[0].base.0
    }
    fn address(host: &Host, bus: u8, device_function: u8, offset: u16) -> u64 {
        ecam_of(host)
            + (u64::from(bus) << 20 | u64::from(device_function) << 12 | u64::from(offset))
    }
    unsafe extern "C" fn read(context: *mut c_void, _: u16, bus: u8, df: u8, at: u16) -> u32 {
        let host = unsafe { &mut *context.cast::<Host>() };
        let address = address(host, bus, df, at);
        host.machine.read(address)
    }
    unsafe extern "C" fn write(context: *mut c_void, _: u16, bus: u8, df: u8, at: u16, new: u32) {
        let host = unsafe { &mut *context.cast::<Host>() };
        let address = address(host, bus, df, at);
        host.machine.write(address, new);
    }
    for name in ["default", "switch"] {
        let done = run::direct(&mut Machine::new(&Scenario::built_in(name).unwrap()));
        let mut rig = ready(name);
        let hardware = cxl_hardware {
            read32: Some(no_ecam),
            config_read32: Some(read),
            config_write32: Some(write),
            ..rig.hardware()
        };
        let status = unsafe { cxl_bring_up(rig.work, &hardware) };
        same(name, &mut rig, status, &done);
        let half = cxl_hardware { config_write32: None, ..hardware };
        assert_eq!(unsafe { cxl_bring_up(rig.work, &half) }, cxl_status::Argument);
    }
}
