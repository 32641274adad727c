//! Entropy for ids, tags and tokens: a generator of each process, fit for secrets.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Once;

use rand_chacha::ChaCha20Rng;
use rand_core::{CryptoRng, Error, RngCore, SeedableRng};

/// Rises in the child of every fork: a generator of before would give parent and child the same secrets.
static FORKS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static RNG: RefCell<Option<(u64, ChaCha20Rng)>> = const { RefCell::new(None) };
}

extern "C" fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// The generator of this process, seeded by the kernel at first use after each fork.
pub struct Generator;

fn with<T>(run: impl FnOnce(&mut ChaCha20Rng) -> T) -> T {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        // SAFETY: `forked` does nothing but an atomic add, so it may run between fork and anything else
        unsafe { libc::pthread_atfork(None, None, Some(forked)) };
    });
    let forks = FORKS.load(Ordering::Relaxed);
    RNG.with(|slot| {
        let mut slot = slot.borrow_mut();
        match slot.as_mut() {
            Some((seeded, rng)) if *seeded == forks => run(rng),
            _ => run(&mut slot.insert((forks, ChaCha20Rng::from_entropy())).1),
        }
    })
}

impl RngCore for Generator {
    fn next_u32(&mut self) -> u32 {
        with(RngCore::next_u32)
    }

    fn next_u64(&mut self) -> u64 {
        with(RngCore::next_u64)
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        with(|rng| rng.fill_bytes(dest));
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

impl CryptoRng for Generator {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parent and child must not draw the same numbers.
    #[test]
    fn a_fork_changes_the_numbers() {
        let mut before = [0u8; 16];
        Generator.fill_bytes(&mut before);
        let mut pipe = [0; 2];
        // SAFETY: `pipe` has room for two descriptors
        assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
        // SAFETY: the child calls only what may follow a fork: it draws from memory, writes and exits
        let child = unsafe { libc::fork() };
        let mut drawn = [0u8; 16];
        Generator.fill_bytes(&mut drawn);
        if child == 0 {
            // SAFETY: writes 16 bytes of its own and leaves without running anything of the parent's
            unsafe {
                libc::write(pipe[1], drawn.as_ptr().cast(), drawn.len());
                libc::_exit(0);
            }
        }
        let mut of_child = [0u8; 16];
        // SAFETY: `of_child` has room for 16 bytes; the child is ours to wait for
        unsafe {
            assert_eq!(libc::read(pipe[0], of_child.as_mut_ptr().cast(), 16), 16);
            libc::waitpid(child, std::ptr::null_mut(), 0);
            libc::close(pipe[0]);
            libc::close(pipe[1]);
        }
        assert_ne!(of_child, drawn);
        assert_ne!(of_child, before);
    }
}
