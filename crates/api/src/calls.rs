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
    /// How it was sent, or led, to other far sides, oldest first.
    pub transfers: Vec<PastTransfer>,
}

/// How a call that is over came to another far side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastTransfer {
    /// `blind`, `attended`, `refer`, `replaces` or `conference`.
    pub kind: String,
    /// Number of the new far side, or name of the room.
    pub to: String,
    /// Milliseconds from the beginning of the call.
    pub after: u64,
    /// `completed`, `failed` or `unknown`.
    pub result: String,
    /// SIP status of the failure; 0 for none.
    pub code: u16,
    /// SIP Call-ID of the dialog in which it began.
    pub sip_call_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownTransfer<'c> {
    kind: &'c str,
    to: &'c str,
    after: u64,
    result: &'c str,
    code: Option<u16>,
    sip_call_id: &'c str,
}

/// Bytes that a column has for all transfers of a call.
const TRANSFERS_LEN: usize = 4096;

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
    transferred_to: Option<&'c str>,
    transfers: Vec<ShownTransfer<'c>>,
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
            transferred_to: self.transferred_to(),
            transfers: self.transfers.iter().map(ShownTransfer::of).collect(),
        };
        to_json(&shown)
    }

    /// Where the last transfer that came to a good end has led to.
    pub fn transferred_to(&self) -> Option<&str> {
        let done = |t: &&PastTransfer| t.result == "completed";
        self.transfers.iter().rfind(done).map(|t| t.to.as_str())
    }

    /// The transfers as a JSON array, for a column of a table: empty for none; without the oldest where it would be too long.
    pub fn transfers_json(&self) -> String {
        let mut shown: Vec<_> = self.transfers.iter().map(ShownTransfer::of).collect();
        while !shown.is_empty() {
            let text = to_json(&shown);
            if text.len() <= TRANSFERS_LEN {
                return text;
            }
            shown.remove(0);
        }
        String::new()
    }
}

impl<'c> ShownTransfer<'c> {
    fn of(t: &'c PastTransfer) -> Self {
        ShownTransfer {
            kind: &t.kind,
            to: &t.to,
            after: t.after,
            result: &t.result,
            code: Some(t.code).filter(|code| *code != 0),
            sip_call_id: &t.sip_call_id,
        }
    }
}

fn to_json(shown: &impl Serialize) -> String {
    serde_json::to_string(shown).unwrap_or_else(|_| unreachable!("texts and numbers"))
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
        assert!(value["transferredTo"].is_null());
        assert_eq!(value["transfers"], serde_json::json!([]));
    }

    #[test]
    fn transfers() {
        let transfer = |to: &str, result: &str, code| PastTransfer {
            kind: "blind".to_owned(),
            to: to.to_owned(),
            after: 7,
            result: result.to_owned(),
            code,
            sip_call_id: "s".to_owned(),
        };
        let mut call = PastCall::default();
        assert_eq!(call.transfers_json(), "");
        call.transfers = vec![
            transfer("1", "completed", 0),
            transfer("2", "completed", 0),
            transfer("3", "failed", 486),
        ];
        assert_eq!(call.transferred_to(), Some("2"));
        let value: serde_json::Value = serde_json::from_str(&call.json()).unwrap();
        assert_eq!(value["transferredTo"], "2");
        assert_eq!(
            value["transfers"][2],
            serde_json::json!({ "kind": "blind", "to": "3", "after": 7, "result": "failed", "code": 486, "sipCallId": "s" })
        );
        assert!(value["transfers"][0]["code"].is_null());
        let column: serde_json::Value = serde_json::from_str(&call.transfers_json()).unwrap();
        assert_eq!(column, value["transfers"]);
        // what does not fit a column goes, the oldest first
        call.transfers = vec![transfer(&"\\".repeat(1500), "failed", 486); 8];
        call.transfers.push(transfer("4", "completed", 0));
        let column: serde_json::Value = serde_json::from_str(&call.transfers_json()).unwrap();
        assert_eq!(column.as_array().unwrap().len(), 2);
        assert_eq!(column[1]["to"], "4");
    }
}
