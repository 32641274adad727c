//! What is known of an agent beside his calls: who he is, what he can, whether he is at his desk.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Skills of one agent.
pub const MAX_SKILLS: usize = 64;
/// Longest skill, name or Genesys agent in characters.
pub const MAX_TEXT: usize = 64;

/// One agent of the directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// His name.
    pub display_name: String,
    /// Who he is at Genesys; empty for nobody.
    pub genesys_agent: String,
    /// What he can.
    pub skills: Vec<String>,
    /// He is not to be called, although he is registered.
    pub away: bool,
}

/// A change that somebody asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Away, or back.
    pub away: Option<bool>,
    /// Other skills.
    pub skills: Option<Vec<String>>,
}

/// What an agent does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Can be called.
    Available,
    /// Has a call, or makes one.
    Busy,
    /// Is being called.
    Ringing,
    /// There, but not to be called.
    Away,
    /// No browser is there.
    Offline,
}

impl Status {
    /// Every one.
    pub const ALL: [Status; 5] = [
        Status::Available,
        Status::Busy,
        Status::Ringing,
        Status::Away,
        Status::Offline,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Available => "available",
            Status::Busy => "busy",
            Status::Ringing => "ringing",
            Status::Away => "away",
            Status::Offline => "offline",
        }
    }

    /// The one with that word.
    pub fn parse(word: &str) -> Option<Self> {
        Status::ALL.into_iter().find(|s| s.as_str() == word)
    }
}

impl Change {
    /// Reads the body of a `PATCH` (RFC 7396).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        let Value::Object(members) = crate::json::strict(body)? else {
            return Err("the body must be a JSON object".to_owned());
        };
        let mut change = Change::default();
        for (name, value) in members {
            match name.as_str() {
                "status" => {
                    change.away = Some(match value.as_str() {
                        Some("away") => true,
                        Some("available") => false,
                        _ => return Err("status must be \"away\" or \"available\"".to_owned()),
                    });
                }
                "skills" => change.skills = Some(skills(value)?),
                _ => return Err("only status and skills can be changed".to_owned()),
            }
        }
        if change == Change::default() {
            return Err("status or skills expected".to_owned());
        }
        Ok(change)
    }

    /// Makes the change; false if all was so already.
    pub fn apply(&self, entry: &mut Entry) -> bool {
        let before = entry.clone();
        if let Some(away) = self.away {
            entry.away = away;
        }
        if let Some(skills) = &self.skills {
            entry.skills.clone_from(skills);
        }
        *entry != before
    }
}

fn skills(value: Value) -> Result<Vec<String>, String> {
    let wrong = || {
        format!("skills must be an array of at most {MAX_SKILLS} different texts of 1 to {MAX_TEXT} characters, without commas and control characters")
    };
    let Value::Array(all) = value else {
        return Err(wrong());
    };
    let mut skills: Vec<String> = Vec::new();
    for one in all {
        match one {
            Value::String(skill) if is_skill(&skill) && !skills.contains(&skill) => {
                skills.push(skill);
            }
            _ => return Err(wrong()),
        }
    }
    if skills.len() > MAX_SKILLS {
        return Err(wrong());
    }
    Ok(skills)
}

fn is_skill(text: &str) -> bool {
    is_text(text) && !text.contains(',') && text.trim() == text
}

/// A text that may be shown: 1 to [`MAX_TEXT`] characters, none of them a control character.
pub fn is_text(text: &str) -> bool {
    (1..=MAX_TEXT).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

impl Entry {
    /// Skills as the directory's table holds them, with commas between.
    pub fn skills_text(&self) -> String {
        self.skills.join(",")
    }

    /// Reads a row of the table. What cannot be used of it is left out.
    pub fn from_row(display_name: &str, genesys_agent: &str, skills: &str, away: bool) -> Self {
        let text = |value: &str| match is_text(value.trim()) {
            true => value.trim().to_owned(),
            false => String::new(),
        };
        let mut listed: Vec<String> = Vec::new();
        for skill in skills.split(',').map(str::trim) {
            if is_skill(skill) && !listed.iter().any(|s| s == skill) && listed.len() < MAX_SKILLS {
                listed.push(skill.to_owned());
            }
        }
        Entry {
            display_name: text(display_name),
            genesys_agent: text(genesys_agent),
            skills: listed,
            away,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_in_parts() {
        let change = Change::parse(br#"{"status":"away","skills":["sales","de DE"]}"#).unwrap();
        assert_eq!(change.away, Some(true));
        assert_eq!(change.skills.as_deref().unwrap(), ["sales", "de DE"]);
        let mut entry = Entry::default();
        assert!(change.apply(&mut entry));
        assert!(!change.apply(&mut entry), "nothing is new the second time");
        assert!(Change::parse(br#"{"status":"available"}"#)
            .unwrap()
            .apply(&mut entry));
        assert_eq!((entry.away, entry.skills.len()), (false, 2));
    }

    #[test]
    fn what_is_no_change() {
        let many = format!(
            "{{\"skills\":[{}]}}",
            (0..65)
                .map(|n| format!("\"{n}\""))
                .collect::<Vec<_>>()
                .join(",")
        );
        let long = format!("{{\"skills\":[\"{}\"]}}", "x".repeat(65));
        for bad in [
            "",
            "[]",
            "{}",
            "{",
            "null",
            r#"{"status":"busy"}"#,
            r#"{"status":true}"#,
            r#"{"skills":"sales"}"#,
            r#"{"skills":["a","a"]}"#,
            r#"{"skills":["a,b"]}"#,
            r#"{"skills":[""]}"#,
            r#"{"skills":[" a"]}"#,
            r#"{"skills":["a\u0000"]}"#,
            r#"{"skills":[1]}"#,
            r#"{"skills":null}"#,
            r#"{"dn":"5002"}"#,
            r#"{"status":"away","status":"available"}"#,
            r#"{"status":"away"} x"#,
            &many,
            &long,
        ] {
            assert!(Change::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_row_of_the_table() {
        let entry = Entry::from_row(" Ann ", "a\u{7}", "sales, de ,,sales,x\ty", true);
        assert_eq!(entry.display_name, "Ann");
        assert_eq!(entry.genesys_agent, "");
        assert_eq!(entry.skills_text(), "sales,de");
        assert!(entry.away);
    }
}
