//! Files beside the driver: its text, and what is started afterwards.
//!
//! **Invariant**: a file that is there and cannot be read is no file that is not there.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use cxl_uefi::settings::MAX_LINE;
use uefi::boot::{self, LoadImageSource};
use uefi::proto::BootPolicy;
use uefi::proto::device_path::build::{self, DevicePathBuilder};
use uefi::proto::device_path::{DevicePath, DevicePathNodeEnum};
use uefi::proto::loaded_image::LoadedImage;
use uefi::{CString16, Status};

/// The text file, in the driver's folder.
const NAME: &str = "cxl.txt";

/// The text that says the policy, and where it is from. What cannot be read has a word that nobody
/// knows, so that it is refused.
pub(crate) fn settings() -> (String, String) {
    let path = format!("{}{NAME}", folder().unwrap_or_else(|| "\\".to_owned()));
    let text = CString16::try_from(path.as_str()).ok().and_then(|name| {
        let protocol = boot::get_image_file_system(boot::image_handle()).ok()?;
        let mut files = uefi::fs::FileSystem::new(protocol);
        let there = files.try_exists(name.as_ref()).ok()?;
        there.then(|| files.read(name.as_ref()))
    });
    match text {
        None => (String::new(), format!("no {path}")),
        Some(Ok(bytes)) => match String::from_utf8(bytes) {
            Ok(text) => (text, path),
            Err(_) => ("(not text)".to_owned(), path),
        },
        Some(Err(_)) => ("(unreadable)".to_owned(), path),
    }
}

/// The folder that the driver was loaded from, with the `\` at its end.
fn folder() -> Option<String> {
    let image = boot::open_protocol_exclusive::<LoadedImage>(boot::image_handle()).ok()?;
    let mut path = String::new();
    for node in image.file_path()?.node_iter() {
        if let Ok(DevicePathNodeEnum::MediaFilePath(part)) = node.as_enum() {
            let part = part.path_name().to_cstring16().ok()?;
            path.push_str(&format!("\\{part}"));
        }
    }
    let end = path.rfind('\\')? + 1;
    path.truncate(end);
    Some(path.replace("\\\\", "\\"))
}

/// Starts a program from the driver's file system, with a command line; a kernel finds its initial RAM
/// disk by the word `initrd=`. Returns when it does.
pub(crate) fn start(
    path: &str,
    initrd: Option<&str>,
    line: &str,
) -> Result<(), (&'static str, Status)> {
    let failed = |what| move |error: uefi::Error| (what, error.status());
    let device = {
        let image = boot::open_protocol_exclusive::<LoadedImage>(boot::image_handle())
            .map_err(failed("the driver's own image"))?;
        image.device().ok_or(("the driver's file system", Status::NOT_FOUND))?
    };
    let disk = boot::open_protocol_exclusive::<DevicePath>(device)
        .map_err(failed("the driver's file system"))?;
    let name = CString16::try_from(path).map_err(|_| ("its name", Status::INVALID_PARAMETER))?;
    let mut bytes = Vec::new();
    let mut builder = DevicePathBuilder::with_vec(&mut bytes);
    let no_path = |_| ("its device path", Status::OUT_OF_RESOURCES);
    for node in disk.node_iter() {
        builder = builder.push(&node).map_err(no_path)?;
    }
    let builder = builder.push(&build::media::FilePath { path_name: &name }).map_err(no_path)?;
    let whole = builder.finalize().map_err(no_path)?;
    drop(disk);
    let source =
        LoadImageSource::FromDevicePath { device_path: whole, boot_policy: BootPolicy::ExactMatch };
    let image = boot::load_image(boot::image_handle(), source).map_err(failed("loading it"))?;
    let line = match initrd {
        Some(initrd) => format!("initrd={initrd} {line}"),
        None => line.to_owned(),
    };
    debug_assert!(line.len() <= 2 * MAX_LINE + 8);
    let line = CString16::try_from(line.as_str())
        .map_err(|_| ("its command line", Status::INVALID_PARAMETER))?;
    {
        let mut loaded = boot::open_protocol_exclusive::<LoadedImage>(image)
            .map_err(failed("its loaded image"))?;
        let size = line.num_bytes() as u32;
        // SAFETY: the text lives until the program has returned, below.
        unsafe { loaded.set_load_options(line.as_ptr().cast(), size) };
    }
    boot::start_image(image).map_err(failed("starting it"))
}
