//! Errors of the API: RFC 9457 problem details with a stable code.

use serde::{Deserialize, Serialize};

/// What went wrong, for programs. The names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The caller may not do this.
    NotPermitted,
    /// The caller belongs to a session, and sessions may not do this.
    TaggedCaller,
    /// There is no such thing.
    NotFound,
    /// The policy has errors; they are in `errors`.
    InvalidPolicy,
    /// The policy in force has no profile of that name.
    UnknownProfile,
    /// It can't be done any more: already answered, already ended.
    Conflict,
    /// It can't be done now: no policy in force, the kernel side isn't there, a table is full.
    Unavailable,
    /// The request can't be understood.
    BadRequest,
    /// A bug or a failure of the host.
    Internal,
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::NotPermitted,
        Self::TaggedCaller,
        Self::NotFound,
        Self::InvalidPolicy,
        Self::UnknownProfile,
        Self::Conflict,
        Self::Unavailable,
        Self::BadRequest,
        Self::Internal,
    ];

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotPermitted => "not_permitted",
            Self::TaggedCaller => "tagged_caller",
            Self::NotFound => "not_found",
            Self::InvalidPolicy => "invalid_policy",
            Self::UnknownProfile => "unknown_profile",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::BadRequest => "bad_request",
            Self::Internal => "internal",
        }
    }

    /// A short text that is the same for every error of this code.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::NotPermitted => "not permitted",
            Self::TaggedCaller => "not permitted from inside an agent session",
            Self::NotFound => "not found",
            Self::InvalidPolicy => "the policy is invalid",
            Self::UnknownProfile => "unknown profile",
            Self::Conflict => "not possible any more",
            Self::Unavailable => "not possible now",
            Self::BadRequest => "the request can't be understood",
            Self::Internal => "internal error",
        }
    }

    /// Status of the HTTP response.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::NotPermitted | Self::TaggedCaller => 403,
            Self::NotFound => 404,
            Self::InvalidPolicy | Self::UnknownProfile => 422,
            Self::Conflict => 409,
            Self::Unavailable => 503,
            Self::BadRequest => 400,
            Self::Internal => 500,
        }
    }
}

/// One of several errors: a place in a policy file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorItem {
    /// What is wrong.
    pub message: String,
    /// File.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line in it, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column in it, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// Why a call of the API failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", code.title())]
pub struct ApiError {
    /// What went wrong, for programs.
    pub code: Code,
    /// What went wrong this time and what to do, for people.
    pub detail: String,
    /// Several errors: places in policy files.
    pub errors: Vec<ErrorItem>,
}

impl ApiError {
    /// An error with its explanation.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new() }
    }

    /// The same with the places that are wrong.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<ErrorItem>) -> Self {
        self.errors = errors;
        self
    }

    /// There is no such thing.
    #[must_use]
    pub fn not_found(what: &str, id: impl std::fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("no {what} {id}"))
    }

    /// The policy in force has no profile of that name; says which there are.
    pub fn unknown_profile<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Self::new(
            Code::UnknownProfile,
            format!("the policy in force has no profile \"{name}\"; it has: {known}"),
        )
    }
}

/// An error on the wire (`application/problem+json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:agent-guard:problem:<code>`.
    pub r#type: String,
    /// The code's title.
    pub title: String,
    /// Status of the HTTP response.
    pub status: u16,
    /// What went wrong, for programs.
    pub code: Code,
    /// What went wrong this time and what to do, for people.
    pub detail: String,
    /// Several errors: places in policy files.
    #[serde(default)]
    pub errors: Vec<ErrorItem>,
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        Self {
            r#type: format!("urn:agent-guard:problem:{}", error.code.name()),
            title: error.code.title().to_owned(),
            status: error.code.status(),
            code: error.code,
            detail: error.detail,
            errors: error.errors,
        }
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self { code: problem.code, detail: problem.detail, errors: problem.errors }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_wire() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.name());
        }
    }

    #[test]
    fn unknown_profiles_list_the_known() {
        let error = ApiError::unknown_profile("x", ["coding-agent", "ci"]);
        assert!(error.detail.ends_with("it has: coding-agent, ci"));
        let problem = Problem::from(error.clone());
        assert_eq!(problem.status, 422);
        assert_eq!(ApiError::from(problem), error);
    }
}
