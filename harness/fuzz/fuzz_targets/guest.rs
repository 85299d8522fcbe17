//! What a guest tells its host: messages at the doorbell, and transfers of the DMA engine.
#![no_main]

use cxl_fuzz::{Script, machine};
use cxl_harness::dma::Memory;
use cxl_harness::guest::engine::{Engine, MOST_ENDED};
use cxl_harness::mirror::{Limits, Mirror, bar_slots};
use cxl_harness::run;
use cxl_image::doorbell::{Call, Message};
use cxl_model::layout::bars_of_buses;
use libfuzzer_sys::fuzz_target;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const LIMITS: Limits = Limits { enabled: true, bytes: u64::MAX, slots: 64, address_bits: 46 };
const RAM: u64 = 0x10_0000;

fuzz_target!(|data: &[u8]| {
    let mut script = Script(data);
    let mut message = Message { kind: u64::from(script.byte() % 16).into(), ..Message::default() };
    message.words.iter_mut().for_each(|word| *word = script.qword().into());
    if let Some(call) = Call::decode(&message) {
        assert_eq!(Call::decode(&call.encode()), Some(call));
    }
    let mut machine = machine(script.byte());
    run::direct(&mut machine);
    let mirror = Mirror::follow(&mut machine, &LIMITS);
    let bars = bar_slots(&machine, &LIMITS, mirror.slots.len());
    let Some(mut engine) = Engine::of(&machine) else { return };
    let registers = bars_of_buses(machine.map().ecam[0].0, 0, 0).base().0;
    let ram = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap();
    let windows = machine.map().windows.clone();
    let address = |script: &mut Script<'_>| match script.byte() {
        0 => script.qword(),
        kind @ 1..=127 => u64::from(kind) << 12 | u64::from(script.byte()),
        kind => {
            let window = windows.get(usize::from(kind) % windows.len().max(1)).copied().flatten();
            window.map_or(0u64, |base| base.0).wrapping_add(script.dword().into())
        }
    };
    while !script.is_over() {
        match script.byte() % 4 {
            0 => {
                let (at, list) =
                    (address(&mut script), [address(&mut script), address(&mut script)]);
                let list = [list[0], list[1], script.dword().into(), 0];
                let at = GuestAddress(at % (RAM - 64));
                let _ = ram.write_slice(&list.map(u64::to_le_bytes).concat(), at);
            }
            1 => engine.write(address(&mut script), script.bytes(4)),
            2 => {
                let at = registers + u64::from(script.byte()) * 4;
                engine.write(at, &(address(&mut script) as u32).to_le_bytes());
            }
            _ => {}
        }
        let mut memory =
            Memory { ram: &ram, machine: &mut machine, mirror: &mirror, bar_slots: &bars };
        engine.step(&mut memory);
        let mut word = [0; 4];
        engine.read(registers + u64::from(script.byte()) * 4, &mut word);
    }
    assert!(engine.ended.iter().count() <= MOST_ENDED);
});
