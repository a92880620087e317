//! docker-registry that wants tokens of somebody else.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use super::judges::{forget, layerfs};
use super::{Guarded, Hub, why_not};
use crate::support::{Done, Place, support_file};

/// `tests/support/token_server.py`; ends with the test.
struct Tokens {
    child: Child,
    port: String,
    dir: PathBuf,
}

impl Drop for Tokens {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Tokens {
    fn start(place: &Place) -> Self {
        let dir = place.path("tokens");
        fs::create_dir(&dir).unwrap();
        let mut command = Command::new("python3");
        command.arg(support_file("token_server.py")).arg(&dir).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Self { child, port: port.trim().to_owned(), dir }
    }

    /// What a registry has to know of them.
    fn configuration(&self) -> String {
        let (port, at) = (&self.port, self.dir.display());
        let realm = format!("http://127.0.0.1:{port}/token");
        format!(
            "auth: {{token: {{realm: '{realm}', service: hub, issuer: judge, rootcertbundle: {at}/issuer.pem}}}}\n"
        )
    }

    /// How long those last that are given from now on.
    fn last(&self, seconds: u32) {
        fs::write(self.dir.join("seconds"), seconds.to_string()).unwrap();
    }

    /// Who has asked for what, since the last time.
    fn asked(&self, seen: &mut usize) -> Vec<String> {
        let log = fs::read_to_string(self.dir.join("log")).unwrap();
        let new = log.lines().skip(*seen).map(str::to_owned).collect::<Vec<_>>();
        *seen += new.len();
        new
    }
}

/// A line to a registry that keeps what is said to it.
struct Line {
    host: String,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Line {
    fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (target, kept) = (target.to_owned(), said.clone());
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(&target) else { continue };
                let kept = kept.clone();
                let back = (far.try_clone().unwrap(), near.try_clone().unwrap());
                thread::spawn(move || carry(back.0, back.1, |_| {}));
                thread::spawn(move || {
                    carry(near, far, |bytes| kept.lock().unwrap().extend_from_slice(bytes));
                });
            }
        });
        Self { host, said }
    }

    fn name(&self, tag: &str) -> String {
        format!("{}/{tag}", self.host)
    }

    /// Whether this has been said to the registry.
    fn has_heard(&self, words: &str) -> bool {
        self.said.lock().unwrap().windows(words.len()).any(|window| window == words.as_bytes())
    }
}

/// Until one of them has had enough.
fn carry(mut from: TcpStream, mut to: TcpStream, seen: impl Fn(&[u8])) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        seen(&bytes[..count]);
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    // The other end may be gone, and then there is nothing to tell it.
    drop((from.shutdown(Shutdown::Read), to.shutdown(Shutdown::Write)));
}

/// Behind a token server, with `tiny:1` for everybody in `public`, and for me in `mine`.
struct Guardian {
    place: Place,
    tokens: Tokens,
    hub: Hub,
    line: Line,
}

impl Guardian {
    fn new() -> Self {
        let place = Place::new();
        let tokens = Tokens::start(&place);
        tokens.last(300);
        let hub = Hub::serve(&place, "hub", Guarded::ByTokens, &tokens.configuration());
        for name in ["public/tiny:1", "mine/tiny:1"] {
            hub.push("tiny", name);
        }
        let line = Line::to(&hub.host);
        Self { place, tokens, hub, line }
    }

    fn pull(&self, options: &[&str], tag: &str) -> Done {
        layerfs(&self.place, &[&["pull", "-q"], options, &[&self.line.name(tag)]].concat())
    }

    /// The password is for the token server alone.
    #[track_caller]
    fn is_discreet(&self) {
        assert!(self.line.has_heard("Bearer "));
        for secret in ["Basic ", "bWU6cHc", "me:pw"] {
            assert!(!self.line.has_heard(secret), "the registry has heard {secret:?}");
        }
    }
}

const ME: &[&str] = &["--creds", "me:pw"];

#[test]
fn a_token_server() {
    if let Some(why) = why_not() {
        skip!("{why}");
    }
    let all = Guardian::new();
    let mut seen = 0;
    let (manifest, config) = all.hub.digests("mine/tiny:1");
    all.tokens.asked(&mut seen);
    assert_eq!(format!("sha256:{}", all.pull(&[], "public/tiny:1").ok()), config);
    let asked = all.tokens.asked(&mut seen);
    assert_eq!(asked, ["anybody repository:public/tiny:pull"], "one token is enough");
    for creds in [&[][..], &["--creds", "me:guessed"]] {
        let done = all.pull(creds, "mine/tiny:1");
        assert!(
            done.code == 125 && done.err.contains("access denied") && !done.err.contains("guessed"),
            "{done:?}"
        );
    }
    assert_eq!(all.tokens.asked(&mut seen).last().unwrap(), "refused me");
    forget(&all.place);
    assert_eq!(format!("sha256:{}", all.pull(ME, "mine/tiny:1").ok()), config);
    assert_eq!(all.tokens.asked(&mut seen), ["me repository:mine/tiny:pull"]);

    // Who pulls only may not push.
    let name = all.line.name("public/tiny:1");
    let (mine, other) = (all.line.name("mine/tiny:1"), all.line.name("other/tiny:1"));
    let denied = layerfs(&all.place, &["push", "-q", &mine, &name]);
    assert!(denied.code == 125 && denied.err.contains("access denied"), "{denied:?}");
    // From one repository to another, for which both are asked for at once.
    layerfs(&all.place, &[&["push", "-q"], ME, &[&mine]].concat()).ok();
    all.tokens.asked(&mut seen);
    let done = layerfs(&all.place, &[&["push"], ME, &[&mine, &other]].concat());
    assert!(done.ok().contains(&manifest) && done.err.contains(": Mounted from mine/tiny"), "{done:#?}");
    assert_eq!(all.hub.digests("other/tiny:1"), (manifest, config));
    let asked = all.tokens.asked(&mut seen);
    // In what order the actions come is the registry's choice, and it is not always the same.
    let both = |line: &String| {
        let to_other = ["pull,push", "push,pull"].map(|actions| format!("repository:other/tiny:{actions}"));
        to_other.iter().any(|scope| line.contains(scope.as_str()))
            && line.contains("repository:mine/tiny:pull")
    };
    assert!(asked.iter().any(both), "{asked:?}");
    all.is_discreet();
}
