//! Who holds a lock: the process id with a little of the process's start time, so that a process that got the id of a
//! dead one later is not taken for it.

use std::fs;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::OnceLock;

/// Linux never gives ids of 2^22 or above (`PID_MAX_LIMIT`).
const PID_BITS: u32 = 22;
const PID_MASK: u32 = (1 << PID_BITS) - 1;
/// The start time is folded to 1..=511; 0 says that /proc told nothing.
const TAGS: u64 = 511;
/// All bits an owner can have. The bit above is free for the lock word.
pub(crate) const OWNER_MASK: u32 = (1 << 31) - 1;

/// This process as an owner. Never 0.
///
/// The value is cached in a page that the kernel wipes in a forked child (`MADV_WIPEONFORK`), so the uncontended path
/// makes no system call and a child never takes itself for its parent.
pub(crate) fn me() -> u32 {
    let Some(cell) = CELL.get_or_init(wiped_on_fork) else {
        return pid();
    };
    match cell.load(Relaxed) {
        0 => {
            let id = pid() | (own_tag() << PID_BITS);
            cell.store(id, Relaxed);
            id
        }
        id => id,
    }
}

/// The process id in an owner.
pub(crate) fn pid_of(owner: u32) -> u32 {
    owner & PID_MASK
}

/// Is the process gone? A zombie counts as gone: its address space was given up before it became one, so it stores
/// nothing any more. When in doubt the answer is no, since a lock must never be taken from the living.
pub(crate) fn is_dead(owner: u32) -> bool {
    let pid = pid_of(owner);
    if pid == 0 {
        return true;
    }
    // SAFETY: signal 0 only asks whether the process exists.
    let known = unsafe { libc::kill(pid as libc::pid_t, 0) } == 0;
    if !known && std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH) {
        return true;
    }
    let tag = (owner & OWNER_MASK) >> PID_BITS;
    if tag == 0 {
        // The owner could not read its own entry, so this /proc may show another pid namespace
        return false;
    }
    match fs::read(format!("/proc/{pid}/stat"))
        .ok()
        .as_deref()
        .and_then(parse_stat)
    {
        Some(stat) => matches!(stat.state, b'Z' | b'X' | b'x') || fold(stat.start) != tag,
        None => false,
    }
}

static CELL: OnceLock<Option<&'static AtomicU32>> = OnceLock::new();

fn wiped_on_fork() -> Option<&'static AtomicU32> {
    const LEN: usize = 4096;
    // SAFETY: a new private anonymous page; nothing else knows its address.
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            LEN,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: `page` is the mapping made above, of this length.
    if unsafe { libc::madvise(page, LEN, libc::MADV_WIPEONFORK) } != 0 {
        // SAFETY: as above; no reference to it exists yet.
        unsafe { libc::munmap(page, LEN) };
        return None;
    }
    // SAFETY: the page is aligned, zeroed, never unmapped from here on, and used as nothing but this atomic.
    Some(unsafe { &*page.cast::<AtomicU32>() })
}

fn pid() -> u32 {
    // SAFETY: getpid has no preconditions.
    unsafe { libc::getpid() as u32 & PID_MASK }
}

fn own_tag() -> u32 {
    match fs::read("/proc/self/stat")
        .ok()
        .as_deref()
        .and_then(parse_stat)
    {
        Some(stat) if stat.pid == pid() => fold(stat.start),
        _ => 0,
    }
}

fn fold(start: u64) -> u32 {
    (start % TAGS) as u32 + 1
}

struct Stat {
    pid: u32,
    state: u8,
    start: u64,
}

/// `pid (name) state ...`, proc_pid_stat(5). The name may hold anything, even `)`.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let open = text.iter().position(|&b| b == b'(')?;
    let close = text.iter().rposition(|&b| b == b')')?;
    let pid = std::str::from_utf8(&text[..open])
        .ok()?
        .trim()
        .parse()
        .ok()?;
    let mut fields = std::str::from_utf8(text.get(close + 1..)?)
        .ok()?
        .split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    // state is field 3, starttime field 22
    let start = fields.nth(18)?.parse().ok()?;
    Some(Stat { pid, state, start })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_a_nasty_name() {
        let text = b"77 (a) Z (b) S 1 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 99 1";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.pid, stat.state, stat.start), (77, b'S', 4242));
        assert!(parse_stat(b"77 (a").is_none());
        assert!(parse_stat(b")77 (").is_none());
    }

    #[test]
    fn this_process_lives_and_another_start_time_is_another_process() {
        let me = me();
        assert_eq!(pid_of(me), std::process::id());
        assert!(!is_dead(me));
        let other_tag = me ^ (1 << PID_BITS);
        assert!(is_dead(other_tag));
        assert!(is_dead(0));
    }
}
