//! Limits against abuse: who fails to register again and again has to wait, and calls come at a bounded rate.

use serde::{Deserialize, Serialize};

/// A failure is forgotten after this time divided by the limit, so that the limit is a number of failures within it.
const WINDOW: u64 = 600_000;
/// The first wait; each failure beyond the limit doubles it.
const FIRST_WAIT: u64 = 1_000;
/// The longest wait.
const LONGEST_WAIT: u64 = 300_000;

/// Wrong passwords of a DN, or of an address. Tries during a wait are not looked at, so they are no failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    count: u32,
    /// When the last one was counted or forgotten.
    at: u64,
    /// The next try may come then.
    until: u64,
}

impl Failures {
    /// Milliseconds until the next try.
    pub fn wait(&self, now: u64) -> u64 {
        self.until.saturating_sub(now)
    }

    /// One more, where so many are free (`limit`, not 0). Gives the wait that comes of it.
    pub fn failed(&mut self, limit: u32, now: u64) -> u64 {
        let each = WINDOW / u64::from(limit.max(1));
        let forgotten = now.saturating_sub(self.at) / each;
        match u32::try_from(forgotten) {
            Ok(forgotten) if forgotten < self.count => {
                self.count -= forgotten;
                self.at += u64::from(forgotten) * each;
            }
            _ => {
                self.count = 0;
                self.at = now;
            }
        }
        self.count = self.count.saturating_add(1);
        if let Some(beyond) = self.count.checked_sub(limit) {
            let wait = FIRST_WAIT << beyond.min(16);
            self.until = now + wait.min(LONGEST_WAIT);
        }
        self.wait(now)
    }

    /// When nothing of it is left to remember.
    pub fn forgotten_at(&self, limit: u32) -> u64 {
        let each = WINDOW / u64::from(limit.max(1));
        self.until.max(self.at + u64::from(self.count) * each)
    }
}

/// So many a second, and twice as many at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// In thousandths of a millisecond: when the bucket is full again.
    full_at: u64,
}

impl Rate {
    /// Takes one, or gives the milliseconds until there is one. `per_second` 0: no limit.
    ///
    /// # Errors
    /// The wait.
    pub fn take(&mut self, per_second: u32, now: u64) -> Result<(), u64> {
        if per_second == 0 {
            return Ok(());
        }
        let now = now * 1000;
        let each = 1_000_000 / u64::from(per_second);
        let full_at = self.full_at.max(now) + each;
        let room = now + 2 * each * u64::from(per_second);
        if full_at > room {
            return Err((full_at - room).div_ceil(1000));
        }
        self.full_at = full_at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_too_often_waits_longer_each_time() {
        let mut f = Failures::default();
        let mut now = 5_000_000;
        for _ in 0..9 {
            assert_eq!(f.failed(10, now), 0);
        }
        let mut waits = Vec::new();
        for _ in 0..10 {
            let wait = f.failed(10, now);
            assert_eq!(f.wait(now), wait);
            waits.push(wait / 1000);
            now += wait;
            assert_eq!(f.wait(now), 0);
        }
        // after 63 s and again after 60 s the oldest failure is forgotten: what it would have doubled stays
        assert_eq!(waits[..6], [1, 2, 4, 8, 16, 32]);
        assert!(
            waits[6..].iter().all(|w| (32..=300).contains(w)),
            "{waits:?}"
        );
    }

    #[test]
    fn guessing_for_a_day_is_bounded() {
        let (mut f, mut now, mut tries) = (Failures::default(), 1_000_000, 0);
        let end = now + 86_400_000;
        while now < end {
            now += f.failed(10, now).max(1);
            tries += 1;
        }
        assert!((1000..2000).contains(&tries), "{tries}");
    }

    #[test]
    fn failures_are_forgotten_one_after_the_other() {
        let mut f = Failures::default();
        for _ in 0..9 {
            f.failed(10, 1_000_000);
        }
        assert_eq!(f.forgotten_at(10), 1_000_000 + 9 * 60_000);
        // three are forgotten after three minutes, and no sooner
        let mut early = f;
        assert_eq!((early.failed(10, 1_059_999), early.count), (1000, 10));
        assert_eq!((f.failed(10, 1_180_000), f.count), (0, 7));
        assert_eq!((f.failed(10, 9_000_000), f.count), (0, 1));
        // a restart of the clock with the machine finds an empty arena; a clock that stands still harms nothing
        assert_eq!((f.failed(10, 9_000_000), f.count), (0, 2));
    }

    #[test]
    fn a_rate_with_twice_as_many_at_once() {
        let mut rate = Rate::default();
        let now = 1_000_000;
        for _ in 0..10 {
            assert_eq!(rate.take(5, now), Ok(()));
        }
        assert_eq!(rate.take(5, now), Err(200));
        assert_eq!(rate.take(5, now + 199), Err(1));
        assert_eq!(rate.take(5, now + 200), Ok(()));
        assert_eq!(rate.take(5, now + 200), Err(200));
        let granted = (0..10_000)
            .filter(|ms| rate.take(5, now + 10_000 + ms).is_ok())
            .count();
        assert!(
            (59..=61).contains(&granted),
            "{granted}: ten at once, then five a second"
        );
        assert!((0..1000).all(|_| rate.take(0, now).is_ok()));
    }
}
