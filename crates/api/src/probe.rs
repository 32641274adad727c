//! Is somebody there? Answers and silences, one after the other, become a state that does not flap.

use serde::{Deserialize, Serialize};

/// Answers in a row until what was down counts as up.
pub const UP_AFTER: u8 = 2;

/// What is known of a server that is asked again and again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Does it count as up? At first it does not.
    pub up: bool,
    /// Has it ever counted?
    pub known: bool,
    /// Results in a row that say otherwise.
    streak: u8,
    /// Number of the question that is open; 0 for none.
    pub open: u32,
}

/// Does that status show that the server works? Any answer does, but for those of one that cannot do its work: it is overloaded
/// or has lost what stands behind it.
pub fn answers(code: u16) -> bool {
    (200..500).contains(&code) && code != 408 || (600..700).contains(&code) || code == 501
}

impl Probe {
    /// A question was answered, or not. True when the state has changed by it. The first result counts at once, and then so many failures
    /// in a row as `down_after` says.
    pub fn saw(&mut self, answered: bool, down_after: u8) -> bool {
        if !self.known {
            self.known = true;
            self.up = answered;
            return true;
        }
        if answered == self.up {
            self.streak = 0;
            return false;
        }
        self.streak += 1;
        let enough = if self.up { down_after } else { UP_AFTER };
        if self.streak < enough {
            return false;
        }
        self.streak = 0;
        self.up = answered;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_not_flap() {
        let mut probe = Probe::default();
        assert!(!probe.up);
        let mut feed = |results: &[bool]| {
            results
                .iter()
                .map(|r| (probe.saw(*r, 3), probe.up))
                .collect::<Vec<_>>()
        };
        assert_eq!(feed(&[true]), [(true, true)]);
        assert_eq!(
            feed(&[false, false, true, false, false, false]),
            [
                (false, true),
                (false, true),
                (false, true),
                (false, true),
                (false, true),
                (true, false)
            ]
        );
        assert_eq!(
            feed(&[true, false, true, true]),
            [(false, false), (false, false), (false, false), (true, true)]
        );
    }

    #[test]
    fn which_answers_show_life() {
        for code in [200, 202, 302, 401, 403, 404, 405, 481, 486, 501, 603] {
            assert!(answers(code), "{code}");
        }
        for code in [100, 180, 408, 500, 502, 503, 504] {
            assert!(!answers(code), "{code}");
        }
    }
}
