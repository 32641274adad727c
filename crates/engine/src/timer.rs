//! The session timer (RFC 4028): a session whose refresh stays away is dead, and is ended.

use rtc_json_protocol::EndReason;
use rtc_json_sip::{split_list, Message};

use crate::call::End;
use crate::model::{Timer, Want};
use crate::step::Step;

/// Sent in `Supported` by each INVITE and UPDATE of ours, and in its 2xx.
pub(crate) const OPTION_TAG: &str = "timer";

/// What a message says of the session interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// `Session-Expires`, seconds.
    pub interval: Option<u32>,
    /// Its `refresher`: is it the UAC of the request?
    pub uac: Option<bool>,
    /// `Min-SE`, seconds.
    pub min: Option<u32>,
    /// Does the sender know session timers?
    pub supported: bool,
}

impl Said {
    pub fn of(message: &Message<'_>) -> Self {
        let mut said = Said {
            supported: has_option(message, "Supported", OPTION_TAG)
                || has_option(message, "Require", OPTION_TAG),
            min: message.header("Min-SE").and_then(|v| seconds(&v)),
            ..Said::default()
        };
        if let Some(value) = message.header("Session-Expires") {
            said.interval = seconds(&value);
            said.uac = value.split(';').skip(1).find_map(|param| {
                let (name, who) = param.split_once('=')?;
                if !name.trim().eq_ignore_ascii_case("refresher") {
                    return None;
                }
                match who.trim() {
                    who if who.eq_ignore_ascii_case("uac") => Some(true),
                    who if who.eq_ignore_ascii_case("uas") => Some(false),
                    _ => None,
                }
            });
        }
        said
    }
}

fn seconds(value: &str) -> Option<u32> {
    value.split(';').next()?.trim().parse().ok()
}

/// Is that option tag in a header of the message?
pub(crate) fn has_option(message: &Message<'_>, header: &str, tag: &str) -> bool {
    message
        .headers(header)
        .any(|value| split_list(&value).any(|t| t.eq_ignore_ascii_case(tag)))
}

/// Answer to a request with a session interval.
pub(crate) enum Verdict {
    /// Header lines for the 2xx, and the timer from then on.
    Take(String, Option<Timer>),
    /// 422 with these header lines.
    TooSmall(String),
}

impl Step<'_> {
    /// Header lines that ask for a session timer in a request of ours. `first`: the INVITE that begins the dialog, where the
    /// far side may choose who refreshes.
    pub fn timer_lines(&self, call: usize, first: bool) -> String {
        let leg = &self.agent.calls[call].leg;
        let min = leg.min_se.max(self.config.min_se);
        let (interval, refresher) = match (&leg.timer, first) {
            (Some(timer), false) if timer.ours => (timer.interval, ";refresher=uac"),
            (Some(timer), false) => (timer.interval, ";refresher=uas"),
            (None, false) => return String::new(),
            (_, true) if self.config.session_expires == 0 => return String::new(),
            (_, true) => (self.config.session_expires, ""),
        };
        // (joined, for every call needs it)
        [
            "Session-Expires: ",
            &interval.max(min).to_string(),
            refresher,
            "\r\nMin-SE: ",
            &min.to_string(),
            "\r\n",
        ]
        .concat()
    }

    /// A 2xx to an INVITE or UPDATE of ours has come.
    pub fn timer_answered(&mut self, call: usize, message: &Message<'_>) {
        let said = Said::of(message);
        // RFC 4028, section 7.2: without an interval in it the far side runs no timer
        let timer = said
            .interval
            .map(|interval| self.timer(interval, said.uac.unwrap_or(true)));
        // any 2xx refreshes one that runs
        let running = self.agent.calls[call].leg.timer;
        let refreshed = running.map(|t| self.timer(t.interval, t.ours));
        self.agent.calls[call].leg.timer = timer.or(refreshed);
    }

    /// What to answer to a request of the far side that may carry a session interval.
    pub fn timer_asked(&self, running: Option<Timer>, message: &Message<'_>) -> Verdict {
        let said = Said::of(message);
        let own = self.config.session_expires;
        let (interval, ours) = match (said.interval, running) {
            (Some(asked), _) if asked < self.config.min_se && said.supported => {
                return Verdict::TooSmall(format!("Min-SE: {}\r\n", self.config.min_se));
            }
            // who does not know timers cannot refresh (RFC 4028, section 9)
            (Some(asked), _) => (
                asked.max(self.config.min_se),
                !(said.supported && said.uac.unwrap_or(true)),
            ),
            (None, Some(running)) => (running.interval, running.ours),
            (None, None) if own != 0 && said.supported => (own.max(said.min.unwrap_or(0)), true),
            (None, None) => return Verdict::Take(String::new(), None),
        };
        let require = if !ours && said.supported {
            "Require: timer\r\n"
        } else {
            ""
        };
        let refresher = if ours { "uas" } else { "uac" };
        Verdict::Take(
            format!("Session-Expires: {interval};refresher={refresher}\r\n{require}"),
            Some(self.timer(interval, ours)),
        )
    }

    pub fn timer(&self, interval: u32, ours: bool) -> Timer {
        let ms = u64::from(interval) * 1000;
        // RFC 4028, section 10: the one who does not refresh gives up a little earlier than the interval ends
        let dead_at = self.now + ms - (ms / 3).min(32_000);
        Timer {
            interval,
            ours,
            at: if ours { self.now + ms / 2 } else { dead_at },
            dead_at,
        }
    }

    /// The time of a session timer has come.
    pub fn tick_timer(&mut self, call: usize) {
        let now = self.now;
        let c = &mut self.agent.calls[call];
        let Some(timer) = c.leg.timer.as_mut().filter(|t| t.at <= now) else {
            return;
        };
        if timer.dead_at <= now {
            c.leg.timer = None;
            return self.hang_up(
                call,
                End::with_code(EndReason::SessionExpired, 408),
                480,
                None,
            );
        }
        // a refresh that fails is tried again, as long as there is time
        timer.at = (now + (timer.dead_at - now) / 2)
            .max(now + 1000)
            .min(timer.dead_at);
        if !c.wants.contains(&Want::Refresh) {
            c.wants.push_back(Want::Refresh);
        }
        self.next_offer(call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(headers: &str) -> Said {
        let text = format!("SIP/2.0 200 OK\r\n{headers}\r\n");
        Said::of(&Message::parse(text.as_bytes()).expect("a reply"))
    }

    #[test]
    fn what_a_message_says_of_the_interval() {
        assert_eq!(said(""), Said::default());
        let full = said(
            "Session-Expires: 1800 ; Refresher=UAS;x\r\nMin-SE: 90\r\nSupported: 100rel, timer\r\n",
        );
        assert_eq!(
            full,
            Said {
                interval: Some(1800),
                uac: Some(false),
                min: Some(90),
                supported: true
            }
        );
        assert_eq!(said("x: 90;refresher=uac\r\n").uac, Some(true));
        assert_eq!(said("Session-Expires: soon\r\n").interval, None);
        assert!(said("Require: timer\r\n").supported);
    }
}
