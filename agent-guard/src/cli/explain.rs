//! `policy explain`: asks the daemon about what is in force, or answers by itself from policy files.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    approvals::place,
    args::ExplainArgs,
    client::{Client, ClientError},
    exit::{Exit, Failure},
    ids,
    output::{Colour, Out, printable},
};
use crate::{
    api::{
        convert,
        types::{ExplainRequest, ExplanationView},
    },
    kernel::{
        enforcement::Enforcement,
        host::Host,
        support::{self, Tier},
    },
    policy::{self, Filesystem as _, HostFilesystem, SessionPaths, TRIAL_KEY, explain, session},
    sys,
};

/// A path as the daemon needs it: absolute, and text.
fn absolute(path: &Path) -> Result<String, Failure> {
    let usage = |what: String| Failure::new(Exit::Usage, format!("{}: {what}", path.display()));
    let absolute = std::path::absolute(path).map_err(|error| usage(error.to_string()))?;
    absolute.to_str().map(str::to_owned).ok_or_else(|| usage("not UTF-8".to_owned()))
}

pub(super) fn explain(client: &Client, args: ExplainArgs) -> Result<Exit, Failure> {
    let out = Out::new(args.json);
    let path = args.path.as_deref().map(absolute).transpose()?;
    let session = args.session.as_deref().map(|id| ids::session(client, id)).transpose()?;
    let ExplainArgs { profile, op: operation, connect, address, listen, exec, .. } = args;
    let request = ExplainRequest { profile, operation, path, connect, address, listen, exec, session };
    let explanation = if args.file.is_empty() {
        client.post("/v1/policy/explain", &request)?
    } else {
        let home = args.home.or_else(|| sys::home_of(rustix::process::getuid().as_raw()));
        let session = args.cwd.map(|cwd| SessionPaths {
            profile: request.profile.clone(),
            binding: session::SUPPOSED_SESSION,
            cwd,
            home,
            tmp: "/tmp".into(),
        });
        from_files(&request, &args.file, session)?
    };
    show(&out, &explanation)
}

/// The answer by policy files: the very code that makes the kernel's tables and judges by them.
fn from_files(
    request: &ExplainRequest,
    files: &[PathBuf],
    session: Option<SessionPaths>,
) -> Result<ExplanationView, Failure> {
    let fs = HostFilesystem::default();
    let session = session.map(|session| real(&fs, session)).transpose()?;
    let sources = super::check::read(files)?;
    let built = policy::load(sources).and_then(|mut policy| {
        policy.persist(&sys::homes());
        policy::build(&policy, &fs, &BTreeMap::new(), TRIAL_KEY, session.as_slice())
    });
    let compiled = built.map_err(|diagnostics| super::check::mistakes(&diagnostics))?;
    let failed = |error| {
        let names = compiled.profiles.iter().map(|(name, ..)| name.as_str());
        Failure::from(ClientError::Api(convert::explain_error(&error, names)))
    };
    let question = convert::question(request).map_err(failed)?;
    let index = compiled.index_of(&request.profile).map_err(failed)?;
    let binding = session.map_or(session::NO_SESSION, |session| session.binding);
    let answers = explain::ask(&compiled.view(), &fs, (index, binding), &question).map_err(failed)?;
    let mut notes: Vec<String> = compiled.warnings.iter().map(ToString::to_string).collect();
    let host = Host::this();
    let tier = support::tier(&host, || Ok(true)).unwrap_or(Tier::All);
    let kernel = host.btf().map(|btf| Enforcement::of_kernel(&btf, &host, &tier)).inspect_err(|error| {
        notes.push(format!("which hooks would enforce it isn't known: {error}"));
    });
    let who = (request.profile.as_str(), index);
    let mut view = convert::explanation(who, &compiled, &question, 0, &answers, |rule| {
        kernel.as_ref().map(|kernel| kernel.hooks(&rule.operations())).unwrap_or_default()
    });
    view.notes.extend(notes);
    Ok(view)
}

/// The directories that are there: as for a session, what a path leads to counts.
fn real(fs: &HostFilesystem, session: SessionPaths) -> Result<SessionPaths, Failure> {
    let real = |path: &Path| {
        let path = std::path::absolute(path).map_err(|error| (path.to_owned(), error))?;
        fs.lookup(&path, true).map(|found| found.path).map_err(|error| (path, error))
    };
    let failed = |(path, error): (PathBuf, std::io::Error)| {
        Failure::new(Exit::Failed, format!("{}: {error}", path.display()))
    };
    let home = session.home.as_deref().map(real).transpose().map_err(failed)?;
    let (cwd, tmp) = (real(&session.cwd).map_err(failed)?, real(&session.tmp).map_err(failed)?);
    Ok(SessionPaths { cwd, home, tmp, ..session })
}

fn show(out: &Out, explanation: &ExplanationView) -> Result<Exit, Failure> {
    if out.json {
        out.value(explanation)?;
        return Ok(Exit::Done);
    }
    for object in &explanation.objects {
        let colour = match object.verdict.as_str() {
            "deny" | "kill" => Colour::Red,
            "hold" => Colour::Yellow,
            _ => Colour::Green,
        };
        let verdict = out.paint(colour, &object.verdict);
        out.line(&format!("{verdict}  {} {}", explanation.operation, printable(&object.object)))?;
        let reports = object.verdict != object.policy_verdict;
        out.fields(&[
            ("  because of", object.source.clone()),
            ("  rule", object.rule.as_ref().map(|rule| rule.text.clone()).unwrap_or_default()),
            ("  reason", object.rule.as_ref().and_then(|rule| rule.reason.clone()).unwrap_or_default()),
            ("  from", object.rule.as_ref().map(place).unwrap_or_default()),
            (
                "  note",
                if reports {
                    format!("the profile only reports; it would {}", object.policy_verdict)
                } else {
                    String::new()
                },
            ),
        ])?;
    }
    explanation.notes.iter().try_for_each(|note| out.line(&format!("note: {}", printable(note))))?;
    Ok(Exit::Done)
}
