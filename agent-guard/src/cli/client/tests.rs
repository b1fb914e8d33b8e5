use serde_json::Value;

use super::*;

/// Reads an answer as if the daemon had sent these bytes.
fn reading(bytes: &[u8]) -> Result<Value, ClientError> {
    let (mut server, client) = UnixStream::pair().unwrap();
    server.write_all(bytes).unwrap();
    drop(server);
    whole(head(BufReader::new(client))?)
}

#[test]
fn answers_in_every_framing() {
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x=y\r\n}\r\n0\r\n\r\n",
    ] {
        assert_eq!(reading(text.as_bytes()).unwrap(), serde_json::json!({}), "{text}");
    }
}

#[test]
fn no_answer_is_trusted() {
    for text in [
        "",
        "HTTP/1.1 200 OK\r\n",
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}xx0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{",
        "HTTP/1.1 500 x\r\nContent-Length: 2\r\n\r\n{}",
    ] {
        assert!(reading(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn an_endless_head_is_cut() {
    let mut text = b"HTTP/1.1 200 OK\r\n".to_vec();
    text.resize(100_000, b'x');
    let (mut server, client) = UnixStream::pair().unwrap();
    let writer = std::thread::spawn(move || drop(server.write_all(&text)));
    assert!(head(BufReader::new(client)).is_err());
    writer.join().unwrap();
}

#[test]
fn problems_become_errors() {
    let problem = Problem::from(ApiError::unknown_profile("x", ["coding-agent"]));
    let body = serde_json::to_string(&problem).unwrap();
    let text = format!("HTTP/1.1 422 x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let error = reading(text.as_bytes()).unwrap_err();
    let ClientError::Api(error) = error else { panic!("{error}") };
    assert!(error.detail.contains("coding-agent"));
}

#[test]
fn no_daemon_says_what_to_do() {
    let client = Client::new(PathBuf::from("/nonexistent/control.sock"));
    let text = client.get::<Value>("/v1/status").unwrap_err().to_string();
    assert!(text.contains("systemctl start agent-guard"), "{text}");
}

#[test]
fn queries_are_escaped() {
    assert_eq!(escaped("a b&c=é"), "a%20b%26c%3D%C3%A9");
}
