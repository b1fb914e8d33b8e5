//! `session`.

use super::{
    args::SessionCommand,
    client::Client,
    exit::{Exit, Failure},
    ids,
    output::{Out, count, printable, span},
};
use crate::api::types::{Killed, Origin, SessionInfo, SessionTree, Sessions, Time, Who};

pub(super) fn session(client: &Client, command: SessionCommand) -> Result<Exit, Failure> {
    match command {
        SessionCommand::List(args) => list(client, &Out::new(args.json)),
        SessionCommand::Show(args) => {
            let id = ids::session(client, &args.id)?;
            show(&Out::new(args.json), &client.get(&format!("/v1/sessions/{id}"))?)
        }
        SessionCommand::Tree(args) => {
            let id = ids::session(client, &args.id)?;
            tree(&Out::new(args.json), &client.get(&format!("/v1/sessions/{id}/tree"))?)
        }
        SessionCommand::Kill(args) => {
            let id = ids::session(client, &args.id)?;
            let out = Out::new(args.json);
            let killed: Killed = client.post(&format!("/v1/sessions/{id}/kill"), &serde_json::json!({}))?;
            if out.json {
                out.value(&killed)?;
            } else {
                let processes = count(killed.processes, "process");
                out.line(&format!("session {} killed: {processes}", killed.session))?;
            }
            Ok(Exit::Done)
        }
    }
}

/// A person in a few words.
pub(super) fn who(who: &Who) -> String {
    let mut text = who.user.clone().unwrap_or_else(|| who.uid.to_string());
    if let Some(login) = who.login_uid.filter(|&login| login != who.uid) {
        text.push_str(&format!(" (logged in as uid {login})"));
    }
    text
}

fn list(client: &Client, out: &Out) -> Result<Exit, Failure> {
    let sessions: Sessions = client.get("/v1/sessions")?;
    if out.json {
        out.value(&sessions)?;
        return Ok(Exit::Done);
    }
    if sessions.sessions.is_empty() {
        out.line("no sessions; start one with `agent-guard run -- CMD`")?;
        return Ok(Exit::Done);
    }
    let rows: Vec<Vec<String>> = sessions
        .sessions
        .iter()
        .map(|session| {
            vec![
                session.id.to_string(),
                session.name.clone().unwrap_or_else(|| "-".to_owned()),
                session.profile.clone(),
                session.state.name().to_owned(),
                session.processes.to_string(),
                session.started_by.user.clone().unwrap_or_else(|| session.started_by.uid.to_string()),
                session.started.local(),
                session.command.join(" "),
            ]
        })
        .collect();
    out.table(&["ID", "NAME", "PROFILE", "STATE", "PROCESSES", "USER", "STARTED", "COMMAND"], &rows)?;
    Ok(Exit::Done)
}

fn show(out: &Out, session: &SessionInfo) -> Result<Exit, Failure> {
    if out.json {
        out.value(session)?;
        return Ok(Exit::Done);
    }
    let until = session.ended.unwrap_or_else(Time::now);
    let lasted = span(until.ms().saturating_sub(session.started.ms()));
    out.fields(&[
        ("session", session.id.to_string()),
        ("name", session.name.clone().unwrap_or_default()),
        ("state", session.state.name().to_owned()),
        ("profile", format!("{} ({})", session.profile, session.mode.name())),
        ("task", session.task.clone().unwrap_or_default()),
        ("command", session.command.join(" ")),
        ("directory", session.cwd.clone()),
        ("started by", who(&session.started_by)),
        ("terminal", session.started_by.tty.clone().unwrap_or_default()),
        ("started", session.started.local()),
        ("ended", session.ended.map(Time::local).unwrap_or_default()),
        ("lasts", lasted),
        ("began by", session.origin.name().to_owned()),
        ("started in", session.parent.map(|parent| parent.to_string()).unwrap_or_default()),
        ("first process", session.root_pid.to_string()),
        ("processes", session.processes.to_string()),
    ])?;
    Ok(Exit::Done)
}

fn tree(out: &Out, tree: &SessionTree) -> Result<Exit, Failure> {
    if out.json {
        out.value(tree)?;
        return Ok(Exit::Done);
    }
    if tree.processes.is_empty() {
        out.line(&format!("session {} has no processes", tree.session))?;
    }
    if tree.origin == Origin::Attach {
        out.line(&format!("session {} was attached to what ran already", tree.session))?;
    }
    for entry in &tree.processes {
        let indent = usize::try_from(entry.depth.min(64)).unwrap_or(64) * 2;
        let process = &entry.process;
        let text = if process.cmd_line.is_empty() { &process.exe } else { &process.cmd_line };
        let held = entry.hold.map(|hold| format!("  [held: {hold}]")).unwrap_or_default();
        out.line(&format!("{:indent$}{} {}{held}", "", process.pid, printable(text)))?;
    }
    Ok(Exit::Done)
}
