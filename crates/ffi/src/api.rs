//! What the REST API shows and changes: agents of the arena, and the directory beside them.

use std::cell::RefCell;
use std::collections::HashSet;

use rtc_json_api::calls::{CallView, PastCall};
use rtc_json_api::directory::{Change, Entry, Status};
use rtc_json_api::rest::{
    self, AgentView, Genesys, Health, NotChanged, Sent, Switch, TokenRefused,
};
use rtc_json_api::token::Claims;
use rtc_json_engine::{Agent, Input, State};

use crate::directory::entry_dn;
use crate::nodes::replica_dn;
use crate::runtime::{agent_dn, Runtime};
use crate::stats::Stat;

thread_local! {
    /// The last response; it is read before the next request is handled.
    static RESPONSE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What is sent when the program itself failed.
pub const FAULT: &str =
    "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Answers an HTTP request. The response stays until the next call; with it comes whether the connection ends.
pub fn answer(runtime: &Runtime, raw: &[u8]) -> (*const u8, usize, bool) {
    let now = Runtime::unix_now() / 1000;
    let Sent {
        bytes,
        close,
        status,
    } = rest::handle(runtime, &runtime.api, raw, now);
    runtime.count(Stat::ApiRequests);
    if status >= 400 {
        runtime.count(Stat::ApiErrors);
    }
    RESPONSE.with(|slot| {
        let mut slot = slot.borrow_mut();
        *slot = bytes;
        (slot.as_ptr(), slot.len(), close)
    })
}

/// What an agent does, apart from being away of his own will.
fn status(agent: Option<&Agent>, away: bool) -> Status {
    let Some(agent) = agent else {
        return Status::Offline;
    };
    let mut live = agent.calls.iter().filter(|call| call.live()).peekable();
    if live.peek().is_some() {
        return match live.all(|call| call.state == State::Incoming) {
            true => Status::Ringing,
            false => Status::Busy,
        };
    }
    match (
        agent.sessions.iter().any(|session| session.attached()),
        away,
    ) {
        (false, _) => Status::Offline,
        (true, true) => Status::Away,
        (true, false) => Status::Available,
    }
}

fn view(dn: &str, agent: Option<&Agent>, entry: Option<Entry>) -> AgentView {
    let entry = entry.unwrap_or_default();
    let text = |text: String| Some(text).filter(|text| !text.is_empty());
    let own_name = || agent.map_or_else(String::new, |agent| agent.display_name.clone());
    AgentView {
        dn: dn.to_owned(),
        status: status(agent, entry.away),
        // the directory's name, if it has one
        display_name: text(entry.display_name).or_else(|| text(own_name())),
        genesys_agent: text(entry.genesys_agent),
        skills: entry.skills,
    }
}

/// Calls that browsers know of.
fn calls_of(agent: &Agent, now: u64) -> impl Iterator<Item = CallView> + '_ {
    agent
        .calls
        .iter()
        .filter(|call| call.live())
        .map(move |call| {
            let (from, to) = call.parties(&agent.dn);
            CallView {
                call_id: call.id.clone(),
                dn: agent.dn.clone(),
                direction: call.direction.as_str(),
                state: call.state.as_str(),
                from: from.to_owned(),
                to: to.to_owned(),
                sip_call_id: call.leg.dialog.call_id.clone(),
                started: call.started_unix,
                answered: call.answered_at != 0,
                duration: call.duration(now),
                hold: call.hold,
                remote_hold: call.remote_hold,
                muted: call.muted,
                recording: call.recording.map(|recording| recording.as_str()),
            }
        })
}

impl Runtime {
    /// An agent that has been let in, here or on another node.
    fn anywhere(&self, dn: &str) -> Option<Agent> {
        let here = self.look(dn).filter(|agent| !agent.is_unknown());
        here.or_else(|| self.elsewhere(dn))
    }
}

impl Switch for Runtime {
    fn claims(&self, token: &str) -> Result<Claims, TokenRefused> {
        self.look_at_files();
        let tokens = self.tokens.as_ref().ok_or(TokenRefused::NoKeys)?;
        tokens
            .claims(token, Self::unix_now())
            .map_err(TokenRefused::Bad)
    }

    fn agent(&self, dn: &str) -> Option<AgentView> {
        let agent = self.anywhere(dn);
        let entry = self.entry(dn);
        (agent.is_some() || entry.is_some()).then(|| view(dn, agent.as_ref(), entry))
    }

    fn agents(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.arena.keys(|key| {
            if let Some(dn) = [agent_dn, entry_dn, replica_dn]
                .iter()
                .find_map(|of| of(key))
            {
                found.push(dn.to_owned());
            }
        });
        found
    }

    fn change(&self, dn: &str, change: &Change) -> Result<Option<AgentView>, NotChanged> {
        let agent = self.anywhere(dn);
        let known = self.entry(dn);
        if agent.is_none() && known.is_none() {
            return Ok(None);
        }
        let mut wanted = known.clone().unwrap_or_default();
        change.apply(&mut wanted);
        // the table first: what is told to be so has to be there after the next reload
        if wanted.skills != known.unwrap_or_default().skills
            && !self.host.directory_write(dn, &wanted.skills_text())
        {
            return Err(NotChanged::Directory);
        }
        let entry = self
            .change_entry(dn, |entry| {
                change.apply(entry);
            })
            .map_err(|_| NotChanged::Full)?;
        Ok(Some(view(dn, agent.as_ref(), Some(entry))))
    }

    fn calls(&self) -> Vec<CallView> {
        let now = Self::now();
        let mut found = Vec::new();
        let mut here = HashSet::new();
        self.each_agent(|agent| {
            if !agent.is_unknown() {
                here.insert(agent.dn.clone());
            }
            found.extend(calls_of(agent, now));
        });
        // one that has just come from another node may still be there, too
        self.each_elsewhere(|agent| {
            if !here.contains(&agent.dn) {
                found.extend(calls_of(agent, now));
            }
        });
        found
    }

    fn hang_up(&self, call: &CallView) -> bool {
        let known = |agent: Agent| agent.calls.iter().any(|c| c.id == call.call_id && c.live());
        let input = Input::HangUp {
            call: call.call_id.clone(),
        };
        match self.look(&call.dn).is_some_and(known) {
            true => self.drive(&call.dn, input, false).is_ok(),
            false => self.hang_up_elsewhere(&call.dn, &call.call_id),
        }
    }

    fn past_calls(
        &self,
        before: u64,
        wanted: &dyn Fn(&str) -> bool,
        limit: usize,
    ) -> Vec<(u64, PastCall)> {
        Runtime::past_calls(self, before, wanted, limit)
    }

    fn genesys(&self) -> Genesys {
        self.genesys_status()
    }

    fn health(&self) -> Health {
        if self.draining() {
            Health::Draining
        } else if self.short_of_space() {
            Health::Full
        } else {
            Health::Ok
        }
    }
}
