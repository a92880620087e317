//! Images as podman, buildah and skopeo write them: `tests/support/forms.sh`.

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
