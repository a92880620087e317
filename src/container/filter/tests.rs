use super::*;
use crate::container::{
    Changes, Container, ImageRecord, NewContainer, Owners, ProcessId, Purpose, Source, UsedVolume, Wishes,
};
use crate::launcher::Volume;
use crate::model::Digest;
use crate::model::image_config::ProcessConfig;

fn new(name: &str, label: &str) -> NewContainer {
    let map =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let mount = Volume::new("/host/data".into(), "/data".into());
    let volume = UsedVolume { source: Source::Path, mount };
    NewContainer {
        name: Some(name.to_owned()),
        image: ImageRecord {
            name: "docker.io/library/debian:latest".into(),
            source: "oci:/x:@sha256:0".into(),
            config_digest: Digest::from_bytes([0xab; 32]),
            layers: Vec::new(),
            process: ProcessConfig {
                labels: map(&[("of", "image"), ("who", "image")]),
                ..ProcessConfig::default()
            },
        },
        purpose: Purpose::Run,
        command: vec!["sh".into()],
        owners: Owners::Image,
        changes: Changes::Own,
        remove_at_end: false,
        run: Some(Wishes { labels: map(&[("who", label)]), volumes: vec![volume], ..Wishes::default() }),
    }
}

#[test]
fn what_filters_find() {
    let dir = tempfile::tempdir().unwrap();
    let containers = Containers::open(dir.path()).unwrap();
    let one = Container::clone(&containers.create(new("one", "a")).unwrap());
    let two = Container::clone(&containers.create(new("two", "b")).unwrap());
    let now = Moment::now();
    let process = ProcessId { pid: 4, start_ticks: 5 };
    let exited = State::Exited { exit_code: 3, started: now, finished: now, oom_killed: false };
    let running = State::Running { process, started: now, cgroup: None };
    let rows = [
        Listed::of(&one, Status { state: running, held: true }),
        Listed::of(&two, Status { state: exited, held: false }),
    ];
    let found = |texts: &[&str]| {
        let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
        let filters = Filters::parse(&texts, &containers, now)?;
        let admitted = rows.iter().filter(|one| filters.admit(one));
        Ok::<_, FilterError>(admitted.map(|one| one.about.name.clone()).collect::<Vec<_>>().join(" "))
    };
    let prefix = format!("id={}", &two.id().to_string()[..20]);
    for (filters, wanted) in [
        (&["name=o"][..], "one two"),
        (&["name=^one$"], "one"),
        (&["name=^/one$"], "one"),
        (&["name=one", "name=two"], "one two"),
        (&[&prefix], "two"),
        (&["label=who"], "one two"),
        (&["label=who=a"], "one"),
        (&["label=who=image"], ""),
        (&["label=of=image", "label=who=b"], "two"),
        (&["label!=who=b"], "one"),
        (&["label!=who"], ""),
        (&["status=running"], "one"),
        (&["status=stopped", "status=created"], "two"),
        (&["status=running", "name=two"], ""),
        (&["exited=3"], "two"),
        (&["exited=0"], ""),
        (&["ancestor=debian"], "one two"),
        (&["ancestor=debian:latest"], "one two"),
        (&["ancestor=sha256:abababab"], "one two"),
        (&["ancestor=deb"], ""),
        (&["before=two"], "one"),
        (&["since=one"], "two"),
        (&["until=1h"], ""),
        (&["volume=/data"], "one two"),
        (&["volume=/host/data"], "one two"),
        (&["volume=/host"], ""),
        (&["network=none"], "one two"),
        (&["network=host"], ""),
    ] {
        assert_eq!(found(filters).unwrap(), wanted, "{filters:?}");
    }
    for wrong in ["color=red", "name", "status=odd", "exited=x", "before=nobody", "until=x", "name=["] {
        assert!(found(&[wrong]).is_err(), "{wrong}");
    }
    let said = found(&["color=red"]).unwrap_err().to_string();
    assert!(said.contains("color=red") && said.contains("ancestor"), "{said}");
}
