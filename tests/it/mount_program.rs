//! layerfs in the place of fuse-overlayfs: its grammar, and real container engines that use it as their mount program.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::*;

/// What engines and mount.fuse3 call, and what must come of it.
const GRAMMAR: &str = r#"
cd "$2"; layerfs=$PWD/program; ln -s "$1" program
export LAYERFS_ROOT=$2/store
mkdir -p 'low:er,1/d' low2/d 'up,per' work mnt
echo one >'low:er,1/a'; touch 'low:er,1/d/.wh.gone'
echo two >low2/b; echo gone >low2/d/gone; ln low2/b low2/d/c

gone() { for i in $(seq 1200); do pgrep -f "^$layerfs " >/dev/null || return 0; sleep 0.05; done; return 1; }
unmounted() { for i in $(seq 1200); do mountpoint -q mnt || return 0; sleep 0.05; done; return 1; }

# Escapes, empty options, what means nothing, a warning; ready when it returns; the caller's pipe is closed.
said=$(timeout 60 "$layerfs" -o 'lowerdir=low\:er\,1:low2,upperdir=up\,per,workdir=work,,private,context="u:r:t:s0:c1,c2",frob' mnt 2>&1)
[ "$said" = 'layerfs: unknown option context="u:r:t:s0:c1,c2": ignored
layerfs: unknown option frob: ignored' ]
findmnt -n -o FSTYPE,SOURCE mnt | grep -q '^fuse.layerfs *layerfs$'
[ "$(cat mnt/a mnt/b | tr '\n' ' ')" = 'one two ' ]; [ "$(ls mnt/d)" = c ]
if touch mnt/.wh.b 2>/dev/null; then exit 1; fi
echo more >>mnt/b; mv mnt/a mnt/d/a; rm mnt/d/c; mkdir mnt/new
[ "$(cat up,per/b)" = "$(printf 'two\nmore')" ]
fusermount3 -u mnt; gone; test -f work/log

# Read only; several -o, glued; a source first; SIGTERM.
timeout 60 "$layerfs" overlay mnt -orw -o 'lowerdir=up\,per:low\:er\,1:low2' -o writeback=0,dev,suid
[ "$(findmnt -n -o SOURCE mnt)" = overlay ]
[ "$(cat mnt/d/a)" = one ]; test ! -e mnt/a; test ! -e mnt/d/c; test -d mnt/new; grep -q more mnt/b
if touch mnt/new/x 2>said; then exit 1; fi; grep -qi 'read-only' said
kill -TERM "$(pgrep -f "^$layerfs overlay mnt")"; unmounted; gone

# The mount point inside of a layer, and layers below the mount point.
mkdir -p all/x all/mnt/inner; echo y >all/x/y; echo z >all/mnt/inner/z
timeout 60 "$layerfs" -o lowerdir=all all/mnt; [ "$(timeout 60 find all/mnt -name z)" = all/mnt/mnt/inner/z ]
fusermount3 -u all/mnt; gone
timeout 60 "$layerfs" -o lowerdir=all/mnt/inner:all/x all; [ "$(timeout 60 ls all | tr '\n' ' ')" = 'y z ' ]
fusermount3 -u all; gone

# As many layers as there may be.
{ set +x; } 2>/dev/null; lowers=; for i in $(seq 500); do mkdir -p many/$i; echo $i >many/$i/$i; lowers=$lowers:$2/many/$i; done
timeout 60 "$layerfs" -o "lowerdir=${lowers#:}" mnt; set -x; [ "$(ls mnt | wc -l)" = 500 ]; [ "$(cat mnt/250)" = 250 ]
fusermount3 -u mnt; gone

# An image brings all of its layers; an index its blob; a blob its index.
timeout 60 "$layerfs" -o "lowerdir=low2:oci\\:$3" mnt
test -s mnt/etc/passwd; test -f mnt/b; fusermount3 -u mnt; gone
index=$(ls store/index/*.lfx | head -n 1); blob=$(ls "$3"/blobs/sha256/"$(basename "$index" .lfx)")
ls "$3"/blobs/sha256 >/dev/null; cp "$index" layer.lfx; cp "$blob" layer
for lower in "$blob" layer.lfx; do
  timeout 60 "$layerfs" -o "lowerdir=$lower:low2" mnt; test -f mnt/b; fusermount3 -u mnt; gone
done

# Volatile: nothing is flushed, others are told, and the next mount knows that nothing can have been lost.
mkdir vu vw
timeout 60 "$layerfs" -o lowerdir=low2,upperdir=vu,workdir=vw,volatile mnt
echo v >mnt/v; timeout 10 sync mnt/v; test -d vw/work/incompat/volatile; fusermount3 -u mnt; gone
timeout 60 "$layerfs" -o lowerdir=low2,upperdir=vu,workdir=vw mnt
[ "$(cat mnt/v)" = v ]; test ! -e vw/work; fusermount3 -u mnt; gone

# Owners through a mapping, in both directions; recorded ones.
me=$(id -u); mkdir ou ow ru rw
timeout 60 "$layerfs" -o "lowerdir=low2,upperdir=ou,workdir=ow,uidmapping=$me:70:1:70:$me:1" mnt
[ "$(stat -c %u mnt/b)" = 70 ]; fusermount3 -u mnt; gone
timeout 60 "$layerfs" -o "lowerdir=low2,upperdir=ou,workdir=ow,uidmapping=$me:70:1,squash_to_uid=$me" mnt
[ "$(stat -c %u mnt/b)" = "$me" ]; fusermount3 -u mnt; gone
timeout 60 "$layerfs" -o lowerdir=low2,upperdir=ru,workdir=rw,xattr_permissions=2 mnt
touch mnt/r; chmod 4711 mnt/r; [ "$(stat -c %a mnt/r)" = 4711 ]; fusermount3 -u mnt; gone
getfattr --only-values -n user.containers.override_stat ru/r | grep -q ":4711:file"

# What cannot be.
for options in lowerdir=nothing-here lowerdir=low2::low2 upperdir=ou,workdir=ow lowerdir=low2,upperdir=ou; do
  if timeout 60 "$layerfs" -o "$options" mnt 2>said; then exit 1; fi; test -s said
done
if mountpoint -q mnt; then exit 1; fi
ln -s "$1" fuse-overlayfs; ./fuse-overlayfs --version | grep -q '^layerfs '; "$layerfs" -V | grep -q '^layerfs '
"#;

#[test]
fn grammar_of_mount_programs() {
    needs_mount!();
    let place = Place::new();
    let mut command = Command::new("bash");
    command.args(["-exc", GRAMMAR, "bash"]).arg(layerfs_path());
    let done = finish(command.arg(place.path("")).arg(image("tiny").join("oci")));
    assert_eq!(done.code, 0, "{done:#?}");
    place.nothing_left();
}

/// Flags of the mount, and what the server itself has to do for them.
const FLAGS: &str = r#"
cd "$2"; layerfs=$PWD/program; ln -s "$1" program; export LAYERFS_ROOT=$2/store
mkdir low up work; touch -d 2001-01-01 low/a low/b; echo a >>low/a; touch -d 2001-01-01 low/a
gone() { fusermount3 -u mnt; for i in $(seq 1200); do pgrep -f "^$layerfs " >/dev/null || return 0; sleep 0.05; done; return 1; }
has() { for word in $(findmnt -n -o OPTIONS mnt | tr , ' '); do if [ "$word" = "$1" ]; then return 0; fi; done; return 1; }
overlay() { timeout 60 "$layerfs" -o lowerdir=low,upperdir=up,workdir=work,"$1" mnt; }
read_at() { cat mnt/a >/dev/null; stat -c %x mnt/a; }

overlay noexec,ro,nosuid,nodev; has ro; has noexec; has nosuid; has nodev; has noatime; gone
overlay rw; has rw; if has noexec; then exit 1; fi; has noatime; [[ $(read_at) = 2001-* ]]; gone
overlay relatime; has relatime; [[ $(read_at) = 20[2-9]* ]]; gone
overlay relatime,noatime; has noatime; [[ $(read_at) = 2001-* ]]; gone
overlay atime,nodiratime; [[ $(read_at) = 20[2-9]* ]]; [ "$(id -u)" != 0 ] || has nodiratime; gone
if [ "$(id -u)" = 0 ]; then overlay dev,suid; ! has nodev; ! has nosuid; gone; fi
overlay strictatime 2>said; grep -q "^layerfs: unknown option strictatime: ignored$" said; gone
for options in noatime,nodev,nosuid,noexec noatime,relatime,nodiratime; do
  timeout 60 "$layerfs" mount -q --rm -o "$options" "$3" mnt
  if [ "$options" = noatime,nodev,nosuid,noexec ]; then has noatime; has noexec; has nodev; has nosuid; else has relatime; fi
  gone
done
"#;

#[test]
fn flags_of_mounts() {
    needs_mount!();
    let place = Place::new();
    let mut command = Command::new("bash");
    command.args(["-exc", FLAGS, "bash"]).arg(layerfs_path());
    let done = finish(command.arg(place.path("")).arg(image("tiny").join("oci")));
    assert_eq!(done.code, 0, "{done:#?}");
    place.nothing_left();
}

/// Settings for engines that touch nothing of the host's.
const SETTINGS: &str = r#"
program=$1 place=$2 base=$3 tree=$4 PS4='+ $SECONDS s: '
mkdir -p "$place"/{graph,run,home,tmp,out} && chmod a+x "$place" "$place/.." && mkdir -m 700 "$place/xdg" && cd "$place"
cat >storage.conf <<END
[storage]
driver = "overlay"
graphroot = "$place/graph"
runroot = "$place/run"
rootless_storage_path = "$place/graph"
[storage.options.overlay]
$([ "$program" = kernel ] || echo "mount_program = \"$program\"")
END
cat >containers.conf <<END
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
tmp_dir = "$place/tmp"
[engine.runtimes]
crun = ["$place/crun"]
[containers]
cgroups = "disabled"
netns = "none"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
END
# crun refuses hosts with both versions of cgroups, although it is to leave them alone.
cat >crun <<'END'
#!/bin/sh
exec unshare -m sh -c 'for dir in $(sed -n "s/^cgroup2 \([^ ]*\) .*/\1/p" /proc/self/mounts); do
  [ "$dir" = /sys/fs/cgroup ] || mount -t tmpfs none "$dir"; done; exec /usr/bin/crun "$@"' crun "$@"
END
chmod 755 crun
unset LAYERFS_ROOT
export CONTAINERS_STORAGE_CONF=$place/storage.conf CONTAINERS_CONF=$place/containers.conf BUILDAH_ISOLATION=chroot
export HOME=$place/home XDG_RUNTIME_DIR=$place/xdg XDG_CONFIG_HOME=$place/home/.config XDG_DATA_HOME=$place/home/.local
inside() { if [ "$(id -u)" = 0 ]; then "$@"; else podman unshare "$@"; fi; }
cleanup() {
  cd "$place"
  podman rm -af >/dev/null 2>&1 || true
  inside sh -c 'grep " $1/" /proc/self/mounts | cut -d " " -f 2 | sort -r | xargs -r -n 1 umount -l; rm -rf graph run home' sh "$place" || true
  find . -name pause.pid -exec sh -c 'kill -9 "$(cat "$1")"' sh {} \; || true
}
trap cleanup EXIT
podman import -q -c CMD=/bin/sh "$base" base:1 >/dev/null
"#;

/// Builds, runs, commits and compares; what is seen goes to `out/`.
const ENGINES: &str = r#"
cat >Dockerfile <<'END'
FROM base:1
RUN mkdir -p /d/e/f && echo x >/d/e/f/g && echo one >/one && ln /one /uno && ln -s one /lone
RUN rm -r /d/e && echo two >/two && chown 5:6 /two && chmod 4755 /two && mv /uno /due && chmod 1777 /d
RUN mkdir /d/e && echo h >/d/e/h && chown -R 7:8 /one /d/e && rm /var/lib -r && mv /home/app /home/moved
END
podman build -q -t built:1 . >/dev/null
podman create -q --name worker built:1 sh -c 'mkfifo /fifo; echo three >/three; rm /two; mv /d /moved; chmod 700 /tmp; echo 1 >>/one' >/dev/null
podman start -a worker
podman diff worker | sort >out/diff
podman commit -q worker committed:1 >/dev/null
podman diff committed:1 | sort >out/diff-of-image
podman rm worker >/dev/null
podman run --rm --read-only committed:1 sh -c 'cat /one /due; touch /x 2>/dev/null || echo refused' >out/run
mount=$(inside podman image mount committed:1)
inside "$tree" list "$mount" >out/tree
inside podman image umount committed:1 >/dev/null

# Volumes with changes that do not reach the host.
mkdir 'vol:ume'; echo host >'vol:ume/a'; mkdir vol; echo host >vol/a
podman run --rm -v "$place/vol:/vol:O" base:1 sh -c 'echo inside >>/vol/a; rm -f /vol/none; ls /vol; cat /vol/a' >out/volume
container=$(buildah from base:1)
buildah run -v "$place/vol:/vol:O" "$container" sh -c 'echo inside >/vol/a; echo b >/vol/b; cat /vol/*' >>out/volume
buildah run "$container" sh -c 'echo built >/etc/built; rm /etc/passwd; ln /etc/built /etc/again'
buildah commit -q "$container" buildah:1 >/dev/null; buildah rm "$container" >/dev/null
podman run --rm buildah:1 sh -c 'cat /etc/again; stat -c %h /etc/built; ls /etc' >>out/volume
cat vol/a >>out/volume; ls vol >>out/volume

# Other owners: by mapping, and, where a map has gaps, by changing all of them in a layer of its own. Inside they look the
# same. With such maps fuse-overlayfs 1.10 hangs now and then, or cannot change the owner of everything.
look='id -u; touch /tmp/new; mkdir /tmp/dir; stat -c %u:%g:%a:%n /bin /bin/busybox /home/* /two /one /due /tmp/new /tmp/dir; chown 3:4 /tmp/new && stat -c %u:%g /tmp/new; cat /one'
podman run --rm built:1 sh -c "$look" >out/plain 2>&1
if [ "${program##*/}" = layerfs ] && [ "$(id -u)" != 0 ]; then
  podman run --rm --userns=keep-id built:1 sh -c "$look || true" >mapped 2>&1
  me=$(id -u) mine=$(id -u):$(id -g)
  sed "1s/.*/$me/; s#^0:0:\(.*:/tmp\)#$mine:\1#; s/^3:4\$/chown: .tmp.new: Operation not permitted/" out/plain >kept
  grep -n -v -x -f kept mapped && exit 1
  set -- 0:1:1000 1000:0:1
  podman run --rm --uidmap $1 --uidmap $2 --gidmap $1 --gidmap $2 built:1 sh -c "$look" >mapped 2>&1
  cmp out/plain mapped
  podman run --rm --uidmap 0:100:50 --uidmap 1000:7000:5 --gidmap 0:3:2000 built:1 sh -c "$look" >mapped 2>&1
  cmp out/plain mapped
fi
"#;

fn engines(program: &Path, place: &Place, name: &str) -> PathBuf {
    let script = format!("{SETTINGS}{ENGINES}");
    let mut command = Command::new("bash");
    command.args(["-exc", &script, "bash"]).arg(program).arg(place.path(name));
    command.arg(image("tiny").join("layers/0-base.tar")).arg(support_file("tree.py"));
    let done = finish(&mut command);
    assert_eq!(done.code, 0, "{}: {done:#?}", program.display());
    place.path(name).join("out")
}

#[test]
fn podman_and_buildah_see_what_the_kernels_overlay_shows() {
    same_as("kernel");
}

/// Takes minutes on a busy machine, all of them fuse-overlayfs's.
#[test]
#[ignore = "slow, and shows no more than the kernel's overlay does"]
fn podman_and_buildah_see_what_fuse_overlayfs_shows() {
    same_as("/usr/bin/fuse-overlayfs");
}

/// `judge`: another mount program, or `kernel`.
fn same_as(judge: &str) {
    needs_mount!();
    if !is_root() && !has_id_ranges() {
        skip!("podman needs subordinate ids");
    }
    let place = Place::new();
    let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().to_string();
    let ours = engines(Path::new(&layerfs_path()), &place, "layerfs");
    let theirs = engines(Path::new(judge), &place, "judge");
    let options = ["--ignore", "nlink", "--recent", &start];
    assert_same_tree("the committed image", &options, &theirs.join("tree"), &ours.join("tree"));
    for entry in std::fs::read_dir(&theirs).unwrap() {
        let name = entry.unwrap().file_name();
        if name != "tree" {
            let read = |dir: &Path| std::fs::read_to_string(dir.join(&name)).unwrap();
            assert_eq!(read(&ours), read(&theirs), "{}: ours, theirs", name.display());
        }
    }
    place.nothing_left();
}
