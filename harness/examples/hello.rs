//! scratch
use cxl_harness::kvm::*;
use std::sync::Arc;
struct B;
impl Bus for B {
    fn read(&mut self, a: u64, d: &mut [u8]) { eprintln!("read {a:#x} {}", d.len()); }
    fn write(&mut self, a: u64, d: &[u8]) { eprintln!("write {a:#x} {d:x?}"); }
    fn slots(&mut self) -> Option<Vec<Slot>> { None }
    fn console(&mut self, b: &[u8]) { print!("{}", String::from_utf8_lossy(b)); }
    fn doorbell(&mut self, _: u32, _: &vm_memory::GuestMemoryMmap) -> Signal { Signal::Continue }
}
fn main() {
    let image = std::fs::read(std::env::args().nth(1).unwrap()).unwrap();
    for (entry, line) in [(Entry::Ring3, "a"), (Entry::Pvh, "quiet"), (Entry::Pvh, "x ring3")] {
        let t = std::time::Instant::now();
        let mut vm = Vm::new(&[(0, 1 << 30)]).unwrap();
        vm.boot(&Boot { image: &image, entry, command_line: line, acpi: &[], rsdp: 0 }).unwrap();
        let end = vm.run(&mut B, &Limits { timeout: std::time::Duration::from_secs(3), interrupted: Arc::default() });
        match end { End::Failed(f) => println!("{f}"), e => println!("{e:?}") }
        println!("{:?}", t.elapsed());
    }
}
