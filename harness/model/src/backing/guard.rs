//! Files behind memory can fail a store: the disk is full, or somebody has cut the file. The kernel
//! says so by SIGBUS, which would end the process without a word. Where the address lies in a mapping
//! that is guarded, the page becomes an anonymous one, which is counted, and the process goes on to
//! report it: what was and is stored to that page is lost.
//!
//! **Invariant**: a SIGBUS about anything else ends up with whoever would have had it. The handler
//! makes one system call and touches atomic integers alone.

use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use vm_memory::MmapRegion;

use super::HOST_PAGE;

/// Mappings that can be guarded at a time: more than a machine has files.
const MOST: usize = 1024;

/// A mapping; free if `end` is 0.
struct Entry {
    taken: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    lost: AtomicU64,
}

static ENTRIES: [Entry; MOST] = [const {
    Entry {
        taken: AtomicUsize::new(0),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        lost: AtomicU64::new(0),
    }
}; MOST];

/// Pages lost by all mappings of this process so far.
static LOST: AtomicU64 = AtomicU64::new(0);

/// What answered SIGBUS before: its function and its flags.
static BEFORE: AtomicPtr<libc::c_void> = AtomicPtr::new(std::ptr::null_mut());
static BEFORE_FLAGS: AtomicI32 = AtomicI32::new(0);

/// Keeps a mapping guarded. To be dropped before the mapping is.
#[derive(Debug)]
pub(super) struct Guard(Option<usize>);

impl Guard {
    /// Guards a mapping of a file, if there is room for one more.
    pub(super) fn of(region: &MmapRegion) -> Self {
        static INSTALL: Once = Once::new();
        INSTALL.call_once(install);
        let free = |entry: &Entry| {
            entry.taken.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        let found = ENTRIES.iter().position(free);
        if let Some(entry) = found.and_then(|index| ENTRIES.get(index)) {
            let start = region.as_ptr() as usize;
            entry.lost.store(0, Ordering::Relaxed);
            entry.start.store(start, Ordering::Relaxed);
            entry.end.store(start + region.size(), Ordering::Release);
        }
        Self(found)
    }

    /// Pages that were lost.
    pub(super) fn lost(&self) -> u64 {
        let entry = self.0.and_then(|index| ENTRIES.get(index));
        entry.map_or(0, |entry| entry.lost.load(Ordering::Acquire))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(entry) = self.0.and_then(|index| ENTRIES.get(index)) {
            entry.end.store(0, Ordering::Release);
            entry.taken.store(0, Ordering::Release);
        }
    }
}

/// Pages that files behind memory have lost in this process: whoever runs a guest ends it then.
pub fn lost_pages() -> u64 {
    LOST.load(Ordering::Acquire)
}

fn install() {
    let mut before = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks for the present handler; the place has room for it.
    if unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), before.as_mut_ptr()) } != 0 {
        return;
    }
    // SAFETY: the call has filled it in.
    let before = unsafe { before.assume_init() };
    BEFORE.store(before.sa_sigaction as *mut libc::c_void, Ordering::Relaxed);
    BEFORE_FLAGS.store(before.sa_flags, Ordering::Relaxed);
    // On the stack that the standard library gives each thread for such signals.
    let ours = libc::sigaction {
        sa_sigaction: bus_error as *const () as usize,
        sa_flags: libc::SA_SIGINFO | libc::SA_ONSTACK,
        ..before
    };
    // SAFETY: the handler keeps to what handlers may do; see there.
    unsafe { libc::sigaction(libc::SIGBUS, &ours, std::ptr::null_mut()) };
}

/// The handler.
extern "C" fn bus_error(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel hands a handler with SA_SIGINFO the facts of its signal.
    let info_of = unsafe { &*info };
    // SAFETY: a SIGBUS has an address.
    let address = unsafe { info_of.si_addr() } as usize;
    let mut entries = ENTRIES.iter();
    let entry = entries.find(|entry| {
        let end = entry.end.load(Ordering::Acquire);
        end != 0 && (entry.start.load(Ordering::Relaxed)..end).contains(&address)
    });
    if let Some(entry) = entry {
        let page = address & !(HOST_PAGE as usize - 1);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        let length = HOST_PAGE as usize;
        // SAFETY: the page lies in a mapping that is guarded for as long as it is mapped, and all of
        // whose users take it for memory whose contents anybody may change.
        let new = unsafe { libc::mmap(page as *mut _, length, protection, flags, -1, 0) };
        if new != libc::MAP_FAILED {
            entry.lost.fetch_add(1, Ordering::AcqRel);
            LOST.fetch_add(1, Ordering::AcqRel);
            return;
        }
    }
    let before = BEFORE.load(Ordering::Relaxed);
    let whose = before as usize;
    if whose == libc::SIG_DFL || whose == libc::SIG_IGN {
        // SAFETY: the default action is in place again, and meets the access that is repeated.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    } else if BEFORE_FLAGS.load(Ordering::Relaxed) & libc::SA_SIGINFO != 0 {
        type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
        // SAFETY: it was installed as a function of this type.
        let handler = unsafe { std::mem::transmute::<*mut libc::c_void, Handler>(before) };
        handler(signal, info, context);
    } else {
        // SAFETY: as above, of the other type.
        let handler =
            unsafe { std::mem::transmute::<*mut libc::c_void, extern "C" fn(libc::c_int)>(before) };
        handler(signal);
    }
}
