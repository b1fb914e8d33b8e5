//! Who may ask, and how.

use std::time::Duration;

use hickory_proto::{
    op::{
        Edns, Message, MessageType, OpCode, Query,
        ResponseCode::{BADVERS, FormErr, NXDomain, NoError, NotImp, Refused, ServFail},
    },
    rr::{DNSClass, RecordType},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::{Setting, Upstream, World, config, got, ip, name, over, question};
use crate::dns::{Config, Limit, Outcome, Rates};

async fn setting(change: impl FnOnce(&mut Config)) -> (Upstream, Setting) {
    let upstream = Upstream::start().await;
    upstream.answers("www.example.com.", RecordType::A, &["www.example.com. 60 A 192.0.2.1"]);
    let mut config = config(&[&upstream]);
    change(&mut config);
    let setting = Setting::new(config, &World::new(&["www.example.com"])).await;
    (upstream, setting)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused() {
    let (upstream, setting) = setting(|_| {}).await;
    let stranger = Setting::socket().await;
    let answer = setting.exchange(&stranger, &question("www.example.com.", RecordType::A)).await;
    assert_eq!(got(&answer), (Refused, vec![], None));
    assert_eq!(setting.world.last(), Outcome::Stranger);
    let mut stream = setting.connect(None).await;
    let answer = over(&mut stream, &question("www.example.com.", RecordType::A)).await.unwrap();
    assert_eq!(got(&answer), (Refused, vec![], None));
    assert_eq!(upstream.asked("www.example.com."), 0);
    assert!(setting.world.table.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_ways_to_ask() {
    let (upstream, setting) = setting(|_| {}).await;
    let (udp, tcp) = setting.resolver.addresses().v4;
    assert!(udp.ip().is_loopback() && tcp.ip().is_loopback() && udp.port() != 0 && tcp.port() != 0);
    let mut stream = setting.connect(Some(7)).await;
    for _ in 0..3 {
        let answer = over(&mut stream, &question("www.example.com.", RecordType::A)).await.unwrap();
        assert_eq!(got(&answer).1, [ip("192.0.2.1")]);
    }
    if let Some(socket) = setting.ipv6().await {
        let answer = setting.exchange(&socket, &question("www.example.com.", RecordType::A)).await;
        assert_eq!(got(&answer).1, [ip("192.0.2.1")]);
    }
    assert_eq!(upstream.asked("www.example.com."), 1);
    assert!(setting.resolver.is_running());
    setting.resolver.stop().await;
    assert!(tokio::net::TcpStream::connect(tcp).await.is_err());
    assert!(tokio::net::UdpSocket::bind(udp).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_question() {
    let (_upstream, setting) = setting(|_| {}).await;
    let ask =
        async |message: &Message| setting.exchange(&setting.socket, message).await.metadata.response_code;
    let unsupported = |what| assert_eq!(setting.world.last(), Outcome::Unsupported(what));

    assert_eq!(ask(&question("www.example.com.", RecordType::ANY)).await, NotImp);
    unsupported("ANY");
    for kind in [RecordType::AXFR, RecordType::IXFR] {
        assert_eq!(ask(&question("www.example.com.", kind)).await, Refused);
        unsupported("a transfer of a zone");
    }
    let mut message = question("www.example.com.", RecordType::TXT);
    message.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(ask(&message).await, Refused);
    unsupported("a class other than IN");
    for code in [OpCode::Notify, OpCode::Update, OpCode::Status] {
        let mut message = question("www.example.com.", RecordType::A);
        message.metadata.op_code = code;
        assert_eq!(ask(&message).await, NotImp);
        unsupported("an opcode other than QUERY");
    }
    let mut message = question("www.example.com.", RecordType::A);
    message.add_query(Query::query(name("x.example.com."), RecordType::A));
    assert_eq!(ask(&message).await, FormErr);
    message.queries.clear();
    assert_eq!(ask(&message).await, FormErr);
    unsupported("not exactly one question");
    let mut message = question("www.example.com.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1);
    message.set_edns(edns);
    assert_eq!(u16::from(ask(&message).await), u16::from(BADVERS), "16 is also BADSIG");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise() {
    let (_upstream, setting) = setting(|_| {}).await;
    let to = setting.resolver.addresses().v4.0;
    let whole = question("www.example.com.", RecordType::A).to_vec().unwrap();
    let mut response = question("www.example.com.", RecordType::A);
    response.metadata.message_type = MessageType::Response;
    let mut noises: Vec<Vec<u8>> = (0..12).map(|length| whole[..length].to_vec()).collect();
    noises.push(response.to_vec().unwrap());
    for noise in noises {
        setting.socket.send_to(&noise, to).await.unwrap();
    }
    // None of it is answered: the first answer is that to the question.
    assert_eq!(setting.ask_a("www.example.com.").await.1, [ip("192.0.2.1")]);
    // A header that announces more questions than there is room for, and a name that points at itself.
    let mut many = whole[..12].to_vec();
    many[4..6].copy_from_slice(&[0xff, 0xff]);
    let mut circle = whole[..12].to_vec();
    circle[10..12].copy_from_slice(&[0, 0]);
    circle.extend([0xc0, 12, 0, 1, 0, 1]);
    for message in [many, circle, whole[..whole.len() - 3].to_vec()] {
        setting.socket.send_to(&message, to).await.unwrap();
        let mut buffer = [0; 512];
        let length = setting.socket.recv(&mut buffer).await.unwrap();
        assert_eq!(Message::from_vec(&buffer[..length]).unwrap().metadata.response_code, FormErr);
    }
    assert_eq!(setting.ask_a("www.example.com.").await.1, [ip("192.0.2.1")]);
    // Half a message, and then nothing more.
    let mut stream = setting.connect(Some(7)).await;
    stream.write_all(&[0, 100, 1, 2, 3]).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0; 10]).await.unwrap(), 0);
    assert!(setting.resolver.is_running());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_answers() {
    let upstream = Upstream::start().await;
    let lines: Vec<_> = (0..60).map(|last| format!("many.example.com. 60 A 192.0.2.{last}")).collect();
    upstream.answers(
        "many.example.com.",
        RecordType::A,
        &lines.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let setting = Setting::new(config(&[&upstream]), &World::new(&["many.example.com"])).await;
    let mut message = question("many.example.com.", RecordType::A);
    message.edns = None;
    let answer = setting.exchange(&setting.socket, &message).await;
    assert!(answer.metadata.truncation && answer.answers.is_empty() && answer.edns.is_none());
    let answer = over(&mut setting.connect(Some(7)).await, &message).await.unwrap();
    assert!(!answer.metadata.truncation);
    assert_eq!(answer.answers.len(), 60);
    let answer = setting.exchange(&setting.socket, &question("many.example.com.", RecordType::A)).await;
    assert_eq!(answer.answers.len(), 60, "it fits into what the client has room for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_limited() {
    let (_upstream, setting) = setting(|config| {
        config.rates = Rates { connections: 2, ..Rates::default() };
        config.idle = Duration::from_millis(500);
    })
    .await;
    let ask = question("www.example.com.", RecordType::A);
    let (mut one, mut two) = (setting.connect(Some(7)).await, setting.connect(Some(7)).await);
    assert!(over(&mut one, &ask).await.is_some());
    assert!(over(&mut two, &ask).await.is_some());
    assert!(over(&mut setting.connect(Some(7)).await, &ask).await.is_none(), "it is closed at once");
    assert!(over(&mut setting.connect(Some(8)).await, &ask).await.is_some(), "another session's isn't");
    let told = setting.world.told.lock().unwrap().clone();
    assert!(told.iter().any(|told| told.2 == Outcome::Limited(Limit::Connections)));
    // Those that say nothing are closed, and make room.
    assert_eq!(one.read(&mut [0; 10]).await.unwrap(), 0);
    assert_eq!(two.read(&mut [0; 10]).await.unwrap(), 0);
    assert!(over(&mut setting.connect(Some(7)).await, &ask).await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_take_no_session_s_place() {
    let (_upstream, setting) = setting(|_| {}).await;
    let mut strangers = Vec::new();
    for _ in 0..64 {
        strangers.push(setting.connect(None).await);
    }
    let ask = question("www.example.com.", RecordType::A);
    assert!(over(&mut setting.connect(Some(7)).await, &ask).await.is_some());
    let mut refused = 0;
    for stream in &mut strangers {
        refused += usize::from(over(stream, &ask).await.is_some());
    }
    assert_eq!(refused, 32);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_under_way_are_limited() {
    let (upstream, setting) = setting(|config| {
        config.rates = Rates { under_way: 2, ..Rates::default() };
    })
    .await;
    upstream.waits(Duration::from_secs(1));
    let to = setting.resolver.addresses().v4.0;
    for _ in 0..5 {
        let message = question("www.example.com.", RecordType::A).to_vec().unwrap();
        setting.socket.send_to(&message, to).await.unwrap();
    }
    let mut codes = Vec::new();
    for _ in 0..5 {
        let mut buffer = [0; 512];
        let length = setting.socket.recv(&mut buffer).await.unwrap();
        codes.push(Message::from_vec(&buffer[..length]).unwrap().metadata.response_code);
    }
    assert_eq!(codes, [ServFail, ServFail, ServFail, NoError, NoError]);
    assert_eq!(setting.ask_a("www.example.com.").await.0, NoError);
    assert_eq!(setting.ask_a("x.example.com.").await.0, NXDomain);
}
