//! Calls as the API shows them: those that are up, and those that are over.

use serde::{Deserialize, Serialize, Serializer};

/// A call that browsers know of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CallView {
    /// The call.
    pub call_id: String,
    /// The agent.
    pub dn: String,
    /// `in` or `out`.
    pub direction: &'static str,
    /// `trying`, `ringing`, `incoming`, `answering` or `established`.
    pub state: &'static str,
    /// Who calls.
    pub from: String,
    /// Who is called.
    pub to: String,
    /// SIP Call-ID.
    pub sip_call_id: String,
    /// When it began.
    #[serde(serialize_with = "time")]
    pub started: u64,
    /// Was it answered?
    pub answered: bool,
    /// Whole seconds since the answer.
    pub duration: u64,
    /// On hold by the agent.
    pub hold: bool,
    /// On hold by the far side.
    pub remote_hold: bool,
    /// The agent's microphone is off.
    pub muted: bool,
    /// `recording`, `paused` or `stopped`; none if it was never asked for.
    pub recording: Option<&'static str>,
}

/// A call that is over. Its form in the arena is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastCall {
    /// The call.
    pub call_id: String,
    /// SIP Call-ID.
    pub sip_call_id: String,
    /// The agent.
    pub dn: String,
    /// Did the far side call?
    pub inbound: bool,
    /// Who called.
    pub from: String,
    /// Who was called.
    pub to: String,
    /// When it began: Unix time, milliseconds.
    pub started: u64,
    /// Was it answered?
    pub answered: bool,
    /// Whole seconds since the answer.
    pub duration: u64,
    /// Why it ended, as in `callEnded`.
    pub reason: String,
    /// SIP status that ended it; 0 for none.
    pub code: u16,
    /// Q.850 cause; 0 for none.
    pub cause: u16,
    /// Milliseconds to the first 18x; 0 for none.
    pub ring_after: u64,
    /// Milliseconds to the answer; 0 for none.
    pub answer_after: u64,
    /// Was it recorded, at least in part?
    pub recorded: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'c> {
    call_id: &'c str,
    sip_call_id: &'c str,
    dn: &'c str,
    direction: &'static str,
    from: &'c str,
    to: &'c str,
    started: String,
    answered: bool,
    duration: u64,
    reason: &'c str,
    code: Option<u16>,
    cause: Option<u16>,
    ring_after: Option<u64>,
    answer_after: Option<u64>,
    recorded: bool,
}

impl PastCall {
    /// `in` or `out`.
    pub fn direction(&self) -> &'static str {
        match self.inbound {
            true => "in",
            false => "out",
        }
    }

    /// As a JSON object on one line.
    pub fn json(&self) -> String {
        let some = |n: u64| Some(n).filter(|n| *n != 0);
        let small = |n: u16| Some(n).filter(|n| *n != 0);
        let shown = Shown {
            call_id: &self.call_id,
            sip_call_id: &self.sip_call_id,
            dn: &self.dn,
            direction: self.direction(),
            from: &self.from,
            to: &self.to,
            started: iso_time(self.started),
            answered: self.answered,
            duration: self.duration,
            reason: &self.reason,
            code: small(self.code),
            cause: small(self.cause),
            ring_after: some(self.ring_after),
            answer_after: some(self.answer_after).or(self.answered.then_some(0)),
            recorded: self.recorded,
        };
        serde_json::to_string(&shown).unwrap_or_else(|_| unreachable!("texts and numbers"))
    }
}

fn time<S: Serializer>(unix_ms: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&iso_time(*unix_ms))
}

/// A Unix time in milliseconds as RFC 3339 has it, in UTC.
pub fn iso_time(unix_ms: u64) -> String {
    let (seconds, ms) = (unix_ms / 1000, unix_ms % 1000);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // days from 0000-03-01: then the leap day is the last of its year
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{ms:03}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(iso_time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso_time(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(iso_time(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(iso_time(1_709_251_200_000), "2024-03-01T00:00:00.000Z");
        assert_eq!(iso_time(1_798_761_599_001), "2026-12-31T23:59:59.001Z");
    }

    #[test]
    fn a_past_call_as_json() {
        let call = PastCall {
            call_id: "c1".to_owned(),
            inbound: true,
            answered: true,
            code: 200,
            ..PastCall::default()
        };
        let value: serde_json::Value = serde_json::from_str(&call.json()).unwrap();
        assert_eq!(value["direction"], "in");
        assert_eq!(value["code"], 200);
        assert!(value["cause"].is_null());
        assert_eq!(value["answerAfter"], 0);
    }
}
