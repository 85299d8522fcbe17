//! Writes of registers that share a dword. Values and masks are typed by hand.

use std::collections::BTreeMap;

use cxl_firmware::config::{beside, write};
use cxl_firmware::mmio::{Block, Clock, Mmio};
use cxl_regs::config::{BridgeHeader, Command, EndpointHeader, MemoryLimit};
use cxl_regs::dvsec::device::{Control, Control2, DeviceDvsec, Lock};
use cxl_regs::hdm::GlobalControl;
use proptest::prelude::*;

struct Dwords(BTreeMap<u64, u32>);

impl Mmio for Dwords {
    fn read(&mut self, address: u64) -> u32 {
        self.0[&address]
    }
    fn write(&mut self, address: u64, value: u32) {
        self.0.insert(address, value);
    }
}

#[test]
fn neighbours_are_written_back_and_their_clear_bits_are_written_0() {
    // Command beside a status with all its error bits set.
    let command = Command::new().with_memory_space(true);
    assert_eq!(beside(EndpointHeader::REGISTERS, 0xf910_0004, command), 0x0010_0002);
    // DVSEC control beside a status with Viral.
    let control = Control::new().with_mem_enable(true);
    assert_eq!(beside(DeviceDvsec::REGISTERS, 0x4000_0002, control), 0x0000_0004);
    // Control2 beside status2 with Volatile HDM Preservation Error.
    let control2 = Control2::new().with_disable_caching(true);
    assert_eq!(beside(DeviceDvsec::REGISTERS, 0x800a_0000, control2), 0x8002_0001);
    // The lock beside a read-only neighbour.
    let lock = Lock::new().with_config_lock(true);
    assert_eq!(beside(DeviceDvsec::REGISTERS, 0x1234_0000, lock), 0x1234_0001);
    // The upper half: the window's base stays.
    let limit = MemoryLimit::new().with_address(0xabc);
    assert_eq!(beside(BridgeHeader::REGISTERS, 0x0000_1230, limit), 0xabc0_1230);
}

#[test]
fn a_register_that_fills_its_dword_is_written_as_it_is() {
    let value = GlobalControl::new().with_decoder_enable(true);
    assert_eq!(beside(&[], u32::MAX, value), 2);
}

#[test]
fn a_write_reads_the_dword_and_writes_it_once() {
    let mut hw = Dwords(BTreeMap::from([(0x10c, 0x4000_0002)]));
    let control = Control::new().with_io_enable(true).with_mem_enable(true);
    write(&mut hw, Block(0x100), DeviceDvsec::REGISTERS, control);
    assert_eq!(hw.0, BTreeMap::from([(0x10c, 0x0000_0006)]));
}

#[test]
fn a_register_of_64_bits_is_two_dwords_where_nobody_says_otherwise() {
    let mut hw = Dwords(BTreeMap::new());
    hw.write_qword(0x100, 0x1122_3344_5566_7788);
    assert_eq!(hw.0, BTreeMap::from([(0x100, 0x5566_7788), (0x104, 0x1122_3344)]));
}

/// Hardware and a clock that tell who was asked.
struct Told(Vec<&'static str>);

impl Mmio for Told {
    fn read(&mut self, _: u64) -> u32 {
        self.0.push("read");
        0xA5
    }
    fn write(&mut self, _: u64, _: u32) {
        self.0.push("write");
    }
    fn write_qword(&mut self, _: u64, _: u64) {
        self.0.push("write_qword");
    }
}

impl Clock for Told {
    fn microseconds(&mut self) -> u64 {
        self.0.push("microseconds");
        0x5A
    }
}

#[test]
fn a_reference_to_hardware_or_a_clock_is_the_same_hardware_and_clock() {
    fn ask(mut hw: impl Mmio + Clock) -> (u32, u64) {
        hw.write(0, 1);
        hw.write_qword(0, 1);
        (hw.read(0), hw.microseconds())
    }
    let mut told = Told(vec![]);
    assert_eq!(ask(&mut told), (0xA5, 0x5A));
    assert_eq!(told.0, ["write", "write_qword", "read", "microseconds"]);
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_command_write_changes_no_status_bit(dword: u32, command: u16) {
        let written = beside(EndpointHeader::REGISTERS, dword, Command::from_bits(command));
        prop_assert_eq!(written as u16, command);
        // Detected Parity Error down to Master Data Parity Error clear on 1.
        prop_assert_eq!(written & 0xf900_0000, 0);
    }
}
