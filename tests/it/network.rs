//! Containers with a network of their own: who reaches them, whom they reach, and what is left of it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::*;

const TOOLS: [&str; 2] = ["pasta", "slirp4netns"];

/// Why a container cannot be connected by that program here, if so.
fn why_not(tool: &str) -> Option<String> {
    if let Err(error) = fs::File::options().read(true).write(true).open("/dev/net/tun") {
        return Some(format!("/dev/net/tun: {error}"));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|dir| dir.join(tool).is_file()) {
        return Some(format!("must run: {tool} is not installed: run scripts/install"));
    }
    (tool == "pasta" && !has_default_route()).then(|| "pasta needs a default route".to_owned())
}

fn has_default_route() -> bool {
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    routes.lines().skip(1).any(|line| line.split_whitespace().nth(1) == Some("00000000"))
}

/// The programs that can be used here; the others are noted.
fn tools() -> Vec<&'static str> {
    let usable = |tool: &&str| why_not(tool).inspect(|why| note_skip(why)).is_none();
    TOOLS.into_iter().filter(usable).collect()
}

/// Containers in the background, ended with their test.
struct Network {
    place: Place,
}

impl Network {
    fn new() -> Self {
        Self { place: Place::new() }
    }

    /// `layerfs run OPTIONS IMAGE sh -c SCRIPT`
    fn run(&self, options: &[&str], script: &str) -> Done {
        let mut layerfs = self.place.command();
        layerfs.arg("run").args(options).arg(tiny()).args(["sh", "-c", script]);
        finish(&mut layerfs)
    }

    fn layerfs(&self, words: &[&str]) -> Done {
        self.place.layerfs(words)
    }

    /// The processes that carry for containers of this place: children of their starters.
    fn carriers(&self) -> Vec<u32> {
        let ours = self.place.processes();
        let is_carrier = |pid: &u32| {
            let Some(status) = Status::of(*pid) else { return false };
            status.is_carrier() && ours.contains(&status.parent)
        };
        all_processes().into_iter().filter(is_carrier).collect()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for id in self.place.containers() {
            // Most of them do not listen to anything else.
            self.layerfs(&["kill", &id]);
            self.layerfs(&["rm", "-f", &id]);
        }
    }
}

fn tiny() -> PathBuf {
    image("tiny").join("docker-gzip.tar")
}

fn all_processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// What `/proc` says of a process that has not ended.
struct Status {
    name: String,
    parent: u32,
    text: String,
}

impl Status {
    fn of(pid: u32) -> Option<Status> {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line[name.len()..].trim().to_owned())
        };
        if field("State:")?.starts_with('Z') {
            return None;
        }
        let (name, parent) = (field("Name:")?, field("PPid:")?.parse().ok()?);
        Some(Status { name, parent, text })
    }

    fn is_carrier(&self) -> bool {
        self.name.starts_with("pasta") || self.name.starts_with("passt") || self.name == "slirp4netns"
    }
}

/// A port of the host that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap().local_addr().unwrap().port()
}

/// What a server on the host's loopback answers, once it does.
fn answer(port: u16) -> String {
    let mut text = String::new();
    let answered = eventually(|| {
        text.clear();
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return false };
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.read_to_string(&mut text).is_ok() && !text.is_empty()
    });
    assert!(answered, "nobody answers on {port}");
    text
}

const SERVE: &str = "while :; do echo $NAME | nc -l -p 80; done";

#[test]
fn two_containers_are_reached() {
    needs_mount!();
    for tool in tools() {
        let net = Network::new();
        let ports = [free_port(), free_port()];
        for (name, port) in ["one", "two"].into_iter().zip(ports) {
            let (variable, publish) = (format!("NAME={name}"), format!("{port}:80"));
            let options = ["-d", "--name", name, "-e", &variable, "--network", tool, "-p", &publish];
            net.run(&options, SERVE).ok();
        }
        for (name, port) in ["one", "two"].into_iter().zip(ports) {
            assert_eq!(answer(port), format!("{name}\n"), "{tool}");
            assert_eq!(net.layerfs(&["port", name]).ok(), format!("80/tcp -> 0.0.0.0:{port}"));
            let shown = format!("0.0.0.0:{port}->80/tcp");
            assert!(net.layerfs(&["ps"]).ok().contains(&shown), "{:#?}", net.layerfs(&["ps"]));
        }
        // Again: at the same place.
        net.layerfs(&["restart", "-t", "0", "one"]).ok();
        assert_eq!(answer(ports[0]), "one\n", "{tool}");
        net.layerfs(&["stop", "-t", "0", "one"]).ok();
        let done = net.layerfs(&["port", "one"]);
        assert!(done.code == 125 && done.err.contains("not running"), "{done:#?}");
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, ports[0])).is_err());
        net.layerfs(&["kill", "two"]).ok();
        net.layerfs(&["rm", "-f", "two"]).ok();
        net.place.nothing_left();
    }
}

#[test]
fn a_port_that_was_chosen_stays() {
    needs_mount!();
    let Some(tool) = tools().first().copied() else { return };
    let net = Network::new();
    net.run(&["-d", "--name", "one", "-e", "NAME=one", "--network", tool, "-p", "80"], SERVE).ok();
    let shown = || net.layerfs(&["port", "one", "80"]).ok().to_owned();
    let first = shown();
    let number = |shown: &str| shown.rsplit(':').next().unwrap().parse::<u16>().unwrap();
    net.layerfs(&["restart", "-t", "0", "one"]).ok();
    assert_eq!(shown(), first);
    assert_eq!(answer(number(&first)), "one\n");
    net.layerfs(&["kill", "one"]).ok();
    net.layerfs(&["wait", "one"]).ok();
    // Another has it meanwhile.
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, number(&first))).unwrap();
    net.layerfs(&["start", "one"]).ok();
    assert_ne!(shown(), first);
    assert_eq!(answer(number(&shown())), "one\n");
    drop(taken);
}

#[test]
fn one_with_ids_of_its_own_is_reached() {
    needs_mount!();
    let modes: &[&[&str]] = if is_root() {
        &[&["--userns", "keep-id"], &["--uidmap", "0:700000:5000"]]
    } else if has_id_ranges() {
        &[&["--userns", "keep-id"], &["--userns", "auto"]]
    } else {
        &[&["--userns", "keep-id"]]
    };
    for tool in tools() {
        for mode in modes {
            let net = Network::new();
            let port = free_port();
            // Who is not root may not listen on a lower one.
            let publish = format!("{port}:8080");
            let options = ["-d", "--name", "one", "--network", tool, "-p", &publish];
            net.run(&[&options, *mode].concat(), "while :; do echo one | nc -l -p 8080; done").ok();
            assert_eq!(answer(port), "one\n", "{tool} {mode:?}");
        }
    }
}

const ECHO: &str = r#"use IO::Socket::INET;
my $server = IO::Socket::INET->new(LocalPort => $ARGV[0], Proto => "udp") or die $!;
while ($server->recv(my $text, 99)) { print STDERR $text; $server->send("$text!") }"#;

#[test]
fn datagrams() {
    needs_mount!();
    if !images().contains(&"debian") {
        skip!("no image with a server of datagrams");
    }
    for tool in tools() {
        let net = Network::new();
        // With the same number on both sides: answers on the loopback are lost otherwise by pasta of 2023.
        let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let publish = format!("127.0.0.1:{port}:{port}/udp");
        let mut layerfs = net.place.command();
        layerfs.args(["run", "-d", "--name", "one", "--network", tool, "-p", &publish]);
        layerfs.arg(image("debian").join("docker.tar")).args(["perl", "-e", ECHO, &port.to_string()]);
        finish(&mut layerfs).ok();
        assert_eq!(net.layerfs(&["port", "one"]).ok(), format!("{port}/udp -> 127.0.0.1:{port}"));
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut answer = [0; 16];
        let answered = eventually(|| {
            // Before there is a server it may be refused.
            socket.send(b"ping").ok();
            let answered = matches!(socket.recv(&mut answer), Ok(5)) && answer.starts_with(b"ping!");
            // What slirp4netns keeps from the host's loopback are answers to it, too.
            answered || tool == "slirp4netns" && net.layerfs(&["logs", "one"]).err.starts_with("ping")
        });
        assert!(answered, "{tool}: {:#?}", net.layerfs(&["logs", "one"]));
    }
}

#[test]
fn ports_that_the_host_chooses() {
    needs_mount!();
    for tool in tools() {
        let net = Network::new();
        let options =
            ["-d", "--name", "one", "-e", "NAME=x", "--network", tool, "-P", "--expose", "80-81", "-p", "82"];
        net.run(&options, SERVE).ok();
        let all = net.layerfs(&["port", "one"]);
        let names: Vec<&str> = all.ok().lines().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(names, ["80/tcp", "81/tcp", "82/tcp"], "{all:#?}");
        let one = net.layerfs(&["port", "one", "80"]);
        let port: u16 = one.ok().strip_prefix("0.0.0.0:").unwrap().parse().unwrap();
        assert_eq!(answer(port), "x\n");
        let inspected = net.layerfs(&["inspect", "one"]);
        let document: serde_json::Value = serde_json::from_str(inspected.ok()).unwrap();
        let shown = &document[0]["NetworkSettings"]["Ports"]["80/tcp"][0];
        assert_eq!((&shown["HostIp"], &shown["HostPort"]), (&"0.0.0.0".into(), &port.to_string().into()));
        assert_eq!(document[0]["HostConfig"]["PortBindings"]["82/tcp"][0]["HostPort"], "");
        let done = net.layerfs(&["port", "one", "80/udp"]);
        assert!(done.code == 125 && done.err.contains("does not publish port 80/udp"), "{done:#?}");
    }
}

#[test]
fn what_is_known_of_names() {
    needs_mount!();
    for tool in tools() {
        let net = Network::new();
        let names =
            ["--add-host", "seven:10.7.7.7", "--dns-search", "example.org", "--dns-option", "ndots:3"];
        let options = [&["-d", "--name", "one", "-h", "box", "--network", tool], &names[..]].concat();
        net.run(&options, "while :; do sleep 1; done").ok();
        let read = |file: &str| net.layerfs(&["exec", "one", "cat", file]).ok().to_owned();
        let hosts = read("/etc/hosts");
        assert!(hosts.starts_with("10.7.7.7\tseven\n") && hosts.contains("10.0.2.100\tbox\n"), "{hosts}");
        let resolv_conf = read("/etc/resolv.conf");
        assert!(resolv_conf.starts_with("search example.org\nnameserver 10.0.2.3\n"), "{resolv_conf}");
        assert!(resolv_conf.ends_with("options ndots:3"), "{resolv_conf}");
        // Beside the first program there is the same network.
        let addresses = net.layerfs(&["exec", "one", "sh", "-c", "ip addr"]);
        assert!(addresses.ok().contains("inet 10.0.2.100/24"), "{addresses:#?}");
    }
    let net = Network::new();
    let done = net.run(&["--network", "host", "--dns", "192.0.2.53"], "cat /etc/resolv.conf");
    assert!(done.ok().contains("nameserver 192.0.2.53"), "{done:#?}");
    let done = net.run(&["--add-host", "host:host-gateway"], "true");
    assert!(done.code == 125 && done.err.contains("host-gateway"), "{done:#?}");
}

#[test]
fn the_host_is_reached() {
    needs_mount!();
    if !has_default_route() {
        skip!("the host has no address but those of its loopback");
    }
    for tool in tools() {
        let net = Network::new();
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"host\n").unwrap();
        });
        // pasta of 2023 loses the end of a connection, and repeats bytes, when both sides close it at the same time.
        let script =
            format!("sleep 9 | nc gateway {port} >/got & until test -s /got; do sleep 0.1; done; cat /got");
        let options = ["--rm", "--network", tool, "--add-host", "gateway:host-gateway"];
        let done = net.run(&options, &script);
        // Else the thread would wait for ever.
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok();
        server.join().unwrap();
        assert_eq!(done.ok(), "host", "{tool}");
        // But not what listens on its loopback only.
        let loopback = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = loopback.local_addr().unwrap().port();
        for address in ["10.0.2.2", "127.0.0.1"] {
            net.run(&["--rm", "--network", tool], &format!("timeout 1 nc -w 1 {address} {port} </dev/null"));
        }
        loopback.set_nonblocking(true).unwrap();
        assert!(loopback.accept().is_err(), "{tool} reaches the host's loopback");
    }
}

#[test]
fn ports_that_cannot_be_had() {
    needs_mount!();
    let net = Network::new();
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let marker = net.place.path("marker");
    let volume = format!("{}:/out", net.place.path("").display());
    for detach in [&["-d"][..], &[]] {
        let publish = format!("{port}:80");
        let options = [detach, &["--rm", "-v", &volume, "-p", &publish]].concat();
        let done = net.run(&options, "touch /out/marker");
        assert!(done.code == 125 && done.err.contains(&port.to_string()), "{done:#?}");
        assert!(!marker.exists() && net.place.containers().is_empty());
    }
    let done = net.run(&["-p", "192.0.2.254:8080:80"], "true");
    assert!(done.code == 125 && done.err.contains("192.0.2.254:8080"), "{done:#?}");
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if !is_root() && first.trim().parse::<u16>().unwrap() > 1 {
        let done = net.run(&["-p", "1:80"], "true");
        assert!(done.code == 125 && done.err.contains("ip_unprivileged_port_start"), "{done:#?}");
    }
}

#[test]
fn what_is_not_there() {
    needs_mount!();
    let net = Network::new();
    for network in ["bridge", "container:x", "mine"] {
        let done = net.run(&["--network", network], "true");
        assert!(done.code == 125 && done.err.contains(network) && done.err.contains("pasta"), "{done:#?}");
    }
    let done = net.run(&["--network", "none", "-p", "80"], "true");
    assert!(done.code == 125 && done.err.contains("--network none"), "{done:#?}");
    let done = net.run(&["--network", "host", "-p", "80"], "echo ran");
    assert!(done.ok() == "ran" && done.err.contains("Published ports are discarded"), "{done:#?}");
    if fs::File::options().read(true).write(true).open("/dev/net/tun").is_err() {
        let done = net.run(&["-p", "80"], "true");
        assert!(done.code == 125 && done.err.contains("/dev/net/tun"), "{done:#?}");
    }
    let script = r#"PATH=/nowhere LAYERFS_ROOT=$2 "$1" run -q -p 80 "$3" true"#;
    let done = shell(script, &[Path::new(&layerfs_path()), &net.place.store(), &tiny()]);
    assert!(done.code == 125 && done.err.contains("passt") && done.err.contains("slirp4netns"), "{done:#?}");
}

#[test]
fn nothing_carries_for_the_dead() {
    needs_mount!();
    for tool in tools() {
        // Whom to kill: the starter, the supervisor, both at once.
        for (starter, supervisor) in [(true, false), (false, true), (true, true)] {
            let net = Network::new();
            let publish = format!("{}:80", free_port());
            net.run(&["-d", "--network", tool, "-p", &publish], "while :; do sleep 1; done").ok();
            let carriers = net.carriers();
            assert_eq!(carriers.len(), 1, "{tool}");
            let first = Status::of(carriers[0]).unwrap().parent;
            let child = |pid: &u32| {
                Status::of(*pid).is_some_and(|status| status.parent == first && !status.is_carrier())
            };
            let second = all_processes().into_iter().find(child).unwrap();
            let mut victims = Vec::new();
            victims.extend(starter.then(|| first.to_string()));
            victims.extend(supervisor.then(|| second.to_string()));
            assert!(Command::new("kill").arg("-KILL").args(&victims).status().unwrap().success());
            let gone = eventually(|| Status::of(carriers[0]).is_none());
            assert!(gone, "{tool} is left after kill -9: starter {starter}, supervisor {supervisor}");
            net.place.nothing_left();
        }
    }
}

#[test]
fn what_carries_is_given_nothing() {
    needs_mount!();
    for tool in tools() {
        let net = Network::new();
        let script = r#"exec 9<"$3"; LAYERFS_ROOT=$2 "$1" run -q -d --network "$4" "$3" sleep 100"#;
        let (store, program) = (net.place.store(), layerfs_path());
        shell(script, &[Path::new(&program), &store, &tiny(), Path::new(tool)]).ok();
        let carriers = net.carriers();
        assert_eq!(carriers.len(), 1, "{tool}");
        let status = Status::of(carriers[0]).unwrap().text;
        assert!(status.contains("Seccomp:\t2") && status.contains("SigBlk:\t0000000000000000"), "{status}");
        if is_root() {
            let open = fs::read_dir(format!("/proc/{}/fd", carriers[0])).unwrap();
            for fd in open {
                let to = fs::read_link(fd.unwrap().path()).unwrap_or_default();
                let to = to.to_string_lossy().into_owned();
                let is_ours = to.contains("fuse") || to.contains("docker-gzip") || to.contains("lock");
                assert!(!is_ours, "{tool} has {to} open");
            }
        }
    }
}

/// A host without a default route, on which pasta of 2023 does not work.
#[test]
fn a_host_without_a_way_out() {
    needs_mount!();
    if !is_root() {
        skip!("root makes such a host");
    }
    if let Some(why) = why_not("slirp4netns") {
        skip!("{why}");
    }
    let net = Network::new();
    let script = r#"ip link set lo up; LAYERFS_ROOT=$2 "$1" run -q --rm -p 8080:80 "$3" sh -c 'ip addr'"#;
    let (program, store) = (layerfs_path(), net.place.store());
    let mut unshare = Command::new("unshare");
    unshare.args(["-n", "bash", "-ec", script, "bash"]).args([Path::new(&program), &store, &tiny()]);
    let done = finish(&mut unshare);
    assert!(done.ok().contains("tap0") && done.out.contains("inet 10.0.2.100/24"), "{done:#?}");
}
