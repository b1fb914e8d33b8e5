//! How commands end: the one place where errors become exit codes.

use super::client::ClientError;
use crate::api::{ApiError, Code};

/// Exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Failed.
    Failed,
    /// The command line is wrong.
    Usage,
    /// The policy is invalid.
    Policy,
    /// Not permitted.
    NotPermitted,
    /// The daemon can't be reached.
    NoDaemon,
    /// `run`: the session could not be started.
    NoSession,
    /// `run`: the command could not be executed.
    NotExecutable,
    /// `run`: there is no such command.
    NoCommand,
}

impl Exit {
    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Policy => 3,
            Self::NotPermitted => 4,
            Self::NoDaemon => 5,
            Self::NoSession => 125,
            Self::NotExecutable => 126,
            Self::NoCommand => 127,
        }
    }
}

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    /// How the program ends.
    pub exit: Exit,
    /// What to print to standard error; empty for nothing.
    pub message: String,
}

impl Failure {
    /// A failure with its message.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// The same message with another exit code.
    #[must_use]
    pub fn with(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            ClientError::NoDaemon { .. } | ClientError::Connect { .. } => Exit::NoDaemon,
            ClientError::Inside | ClientError::Denied { .. } => Exit::NotPermitted,
            ClientError::Talk { .. } | ClientError::Answer { .. } => Exit::Failed,
            ClientError::Api(error) => of(error.code),
        };
        let message = match &error {
            ClientError::Api(error) => explain(error),
            other => other.to_string(),
        };
        Self { exit, message }
    }
}

const fn of(code: Code) -> Exit {
    match code {
        Code::NotPermitted | Code::TaggedCaller => Exit::NotPermitted,
        Code::InvalidPolicy => Exit::Policy,
        Code::BadRequest => Exit::Usage,
        Code::NotFound | Code::UnknownProfile | Code::Conflict | Code::Unavailable | Code::Internal => {
            Exit::Failed
        }
    }
}

/// An error of the daemon with all of its places, one a line.
fn explain(error: &ApiError) -> String {
    let mut text = error.to_string();
    for item in &error.errors {
        text.push_str("\n  ");
        if let Some(file) = &item.file {
            text.push_str(file);
            for number in [item.line, item.column].into_iter().flatten() {
                text.push_str(&format!(":{number}"));
            }
            text.push_str(": ");
        }
        text.push_str(&item.message);
        if let Some(help) = &item.help {
            text.push_str("\n    help: ");
            text.push_str(help);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ErrorItem;

    #[test]
    fn exit_codes_of_errors() {
        for (code, wanted) in [
            (Code::NotPermitted, 4),
            (Code::TaggedCaller, 4),
            (Code::InvalidPolicy, 3),
            (Code::BadRequest, 2),
            (Code::NotFound, 1),
            (Code::Internal, 1),
        ] {
            let failure = Failure::from(ClientError::Api(ApiError::new(code, "x")));
            assert_eq!(failure.exit.code(), wanted);
        }
        let none = ClientError::NoDaemon { socket: "/run/x".into() };
        assert_eq!(Failure::from(none).exit.code(), 5);
        assert_eq!(Failure::from(ClientError::Inside).exit.code(), 4);
    }

    #[test]
    fn places_are_listed() {
        let item = ErrorItem {
            message: "unknown key `moed`".to_owned(),
            file: Some("a.toml".to_owned()),
            line: Some(7),
            column: Some(1),
            help: Some("did you mean `mode`?".to_owned()),
        };
        let error = ApiError::new(Code::InvalidPolicy, "1 error").with_errors(vec![item]);
        let text = Failure::from(ClientError::Api(error)).message;
        assert!(
            text.ends_with("\n  a.toml:7:1: unknown key `moed`\n    help: did you mean `mode`?"),
            "{text}"
        );
    }
}
