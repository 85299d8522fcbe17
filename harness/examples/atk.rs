//! scratch
use cxl_harness::{
    attack,
    guest::boot::*,
    machine::Machine,
    run,
    scenario::{Scenario, builtin},
};
fn main() {
    let name = std::env::args().nth(1).unwrap();
    let s = Scenario::parse(builtin(&name).unwrap().text, "x").unwrap();
    let mut m = Machine::new(&s);
    let t = std::time::Instant::now();
    let done = run::direct(&mut m);
    let a = attack::direct(&mut m, &done);
    println!("{a}\n{:?}", t.elapsed());
    let mut m = Machine::new(&s);
    let t = std::time::Instant::now();
    let r = boot(
        &mut m,
        &Options {
            payload: "attack",
            timeout: std::time::Duration::from_secs(60),
            ..Options::default()
        },
    )
    .unwrap();
    println!("{:?} {:?} {:?}", r.end, r.counts, t.elapsed());
    println!("same: {:?}", r.attack.as_ref() == Some(&a));
    let b = r.attack.unwrap();
    println!("{} {} {} {}", b.tried, b.held, b.allowed, b.changed);
}
