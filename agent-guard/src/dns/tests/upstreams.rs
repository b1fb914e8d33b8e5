//! Name servers that answer, that don't, and that others take the place of.

use std::{fs, net::SocketAddr, time::Duration};

use hickory_proto::{
    op::ResponseCode::{FormErr, NXDomain, NoError, NotImp, Refused, ServFail},
    rr::RecordType,
};
use tokio::net::UdpSocket;

use super::support::{Says, Setting, Upstream, World, config, extended, got, ip, question, zone};
use crate::dns::{Error, Failure, Outcome, Resolver, Zone};

const WWW: &str = "www.example.com.";

async fn saying(address: &str) -> Upstream {
    let upstream = Upstream::start().await;
    upstream.answers(WWW, RecordType::A, &[&format!("{WWW} 60 A {address}")]);
    upstream
}

fn world() -> std::sync::Arc<World> {
    World::new(&["www.example.com"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asked_once() {
    let upstream = saying("192.0.2.1").await;
    upstream.waits(Duration::from_millis(100));
    let setting = Setting::new(config(&[&upstream]), &world()).await;
    let to = setting.resolver.addresses().v4.0;
    for _ in 0..50 {
        setting.socket.send_to(&question(WWW, RecordType::A).to_vec().unwrap(), to).await.unwrap();
    }
    let mut buffer = [0; 512];
    for _ in 0..50 {
        let length = setting.socket.recv(&mut buffer).await.unwrap();
        let answer = hickory_proto::op::Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!(got(&answer).1, [ip("192.0.2.1")]);
    }
    assert_eq!(upstream.asked(WWW), 1);
    setting.ask_a(WWW).await;
    assert_eq!(upstream.asked(WWW), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients() {
    let upstream = Upstream::start().await;
    let world = world();
    for at in 0..40 {
        let owner = format!("h{at}.example.com.");
        world.allow(owner.trim_end_matches('.'));
        upstream.answers(&owner, RecordType::A, &[&format!("{owner} 60 A 192.0.2.{at}")]);
    }
    let setting = std::sync::Arc::new(Setting::new(config(&[&upstream]), &world).await);
    let mut tasks = tokio::task::JoinSet::new();
    for session in 100..120 {
        let setting = std::sync::Arc::clone(&setting);
        tasks.spawn(async move {
            let socket = Setting::socket().await;
            setting.know(crate::dns::Transport::Udp, socket.local_addr().unwrap(), session);
            for at in 0..40 {
                let at = (at + session) % 40;
                let ask = question(&format!("h{at}.example.com."), RecordType::A);
                let answer = setting.exchange(&socket, &ask).await;
                assert_eq!(
                    got(&answer),
                    (NoError, vec![ip(&format!("192.0.2.{at}"))], Some(got(&answer).2.unwrap()))
                );
            }
            assert!(setting.world.usable(session, "h7.example.com").contains_key(&ip("192.0.2.7")));
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    for at in 0..40 {
        assert_eq!(upstream.asked(&format!("h{at}.example.com.")), 1);
    }
}

/// A server that takes questions, and says nothing.
async fn silent() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_servers() {
    let (socket, dead) = silent().await;
    let world = World::new(&["www.example.com", "none.example.com"]);
    let mut config = config(&[]);
    config.upstreams = vec![dead];
    config.timeout = Duration::from_millis(400);
    let setting = Setting::new(config.clone(), &world).await;
    let answer = setting.exchange(&setting.socket, &question(WWW, RecordType::A)).await;
    assert_eq!(got(&answer), (ServFail, vec![], None));
    assert_eq!(world.last(), Outcome::Failed(Failure::Silent(dead.to_string())));
    assert_eq!(extended(&answer), Some(22), "RFC 8914: No Reachable Authority");
    assert!(world.table.lock().unwrap().is_empty());

    // The next one is asked within the time, and first from then on.
    let upstream = saying("192.0.2.1").await;
    config.upstreams.push(upstream.address);
    config.timeout = Duration::from_secs(4);
    setting.resolver.reconfigure(config).unwrap();
    let mut buffer = [0; 512];
    while socket.try_recv(&mut buffer).is_ok() {}
    assert_eq!(setting.ask_a(WWW).await.1, [ip("192.0.2.1")]);
    assert!(socket.try_recv(&mut buffer).is_ok(), "it was asked first");
    while socket.try_recv(&mut buffer).is_ok() {}
    assert_eq!(setting.ask_a("none.example.com.").await.0, NXDomain);
    assert_eq!(upstream.asked("none.example.com."), 1);
    assert!(socket.try_recv(&mut buffer).is_err(), "and isn't any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_out_of_reach() {
    let world = world();
    let mut config = config(&[]);
    // Nothing can be sent to this port.
    config.upstreams = vec!["127.0.0.1:0".parse().unwrap()];
    let setting = Setting::new(config, &world).await;
    let answer = setting.exchange(&setting.socket, &question(WWW, RecordType::A)).await;
    assert_eq!(got(&answer), (ServFail, vec![], None));
    assert_eq!(extended(&answer), Some(23), "RFC 8914: Network Error");
    assert!(matches!(world.last(), Outcome::Failed(Failure::Network { .. })), "{:?}", world.last());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_will_not() {
    let (unwilling, upstream) = (Upstream::start().await, saying("192.0.2.1").await);
    let world = world();
    for code in [ServFail, Refused, NotImp, FormErr] {
        unwilling.says(WWW, RecordType::A, Says::Code(code));
        let setting = Setting::new(config(&[&unwilling]), &world).await;
        assert_eq!(setting.ask_a(WWW).await, (ServFail, vec![], None), "{code}");
        let Outcome::Failed(Failure::Code { server, .. }) = world.last() else { panic!("{code}") };
        assert_eq!(server, unwilling.address);
        let setting = Setting::new(config(&[&unwilling, &upstream]), &world).await;
        assert_eq!(setting.ask_a(WWW).await.1, [ip("192.0.2.1")], "{code}");
    }
    // That a name doesn't exist is an answer.
    unwilling.says(WWW, RecordType::A, Says::Code(NXDomain));
    let setting = Setting::new(config(&[&unwilling, &upstream]), &world).await;
    assert_eq!(setting.ask_a(WWW).await, (NXDomain, vec![], None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_while_it_is_asked() {
    let (hanging, upstream) = (Upstream::start().await, saying("192.0.2.1").await);
    hanging.says(WWW, RecordType::A, Says::Nothing);
    let mut config = config(&[&hanging, &upstream]);
    config.timeout = Duration::from_secs(1);
    let setting = Setting::new(config, &world()).await;
    assert_eq!(setting.ask_a(WWW).await.1, [ip("192.0.2.1")]);
    assert!(hanging.asked(WWW) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_servers() {
    let (old, new) = (saying("192.0.2.1").await, saying("192.0.2.2").await);
    let setting = Setting::new(config(&[&old]), &world()).await;
    assert_eq!(setting.ask_a(WWW).await.1, [ip("192.0.2.1")]);
    // What can't be used changes nothing.
    for (name, upstreams) in [("x..y", vec![old.address]), ("x", vec![])] {
        let mut bad = config(&[&new]);
        bad.zones = vec![Zone { name: name.to_owned(), upstreams }];
        assert!(matches!(setting.resolver.reconfigure(bad.clone()), Err(Error::Zone { .. })));
        assert!(Resolver::start(bad, world()).is_err());
    }
    assert_eq!(setting.ask_a(WWW).await.1, [ip("192.0.2.1")]);
    setting.resolver.reconfigure(config(&[&new])).unwrap();
    assert_eq!(setting.ask_a(WWW).await.1, [ip("192.0.2.2")], "and nothing is kept of the old");
    let mut split = config(&[&new]);
    split.zones = vec![zone("com", &new), zone("Example.com.", &old)];
    setting.resolver.reconfigure(split).unwrap();
    assert_eq!(setting.ask_a(WWW).await.1, [ip("192.0.2.1")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts() {
    let upstream = Upstream::start().await;
    let file = std::env::temp_dir().join(format!("agent-guard-dns-hosts-{}", std::process::id()));
    fs::write(&file, "10.0.0.1 build.corp\n10.0.0.2 secret.corp\n").unwrap();
    let world = World::new(&["build.corp", "new.corp", "localhost", "x.localhost"]);
    let mut config = config(&[&upstream]);
    config.hosts.clone_from(&file);
    let setting = Setting::new(config.clone(), &world).await;
    assert_eq!(setting.ask_a("build.corp.").await, (NoError, vec![], None), "it is private");
    for address in ["10.0.0.1", "10.0.0.3", "127.0.0.1", "::1"] {
        world.allow_private(address);
    }
    assert_eq!(setting.ask_a("build.corp.").await, (NoError, vec![ip("10.0.0.1")], Some(60)));
    assert_eq!(world.usable(7, "build.corp")[&ip("10.0.0.1")], Duration::from_secs(120));
    assert_eq!(setting.ask_a("secret.corp.").await.0, NXDomain, "the policy is asked all the same");
    assert_eq!(setting.ask("x.localhost.", RecordType::AAAA).await.1, [ip("::1")]);
    assert_eq!(setting.ask_a("localhost.").await.1, [ip("127.0.0.1")]);
    // Read anew once it has changed, without being told.
    fs::write(&file, "10.0.0.3 new.corp\n").unwrap();
    let mut found = Vec::new();
    for _ in 0..600 {
        if !found.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        found = setting.ask_a("new.corp.").await.1;
    }
    assert_eq!(found, [ip("10.0.0.3")]);
    for owner in ["build.corp.", "localhost.", "x.localhost."] {
        assert_eq!(upstream.asked(owner), 0);
    }
    fs::remove_file(&file).unwrap();
}
