//! The files that a QEMU is made of, for whoever runs it elsewhere: its program and the firmware that it
//! reads, and where the program is a script, what that starts.
//!
//! **Invariant**: what a script starts is what has taken its place once it answers; the script itself is
//! not understood.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::process::{self, Arch, Process, ProcessError};
use super::qtest::PortWidth;

/// Time for an answer of a machine with nothing on it.
const ANSWER: Duration = Duration::from_secs(20);
/// Bytes of a script's first line, which Linux reads no further.
const FIRST_LINE: u64 = 256;
/// What a script may tell QEMU to look for its modules in.
const MODULES: &[u8] = b"QEMU_MODULE_DIR=";

/// What goes along with a QEMU.
#[derive(Debug)]
pub(crate) struct Files {
    /// What is run: a program, or a script.
    pub(crate) program: PathBuf,
    /// The folders of firmware that it reads.
    pub(crate) folders: Vec<PathBuf>,
    /// What the program is where that is a script.
    pub(crate) script: Option<Script>,
}

/// A script that a QEMU is started by.
#[derive(Debug)]
pub(crate) struct Script {
    /// Its interpreter, as its first line has it.
    pub(crate) interpreter: PathBuf,
    /// The program that took its place.
    pub(crate) runs: PathBuf,
    /// All files of that, with the links beside them by which a loader finds them.
    pub(crate) files: Vec<PathBuf>,
}

/// The files of the QEMU that is run here.
pub(crate) fn files() -> Result<Files, ProcessError> {
    let program = process::program();
    let named = PathBuf::from(&program);
    let path = if named.components().count() > 1 {
        named
    } else {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let mut all = std::env::split_paths(&folders).map(|folder| folder.join(&named));
        let found = all.find(|file| file.is_file());
        found.ok_or(ProcessError::Missing { arch: Arch::X86, program })?
    };
    let folders = process::answer(Arch::X86, &["-L", "help"])?;
    let folders = folders.lines().map(PathBuf::from).filter(|folder| folder.is_dir());
    let mut files = Files { program: path, folders: folders.collect(), script: None };
    if let Some(interpreter) = interpreter(&files.program) {
        files.script = Some(started(&files.program, interpreter, &mut files.folders)?);
    }
    Ok(files)
}

/// The interpreter of a script; `None` of anything else.
fn interpreter(path: &Path) -> Option<PathBuf> {
    let mut first = Vec::new();
    fs::File::open(path).ok()?.take(FIRST_LINE).read_to_end(&mut first).ok()?;
    let line = first.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let words = line.split(|byte| byte.is_ascii_whitespace());
    let word = { words }.find(|word| !word.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(word)))
}

/// Starts a machine with nothing on it, and looks at what runs then.
fn started(
    program: &Path,
    interpreter: PathBuf,
    folders: &mut Vec<PathBuf>,
) -> Result<Script, ProcessError> {
    let wrong = |why| ProcessError::Script { program: program.to_owned(), why };
    if interpreter.file_name() == Some(OsStr::new("env")) {
        return Err(wrong(
            "its first line leaves it to env to find a shell: name one, such as #!/bin/sh",
        ));
    }
    let mut arguments = process::fixed();
    arguments.extend(["-M", "none"].map(Into::into));
    let (mut qemu, mut qtest) = Process::start_with_qtest(&arguments, ANSWER)?;
    // A port: memory is read by way of a processor, and there is none.
    if let Err(error) = qtest.port_in(0, PortWidth::One) {
        return Err(qemu.explain(error));
    }
    let at = PathBuf::from(format!("/proc/{}", qemu.id()));
    let unseen = |error: std::io::Error| ProcessError::Start {
        program: program.as_os_str().to_owned(),
        error: format!("what it starts is not to be seen: {error}"),
    };
    let runs = fs::read_link(at.join("exe")).map_err(unseen)?;
    if fs::canonicalize(&interpreter).is_ok_and(|shell| shell == runs) {
        qemu.end_all();
        return Err(wrong(
            "it waits for the QEMU that it starts: start that with `exec`, in its place",
        ));
    }
    let mut files: Vec<PathBuf> = Vec::new();
    for line in fs::read_to_string(at.join("maps")).map_err(unseen)?.lines() {
        let path = line.find('/').and_then(|at| line.get(at..)).map(PathBuf::from);
        if let Some(path) = path.filter(|path| path.is_file() && !files.contains(path)) {
            files.push(path);
        }
    }
    for file in files.clone() {
        let beside = file.parent().and_then(|folder| fs::read_dir(folder).ok());
        let links = beside.into_iter().flatten().flatten().filter(|entry| {
            entry.file_type().is_ok_and(|kind| kind.is_symlink())
                && fs::canonicalize(entry.path()).is_ok_and(|path| path == file)
        });
        files.extend(links.map(|entry| entry.path()));
    }
    let variables = fs::read(at.join("environ")).map_err(unseen)?;
    let modules = variables.split(|byte| *byte == 0).find_map(|one| one.strip_prefix(MODULES));
    let modules = modules.map(|path| PathBuf::from(OsStr::from_bytes(path)));
    folders.extend(modules.filter(|folder| folder.is_dir()));
    Ok(Script { interpreter, runs, files })
}
