"""What starts an image, or makes it usable, timed: layerfs, umoci and podman. Each has storage of its own."""

import hashlib
import json
import os
import subprocess
import sys
import time

from measuring import PODMAN_PLACE, Failed

PROGRAM = ["python3", "-c", "print(1)"]
# crun refuses to run while this is mounted beside the cgroups of version 1.
HYBRID_CGROUPS = "/sys/fs/cgroup/unified"
# How scripts/images adds the layers of odd files, according to the history in the config.
ADDED_BY_HAND = "umoci raw add-layer"
IN_NAMESPACE = "LAYERFS_MEASURE_IN_NAMESPACE"
# Of `podman run` and `podman create`. Its default limits may be above ours, and then even root may not be allowed to raise them.
LIMITS = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]
CREATE_OPTIONS = ["--network=none", "--cgroups=disabled", *LIMITS]
RUN_OPTIONS = ["--rm", *CREATE_OPTIONS]


class Layerfs:
    """`layerfs` on one form of the image."""

    def __init__(self, runner, binary, image):
        self.runner, self.binary, self.image = runner, binary, image
        self.known = None

    def mount(self, root):
        """Seconds until the mount can be used."""
        point = self.runner.fresh("mnt")
        start = time.monotonic()
        self.runner.run([self.binary, "mount", self.image, point], LAYERFS_ROOT=root)
        names = self.runner.run(["ls", point]).split()
        seconds = time.monotonic() - start
        self.runner.run([self.binary, "umount", point], LAYERFS_ROOT=root)
        os.rmdir(point)
        if "usr" not in names:
            raise Failed(f"{self.image}: no /usr in the mount")
        return seconds

    def start(self, root):
        """Seconds until a program on the image writes something."""
        start = time.monotonic()
        end = self.runner.until_output([self.binary, "run", "--rm", self.image, *PROGRAM], LAYERFS_ROOT=root)
        return end - start

    def new(self, what):
        root = self.runner.fresh("root")
        try:
            return what(root)
        finally:
            self.runner.remove(root)

    def again(self, what):
        if self.known is None:
            self.known = self.runner.fresh("root")
            self.mount(self.known)
        return what(self.known)

    def index_bytes(self):
        """The size of the indexes of all layers."""
        self.again(lambda root: 0)
        return sum(entry.stat().st_size for entry in os.scandir(f"{self.known}/index"))


class Umoci:
    """`umoci unpack`: what there is without a mount."""

    def __init__(self, runner, layout):
        self.runner, self.layout = runner, layout

    def unpack(self):
        parent = self.runner.fresh("umoci")
        rootless = [] if self.runner.user.pw_uid == 0 else ["--rootless"]
        bundle = f"{parent}/bundle"
        try:
            start = time.monotonic()
            self.runner.run(["umoci", "unpack", *rootless, "--image", f"{self.layout}:latest", bundle])
            self.runner.run(["ls", f"{bundle}/rootfs"])
            return time.monotonic() - start
        finally:
            self.runner.remove(parent)


class Podman:
    """`podman load` and `podman run`, with storage of its own, which it mounts with this program or as it likes."""

    def __init__(self, runner, layout, form="docker-archive", mount_program=None):
        self.runner, self.layout, self.form, self.mount_program = runner, layout, form, mount_program
        self.archive = self.known = None

    def prepare(self):
        """Makes the archive that podman gets: without the layers of odd files, some of which it refuses."""
        if self.archive is not None:
            return
        place = self.runner.fresh("plain")
        plain_layers(self.layout, f"{place}/oci")
        archive = f"{place}/image.tar"
        to = f"{self.form}:{archive}:layerfs-measure:latest"
        self.runner.run(["skopeo", "copy", "-q", "--insecure-policy", f"oci:{place}/oci:latest", to])
        self.archive = archive

    def command(self, place, *arguments):
        """Its arguments, for the storage at `place`."""
        storage = ["--root", f"{place}/graph", "--runroot", f"{place}/run", "--storage-driver", "overlay"]
        if self.runner.user.pw_uid != 0:
            # Some owners in the image are beyond any range of subordinate ids; without this it cannot be loaded at all.
            storage += ["--storage-opt", "overlay.ignore_chown_errors=true"]
        if self.mount_program is not None:
            storage += ["--storage-opt", f"overlay.mount_program={self.mount_program}"]
        engine = ["--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", "crun"]
        return ["podman", *storage, *engine, *arguments]

    def load(self, place):
        policy = f"{place}/policy.json"
        with open(policy, "w", encoding="utf-8") as file:
            file.write('{"default": [{"type": "insecureAcceptAnything"}]}')
        text = self.runner.run(self.command(place, "load", "-q", "--signature-policy", policy, "-i", self.archive))
        return text.split()[-1]

    def start(self, place, image):
        return self.runner.until_output(self.command(place, "run", *RUN_OPTIONS, image, *PROGRAM))

    def new(self):
        self.prepare()
        place = self.runner.fresh(PODMAN_PLACE)
        try:
            start = time.monotonic()
            return self.start(place, self.load(place)) - start
        finally:
            self.runner.remove(place)

    def again(self):
        if self.known is None:
            self.prepare()
            place = self.runner.fresh(PODMAN_PLACE)
            self.known = place, self.load(place)
            self.start(*self.known)
        start = time.monotonic()
        return self.start(*self.known) - start

    def backend(self):
        """What podman mounts with."""
        try:
            place, _ = self.known or (self.runner.fresh(PODMAN_PLACE), None)
            store = json.loads(self.runner.run(self.command(place, "info", "--format", "json")))["store"]
            program = store["graphOptions"].get("overlay.mount_program", {}).get("Executable")
            return program or f"kernel {store['graphDriverName']}"
        except (Failed, OSError, KeyError, ValueError):
            return "no podman"


def read_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def blob(layout, digest):
    return f"{layout}/blobs/{digest.replace(':', '/')}"


def manifest_of(layout):
    return read_json(blob(layout, read_json(f"{layout}/index.json")["manifests"][0]["digest"]))


def layers_of(layout):
    """The blobs of the layers, base first."""
    return [blob(layout, layer["digest"]) for layer in manifest_of(layout)["layers"]]


def plain_layers(layout, new):
    """Makes a layout of the same image without the layers that scripts/images adds by hand."""
    os.makedirs(f"{new}/blobs/sha256")
    manifest = manifest_of(layout)
    config = read_json(blob(layout, manifest["config"]["digest"]))
    config["history"] = [step for step in config["history"] if step["created_by"] != ADDED_BY_HAND]
    count = sum(not step.get("empty_layer") for step in config["history"])
    config["rootfs"]["diff_ids"] = config["rootfs"]["diff_ids"][:count]
    manifest["layers"] = manifest["layers"][:count]
    for layer in manifest["layers"]:
        os.symlink(blob(layout, layer["digest"]), blob(new, layer["digest"]))

    def put(document, **also):
        data = json.dumps(document).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        with open(blob(new, digest), "wb") as file:
            file.write(data)
        return {**also, "digest": digest, "size": len(data)}

    manifest["config"] = put(config, mediaType=manifest["config"]["mediaType"])
    entry = put(
        manifest,
        mediaType="application/vnd.oci.image.manifest.v1+json",
        annotations={"org.opencontainers.image.ref.name": "latest"},
    )
    for name, document in {
        "index.json": {"schemaVersion": 2, "manifests": [entry]},
        "oci-layout": {"imageLayoutVersion": "1.0.0"},
    }.items():
        with open(f"{new}/{name}", "w", encoding="utf-8") as file:
            json.dump(document, file)


def hide_hybrid_cgroups():
    """Starts this script again where podman's runtime does not see what it refuses."""
    if os.geteuid() != 0 or not os.path.ismount(HYBRID_CGROUPS):
        return
    if IN_NAMESPACE in os.environ:
        subprocess.run(["umount", HYBRID_CGROUPS], check=True)
        return
    os.environ[IN_NAMESPACE] = "1"
    again = [sys.executable, os.path.abspath(sys.argv[0]), *sys.argv[1:]]
    os.execvp("unshare", ["unshare", "-m", "--propagation", "private", *again])
