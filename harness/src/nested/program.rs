//! What a program needs beside itself: its interpreter and the libraries that it names.
//!
//! **Invariant**: what is needed is what the program's own interpreter says; nothing is guessed from
//! names, and a library that it does not find is an error that names it.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::linux::{NotElf, interpreter};

/// Why a program cannot run elsewhere.
#[derive(Debug)]
pub enum ProgramError {
    /// It cannot be read.
    File {
        /// The program.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It is no 64-bit ELF program.
    NotElf(PathBuf),
    /// Its interpreter does not say what it needs.
    Interpreter {
        /// The program.
        path: PathBuf,
        /// Its interpreter.
        interpreter: PathBuf,
        /// What that says.
        words: String,
    },
    /// A library is not where its interpreter looks.
    NoLibrary {
        /// The program.
        path: PathBuf,
        /// The library.
        library: String,
    },
}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, error } => write!(f, "{}: {error}", path.display()),
            Self::NotElf(path) => write!(
                f,
                "{}: expected a program for x86-64 Linux (ELF, 64 bits), found something else",
                path.display()
            ),
            Self::Interpreter { path, interpreter, words } => write!(
                f,
                "{}: {} --list does not say which libraries it needs: {words}; give a static \
                 program with --harness FILE (cxl-harness nested --help says how to build one)",
                path.display(),
                interpreter.display()
            ),
            Self::NoLibrary { path, library } => {
                write!(f, "{}: it needs {library}, which is not found here", path.display())
            }
        }
    }
}

impl std::error::Error for ProgramError {}

/// The files that a program needs beside itself; none if it is static.
pub(super) fn libraries(path: &Path) -> Result<Vec<PathBuf>, ProgramError> {
    let file = |error| ProgramError::File { path: path.to_owned(), error };
    let bytes = fs::read(path).map_err(file)?;
    let named = interpreter(&bytes).map_err(|NotElf| ProgramError::NotElf(path.to_owned()))?;
    let Some(named) = named else { return Ok(Vec::new()) };
    let interpreter = PathBuf::from(OsStr::from_bytes(named));
    let refused = |words: String| ProgramError::Interpreter {
        path: path.to_owned(),
        interpreter: interpreter.clone(),
        words,
    };
    // What `ldd` does; the C libraries of Linux agree on it.
    let output = Command::new(&interpreter).arg("--list").arg(path).output();
    let output = output.map_err(|error| refused(error.to_string()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let missing = |library: String| ProgramError::NoLibrary { path: path.to_owned(), library };
    let mut all = listed(&text(&output.stdout)).map_err(missing)?;
    if !output.status.success() {
        return Err(refused(text(&output.stderr)));
    }
    if !all.contains(&interpreter) {
        all.push(interpreter);
    }
    Ok(all)
}

/// The same of a file that goes along: none but of a program, of an interpreter that is in `known` already, as
/// no other is started for a file that may come from anywhere. One that does not run here goes as it is: it
/// may be another system's, with a loader and libraries of its own beside it.
pub(super) fn libraries_of_file(
    path: &Path,
    known: &[PathBuf],
) -> Result<Vec<PathBuf>, ProgramError> {
    let is_program = |it: fs::Metadata| it.is_file() && it.permissions().mode() & 0o111 != 0;
    if !fs::metadata(path).is_ok_and(is_program) {
        return Ok(Vec::new());
    }
    let bytes =
        fs::read(path).map_err(|error| ProgramError::File { path: path.to_owned(), error })?;
    match interpreter(&bytes) {
        Ok(Some(named)) if known.iter().any(|one| one.as_os_str().as_bytes() == named) => {
            match libraries(path) {
                Err(ProgramError::Interpreter { .. } | ProgramError::NoLibrary { .. }) => {
                    Ok(Vec::new())
                }
                found => found,
            }
        }
        _ => Ok(Vec::new()),
    }
}

/// The files of a list, `NAME => PATH (ADDRESS)` or `PATH (ADDRESS)` a line; the name of one that is
/// not found. What has no path is the kernel's own.
fn listed(text: &str) -> Result<Vec<PathBuf>, String> {
    let mut all: Vec<PathBuf> = Vec::new();
    for line in text.lines().map(str::trim) {
        let (name, place) = line.split_once(" => ").unwrap_or((line, line));
        if place.starts_with("not found") {
            return Err(name.to_owned());
        }
        let path = place.rsplit_once(" (").map_or(place, |(path, _)| path);
        let path = Path::new(path);
        if path.is_absolute() && !all.iter().any(|known| known == path) {
            all.push(path.to_owned());
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_what_is_found_once_and_names_what_is_not() {
        let list = "\
\tlinux-vdso.so.1 (0x00007f4300d3f000)
\tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x00007f43005d7000)
\tlibc.so.6 => /opt/a (b)/libc.so.6 (0x00007f43003f5000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f4300d41000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f4300d41000)
";
        let want = [
            "/lib/x86_64-linux-gnu/libgcc_s.so.1",
            "/opt/a (b)/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(listed(list), Ok(want.map(PathBuf::from).to_vec()));
        assert_eq!(listed("\tlibfoo.so.1 => not found\n"), Err("libfoo.so.1".to_owned()));
    }

    #[test]
    fn this_program_names_its_libraries_and_a_script_is_no_program() {
        let this = std::env::current_exe().expect("a path");
        for library in libraries(&this).expect("its libraries") {
            assert!(library.is_file(), "{}", library.display());
        }
        let script = tempfile::NamedTempFile::new().expect("a file");
        fs::write(script.path(), "#!/bin/sh\n").expect("written");
        assert!(matches!(libraries(script.path()), Err(ProgramError::NotElf(_))));
    }
}
