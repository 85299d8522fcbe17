//! An outside reader: `lspci -F` decodes the hand-typed configuration spaces, and what it finds is
//! what our text form says.
//!
//! **Invariant**: without `lspci` every trial is shown as ignored, with the reason before its name.

mod images;

use std::process::{Command, ExitCode};

use cxl_regs::text::ConfigText;
use libtest_mimic::{Arguments, Failed, Trial};

/// A dump as `lspci -xxxx` prints it.
fn dump(bdf: &str, bytes: &[u8]) -> String {
    let lines = bytes.chunks(16).enumerate().map(|(line, chunk)| {
        let bytes: String = chunk.iter().map(|byte| format!(" {byte:02x}")).collect();
        format!("{:02x}:{bytes}\n", line * 16)
    });
    format!("{bdf} Class 0000: a function\n{}", lines.collect::<String>())
}

/// What `lspci` says of a configuration space.
fn lspci(bdf: &str, bytes: &[u8]) -> Result<String, Failed> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("dump");
    std::fs::write(&file, dump(bdf, bytes))?;
    let output = Command::new("lspci").arg("-F").arg(&file).args(["-vvv", "-nn"]).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Each fact in lspci's words and in ours.
fn agree(bdf: &str, bytes: &[u8], facts: &[(&str, &str)]) -> Result<(), Failed> {
    let theirs = lspci(bdf, bytes)?;
    let ours = ConfigText(bytes).to_string();
    // Its releases differ in blanks: 3.9 has `Mem HW Init+`, 3.13 `MemHWInit+`.
    let squeezed = |text: &str| text.split_whitespace().collect::<String>();
    let lines: Vec<_> = theirs.lines().map(squeezed).collect();
    for (fact, in_ours) in facts {
        if !lines.iter().any(|line| line.contains(&squeezed(fact))) {
            return Err(format!("lspci does not say {fact:?}:\n{theirs}").into());
        }
        if !ours.contains(in_ours) {
            return Err(format!("the text form does not say {in_ours:?}:\n{ours}").into());
        }
    }
    Ok(())
}

fn endpoint_reads_the_same() -> Result<(), Failed> {
    agree(
        "0d:00.0",
        &images::endpoint(),
        &[
            ("[8086:0d93]", "endpoint 8086:0d93"),
            ("prog-if 10", "class 0x050210, CXL memory device"),
            ("Region 0: Memory at 10fe800000 (64-bit, non-prefetchable)", "0x00000010fe800000"),
            ("Region 2: Memory at 10fe900000 (64-bit, prefetchable)", "0x00000010fe900000"),
            ("[80] Express (v2) Endpoint", "type              0x0  endpoint"),
            ("FLReset+", "Function Level Reset"),
            ("LnkSta:\tSpeed 32GT/s, Width x16", "link              x16, 32.0 GT/s"),
            (
                "[100 v1] Designated Vendor-Specific: Vendor=1e98 ID=0000 Rev=3 Len=60: CXL",
                "DVSEC 0x100: CXL device, revision 3, 60 bytes",
            ),
            (
                "CXLCap:\tCache- IO+ Mem+ Mem HW Init+ HDMCount 1 Viral-",
                "0x001e  IO_Capable, Mem_Capable, Mem_HwInit_Mode, HDM_Count 0x1\n",
            ),
            ("CXLCtl:\tCache- IO+ Mem+", "0x0006  IO_Enable, Mem_Enable\n"),
            ("CXLSta2:\tResetComplete+ ResetError-", "0x0002  CXL Reset Complete\n"),
            ("Range1: 0000001090000000-00000012cfffffff", "range 1 base      0x0000001090000000"),
            ("Valid+ Active+ Type=CDAT Class=CDAT", "active, media see CDAT, class see CDAT"),
            ("interleave=4096 timeout=64s", "active within 64 s, wants interleave at 4 KiB"),
            ("Valid- Active-", "range 2           Memory_Info_Valid is 0"),
            ("[13c v1] Designated Vendor-Specific: Vendor=1e98 ID=0005", "DVSEC 0x13c: GPF for"),
            ("GPF Phase 2 Duration: 3s", "phase 2 duration  3000 ms"),
            ("GPF Phase 2 Power: 51mW", "phase 2 power     51 mW"),
            ("[14c v1] Designated Vendor-Specific: Vendor=1e98 ID=0007", "DVSEC 0x14c: Flex Bus"),
            (
                "FBSta:\tCache- IO+ Mem+ SynHdrByp- DrftBuf- 68BFlit+",
                "IO_Enabled, Mem_Enabled, CXL_68B_Flit_and_VH_Enabled\n",
            ),
            ("FBCap2:\tNOPHint+", "0x00000001  NOP_Hint_Capable\n"),
            ("[16c v1] Designated Vendor-Specific: Vendor=1e98 ID=0008", "DVSEC 0x16c: register l"),
            (
                "Block1: BIR: bar0, ID: component registers, offset: 0000000000000000",
                "entry 0           0x0000000000000000  bar 0, component registers\n",
            ),
            (
                "Block2: BIR: bar2, ID: CXL device registers, offset: 0000000100030000",
                "entry 1           0x0000000100030000  bar 2, device registers\n",
            ),
        ],
    )
}

fn root_port_reads_the_same() -> Result<(), Failed> {
    agree(
        "0c:00.0",
        &images::root_port(),
        &[
            ("PCI bridge [0604]", "class 0x060400, PCI bridge"),
            ("DisINTx+", "Interrupt Disable"),
            ("Bus: primary=0c, secondary=0d, subordinate=0d", "buses             0x000d0d0c"),
            ("Memory behind bridge: fe800000-fe9fffff [size=2M]", "0xfe800000-0xfe9fffff  2 MiB"),
            (
                "Prefetchable memory behind bridge: 0000001000000000-00000010ffffffff [size=4G]",
                "0x1000000000-0x10ffffffff  4 GiB",
            ),
            ("<MAbort+", "0x2000  Received Master Abort\n"),
            (
                "BridgeCtl: Parity- SERR+ NoISA- VGA- VGA16- MAbort- >Reset-",
                "0x0002  SERR# Enable\n",
            ),
            ("[40] Express (v2) Root Port (Slot+)", "type              0x4  root port"),
            ("LnkCap:\tPort #7", "port number       0x07  port 7"),
            ("Vendor=1e98 ID=0003 Rev=0 Len=40: CXL", "extensions for ports, revision 0, 40 bytes"),
            (
                "CXLPortCtl:\tUnmaskSBR+ UnmaskLinkDisable+ AltMem- AltBME- ViralEnable+",
                "0x4003  Unmask SBR, Unmask Link Disable, Viral Enable\n",
            ),
            ("AlternateBus:\t20-2f", "alt bus limit     0x2f"),
            ("AlternateBus:\td000-d0f0", "alt memory limit  0xd0f0"),
            ("Vendor=1e98 ID=0004 Rev=0 Len=16: CXL", "GPF for port, revision 0, 16 bytes"),
            ("GPF Phase 1 Timeout: 2s", "phase 1 timeout   2000 ms"),
            ("GPF Phase 2 Timeout: 500ms", "phase 2 timeout   500 ms"),
            ("Vendor=1e98 ID=0007 Rev=1 Len=20: CXL", "Flex Bus port, revision 1, 20 bytes"),
            ("FBModTS:\tReceived FB Data: 0000ef", "Received_Flex_Bus_Data_Phase_1 0xef"),
            ("Vendor=1e98 ID=0008 Rev=0 Len=20: CXL", "register locator, revision 0, 20 bytes"),
        ],
    )
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let missing = Command::new("lspci").arg("--version").output().is_err();
    let reason = if missing { "lspci is not installed" } else { "" };
    let trials = [
        Trial::test("endpoint_reads_the_same", endpoint_reads_the_same),
        Trial::test("root_port_reads_the_same", root_port_reads_the_same),
    ]
    .map(|trial| trial.with_ignored_flag(missing).with_kind(reason));
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}
