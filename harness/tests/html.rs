//! Pages as their readers have them: in a browser, at three widths, light and dark, on paper, by
//! keyboard and by a screen reader's tree; and their arithmetic held against the registers' own decode.
//!
//! **Invariant**: pages are written by the program that users run. Without a Chromium the trials are
//! shown as ignored; what is judged is what the browser computed, never the text of a page.

#![allow(clippy::unwrap_used, reason = "the helpers of tests may fail as the tests may")]

mod browser;
mod program;
#[allow(dead_code, reason = "another test program needs the rest")]
#[path = "collect/stand_in.rs"]
mod stand_in;
mod trial;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use browser::Browser;
use cxl_harness::html;
use cxl_harness::linux::Verdict;
use cxl_harness::run;
use cxl_model::fabric::Fabric;
use cxl_model::machine::Machine;
use cxl_model::mapping::{self, Reach};
use cxl_model::scenario::{Scenario, builtin};
use cxl_regs::{Dpa, Hpa};
use program::{Folder, command, ran};
use serde_json::{Value, json};
use stand_in::{SERIAL, StandIn};
use trial::{claim, unless};

/// The widths of a telephone, a tablet and a desktop.
const WIDTHS: [u32; 3] = [360, 820, 1440];
/// No page is larger, whatever it is of.
const MOST_BYTES: usize = 1 << 20;

/// Two ways of 6 and 12 that no built-in has: XOR beside a division by three.
fn xor_with_three(ways: usize) -> String {
    let list = |item: &dyn Fn(usize) -> String| (0..ways).map(item).collect::<Vec<_>>().join(",\n");
    let maps = if ways == 6 { r#""0x110100""# } else { r#""0x110100", "0x220200""# };
    format!(
        "description = \"{ways}-way with XOR\"\nbridge = [{}]\nport = [{}]\ndevice = [{}]\n[policy]\n\
         interleave = \"widest\"\n[[window]]\ntargets = [{}]\ngranularity = \"256\"\narithmetic = \
         \"xor\"\nxor_maps = [{maps}]\nsize = \"{}MiB\"\n",
        list(&|n| format!("{{ name = \"hb{n}\", uid = {} }}", 8 + 8 * n)),
        list(&|n| format!("{{ name = \"rp{n}\", below = \"hb{n}\" }}")),
        list(&|n| format!("{{ name = \"mem{n}\", below = \"rp{n}\", volatile = \"256MiB\" }}")),
        list(&|n| format!("\"hb{n}\"")),
        256 * ways,
    )
}

/// A page that the program writes, with the exit code that it has to come with.
fn page(folder: &Folder, name: &str, words: &[&str], code: i32) -> PathBuf {
    let file = folder.name(&format!("{name}.html"));
    let (output, complaint, found) = ran(command(words).args(["--html", &file]));
    assert_eq!(found, code, "{words:?}: {output}{complaint}");
    let path = PathBuf::from(file);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(bytes.len() < MOST_BYTES, "{name} has {} bytes", bytes.len());
    path
}

/// What is wrong with a page as it is shown now: what is wider than the window, text without contrast,
/// text over something else, and what has no name.
const FAULTS: &str = r#"(() => {
  const faults = [];
  const say = (what) => { if (faults.length < 12) faults.push(what); };
  const wide = document.documentElement;
  if (wide.scrollWidth > wide.clientWidth) {
    say(`the page is ${wide.scrollWidth} wide in ${wide.clientWidth}`);
  }
  const parse = (text) => {
    const parts = text.match(/[\d.]+/g).map(Number);
    return { r: parts[0], g: parts[1], b: parts[2], a: parts[3] === undefined ? 1 : parts[3] };
  };
  const over = (top, below) => ({
    r: top.r * top.a + below.r * (1 - top.a), g: top.g * top.a + below.g * (1 - top.a),
    b: top.b * top.a + below.b * (1 - top.a), a: 1,
  });
  const light = ({ r, g, b }) => [r, g, b].map((value) => value / 255)
    .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, at) => sum + value * [0.2126, 0.7152, 0.0722][at], 0);
  const contrast = (one, other) => {
    const [a, b] = [light(one), light(other)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const ground = (element) => {
    let found = { r: 0, g: 0, b: 0, a: 0 };
    for (let at = element; at; at = at.parentElement) {
      const below = parse(getComputedStyle(at).backgroundColor);
      if (found.a < 1 && below.a > 0) found = found.a > 0 ? over(found, below) : below;
      if (found.a >= 1) return found;
    }
    return over(found, { r: 255, g: 255, b: 255, a: 1 });
  };
  let seen = 0;
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = texts.nextNode(); node; node = texts.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility()) continue;
    if (element.closest("svg, script, style, noscript, title") || element.classList.contains("skip")) continue;
    seen += 1;
    const style = getComputedStyle(element);
    const found = contrast(parse(style.color), ground(element));
    if (found < 4.5) {
      say(`"${node.data.trim().slice(0, 40)}" has contrast ${found.toFixed(2)}: ${style.color}`);
    }
  }
  for (const picture of document.querySelectorAll("svg.cxlmap")) {
    const frame = picture.getBoundingClientRect();
    const shapes = [...picture.querySelectorAll("rect, path, text")].filter((shape) => !shape.closest("defs"));
    const boxes = shapes.map((shape) => shape.getBoundingClientRect());
    const within = (x, y, box) => x > box.left && x < box.right && y > box.top && y < box.bottom;
    shapes.forEach((text, at) => {
      if (text.tagName !== "text") return;
      seen += 1;
      const box = boxes[at];
      const words = text.textContent;
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1) {
        say(`"${words}" leaves the picture`);
      }
      const ink = parse(getComputedStyle(text).fill);
      const [middle, height] = [(box.left + box.right) / 2, (box.top + box.bottom) / 2];
      let under = { r: 255, g: 255, b: 255, a: 1 };
      shapes.forEach((shape, other) => {
        const there = boxes[other];
        if (shape.tagName === "text") {
          const apart = there.right < box.left + 1 || there.left > box.right - 1
            || there.bottom < box.top + 4 || there.top > box.bottom - 4;
          if (other > at && !apart) say(`"${words}" lies over "${shape.textContent}"`);
          return;
        }
        const fill = getComputedStyle(shape).fill;
        if (fill === "none") return;
        const touches = there.right > box.left && there.left < box.right
          && there.bottom > box.top + 3 && there.top < box.bottom - 3;
        if (touches && (fill.includes("url") || shape.hasAttribute("fill-opacity"))) say(`"${words}" lies on a mark`);
        if (other < at && shape.tagName === "rect" && !fill.includes("url") && within(middle, height, there)) under = parse(fill);
      });
      const found = contrast(ink, under);
      if (found < 4.5) say(`"${words}" has contrast ${found.toFixed(2)} in the picture`);
    });
  }
  if (seen < 8) say(`only ${seen} pieces of text`);
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  ids.filter((id, at) => ids.indexOf(id) !== at).forEach((id) => say(`two elements are called ${id}`));
  for (const used of document.querySelectorAll("use, [aria-labelledby], a[href^='#'], label")) {
    const to = (used.getAttribute("href") || "").slice(1) || used.getAttribute("aria-labelledby") || used.htmlFor;
    if (!document.getElementById(to)) say(`nothing is called ${to}`);
  }
  const levels = [...document.querySelectorAll("h1, h2, h3, h4")].map((head) => Number(head.tagName[1]));
  if (levels[0] !== 1 || levels.filter((level) => level === 1).length !== 1) say(`headings ${levels.slice(0, 5)}`);
  for (const table of document.querySelectorAll("table")) {
    if (!table.caption && !table.getAttribute("aria-label")) say("a table has no caption");
    if (table.querySelector("th:not([scope])")) say("a head of a table has no scope");
  }
  for (const place of ["header", "nav", "main", "footer"]) {
    if (document.querySelectorAll(`body > ${place}`).length !== 1) say(`there is not one ${place}`);
  }
  return faults;
})()"#;

/// What nobody could call in the tree that a screen reader has.
fn nameless(browser: &Browser) -> Vec<String> {
    let tree = browser.call("Accessibility.getFullAXTree", json!({}));
    let asked =
        ["link", "button", "textbox", "combobox", "grid", "gridcell", "region", "image", "heading"];
    let asked = |node: &&Value| {
        let role = node["role"]["value"].as_str().unwrap_or_default();
        node["ignored"] == false && asked.contains(&role)
    };
    let nodes: Vec<&Value> = tree["nodes"].as_array().unwrap().iter().filter(asked).collect();
    assert!(nodes.len() > 4, "a tree of {} nodes", nodes.len());
    let nameless = nodes
        .into_iter()
        .filter(|node| node["name"]["value"].as_str().is_none_or(|name| name.trim().is_empty()));
    nameless.map(|node| node["role"]["value"].to_string()).collect()
}

/// A page at every width and in both schemes, and on paper.
fn is_good(browser: &Browser, page: &Path) {
    let name = page.file_name().unwrap().display();
    for scheme in ["light", "dark"] {
        browser.media("screen", scheme);
        browser.resize(1440, 900);
        browser.open(page);
        for width in WIDTHS {
            browser.resize(width, 900);
            let faults = browser.evaluate(FAULTS);
            assert_eq!(faults, json!([]), "{name}, {scheme}, {width} wide");
        }
        kept(browser, page, scheme);
    }
    assert_eq!(nameless(browser), [""; 0], "{name}");
    // Paper is white, whatever the screen was.
    browser.media("print", "dark");
    browser.resize(760, 1060);
    assert_eq!(browser.evaluate(FAULTS), json!([]), "{name}, on paper");
    let ground = browser.evaluate("getComputedStyle(document.body).backgroundColor");
    assert_eq!(ground, "rgb(255, 255, 255)", "{name}, on paper");
    browser.media("screen", "light");
    let printed = browser.print();
    assert!(printed.starts_with(b"%PDF") && printed.len() > 10_000, "{name}: {}", printed.len());
    assert_eq!(browser.complaints(), [""; 0], "{name}");
}

/// Pictures for people to look at, where `HTML_PICTURES` names a folder.
fn kept(browser: &Browser, page: &Path, scheme: &str) {
    let Some(folder) = std::env::var_os("HTML_PICTURES") else { return };
    let name = page.file_stem().unwrap().display().to_string();
    for width in [360, 1440] {
        browser.resize(width, 900);
        let file = Path::new(&folder).join(format!("{name}-{scheme}-{width}.png"));
        std::fs::write(file, browser.picture(true)).unwrap();
    }
    std::fs::copy(page, Path::new(&folder).join(format!("{name}.html"))).unwrap();
}

fn runs_are_good() {
    let (folder, browser) = (Folder::new(), Browser::start());
    for (name, code) in [
        ("default", 0),
        ("sixteen-way", 0),
        ("switch-interleave", 0),
        ("two-partitions", 0),
        ("unlocked", 0),
        ("no-window", 1),
        ("dead-device", 1),
    ] {
        is_good(&browser, &page(&folder, name, &["boot", "--direct", name], code));
    }
}

fn attacks_are_good() {
    let (folder, browser) = (Folder::new(), Browser::start());
    let held = page(&folder, "held", &["attack", "one-device", "--direct"], 0);
    is_good(&browser, &held);
    let leaks = "[...document.querySelectorAll('.heat td.c')].length";
    assert_eq!(browser.evaluate(leaks), 0);
    let leaked = page(&folder, "leaked", &["attack", "lock-not-enforced", "--direct"], 1);
    is_good(&browser, &leaked);
    // A leak is seen without reading: a block of its own colour, a cross in it, its group first.
    let found = browser.evaluate(
        "(() => { const cell = document.querySelector('.heat td.c'); const held = \
         document.querySelector('.heat td.h'); const style = getComputedStyle(cell); return [ \
         document.querySelectorAll('.heat td.c').length > 0, cell.textContent.startsWith('✕ '), \
         style.backgroundColor !== getComputedStyle(held).backgroundColor, \
         document.querySelector('.heat tbody').contains(cell), \
         cell.getAttribute('aria-label').endsWith(' changed') ]; })()",
    );
    assert_eq!(found, json!([true, true, true, true, true]));
}

fn other_pages_are_good() {
    let (folder, browser) = (Folder::new(), Browser::start());
    let linted = page(&folder, "lint", &["lint", "pass-through"], 1);
    is_good(&browser, &linted);
    // What nobody gave is not said to be registers, or nothing.
    let run = page(&folder, "run", &["boot", "--direct", "two-way"], 0);
    let has = |page: &Path, words| std::fs::read_to_string(page).unwrap().contains(words);
    assert!(has(&run, " of registers, or of nothing") && !has(&run, "RAM was not given"));
    assert!(has(&linted, " in no window; RAM was not given") && !has(&linted, "or of nothing"));
    // Whoever comes to a register by its heading knows whose it is.
    browser.open(&run);
    let whose = "[...document.querySelectorAll('.register h3')].map((head) => head.textContent)\
                 .filter((head) => !/^(hb|mem)[01] /.test(head)).concat(\
                 document.querySelectorAll('.register h3').length > 8)";
    assert_eq!(browser.evaluate(whose), json!([true]));
    for (name, into) in [("two-way", "old"), ("unlocked", "new")] {
        let (_, complaint, code) = ran(&mut command(&["dump", name, &folder.name(into)]));
        assert_eq!(code, 0, "{complaint}");
    }
    let [old, new] = ["old/mem0.bin", "new/mem0.bin"].map(|name| folder.name(name));
    is_good(&browser, &page(&folder, "diff", &["decode", "--diff", &old, &new], 1));
    let [old, new] = ["old/mem0.lspci", "new/mem0.lspci"].map(|name| folder.name(name));
    is_good(&browser, &page(&folder, "config", &["decode", "--diff", &old, &new], 1));
    let refused =
        Verdict::refused("two-way", Some("6.12"), "the kernel <b>panicked</b>".to_owned());
    let seen = cxl_harness::report::Seen::of(fabric("two-way"));
    let file = folder.path("linux.html");
    let told = html::of_linux(&refused, Some(&seen), "cxl-harness linux two-way").to_string();
    std::fs::write(&file, told).unwrap();
    is_good(&browser, &file);
}

/// A refusal is where it is in the whole path: by word, shape and colour, and linked from the top.
fn refusals_are_in_their_place() {
    let (folder, browser) = (Folder::new(), Browser::start());
    // The name, the decoder, and what is said there.
    for (name, at, decoder, why) in [
        ("no-window", "mem0", Value::Null, "no window targets bridge 16"),
        ("too-few-decoders", "mem1", Value::Null, "the only usable decoder of bridge 16 is taken"),
        ("dead-device", "mem0", Value::Null, "device capability 1 reads as all-ones"),
        ("commit-error", "mem0", json!("decoder 0"), "the hardware refused the commit"),
        ("lock-lost", "hb0", json!("decoder 0"), "not locked"),
        ("no-such-target", "window0", Value::Null, "is the UID of no bridge"),
    ] {
        let told = page(&folder, name, &["boot", "--direct", name], 1);
        is_good(&browser, &told);
        let marks =
            browser.evaluate("document.querySelector('header').innerText.split('`').length");
        assert_eq!(marks, 1, "{name}: what is to be typed is set off as such");
        let found = browser.evaluate(
            "(() => { const all = document.querySelectorAll('.tree .node.stopped, tr.stopped'); const \
             [at] = all; const room = at.querySelector('.room.stopped'); const link = \
             document.querySelector('.alarm a'); const loss = at.querySelector('.loss'); return [ \
             document.querySelectorAll('.legend .stopped').length, all.length, at.querySelector('b, th').firstChild.textContent, room && \
             room.textContent.trim().split(':')[0], loss.textContent, link.textContent, \
             link.getAttribute('href') === '#' + at.id, loss.querySelector('svg use') !== null, \
             getComputedStyle(at.querySelector('th') || at).borderTopStyle ]; })()",
        );
        let said = found[4].as_str().unwrap();
        assert!(said.starts_with("refused here: ") && said.contains(why), "{name}: {found}");
        let rest = json!([1, 1, at, decoder, said, at, true, true, "double"]);
        assert_eq!(found, rest, "{name}");
    }
    // What was not refused has none.
    browser.open(&page(&folder, "good", &["boot", "--direct", "two-way"], 0));
    assert_eq!(browser.evaluate("document.querySelectorAll('.stopped, .alarm').length"), 0);
}

/// A machine that was collected, whole and with a gap, and inspected elsewhere.
fn collected_machines_are_good() {
    let (folder, browser) = (Folder::new(), Browser::start());
    let stand_in = StandIn::of(builtin("switch-interleave").unwrap().text);
    let (root, bundle) = (stand_in.root(), folder.name("machine.tar"));
    let told = page(&folder, "collect", &["collect", "--anonymous", "--root", &root, &bundle], 0);
    is_good(&browser, &told);
    let text = std::fs::read_to_string(&told).unwrap();
    assert!(!text.contains(&format!("{SERIAL:x}")), "an anonymous page has a serial number");
    let told = page(&folder, "inspect", &["inspect", &bundle, "--require", "sealed"], 0);
    is_good(&browser, &told);
    // Bridges, ports, switches and devices in the table and in the path; each decoder in use is sealed.
    let counts = "[document.querySelectorAll('#components tbody tr').length, \
                  document.querySelectorAll('.tree .node').length, \
                  document.querySelectorAll('.tree .room.sealed').length, \
                  document.querySelectorAll('.alarm, #withheld').length, \
                  document.querySelector('.verdict').textContent.trim()]";
    let words = "✓ locked: yes; sealed: yes; Linux refuses nothing";
    assert_eq!(browser.evaluate(counts), json!([14, 14, 8, 0, words]));

    std::fs::remove_file(stand_in.path("dev/mem")).unwrap();
    let bundle = folder.name("gap.tar");
    is_good(&browser, &page(&folder, "withheld", &["collect", "--root", &root, &bundle], 1));
    let told = page(&folder, "gap", &["inspect", &bundle, "--require", "locked"], 1);
    is_good(&browser, &told);
    let told = "[document.querySelector('.verdict').textContent.trim(), \
                document.querySelector('.alarm').textContent.trim(), \
                [...document.querySelectorAll('#withheld tbody th')].map((cell) => cell.textContent)]";
    let told = browser.evaluate(told);
    assert!(told[0].as_str().unwrap().starts_with("✕ locked: nobody can say"), "{told}");
    assert_eq!(told[1], "✕ Required, and not met: locked");
    let mut withheld = told[2].as_array().unwrap().iter();
    let of_hb0 = |what: &Value| what.as_str().unwrap().starts_with("registers of hb0, at 0x");
    assert!(withheld.any(of_hb0), "{told}");
    // That nobody read its registers is not that it has no decoders.
    let hb0 = browser.evaluate("document.querySelector('.tree .node').textContent");
    let hb0 = hb0.as_str().unwrap();
    assert!(hb0.starts_with("hb0 ") && hb0.ends_with("registers not given"), "{hb0}");
}

/// What a scenario, a file's name and a table say stays text.
fn nothing_gets_out_of_its_text() {
    let (folder, browser) = (Folder::new(), Browser::start());
    let hostile =
        "\\\"><img src=x onerror=alert(1)></script><script>alert(2)</script>&amp;\\u001B[2J";
    let scenario = builtin("two-way").unwrap().text;
    let line = format!("description = \"{hostile}\"\n");
    let scenario: String = scenario
        .lines()
        .map(|old| if old.starts_with("description") { line.clone() } else { format!("{old}\n") })
        .collect();
    let scenario = scenario.replace("mem0", "<svg-onload=alert`3`>");
    let file = folder.file("<img src=x>.toml", &scenario);
    let (_, complaint, code) = ran(&mut command(&["boot", "--direct", &file]));
    // Names may be whatever the scenario's own rules let through.
    let scenario = match code {
        0 => scenario,
        _ => {
            assert!(complaint.contains("name"), "{complaint}");
            scenario.replace("<svg-onload=alert`3`>", "mem0")
        }
    };
    let file = folder.file("<img src=x>.toml", &scenario);
    let told = page(&folder, "hostile", &["boot", "--direct", &file], 0);
    browser.open(&told);
    let counts = "[document.images.length, document.scripts.length, document.querySelectorAll('style').length]";
    assert_eq!(browser.evaluate(counts), json!([0, 1, 2]));
    let lead = browser.evaluate("document.querySelector('.lead').textContent");
    assert!(lead.as_str().unwrap().starts_with("\"><img src=x onerror=alert(1)>"), "{lead}");
    let made = browser.evaluate("document.querySelector('.made code').textContent");
    assert!(made.as_str().unwrap().contains("<img src=x>.toml"), "{made}");
    assert_eq!(browser.complaints(), [""; 0]);
}

/// Every stop of the keyboard is reached, seen, and left again; arrows go through grids.
fn a_keyboard_reaches_everything() {
    let (folder, browser) = (Folder::new(), Browser::start());
    let told = page(&folder, "keys", &["attack", "xor-four-way", "--direct"], 0);
    browser.resize(1440, 900);
    browser.open(&told);
    let here = "(() => { const at = document.activeElement; if (at === document.body) return null; const \
                style = getComputedStyle(at); return [at.tagName, at.id || at.className || \
                at.textContent.slice(0, 20), style.outlineStyle !== 'none' && \
                parseFloat(style.outlineWidth) >= 2]; })()";
    let expected = "[...document.querySelectorAll('a[href], button, input, select, summary, \
                    [tabindex=\"0\"]')].filter((stop) => stop.checkVisibility()).length";
    let expected = browser.evaluate(expected).as_u64().unwrap() as usize;
    let mut stops = Vec::new();
    for _ in 0..expected + 4 {
        browser.press("Tab");
        let at = browser.evaluate(here);
        if at.is_null() {
            break;
        }
        assert_eq!(at[2], true, "{at} is not seen to have the keyboard");
        stops.push(at);
    }
    assert_eq!(stops.len(), expected, "{stops:?}");
    assert_eq!(stops[0][1], "skip");
    for wanted in ["hpa", "device", "dpa"] {
        assert!(stops.iter().any(|stop| stop[1] == wanted), "{wanted} in {stops:?}");
    }
    // Two grids are two stops, however many cells they have.
    assert_eq!(stops.iter().filter(|stop| stop[0] == "TD").count(), 2, "{stops:?}");

    browser.evaluate("document.querySelector('.heat td').focus()");
    let cell = "document.activeElement.getAttribute('aria-label')";
    let first = browser.evaluate(cell);
    browser.press("ArrowRight");
    browser.press("ArrowDown");
    let next = browser.evaluate(cell);
    assert!(next.is_string() && next != first, "{first} and {next}");
    let detail = "document.querySelector('#heat-detail').checkVisibility() && \
                  document.querySelector('#heat-detail').textContent.includes(document.activeElement\
                  .getAttribute('aria-label'))";
    assert_eq!(browser.evaluate(detail), true);
    browser.press("Home");
    browser.press("ArrowUp");
    assert_eq!(browser.evaluate(cell), first);

    // A granule under the keyboard is the address above.
    browser.evaluate("document.querySelector('.granules td').focus()");
    for _ in 0..3 {
        browser.press("ArrowRight");
    }
    browser.press("ArrowDown");
    let asked = browser.evaluate("document.querySelector('#hpa').value");
    let cell = browser.evaluate("document.activeElement.textContent");
    let answer = browser.evaluate("document.querySelector('#forwards-out .answer').textContent");
    let fabric = fabric("xor-four-way");
    let hpa = number(&asked);
    assert_eq!(hpa & 0xFFF, 7 * 0x100);
    let path = mapping::resolve(&fabric, Hpa(hpa)).unwrap();
    let device = &fabric.devices[path.endpoint.device].name;
    let dpa = format!("{:#x}", path.dpa.0);
    for words in [&cell, &answer] {
        let words = words.as_str().unwrap();
        assert!(words.contains(device) && words.contains(&dpa), "{words}: {device} {dpa}");
    }

    // The way of a range, by a key.
    browser.evaluate("document.querySelector('.follow button').focus()");
    browser.press("Enter");
    let way = "[document.querySelector('.follow button').getAttribute('aria-pressed'), \
               document.querySelectorAll('.node.way').length, document.querySelectorAll('.room.way').length]";
    assert_eq!(browser.evaluate(way), json!(["true", 12, 8]));
}

fn fabric(name: &str) -> Fabric {
    of_text(builtin(name).unwrap().text, name)
}

fn of_text(text: &str, name: &str) -> Fabric {
    let mut machine = Machine::new(&Scenario::parse(text, name).unwrap());
    let done = run::direct(&mut machine);
    assert!(done.refusal.is_none(), "{name}: {:?}", done.refusal);
    machine.fabric()
}

fn number(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

/// Addresses of a range: its ends, and many between that follow from a seed.
fn samples(first: u64, size: u64) -> Vec<u64> {
    let mut state = first ^ size;
    let mut random = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = state;
        value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        value ^ value >> 31
    };
    let near = (0..64).flat_map(|granule| [granule * 256, granule * 256 + 255]);
    let near = near.flat_map(|offset| [offset, size - 1 - offset]);
    near.chain((0..400).map(|_| random() % size)).map(|offset| first + offset).collect()
}

/// The page's arithmetic and the registers' own decode: both ways, for thousands of addresses.
fn arithmetic_is_that_of_the_registers() {
    let (folder, browser) = (Folder::new(), Browser::start());
    let named = [
        "two-way",
        "sixteen-way",
        "three-way",
        "twelve-way",
        "xor-four-way",
        "dpa-skip",
        "switch-interleave",
        "two-partitions",
        "default",
    ];
    let mut cases: Vec<(String, String)> =
        named.map(|name| (name.to_owned(), builtin(name).unwrap().text.to_owned())).to_vec();
    cases.extend([6, 12].map(|ways| (format!("xor-{ways}"), xor_with_three(ways))));
    let mut asked = 0;
    for (name, text) in cases {
        let fabric = of_text(&text, &name);
        let file = folder.file(&format!("{name}.toml"), &text);
        browser.open(&page(&folder, &name, &["boot", "--direct", &file], 0));
        let mut addresses = Vec::new();
        for mapping in mapping::mappings(&fabric) {
            match mapping.how {
                Reach::Direct(_) => addresses.extend(samples(mapping.hpa.0, mapping.size)),
                Reach::Trapped { .. } => addresses.push(mapping.hpa.0),
            }
        }
        let expected: Vec<Value> = addresses
            .iter()
            .map(|&hpa| match mapping::resolve(&fabric, Hpa(hpa)) {
                Ok(path) => json!({
                    "device": fabric.devices[path.endpoint.device].name,
                    "decoder": path.endpoint.index,
                    "dpa": format!("{:#x}", path.dpa.0),
                }),
                Err(_) => Value::Null,
            })
            .collect();
        let words: Vec<String> = addresses.iter().map(|hpa| format!("{hpa:#x}")).collect();
        let found = browser.evaluate(&format!(
            "{}.map((hpa) => cxl.forwards(hpa) || null)",
            serde_json::to_string(&words).unwrap()
        ));
        for ((hpa, found), expected) in words.iter().zip(found.as_array().unwrap()).zip(&expected) {
            assert_eq!(found, expected, "{name}: {hpa}");
        }
        let backwards: Vec<&Value> = expected.iter().filter(|path| path.is_object()).collect();
        let found = browser.evaluate(&format!(
            "{}.map((way) => cxl.backwards(way.device, way.dpa))",
            serde_json::to_string(&backwards).unwrap()
        ));
        for (way, found) in backwards.iter().zip(found.as_array().unwrap()) {
            let device = fabric.devices.iter().position(|d| *d.name == way["device"]).unwrap();
            let expected = mapping::addresses(&fabric, device, Dpa(number(&way["dpa"])));
            let expected: Vec<String> =
                expected.iter().map(|hpa| format!("{:#x}", hpa.0)).collect();
            assert_eq!(*found, json!(expected), "{name}: {way}");
        }
        // And what stands in the page without its script.
        let cells = browser.evaluate(
            "[...document.querySelectorAll('.granules td[data-at]')].map((cell) => { const grid = \
             cell.closest('.granules'); const hpa = '0x' + (BigInt(grid.dataset.hpa) + \
             BigInt(cell.dataset.at) * BigInt(grid.dataset.granule)).toString(16); return [hpa, \
             cell.querySelector('b').textContent, cell.querySelector('code').textContent]; })",
        );
        for cell in cells.as_array().unwrap() {
            let path = mapping::resolve(&fabric, Hpa(number(&cell[0]))).unwrap();
            let device = &fabric.devices[path.endpoint.device].name;
            assert_eq!(*cell, json!([cell[0], device, format!("{:#x}", path.dpa.0)]), "{name}");
        }
        asked += addresses.len();
    }
    assert!(asked > 5000, "{asked} addresses");
}

fn main() -> ExitCode {
    let lack =
        browser::program().is_none().then_some("needs Chromium (Debian's chromium, or CHROMIUM=)");
    let trials: [(&str, fn()); 8] = [
        ("pages_of_runs_are_good_at_every_width_and_on_paper", runs_are_good),
        ("pages_of_attacks_are_good_and_a_leak_is_seen_at_a_glance", attacks_are_good),
        ("pages_of_lint_diff_and_linux_are_good", other_pages_are_good),
        ("a_refusal_is_marked_in_the_whole_path", refusals_are_in_their_place),
        ("pages_of_collect_and_inspect_are_good", collected_machines_are_good),
        ("nothing_that_is_said_gets_out_of_its_text", nothing_gets_out_of_its_text),
        ("a_keyboard_reaches_everything", a_keyboard_reaches_everything),
        ("arithmetic_in_the_page_is_that_of_the_registers", arithmetic_is_that_of_the_registers),
    ];
    trial::run(trials.map(|(name, test)| unless(lack, claim(name, test))).into())
}
