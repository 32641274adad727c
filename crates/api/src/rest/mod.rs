//! The REST API: a request in, a response out. What it shows and changes stands behind [`Switch`].
//!
//! A request goes through these, in this order: its form, the route, the method, the token, the scope, the resource. So nobody
//! without a token learns more than which routes there are, and nobody learns whether a DN exists that is not his.

mod agents;
mod calls;

use serde::Serialize;
use serde_json::json;

use crate::access::{allow, reach, Action, Denied, Reach};
use crate::calls::{CallView, PastCall};
use crate::directory::{Change, Status};
use crate::http::{phrase, BadRequest, Request, Response};
use crate::token::Claims;

/// Longest body in bytes.
pub const MAX_BODY: usize = 16_384;
/// Entries of a page, at most, and where nobody says how many.
pub const MAX_PAGE: usize = 500;
const PAGE: usize = 100;

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";
const PATCH_TYPES: &str = "application/merge-patch+json, application/json";

/// What the API is a view of.
pub trait Switch {
    /// Checks a token.
    ///
    /// # Errors
    /// Why it is refused.
    fn claims(&self, token: &str) -> Result<Claims, TokenRefused>;
    /// One agent; none if nothing is known of him.
    fn agent(&self, dn: &str) -> Option<AgentView>;
    /// The DN of every agent that something may be known of, in no order, perhaps twice.
    fn agents(&self) -> Vec<String>;
    /// Changes what is known of an agent. None if there is no such agent.
    ///
    /// # Errors
    /// [`NotChanged`]
    fn change(&self, dn: &str, change: &Change) -> Result<Option<AgentView>, NotChanged>;
    /// Every call, in no order.
    fn calls(&self) -> Vec<CallView>;
    /// Ends a call; false if it is over already.
    fn hang_up(&self, call: &CallView) -> bool;
    /// Calls that are over, latest first, each with its number: those below `before`, of a DN that `wanted` takes, at most so many.
    fn past_calls(
        &self,
        before: u64,
        wanted: &dyn Fn(&str) -> bool,
        limit: usize,
    ) -> Vec<(u64, PastCall)>;
    /// Whether the contact centre answers.
    fn genesys(&self) -> Genesys;
    /// Is there room for new calls, and are they wanted?
    fn health(&self) -> Health;
}

/// Why a token is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenRefused {
    /// No keys are configured to check it with.
    NoKeys,
    /// It is not right.
    Bad(String),
}

/// Why an agent is not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotChanged {
    /// It does not fit into the arena.
    Full,
    /// The directory's table cannot be written.
    Directory,
}

/// An agent as the API shows him.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentView {
    /// Directory number.
    pub dn: String,
    /// His name.
    pub display_name: Option<String>,
    /// What he does.
    pub status: Status,
    /// Who he is at Genesys.
    pub genesys_agent: Option<String>,
    /// What he can.
    pub skills: Vec<String>,
}

/// The contact centre.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Genesys {
    /// Does it answer?
    pub connected: bool,
    /// Where it is; none if none is configured.
    pub server: Option<String>,
    /// Agents that are registered here.
    pub registered_agents: u64,
}

/// How the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Takes calls.
    Ok,
    /// The arena is full: takes no new calls.
    Full,
    /// It is to become empty: takes no new calls and sessions.
    Draining,
}

/// Settings.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Pages of these origins (RFC 6454) may use it from a browser.
    pub origins: Vec<String>,
}

/// Who asks, for what.
struct Asked<'a> {
    switch: &'a dyn Switch,
    request: &'a Request<'a>,
}

/// An answer, or the problem that stands for it.
type Answer = Result<Response, Problem>;

/// What went wrong (RFC 9457).
#[derive(Debug)]
struct Problem {
    status: u16,
    detail: String,
    headers: Vec<(&'static str, String)>,
}

impl Problem {
    fn new(status: u16, detail: impl Into<String>) -> Self {
        Problem {
            status,
            detail: detail.into(),
            headers: Vec::new(),
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn response(self) -> Response {
        let body = json!({
            "type": "about:blank",
            "title": phrase(self.status),
            "status": self.status,
            "detail": self.detail,
        });
        let mut response = Response::with_body(self.status, PROBLEM, body.to_string().into_bytes())
            .header("Cache-Control", "no-store");
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        response
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let problem = Problem::new(403, denied.to_string());
        match denied {
            Denied::Scope(scope) => problem.with(
                "WWW-Authenticate",
                format!(
                    "Bearer realm=\"rtc_json\", error=\"insufficient_scope\", scope=\"{scope}\""
                ),
            ),
            Denied::Dn => problem,
        }
    }
}

/// What there is.
enum Route<'a> {
    Health,
    Genesys,
    Agents,
    Agent(&'a str),
    Calls,
    History,
    Call(&'a str),
}

impl<'a> Route<'a> {
    fn of(path: &'a [std::borrow::Cow<'a, str>]) -> Option<Self> {
        let parts: Vec<&str> = path.iter().map(AsRef::as_ref).collect();
        match parts.as_slice() {
            ["api", "health"] => Some(Route::Health),
            ["api", "genesys", "status"] => Some(Route::Genesys),
            ["api", "dn"] => Some(Route::Agents),
            ["api", "dn", dn] if !dn.is_empty() => {
                Some(Route::Agent(path[2].as_ref())).filter(|_| dn.len() <= 256)
            }
            ["api", "calls"] => Some(Route::Calls),
            ["api", "calls", "history"] => Some(Route::History),
            ["api", "calls", id] if !id.is_empty() => Some(Route::Call(path[2].as_ref())),
            _ => None,
        }
    }

    fn methods(&self) -> &'static str {
        match self {
            Route::Agent(_) => "GET, HEAD, PATCH, OPTIONS",
            Route::Call(_) => "GET, HEAD, DELETE, OPTIONS",
            _ => "GET, HEAD, OPTIONS",
        }
    }

    fn takes(&self, method: &str) -> bool {
        self.methods().split(", ").any(|known| known == method)
    }
}

/// The bytes to send back, and whether the connection ends with them.
pub struct Sent {
    /// The response.
    pub bytes: Vec<u8>,
    /// Close the connection behind it.
    pub close: bool,
    /// Its status.
    pub status: u16,
}

/// Is that request target for the API?
pub fn is_ours(target: &[u8]) -> bool {
    // a target may name the server, too
    let path = match target.iter().position(|b| *b == b'/') {
        Some(0) | None => target,
        Some(_) => target
            .windows(3)
            .position(|w| w == b"://")
            .and_then(|at| {
                let rest = &target[at + 3..];
                Some(&rest[rest.iter().position(|b| *b == b'/')?..])
            })
            .unwrap_or(target),
    };
    path.strip_prefix(b"/api")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'/' | b'?')))
}

/// Answers a request; `unix_now` in seconds.
pub fn handle(switch: &dyn Switch, config: &Config, raw: &[u8], unix_now: u64) -> Sent {
    let request = match Request::parse(raw) {
        Ok(request) => request,
        Err(BadRequest(status)) => {
            let response = Problem::new(status, "the request cannot be read").response();
            return Sent {
                bytes: response.encode(false, true, unix_now),
                close: true,
                status,
            };
        }
    };
    let asked = Asked {
        switch,
        request: &request,
    };
    let mut response = asked.answer().unwrap_or_else(Problem::response);
    if let Some(origin) = request.header("Origin") {
        if config.origins.iter().any(|known| known == origin) {
            response = response
                .header("Access-Control-Allow-Origin", origin)
                .header("Access-Control-Expose-Headers", "ETag, Link, Allow");
            if request.method == "OPTIONS" {
                let methods = Route::of(&request.path).map_or("GET", |route| route.methods());
                response = response
                    .header("Access-Control-Allow-Methods", methods)
                    .header(
                        "Access-Control-Allow-Headers",
                        "Authorization, Content-Type, If-Match, If-None-Match",
                    )
                    .header("Access-Control-Max-Age", "600");
            }
        }
    }
    if !config.origins.is_empty() {
        response = response.header("Vary", "Origin");
    }
    response = response.header("X-Content-Type-Options", "nosniff");
    // behind a body without a known length, or a very long one, nobody knows where the next request begins
    let close = !request.keep_alive || matches!(response.status, 411 | 413);
    Sent {
        status: response.status,
        bytes: response.encode(request.method == "HEAD", close, unix_now),
        close,
    }
}

impl<'a> Asked<'a> {
    fn answer(&self) -> Answer {
        let request = self.request;
        if request.has("Transfer-Encoding") {
            return Err(Problem::new(411, "a body needs its length beforehand"));
        }
        if request.body.len() > MAX_BODY {
            return Err(Problem::new(413, format!("more than {MAX_BODY} bytes")));
        }
        let route = Route::of(&request.path)
            .ok_or_else(|| Problem::new(404, "there is no such resource"))?;
        if !route.takes(request.method) {
            return Err(Problem::new(405, "this resource does not know that method")
                .with("Allow", route.methods()));
        }
        if request.method == "OPTIONS" {
            let allow = Response::new(204).header("Allow", route.methods());
            return Ok(match route {
                Route::Agent(_) => allow.header("Accept-Patch", PATCH_TYPES),
                _ => allow,
            });
        }
        if let Route::Health = route {
            return self.health();
        }
        let claims = self.claims()?;
        match (route, request.method) {
            (Route::Genesys, _) => {
                reach(&claims, Action::ReadGenesys)?;
                self.no_query()?;
                self.found(&self.switch.genesys())
            }
            (Route::Agents, _) => self.agents(&claims),
            (Route::Agent(dn), "PATCH") => self.change_agent(&claims, dn),
            (Route::Agent(dn), _) => self.agent(&claims, dn),
            (Route::Calls, _) => self.calls(&claims),
            (Route::History, _) => self.past_calls(&claims),
            (Route::Call(id), "DELETE") => self.end_call(&claims, id),
            (Route::Call(id), _) => self.call(&claims, id),
            (Route::Health, _) => self.health(),
        }
    }

    fn claims(&self) -> Result<Claims, Problem> {
        let missing = || {
            Problem::new(401, "a bearer token is needed")
                .with("WWW-Authenticate", "Bearer realm=\"rtc_json\"")
        };
        let value = self.request.header("Authorization").ok_or_else(missing)?;
        let (scheme, token) = value.split_once(' ').ok_or_else(missing)?;
        if !scheme.eq_ignore_ascii_case("Bearer") {
            return Err(missing());
        }
        self.switch
            .claims(token.trim())
            .map_err(|refused| match refused {
                TokenRefused::NoKeys => {
                    Problem::new(501, "no keys are configured to check tokens with")
                }
                TokenRefused::Bad(reason) => Problem::new(401, reason).with(
                    "WWW-Authenticate",
                    "Bearer realm=\"rtc_json\", error=\"invalid_token\"",
                ),
            })
    }

    fn health(&self) -> Answer {
        self.no_query()?;
        let (status, word) = match self.switch.health() {
            Health::Ok => (200, "ok"),
            Health::Full => (503, "full"),
            Health::Draining => (503, "draining"),
        };
        let body = json!({ "status": word }).to_string().into_bytes();
        Ok(Response::with_body(status, JSON, body).header("Cache-Control", "no-store"))
    }

    /// 200 with that, or 304 if the client has it already.
    fn found<T: Serialize>(&self, what: &T) -> Answer {
        let response = Response::with_body(200, JSON, encode(what));
        let etag = response.etag();
        let fresh = self.request.names_tag("If-None-Match", &etag, true);
        let response = if fresh { Response::new(304) } else { response };
        Ok(response
            .header("ETag", etag)
            .header("Cache-Control", "private, no-cache"))
    }

    /// The parameters behind `?`, each at most once and none but these.
    fn query<const N: usize>(&self, names: [&str; N]) -> Result<[Option<&'a str>; N], Problem> {
        let mut found = [None; N];
        for (name, value) in &self.request.query {
            let Some(at) = names.iter().position(|known| known == name) else {
                return Err(Problem::new(400, "an unknown query parameter"));
            };
            if found[at].replace(value.as_ref()).is_some() {
                let detail = format!("the query parameter {} stands there twice", names[at]);
                return Err(Problem::new(400, detail));
            }
        }
        Ok(found)
    }

    fn no_query(&self) -> Result<(), Problem> {
        self.query([]).map(|[]| ())
    }

    /// A body in one of the forms of `PATCH`.
    fn patch_body(&self) -> Result<&'a [u8], Problem> {
        let kind = self.request.header("Content-Type").unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if PATCH_TYPES
            .split(", ")
            .any(|known| known.eq_ignore_ascii_case(kind))
        {
            Ok(self.request.body)
        } else {
            Err(
                Problem::new(415, format!("the body must be one of {PATCH_TYPES}"))
                    .with("Accept-Patch", PATCH_TYPES),
            )
        }
    }

    /// May the holder of the token do that, with that DN?
    fn allow(&self, claims: &Claims, action: Action, dn: &str) -> Result<(), Problem> {
        allow(claims, action, dn).map_err(Problem::from)
    }

    /// A list: what comes next stands in the body and in Link (RFC 8288).
    fn page<T: Serialize>(
        &self,
        name: &'static str,
        page: Vec<T>,
        next: Option<(&str, String)>,
    ) -> Answer {
        let cursor = next.as_ref().map(|(_, cursor)| cursor.clone());
        let response = self.found(&json!({ name: page, "next": cursor }))?;
        let Some((parameter, cursor)) = next else {
            return Ok(response);
        };
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in &self.request.query {
            if name != parameter {
                query.append_pair(name, value);
            }
        }
        query.append_pair(parameter, &cursor);
        let path = self.request.path.join("/");
        Ok(response.header(
            "Link",
            format!("</{path}?{}>; rel=\"next\"", query.finish()),
        ))
    }
}

fn encode<T: Serialize>(what: &T) -> Vec<u8> {
    serde_json::to_vec(what).unwrap_or_else(|_| unreachable!("texts, numbers and lists of them"))
}

/// How many entries of a list somebody wants.
fn limit(value: Option<&str>) -> Result<usize, Problem> {
    match value.map(str::parse) {
        None => Ok(PAGE),
        Some(Ok(limit @ 1..=MAX_PAGE)) => Ok(limit),
        Some(_) => Err(Problem::new(
            400,
            format!("limit must be a number from 1 to {MAX_PAGE}"),
        )),
    }
}

/// Cuts a sorted list down to a page. The key of its last entry, if there is more.
fn cut<T>(all: &mut Vec<T>, limit: usize, key: impl Fn(&T) -> &str) -> Option<String> {
    let more = all.len() > limit;
    all.truncate(limit);
    all.last().filter(|_| more).map(|last| key(last).to_owned())
}

/// Of a list, those that the token may see.
fn visible<T>(all: Vec<T>, reach: &Reach<'_>, dn: impl Fn(&T) -> &str) -> Vec<T> {
    all.into_iter()
        .filter(|one| reach.covers(dn(one)))
        .collect()
}
