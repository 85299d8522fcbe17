//! `cxl-harness man`: the help as manual pages.
//!
//! **Invariant**: a folder gets every page, or none that is cut off.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _};
use cxl_harness::terminal::filled;

const EXAMPLES: &str = "\
Exit code:
  0  printed, or written
  2  bad usage, or a folder that cannot be written

Examples:
  cxl-harness man | man -l -
  cxl-harness man attack | man -l -
  cxl-harness man -o ~/.local/share/man/man1 && man cxl-harness-lint";

/// Print a manual page, or write all of them into a folder.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Man {
    /// The command whose page is printed [default: that of the whole program].
    #[arg(conflicts_with = "output")]
    command: Option<String>,

    /// Write every page into this folder, which is made.
    #[arg(long, short, value_name = "DIR", value_parser = super::output::folder_to_write())]
    output: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(self) -> ExitCode {
        let mut program = super::Cli::command();
        program.build();
        let name = program.get_name().to_owned();
        let mut pages = vec![(format!("{name}.1"), page(program.clone()))];
        for command in program.get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = format!("{name}-{}", command.get_name());
            pages.push((format!("{name}.1"), page(command.clone().display_name(name))));
        }
        let wanted =
            self.command.map_or(format!("{name}.1"), |command| format!("{name}-{command}.1"));
        let written = pages.into_iter().map(|(name, page)| Ok((name, page?)));
        let pages = match written.collect::<io::Result<Vec<_>>>() {
            Ok(pages) => pages,
            Err(error) => return super::fail(&format!("manual pages: {error}")),
        };
        if let Some(folder) = self.output {
            return match write(&folder, &pages) {
                Ok(()) => ExitCode::SUCCESS,
                Err(reason) => super::fail(&reason),
            };
        }
        match pages.iter().find(|(name, _)| *name == wanted) {
            Some((_, page)) => super::save(page, None),
            None => super::fail(&format!(
                "{}: no command; `cxl-harness --help` lists them",
                wanted.trim_start_matches(&format!("{name}-")).trim_end_matches(".1")
            )),
        }
    }
}

fn page(mut command: clap::Command) -> io::Result<Vec<u8>> {
    let end = command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string);
    command = command.after_help(None::<&str>).after_long_help(None::<&str>);
    let mut page = Vec::new();
    let source = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
    clap_mangen::Man::new(command).source(source).manual("CXL firmware").render(&mut page)?;
    let notes = notes(&end.unwrap_or_default());
    let page = String::from_utf8_lossy(&page);
    Ok(page.replace("\n.SH VERSION\n", &format!("\n{notes}.SH VERSION\n")).into_bytes())
}

/// Columns of a page of 80 that lie between its margins.
const COLUMNS: usize = 71;

/// The end of a help as a section. Its paragraphs are as wide as the page; what has columns, and what is
/// to be copied, keeps its lines, none of which is too long for 80 columns.
fn notes(end: &str) -> String {
    let mut notes = ".SH NOTES\n".to_owned();
    let mut kept = false;
    for line in filled(end, COLUMNS).lines() {
        if line.is_empty() {
            notes.push_str(".sp\n");
            continue;
        }
        let keep = line.starts_with(' ');
        if keep != kept {
            notes.push_str(if keep { ".nf\n" } else { ".fi\n" });
            kept = keep;
        }
        // What begins with one of these would be a request.
        if line.starts_with(['.', '\'']) {
            notes.push_str("\\&");
        }
        let line = line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\*(Aq");
        notes.push_str(&line);
        notes.push('\n');
    }
    notes + if kept { ".fi\n" } else { "" }
}

fn write(folder: &Path, pages: &[(String, Vec<u8>)]) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for (name, page) in pages {
        let path = folder.join(name);
        let named = |error: io::Error| format!("{}: {error}", path.display());
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(named)?;
        io::Write::write_all(&mut file, page).map_err(named)?;
        let file = file.persist(&path).map_err(|error| named(error.error))?;
        // A temporary file is its owner's alone.
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.set_permissions(everybody).map_err(named)?;
    }
    Ok(())
}
