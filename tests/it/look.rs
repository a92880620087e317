//! Images looked at without a mount, against what umoci unpacked, skopeo says, and coreutils see.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;

use crate::support::*;

/// Skips the test where the images were not made. Nothing is mounted here.
macro_rules! needs_images {
    () => {
        if !image("tiny").join("stamp").exists() {
            skip!("must run: no image in {}: run scripts/images", image("tiny").display());
        }
    };
}

fn lines(done: &Done) -> Vec<&str> {
    done.ok().lines().collect()
}

#[test]
fn ls_shows_what_was_unpacked() {
    needs_images!();
    let place = Place::new();
    for form in ["oci", "docker.tar", "docker-gzip.tar", "oci.tar"] {
        let source = image("tiny").join(form);
        let rootfs = image("tiny").join("rootfs");
        for dir in ["", "hard", "usr/share", "hard/opaque", "hard/merged"] {
            let count = match fs::read_dir(rootfs.join(dir)) {
                Ok(expected) => expected.count(),
                // Some were unpacked for root alone to read, but neither the root nor /usr/share.
                Err(error) => {
                    let is_forbidden = error.kind() == std::io::ErrorKind::PermissionDenied;
                    assert!(is_forbidden && !is_root() && dir.starts_with("hard"), "{dir}: {error}");
                    continue;
                }
            };
            let script = "LC_ALL=C ls -A1 -- \"$1\"";
            let found =
                place.layerfs(&[OsStr::new("ls"), source.as_os_str(), Path::new("/").join(dir).as_os_str()]);
            assert_eq!(found.ok(), shell(script, &[&rootfs.join(dir)]).ok(), "{form} {dir}");
            let json = place.layerfs(&[
                OsStr::new("ls"),
                OsStr::new("--json"),
                source.as_os_str(),
                Path::new("/").join(dir).as_os_str(),
            ]);
            let file = place.path("ls.json");
            fs::write(&file, json.ok()).unwrap();
            assert_eq!(shell("jq length \"$1\"", &[&file]).ok(), count.to_string());
        }
    }
}

/// Type, mode, ids, size or device, seconds and target of everything, as stat(2) has it, in both forms.
#[test]
fn the_long_form_agrees_with_stat() {
    needs_images!();
    if !is_root() {
        skip!("reads the whole unpacked tree: root only");
    }
    let place = Place::new();
    for name in images() {
        let list = place.path("found");
        let json = place.layerfs(&[
            OsStr::new("ls"),
            OsStr::new("-R"),
            OsStr::new("--json"),
            image(name).join("oci").as_os_str(),
        ]);
        fs::write(&list, json.ok()).unwrap();
        let script = r#"
            jq -r '.[] | [(.path_base64 // (.path|@base64)), .type, .mode, .uid, .gid, (.mtime[:19]), (if .type == "file" then .size else 0 end)] | join(" ")' "$1" | LC_ALL=C sort >"$1.a"
            python3 -c '
import base64, os, stat, sys, datetime
root = sys.argv[1].encode()
kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFCHR: "character device", stat.S_IFBLK: "block device", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket"}
for dir, dirs, files in os.walk(root):
    for name in dirs + files:
        path = os.path.join(dir, name)
        s = os.lstat(path)
        kind = kinds[stat.S_IFMT(s.st_mode)]
        time = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=s.st_mtime_ns // 10**9)
        size = s.st_size if kind == "file" else 0
        print(base64.b64encode(path[len(root):]).decode(), kind, "%04o" % stat.S_IMODE(s.st_mode), s.st_uid, s.st_gid, time.strftime("%Y-%m-%dT%H:%M:%S"), size)
' "$2" | LC_ALL=C sort >"$1.b"
            wc -l <"$1.a"; diff "$1.a" "$1.b" | head -20"#;
        let done = shell(script, &[&list, &image(name).join("rootfs")]);
        let lines = lines(&done);
        assert_eq!(lines.len(), 1, "{name}: < is layerfs, > is stat\n{}", done.out);
        assert!(lines[0].parse::<usize>().unwrap() > 100, "{name}: nothing was compared");

        let script =
            "LAYERFS_ROOT=\"$1\" \"$2\" ls -lR \"$3/oci\" >\"$4\"; python3 \"$5\" \"$4\" \"$3/rootfs\"";
        let (store, layerfs, judge) = (place.store(), layerfs_path(), support_file("long_form.py"));
        let done = shell(script, &[&store, Path::new(&layerfs), &image(name), &place.path("long"), &judge]);
        assert_eq!(done.ok(), lines[0], "{name}: rows of the long form");
    }
}

#[test]
fn cat_gives_the_bytes() {
    needs_images!();
    let place = Place::new();
    let (source, rootfs) = (image("tiny").join("oci"), image("tiny").join("rootfs"));
    let out = place.path("out");
    for file in
        ["/etc/passwd", "/usr/share/data", "/hard/sparse", "/hard/large", "/hard/empty", "/hard/only-hole"]
    {
        let script = "LAYERFS_ROOT=\"$1\" \"$2\" cat \"$3\" \"$4\" >\"$5\"";
        let layerfs = layerfs_path();
        shell(script, &[&place.store(), Path::new(&layerfs), &source, Path::new(file), &out]).ok();
        assert_eq!(sha256(&out), sha256(&rootfs.join(&file[1..])), "{file}");
    }
    let two = place.layerfs(&[
        OsStr::new("cat"),
        source.as_os_str(),
        "/etc/passwd".as_ref(),
        "etc/passwd".as_ref(),
    ]);
    assert_eq!(
        two.ok(),
        fs::read_to_string(rootfs.join("etc/passwd")).unwrap().repeat(2).trim_end_matches('\n')
    );
}

#[test]
fn what_cannot_be_shown() {
    needs_images!();
    let place = Place::new();
    let source = image("tiny").join("oci");
    let failed = |command: &str, path: &str| {
        let done = place.layerfs(&[OsStr::new(command), source.as_os_str(), path.as_ref()]);
        (done.code, done.out.clone(), done.err)
    };
    for (command, path, said) in [
        ("cat", "/nothing", "no such file"),
        ("cat", "/etc/passwd/x", "/etc/passwd is not a directory"),
        ("cat", "/etc/passwd/", "/etc/passwd is not a directory"),
        ("cat", "/etc/passwd/.", "/etc/passwd is not a directory"),
        ("cat", "", "no such file"),
        ("cat", "/etc", "is a directory"),
        ("cat", "/hard/fifo", "special file"),
        ("cat", "/hard/loop", "special file"),
        ("ls", "/nothing", "no such file"),
        ("ls", "/etc/passwd/", "is not a directory"),
        ("tree", "/etc/passwd", "not a directory"),
        ("tree", "/nothing", "no such file"),
    ] {
        let (code, out, err) = failed(command, path);
        assert_eq!((code, out.as_str()), (1, ""), "{command} {path}: {err}");
        assert!(err.contains(said) && err.lines().count() == 1, "{command} {path}: {err}");
    }
    let (code, _, err) = failed("which", "/nothing");
    assert_eq!((code, err.as_str()), (1, ""));
    // One that is there after one that is not: cat(1) goes on.
    let done =
        place.layerfs(&[OsStr::new("cat"), source.as_os_str(), "/nothing".as_ref(), "/etc/passwd".as_ref()]);
    assert!(done.code == 1 && done.out.contains("root:"), "{done:#?}");
    let text = place.path("text");
    fs::write(&text, "no image").unwrap();
    for command in ["ls", "tree", "index", "verify"] {
        let done = place.layerfs(&[OsStr::new(command), text.as_os_str()]);
        assert!(matches!(done.code, 1 | 125) && !done.err.is_empty(), "{command}: {done:#?}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let place = Place::new();
    let root = place.path("root");
    fs::create_dir(&root).unwrap();
    for number in 0..2000 {
        fs::write(root.join(format!("{number:0100}")), "").unwrap();
    }
    fs::write(root.join("data"), vec![b'x'; 1 << 20]).unwrap();
    let layerfs = layerfs_path();
    // More than any pipe holds (pipe(7)): who writes all of it meets the end of the reader.
    let script = "export LAYERFS_ROOT=\"$1\"; for c in \"cat $3 /data\" \"ls -lR $3\" \"tree $3\" \"tree --json $3\" \"ls -R --json $3\"; do
        [ $(\"$2\" $c | wc -c) -gt 150000 ] || exit 9
        \"$2\" $c 2>\"$1.err\" | head -c 10 >\"$1.head\"; echo ${PIPESTATUS[0]}; cat \"$1.err\"; wc -c <\"$1.head\"; done";
    let done = shell(script, &[&place.store(), Path::new(&layerfs), &root]);
    assert_eq!((done.code, lines(&done)), (0, ["0", "10"].repeat(5)));
}

#[test]
fn tree_draws_everything_once() {
    needs_images!();
    let place = Place::new();
    let source = image("tiny").join("oci");
    let drawn = place.layerfs(&[OsStr::new("tree"), source.as_os_str(), "/etc".as_ref()]);
    let lines = lines(&drawn);
    assert_eq!(lines[0], "/etc");
    let count = shell("find \"$1\" -mindepth 1 -printf x | wc -c", &[&image("tiny").join("rootfs/etc")]);
    assert_eq!((lines.len() - 3).to_string(), count.ok());
    assert!(lines.iter().any(|line| line.ends_with("-- passwd")), "{}", drawn.out);
    let json = place.path("tree.json");
    let done = place.layerfs(&[OsStr::new("tree"), "--json".as_ref(), source.as_os_str(), "/etc".as_ref()]);
    fs::write(&json, done.ok()).unwrap();
    assert_eq!(
        shell("jq '[.. | objects | select(has(\"type\"))] | length - 1' \"$1\"", &[&json]).ok(),
        count.ok()
    );
}

#[test]
fn which_tells_the_layer() {
    needs_images!();
    let place = Place::new();
    let source = image("tiny").join("oci");
    let json = place.path("which.json");
    // The base has it; nobody else does.
    let done =
        place.layerfs(&[OsStr::new("which"), "--json".as_ref(), source.as_os_str(), "/bin/busybox".as_ref()]);
    fs::write(&json, done.ok()).unwrap();
    let script = "jq -r '[.visible, (.layers | length), .layers[0].layer, .layers[0].created_by] | map(tostring) | join(\" \")' \"$1\"";
    assert_eq!(shell(script, &[&json]).ok(), "true 1 1 umoci raw add-layer");
    // What every layer's own tar says about a directory is what is listed of it.
    let text = place.layerfs(&[OsStr::new("which"), source.as_os_str(), "/hard".as_ref()]);
    let told = lines(&text).iter().filter(|line| line.starts_with("layer ")).count();
    let tars = "n=0; for t in \"$1\"/*.tar; do tar tf \"$t\" | grep -q '^\\(./\\)\\?hard' && n=$((n+1)); done; echo $n";
    assert_eq!(told.to_string(), shell(tars, &[&image("tiny").join("layers")]).ok(), "{}", text.out);
}

#[test]
fn index_is_built_once() {
    needs_images!();
    let place = Place::new();
    let source = image("tiny").join("oci");
    let first = place.layerfs(&[OsStr::new("index"), source.as_os_str()]);
    let again = place.layerfs(&[OsStr::new("index"), source.as_os_str()]);
    let layers = fs::read_dir(image("tiny").join("layers")).unwrap().count();
    assert_eq!(
        lines(&first).iter().filter(|line| line.ends_with(", built")).count(),
        layers,
        "{}",
        first.out
    );
    assert_eq!(
        lines(&again).iter().filter(|line| line.ends_with(", known")).count(),
        layers,
        "{}",
        again.out
    );
    let json = place.path("index.json");
    let done = place.layerfs(&[OsStr::new("index"), "--json".as_ref(), source.as_os_str()]);
    fs::write(&json, done.ok()).unwrap();
    let bytes = shell("jq '[.[0].layers[].tar_bytes] | add' \"$1\"", &[&json]);
    assert_eq!(bytes.ok(), shell("cat \"$1\"/*.tar | wc -c", &[&image("tiny").join("layers")]).ok());
}

#[test]
fn inspect_agrees_with_skopeo() {
    needs_images!();
    let place = Place::new();
    let (ours, theirs) = (place.path("ours"), place.path("theirs"));
    for name in images() {
        let source = image(name).join("oci");
        let done = place.layerfs(&[OsStr::new("inspect"), "--image".as_ref(), source.as_os_str()]);
        fs::write(&ours, done.ok()).unwrap();
        let script = "skopeo inspect --config --raw \"oci:$1:latest\" | jq -S . >\"$2\"; jq -S '.[0].ImageConfig' \"$3\" | diff - \"$2\"
            skopeo inspect \"oci:$1:latest\" | jq -r .Digest; jq -r '.[0].Digest' \"$3\"";
        let done = shell(script, &[&source, &theirs, &ours]);
        let lines = lines(&done);
        assert!(lines.len() == 2 && lines[0] == lines[1], "{name}: {}", done.out);
        // Without the option what is no container is an image.
        let fallen = place.layerfs(&[OsStr::new("inspect"), source.as_os_str()]);
        assert_eq!(fallen.ok(), fs::read_to_string(&ours).unwrap());
    }
    let none = place.layerfs(&["inspect", "nothing"]);
    assert!(none.code == 125 && none.err.contains("no such container"), "{none:#?}");
}

#[test]
fn verify_names_what_is_broken() {
    needs_images!();
    let place = Place::new();
    let source = place.path("image");
    copy(&image("tiny").join("oci"), &source);
    let verify = || place.layerfs(&[OsStr::new("verify"), source.as_os_str()]);
    let good = verify();
    assert!(good.ok().contains(": good: 5 layers"), "{good:#?}");

    let blobs = fs::read_dir(source.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    let mut blobs: Vec<_> = blobs.collect();
    blobs.sort_by_key(|path| fs::metadata(path).unwrap().len());
    let largest = blobs.pop().unwrap();
    let flip = |path: &Path, at: usize| {
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 0x10;
        fs::write(path, bytes).unwrap();
    };
    let middle = usize::try_from(fs::metadata(&largest).unwrap().len()).unwrap() / 4 * 3;
    flip(&largest, middle);
    let broken = verify();
    let digest = largest.file_name().unwrap().to_str().unwrap();
    assert_eq!(broken.code, 1, "{broken:#?}");
    for said in
        [format!("blob sha256:{digest}"), "uncompressed bytes".to_owned(), "\n    /usr/share/data".to_owned()]
    {
        assert!(broken.out.contains(&said), "{said}\n{}", broken.out);
    }
    flip(&largest, middle);

    let index = place.store().join("index").join(format!("{digest}.lfx"));
    let last = usize::try_from(fs::metadata(&index).unwrap().len()).unwrap() - 1;
    flip(&index, last);
    let broken = verify();
    assert!(
        broken.code == 1 && broken.out.contains(".lfx") && broken.out.contains("checksum"),
        "{broken:#?}"
    );
    verify().ok();

    // Two things at once: a layer that is too short, and a document that is not what it should be, are both told.
    let bytes = fs::read(&largest).unwrap();
    fs::write(&largest, &bytes[..bytes.len() - 1]).unwrap();
    let cut = verify();
    assert!(
        cut.code == 1 && cut.out.contains("bytes, its descriptor says") && cut.out.contains("4 layers"),
        "{cut:#?}"
    );
    fs::write(&largest, bytes).unwrap();
    let config = blobs.iter().find(|path| fs::read(path).unwrap().starts_with(b"{\"created\"")).unwrap();
    flip(config, 20);
    let wrong = verify();
    assert!(wrong.code == 1 && wrong.err.contains("config is corrupt"), "{wrong:#?}");
}

/// Lies about lengths add up to no number at all.
#[test]
fn inspect_of_layers_that_claim_too_much() {
    needs_images!();
    let place = Place::new();
    let layout = place.path("image");
    copy(&image("tiny").join("oci"), &layout);
    let script = r#"
import hashlib, json, os, sys
def read(name): return json.load(open(os.path.join(sys.argv[1], name)))
def put(document):
    data = json.dumps(document).encode()
    digest = hashlib.sha256(data).hexdigest()
    open(os.path.join(sys.argv[1], "blobs/sha256", digest), "wb").write(data)
    return {"digest": "sha256:" + digest, "size": len(data)}
index = read("index.json")
manifest = read("blobs/sha256/" + index["manifests"][0]["digest"][7:])
for layer in manifest["layers"]: layer["size"] = 2**63 - 1
index["manifests"][0].update(put(manifest))
json.dump(index, open(os.path.join(sys.argv[1], "index.json"), "w"))
"#;
    finish(Command::new("python3").args(["-c", script]).arg(&layout)).ok();
    let done = place.layerfs(&[OsStr::new("inspect"), "--image".as_ref(), layout.as_os_str()]);
    let json = place.path("inspect.json");
    fs::write(&json, done.ok()).unwrap();
    let size = finish(
        Command::new("python3")
            .args(["-c", "import json, sys; print(json.load(open(sys.argv[1]))[0]['Size'])"])
            .arg(&json),
    );
    assert_eq!(size.ok(), u64::MAX.to_string());
}

/// Names that would take over a terminal do not reach it, however they are asked for.
#[test]
fn a_terminal_obeys_no_name() {
    let place = Place::new();
    let root = place.path("root");
    let names: [&[u8]; 5] = [b"\x1b[31mred", b"c1\xc2\x9b31m", b"del\x7f", b"not\xfftext", b"it's\n"];
    fs::create_dir(&root).unwrap();
    for name in names {
        fs::write(root.join(OsStr::from_bytes(name)), "").unwrap();
    }
    let is_safe = |out: &str| !out.chars().any(|char| char.is_control() && char != '\n');
    for arguments in
        [&["ls", "--json"][..], &["tree", "--json"], &["ls", "-lR", "--json"], &["verify", "--json"]]
    {
        let mut command = place.command();
        let done = finish(command.args(arguments).arg(&root));
        assert!(is_safe(done.ok()), "{arguments:?}: {}", done.out);
        let json = place.path("json");
        fs::write(&json, &done.out).unwrap();
        finish(Command::new("jq").arg(".").arg(&json)).ok();
    }
    for name in names {
        for json in [true, false] {
            let mut command = place.command();
            command.arg("which").args(json.then_some("--json")).arg(&root).arg(OsStr::from_bytes(name));
            let done = finish(&mut command);
            assert!(is_safe(done.ok()) && done.out.contains("visible"), "{}", done.out);
        }
        let gone = [name, b" gone"].concat();
        let done = finish(place.command().arg("cat").arg(&root).arg(OsStr::from_bytes(&gone)));
        assert!(done.code == 1 && is_safe(&done.err), "{done:?}");
    }
    // To a terminal; script(1) is one.
    let layerfs = layerfs_path();
    for command in ["ls", "tree", "ls -lR"] {
        let script = "export LAYERFS_ROOT=\"$1\"; script -qec \"$2 $4 $3\" /dev/null | tr -d '\\r'";
        let done = shell(script, &[&place.store(), Path::new(&layerfs), &root, Path::new(command)]);
        assert!(is_safe(done.ok()) && done.out.contains("red"), "{command}: {}", done.out);
    }
}

/// A name costs its own length, not that of the path that leads to it.
#[test]
fn many_names_below_a_long_path() {
    let place = Place::new();
    let script = r#"
import hashlib, io, json, sys, tarfile
layer = io.BytesIO()
with tarfile.open(fileobj=layer, mode="w", format=tarfile.GNU_FORMAT) as tar:
    for n in range(10000):
        tar.addfile(tarfile.TarInfo("/".join(["d" * 240] * 15 + ["file-%05d" % n])))
layer = layer.getvalue()
diff_id = "sha256:" + hashlib.sha256(layer).hexdigest()
config = {"architecture": sys.argv[2], "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
manifest = [{"Config": "config.json", "RepoTags": ["deep:1"], "Layers": ["layer.tar"]}]
with tarfile.open(sys.argv[1], "w") as archive:
    for name, data in (("config.json", json.dumps(config).encode()), ("manifest.json", json.dumps(manifest).encode()), ("layer.tar", layer)):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
"#;
    let image = place.path("deep.tar");
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    finish(Command::new("python3").args(["-c", script]).arg(&image).arg(machine)).ok();
    place.layerfs(&[OsStr::new("index"), image.as_os_str()]).ok();
    // 36 MB are the paths of all.
    let script = r#"prlimit --data=$((24 << 20)) -- "$LAYERFS" "$@" "$IMAGE" / > "$OUT" && wc -l < "$OUT""#;
    for (args, lines) in [(&["ls", "-R"][..], 10_046), (&["ls", "-R", "--json"], 10_017), (&["tree"], 10_018)]
    {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).args(args).env("LAYERFS_ROOT", place.store());
        command.env("LAYERFS", layerfs_path()).env("IMAGE", &image).env("OUT", place.path("out"));
        assert_eq!(finish(&mut command).ok(), lines.to_string(), "{args:?}");
    }
    place.layerfs(&[OsStr::new("verify"), image.as_os_str()]).ok();
}
