//! What of the API is seen without a server: the form of requests, and that nobody learns more than is his.

use rtc_json_api::calls::{CallView, PastCall};
use rtc_json_api::directory::{Change, Status};
use rtc_json_api::rest::{
    handle, is_ours, AgentView, Config, Genesys, Health, NotChanged, Switch, TokenRefused,
};
use rtc_json_api::token::Claims;
use serde_json::Value;

/// One agent with one call; a token is a DN, with its scopes behind a slash.
struct World {
    health: Health,
    room: bool,
}

const FULL: World = World {
    health: Health::Full,
    room: false,
};
const FINE: World = World {
    health: Health::Ok,
    room: true,
};

fn agent() -> AgentView {
    AgentView {
        dn: "5001".to_owned(),
        display_name: None,
        status: Status::Available,
        genesys_agent: None,
        skills: Vec::new(),
    }
}

impl Switch for World {
    fn claims(&self, token: &str) -> Result<Claims, TokenRefused> {
        let (dn, scopes) = token.split_once('/').unwrap_or((token, ""));
        Ok(Claims {
            subject: dn.to_owned(),
            dns: Vec::new(),
            scopes: Some(scopes.split(',').map(str::to_owned).collect())
                .filter(|_| !scopes.is_empty()),
        })
    }

    fn agent(&self, dn: &str) -> Option<AgentView> {
        Some(agent()).filter(|agent| agent.dn == dn)
    }

    fn agents(&self) -> Vec<String> {
        // twice, and one that has gone meanwhile
        ["5001", "gone", "5001"].map(str::to_owned).to_vec()
    }

    fn change(&self, dn: &str, change: &Change) -> Result<Option<AgentView>, NotChanged> {
        if !self.room {
            return Err(NotChanged::Full);
        }
        Ok(self.agent(dn).map(|before| AgentView {
            skills: change.skills.clone().unwrap_or_default(),
            ..before
        }))
    }

    fn calls(&self) -> Vec<CallView> {
        Vec::new()
    }

    fn hang_up(&self, _call: &CallView) -> bool {
        false
    }

    fn past_calls(
        &self,
        _before: u64,
        _wanted: &dyn Fn(&str) -> bool,
        _limit: usize,
    ) -> Vec<(u64, PastCall)> {
        Vec::new()
    }

    fn genesys(&self) -> Genesys {
        Genesys {
            connected: false,
            server: None,
            registered_agents: 1,
        }
    }

    fn health(&self) -> Health {
        self.health
    }
}

fn ask(world: &World, head: &str, token: &str, body: &str) -> (u16, String, Value) {
    let raw = format!(
        "{head} HTTP/1.1\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let sent = handle(world, &Config::default(), raw.as_bytes(), 0);
    let text = String::from_utf8(sent.bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let value = serde_json::from_str(body).unwrap_or(Value::Null);
    (sent.status, head.to_owned(), value)
}

#[test]
fn a_server_that_takes_no_calls_says_so() {
    assert_eq!(ask(&FINE, "GET /api/health", "", "").0, 200);
    let (status, _, body) = ask(&FULL, "GET /api/health", "", "");
    assert_eq!((status, body["status"].as_str()), (503, Some("full")));
    let draining = World {
        health: Health::Draining,
        ..FINE
    };
    let (status, _, body) = ask(&draining, "GET /api/health", "", "");
    assert_eq!((status, body["status"].as_str()), (503, Some("draining")));
    let (status, head, _) = ask(&FULL, "PATCH /api/dn/5001", "5001", r#"{"skills":["a"]}"#);
    assert_eq!(status, 503);
    assert!(head.contains("Retry-After: 60"), "{head}");
    let (status, _, body) = ask(&FINE, "PATCH /api/dn/5001", "5001", r#"{"skills":["a"]}"#);
    assert_eq!((status, body["skills"][0].as_str()), (200, Some("a")));
}

#[test]
fn each_agent_stands_in_the_list_once() {
    let token = "5001/agents:read:all";
    let (status, _, body) = ask(&FINE, "GET /api/dn", token, "");
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["agents"].as_array().unwrap().len(), 1);
    assert_eq!(body["agents"][0]["dn"], "5001");
    assert!(body["next"].is_null());
    for query in ["after=5001", "skill=x", "status=busy"] {
        let (_, _, body) = ask(&FINE, &format!("GET /api/dn?{query}"), token, "");
        assert_eq!(body["agents"].as_array().unwrap().len(), 0, "{query}");
    }
}

#[test]
fn what_is_not_his_is_the_same_whether_it_is_there() {
    for method in ["GET", "PATCH"] {
        let answers = ["5001", "5009"].map(|dn| {
            let head = format!("{method} /api/dn/{dn}");
            let (status, _, body) = ask(&FINE, &head, "5002", "not even JSON");
            (status, body)
        });
        assert_eq!(answers[0].0, 403);
        assert_eq!(answers[0], answers[1]);
    }
}

#[test]
fn nothing_of_a_request_comes_back_in_a_header() {
    for target in [
        "/api/dn?skill=a%0d%0aEvil:%201&limit=1",
        "/api/dn/%0d%0aEvil:%201",
        "/api/calls/%0d%0aEvil:%201",
    ] {
        let (_, head, _) = ask(
            &FINE,
            &format!("GET {target}"),
            "5001/agents:read:all,calls:read:all",
            "",
        );
        assert!(!head.contains("\nEvil"), "{head}");
    }
}

#[test]
fn which_targets_are_ours() {
    for ours in [
        "/api",
        "/api/",
        "/api?x",
        "/api/dn",
        "http://h/api/dn",
        "https://h:1/api",
    ] {
        assert!(is_ours(ours.as_bytes()), "{ours}");
    }
    for other in [
        "",
        "/",
        "/apis",
        "/x/api",
        "api",
        "http://api/x",
        "http://h",
        "*",
    ] {
        assert!(!is_ours(other.as_bytes()), "{other}");
    }
}

proptest::proptest! {
    /// Whatever comes, there is one response, with a length that is true.
    #[test]
    fn any_bytes_are_answered(start in "(GET|PATCH|DELETE|HEAD|[A-Z]{1,6}) /api[ -~]{0,40}", rest: Vec<u8>) {
        let mut raw = format!("{start} HTTP/1.1\r\nAuthorization: Bearer 5001\r\n\r\n").into_bytes();
        raw.extend(rest);
        let sent = handle(&FINE, &Config::default(), &raw, 0);
        let text = String::from_utf8_lossy(&sent.bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {} ", sent.status)), "{head}");
        assert!(sent.status < 500, "{head}");
        if let Some(length) = head.split("Content-Length: ").nth(1) {
            let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
            assert!(body.len() == length || start.starts_with("HEAD"), "{text}");
        }
    }
}
