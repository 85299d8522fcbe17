//! A headless Chromium, spoken to by the DevTools protocol over two pipes.
//!
//! **Invariant**: a browser is a process of its own with a profile of its own, and is gone with the
//! value; nothing waits longer than [`LIMIT`]. What a page asks of a network is counted, and none of it
//! leaves: names resolve to nothing.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "helpers of tests are tests")]

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use base64::Engine;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What one command may take on a busy host.
const LIMIT: Duration = Duration::from_secs(120);

/// The program: as `CHROMIUM` says, or what the path has.
pub fn program() -> Option<OsString> {
    let named = std::env::var_os("CHROMIUM").filter(|name| !name.is_empty());
    let known = ["chromium", "chromium-browser", "google-chrome"].map(OsString::from);
    let answers = |name: &OsString| {
        let output = Command::new(name).arg("--version").output();
        output.is_ok_and(|output| output.status.success())
    };
    match named {
        Some(named) => Some(named).filter(answers),
        None => known.into_iter().find(answers),
    }
}

/// A running browser with one page.
pub struct Browser {
    child: Child,
    input: RefCell<ChildStdin>,
    messages: Receiver<Value>,
    next: Cell<u64>,
    session: String,
    /// Events that came while an answer was waited for.
    events: RefCell<Vec<Value>>,
    _profile: TempDir,
}

impl Browser {
    pub fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let program = program().expect("a browser");
        // The protocol's pipes are the descriptors 3 and 4.
        let mut command = Command::new("sh");
        command
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null"])
            .arg(program)
            .args(["--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"])
            .args([
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
            ])
            .args(["--disable-dev-shm-usage", "--disable-sync", "--disable-default-apps"])
            .args(["--host-resolver-rules=MAP * ~NOTFOUND", "--hide-scrollbars"])
            .arg("--force-color-profile=srgb")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let input = RefCell::new(child.stdin.take().unwrap());
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (to, messages) = mpsc::channel();
        std::thread::spawn(move || {
            loop {
                let mut message = Vec::new();
                match output.read_until(0, &mut message) {
                    Ok(1..) => {}
                    _ => return,
                }
                message.pop();
                let Ok(message) = serde_json::from_slice(&message) else { return };
                if to.send(message).is_err() {
                    return;
                }
            }
        });
        let next = Cell::new(0);
        let events = RefCell::default();
        let session = String::new();
        let mut browser = Self { child, input, messages, next, session, events, _profile: profile };
        let made = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let target = &made["targetId"];
        let attached =
            browser.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network", "Accessibility"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Gives a command, and what came of it.
    pub fn call(&self, method: &str, parameters: Value) -> Value {
        let id = self.next.get() + 1;
        self.next.set(id);
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.input.borrow_mut().write_all(&bytes).unwrap();
        loop {
            let answer = self.message(method);
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
        }
    }

    fn message(&self, wanted: &str) -> Value {
        let message = self.messages.recv_timeout(LIMIT);
        let message = message.unwrap_or_else(|error| panic!("{wanted}: no answer: {error}"));
        if message["method"].is_string() {
            self.events.borrow_mut().push(message.clone());
        }
        message
    }

    /// Opens a file, and waits until it is drawn.
    pub fn open(&self, file: &Path) {
        self.events.borrow_mut().clear();
        let url = format!("file://{}", file.display());
        self.call("Page.navigate", json!({ "url": url }));
        let loaded = |event: &Value| event["method"] == "Page.loadEventFired";
        while !self.events.borrow().iter().any(loaded) {
            self.message("Page.loadEventFired");
        }
        self.evaluate("document.fonts.ready.then(() => true)");
    }

    /// The value of an expression in the page.
    pub fn evaluate(&self, expression: &str) -> Value {
        let parameters =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", parameters);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// How wide and high the window is.
    pub fn resize(&self, width: u32, height: u32) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false
        });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Light or dark, on a screen or in print.
    pub fn media(&self, media: &str, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "media": media, "features": features }));
    }

    /// Presses a key as a keyboard does.
    pub fn press(&self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "End" => 35,
            "Home" => 36,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            other => panic!("{other}: not a key of these tests"),
        };
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let event = json!({
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code,
                "text": if kind == "keyDown" { text } else { "" }
            });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// The pages that it prints, as a PDF.
    pub fn print(&self) -> Vec<u8> {
        let printed = self.call("Page.printToPDF", json!({ "printBackground": true }));
        decoded(printed["data"].as_str().unwrap())
    }

    /// A picture of the whole page, or of what is seen of it.
    pub fn picture(&self, whole: bool) -> Vec<u8> {
        let how = json!({ "format": "png", "captureBeyondViewport": whole });
        let taken = self.call("Page.captureScreenshot", how);
        decoded(taken["data"].as_str().unwrap())
    }

    /// What the page complained of, and what it asked of a network, since it was opened.
    pub fn complaints(&self) -> Vec<String> {
        // Whatever was said before the answer has come.
        self.evaluate("0");
        let events = self.events.borrow();
        let told = events.iter().filter_map(|event| {
            let parameters = &event["params"];
            match event["method"].as_str()? {
                "Runtime.exceptionThrown" => Some(parameters["exceptionDetails"].to_string()),
                "Runtime.consoleAPICalled" if parameters["type"] != "log" => {
                    Some(parameters["args"].to_string())
                }
                "Log.entryAdded" => Some(parameters["entry"].to_string()),
                "Network.requestWillBeSent" => {
                    let url = parameters["request"]["url"].as_str()?;
                    (!url.starts_with("file://")).then(|| format!("a request of {url}"))
                }
                _ => None,
            }
        });
        told.collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends its own children where it is asked to.
        let close = json!({ "id": u32::MAX, "method": "Browser.close" }).to_string() + "\0";
        let _ = self.input.borrow_mut().write_all(close.as_bytes());
        for _ in 0..100 {
            if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn decoded(text: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}
