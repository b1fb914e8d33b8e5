//! `approvals`.

use super::{
    args::ApprovalsCommand,
    client::Client,
    exit::{Exit, Failure},
    ids,
    output::{Out, printable, span},
    session::who,
};
use crate::api::types::{Answer, Approvals, HoldInfo, RuleView, Time};

pub(super) fn approvals(client: &Client, command: ApprovalsCommand) -> Result<Exit, Failure> {
    match command {
        ApprovalsCommand::List(args) => {
            let path = if args.all { "/v1/approvals?all=true" } else { "/v1/approvals" };
            list(&Out::new(args.json), &client.get(path)?)
        }
        ApprovalsCommand::Show(args) => {
            let id = ids::hold(client, &args.id)?;
            show(&Out::new(args.json), &client.get(&format!("/v1/approvals/{id}"))?)
        }
        ApprovalsCommand::Approve(args) => answer(client, &args.id, "approve", args.comment, args.json),
        ApprovalsCommand::Deny(args) => answer(client, &args.id, "deny", args.comment, args.json),
    }
}

fn answer(
    client: &Client,
    id: &str,
    verb: &str,
    comment: Option<String>,
    json: bool,
) -> Result<Exit, Failure> {
    let id = ids::hold(client, id)?;
    let out = Out::new(json);
    let hold: HoldInfo = client.post(&format!("/v1/approvals/{id}/{verb}"), &Answer { comment })?;
    if out.json {
        out.value(&hold)?;
    } else {
        out.line(&format!("{}: {} by {}", hold.state.name(), what(&hold), process(&hold)))?;
    }
    Ok(Exit::Done)
}

/// What is tried, in a few words.
fn what(hold: &HoldInfo) -> String {
    if let (Some(path), Some(line)) = (&hold.path, &hold.command_line) {
        return printable(&format!("{} {path} as {line}", hold.operation));
    }
    let object = match (&hold.path, &hold.address) {
        (Some(path), _) => path.clone(),
        (None, Some(address)) if hold.port.is_none() => address.clone(),
        (None, Some(address)) if address.contains(':') => {
            format!("[{address}]:{}", hold.port.unwrap_or_default())
        }
        (None, Some(address)) => format!("{address}:{}", hold.port.unwrap_or_default()),
        (None, None) => String::new(),
    };
    let target = hold.target_path.as_ref().map(|target| format!(" to {target}")).unwrap_or_default();
    printable(&format!("{} {object}{target}", hold.operation))
}

fn process(hold: &HoldInfo) -> String {
    let name = hold.process.exe.rsplit('/').next().unwrap_or_default();
    printable(&format!("{name}({})", hold.process.pid))
}

/// A rule's place.
pub(super) fn place(rule: &RuleView) -> String {
    // What comes with the program stands on no line.
    if rule.line == 0 { rule.file.clone() } else { format!("{}:{}", rule.file, rule.line) }
}

fn list(out: &Out, approvals: &Approvals) -> Result<Exit, Failure> {
    if out.json {
        out.value(approvals)?;
        return Ok(Exit::Done);
    }
    if approvals.approvals.is_empty() {
        out.line("nothing waits for an answer")?;
        return Ok(Exit::Done);
    }
    let rows: Vec<Vec<String>> = approvals
        .approvals
        .iter()
        .map(|hold| {
            vec![
                hold.id.to_string(),
                hold.state.name().to_owned(),
                span(hold.waited_ms),
                hold.session_name.clone().unwrap_or_else(|| hold.session.to_string()),
                hold.process.user.clone().unwrap_or_else(|| hold.process.uid.to_string()),
                process(hold),
                what(hold),
            ]
        })
        .collect();
    out.table(&["ID", "STATE", "WAITED", "SESSION", "USER", "PROCESS", "ACTION"], &rows)?;
    Ok(Exit::Done)
}

fn show(out: &Out, hold: &HoldInfo) -> Result<Exit, Failure> {
    if out.json {
        out.value(hold)?;
        return Ok(Exit::Done);
    }
    let rule = hold.rule.as_ref();
    let session = hold.session_name.as_ref().map_or_else(String::new, |name| format!("{name}, "));
    out.fields(&[
        ("approval", hold.id.to_string()),
        ("state", hold.state.name().to_owned()),
        ("action", what(hold)),
        ("process", format!("{} {}", hold.process.pid, hold.process.exe)),
        ("command line", hold.process.cmd_line.clone()),
        ("user", hold.process.user.clone().unwrap_or_else(|| hold.process.uid.to_string())),
        ("session", format!("{session}{}", hold.session)),
        ("profile", hold.profile.clone()),
        ("rule", rule.map(|rule| rule.text.clone()).unwrap_or_default()),
        ("reason", rule.and_then(|rule| rule.reason.clone()).unwrap_or_default()),
        ("from", rule.map(place).unwrap_or_default()),
        ("asked", hold.asked.local()),
        ("waited", span(hold.waited_ms)),
        ("answered", hold.answered.map(Time::local).unwrap_or_default()),
        ("answered by", hold.answered_by.as_ref().map(who).unwrap_or_default()),
        ("comment", hold.comment.clone().unwrap_or_default()),
    ])?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_in_words() {
        let mut hold: HoldInfo = serde_json::from_value(serde_json::json!({
            "id": "00000000000000000000000001", "session": "00000000000000000000000002",
            "session_name": null, "profile": "p", "operation": "rename",
            "process": {"pid": 7, "started": {"ms": 1}, "exe": "/usr/bin/mv\u{1b}", "cmd_line": "", "uid": 0},
            "path": "/a", "target_path": "/b", "command_line": null, "address": null, "port": null, "rule": null,
            "asked": {"ms": 1}, "state": "waiting", "answered_by": null, "answered": null,
            "comment": null, "waited_ms": 5
        }))
        .unwrap();
        assert_eq!(what(&hold), "rename /a to /b");
        assert_eq!(process(&hold), "mv\\u{1b}(7)");
        (hold.path, hold.target_path, hold.address, hold.port) =
            (None, None, Some("fd00::1".to_owned()), Some(443));
        hold.operation = "connect".to_owned();
        assert_eq!(what(&hold), "connect [fd00::1]:443");
        (hold.address, hold.port) = (Some("unix:@name".to_owned()), None);
        assert_eq!(what(&hold), "connect unix:@name");
        (hold.path, hold.command_line) = (Some("/bin/rm".to_owned()), Some("rm -rf /".to_owned()));
        hold.operation = "exec".to_owned();
        assert_eq!(what(&hold), "exec /bin/rm as rm -rf /");
    }
}
