"use strict";
(() => {
  const all = (what, below = document) => [...below.querySelectorAll(what)];
  const by = (id) => document.getElementById(id);
  const element = (name, text, className) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  const hex = (value) => "0x" + value.toString(16);

  // Grids are one stop of the keyboard each; arrows go from cell to cell.
  for (const grid of all("table[role=grid]")) {
    const rows = all("tr", grid).map((row) => all("td", row)).filter((cells) => cells.length);
    const heads = all("thead th", grid).map((head) => head.textContent.trim()).slice(1);
    rows.forEach((cells) => cells.forEach((cell, column) => {
      cell.tabIndex = -1;
      const row = cell.parentElement.querySelector("th").textContent.trim();
      cell.setAttribute("aria-label", grid.classList.contains("heat")
        ? `${row}, ${heads[column]}: ${spoken(cell)}`
        : `${cell.textContent.trim()}, from ${row} ${heads[column]}`);
    }));
    if (rows.length) rows[0][0].tabIndex = 0;
    const go = (row, column) => {
      const cells = rows[Math.max(0, Math.min(rows.length - 1, row))];
      const cell = cells[Math.max(0, Math.min(cells.length - 1, column))];
      all("td[tabindex='0']", grid).forEach((old) => { old.tabIndex = -1; });
      cell.tabIndex = 0;
      cell.focus();
    };
    grid.addEventListener("keydown", (event) => {
      const row = rows.findIndex((cells) => cells.includes(event.target));
      if (row < 0 || event.ctrlKey && !["Home", "End"].includes(event.key)) return;
      const column = rows[row].indexOf(event.target);
      const last = rows[row].length - 1;
      const steps = {
        ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
        ArrowUp: [row - 1, column], ArrowDown: [row + 1, column],
        PageUp: [row - 10, column], PageDown: [row + 10, column],
        Home: [event.ctrlKey ? 0 : row, 0], End: [event.ctrlKey ? rows.length - 1 : row, last],
      };
      if (!(event.key in steps)) return;
      event.preventDefault();
      go(...steps[event.key]);
    });
    grid.addEventListener("focusin", (event) => {
      if (event.target.tagName !== "TD") return;
      all("td[tabindex='0']", grid).forEach((old) => { old.tabIndex = -1; });
      event.target.tabIndex = 0;
    });
  }

  function spoken(cell) {
    const number = cell.textContent.replace(/[^0-9]/g, "");
    const words = { c: "changed", a: "allowed", h: "held" };
    const word = Object.keys(words).find((name) => cell.classList.contains(name));
    return word ? `${number} ${words[word]}` : "nothing to try";
  }

  // What came of a register's tries.
  const detail = by("heat-detail");
  if (detail) {
    const told = all(".told > div");
    const tell = (cell) => {
      const row = cell.closest("tr");
      if (!row || !cell.closest(".heat td")) return;
      detail.hidden = false;
      const groups = all("tr", cell.closest("tbody"));
      detail.replaceChildren(element("p"));
      detail.firstChild.append(element("strong", groups[0].textContent.trim() + ": "), cell.getAttribute("aria-label"));
      const entry = row.dataset.told === undefined ? undefined : told[Number(row.dataset.told)];
      if (entry && !cell.classList.contains("h") && !cell.classList.contains("n")) {
        const wanted = cell.classList.contains("c") ? ".bad" : ".warn";
        all("dd", entry).filter((line) => line.querySelector(wanted)).slice(0, 6)
          .forEach((line) => detail.append(element("p", line.textContent)));
      }
    };
    const heat = document.querySelector(".heat");
    heat.addEventListener("focusin", (event) => tell(event.target));
    heat.addEventListener("click", (event) => { const cell = event.target.closest("td"); if (cell) cell.focus(); });
    heat.addEventListener("focusout", (event) => { if (!heat.contains(event.relatedTarget)) detail.hidden = true; });
  }

  // The way of a range.
  const tree = document.querySelector(".tree");
  for (const button of all(".follow button")) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      all(".follow button").forEach((other) => other.setAttribute("aria-pressed", "false"));
      button.setAttribute("aria-pressed", String(on));
      tree.classList.toggle("following", on);
      all("[data-ranges]", tree).forEach((part) => {
        const through = part.dataset.ranges.split(" ").includes(button.dataset.range);
        part.classList.toggle("way", on && through);
      });
    });
  }

  // Where an address leads: the arithmetic of the decoders.
  const decode = by("decode");
  if (decode) {
    const known = JSON.parse(decode.dataset.known);
    const ranges = known.ranges.map((range) => ({
      ...range, hpa: BigInt(range.hpa), size: BigInt(range.size), base: BigInt(range.base),
      shift: BigInt(range.shift), bits: BigInt(range.bits), maps: range.maps.map(BigInt),
      members: range.members.map((member) => ({ ...member, dpa: BigInt(member.dpa), volatile: BigInt(member.volatile) })),
    }));
    const parity = (value) => {
      let odd = 0n;
      for (let left = value; left; left >>= 1n) odd ^= left & 1n;
      return odd;
    };
    const third = (range, hpa) => range.three ? (hpa >> (range.shift + range.bits)) % 3n : 0n;
    const mask = (range) => (1n << range.shift) - 1n;
    const position = (range, hpa) => range.maps.reduce(
      (found, map, bit) => found | parity(hpa & map) << BigInt(bit), third(range, hpa) << range.bits);
    const share = (range, offset) => {
      const granule = offset >> (range.shift + range.bits);
      return (range.three ? granule / 3n : granule) << range.shift | offset & mask(range);
    };
    const forwards = (hpa) => {
      const range = ranges.find((range) => hpa >= range.hpa && hpa < range.hpa + range.size);
      if (!range) return undefined;
      const at = position(range, hpa);
      const member = range.members[Number(at)];
      return { range, at, member, hpa, dpa: member.dpa + share(range, hpa - range.base) };
    };
    const back = (range, at, offset) => {
      let granule = offset >> range.shift;
      if (range.three) granule = granule * 3n + ((at >> range.bits) + 3n - third(range, range.base)) % 3n;
      let hpa = range.base + (granule << (range.shift + range.bits) | offset & mask(range));
      // The highest selector bit first: what a map sees above its own bit is settled then.
      for (let bit = range.maps.length - 1; bit >= 0; bit -= 1) {
        const wanted = at >> BigInt(bit) & 1n;
        hpa |= (wanted ^ parity(hpa & range.maps[bit])) << (range.shift + BigInt(bit));
      }
      return hpa;
    };
    const backwards = (device, dpa) => ranges.flatMap((range) => range.members.flatMap((member, index) => {
      if (member.device !== device || dpa < member.dpa) return [];
      const hpa = back(range, BigInt(index), dpa - member.dpa);
      const inside = hpa >= range.hpa && hpa < range.hpa + range.size;
      return inside ? [hpa] : [];
    })).sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
    const number = (text) => {
      const plain = text.trim().replaceAll("_", "");
      return /^(0x[0-9a-f]+|[0-9]+)$/i.test(plain) && plain.length <= 20 ? BigInt(plain) : undefined;
    };

    // For whoever holds this arithmetic against somebody else's.
    window.cxl = {
      forwards: (text) => {
        const found = forwards(BigInt(text));
        return found && { device: found.member.device, decoder: found.member.decoder, dpa: hex(found.dpa) };
      },
      backwards: (device, text) => backwards(device, BigInt(text)).map(hex),
    };

    const steps = ({ range, at, member, hpa, dpa }) => {
      const offset = hpa - range.base;
      const lines = [`offset in the range: ${hex(hpa)} − ${hex(range.base)} = ${hex(offset)}`];
      if (range.members.length > 1) {
        const single = range.maps.every((map, bit) => map === 1n << (range.shift + BigInt(bit)));
        range.maps.forEach((map, bit) => lines.push(single
          ? `bit ${bit} of the position: HPA bit ${range.shift + BigInt(bit)} = ${parity(hpa & map)}`
          : `bit ${bit} of the position: parity of HPA & ${hex(map)} = ${parity(hpa & map)}`));
        if (range.three) {
          const above = range.shift + range.bits;
          lines.push(`third: (HPA ≫ ${above}) mod 3 = ${third(range, hpa)}`);
        }
        lines.push(`position ${at} of ${range.members.length}: ${member.device}, decoder ${member.decoder}`);
        const drop = range.shift + range.bits;
        lines.push(`its share: (offset ≫ ${drop})${range.three ? " ÷ 3" : ""} ≪ ${range.shift}, with the lowest `
          + `${range.shift} bits of the offset = ${hex(share(range, offset))}`);
      }
      lines.push(`DPA: ${hex(member.dpa)} + ${hex(share(range, offset))} = ${hex(dpa)}`);
      return lines;
    };
    const show = (where, answer, lines = []) => {
      where.replaceChildren(element("p", answer, "answer"));
      if (!lines.length) return;
      const list = element("ol");
      lines.forEach((line) => list.append(element("li", line)));
      where.append(list);
    };
    const here = (hpa) => {
      all(".granules td.here").forEach((cell) => cell.classList.remove("here"));
      for (const grid of all(".granules")) {
        const granule = BigInt(grid.dataset.granule);
        const offset = hpa - BigInt(grid.dataset.hpa);
        if (offset < 0n) continue;
        const cell = grid.querySelector(`td[data-at="${offset / granule}"]`);
        if (cell) cell.classList.add("here");
      }
    };
    const [hpaField, dpaField, deviceField] = [by("hpa"), by("dpa"), by("device")];
    const ask = () => {
      const hpa = number(hpaField.value);
      hpaField.setAttribute("aria-invalid", String(hpa === undefined));
      if (hpa === undefined) return show(by("forwards-out"), "Type an address such as 0x100000000.");
      here(hpa);
      const found = forwards(hpa);
      if (found) {
        const kind = found.dpa < found.member.volatile ? "volatile" : "persistent";
        return show(by("forwards-out"), `${found.member.device}, DPA ${hex(found.dpa)} (${kind})`, steps(found));
      }
      const why = known.nowhere.find(({ hpa: first, size }) =>
        hpa >= BigInt(first) && hpa < BigInt(first) + BigInt(size));
      return show(by("forwards-out"), why ? `No memory: ${why.why}.` : "No window has this address.");
    };
    const askBack = () => {
      const dpa = number(dpaField.value);
      dpaField.setAttribute("aria-invalid", String(dpa === undefined));
      if (dpa === undefined) return show(by("backwards-out"), "Type an address such as 0x1000.");
      const found = backwards(deviceField.value, dpa);
      if (!found.length) return show(by("backwards-out"), "No address leads there.");
      const first = forwards(found[0]);
      return show(by("backwards-out"), `HPA ${found.map(hex).join(", ")}`,
        first ? [`and forwards again: ${first.member.device}, DPA ${hex(first.dpa)}`] : []);
    };
    all("form", decode).forEach((form) => form.addEventListener("submit", (event) => event.preventDefault()));
    hpaField.addEventListener("input", ask);
    dpaField.addEventListener("input", askBack);
    deviceField.addEventListener("input", askBack);
    const from = (cell) => {
      const grid = cell.closest(".granules");
      hpaField.value = hex(BigInt(grid.dataset.hpa) + BigInt(cell.dataset.at) * BigInt(grid.dataset.granule));
      ask();
    };
    for (const cell of all(".granules td[data-at]")) {
      cell.addEventListener("mouseenter", () => from(cell));
      cell.addEventListener("focus", () => from(cell));
      cell.addEventListener("click", () => cell.focus());
    }
    ask();
    askBack();
  }

  // On paper everything is open.
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = all("details:not([open])");
    closed.forEach((part) => { part.open = true; });
  });
  window.addEventListener("afterprint", () => closed.forEach((part) => { part.open = false; }));
})();
