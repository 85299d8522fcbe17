//! Linux's sysfs in the shape of its own tool: what `cxl list -vv` prints (version 81), with the same
//! keys, numbers and nesting, so that what reads one reads the other.
//!
//! **Invariant**: every value comes from sysfs, as the tool's do; what sysfs does not show has no key. What
//! the tool asks of a device by its mailbox or of the DAX bus (`-vvv`) is not here.

use serde_json::{Map, Value, json};

use super::Facts;

const CXL: &str = "/sys/bus/cxl/devices";
/// The most levels that are followed: of switches there may be eight.
const MAX_DEPTH: usize = 16;

type Object = Map<String, Value>;

/// The listing.
pub fn list(facts: &Facts) -> Vec<Value> {
    let linux = List(facts);
    let buses: Vec<_> = linux.called("root").map(|name| linux.bus(name)).collect();
    // Memory devices that hang nowhere make the buses a group of several.
    let listed = |name: &&str| linux.endpoint_of(name).is_none();
    let alone: Vec<_> = linux.called("mem").filter(listed).collect();
    if alone.is_empty() {
        return buses;
    }
    let alone: Vec<_> = alone.into_iter().map(|name| Value::Object(linux.memdev(name))).collect();
    vec![json!({ "anon memdevs": alone }), json!({ "buses": buses })]
}

#[derive(Clone, Copy)]
struct List<'f>(&'f Facts);

impl<'f> List<'f> {
    fn text(self, name: &str, attribute: &str) -> Option<&'f str> {
        self.0.text(&format!("{CXL}/{name}/{attribute}")).map(str::trim)
    }

    fn number(self, name: &str, attribute: &str) -> Option<u64> {
        self.0.number(&format!("{CXL}/{name}/{attribute}"))
    }

    fn link(self, name: &str, attribute: &str) -> Option<&'f str> {
        self.0.link(&format!("{CXL}/{name}/{attribute}"))
    }

    /// Devices of a kind, by how Linux calls them: an endpoint is of a port's type.
    fn called(self, kind: &'static str) -> impl Iterator<Item = &'f str> {
        let is = move |name: &&str| {
            let number = name.strip_prefix(kind);
            number.is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()))
        };
        self.0.devices("cxl").filter(is)
    }

    fn path(self, name: &str) -> &'f str {
        self.0.link(&format!("{CXL}/{name}")).unwrap_or_default()
    }

    /// What a device hangs from.
    fn parent(self, name: &str) -> &'f str {
        self.path(name).rsplit('/').nth(1).unwrap_or_default()
    }

    /// Devices of a kind that hang from another.
    fn below(self, parent: &str, kind: &'static str) -> Vec<&'f str> {
        self.called(kind).filter(|name| self.parent(name) == parent).collect()
    }

    /// A group with its parent's name; none if it is empty.
    fn group(object: &mut Object, of: &str, parent: &str, members: impl Iterator<Item = Object>) {
        let members: Vec<_> = members.map(Value::Object).collect();
        if !members.is_empty() {
            object.insert(format!("{of}:{parent}"), members.into());
        }
    }

    fn bus(self, name: &str) -> Value {
        let mut object = Object::new();
        object.insert("bus".to_owned(), name.into());
        let host = last(self.link(name, "uport").unwrap_or_default());
        let provider = if host.starts_with("ACPI0017") { "ACPI.CXL" } else { host };
        object.insert("provider".to_owned(), provider.into());
        self.dports(&mut object, name);
        self.children(&mut object, name, 1);
        object.into()
    }

    /// Ports, endpoints and decoders below a port.
    fn children(self, object: &mut Object, port: &str, depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        let ports = self.below(port, "port").into_iter();
        Self::group(object, "ports", port, ports.map(|name| self.port(name, depth)));
        let endpoints = self.below(port, "endpoint").into_iter();
        Self::group(object, "endpoints", port, endpoints.map(|name| self.endpoint(name, depth)));
        self.decoders(object, port);
    }

    fn decoders(self, object: &mut Object, port: &str) {
        let decoders = self.below(port, "decoder").into_iter();
        let decoders = decoders.map(|name| self.decoder(name, port));
        Self::group(object, "decoders", port, decoders);
    }

    /// What ports and endpoints have alike.
    fn common(self, object: &mut Object, name: &str, depth: usize) {
        let host = last(self.link(name, "uport").unwrap_or_default());
        object.insert("host".to_owned(), host.into());
        // Above the first level there is the root alone.
        if let Some(above) = self.link(name, "parent_dport").filter(|_| depth > 1) {
            object.insert("parent_dport".to_owned(), last(above).into());
        }
        object.insert("depth".to_owned(), depth.into());
        if let Some(count) = self.number(name, "decoders_committed") {
            object.insert("decoders_committed".to_owned(), count.into());
        }
        self.state(object, name);
    }

    fn state(self, object: &mut Object, name: &str) {
        if self.link(name, "driver").is_none() {
            object.insert("state".to_owned(), "disabled".into());
        }
    }

    fn port(self, name: &str, depth: usize) -> Object {
        let mut object = Object::new();
        object.insert("port".to_owned(), name.into());
        self.common(&mut object, name, depth);
        self.dports(&mut object, name);
        self.children(&mut object, name, depth + 1);
        object
    }

    fn endpoint(self, name: &str, depth: usize) -> Object {
        let mut object = Object::new();
        object.insert("endpoint".to_owned(), name.into());
        self.common(&mut object, name, depth);
        let host = last(self.link(name, "uport").unwrap_or_default());
        if host.starts_with("mem") {
            object.insert("memdev".to_owned(), self.memdev(host).into());
        }
        self.decoders(&mut object, name);
        object
    }

    /// The endpoint that a memory device has.
    fn endpoint_of(self, memdev: &str) -> Option<&'f str> {
        let host = |name: &&str| last(self.link(name, "uport").unwrap_or_default()) == memdev;
        { self.called("endpoint") }.find(host)
    }

    fn memdev(self, name: &str) -> Object {
        let mut object = Object::new();
        object.insert("memdev".to_owned(), name.into());
        for (partition, size, qos) in
            [("pmem", "pmem_size", "pmem_qos_class"), ("ram", "ram_size", "ram_qos_class")]
        {
            if let Some(bytes) =
                self.number(name, &format!("{partition}/size")).filter(|bytes| *bytes > 0)
            {
                object.insert(size.to_owned(), bytes.into());
                // A class that nobody knows is -1.
                if let Some(class) = self.number(name, &format!("{partition}/qos_class")) {
                    object.insert(qos.to_owned(), class.into());
                }
            }
        }
        for (key, file) in [("serial", "serial"), ("numa_node", "numa_node")] {
            if let Some(number) = self.number(name, file) {
                object.insert(key.to_owned(), number.into());
            }
        }
        object.insert("host".to_owned(), self.parent(name).into());
        self.state(&mut object, name);
        if let Some(version) = self.text(name, "firmware_version") {
            object.insert("firmware_version".to_owned(), version.into());
        }
        object
    }

    /// Number and path of each downstream port of a port.
    fn dports_of(self, port: &str) -> Vec<(u64, &'f str)> {
        let prefix = format!("{CXL}/{port}/dport");
        let ids = self.0.links_below(&prefix).filter_map(|(rest, _)| rest.parse().ok());
        let ids: Vec<u64> = ids.collect();
        let path = |id| Some((id, self.link(port, &format!("dport{id}"))?));
        ids.into_iter().filter_map(path).collect()
    }

    /// A downstream port under this key, with what ACPI calls it.
    fn dport(self, key: &str, port: &str, id: u64, path: &str) -> Object {
        let mut object = Object::new();
        object.insert(key.to_owned(), last(path).into());
        if let Some(node) = self.link(port, &format!("dport{id}/firmware_node")) {
            object.insert("alias".to_owned(), last(node).into());
        }
        object.insert("id".to_owned(), id.into());
        object
    }

    fn dports(self, object: &mut Object, port: &str) {
        let found = self.dports_of(port);
        object.insert("nr_dports".to_owned(), found.len().into());
        let found: Vec<_> = { found.iter() }
            .map(|(id, path)| Value::Object(self.dport("dport", port, *id, path)))
            .collect();
        if !found.is_empty() {
            object.insert("dports".to_owned(), found.into());
        }
    }

    fn decoder(self, name: &str, port: &str) -> Object {
        let mut object = Object::new();
        object.insert("decoder".to_owned(), name.into());
        let [is_root, is_device] = ["root", "endpoint"].map(|kind| port.starts_with(kind));
        let size = self.number(name, "size").filter(|size| *size > 0);
        if let (Some(size), Some(start)) = (size, self.number(name, "start")) {
            object.insert("resource".to_owned(), start.into());
            object.insert("size".to_owned(), size.into());
        }
        if let Some(ways) = self.number(name, "interleave_ways") {
            object.insert("interleave_ways".to_owned(), ways.into());
            let granularity = self.number(name, "interleave_granularity").filter(|_| ways > 1);
            if let Some(granularity) = granularity {
                object.insert("interleave_granularity".to_owned(), granularity.into());
            }
        }
        if let Some(region) = self.text(name, "region").filter(|region| !region.is_empty()) {
            object.insert("region".to_owned(), region.into());
        }
        if is_device && size.is_some() {
            for key in ["dpa_resource", "dpa_size"] {
                if let Some(number) = self.number(name, key) {
                    object.insert(key.to_owned(), number.into());
                }
            }
            if let Some(mode) = self.text(name, "mode").filter(|mode| *mode != "none") {
                object.insert("mode".to_owned(), mode.into());
            }
        }
        if is_root {
            self.window(&mut object, name);
        } else if size.is_none() {
            object.insert("state".to_owned(), "disabled".into());
        }
        if !is_device {
            self.targets(&mut object, name, port);
        }
        object
    }

    /// What a window has besides.
    fn window(self, object: &mut Object, name: &str) {
        if let Some(most) = self.largest_gap(name) {
            object.insert("max_available_extent".to_owned(), most.into());
        }
        for (key, file) in [
            ("pmem_capable", "cap_pmem"),
            ("volatile_capable", "cap_ram"),
            ("accelmem_capable", "cap_type2"),
        ] {
            if self.number(name, file) == Some(1) {
                object.insert(key.to_owned(), true.into());
            }
        }
        if let Some(class) = self.number(name, "qos_class") {
            object.insert("qos_class".to_owned(), class.into());
        }
        let regions = self.below(name, "region").into_iter();
        let regions = regions.map(|region| self.region(region, name));
        Self::group(object, "regions", name, regions);
    }

    /// The largest range of a window that no region has.
    fn largest_gap(self, window: &str) -> Option<u64> {
        let (start, size) = (self.number(window, "start")?, self.number(window, "size")?);
        let end = start.checked_add(size)?;
        let regions = self.below(window, "region").into_iter();
        let mut ranges: Vec<_> = regions
            .filter_map(|region| {
                Some((self.number(region, "resource")?, self.number(region, "size")?))
            })
            .collect();
        ranges.sort_unstable();
        let (mut at, mut most) = (start, 0);
        for (base, size) in ranges {
            most = most.max(base.saturating_sub(at));
            at = at.max(base.saturating_add(size));
        }
        Some(most.max(end.saturating_sub(at)))
    }

    /// Where a decoder leads, by the ports that it names.
    fn targets(self, object: &mut Object, name: &str, port: &str) {
        let named = self.text(name, "target_list").unwrap_or_default();
        let named: Vec<u64> = named.split(',').filter_map(|id| id.trim().parse().ok()).collect();
        let mut targets = Vec::new();
        for (id, path) in self.dports_of(port) {
            for (position, _) in named.iter().enumerate().filter(|(_, wanted)| **wanted == id) {
                let mut target = self.dport("target", port, id, path);
                target.insert("position".to_owned(), position.into());
                targets.push(Value::Object(target));
            }
        }
        object.insert("nr_targets".to_owned(), named.len().into());
        if !targets.is_empty() {
            object.insert("targets".to_owned(), targets.into());
        }
    }

    fn region(self, name: &str, window: &str) -> Object {
        let mut object = Object::new();
        object.insert("region".to_owned(), name.into());
        for (key, file) in [
            ("resource", "resource"),
            ("size", "size"),
            ("interleave_ways", "interleave_ways"),
            ("interleave_granularity", "interleave_granularity"),
        ] {
            if let Some(number) = self.number(name, file) {
                object.insert(key.to_owned(), number.into());
            }
        }
        let mode = self.text(name, "mode").unwrap_or_default();
        object.insert("type".to_owned(), mode.into());
        let committed = self.number(name, "commit") == Some(1);
        let state = if committed { "commit" } else { "reset" };
        object.insert("decode_state".to_owned(), state.into());
        self.state(&mut object, name);
        let ways = self.number(name, "interleave_ways").unwrap_or(0).min(16);
        let of_window = self.number(window, "qos_class");
        let (mut mappings, mut mismatch) = (Vec::new(), false);
        for position in 0..ways {
            let decoder = self.text(name, &format!("target{position}")).unwrap_or_default();
            if decoder.is_empty() {
                continue;
            }
            let endpoint = self.parent(decoder);
            let memdev = last(self.link(endpoint, "uport").unwrap_or_default());
            let class = self.number(memdev, &format!("{mode}/qos_class"));
            mismatch |= of_window.is_some() && of_window != class;
            mappings.push(json!({ "position": position, "memdev": memdev, "decoder": decoder }));
        }
        if !mappings.is_empty() {
            object.insert("mappings".to_owned(), mappings.into());
        }
        if mismatch {
            object.insert("qos_class_mismatch".to_owned(), true.into());
        }
        object
    }
}

/// The last part of a path.
fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}
