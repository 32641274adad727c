//! Who may do what: one answer for the WebSocket and for REST.
//!
//! A token speaks for the DN in `sub` and for those in `dn`. Its scopes (`calls:read`, ...) say what it is good for, each with
//! these DNs; `:all` behind a scope (`calls:read:all`) means every DN. A token without any scope is good for all of it, with
//! its own DNs: the usual one of an agent's page.

use crate::token::Claims;

/// Something that needs a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Register a browser.
    Register,
    /// See an agent's state.
    ReadAgent,
    /// Change it.
    ChangeAgent,
    /// See calls, those of the past as well.
    ReadCalls,
    /// End a call.
    EndCall,
    /// See whether Genesys can be reached.
    ReadGenesys,
}

impl Action {
    /// Every action.
    pub const ALL: [Action; 6] = [
        Action::Register,
        Action::ReadAgent,
        Action::ChangeAgent,
        Action::ReadCalls,
        Action::EndCall,
        Action::ReadGenesys,
    ];

    /// The scope that allows it.
    pub fn scope(self) -> &'static str {
        match self {
            Action::Register => "register",
            Action::ReadAgent => "agents:read",
            Action::ChangeAgent => "agents:write",
            Action::ReadCalls => "calls:read",
            Action::EndCall => "calls:write",
            Action::ReadGenesys => "genesys:read",
        }
    }
}

/// The DNs with which somebody may do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach<'c> {
    /// Those that the token speaks for.
    Own(&'c Claims),
    /// Every one.
    All,
}

/// Why something is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The token is not good for it.
    #[error("the token has not the scope {0}")]
    Scope(&'static str),
    /// It does not speak for that DN.
    #[error("the token is for another DN")]
    Dn,
}

impl Reach<'_> {
    /// Is that DN among them?
    pub fn covers(&self, dn: &str) -> bool {
        match self {
            Reach::All => true,
            Reach::Own(claims) => claims.subject == dn || claims.dns.iter().any(|own| own == dn),
        }
    }
}

/// With which DNs may the holder of the token do it?
///
/// # Errors
/// [`Denied::Scope`]: with none.
pub fn reach(claims: &Claims, action: Action) -> Result<Reach<'_>, Denied> {
    let Some(scopes) = &claims.scopes else {
        return Ok(Reach::Own(claims));
    };
    let scope = action.scope();
    let mut own = false;
    for granted in scopes {
        match granted.strip_prefix(scope) {
            Some(":all") => return Ok(Reach::All),
            Some("") => own = true,
            _ => {}
        }
    }
    match own {
        true => Ok(Reach::Own(claims)),
        false => Err(Denied::Scope(scope)),
    }
}

/// May the holder of the token do it with that DN?
///
/// # Errors
/// [`Denied`] says what is missing.
pub fn allow(claims: &Claims, action: Action, dn: &str) -> Result<(), Denied> {
    match reach(claims, action)?.covers(dn) {
        true => Ok(()),
        false => Err(Denied::Dn),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(scopes: Option<&[&str]>) -> Claims {
        Claims {
            subject: "5001".to_owned(),
            dns: vec!["5002".to_owned()],
            scopes: scopes.map(|all| all.iter().map(|s| (*s).to_owned()).collect()),
        }
    }

    #[test]
    fn without_scopes_all_is_allowed_with_own_numbers() {
        let claims = claims(None);
        for action in Action::ALL {
            assert_eq!(allow(&claims, action, "5001"), Ok(()));
            assert_eq!(allow(&claims, action, "5002"), Ok(()));
            assert_eq!(allow(&claims, action, "5003"), Err(Denied::Dn));
        }
    }

    #[test]
    fn a_scope_is_good_for_its_action_alone() {
        for granted in Action::ALL {
            for (scope, all) in [
                (granted.scope().to_owned(), false),
                (format!("{}:all", granted.scope()), true),
            ] {
                let claims = claims(Some(&["other", &scope]));
                for action in Action::ALL {
                    let wanted = match (action == granted, all) {
                        (false, _) => [Err(Denied::Scope(action.scope())); 2],
                        (true, false) => [Ok(()), Err(Denied::Dn)],
                        (true, true) => [Ok(()), Ok(())],
                    };
                    let got = ["5002", "5003"].map(|dn| allow(&claims, action, dn));
                    assert_eq!(got, wanted, "{scope} {action:?}");
                }
            }
        }
    }

    #[test]
    fn what_only_looks_like_a_scope() {
        for scope in [
            "agents",
            "agents:",
            "agents:read:",
            "agents:read:al",
            "agents:read:all:x",
            "agents:readx",
            "AGENTS:READ",
            "*",
        ] {
            assert_eq!(
                allow(&claims(Some(&[scope])), Action::ReadAgent, "5001"),
                Err(Denied::Scope("agents:read")),
                "{scope}"
            );
        }
        assert!(allow(&claims(Some(&[])), Action::Register, "5001").is_err());
    }
}
