//! What came of the tries at each register, held ones too: registers by states and modes.
//!
//! **Invariant**: every try is in one cell; what is put together for printing has the same cells, and
//! its names times its decoders are exactly the registers that it stands for.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use cxl_attack::{Mode, State};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::Name;

/// The most entries of each list in a report: a machine without any lock has no end of them.
pub(super) const MOST: usize = 256;

/// What came of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Nothing changed, and nothing should have.
    Held,
    /// The rules let it through.
    Allowed,
    /// A breach, or an allowed effect that failed to happen.
    Changed,
}

/// A state in words.
pub(super) fn name_of(state: State) -> &'static str {
    match state {
        State::NeverCommitted => "never committed",
        State::LockSet => "lock set, not committed",
        State::CommitRefused => "commit refused",
        State::CommittedUnlocked => "committed, unlocked",
        State::CommittedLocked => "committed, locked",
        State::AfterCxlReset => "after CXL Reset",
        State::AfterFlr => "after FLR",
        State::AfterConventionalReset => "after conventional reset",
    }
}

/// Tries at one register in one state or mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cell {
    /// Those that changed nothing.
    pub held: u64,
    /// Those that the rules let through.
    pub allowed: u64,
    /// Those that they do not.
    pub changed: u64,
}

impl Cell {
    fn count(&mut self, class: Class) {
        *match class {
            Class::Held => &mut self.held,
            Class::Allowed => &mut self.allowed,
            Class::Changed => &mut self.changed,
        } += 1;
    }

    fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// Registers with the same tries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The register, or what was started.
    pub register: String,
    /// The components that have it.
    pub components: Vec<String>,
    /// The decoders that it is a register of, in each of them; empty for one of no decoder.
    pub decoders: BTreeSet<u8>,
    /// A cell for each column of the grid.
    pub cells: Vec<Cell>,
}

impl Row {
    /// Whether anything changed that must not.
    pub fn leaks(&self) -> bool {
        self.cells.iter().any(|cell| cell.changed > 0)
    }
}

/// The register of one try.
type Key = (String, String, Option<u8>);

/// All tries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grid {
    columns: Vec<String>,
    registers: Vec<(Key, Vec<Cell>)>,
    known: HashMap<Key, usize>,
    /// The register of the last try: the next one is mostly of the same.
    last: usize,
}

impl Grid {
    /// The states and modes that something was tried in, states first.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// What has the same cells together, in order of component and register.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for ((component, register, decoder), cells) in &self.registers {
            let mut cells = cells.clone();
            cells.resize(self.columns.len(), Cell::default());
            let same = rows.iter_mut().find(|row| {
                row.register == *register
                    && row.components.first() == Some(component)
                    && row.decoders.is_empty() == decoder.is_none()
                    && row.cells == cells
            });
            match same {
                Some(row) => row.decoders.extend(decoder),
                None => rows.push(Row {
                    register: register.clone(),
                    components: vec![component.clone()],
                    decoders: decoder.iter().copied().collect(),
                    cells,
                }),
            }
        }
        let mut alike: Vec<Row> = Vec::new();
        for row in rows {
            let same = alike.iter_mut().find(|known| {
                known.register == row.register
                    && known.decoders == row.decoders
                    && known.cells == row.cells
            });
            match same {
                Some(known) => known.components.extend(row.components),
                None => alike.push(row),
            }
        }
        alike
    }

    /// Counts a try.
    pub(super) fn tried(&mut self, column: &str, name: &Name, class: Class) {
        let column = match self.columns.iter().position(|known| known == column) {
            Some(at) => at,
            None => {
                self.columns.push(column.to_owned());
                self.columns.len() - 1
            }
        };
        let last = self.registers.get(self.last).is_some_and(|((component, register, n), _)| {
            *component == name.component && *register == name.register && *n == name.decoder
        });
        if !last {
            let key = (name.component.clone(), name.register.clone(), name.decoder);
            let registers = &mut self.registers;
            self.last = *self.known.entry(key.clone()).or_insert_with(|| {
                registers.push((key, Vec::new()));
                registers.len() - 1
            });
        }
        let Some((_, cells)) = self.registers.get_mut(self.last) else { return };
        if cells.len() <= column {
            cells.resize(column + 1, Cell::default());
        }
        if let Some(cell) = cells.get_mut(column) {
            cell.count(class);
        }
    }

    /// Puts the columns into the order of a decoder's life, modes behind states.
    pub(super) fn close(&mut self) {
        let order = |name: &str| {
            let state = State::ALL.iter().position(|state| name_of(*state) == name);
            let mode = || Mode::ALL.iter().position(|mode| column_of(*mode) == Some(name));
            state.unwrap_or_else(|| State::ALL.len() + mode().unwrap_or(Mode::ALL.len()))
        };
        let mut places: Vec<usize> = (0..self.columns.len()).collect();
        places.sort_by_key(|&at| self.columns.get(at).map(|name| order(name)));
        let pick = |at: &usize| self.columns.get(*at).cloned().unwrap_or_default();
        self.columns = places.iter().map(pick).collect();
        for (_, cells) in &mut self.registers {
            let of = |at: &usize| cells.get(*at).copied().unwrap_or_default();
            *cells = places.iter().map(of).collect();
        }
    }
}

/// The column of what is tried in a mode; `None` where the state is the column.
pub(super) fn column_of(mode: Mode) -> Option<&'static str> {
    match mode {
        Mode::Plain => None,
        Mode::Field => Some("while an enable is turned round"),
        Mode::BarMoved => Some("while a BAR is moved"),
        Mode::Committing => Some("while another decoder is being committed"),
        Mode::Overlapped => Some("while another decoder is over the range"),
        Mode::Vendor => Some("after writes to mailbox and vendor registers"),
        Mode::Relocked => Some("locked again after a conventional reset"),
        Mode::Named => Some("in a mode of the scenario"),
    }
}

/// Cells by column: `held/allowed/changed`, those alone in which something was tried.
struct Cells<'a>(&'a [String], &'a [Cell]);

impl Serialize for Cells<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for (column, cell) in self.0.iter().zip(self.1).filter(|(_, cell)| !cell.is_empty()) {
            let Cell { held, allowed, changed } = cell;
            map.serialize_entry(column, &format_args!("{held}/{allowed}/{changed}"))?;
        }
        map.end()
    }
}

/// A row as JSON has it.
#[derive(JsonSchema, Serialize)]
#[serde(rename = "GridRow")]
struct Shown<'a> {
    register: &'a str,
    components: &'a [String],
    decoders: &'a BTreeSet<u8>,
    /// By column: `held/allowed/changed`, those alone in which something was tried.
    #[schemars(with = "BTreeMap<String, String>")]
    cells: Cells<'a>,
}

/// All of it as JSON has it.
#[derive(JsonSchema, Serialize)]
struct Printed<'a> {
    columns: &'a [String],
    rows: Vec<Shown<'a>>,
    left_out: usize,
}

impl JsonSchema for Grid {
    fn schema_name() -> Cow<'static, str> {
        "Grid".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Printed::json_schema(generator)
    }
}

impl Serialize for Grid {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut rows = self.rows();
        // A machine without any lock has no end of rows: those that leak come first then.
        let left_out = rows.len().saturating_sub(MOST);
        if left_out > 0 {
            rows.sort_by_key(|row| !row.leaks());
            rows.truncate(MOST);
        }
        let shown: Vec<Shown<'_>> = rows
            .iter()
            .map(|Row { register, components, decoders, cells }| {
                let cells = Cells(&self.columns, cells);
                Shown { register, components, decoders, cells }
            })
            .collect();
        Printed { columns: &self.columns, rows: shown, left_out }.serialize(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(component: &str, register: &str, decoder: Option<u8>) -> Name {
        let (component, register) = (component.to_owned(), register.to_owned());
        Name { component, register, decoder }
    }

    /// Columns come in the order of a decoder's life, alike rows together, and the one that leaks by
    /// itself.
    #[test]
    fn what_is_alike_is_one_row_and_a_leak_is_its_own() {
        let mut grid = Grid::default();
        for component in ["mem0", "mem1"] {
            for decoder in 0..2 {
                let size = name(component, "Size", Some(decoder));
                grid.tried("while a BAR is moved", &size, Class::Held);
                grid.tried("committed, locked", &size, Class::Held);
                grid.tried("committed, locked", &size, Class::Held);
            }
            grid.tried("never committed", &name(component, "Command", None), Class::Allowed);
        }
        grid.tried("committed, locked", &name("mem1", "Size", Some(1)), Class::Changed);
        grid.close();
        let json = serde_json::to_value(&grid).expect("plain values");
        assert_eq!(
            json,
            serde_json::json!({
                "columns": ["never committed", "committed, locked", "while a BAR is moved"],
                "rows": [
                    { "register": "Size", "components": ["mem0"], "decoders": [0, 1],
                      "cells": { "committed, locked": "2/0/0", "while a BAR is moved": "1/0/0" } },
                    { "register": "Command", "components": ["mem0", "mem1"], "decoders": [],
                      "cells": { "never committed": "0/1/0" } },
                    { "register": "Size", "components": ["mem1"], "decoders": [0],
                      "cells": { "committed, locked": "2/0/0", "while a BAR is moved": "1/0/0" } },
                    { "register": "Size", "components": ["mem1"], "decoders": [1],
                      "cells": { "committed, locked": "2/0/1", "while a BAR is moved": "1/0/0" } },
                ],
                "left_out": 0,
            })
        );
    }
}
