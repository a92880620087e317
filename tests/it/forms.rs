//! Images as podman, buildah and skopeo write them: `tests/support/forms.sh`.

use std::process::Command;

use crate::support::*;

#[test]
fn every_form_that_others_write() {
    needs_mount!();
    if !is_root() {
        skip!("only root can use the storage of podman and buildah here");
    }
    let place = Place::new();
    let forms = place.path("forms");
    let written = shell("bash \"$1\" \"$2\"", &[&support_file("forms.sh"), &forms]);
    let names: Vec<&str> = written.ok().lines().collect();
    assert!(names.len() > 10, "{names:?}");
    for form in names {
        let mounted = place.mount(&["--rm", "--read-only", "--owner", "image"], forms.join(form));
        assert_same_tree(form, &[], &forms.join("expected"), &place.mnt());
        mounted.unmount();
    }
    let done =
        place.layerfs(&["mount", forms.join("skopeo-dir").to_str().unwrap(), place.mnt().to_str().unwrap()]);
    assert!(done.code == 125 && done.err.contains("skopeo copy dir:"), "{done:#?}");
}

/// An index of images for `$2`, `$3` and so on, each called by its platform, in the OCI layout `$1`.
const PLATFORMS: &str = r#"
import hashlib, json, os, sys
out, offered = sys.argv[1], sys.argv[2:]
os.makedirs(out + "/blobs/sha256")
def put(document, media_type):
    data = json.dumps(document).encode()
    digest = hashlib.sha256(data).hexdigest()
    open(out + "/blobs/sha256/" + digest, "wb").write(data)
    return {"mediaType": "application/vnd.oci.image." + media_type, "digest": "sha256:" + digest, "size": len(data)}
entries = []
for text in offered:
    platform = dict(zip(["os", "architecture", "variant"], text.split("/")))
    config = put({**platform, "author": text, "rootfs": {"type": "layers", "diff_ids": []}}, "config.v1+json")
    entry = put({"schemaVersion": 2, "config": config, "layers": []}, "manifest.v1+json")
    entries.append({**entry, "platform": platform})
index = put({"schemaVersion": 2, "manifests": entries}, "index.v1+json")
json.dump({"schemaVersion": 2, "manifests": [index]}, open(out + "/index.json", "w"))
json.dump({"imageLayoutVersion": "1.0.0"}, open(out + "/oci-layout", "w"))
"#;

#[test]
fn platforms_as_skopeo_chooses_them() {
    needs_mount!();
    let place = Place::new();
    for (number, (architecture, variant, offered)) in [
        ("arm", "v7", &["linux/arm/v8", "linux/arm/v5", "linux/arm/v6"][..]),
        ("arm", "v8", &["linux/arm64/v8", "linux/arm/v5", "linux/arm/v7"]),
        ("arm", "v6", &["linux/arm/v7", "linux/arm/v5"]),
        ("arm", "v6", &["linux/arm/v7", "linux/arm"]),
        ("arm", "v5", &["linux/arm/v6", "linux/arm/v7"]),
        ("arm64", "v8", &["linux/arm/v8", "linux/arm64"]),
        ("arm64", "", &["linux/arm/v8", "linux/arm64/v8"]),
        ("amd64", "", &["linux/amd64/v3", "linux/amd64"]),
        ("amd64", "v3", &["linux/amd64/v4", "linux/amd64"]),
        ("amd64", "v2", &["linux/386", "linux/amd64/v2"]),
        ("s390x", "", &["linux/amd64"]),
    ]
    .into_iter()
    .enumerate()
    {
        let layout = place.path(&format!("layout{number}"));
        finish(Command::new("python3").args(["-c", PLATFORMS]).arg(&layout).args(offered)).ok();
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--override-os", "linux", "--override-arch", architecture]);
        if !variant.is_empty() {
            skopeo.args(["--override-variant", variant]);
        }
        let theirs =
            finish(skopeo.args(["inspect", "--config", "--raw"]).arg(format!("oci:{}", layout.display())));
        let wanted = format!("linux/{architecture}/{variant}");
        let wanted = wanted.trim_end_matches('/');
        let ours = place.layerfs(&["inspect", "--image", "--platform", wanted, layout.to_str().unwrap()]);
        let author = |text: &str| -> serde_json::Value { serde_json::from_str(text).unwrap() };
        match theirs.code {
            0 => assert_eq!(
                author(ours.ok())[0]["Author"],
                author(theirs.ok())["author"],
                "{wanted} of {offered:?}"
            ),
            _ => assert!(ours.code == 125 && ours.err.contains("no image for"), "{theirs:#?} {ours:#?}"),
        }
    }
}
