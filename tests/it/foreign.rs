//! Uppers pass between layerfs, kernel overlayfs and fuse-overlayfs: what one wrote, the others show.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::*;

/// Who stacks the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    /// Kernel overlayfs as it is most correct.
    Kernel,
    /// The same, copying no content when only attributes change.
    KernelMetacopy,
    /// Kernel overlayfs as everybody can mount it in a user namespace.
    KernelUser,
    FuseOverlayfs,
}

/// Layers as directories, and an upper that layerfs can have too.
struct Stack {
    place: Place,
    /// Topmost first, separated by colons.
    lower: String,
    /// What layerfs mounts for the same layers.
    image: PathBuf,
}

impl Stack {
    /// The layers of a test image.
    fn of_image(name: &str) -> Stack {
        let place = Place::new();
        let layers = place.path("layers");
        let mut unpack = Command::new("python3");
        unpack.arg(support_file("overlay-layers.py")).arg(image(name).join("layers")).arg(&layers);
        finish(&mut unpack).ok();
        let mut lower: Vec<_> =
            fs::read_dir(&layers).unwrap().map(|entry| entry.unwrap().path().display().to_string()).collect();
        lower.sort_unstable_by(|a, b| b.cmp(a));
        Stack { place, lower: lower.join(":"), image: image(name).join("docker.tar") }
    }

    /// One layer: a directory that `script` fills.
    fn of_directory(script: &str) -> Stack {
        let place = Place::new();
        let layer = place.path("layer");
        shell(&format!("mkdir \"$1\" && cd \"$1\"\n{script}"), &[&layer]).ok();
        Stack { lower: layer.display().to_string(), image: layer, place }
    }

    fn changes(&self) -> PathBuf {
        self.place.path("changes")
    }

    fn mnt(&self) -> PathBuf {
        self.place.mnt()
    }

    /// Does something to the tree as the other shows it, and returns its listing.
    #[track_caller]
    fn in_other(&self, other: Other, script: &str) -> Done {
        let mount = match other {
            Other::Kernel => "mount -t overlay overlay -o $stack,index=on,redirect_dir=on,metacopy=off $mnt",
            Other::KernelMetacopy => {
                "mount -t overlay overlay -o $stack,index=on,redirect_dir=on,metacopy=on $mnt"
            }
            Other::KernelUser => "mount -t overlay overlay -o $stack,userxattr $mnt",
            Other::FuseOverlayfs => "fuse-overlayfs -o $stack $mnt",
        };
        let script = format!(
            r#"
            cd "$1"; tree=$2 changes=$3 lower=$4 out=$1/other.tree mnt=$1/mnt
            if [ ! -d changes ]; then
                mkdir -p changes/upper changes/work
                # The root shows the attributes of the upper directory.
                top=${{lower%%:*}}
                chown --reference "$top" changes/upper; chmod --reference "$top" changes/upper
                touch -r "$top" changes/upper
            fi
            stack=lowerdir=$lower,upperdir=changes/upper,workdir=changes/work
            {mount}
            trap "umount -l $mnt" EXIT
            (cd mnt
            {script}
            )
            python3 "$tree" list mnt >"$out"
            "#
        );
        // In a mount namespace of its own: one that begins elsewhere would keep a copy of the mount, and the upper in use.
        let mut command = Command::new("unshare");
        if other == Other::KernelUser && !is_root() {
            command.args(["--user", "--map-root-user", "--map-auto"]);
        }
        if other == Other::FuseOverlayfs && !is_root() {
            command = Command::new("env");
        } else {
            command.arg("--mount");
        }
        command.args(["bash", "-ec"]);
        command.arg(script).arg("bash").arg(self.place.path("")).arg(support_file("tree.py"));
        let done = finish(command.arg(support_file("changes.py")).arg(&self.lower));
        assert_eq!(done.code, 0, "{done:#?}");
        done
    }

    /// What `in_other` listed last.
    fn listed(&self) -> PathBuf {
        self.place.path("other.tree")
    }

    fn mount(&self) -> Mounted<'_> {
        self.place.mount(&["--owner", "image", "--upper", self.changes().to_str().unwrap()], &self.image)
    }

    /// What is still only in the layers, or in the link index, comes into the upper.
    fn complete(&self) {
        let mut command = self.place.command();
        finish(command.arg("complete").arg("--upper").arg(self.changes()).arg(&self.image)).ok();
    }

    fn layerfs_refuses(&self) -> String {
        let mut command = self.place.command();
        command.arg("mount").arg("--upper").arg(self.changes()).arg(&self.image).arg(self.mnt());
        let done = finish(&mut command);
        assert!(done.code != 0 && !is_mounted(&self.mnt()), "{done:#?}");
        done.err
    }
}

/// Times of changes are now, and that is not the same moment everywhere.
fn recent() -> String {
    (SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - 60).to_string()
}

fn change(dir: &Path) {
    finish(Command::new("python3").arg(support_file("changes.py")).arg(dir)).ok();
}

fn list(dir: &Path, out: &Path) {
    shell(r#"python3 "$1" list "$2" >"$3""#, &[&support_file("tree.py"), dir, out]).ok();
}

fn has(program: &str) -> bool {
    Command::new("which").arg(program).output().is_ok_and(|done| done.status.success())
}

/// Directories, links, whiteouts of everything, in one layer.
const LAYER: &str = r#"
    mkdir -p d/e/f gone/deep again/sub
    echo 1 >d/e/f/1; echo 2 >d/2; echo 3 >gone/deep/3; echo 4 >again/sub/4; echo plain >plain; echo del >del
    echo many >many1; ln many1 many2; ln many1 d/many3; ln many1 d/e/many4
    ln -s target soft1; ln soft1 d/soft2; mkfifo fifo1; ln fifo1 fifo2
    chmod 4711 plain; chmod 1777 d; touch -d @1000000000.123456789 d/2 d/e
"#;

const CHANGE: &str = r#"
    echo more >>many1; mv d/e moved || { cp -a d/e moved; rm -r d/e; }
    rm -r gone; mkdir gone; echo new >gone/new; rm -r again; echo file >again; rm del; mkdir del
    touch -h -d @5 d/soft2; rm d/2; chmod 600 plain; ln plain plain2; mkfifo d/fifo3; echo x >d/new; rm fifo1
"#;

/// What `CHANGE` does not touch.
const CHANGE_AGAIN: &str = r#"
    echo again >>moved/many4; mv moved d/back; rm many1; mv gone elsewhere; echo z >>d/new; rm plain; rmdir del
"#;

/// Directories of the layer are renamed, which only the kernel follows, and only as root.
const RENAME: &str = "mv d renamed; mv renamed/back renamed/back2; rm renamed/many3; mv again d; mkdir again";

/// Whether a link count counts names of lower layers that are hidden is others' own affair, as are the links that
/// they break.
const LOOSE: [&str; 2] = ["--ignore", "nlink"];

fn passes_on(stack: &Stack, other: Other, scripts: [&str; 2], relaxed: &[&str]) {
    let since = recent();
    let relaxed = [relaxed, &["--recent", &since]].concat();
    stack.in_other(other, scripts[0]);
    // What it still shows when it has forgotten what it did.
    stack.in_other(other, "true");
    let mounted = stack.mount();
    assert_same_tree(&format!("written by {other:?}"), &relaxed, &stack.listed(), &stack.mnt());
    shell(&format!("cd \"$1\"\n{}", scripts[1]), &[&stack.mnt()]).ok();
    let ours = stack.place.path("ours.tree");
    list(&stack.mnt(), &ours);
    mounted.unmount();
    let mounted = stack.mount();
    assert_same_tree("mounted again", &relaxed, &ours, &stack.mnt());
    mounted.unmount();
    stack.complete();
    stack.in_other(other, "true");
    assert_same_tree(&format!("A by layerfs, B shown by {other:?}"), &relaxed, &ours, &stack.listed());
    let mounted = stack.mount();
    assert_same_tree("back", &relaxed, &ours, &stack.mnt());
    mounted.unmount();
}

#[test]
fn kernel_overlayfs_and_back() {
    needs_mount!();
    if !is_root() {
        skip!("only root can mount overlayfs with every feature");
    }
    let again = format!("{CHANGE_AGAIN}\n{RENAME}");
    passes_on(&Stack::of_directory(LAYER), Other::Kernel, [CHANGE, &again], &[]);
}

/// The kernel copies only what is changed, the attributes: of names alone, moved, linked and with capabilities.
const CHANGE_ATTRIBUTES: &str = r#"
    chmod 600 plain d/2 gone/deep/3; mv d/2 two; chown 3:4 many1; mv many1 d/moved; mv gone/deep renamed
    chown 5:6 pair1; rm pair1
    chmod 4755 again/sub/4; ln again/sub/4 d/four; mv again/sub/4 d/e/four; chmod 755 big; mv d/e/f/1 d/e/one
    touch -d @7 d/e/one
"#;

#[test]
fn attributes_without_content_of_kernel_overlayfs() {
    needs_mount!();
    if !is_root() {
        skip!("only root can mount overlayfs with every feature");
    }
    let layer = format!(
        "{LAYER}\nhead -c 3000000 /dev/urandom >big; truncate -s 5M big; setcap cap_net_raw+ep big; rm fifo2
        echo pair >pair1; ln pair1 d/pair2"
    );
    let stack = Stack::of_directory(&layer);
    let since = recent();
    stack.in_other(Other::KernelMetacopy, CHANGE_ATTRIBUTES);
    stack.in_other(Other::KernelMetacopy, "true");
    let marked = r#"getfattr -R -h -d -m '^trusted.overlay.metacopy$' "$1/upper" | grep -c metacopy || :"#;
    // touch(1) opens for writing, so that file is whole.
    assert_eq!(shell(marked, &[&stack.changes()]).ok().trim(), "7");
    for _ in 0..2 {
        let mounted = stack.mount();
        assert_same_tree("written by the kernel", &["--recent", &since], &stack.listed(), &stack.mnt());
        mounted.unmount();
        assert_eq!(shell(marked, &[&stack.changes()]).ok().trim(), "0");
    }
}

#[test]
fn content_that_the_layers_do_not_have() {
    needs_mount!();
    if !is_root() {
        skip!("only root can mount overlayfs with every feature");
    }
    let stack = Stack::of_directory("echo 12345 >file; mkdir dir");
    stack.in_other(Other::KernelMetacopy, "chmod 600 file; mv file dir/moved");
    for change in ["mv \"$1/file\" \"$1/other\"", "mkdir \"$1/file\"", "rmdir \"$1/file\"; echo >\"$1/file\""]
    {
        shell(change, &[&stack.image]).ok();
        let refused = stack.layerfs_refuses();
        assert!(refused.contains("upper/dir/moved: its content was not copied"), "{refused}");
    }
    shell("mv \"$1/other\" \"$1/file\"", &[&stack.image]).ok();
    let mounted = stack.mount();
    assert_eq!(fs::read(stack.mnt().join("dir/moved")).unwrap(), b"12345\n");
    mounted.unmount();
}

#[test]
fn fuse_overlayfs_and_back() {
    needs_mount!();
    if !has("fuse-overlayfs") {
        skip!("must run: no fuse-overlayfs");
    }
    // It breaks hard links of the layers, and mixes up their names.
    let layer = format!("{LAYER}\nrm many2 d/many3 d/e/many4 d/soft2 fifo2");
    let change = CHANGE.replace("d/soft2", "soft1");
    let again = CHANGE_AGAIN.replace("moved/many4; ", "moved/f/1; ");
    passes_on(&Stack::of_directory(&layer), Other::FuseOverlayfs, [&change, &again], &[]);
}

#[test]
fn an_image_in_kernel_overlayfs() {
    needs_mount!();
    if !is_root() {
        skip!("only root can mount overlayfs with every feature");
    }
    let since = recent();
    let relaxed = [&LOOSE[..], &["--recent", &since]].concat();
    let stack = Stack::of_image("tiny");
    let mounted = stack.mount();
    change(&stack.mnt());
    let ours = stack.place.path("ours.tree");
    list(&stack.mnt(), &ours);
    mounted.unmount();
    stack.complete();
    stack.in_other(Other::Kernel, "true");
    assert_same_tree("A by layerfs, B shown by the kernel", &relaxed, &ours, &stack.listed());

    let stack = Stack::of_image("tiny");
    stack.in_other(Other::Kernel, "python3 $changes .");
    // A tar has no file handles, by which the kernel knows the file that some names still lead to.
    let refused = stack.layerfs_refuses();
    assert!(refused.contains("changes/work/index/00fb") && refused.contains("chown -h"), "{refused}");
    stack.in_other(Other::Kernel, "find . ! -type d -links +1 -exec chown -h --reference={} {} ';'");
    let mounted = stack.mount();
    assert_same_tree("written by the kernel", &relaxed, &stack.listed(), &stack.mnt());
    mounted.unmount();
}

/// Kernel overlayfs and layerfs in turn, all in one user namespace: what is there is its root's.
const IN_NAMESPACE: &str = r#"
    layerfs=$1 tree=$2 layer=$3
    cd "$4"
    kernel() { mount -t overlay overlay -o "userxattr,lowerdir=$layer,upperdir=changes/upper,workdir=changes/work" mnt; }
    layerfs() { "$layerfs" mount -q --owner image --upper changes "$layer" mnt; }
    list() { python3 "$tree" list mnt >"$1"; }
    gone() { "$layerfs" umount mnt; }
    same() { python3 "$tree" diff --ignore nlink "$1" "$2"; }
    mkdir -p changes/upper changes/work
    touch -r "$layer" changes/upper
    kernel; (cd mnt; eval "$5"; chown 3:4 d/fifo3 d/new; touch d/.wh.user); umount mnt
    kernel; list by-kernel; umount mnt
    layerfs; list mnt-1; gone; same by-kernel mnt-1
    layerfs; (cd mnt; eval "$6"; chown 5:6 d/new; ln -s x soft-new; rm d/.wh.user; touch .wh.mine; eval "$7"); list mnt-2; gone
    layerfs; list mnt-3; gone; same mnt-2 mnt-3
    "$layerfs" complete --upper changes "$layer"
    kernel; list back; umount mnt; same mnt-2 back
"#;

/// Whiteouts that are files with a mark, in directories that are marked to have some and in others: what the kernel finds
/// under each name, and what it lists. In a directory without the mark it lists the name of a whiteout that it then does
/// not find, so only what is found can be compared there.
const MARKED_FILES: &str = r#"
cd "$2"; mkdir kernel
for space in trusted user; do
  rm -rf low mid && mkdir -p {low,mid}/{plain,marked}
  for dir in plain marked .; do
    for name in gone empty full; do echo low >low/$dir/$name; done
    : >mid/$dir/gone; : >mid/$dir/empty; echo full >mid/$dir/full
    setfattr -n $space.overlay.whiteout -v y mid/$dir/gone; setfattr -n $space.overlay.whiteout -v y mid/$dir/full
  done
  setfattr -n $space.overlay.opaque -v x mid/marked; setfattr -n $space.overlay.opaque -v x mid
  look() { for file in $1/{plain,marked,.}/{gone,empty,full}; do stat -c '%n %s' $file 2>/dev/null || echo "$file -"; done; ls $1/marked $1; }
  userxattr=; [ $space = trusted ] || userxattr=,userxattr
  mount -t overlay -o lowerdir=mid:low$userxattr overlay kernel; (cd kernel; look .) >theirs; umount kernel
  timeout 20 "$1" -o lowerdir=mid:low mnt; (cd mnt; look .) >ours; umount mnt
  grep -q '^./marked/gone -' theirs; grep -q '^./plain/gone -' theirs; cmp theirs ours
done
"#;

#[test]
fn whiteouts_that_are_marked_files() {
    needs_mount!();
    if !is_root() {
        skip!("kernel overlayfs with trusted marks is root's");
    }
    let place = Place::new();
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "--propagation", "private", "bash", "-exc", MARKED_FILES, "bash"]);
    let done = finish(command.arg(layerfs_path()).arg(place.path("")));
    assert_eq!(done.code, 0, "{done:#?}");
    place.nothing_left();
}

#[test]
fn kernel_overlayfs_in_a_user_namespace() {
    needs_mount!();
    if !has_id_ranges() {
        skip!("no subordinate ids");
    }
    let stack = Stack::of_directory(LAYER);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--map-auto", "--mount", "bash", "-ec", IN_NAMESPACE, "bash"]);
    command.arg(layerfs_path()).arg(support_file("tree.py")).arg(&stack.image).arg(stack.place.path(""));
    command.args([CHANGE, CHANGE_AGAIN, RENAME]).env("LAYERFS_ROOT", stack.place.store());
    let done = finish(&mut command);
    assert_eq!(done.code, 0, "{done:#?}");
    stack.place.nothing_left();
}

#[test]
fn an_upper_has_one_mount_whatever_it_is_called() {
    needs_mount!();
    let stack = Stack::of_directory(LAYER);
    let mounted = stack.mount();
    // Another path, and scratch space of its own; then the same scratch space for another upper.
    for (shared, alias) in [("upper", "alias-1"), ("work", "alias-2")] {
        let alias = stack.place.path(alias);
        fs::create_dir(&alias).unwrap();
        std::os::unix::fs::symlink(stack.changes().join(shared), alias.join(shared)).unwrap();
        let other = stack.place.path("other");
        fs::create_dir_all(&other).unwrap();
        let mut command = Command::new(if is_root() { "unshare" } else { "env" });
        if is_root() {
            command.arg("--mount");
        }
        command.arg(layerfs_path()).args(["mount", "--upper"]).args([&alias, &stack.image, &other]);
        let done = finish(command.env("LAYERFS_ROOT", stack.place.store()));
        assert!(done.code != 0 && done.err.contains("in use by another mount"), "{done:#?}");
    }
    mounted.unmount();
}

#[test]
fn marks_that_cannot_be_read_are_not_passed_over() {
    needs_mount!();
    if !is_root() {
        skip!("only root writes marks that others cannot read");
    }
    let stack = Stack::of_directory(LAYER);
    let mounted = stack.mount();
    shell("cd \"$1\" && mv d moved && rm -r gone && mkdir gone", &[&stack.mnt()]).ok();
    mounted.unmount();
    // Nobody's, who can read and write everything but the marks.
    let script = r#"
        chmod 755 "$2"; chown -R 65534:65534 "$2"
        cd /; setpriv --reuid 65534 --regid 65534 --clear-groups env LAYERFS_ROOT="$2/store" "$1" mount --upper "$2/changes" "$2/layer" "$2/mnt"
    "#;
    let mut command = Command::new("bash");
    let done = finish(command.args(["-ec", script, "bash"]).arg(layerfs_path()).arg(stack.place.path("")));
    assert!(done.code != 0 && done.err.contains("only root can read: mount it as root"), "{done:#?}");
    assert!(!is_mounted(&stack.mnt()));
}
