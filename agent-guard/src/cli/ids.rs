//! What people type instead of a whole id.

use ulid::Ulid;

use super::{
    client::Client,
    exit::{Exit, Failure},
};
use crate::api::types::{Approvals, Sessions};

/// The shortest end of an id that is taken for it.
const SHORTEST: usize = 4;

/// The session of an id, the end of an id, or a name.
pub(super) fn session(client: &Client, text: &str) -> Result<Ulid, Failure> {
    if let Ok(id) = Ulid::from_string(text) {
        return Ok(id);
    }
    let Sessions { sessions } = client.get("/v1/sessions")?;
    let named: Vec<Ulid> = sessions
        .iter()
        .filter(|session| session.name.as_deref() == Some(text))
        .map(|session| session.id)
        .collect();
    if named.is_empty() {
        one("session", text, ending(sessions.iter().map(|session| session.id), text))
    } else {
        one("session", text, named)
    }
}

/// The hold of an id or the end of an id.
pub(super) fn hold(client: &Client, text: &str) -> Result<Ulid, Failure> {
    if let Ok(id) = Ulid::from_string(text) {
        return Ok(id);
    }
    let Approvals { approvals } = client.get("/v1/approvals?all=true")?;
    one("approval", text, ending(approvals.iter().map(|hold| hold.id), text))
}

fn ending(ids: impl Iterator<Item = Ulid>, text: &str) -> Vec<Ulid> {
    let end = text.to_ascii_uppercase();
    if end.len() < SHORTEST { Vec::new() } else { ids.filter(|id| id.to_string().ends_with(&end)).collect() }
}

fn one(what: &str, text: &str, found: Vec<Ulid>) -> Result<Ulid, Failure> {
    match found.as_slice() {
        [id] => Ok(*id),
        [] => Err(Failure::new(
            Exit::Failed,
            format!("no {what} \"{text}\"; see `agent-guard {what}s list`")
                .replace("sessions list", "session list"),
        )),
        several => {
            let ids: Vec<String> = several.iter().map(Ulid::to_string).collect();
            Err(Failure::new(Exit::Failed, format!("\"{text}\" is several {what}s: {}", ids.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_ids() {
        let (a, b) = (Ulid(0x1234_5678), Ulid(0xff_1234_5678));
        let end = a.to_string()[20..].to_owned();
        assert_eq!(ending([a, Ulid(7)].into_iter(), &end.to_lowercase()), [a]);
        assert_eq!(ending([a, b].into_iter(), &end).len(), 2);
        assert!(ending([a].into_iter(), &a.to_string()[24..]).is_empty(), "too short to be sure");
        assert!(one("session", "x", vec![a, b]).unwrap_err().message.contains(&b.to_string()));
        assert!(one("session", "x", vec![]).unwrap_err().message.contains("agent-guard session list"));
    }
}
