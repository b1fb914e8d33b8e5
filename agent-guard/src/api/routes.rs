//! Paths, and what each of them asks the backend for.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use agent_guard_common::Verdict;
use axum::{
    Extension, Router,
    body::{Body, Bytes, HttpBody},
    extract::{FromRequest, Path, Query, Request, State, rejection::QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper::body::Frame;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use ulid::Ulid;

use super::{
    backend::{Backend, EventLines, Peer},
    error::{ApiError, Code, Problem},
    time::{Time, parse_span},
    types::{Answer, AttachSession, EventQuery, ExplainRequest, MAX_REQUEST_BYTES, StartSession},
};

/// How long a client has for the body of its request.
const BODY_TIME: Duration = Duration::from_secs(10);

type Daemon = State<Arc<dyn Backend>>;
type Caller = Extension<Peer>;

/// Declares the routes once: for the router, and for the test that compares them with the
/// description.
macro_rules! routes {
    ($($method:ident $path:literal $handler:ident,)+) => {
        /// The routes, as the description must have them.
        #[cfg(test)]
        pub(super) const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path),)+];

        /// The router, without the caller.
        pub(super) fn router(backend: Arc<dyn Backend>) -> Router {
            Router::new()
                $(.route($path, $method($handler)))+
                .fallback(no_such_path)
                .method_not_allowed_fallback(no_such_method)
                .with_state(backend)
        }
    };
}

routes! {
    post "/v1/sessions" start_session,
    post "/v1/sessions/attach" attach_session,
    get "/v1/sessions" sessions,
    get "/v1/sessions/{id}" session,
    get "/v1/sessions/{id}/tree" tree,
    post "/v1/sessions/{id}/kill" kill,
    get "/v1/approvals" approvals,
    get "/v1/approvals/{id}" approval,
    post "/v1/approvals/{id}/approve" approve,
    post "/v1/approvals/{id}/deny" deny,
    get "/v1/policy" policy,
    post "/v1/policy/reload" reload,
    post "/v1/policy/explain" explain,
    get "/v1/events" events,
    get "/v1/status" status,
}

/// Asks the backend, on a thread that may block.
async fn ask<T, F>(State(backend): Daemon, Extension(peer): Caller, question: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: FnOnce(&dyn Backend, &Peer) -> Result<T, ApiError> + Send + 'static,
{
    tokio::task::spawn_blocking(move || question(&*backend, &peer)).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a request ended early");
        Err(ApiError::new(Code::Internal, "the request ended early; see the daemon's log"))
    })
}

/// An answer with a status.
fn answer<T: Serialize>(status: StatusCode, result: Result<T, ApiError>) -> Response {
    let result = result.and_then(|value| {
        serde_json::to_vec(&value).map_err(|error| ApiError::new(Code::Internal, error.to_string()))
    });
    match result {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => error.into_response(),
    }
}

fn ok<T: Serialize>(result: Result<T, ApiError>) -> Response {
    answer(StatusCode::OK, result)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        problem(Problem::from(self))
    }
}

fn problem(problem: Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
}

async fn no_such_path(request: Request) -> Response {
    ApiError::new(Code::NotFound, format!("there is no {}; see docs/openapi.json", request.uri().path()))
        .into_response()
}

async fn no_such_method(request: Request) -> Response {
    let detail = format!("{} can't be used with {}", request.method(), request.uri().path());
    problem(Problem { status: 405, ..Problem::from(ApiError::new(Code::BadRequest, detail)) })
}

/// The body of a request, bounded in size and time. An empty one is an empty object.
struct Payload<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Payload<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let bad = |detail: String| ApiError::new(Code::BadRequest, detail);
        let read = axum::body::to_bytes(request.into_body(), MAX_REQUEST_BYTES);
        let body = match tokio::time::timeout(BODY_TIME, read).await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => {
                return Err(bad(format!("the body ({MAX_REQUEST_BYTES} bytes at most): {error}")));
            }
            Err(_elapsed) => return Err(bad("the body didn't arrive in time".to_owned())),
        };
        let text = if body.is_empty() { b"{}".as_slice() } else { &body };
        serde_json::from_slice(text).map(Self).map_err(|error| bad(format!("the body: {error}")))
    }
}

/// The id in a path.
fn id(text: &str) -> Result<Ulid, ApiError> {
    Ulid::from_string(text)
        .map_err(|error| ApiError::new(Code::BadRequest, format!("\"{text}\" is no id: {error}")))
}

fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, ApiError> {
    query.map(|Query(query)| query).map_err(|error| ApiError::new(Code::BadRequest, error.body_text()))
}

async fn start_session(daemon: Daemon, caller: Caller, Payload(body): Payload<StartSession>) -> Response {
    let result = ask(daemon, caller, |backend, peer| backend.start_session(peer, body)).await;
    answer(StatusCode::CREATED, result)
}

async fn attach_session(daemon: Daemon, caller: Caller, Payload(body): Payload<AttachSession>) -> Response {
    let result = ask(daemon, caller, |backend, peer| backend.attach_session(peer, body)).await;
    answer(StatusCode::CREATED, result)
}

async fn sessions(daemon: Daemon, caller: Caller) -> Response {
    ok(ask(daemon, caller, <dyn Backend>::sessions).await)
}

async fn session(daemon: Daemon, caller: Caller, Path(text): Path<String>) -> Response {
    ok(ask(daemon, caller, move |backend, peer| backend.session(peer, id(&text)?)).await)
}

async fn tree(daemon: Daemon, caller: Caller, Path(text): Path<String>) -> Response {
    ok(ask(daemon, caller, move |backend, peer| backend.tree(peer, id(&text)?)).await)
}

async fn kill(daemon: Daemon, caller: Caller, Path(text): Path<String>) -> Response {
    ok(ask(daemon, caller, move |backend, peer| backend.kill(peer, id(&text)?)).await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApprovalsQuery {
    #[serde(default)]
    all: bool,
}

async fn approvals(
    daemon: Daemon,
    caller: Caller,
    asked: Result<Query<ApprovalsQuery>, QueryRejection>,
) -> Response {
    ok(ask(daemon, caller, move |backend, peer| backend.holds(peer, query(asked)?.all)).await)
}

async fn approval(daemon: Daemon, caller: Caller, Path(text): Path<String>) -> Response {
    ok(ask(daemon, caller, move |backend, peer| backend.hold(peer, id(&text)?)).await)
}

async fn approve(
    daemon: Daemon,
    caller: Caller,
    Path(text): Path<String>,
    body: Payload<Answer>,
) -> Response {
    decide(daemon, caller, text, true, body).await
}

async fn deny(daemon: Daemon, caller: Caller, Path(text): Path<String>, body: Payload<Answer>) -> Response {
    decide(daemon, caller, text, false, body).await
}

async fn decide(
    daemon: Daemon,
    caller: Caller,
    text: String,
    approve: bool,
    Payload(body): Payload<Answer>,
) -> Response {
    ok(ask(daemon, caller, move |backend, peer| backend.answer(peer, id(&text)?, approve, body.comment))
        .await)
}

async fn policy(daemon: Daemon, caller: Caller) -> Response {
    ok(ask(daemon, caller, <dyn Backend>::policy).await)
}

async fn reload(daemon: Daemon, caller: Caller) -> Response {
    ok(ask(daemon, caller, <dyn Backend>::reload).await)
}

async fn explain(daemon: Daemon, caller: Caller, Payload(body): Payload<ExplainRequest>) -> Response {
    ok(ask(daemon, caller, move |backend, peer| {
        check_explain(&body)?;
        backend.explain(peer, body)
    })
    .await)
}

/// One question, and only one.
fn check_explain(request: &ExplainRequest) -> Result<(), ApiError> {
    let file = request.operation.is_some() || request.path.is_some();
    let whole = request.operation.is_some() == request.path.is_some();
    let questions = [file, request.connect.is_some(), request.listen.is_some(), request.exec.is_some()];
    let one = questions.into_iter().filter(|asked| *asked).count() == 1;
    let what = match (one && whole, request.address.is_some() && request.connect.is_none()) {
        (true, false) => return Ok(()),
        (false, _) => "one of these: `operation` and `path`, `connect`, `listen`, or `exec`",
        (true, true) => "`address` is for a name in `connect`",
    };
    Err(ApiError::new(Code::BadRequest, what))
}

async fn status(daemon: Daemon, caller: Caller) -> Response {
    ok(ask(daemon, caller, <dyn Backend>::status).await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    #[serde(default)]
    follow: bool,
    session: Option<String>,
    verdict: Option<String>,
    since: Option<String>,
}

impl EventsQuery {
    fn checked(self) -> Result<EventQuery, ApiError> {
        let session = self.session.as_deref().map(id).transpose()?;
        let verdicts: Vec<String> = self
            .verdict
            .iter()
            .flat_map(|list| list.split(','))
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        if let Some(name) = verdicts.iter().find(|name| Verdict::from_name(name).is_none()) {
            let known: Vec<&str> = Verdict::ALL.iter().map(|verdict| verdict.name()).collect();
            let detail = format!("\"{name}\" is no verdict; there are: {}", known.join(", "));
            return Err(ApiError::new(Code::BadRequest, detail));
        }
        let since = self.since.as_deref().map(since).transpose()?;
        Ok(EventQuery { follow: self.follow, session, verdicts, since })
    }
}

/// A point in time, or a span back from now.
fn since(text: &str) -> Result<Time, ApiError> {
    let ago = parse_span(text).map(|span| Time(Time::now().ms().saturating_sub(span)));
    ago.or_else(|| Time::parse(text)).ok_or_else(|| {
        let detail = format!("\"{text}\" is neither a span such as 90s, 10m, 2h or 7d, nor RFC 3339");
        ApiError::new(Code::BadRequest, detail)
    })
}

async fn events(
    daemon: Daemon,
    caller: Caller,
    asked: Result<Query<EventsQuery>, QueryRejection>,
) -> Response {
    let result =
        ask(daemon, caller, move |backend, peer| backend.events(peer, query(asked)?.checked()?)).await;
    match result {
        Ok(lines) => {
            let mut response = Response::new(Body::new(Lines(lines)));
            let kind = HeaderValue::from_static("application/x-ndjson");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response.extensions_mut().insert(Streams);
            response
        }
        Err(error) => error.into_response(),
    }
}

/// Marks a response that may go on for ever.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streams;

/// Events as the body of a response, one a line.
struct Lines(EventLines);

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|line| {
            line.map(|mut line| {
                line.push('\n');
                Ok(Frame::data(Bytes::from(line)))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_of_events() {
        let ask = |session: Option<&str>, verdict: Option<&str>, since: Option<&str>| {
            let text = |value: Option<&str>| value.map(str::to_owned);
            let query = EventsQuery {
                follow: true,
                session: text(session),
                verdict: text(verdict),
                since: text(since),
            };
            query.checked()
        };
        let got = ask(None, Some("deny,hold"), Some("1970-01-01T00:00:01Z")).unwrap();
        assert_eq!((got.verdicts, got.since), (vec!["deny".to_owned(), "hold".to_owned()], Some(Time(1000))));
        assert!(ask(None, None, Some("10m")).unwrap().since.unwrap() < Time::now());
        for bad in
            [ask(Some("x"), None, None), ask(None, Some("denied"), None), ask(None, None, Some("yesterday"))]
        {
            assert_eq!(bad.unwrap_err().code, Code::BadRequest);
        }
    }

    #[test]
    fn one_question_at_a_time() {
        let ask = |operation: bool, path: bool, connect: bool| {
            let text = |there: bool| there.then(|| "x".to_owned());
            check_explain(&ExplainRequest {
                operation: text(operation),
                path: text(path),
                connect: text(connect),
                ..ExplainRequest::default()
            })
            .is_ok()
        };
        assert!(ask(true, true, false) && ask(false, false, true));
        assert!(!ask(false, false, false) && !ask(true, false, false) && !ask(true, true, true));
        assert!(!ask(false, true, true));
        let listen = |connect: Option<&str>, address: Option<&str>| {
            let text = |value: Option<&str>| value.map(str::to_owned);
            let listen = Some("0.0.0.0:80".to_owned());
            check_explain(&ExplainRequest {
                listen,
                connect: text(connect),
                address: text(address),
                ..ExplainRequest::default()
            })
        };
        assert!(listen(None, None).is_ok());
        assert!(listen(Some("a:1"), None).is_err() && listen(None, Some("10.0.0.1")).is_err());
    }
}
