//! `/api/calls`: calls that are up, and those that are over.

use serde_json::value::RawValue;

use crate::access::{reach, Action, Reach};
use crate::calls::CallView;
use crate::http::Response;
use crate::token::Claims;

use super::{cut, limit, visible, Answer, Asked, Problem};

impl Asked<'_> {
    pub(super) fn calls(&self, claims: &Claims) -> Answer {
        let reach = reach(claims, Action::ReadCalls)?;
        let [count, after, dn] = self.query(["limit", "after", "dn"])?;
        let limit = limit(count)?;
        let mut calls = visible(self.switch.calls(), &reach, |call| &call.dn);
        calls.retain(|call| {
            after.is_none_or(|after| call.call_id.as_str() > after)
                && dn.is_none_or(|dn| call.dn == dn)
        });
        calls.sort_unstable_by(|a, b| a.call_id.cmp(&b.call_id));
        let next = cut(&mut calls, limit, |call| &call.call_id);
        self.page("calls", calls, next.map(|id| ("after", id)))
    }

    pub(super) fn call(&self, claims: &Claims, id: &str) -> Answer {
        let call = self.visible_call(&reach(claims, Action::ReadCalls)?, id)?;
        self.no_query()?;
        self.found(&call)
    }

    pub(super) fn end_call(&self, claims: &Claims, id: &str) -> Answer {
        let call = self.visible_call(&reach(claims, Action::EndCall)?, id)?;
        self.no_query()?;
        match self.switch.hang_up(&call) {
            true => Ok(Response::new(204).header("Cache-Control", "no-store")),
            false => Err(no_call()),
        }
    }

    pub(super) fn past_calls(&self, claims: &Claims) -> Answer {
        let reach = reach(claims, Action::ReadCalls)?;
        let [count, before, dn] = self.query(["limit", "before", "dn"])?;
        let limit = limit(count)?;
        let before = match before.map(str::parse) {
            None => u64::MAX,
            Some(Ok(before)) => before,
            Some(Err(_)) => {
                return Err(Problem::new(400, "before must be the next of another page"));
            }
        };
        let wanted = |of: &str| reach.covers(of) && dn.is_none_or(|dn| of == dn);
        let mut found = self.switch.past_calls(before, &wanted, limit + 1);
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found
            .last()
            .filter(|_| more)
            .map(|(number, _)| number.to_string());
        let calls: Vec<_> = found
            .into_iter()
            .filter_map(|(_, call)| RawValue::from_string(call.json()).ok())
            .collect();
        self.page("calls", calls, next.map(|number| ("before", number)))
    }

    /// A call of somebody else is answered as one that does not exist.
    fn visible_call(&self, reach: &Reach<'_>, id: &str) -> Result<CallView, Problem> {
        self.switch
            .calls()
            .into_iter()
            .find(|call| call.call_id == id && reach.covers(&call.dn))
            .ok_or_else(no_call)
    }
}

fn no_call() -> Problem {
    Problem::new(404, "there is no such call")
}
