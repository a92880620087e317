use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

const COLON: &str = "bWU6czNjcmV0"; // me:s3cret

fn key(text: &str) -> RegistryKey {
    text.parse().unwrap()
}

fn password(username: &str, password: &str) -> Access {
    Access::Password { username: username.to_owned(), password: password.to_owned() }
}

/// Directories of one user.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn places(&self) -> Places {
        let runtime = self.path("run").into_os_string();
        Places::new(|name| (name == "XDG_RUNTIME_DIR").then(|| runtime.clone()), Some(&self.path("home")), 1)
    }

    fn keychain(&self) -> Keychain {
        Keychain::new(&self.places(), None, &[])
    }

    fn find(&self, text: &str) -> Option<Access> {
        self.keychain().find(&key(text)).unwrap().map(|(access, _)| access)
    }
}

fn entry(user: &str) -> String {
    use base64::Engine as _;
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:p"));
    format!(r#"{{"auth":"{auth}"}}"#)
}

#[test]
fn the_most_specific_key_wins() {
    let host = Host::new();
    let auths =
        [("r.io", "host"), ("r.io/a", "a"), ("r.io/a/b", "b"), ("https://index.docker.io/v1/", "hub")];
    let auths: Vec<_> = auths.iter().map(|(key, user)| format!("{key:?}:{}", entry(user))).collect();
    host.put("run/containers/auth.json", &format!(r#"{{"auths":{{{}}}}}"#, auths.join(",")));
    for (name, user) in [
        ("r.io", Some("host")),
        ("r.io/x", Some("host")),
        ("r.io/ab", Some("host")),
        ("r.io/a", Some("a")),
        ("r.io/a/c", Some("a")),
        ("r.io/a/b/c", Some("b")),
        ("r.io:5000/a", None),
        ("docker.io/library/debian", Some("hub")),
        ("registry-1.docker.io", Some("hub")),
    ] {
        assert_eq!(host.find(name), user.map(|user| password(user, "p")), "{name}");
    }
}

#[test]
fn forms_of_an_entry() {
    let host = Host::new();
    let found = |entry: &str| {
        host.put("run/containers/auth.json", &format!(r#"{{"auths":{{"r.io":{entry}}}}}"#));
        host.keychain()
            .find(&key("r.io"))
            .map(|found| found.map(|(access, _)| access))
            .map_err(|e| e.to_string())
    };
    let me = Ok(Some(password("me", "s3cret")));
    assert_eq!(found(&format!(r#"{{"auth":"{COLON}","email":"x"}}"#)), me);
    assert_eq!(found(r#"{"username":"me","password":"s3cret"}"#), me);
    // Without padding, with a colon in the password, with NULs behind it as old versions of docker wrote.
    assert_eq!(found(r#"{"auth":"YTpi"}"#), Ok(Some(password("a", "b"))));
    assert_eq!(found(r#"{"auth":"YTpiOmM"}"#), Ok(Some(password("a", "b:c"))));
    assert_eq!(found(r#"{"auth":"YTpiAAA="}"#), Ok(Some(password("a", "b"))));
    let token = Ok(Some(Access::IdentityToken("t".to_owned())));
    assert_eq!(found(&format!(r#"{{"auth":"{COLON}","identitytoken":"t"}}"#)), token);
    for empty in ["{}", "null", r#"{"auth":""}"#, r#"{"auth":"Og=="}"#] {
        assert_eq!(found(empty), Ok(None), "{empty}");
    }
    for wrong in [
        r#""s3cret""#,
        "[1]",
        r#"{"auth":1}"#,
        r#"{"auth":"s3cret!"}"#,
        r#"{"auth":"czNjcmV0"}"#,
        r#"{"auth":"//46"}"#,
    ] {
        let error = found(wrong).unwrap_err();
        assert!(
            error.contains("auth.json: auths: \"r.io\": ") && !error.contains("s3cret"),
            "{wrong}: {error}"
        );
    }
}

#[test]
fn broken_files_are_named_and_not_quoted() {
    let host = Host::new();
    for (text, part) in [
        ("{", "not JSON"),
        (r#""s3cret""#, "not an object"),
        (r#"{"auths":"s3cret"}"#, "auths: expected"),
        (r#"{"auths":{},"credHelpers":{"r.io":{"s3cret":1}}}"#, "credHelpers: expected"),
        (r#"{"credsStore":["s3cret"]}"#, "credsStore: expected"),
    ] {
        let path = host.put("run/containers/auth.json", text);
        let error = host.keychain().find(&key("r.io")).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains(part), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
    for empty in ["", "\n", "{}", r#"{"auths":null}"#] {
        host.put("run/containers/auth.json", empty);
        assert_eq!(host.find("r.io"), None, "{empty}");
    }
}

#[test]
fn files_in_their_order() {
    let host = Host::new();
    let auths = |user: &str| format!(r#"{{"auths":{{"r.io":{}}}}}"#, entry(user));
    let dockercfg = format!(r#"{{"https://r.io/v1/":{}}}"#, entry("oldest"));
    host.put("home/.dockercfg", &dockercfg);
    for (name, user) in [
        ("home/.dockercfg", "oldest"),
        ("home/.docker/config.json", "docker"),
        ("home/.config/containers/auth.json", "config"),
        ("run/containers/auth.json", "runtime"),
    ] {
        if user != "oldest" {
            host.put(name, &auths(user));
        }
        assert_eq!(host.find("r.io"), Some(password(user, "p")));
    }
    assert_eq!(host.find("q.io"), None);
    let named = host.path("named.json");
    let keychain = Keychain::new(&host.places(), Some(&named), &[]);
    let error = keychain.find(&key("r.io")).unwrap_err().to_string();
    assert!(error.contains("named.json"), "{error}");
    host.put("named.json", "{}");
    assert_eq!(keychain.access("r.io", "a/b").unwrap(), Access::Anonymous);
}

#[test]
fn what_is_written_keeps_the_rest() {
    let host = Host::new();
    let before = "{\n\t\"z\": [1,  2],\n\t\"auths\": {\n\t\t\"q.io\": {\n\t\t\t\"odd\": 1.50\n\t\t},\n\t\t\"r.io\": {\"auth\":\"eDp5\",\"email\":\"e\"}\n\t},\n\t\"a\": {\"b\":null}\n}\n";
    let path = host.put("run/containers/auth.json", before);
    let keeper = host.keychain().store(&key("r.io"), "me", "s3cret").unwrap();
    assert_eq!(keeper, Keeper::File(path.clone()));
    let after = fs::read_to_string(&path).unwrap();
    let expected = "{\n\t\"z\": [1,  2],\n\t\"auths\": {\n\t\t\"q.io\": {\n\t\t\t\"odd\": 1.50\n\t\t},\n\t\t\"r.io\": {\"auth\":\"bWU6czNjcmV0\",\"email\":\"e\"}\n\t},\n\t\"a\": {\"b\":null}\n}\n";
    assert_eq!(after, expected);
    assert_eq!(host.keychain().erase(&key("r.io")).unwrap(), Some(Keeper::File(path.clone())));
    assert_eq!(host.keychain().erase(&key("r.io")).unwrap(), None);
    let after = fs::read_to_string(&path).unwrap();
    assert!(
        after.contains("\"odd\": 1.50") && after.contains("\"z\": [1,  2]") && !after.contains("r.io"),
        "{after}"
    );
    host.keychain().erase_all().unwrap();
    let after: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(after, serde_json::json!({"z": [1, 2], "auths": {}, "a": {"b": null}}));
}

#[test]
fn files_are_private_and_links_are_followed() {
    let host = Host::new();
    host.keychain().store(&key("r.io/ns"), "me", "s3cret").unwrap();
    let path = host.path("run/containers/auth.json");
    let mode = |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&path), mode(&host.path("run/containers"))), (0o600, 0o700));
    // A file that others could read is closed, and where a link leads the file is, also when it is not there yet.
    let real = host.path("elsewhere/real.json");
    fs::create_dir(host.path("elsewhere")).unwrap();
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("../../elsewhere/link", &path).unwrap();
    std::os::unix::fs::symlink("real.json", host.path("elsewhere/link")).unwrap();
    for _ in 0..2 {
        host.keychain().store(&key("r.io"), "me", "s3cret").unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
        assert_eq!(mode(&real), 0o600);
        assert_eq!(host.find("r.io"), Some(password("me", "s3cret")));
        fs::set_permissions(&real, fs::Permissions::from_mode(0o644)).unwrap();
    }
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("auth.json", &path).unwrap();
    let error = host.keychain().store(&key("r.io"), "me", "x").unwrap_err().to_string();
    assert!(error.contains("symbolic links"), "{error}");
}

#[test]
fn many_writers_lose_nothing() {
    let host = Host::new();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let host = &host;
            scope.spawn(move || {
                for round in 0..5 {
                    host.keychain().store(&key(&format!("r{thread}.io/{round}")), "u", "p").unwrap();
                }
            });
        }
    });
    for thread in 0..4 {
        for round in 0..5 {
            assert!(host.find(&format!("r{thread}.io/{round}")).is_some(), "{thread} {round}");
        }
    }
}

#[test]
fn a_runtime_directory_out_of_reach_is_told_when_it_matters() {
    let host = Host::new();
    // Nobody can have a file below a file.
    let shared = host.put("file", "").join("auth.json");
    let keychain = Keychain { files: vec![(shared, FileKind::Shared)], sources: vec![FILES.to_owned()] };
    assert!(keychain.find(&key("r.io")).unwrap().is_none());
    assert_eq!(logout(&keychain, &key("r.io")).unwrap(), "Not logged into r.io");
    let error = keychain.store(&key("r.io"), "me", "p").unwrap_err().to_string();
    assert!(error.contains("file/auth.json") && error.contains("XDG_RUNTIME_DIR"), "{error}");
}

#[test]
fn docker_io_has_one_entry() {
    let host = Host::new();
    let path = host.put(
        "run/containers/auth.json",
        &format!(r#"{{"auths":{{"https://index.docker.io/v1/":{}}}}}"#, entry("old")),
    );
    host.keychain().store(&key("docker.io"), "new", "p").unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"docker.io\"") && !text.contains("index.docker.io"), "{text}");
    assert_eq!(host.find("docker.io/me/app"), Some(password("new", "p")));
    host.put(
        "run/containers/auth.json",
        &format!(r#"{{"auths":{{"https://index.docker.io/v1/":{}}}}}"#, entry("old")),
    );
    assert!(host.keychain().erase(&key("docker.io")).unwrap().is_some());
    assert_eq!(host.find("docker.io"), None);
}

/// Who says what the test wants.
#[derive(Default)]
struct Person {
    username: &'static str,
    password: &'static str,
    told: Vec<String>,
    asked: Vec<String>,
}

impl Dialogue for Person {
    fn tell(&mut self, line: &str) -> io::Result<()> {
        self.told.push(line.to_owned());
        Ok(())
    }

    fn ask_user(&mut self, known: Option<&str>) -> io::Result<String> {
        self.asked.push(format!("user {known:?}"));
        Ok(self.username.to_owned())
    }

    fn ask_password(&mut self) -> io::Result<String> {
        self.asked.push("password".to_owned());
        Ok(self.password.to_owned())
    }
}

/// A registry that lets one in.
fn only(username: &'static str, secret: &'static str) -> impl FnMut(&Access) -> Result<bool, io::Error> {
    move |access| Ok(*access == password(username, secret))
}

fn offer(username: &str, password: &str) -> Offer {
    let set = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Offer { username: set(username), password: set(password) }
}

#[test]
fn logging_in() {
    let host = Host::new();
    let (chain, registry) = (host.keychain(), key("r.io:5000"));
    let mut person = Person::default();
    let given = login(&chain, &registry, offer("me", "s3cret"), &mut person, only("me", "s3cret")).unwrap();
    assert_eq!(given, Keeper::File(host.path("run/containers/auth.json")));
    assert!(person.told.is_empty() && person.asked.is_empty());
    assert_eq!(logged_in(&chain, &registry).unwrap().as_deref(), Some("me"));
    // Known credentials are tried first, and nobody is asked while they are good.
    login(&chain, &registry, Offer::default(), &mut person, only("me", "s3cret")).unwrap();
    assert_eq!(person.told[1], "Existing credentials are valid. Already logged in to r.io:5000");
    assert!(person.asked.is_empty());
    let mut person = Person { password: "new", ..Person::default() };
    login(&chain, &registry, Offer::default(), &mut person, only("me", "new")).unwrap();
    assert_eq!(person.asked, ["user Some(\"me\")", "password"]);
    assert_eq!(host.find("r.io:5000"), Some(password("me", "new")));
    // Those of another user are not tried.
    let mut person = Person { password: "p", ..Person::default() };
    login(&chain, &registry, offer("you", ""), &mut person, only("you", "p")).unwrap();
    assert_eq!((person.asked.as_slice(), person.told.len()), (&["password".to_owned()][..], 0));
}

#[test]
fn not_logging_in() {
    let host = Host::new();
    let (chain, registry) = (host.keychain(), key("r.io"));
    let refused = |offer, accepts: &mut dyn FnMut(&Access) -> Result<bool, io::Error>| {
        let mut person = Person::default();
        login(&chain, &registry, offer, &mut person, accepts).unwrap_err().to_string()
    };
    let mut nobody = only("me", "x");
    assert_eq!(
        refused(offer("me", "s3cret"), &mut nobody),
        "logging into \"r.io\": invalid username/password"
    );
    assert!(refused(Offer::default(), &mut nobody).contains("user name is empty"));
    assert!(refused(offer("me", ""), &mut nobody).contains("password is empty"));
    assert!(refused(offer("a:b", "c"), &mut nobody).contains("colon"));
    assert!(refused(offer("a", "b\nc"), &mut nobody).contains("control character"));
    let mut broken = |_: &Access| Err(io::Error::other("no route"));
    assert_eq!(refused(offer("me", "x"), &mut broken), "logging into \"r.io\": no route");
    assert!(!host.path("run").exists(), "nothing was written");
    assert!(!format!("{:?}", offer("me", "s3cret")).contains("s3cret"));
}

#[test]
fn logging_out() {
    let host = Host::new();
    let (chain, registry) = (host.keychain(), key("r.io"));
    assert_eq!(logout(&chain, &registry).unwrap(), "Not logged into r.io");
    assert!(!host.path("run").exists(), "nothing was written");
    chain.store(&registry, "me", "p").unwrap();
    assert_eq!(logout(&chain, &registry).unwrap(), "Removed login credentials for r.io");
    let docker =
        host.put("home/.docker/config.json", &format!(r#"{{"auths":{{"r.io":{}}}}}"#, entry("docker")));
    let before = fs::read(&docker).unwrap();
    let said = logout(&chain, &registry).unwrap();
    assert!(
        said.starts_with("Not logged into r.io by this tool") && said.contains(".docker/config.json"),
        "{said}"
    );
    assert_eq!(logout_everywhere(&chain).unwrap(), "Removed login credentials for all registries");
    assert_eq!(fs::read(&docker).unwrap(), before);
    let absent = Keychain::new(&host.places(), Some(&host.path("absent.json")), &[]);
    assert_eq!(logged_in(&absent, &registry).unwrap(), None);
    assert_eq!(logout(&absent, &registry).unwrap(), "Not logged into r.io");
}

#[test]
fn names_of_helpers_lead_nowhere_else() {
    let host = Host::new();
    for name in ["../evil", "a/b", "a b", "x;y"] {
        host.put("run/containers/auth.json", &format!(r#"{{"credHelpers":{{"r.io":{name:?}}}}}"#));
        let error = host.keychain().find(&key("r.io")).unwrap_err().to_string();
        assert!(error.contains("cannot be the name of a helper"), "{error}");
    }
    host.put("run/containers/auth.json", r#"{"credHelpers":{"r.io":"not-installed-here"}}"#);
    let error = host.keychain().find(&key("r.io/a")).unwrap_err().to_string();
    assert!(error.contains("docker-credential-not-installed-here"), "{error}");
    // Another registry is none of its business; and podman, which does not know credsStore, takes such a file too.
    assert_eq!(host.find("q.io"), None);
    host.put("run/containers/auth.json", r#"{"credsStore":"not-installed-here"}"#);
    assert_eq!(host.find("r.io"), None);
}

proptest! {
    /// No text makes it panic; what is stored in a file that can be read is found again, and nothing else is lost.
    #[test]
    fn any_text(text in "\\PC{0,40}|\\{\"auths\":\\{(\"[ab]\":\\{\"x\":[0-9]\\},){0,3}\"c\":\\{\\}\\},\"k\":[0-9]\\}", user in "[a-z]{1,5}", secret in "\\PC{1,9}") {
        let host = Host::new();
        let path = host.put("run/containers/auth.json", &text);
        let chain = host.keychain();
        if chain.store(&key("a"), &user, &secret).is_ok() {
            prop_assert_eq!(host.find("a"), Some(password(&user, &secret)));
            let after: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            if let Ok(before) = serde_json::from_str::<serde_json::Value>(&text) {
                prop_assert_eq!(after.get("k"), before.get("k"));
                prop_assert_eq!(&after["auths"]["b"], &before["auths"]["b"]);
                prop_assert_eq!(&after["auths"]["a"]["x"], &before["auths"]["a"]["x"]);
            }
        }
    }
}
