use super::*;
use crate::launcher::plan::{Tmpfs, Volume};
use crate::launcher::{Resource, Rlimit};

fn process(uid: u32, single: bool) -> Process {
    let user = User { uid, gid: 7, groups: vec![50], home: "/h".into() };
    Process { user, single, bounding: Capabilities::DEFAULT, own: Capabilities::DEFAULT }
}

fn config(plan: &Plan, process: &Process) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let mut plan = plan.clone();
    plan.rootfs_mount_point = dir.path().join("mnt");
    let bundle = Bundle::make(&plan).unwrap();
    let places: Vec<PathBuf> = plan.files.iter().map(|file| file.destination.clone()).collect();
    bundle.write(&plan, process, &places).unwrap();
    serde_json::from_slice(&fs::read(bundle.path().join(CONFIG)).unwrap()).unwrap()
}

fn plan() -> Plan {
    Plan::new("0123456789abcdef", "/nowhere/mnt".into(), vec!["sh".into(), "-c".into()])
}

fn mount<'a>(config: &'a Value, at: &str) -> &'a Value {
    let mounts = config["mounts"].as_array().unwrap();
    mounts.iter().find(|mount| mount["destination"] == at).unwrap_or(&Value::Null)
}

fn has_option(mount: &Value, option: &str) -> bool {
    mount["options"].as_array().unwrap().iter().any(|one| one == option)
}

#[test]
fn what_every_container_has() {
    let made = config(&plan(), &process(0, false));
    assert_eq!(made["process"]["args"], json!(["sh", "-c"]));
    assert_eq!(made["process"]["user"], json!({"uid": 0, "gid": 7, "umask": 18, "additionalGids": [50]}));
    let env = made["process"]["env"].as_array().unwrap();
    assert!(env.contains(&json!("HOME=/h")) && env.contains(&json!("HOSTNAME=0123456789ab")));
    let kinds: Vec<&str> = made["linux"]["namespaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|namespace| namespace["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["pid", "ipc", "uts", "mount", "cgroup", "network"]);
    for at in ["/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        assert!(has_option(mount(&made, at), "nosuid"), "{at}");
    }
    assert!(has_option(mount(&made, "/sys"), "ro") && has_option(mount(&made, "/dev/pts"), "gid=5"));
    assert_eq!(made["linux"]["seccomp"]["defaultErrnoRet"], 38);
    assert_eq!(made["process"]["noNewPrivileges"], false);
    assert_eq!(made["process"]["capabilities"]["effective"].as_array().unwrap().len(), 11);
    assert_eq!(made["process"]["capabilities"]["ambient"], json!([]));
    assert_eq!(made["process"].get("oomScoreAdj"), None);
    assert_eq!(made["linux"].get("resources"), None);
}

#[test]
fn what_was_asked_for() {
    let mut plan = plan();
    plan.network = Network::Host;
    plan.read_only = true;
    plan.oom_score_adj = Some(7);
    plan.rlimits = vec![Rlimit { resource: Resource::Nofile, soft: 10, hard: 20 }];
    plan.volumes = vec![
        Volume { recursive: false, ..Volume::new("/etc".into(), "/dev/shm".into()) },
        Volume::new("/usr".into(), "/a/b".into()),
    ];
    plan.volumes[1].flags.read_only = true;
    let tmpfs = Tmpfs { bytes: Some(4096), fill: true, owner: (7, 0), ..Tmpfs::new("/a".into(), 0o1777) };
    plan.tmpfs = vec![tmpfs];
    plan.devices = vec![Device { source: "/dev/zero".into(), destination: "/dev/other".into() }];
    plan.files = crate::launcher::default_files("box", Network::None, &Default::default()).unwrap();
    let made = config(&plan, &process(5, true));
    let without = |at: &str| !made["linux"]["namespaces"].to_string().contains(at);
    assert!(without("network"));
    assert_eq!(made["root"]["readonly"], true);
    assert_eq!(made["process"]["rlimits"], json!([{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}]));
    assert_eq!(
        (&made["process"]["oomScoreAdj"], &made["process"]["noNewPrivileges"]),
        (&json!(7), &json!(true))
    );
    assert_eq!(made["process"]["capabilities"]["ambient"], made["process"]["capabilities"]["effective"]);
    assert_eq!(mount(&made, "/dev/shm")["source"], "/etc");
    assert!(!has_option(mount(&made, "/dev/shm"), "rnosuid"));
    let volume = mount(&made, "/a/b");
    assert!(["ro", "rro", "rbind", "rnosuid", "exec"].iter().all(|option| has_option(volume, option)));
    let filled = mount(&made, "/a");
    assert!(["tmpcopyup", "mode=1777", "size=4096", "uid=7"].iter().all(|option| has_option(filled, option)));
    assert_eq!(mount(&made, "/sys")["source"], "/sys");
    assert!(!has_option(mount(&made, "/dev/pts"), "gid=5"));
    assert!(has_option(mount(&made, "/etc/hosts"), "ro"));
    assert_eq!(
        made["linux"]["resources"]["devices"],
        json!([{"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm"}])
    );
    let order: Vec<&Value> =
        made["mounts"].as_array().unwrap().iter().map(|mount| &mount["destination"]).collect();
    let at = |wanted: &str| order.iter().position(|one| *one == wanted).unwrap();
    assert!(at("/a") < at("/a/b"), "outer before inner");
}

#[test]
fn json_holds_no_other_bytes() {
    use std::os::unix::ffi::OsStringExt as _;
    let failure = text(&std::ffi::OsString::from_vec(vec![0xff])).unwrap_err();
    assert!(failure.to_string().contains("--runtime"), "{failure}");
}
