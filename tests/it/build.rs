//! An image built from a Dockerfile is what its steps left behind, and other tools see the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::*;

/// A build context with this Dockerfile in it.
fn context(place: &Place, dockerfile: &str) -> PathBuf {
    let dir = place.path("context");
    fs::create_dir_all(&dir).unwrap();
    let base = image("tiny").join("docker-gzip.tar");
    fs::write(dir.join("Dockerfile"), format!("FROM {}\n{dockerfile}", base.display())).unwrap();
    dir
}

fn build(place: &Place, options: &[&str], dockerfile: &str) -> Done {
    let dir = context(place, dockerfile);
    let mut layerfs = place.command();
    layerfs.arg("build").args(["-t", "built:one"]).args(options).arg(dir);
    let done = finish(&mut layerfs);
    assert!(place.containers().is_empty(), "left: {:?} {done:#?}", place.containers());
    done
}

fn run(place: &Place, image: &str, script: &str) -> Done {
    place.layerfs(&["run", "--rm", image, "/bin/sh", "-c", script])
}

/// Everything that an upper can hold, on the image's own `/hard`, where a single id can do it too.
const CHANGES: &str = r#"set -e; cd /hard
    echo new >new; mkdir -p dir/deep; echo x >dir/deep/file; ln dir/deep/file dir/linked
    echo more >>plain; chmod 600 large; touch -d @1000000000 exactly-one-block
    rm empty; rm -rf many; rm -rf opaque; mkdir opaque; echo again >opaque/only
    mv merged renamed; mv elsewhere dir/moved; echo in >renamed/added
    echo both >>a-link; mv one two; ln capable another; rm relative-too
    rm -rf was-dir; echo file >was-dir; rm was-file; mkdir was-file
    ln -s new soft; mkfifo pipe; chmod 4755 new; chmod 2755 dir; chmod 1777 sticky
    rm -rf reborn; echo z >reborn; touch 'odd \name'"#;
/// What several ids are needed for.
const OWNERS: &str =
    "chown 7:8 /hard/new; chown -h 9:10 /hard/soft; chown 11 /hard/renamed; chmod 6755 /hard/new";

fn script(place: &Place) -> PathBuf {
    let path = place.path("changes.sh");
    let owners = if is_root() || has_id_ranges() { OWNERS } else { "" };
    fs::write(&path, format!("{CHANGES}\n{owners}\n")).unwrap();
    path
}

#[test]
fn the_image_is_what_the_container_was() {
    needs_mount!();
    let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().to_string();
    let place = Place::new();
    let dir = context(&place, "COPY changes.sh /changes.sh\nRUN sh /changes.sh\n");
    fs::copy(script(&place), dir.join("changes.sh")).unwrap();
    let done = build(&place, &[], "COPY changes.sh /changes.sh\nRUN sh /changes.sh\n");
    assert!(done.ok().starts_with("sha256:"), "{done:#?}");
    // The same in a container, whose changes are kept; then both mounted.
    let base = image("tiny").join("docker-gzip.tar");
    let volume = format!("{}:/changes.sh:ro", dir.join("changes.sh").display());
    let mut layerfs = place.command();
    layerfs.args(["run", "--name", "kept", "-v", &volume]).arg(&base).args(["sh", "/changes.sh"]);
    finish(&mut layerfs).ok();
    // Others cannot look into all directories of the image's owners from outside.
    if is_root() {
        let expected = place.path("expected.tree");
        let mounted = place.mount(&["--owner", "image", "--container", "kept"], &base);
        let list = r#"python3 "$1" list "$2/hard" >"$3""#;
        shell(list, &[&support_file("tree.py"), &place.mnt(), &expected]).ok();
        mounted.unmount();
        let mounted = place.mount(&["--owner", "image"], "built:one");
        assert_same_tree("built", &["--recent", &start], &expected, &place.mnt().join("hard"));
        mounted.unmount();
    }
    // The same judged from inside, where everybody is root.
    let look = r#"cd /hard && find . ! -type d -exec stat -c '%n %F %a %u %g %h %s %N' {} + | sort
        find . -type d -exec stat -c '%n %F %a %u %g' {} + | sort; find . -type f -exec md5sum {} + | sort"#;
    let again = format!("sh /changes.sh && {look}");
    let mut layerfs = place.command();
    layerfs.args(["run", "--rm", "-v", &volume]).arg(&base).args(["sh", "-c", &again]);
    let wanted = finish(&mut layerfs);
    let found = run(&place, "built:one", look);
    for (wanted, found) in wanted.ok().lines().zip(found.ok().lines()) {
        assert_eq!(wanted, found);
    }
    assert_eq!(wanted.ok().lines().count(), found.ok().lines().count());
    place.layerfs(&["rm", "kept"]).ok();
}

#[test]
fn other_tools_agree() {
    needs_mount!();
    let place = Place::new();
    let dir = context(&place, "");
    fs::copy(script(&place), dir.join("changes.sh")).unwrap();
    let dockerfile = "COPY changes.sh /changes.sh\nRUN sh /changes.sh\nENV A=\"b c\"\nEXPOSE 80\nLABEL x=y\n";
    let id = build(&place, &[], dockerfile).ok().to_owned();
    let layout = place.store().join("oci");
    let raw = |what: &str| {
        let from = format!("oci:{}:built:one", layout.display());
        finish(Command::new("skopeo").args(["inspect", what]).arg(from)).ok().to_owned()
    };
    let config = raw("--config");
    for part in ["A=b c", "80/tcp", "\"x\"", "RUN sh /changes.sh"] {
        assert!(config.contains(part), "{part}: {config}");
    }
    assert!(raw("--raw").contains(&id), "the id is the config's digest");
    if !is_root() {
        skip!("only root can unpack ids and devices");
    }
    let unpack = r#"
        skopeo copy -q "oci:$1:built:one" "oci:$2:one" && umoci unpack --keep-dirlinks --image "$2:one" "$3" >&2
    "#;
    shell(unpack, &[&layout, &place.path("copy"), &place.path("bundle")]).ok();
    let mounted = place.mount(&["--owner", "image", "--read-only"], "built:one");
    let unpacked = place.path("bundle").join("rootfs/hard");
    assert_same_tree("umoci", &[], &unpacked, &place.mnt().join("hard"));
    mounted.unmount();
}

#[test]
fn files_of_the_context() {
    needs_mount!();
    let place = Place::new();
    let dir = context(&place, "");
    let make = r#"cd "$1" && mkdir -p sub/deep out && echo a >a.txt && echo b >b.txt && echo y >sub/deep/y
        ln -s deep/y sub/soft && echo secret >out/key && echo log >x.log && chmod 750 sub/deep && chmod 4711 a.txt
        printf '*.log\nout\n' >.dockerignore && tar -cf archive.tar a.txt && ln -s a.txt by-link"#;
    shell(make, &[&dir]).ok();
    let dockerfile = "WORKDIR /w\nARG WHO=1000:1001\nCOPY --chown=$WHO *.txt ./\nCOPY sub /w/sub\nCOPY b.txt /w/c\n\
        COPY --chown=app --chmod=600 b.txt /w/named\nCOPY . /all/\nCOPY by-link /w/followed\nCOPY b.txt /hard/relative\n";
    build(&place, &["--build-arg", "WHO=1000:1000"], dockerfile).ok();
    let look = r#"cd /w && stat -c '%n %F %a %u:%g' a.txt b.txt sub sub/deep sub/soft c named followed && cat c sub/soft; ls -A /all; cat /hard/plain"#;
    let ids = if is_root() || has_id_ranges() { ("1000:1000", "1000:1000") } else { ("0:0", "0:0") };
    let expected = format!(
        "a.txt regular file 4711 {0}\nb.txt regular file 644 {0}\nsub directory 755 0:0\nsub/deep directory 750 0:0\n\
         sub/soft symbolic link 777 0:0\nc regular file 644 0:0\nnamed regular file 600 {1}\n\
         followed regular file 4711 0:0\nb\ny\n.dockerignore\nDockerfile\na.txt\narchive.tar\nb.txt\nby-link\nsub\nb",
        ids.0, ids.1
    );
    assert_eq!(run(&place, "built:one", look).ok(), expected);
    for (line, name) in [
        ("COPY x.log /", "x.log"),
        ("COPY ../x /", "../x"),
        ("COPY nothing /", "nothing"),
        ("COPY a.txt b.txt /d", "must end with /"),
        ("ADD archive.tar /", "archive.tar"),
        ("COPY --chown=nobody-there a.txt /", "nobody-there"),
        ("COPY sub /etc/passwd", "/etc/passwd"),
    ] {
        let done = build(&place, &[], &format!("{line}\n"));
        assert_eq!(done.code, 125, "{line}: {done:#?}");
        assert!(done.err.contains(name) && done.err.contains("line 2"), "{line}: {done:#?}");
    }
}

#[test]
fn failures_say_where() {
    needs_mount!();
    let place = Place::new();
    let done = build(&place, &[], "RUN exit 7\n");
    assert_eq!(done.code, 1, "{done:#?}");
    assert!(done.err.contains("line 2: RUN exit 7: ") && done.err.contains("exit code 7"), "{done:#?}");
    assert_eq!(done.out, "");
    let done = build(&place, &[], "RUN [\"/no/such\"]\n");
    assert_eq!(done.code, 1, "{done:#?}");
    let done = build(&place, &[], "COPY --from=other /a /b\n");
    assert_eq!(done.code, 125, "{done:#?}");
    assert!(done.err.contains("line 2: COPY --from=other is not supported"), "{done:#?}");
}

#[test]
fn built_upon_built() {
    needs_mount!();
    let place = Place::new();
    build(&place, &[], "ENV A=1\nRUN echo to stdout; echo $A >/one\nCMD [\"cat\", \"/one\"]\n").ok();
    let dir = place.path("second");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("Dockerfile"), "FROM built:one\nRUN test -f /one && rm /one && echo 2 >/two\n")
        .unwrap();
    let id = finish(place.command().arg("build").arg(&dir)).ok().to_owned();
    assert_eq!(run(&place, &id, "echo $A; cat /two; test ! -e /one").ok(), "1\n2");
    assert_eq!(place.layerfs(&["run", "--rm", "built:one"]).ok(), "1");
    // From nothing.
    fs::write(dir.join("Dockerfile"), "FROM scratch\nCOPY Dockerfile /d/\n").unwrap();
    finish(place.command().args(["build", "-t", "nothing"]).arg(&dir)).ok();
    let mounted = place.mount(&["--read-only"], Path::new("nothing"));
    assert!(mounted.path("d/Dockerfile").is_file());
    mounted.unmount();
}
