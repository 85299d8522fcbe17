//! The hand-off record: golden bytes, the round trip, and every kind of damage.
//!
//! **Invariant**: the golden record is typed by hand from the layout in the module's documentation;
//! digests are computed here by a second implementation.

#[allow(dead_code, reason = "discovery tests use all of it")]
mod fake;

mod scripted;

use cxl_firmware::commit::{Receipt, commit};
use cxl_firmware::committed::{Committed, Fate};
use cxl_firmware::discover::{Remarks, Search, discover_as};
use cxl_firmware::error::{Code, Place};
use cxl_firmware::handoff::{self, Contents, TableLocation};
use cxl_firmware::outcome::{ComponentKind, Outcome, outcomes};
use cxl_firmware::policy::{LeaveOut, Policy};
use cxl_firmware::topology::{NodeId, Path, Topology};
use cxl_regs::access::Component;
use scripted::{Machine, Ticks, simple, switched};

/// FNV-1a, written out with 128 bits.
fn fnv(bytes: &[u8]) -> u64 {
    let mut hash = 14_695_981_039_346_656_037_u128;
    for byte in bytes {
        hash = (hash ^ u128::from(*byte)) * 1_099_511_628_211 % (1 << 64);
    }
    hash as u64
}

fn committed(m: &mut Machine) -> Committed<16> {
    let (plan, mut done) = (m.plan(&Policy::default()), Committed::new());
    let policy = Policy::default();
    let result = commit(&mut m.hw, &mut Ticks::of(1), &m.topology, &plan, &policy, &mut done);
    assert_eq!(result.map(Receipt::keep), Ok(()));
    done
}

/// What a record of the machine is made from.
fn contents<'a>(
    topology: &'a Topology<16>,
    done: &'a Committed<16>,
    cedt: Option<TableLocation>,
) -> Contents<'a> {
    let remarks = &topology.remarks;
    Contents { ecam: &[], topology: topology.tree(), remarks, committed: done.view(), cedt }
}

fn write<'b>(
    m: &mut Machine,
    done: &Committed<16>,
    cedt: Option<TableLocation>,
    buffer: &'b mut [u8],
) -> Result<&'b mut [u8], cxl_firmware::Error> {
    handoff::write(&mut m.hw, &contents(&m.topology, done, cedt), buffer)
}

const CEDT: Option<TableLocation> = Some(TableLocation { address: 0x7_FE00_1000, size: 0xB8 });

/// A record of version 1: a region and two decoders.
#[rustfmt::skip]
fn golden_1() -> Vec<u8> {
    // Base, size, control, target list or skip.
    let device = [
        0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0x00, 0x17, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let mut bridge = device;
    bridge[20] = 3;
    let registers = fnv(&[device, bridge].concat()).to_le_bytes();
    let mut record = vec![
        b'C', b'X', b'L', b'F', b'W', b'H', b'O', 0,
        1, 0, 64, 0, 64 + 32 + 2 * 56, 0, 0, 0,
        1, 0, 0, 0, 2, 0, 0, 0,
        0, 0x10, 0, 0xFE, 7, 0, 0, 0, 0xB8, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    record.extend(registers);
    record.extend([0; 8]);
    // Region: window and base 16 GiB, 512 MiB, 1 way, host-only, volatile, locked.
    record.extend([
        0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0,
        0, 0, 0, 0, 1, 0, 0, 0,
    ]);
    // The device's decoder 0: bridge 7 port 3, done.
    record.extend([7, 0, 0, 0, 0, 0, 3, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    record.extend(device);
    record.extend([0; 4]);
    // The bridge's.
    record.extend([7, 0, 0, 0, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    record.extend(bridge);
    record.extend([0; 4]);
    let digest = fnv(&record).to_le_bytes();
    record[56..64].copy_from_slice(&digest);
    record
}

/// The record of version 2 of the same machine: three components and their outcomes more. None of
/// them has configuration space.
#[rustfmt::skip]
fn golden() -> Vec<u8> {
    let mut record = golden_1();
    record[8] = 2;
    // The device's decoder is of component 2, the bridge's of component 0.
    record[96 + 52] = 2;
    // What is above, 16 port numbers, what the function is and held.
    let mut component = |head: [u8; 8], port: u8, volatile: u8, hdm: [u8; 8], end: [u8; 8]| {
        record.extend(head);
        record.push(port);
        record.extend([0; 15 + 8 + 8]);
        record.extend([0, 0, 0, volatile, 0, 0, 0, 0]);
        record.extend([0; 8]);
        record.extend(hdm);
        record.extend([0; 60]);
        record.extend(end);
        record.extend([0; 28]);
    };
    // HDM Decoder Capability and Global Control.
    let (on, off) = ([0x42, 0x0B, 0x60, 0, 2, 0, 0, 0], [0x42, 0x0B, 0x60, 0, 0, 0, 0, 0]);
    component([7, 0, 0, 0, 1, 0, 0xFF, 0xFF], 0, 0, [0, 0x10, 0, 0x10, 0, 0, 0, 0], off);
    component([7, 0, 0, 0, 3, 1, 0, 0], 3, 0, [0; 8], [0; 8]);
    component([7, 0, 0, 0, 0, 1, 1, 0], 3, 0x20, [0, 0, 0, 0x20, 0, 0, 0, 0], on);
    // In use, all three: the places are a component's with as many ports, and the bridge's UID.
    for (kind, ports, port) in [(1, 0, 0), (3, 1, 3), (0, 1, 3)] {
        record.extend([0, kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        record.extend([ports << 4 | 1, 0, port, 0, 0, 0, 0, 0, 7, 0, 0, 0]);
        record.extend([0; 16]);
    }
    assert_eq!(record.len(), 208 + 3 * 160 + 3 * 40);
    record[12..16].copy_from_slice(&[0x28, 0x03, 0, 0]);
    (record[36], record[40]) = (3, 3);
    record[56..64].fill(0);
    let digest = fnv(&record).to_le_bytes();
    record[56..64].copy_from_slice(&digest);
    record
}

#[test]
fn the_record_is_laid_out_as_documented() {
    let mut m = simple();
    let done = committed(&mut m);
    let mut buffer = [0xA5; 1024];
    let record = write(&mut m, &done, CEDT, &mut buffer).expect("a record");
    assert_eq!(*record, *golden());
}

#[test]
fn a_record_of_version_1_is_read_as_one_without_components() {
    let (first, second) = (golden_1(), golden());
    let first = handoff::read(&first).expect("what version 1 wrote");
    let second = handoff::read(&second).expect("the golden record");
    assert_eq!((first.components().count(), first.outcomes().count()), (0, 0));
    assert_eq!((second.components().count(), second.outcomes().count()), (3, 3));
    assert!(first.regions().eq(second.regions()));
    assert!(first.decoders().map(|d| d.image).eq(second.decoders().map(|d| d.image)));
    assert_eq!((first.cedt, CEDT), (second.cedt, first.cedt));
}

/// Whatever the width of an address is: what was reserved in version 1 is no component's number.
#[test]
fn a_decoder_of_version_1_is_of_no_component() {
    for number in [1, u32::MAX] {
        let mut record = golden_1();
        record[96 + 52..96 + 56].copy_from_slice(&number.to_le_bytes());
        record[56..64].fill(0);
        let digest = fnv(&record).to_le_bytes();
        record[56..64].copy_from_slice(&digest);
        let error = handoff::read(&record).expect_err("a number that means nothing");
        let expected = Code::HANDOFF_CODE.at(Place::byte(96 + 52)).found(number);
        assert_eq!(error, expected);
    }
}

/// A device as discovery found it, registers typed from the specification: what its component
/// record holds.
#[rustfmt::skip]
#[test]
fn a_component_has_what_its_function_held() {
    let (mut hw, bridges) = fake::small();
    // A serial number behind the Flex Bus DVSEC, and a range that was placed; CONFIG_LOCK.
    fake::put(&mut hw.functions[1].config, 0x160, &[0x1801_0023]);
    fake::put(&mut hw.functions[1].config, 0x180, &[0x0001_0003, 0x89AB_CDEF, 0x0123_4567]);
    fake::put(&mut hw.functions[1].config, 0x114, &[1]);
    fake::put(&mut hw.functions[1].config, 0x120, &[0x0000_0004, 0x5000_0000]);
    fake::put(&mut hw.functions[1].blocks[0].2, 0x112C, &[2]);
    let mut topology = Topology::<16>::new();
    let platform = fake::platform(&bridges, &[]);
    discover_as(&mut hw, &mut fake::clock(), &platform, Search::default(), &mut topology)
        .expect("a machine");
    let (done, mut buffer) = (Committed::<16>::new(), [0xA5; 1024]);
    let contents = Contents { ecam: platform.ecam, ..contents(&topology, &done, None) };
    let record = handoff::write(&mut hw, &contents, &mut buffer).expect("a record");
    let device = [
        12, 0, 0, 0, 0, 1, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        // 0d:00.0, IDs, serial number, 256 MiB volatile.
        0, 0, 0x00, 0x0D, 0x86, 0x80, 0x93, 0x0D, 0xEF, 0xCD, 0xAB, 0x89, 0x67, 0x45, 0x23, 0x01,
        0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        // HDM decoders at +0x1128 of BAR 0, no BI, no device registers.
        0x28, 0x11, 0x80, 0xFE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        // DVSECs at 0x100 and 0x160, serial number at 0x180; Command, no Bridge Control, Control.
        0x00, 0x01, 0x60, 0x01, 0x80, 0x01, 0x06, 0, 0, 0, 0x02, 0,
        // BAR 0, and no other; two dwords that are a port's.
        0x04, 0, 0x80, 0xFE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0,
        // Capability, Global Control, no BI control; range 1 at 17.25 GiB, range 2; locked.
        0x12, 0x1B, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
        4, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(record[64 + 2 * 160..64 + 3 * 160], device);
    // The root port: bus numbers 12, 13, 13; its window at 0xfe8; the secondary status reads 0.
    let port = &record[64 + 160..64 + 2 * 160];
    assert_eq!(port[92 + 8..92 + 20], [12, 13, 13, 0, 0, 0, 0, 0, 0x80, 0xFE, 0x80, 0xFE]);
    let record = handoff::read(record).expect("what was written");
    let device = record.components().nth(2).expect("a device");
    assert_eq!((device.serial(), device.capacity()), (Some(0x0123_4567_89AB_CDEF), [0x1000_0000, 0]));
    assert_eq!((device.parent(), device.config_lock()), (Some(1), true));
    let unused: Vec<_> = record.outcomes().map(|found| (found.kind, found.outcome)).collect();
    use ComponentKind::{Device, HostBridge, RootPort};
    let kinds = [HostBridge, RootPort, Device];
    assert_eq!(unused, kinds.map(|kind| (Some(kind), Outcome::Unused)));
}

#[test]
fn what_was_lost_and_left_out_is_named() {
    let mut m = switched();
    let mut done = committed(&mut m);
    // The device behind port 5 is lost, and with it its region.
    let fault = Code::COMMIT_REFUSED.at(m.topology.tree().path(NodeId(6))).found(0xBu8);
    m.topology.nodes[6].fault = Some(fault);
    done.regions.truncate(2);
    let mut record = vec![0; 4096];
    let (mut hw, bridges) = fake::small();
    let mut other = Topology::<16>::new();
    let leave_out = [LeaveOut::At(Path::new(12, &[]).expect("a path"))];
    let search = Search { leave_out: &leave_out, ..Search::default() };
    let platform = fake::platform(&bridges, &[]);
    discover_as(&mut hw, &mut fake::clock(), &platform, search, &mut other).expect("nothing");
    let remarks: &Remarks = &other.remarks;
    let contents = Contents { remarks, ..contents(&m.topology, &done, None) };
    let record = handoff::write(&mut m.hw, &contents, &mut record).expect("a record");
    let record = handoff::read(record).expect("what was written");
    let found: Vec<_> = record.outcomes().collect();
    assert!(outcomes(&m.topology, remarks, &done).eq(found.iter().copied()));
    let of = |at: usize| found[at].outcome;
    let in_use = [0, 1, 2, 3, 4, 5].map(of);
    // Port 5 is not in use, as nothing below it is.
    use Outcome::{Broken, InUse, LeftOut, Unused};
    assert_eq!(in_use, [InUse, InUse, InUse, InUse, Unused, InUse]);
    assert_eq!(of(6), Broken(fault));
    let bridge = Path::new(12, &[]).expect("a path");
    assert_eq!(of(7), LeftOut(Code::DISCOVER_LEFT_OUT.at(bridge)));
    assert_eq!((found.len(), found[7].kind), (8, None));
}

#[test]
fn what_was_written_is_read() {
    let mut m = switched();
    let mut done = committed(&mut m);
    done.decoders[3].fate = Fate::Stranded;
    let mut buffer = [0xA5; 4096];
    for cedt in [CEDT, None] {
        write(&mut m, &done, cedt, &mut buffer).expect("a record");
        // The buffer goes on behind the record.
        let record = handoff::read(&buffer).expect("what was written");
        assert_eq!(record.cedt, cedt);
        assert!(record.regions().eq(done.regions.iter().copied()));
        let decoders: Vec<_> = record.decoders().collect();
        assert_eq!(decoders.len(), 9);
        for (decoder, entry) in decoders.iter().zip(&done.decoders) {
            assert_eq!((decoder.image, decoder.fate), (entry.image, entry.fate));
            assert_eq!(decoder.place.at, m.topology.tree().path(entry.node));
            assert_eq!(decoder.place.index, entry.index);
        }
        let components: Vec<_> = decoders.iter().map(|decoder| decoder.place.component).collect();
        use Component::{Device as D, HostBridge as B, UpstreamPort as U};
        assert_eq!(components, [D, D, D, U, U, U, B, B, B]);
    }
}

#[test]
fn registers_that_changed_since_are_noticed() {
    let golden = golden();
    let record = handoff::read(&golden).expect("the golden record");
    let images: Vec<_> = record.decoders().map(|decoder| decoder.image).collect();
    assert_eq!(record.check_registers(images.clone()), Ok(()));
    for dword in 0..7 {
        let mut changed = images.clone();
        let mut dwords = changed[1].to_dwords();
        dwords[dword] ^= 1 << 28;
        changed[1] = cxl_regs::hdm::DecoderImage::from_dwords(dwords);
        let result = record.check_registers(changed);
        assert_eq!(result.expect_err("changed").code, Code::HANDOFF_REGISTERS);
    }
}

#[test]
fn the_digest_of_registers_takes_locked_decoders_only() {
    let mut m = simple();
    let mut done = committed(&mut m);
    let control = done.decoders[0].image.control().with_lock_on_commit(false);
    done.decoders[0].image = done.decoders[0].image.with_control(control);
    let mut buffer = [0; 1024];
    let record = write(&mut m, &done, None, &mut buffer).expect("a record");
    let bridge = [0, 4, 0x2000_0000, 0, 0x1700, 3, 0].map(u32::to_le_bytes).concat();
    assert_eq!(record[48..56], fnv(&bridge).to_le_bytes());
}

/// The golden record with some bytes changed and its digest mended.
fn mended(changes: &[(usize, u8)]) -> Vec<u8> {
    let mut record = golden();
    for &(at, value) in changes {
        record[at] = value;
    }
    record[56..64].fill(0);
    let digest = fnv(&record).to_le_bytes();
    record[56..64].copy_from_slice(&digest);
    record
}

#[test]
fn damage_is_named_with_its_place() {
    let code = |record: &[u8]| handoff::read(record).map(|_| ()).map_err(|error| error.code());
    assert_eq!(code(&mended(&[])), Ok(()));
    assert_eq!(code(&golden()[..63]), Err(0x0702));
    assert_eq!(code(&golden()[..807]), Err(0x0705));
    assert_eq!(code(&mended(&[(7, b'1')])), Err(0x0703));
    assert_eq!(code(&mended(&[(8, 3)])), Err(0x0704));
    assert_eq!(code(&mended(&[(12, 0)])), Err(0x0706));
    assert_eq!(code(&mended(&[(16, 2)])), Err(0x0706));
    assert_eq!(code(&mended(&[(23, 0xFF), (19, 0xFF)])), Err(0x0706));
    // A region: ways, granularity, coherency, partition, locked, size 0.
    for at in 88..93 {
        let error = handoff::read(&mended(&[(at, 7)])).expect_err("no such code");
        assert_eq!(error, Code::HANDOFF_CODE.at(Place::byte(at)).found(7));
    }
    let error = handoff::read(&mended(&[(83, 0)])).expect_err("size 0");
    assert_eq!(error, Code::HANDOFF_RANGE.at(Place::byte(72)).expected(0x4_0000_0000u64).found(0));
    assert_eq!(error.to_string(), "byte 0x48: base 0x400000000 with size 0x0 is no range");
    // A decoder: component, fate, depth.
    // A decoder's number of its component; a component: kind, depth, one above that is not above;
    // an outcome: what, of what, an error without a number.
    let (component, outcome) = (208 + 160, 208 + 3 * 160);
    let decoder = [(100, 3), (102, 4), (103, 17), (148, 3)];
    let component = [(component + 4, 5), (component + 5, 17), (component + 6, 1)];
    let outcome = [(outcome, 5), (outcome + 1, 5), (outcome, 2)];
    for (at, value) in [&decoder[..], &component, &outcome].concat() {
        let error = handoff::read(&mended(&[(at, value)])).expect_err("no such code");
        assert_eq!(error, Code::HANDOFF_CODE.at(Place::byte(at)).found(value));
    }
}

#[test]
fn any_bit_that_flips_is_noticed() {
    let golden = golden();
    for at in 0..golden.len() {
        for bit in 0..8 {
            let mut record = golden.clone();
            record[at] ^= 1 << bit;
            assert!(handoff::read(&record).is_err(), "byte {at:#x} bit {bit}");
        }
    }
}

#[test]
fn a_buffer_that_is_too_small_is_refused_with_the_size_needed() {
    let mut m = simple();
    let done = committed(&mut m);
    for have in [0, 63, 807] {
        let mut buffer = vec![0xA5; have];
        let result = write(&mut m, &done, CEDT, &mut buffer);
        assert_eq!(result, Err(Code::HANDOFF_NO_ROOM.error().expected(808).found(have)));
        assert!(buffer.iter().all(|byte| *byte == 0xA5));
    }
}
