//! Layers that have a table of contents of their own, written by podman's libraries and by the stargz snapshotter's.

use super::*;

/// A registry with a layout as `tables:1`, and a place to mount it.
struct Tables {
    place: Place,
    name: String,
    /// Ends with the test.
    _registry: Registry,
}

impl Tables {
    fn of(program: &Path, layout: impl FnOnce(&Place) -> PathBuf) -> Self {
        let place = Place::new();
        let registry = Registry::start(program, &place);
        let name = format!("{}/tables:1", registry.host);
        let copy =
            "skopeo copy -q --insecure-policy --dest-tls-verify=false \"oci:$1:latest\" \"docker://$2\"";
        shell(copy, &[&layout(&place), Path::new(&name)]).ok();
        Self { place, name, _registry: registry }
    }

    #[track_caller]
    fn mount(&self, options: &[&str]) {
        let mut command = self.place.command();
        command.args(["mount", "--rm", "--lazy", "--tls-verify=false"]).args(options);
        let done = finish(command.arg(&self.name).arg(self.place.mnt()));
        assert_eq!((done.code, done.err.as_str()), (0, ""), "{done:#?}");
    }

    fn unmount(&self) {
        self.place.layerfs(&[OsStr::new("umount"), self.place.mnt().as_os_str()]).ok();
        assert!(eventually(|| fetcher(&self.place).is_none()), "it still fetches");
    }

    fn is_whole(&self) -> bool {
        self.place.layerfs(&["image", "exists", &self.name]).code == 0
    }
}

#[test]
fn podmans() {
    let program = needs_registry!();
    let mut files = PathBuf::new();
    // In two steps: upon its way to a registry skopeo would send what it compressed otherwise before.
    let chunked = "cd \"$1\"; skopeo copy -q --insecure-policy --dest-compress --dest-compress-format zstd:chunked \
                   \"oci:$2:latest\" oci:chunked:latest";
    let all = Tables::of(&program, |place| {
        let (layout, made) = far_image(place);
        files = made;
        shell(chunked, &[&place.path(""), &layout]).ok();
        place.path("chunked")
    });
    all.mount(&["--background", "off"]);
    assert_reads(&all.place.mnt(), &files, "lower/3");
    assert!(!all.is_whole(), "it is not all here");
    (0..8).for_each(|number| assert_reads(&all.place.mnt(), &files, &format!("upper/{number}")));
    all.unmount();
}

#[test]
fn the_stargz_snapshotters() {
    let program = needs_registry!();
    for form in ["estargz", "zstd-chunked"] {
        if !image(form).join("stamp").exists() {
            skip!("must run: no {form} image: run scripts/lazy-images");
        }
        let all = Tables::of(&program, |_| layout_of(form));
        all.mount(&[owner(), &["--background", "off"]].concat());
        let (small, digest) = small_file(form);
        assert_eq!(sha256(&all.place.mnt().join(&small)), digest, "{form}: {small}");
        assert!(!all.is_whole(), "{form}: it is not all here");
        all.unmount();
        // Who reads while the rest comes, and who reads all of it when it is here.
        all.mount(&[owner(), &["--background", "now"]].concat());
        assert_whole_tree(&format!("{form}, as it is fetched"), form, &all.place.mnt());
        assert!(eventually(|| all.is_whole()), "{form}: it does not become whole");
        all.unmount();
        all.place.layerfs(&["store", "check"]).ok();
        let mut command = all.place.command();
        finish(command.args(["mount", "--rm"]).args(owner()).arg(&all.name).arg(all.place.mnt())).ok();
        assert_whole_tree(&format!("{form}, as an ordinary image"), form, &all.place.mnt());
        all.unmount();
    }
}
