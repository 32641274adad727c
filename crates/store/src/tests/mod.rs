//! Tests with real processes. They run one after the other: a child inherits every open arena, and with it the lock of
//! its file.

mod basic;
mod crashes;
mod damage;
mod locks;
mod processes;
mod room;
mod turns;

use std::os::fd::RawFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use tempfile::TempDir;

use crate::alloc::Heap;
use crate::{Arena, Options, Recovery, Usage};

pub(super) const BOOT: [u8; 16] = [1; 16];
pub(super) const MIB: u64 = 1 << 20;

/// A folder for one test, while no other test runs.
pub(super) struct Bench {
    dir: TempDir,
    _alone: MutexGuard<'static, ()>,
}

pub(super) fn bench() -> Bench {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let shm = std::path::Path::new("/dev/shm");
    let dir = if shm.is_dir() {
        TempDir::new_in(shm)
    } else {
        TempDir::new()
    };
    Bench {
        dir: dir.unwrap(),
        _alone: alone,
    }
}

impl Bench {
    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join("arena")
    }

    pub(super) fn open(&self, size: u64) -> (Arena, Recovery) {
        Arena::open(
            &self.path(),
            &Options {
                size,
                boot_id: BOOT,
            },
        )
        .unwrap()
    }
}

/// A forked process. Killed and reaped when dropped.
pub(super) struct Child {
    pid: libc::pid_t,
    reaped: bool,
}

/// Runs `work` in a child. It ends with 0, or 1 if `work` panicked.
pub(super) fn fork(work: impl FnOnce()) -> Child {
    // SAFETY: the child uses what this thread owns, and ends by _exit without running anything of its parent.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let code = i32::from(catch_unwind(AssertUnwindSafe(work)).is_err());
        // SAFETY: ends the process.
        unsafe { libc::_exit(code) }
    }
    Child { pid, reaped: false }
}

impl Child {
    pub(super) fn pid(&self) -> u32 {
        self.pid as u32
    }

    /// Waits for its end. True if it ended well; false if it was killed by SIGKILL. Anything else fails the test.
    pub(super) fn join(mut self) -> bool {
        let start = Instant::now();
        let mut status = 0;
        // SAFETY: our own child, reaped once.
        while unsafe { libc::waitpid(self.pid, &mut status, libc::WNOHANG) } == 0 {
            assert!(start.elapsed() < Duration::from_secs(30), "child hangs");
            std::thread::sleep(Duration::from_micros(200));
        }
        self.reaped = true;
        if libc::WIFSIGNALED(status) {
            assert_eq!(libc::WTERMSIG(status), libc::SIGKILL);
            return false;
        }
        assert_eq!(libc::WEXITSTATUS(status), 0, "child failed");
        true
    }

    pub(super) fn kill(&self) {
        // SAFETY: our own child, not reaped yet.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
    }

    /// Waits until it is dead, and leaves it a zombie until this is dropped.
    pub(super) fn until_zombie(&self) {
        // SAFETY: zero is a valid siginfo; waitid fills it in.
        let code = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(
                libc::P_PID,
                self.pid as libc::id_t,
                &mut info,
                libc::WEXITED | libc::WNOWAIT,
            )
        };
        assert_eq!(code, 0);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            // SAFETY: our own child, reaped once.
            unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) };
        }
    }
}

/// Runs `work` in so many children, which start when all are there.
pub(super) fn together(arena: &Arena, count: u64, work: impl Fn(u64)) {
    let there = arena.counter(0);
    there.store(0, SeqCst);
    let start = |n| {
        fork(|| {
            there.fetch_add(1, SeqCst);
            while there.load(SeqCst) < count {
                std::thread::yield_now();
            }
            work(n);
        })
    };
    let children: Vec<_> = (0..count).map(start).collect();
    assert!(children.into_iter().all(Child::join));
}

/// A byte from one process to another.
pub(super) struct Signal {
    read: RawFd,
    write: RawFd,
}

pub(super) fn signal() -> Signal {
    let mut ends = [0; 2];
    // SAFETY: the kernel fills in two descriptors.
    let code = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) };
    assert_eq!(code, 0);
    Signal {
        read: ends[0],
        write: ends[1],
    }
}

impl Signal {
    pub(super) fn give(&self) {
        // SAFETY: one byte from a live buffer.
        let written = unsafe { libc::write(self.write, [0u8].as_ptr().cast(), 1) };
        assert_eq!(written, 1);
    }

    pub(super) fn await_one(&self) {
        let mut poll = libc::pollfd {
            fd: self.read,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one descriptor, one byte, both live.
        unsafe {
            assert_eq!(libc::poll(&mut poll, 1, 20_000), 1, "no signal came");
            assert_eq!(libc::read(self.read, [0u8].as_mut_ptr().cast(), 1), 1);
        }
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        // SAFETY: our own descriptors, closed once.
        unsafe {
            libc::close(self.read);
            libc::close(self.write);
        }
    }
}

/// Sleeps until it is killed.
pub(super) fn sleep_for_good() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

pub(super) fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

pub(super) fn below(rng: &mut ChaCha8Rng, end: usize) -> usize {
    rng.next_u64() as usize % end
}

/// A record that can be told from a damaged or foreign one: the key, a number, and bytes that follow from both.
pub(super) fn sealed(key: &[u8], number: u32, len: usize) -> Vec<u8> {
    let mut out = vec![key.len() as u8];
    out.extend_from_slice(key);
    out.extend_from_slice(&number.to_le_bytes());
    // One pattern repeated, as checking byte by byte is slow without optimisation
    let pattern: [u8; 251] =
        std::array::from_fn(|at| (number as u8).wrapping_add(at as u8).wrapping_mul(31));
    while out.len() < len {
        let more = pattern.len().min(len - out.len());
        out.extend_from_slice(&pattern[..more]);
    }
    out
}

/// The number in a record of [`sealed`], which must be this key's and whole.
pub(super) fn unseal(key: &[u8], record: &[u8]) -> u32 {
    let at = 1 + key.len();
    let number = u32::from_le_bytes(record[at..at + 4].try_into().unwrap());
    assert!(
        record == sealed(key, number, record.len()),
        "record of {key:?} is not whole"
    );
    number
}

/// A record of [`sealed`] must be whole.
pub(super) fn check(key: &[u8], record: &[u8]) {
    unseal(key, record);
}

/// What must be back where it was when nothing is lost.
pub(super) fn footprint(arena: &Arena) -> (u64, u64, u64, u64) {
    Heap::lock(arena.map()).check();
    let Usage {
        used_bytes,
        free_bytes,
        records,
        slots_free,
        ..
    } = arena.usage();
    (used_bytes, free_bytes, records, slots_free)
}

pub(super) fn keys(arena: &Arena) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    arena.for_each(|key, _| keys.push(key.to_vec())).unwrap();
    keys
}

pub(super) fn remove_all(arena: &Arena) {
    for key in keys(arena) {
        arena.lock(&key).unwrap().unwrap().remove();
    }
}
