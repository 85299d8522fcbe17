//! The hand-off record: golden bytes, the round trip, and every kind of damage.
//!
//! **Invariant**: the golden record is typed by hand from the layout in the module's documentation;
//! digests are computed here by a second implementation.

mod scripted;

use cxl_firmware::commit::{Receipt, commit};
use cxl_firmware::committed::{Committed, Fate};
use cxl_firmware::error::{Code, Place};
use cxl_firmware::handoff::{self, TableLocation};
use cxl_firmware::policy::Policy;
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

const CEDT: Option<TableLocation> = Some(TableLocation { address: 0x7_FE00_1000, size: 0xB8 });

#[rustfmt::skip]
fn golden() -> Vec<u8> {
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

#[test]
fn the_record_is_laid_out_as_documented() {
    let mut m = simple();
    let done = committed(&mut m);
    let mut buffer = [0xA5; 512];
    let record = handoff::write(m.topology.tree(), &done, CEDT, &mut buffer).expect("a record");
    assert_eq!(*record, *golden());
}

#[test]
fn what_was_written_is_read() {
    let mut m = switched();
    let mut done = committed(&mut m);
    done.decoders[3].fate = Fate::Stranded;
    let mut buffer = [0xA5; 2048];
    for cedt in [CEDT, None] {
        handoff::write(m.topology.tree(), &done, cedt, &mut buffer).expect("a record");
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
    let mut buffer = [0; 512];
    let record = handoff::write(m.topology.tree(), &done, None, &mut buffer).expect("a record");
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
    assert_eq!(code(&golden()[..207]), Err(0x0705));
    assert_eq!(code(&mended(&[(7, b'1')])), Err(0x0703));
    assert_eq!(code(&mended(&[(8, 2)])), Err(0x0704));
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
    for (at, value) in [(100, 3), (102, 4), (103, 17)] {
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
    for have in [0, 63, 207] {
        let mut buffer = vec![0xA5; have];
        let result = handoff::write(m.topology.tree(), &done, CEDT, &mut buffer);
        assert_eq!(result, Err(Code::HANDOFF_NO_ROOM.error().expected(208).found(have)));
        assert!(buffer.iter().all(|byte| *byte == 0xA5));
    }
}
