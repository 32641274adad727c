//! `/api/dn`: the agents.

use crate::access::{reach, Action};
use crate::directory::{Change, Status};
use crate::http::Response;
use crate::token::Claims;

use super::{cut, encode, limit, visible, Answer, Asked, NotChanged, Problem, JSON};

const NO_AGENT: &str = "nothing is known of that DN";

impl Asked<'_> {
    pub(super) fn agents(&self, claims: &Claims) -> Answer {
        let reach = reach(claims, Action::ReadAgent)?;
        let [count, after, status, skill] = self.query(["limit", "after", "status", "skill"])?;
        let limit = limit(count)?;
        let status = match status.map(Status::parse) {
            Some(None) => {
                let words = Status::ALL.map(Status::as_str).join(", ");
                return Err(Problem::new(400, format!("status must be one of {words}")));
            }
            Some(found) => found,
            None => None,
        };
        let mut numbers = visible(self.switch.agents(), &reach, String::as_str);
        numbers.retain(|dn| after.is_none_or(|after| dn.as_str() > after));
        numbers.sort_unstable();
        numbers.dedup();
        // only those of the page, and one more, are looked at, as long as they are what is wanted
        let mut agents: Vec<_> = numbers
            .iter()
            .filter_map(|dn| self.switch.agent(dn))
            .filter(|agent| {
                status.is_none_or(|status| agent.status == status)
                    && skill.is_none_or(|skill| agent.skills.iter().any(|s| s == skill))
            })
            .take(limit + 1)
            .collect();
        let next = cut(&mut agents, limit, |agent| &agent.dn);
        self.page("agents", agents, next.map(|dn| ("after", dn)))
    }

    pub(super) fn agent(&self, claims: &Claims, dn: &str) -> Answer {
        self.allow(claims, Action::ReadAgent, dn)?;
        self.no_query()?;
        match self.switch.agent(dn) {
            Some(agent) => self.found(&agent),
            None => Err(Problem::new(404, NO_AGENT)),
        }
    }

    pub(super) fn change_agent(&self, claims: &Claims, dn: &str) -> Answer {
        self.allow(claims, Action::ChangeAgent, dn)?;
        self.no_query()?;
        let change =
            Change::parse(self.patch_body()?).map_err(|detail| Problem::new(400, detail))?;
        let before = self
            .switch
            .agent(dn)
            .ok_or_else(|| Problem::new(404, NO_AGENT))?;
        if self.request.has("If-Match") {
            let etag = Response::with_body(200, JSON, encode(&before)).etag();
            if !self.request.names_tag("If-Match", &etag, false) {
                return Err(Problem::new(412, "the agent has changed meanwhile"));
            }
        }
        match self.switch.change(dn, &change) {
            Ok(Some(after)) => {
                let response = Response::with_body(200, JSON, encode(&after));
                let etag = response.etag();
                Ok(response
                    .header("ETag", etag)
                    .header("Cache-Control", "no-store"))
            }
            Ok(None) => Err(Problem::new(404, NO_AGENT)),
            Err(NotChanged::Full) => {
                Err(Problem::new(503, "the server is full").with("Retry-After", "60"))
            }
            Err(NotChanged::Directory) => Err(Problem::new(
                503,
                "the directory cannot be written at the moment",
            )
            .with("Retry-After", "10")),
        }
    }
}
