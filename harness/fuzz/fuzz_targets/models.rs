//! A machine under accesses of any kind, resets and hot-plug: no two slots overlap, and each slot's
//! bytes are those that the machine decodes.
#![no_main]

use cxl_fuzz::{Script, machine};
use cxl_harness::mirror::{Limits, Mirror};
use cxl_harness::run;
use cxl_model::device::Reset;
use cxl_model::machine::Machine;
use cxl_regs::mmio::Mmio;
use libfuzzer_sys::fuzz_target;
use vm_memory::{Bytes, VolatileMemory};

const LIMITS: Limits = Limits { enabled: true, bytes: u64::MAX, slots: 64, address_bits: 46 };
const RESETS: [Reset; 5] = [Reset::Cold, Reset::Warm, Reset::Hot, Reset::Cxl, Reset::Flr];
/// Offset of the HDM structure in every component block of the machine.
const HDM: u64 = 0x1128;

fuzz_target!(|data: &[u8]| {
    let mut script = Script(data);
    let mut machine = machine(script.byte());
    if script.byte() & 1 == 0 {
        run::direct(&mut machine);
    }
    for _ in 0..64 {
        if script.is_over() {
            break;
        }
        step(&mut machine, &mut script);
        judge(&mut machine, &mut script);
    }
});

fn step(machine: &mut Machine, script: &mut Script<'_>) {
    let places = machine.places();
    let place = *script.one_of(&places);
    let registers = machine.registers_of(place).unwrap_or(0);
    match script.byte() % 12 {
        // Values that decoders may have come oftener than chance would have it.
        0..=2 => {
            let (decoder, dword) = (u64::from(script.byte() % 4), u64::from(script.byte() % 8));
            let value = match script.byte() {
                kind @ 0..=63 => u32::from(kind) << 28,
                kind @ 64..=95 => 0x0200 | u32::from(kind & 7) << 10 | u32::from(script.byte()),
                _ => script.dword(),
            };
            machine.write(registers + HDM + 0x10 + 0x20 * decoder + 4 * dword, value);
        }
        3 => machine.write(registers + HDM + 4, script.byte().into()),
        4 => machine.write(registers + u64::from(script.word() & 0xFFFC), script.dword()),
        5 | 6 => {
            if let Some(config) = machine.config_of(place) {
                let at = config + u64::from(script.word() & 0xFFF);
                let length = 1 << (script.byte() % 4);
                machine.write_bytes(at, script.bytes(length));
            }
        }
        7 => machine.reset(*script.one_of(&RESETS)),
        8 => machine.reset_device(script.byte().into(), *script.one_of(&RESETS)),
        9 => drop(machine.hot_remove(script.byte().into())),
        10 => drop(machine.hot_add(script.byte().into())),
        _ => {
            let (at, length) = (script.qword(), usize::from(script.byte() % 65));
            machine.write_bytes(at, script.bytes(length));
            machine.read_bytes(at, &mut vec![0; length]);
        }
    }
}

fn judge(machine: &mut Machine, script: &mut Script<'_>) {
    let mirror = Mirror::follow(machine, &LIMITS);
    for pair in mirror.slots.windows(2) {
        assert!(pair[0].base + pair[0].size <= pair[1].base, "{pair:?}");
    }
    let pick = u64::from(script.word());
    for slot in &mirror.slots {
        let span = (slot.base, slot.size);
        let fixed =
            machine.map().fixed().any(|f| f.base().0 < span.0 + span.1 && span.0 <= f.last().0);
        assert!(!fixed, "{span:x?} lies over RAM or registers");
        let last = slot.size - 8;
        for at in [0, last, 0x100 * pick % slot.size, slot.size / 0x10000 * pick] {
            let (at, mark) = (at.min(last) & !7, pick << 32 | at ^ slot.base);
            let bytes = slot.memory.get_slice((slot.offset + at) as usize, 8).unwrap();
            bytes.write_slice(&mark.to_le_bytes(), 0).unwrap();
            let mut seen = [0; 8];
            machine.load(slot.base + at, &mut seen);
            assert_eq!(u64::from_le_bytes(seen), mark, "{:#x}", slot.base + at);
        }
    }
}
