//! Which names are answered, and with what.

use std::time::Duration;

use hickory_proto::{
    op::ResponseCode::{NXDomain, NoError, ServFail},
    rr::RecordType,
};

use super::support::{Got, Setting, Upstream, World, config, extended, got, ip, question, zone};
use crate::dns::{Broken, Client, Failure, Limit, Outcome, Rate, Rates};

fn refused(answer: Got) {
    assert_eq!(answer, (NXDomain, vec![], None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn allowed_and_refused() {
    let upstream = Upstream::start().await;
    upstream
        .answers(
            "www.example.com.",
            RecordType::A,
            &["www.example.com. 300 A 192.0.2.1", "www.example.com. 300 A 192.0.2.2"],
        )
        .answers("www.example.com.", RecordType::AAAA, &["www.example.com. 200 AAAA 2001:db8::1"])
        .answers("secret.example.org.", RecordType::A, &["secret.example.org. 300 A 192.0.2.3"]);
    let setting = Setting::new(config(&[&upstream]), &World::new(&["www.example.com"])).await;

    let (code, addresses, ttl) = setting.ask_a("WWW.Example.COM.").await;
    assert_eq!((code, &addresses[..], ttl), (NoError, &[ip("192.0.2.1"), ip("192.0.2.2")][..], Some(300)));
    // In the table, and for longer than was told.
    let usable = setting.world.usable(7, "www.example.com");
    assert_eq!(
        usable.into_iter().collect::<Vec<_>>(),
        addresses.iter().map(|ip| (*ip, Duration::from_secs(360))).collect::<Vec<_>>()
    );
    assert_eq!(setting.world.last(), Outcome::Answered { addresses, withheld: vec![] });
    let six = setting.ask("www.example.com.", RecordType::AAAA).await;
    assert_eq!(six, (NoError, vec![ip("2001:db8::1")], Some(200)));

    let answer = setting.exchange(&setting.socket, &question("secret.example.org.", RecordType::A)).await;
    assert_eq!(got(&answer), (NXDomain, vec![], None));
    assert_eq!(extended(&answer), Some(15), "RFC 8914: Blocked");
    assert_eq!(setting.world.last(), Outcome::Refused);
    let told = setting.world.told.lock().unwrap().last().cloned().unwrap();
    assert_eq!(told.0, Some(Client { session: 7, process: Some(1) }));
    assert_eq!(told.1.as_deref(), Some("secret.example.org"));
    refused(setting.ask("secret.example.org.", RecordType::HTTPS).await);
    refused(setting.ask("secret.example.org.", RecordType::TXT).await);
    assert_eq!(upstream.asked("secret.example.org."), 0, "nobody is asked for what is refused");
    assert!(setting.world.usable(7, "secret.example.org").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_do_not_exist() {
    let upstream = Upstream::start().await;
    upstream.answers("empty.example.com.", RecordType::A, &["example.com. 60 SOA ns.example.com."]);
    let setting =
        Setting::new(config(&[&upstream]), &World::new(&["no.example.com", "empty.example.com"])).await;
    for _ in 0..2 {
        assert_eq!(setting.ask_a("no.example.com.").await, (NXDomain, vec![], None));
        assert_eq!(setting.world.last(), Outcome::Nothing { exists: false });
        assert_eq!(setting.ask_a("empty.example.com.").await, (NoError, vec![], None));
        assert_eq!(setting.world.last(), Outcome::Nothing { exists: true });
    }
    assert_eq!(
        (upstream.asked("no.example.com."), upstream.asked("empty.example.com.")),
        (1, 1),
        "it is known"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chains_over_zones() {
    let (public, corp) = (Upstream::start().await, Upstream::start().await);
    // The public server also says what is another's to say, and something that nobody has asked for.
    public
        .answers(
            "www.example.com.",
            RecordType::A,
            &[
                "stray.example.com. 5 A 192.0.2.66",
                "edge.corp.example. 300 A 192.0.2.66",
                "www.example.com. 100 CNAME cdn.example.net.",
                "cdn.example.net. 300 CNAME edge.corp.example.",
            ],
        )
        .answers("step.example.com.", RecordType::A, &["step.example.com. 90 CNAME cdn.example.net."])
        .answers("cdn.example.net.", RecordType::A, &["cdn.example.net. 300 A 192.0.2.5"]);
    corp.answers("edge.corp.example.", RecordType::A, &["edge.corp.example. 200 A 192.0.2.1"]);
    let world = World::new(&["www.example.com", "step.example.com", "edge.corp.example"]);
    let mut config = config(&[&public]);
    config.zones = vec![zone("example", &public), zone("corp.example", &corp)];
    let setting = Setting::new(config, &world).await;

    let answer = setting.exchange(&setting.socket, &question("www.example.com.", RecordType::A)).await;
    assert_eq!(got(&answer), (NoError, vec![ip("192.0.2.1")], Some(100)));
    assert!(answer.answers.iter().all(|record| record.name == super::support::name("www.example.com.")));
    assert_eq!(corp.asked("edge.corp.example."), 1);
    assert_eq!(world.usable(7, "www.example.com").len(), 1, "admitted under the name that was asked for");
    assert_eq!(world.table.lock().unwrap().len(), 1);
    // A chain that the first answer doesn't end.
    assert_eq!(setting.ask_a("step.example.com.").await, (NoError, vec![ip("192.0.2.5")], Some(90)));
    assert_eq!(public.asked("cdn.example.net."), 1);
    assert_eq!(setting.ask_a("edge.corp.example.").await.1, [ip("192.0.2.1")]);
    assert_eq!((public.asked("edge.corp.example."), corp.asked("edge.corp.example.")), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chains_that_lead_nowhere() {
    let upstream = Upstream::start().await;
    upstream
        .answers("a.example.com.", RecordType::A, &["a.example.com. 60 CNAME b.example.com."])
        .answers("b.example.com.", RecordType::A, &["b.example.com. 60 CNAME a.example.com."])
        .answers("gone.example.com.", RecordType::A, &["gone.example.com. 60 CNAME nowhere.example.com."]);
    for at in 0..12 {
        let (from, to) = (format!("l{at}.example.com."), format!("l{}.example.com.", at + 1));
        upstream.answers(&from, RecordType::A, &[&format!("{from} 60 CNAME {to}")]);
    }
    let world = World::new(&["a.example.com", "l0.example.com", "gone.example.com"]);
    let setting = Setting::new(config(&[&upstream]), &world).await;
    assert_eq!(setting.ask_a("a.example.com.").await, (ServFail, vec![], None));
    assert_eq!(world.last(), Outcome::Failed(Failure::Chain(Broken::Circle)));
    assert_eq!(setting.ask_a("l0.example.com.").await, (ServFail, vec![], None));
    assert_eq!(world.last(), Outcome::Failed(Failure::Chain(Broken::TooLong)));
    assert_eq!(setting.ask_a("gone.example.com.").await, (NXDomain, vec![], None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rebinding() {
    let upstream = Upstream::start().await;
    upstream
        .answers(
            "evil.example.com.",
            RecordType::A,
            &["evil.example.com. 60 CNAME db.internal.", "db.internal. 60 A 10.0.0.5"],
        )
        .answers("evil.example.com.", RecordType::AAAA, &["evil.example.com. 60 AAAA ::ffff:192.0.2.1"])
        .answers(
            "mixed.example.com.",
            RecordType::A,
            &[
                "mixed.example.com. 60 A 127.0.0.1",
                "mixed.example.com. 60 A 0.0.0.0",
                "mixed.example.com. 60 A 192.0.2.9",
            ],
        )
        .answers("local.example.com.", RecordType::A, &["local.example.com. 60 CNAME x.localhost."]);
    let world = World::new(&["evil.example.com", "mixed.example.com", "local.example.com"]);
    let setting = Setting::new(config(&[&upstream]), &world).await;
    assert_eq!(setting.ask_a("evil.example.com.").await, (NoError, vec![], None));
    assert_eq!(world.last(), Outcome::Rebinding(vec![ip("10.0.0.5")]));
    assert_eq!(setting.ask("evil.example.com.", RecordType::AAAA).await, (NoError, vec![], None));
    assert_eq!(world.last(), Outcome::Rebinding(vec![ip("::ffff:192.0.2.1")]));
    assert_eq!(setting.ask_a("local.example.com.").await, (NoError, vec![], None));
    assert_eq!(world.last(), Outcome::Rebinding(vec![ip("127.0.0.1")]));
    assert_eq!(setting.ask_a("mixed.example.com.").await.1, [ip("192.0.2.9")]);
    let (addresses, withheld) = (vec![ip("192.0.2.9")], vec![ip("0.0.0.0"), ip("127.0.0.1")]);
    assert_eq!(world.last(), Outcome::Answered { addresses, withheld });
    world.allow_private("10.0.0.5");
    assert_eq!(setting.ask_a("evil.example.com.").await.1, [ip("10.0.0.5")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_admitted_is_not_answered() {
    let upstream = Upstream::start().await;
    upstream.answers("www.example.com.", RecordType::A, &["www.example.com. 60 A 192.0.2.1"]);
    let world = World::new(&["www.example.com"]);
    let setting = Setting::new(config(&[&upstream]), &world).await;
    world.full.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(setting.ask_a("www.example.com.").await, (ServFail, vec![], None));
    assert!(matches!(world.last(), Outcome::Failed(Failure::Admit(_))));
    world.full.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(setting.ask_a("www.example.com.").await.1, [ip("192.0.2.1")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_addresses() {
    let upstream = Upstream::start().await;
    let lines: Vec<_> = (0..200).map(|last| format!("many.example.com. 60 A 192.0.2.{last}")).collect();
    upstream.answers(
        "many.example.com.",
        RecordType::A,
        &lines.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let world = World::new(&["many.example.com"]);
    let setting = Setting::new(config(&[&upstream]), &world).await;
    let (code, addresses, _) = setting.ask_a("many.example.com.").await;
    assert_eq!((code, addresses.len()), (NoError, 64));
    assert_eq!(world.usable(7, "many.example.com").len(), 64);
    use hickory_server::net::xfer::Protocol::{Tcp, Udp};
    assert_eq!(
        upstream.asked_over("many.example.com."),
        [Udp, Tcp],
        "the answer was too long for a datagram"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times() {
    let upstream = Upstream::start().await;
    upstream
        .answers("long.example.com.", RecordType::A, &["long.example.com. 86400 A 192.0.2.1"])
        .answers("none.example.com.", RecordType::A, &["none.example.com. 0 A 192.0.2.1"])
        .answers("left.example.com.", RecordType::A, &["left.example.com. 100 A 192.0.2.1"]);
    let world = World::new(&["long.example.com", "none.example.com", "left.example.com"]);
    let setting = Setting::new(config(&[&upstream]), &world).await;
    assert_eq!(setting.ask_a("long.example.com.").await.2, Some(3600));
    assert_eq!(world.usable(7, "long.example.com")[&ip("192.0.2.1")], Duration::from_secs(3660));
    assert_eq!(setting.ask_a("none.example.com.").await.2, Some(0));
    assert_eq!(world.usable(7, "none.example.com")[&ip("192.0.2.1")], Duration::from_secs(60));
    assert_eq!(setting.ask_a("left.example.com.").await.2, Some(100));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    // What is left, and nobody was asked again.
    assert!(setting.ask_a("left.example.com.").await.2.unwrap() < 100);
    assert_eq!(upstream.asked("left.example.com."), 1);
    setting.ask_a("none.example.com.").await;
    assert_eq!(upstream.asked("none.example.com."), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits() {
    let upstream = Upstream::start().await;
    for at in 0..10 {
        let owner = format!("n{at}.t.example.com.");
        upstream.answers(&owner, RecordType::A, &[&format!("{owner} 60 A 192.0.2.1")]);
    }
    let world = World::new(&["*.t.example.com", "*.arpa"]);
    let mut config = config(&[&upstream]);
    let minute = |burst| Rate { count: 1, per: Duration::from_secs(60), burst };
    config.rates = Rates { names: minute(4), queries: minute(12), ..Rates::default() };
    let setting = Setting::new(config, &world).await;
    let carrying = format!("{}.t.example.com.", "mzxw6ytboi3dgnbvgy3tqojqmfrgg2dfmztwq2lknnwg23tpobyxe43u");
    refused(setting.ask_a(&carrying).await);
    assert_eq!(world.last(), Outcome::Limited(Limit::Entropy));
    assert_eq!(upstream.asked(&carrying), 0);
    refused(setting.ask_a("a.b.c.d.e.f.g.t.example.com.").await);
    assert_eq!(world.last(), Outcome::Limited(Limit::Labels));
    refused(setting.ask_a("x\\.t.example.com.").await);
    assert_eq!(world.last(), Outcome::Limited(Limit::Characters));
    // An address may have many labels.
    let arpa = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.";
    setting.ask(arpa, RecordType::PTR).await;
    assert_eq!(world.last(), Outcome::Nothing { exists: false });
    for at in [0, 1, 2, 2, 1, 0] {
        assert_eq!(setting.ask_a(&format!("n{at}.t.example.com.")).await.0, NoError);
    }
    assert_eq!(setting.ask_a("n3.t.example.com.").await, (ServFail, vec![], None));
    assert_eq!(world.last(), Outcome::Limited(Limit::Names));
    assert_eq!(setting.ask_a("n0.t.example.com.").await.0, NoError);
    assert_eq!(setting.ask_a("n0.t.example.com.").await.0, ServFail);
    assert_eq!(world.last(), Outcome::Limited(Limit::Queries));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_records() {
    let upstream = Upstream::start().await;
    let soa = "example.com. 60 SOA ns.example.com.";
    upstream
        .answers(
            "example.com.",
            RecordType::MX,
            &["example.com. 60 MX mail.example.com.", "mail.example.com. 60 MX x."],
        )
        .answers("example.com.", RecordType::SOA, &[soa])
        .answers(
            "txt.example.com.",
            RecordType::TXT,
            &["txt.example.com. 9 CNAME t.example.com.", "t.example.com. 60 TXT hello"],
        )
        .answers("txt.example.com.", RecordType::CNAME, &["txt.example.com. 9 CNAME t.example.com."])
        .answers(
            "8.2.0.192.in-addr.arpa.",
            RecordType::PTR,
            &["8.2.0.192.in-addr.arpa. 60 PTR from.upstream."],
        )
        .answers("example.com.", RecordType::A, &["example.com. 60 A 192.0.2.7"]);
    let world =
        World::new(&["example.com", "txt.example.com", "8.2.0.192.in-addr.arpa", "7.2.0.192.in-addr.arpa"]);
    let setting = Setting::new(config(&[&upstream]), &world).await;
    let ask = async |owner: &str, kind| {
        let answer = setting.exchange(&setting.socket, &question(owner, kind)).await;
        assert!(answer.answers.iter().all(|record| record.name == super::support::name(owner)));
        let data: Vec<_> =
            answer.answers.iter().map(|record| (record.ttl, record.data.to_string())).collect();
        (answer.metadata.response_code, data)
    };
    let one = |ttl, data: &str| (NoError, vec![(ttl, data.to_owned())]);
    assert_eq!(ask("example.com.", RecordType::MX).await, one(60, "10 mail.example.com."));
    assert_eq!(world.last(), Outcome::HandedOn(1));
    assert_eq!(ask("txt.example.com.", RecordType::TXT).await, one(9, "hello"));
    assert_eq!(ask("txt.example.com.", RecordType::CNAME).await, one(9, "t.example.com."));
    assert_eq!(ask("example.com.", RecordType::SOA).await.1.len(), 1);
    for kind in [RecordType::HTTPS, RecordType::SVCB, RecordType::TLSA, RecordType::Unknown(4711)] {
        assert_eq!(ask("example.com.", kind).await, (NoError, vec![]));
        assert_eq!(world.last(), Outcome::Nothing { exists: true });
    }
    assert_eq!(upstream.asked("example.com."), 2, "nobody was asked for those");
    assert_eq!(ask("8.2.0.192.in-addr.arpa.", RecordType::PTR).await, one(60, "from.upstream."));
    // Once it was admitted, its name is known without asking, and needn't be allowed.
    assert_eq!(ask("7.2.0.192.in-addr.arpa.", RecordType::PTR).await, (NXDomain, vec![]));
    setting.ask_a("example.com.").await;
    assert_eq!(ask("7.2.0.192.in-addr.arpa.", RecordType::PTR).await, one(60, "example.com."));
    assert_eq!(ask("9.2.0.192.in-addr.arpa.", RecordType::PTR).await, (NXDomain, vec![]));
    assert_eq!(world.last(), Outcome::Refused);
}
