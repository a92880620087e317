"""What starts containers: layerfs and its peers, each with a store of its own, on the same small tree.

An engine says what to run, as the user of the measurement; `{}` in that is another number in each of several at once.
Those that keep containers also start them in the background, and end all of them.
"""

import contextlib
import glob
import os
import re
import signal
import time

import starting
from comparing import peers, starts
from comparing.starts import BUBBLEWRAP, CRUN, PODMAN
from comparing.systems import LAYERFS
from measuring import PODMAN_PLACE, Failed

IDLE = ["sleep", "100000"]
# It ends at once when it is asked to.
WILLING = ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"]
TERM_BIT = 1 << (signal.SIGTERM - 1)
# Of what takes no time, unless it hangs.
TRIES, TRY_SECONDS = 1000, 0.01


class Engine:
    """Whatever starts a program on the tree."""

    env = {}

    def __init__(self, runner, title):
        self.runner, self.title = runner, title

    def close(self):
        """Ends what it started in the background."""


class Bubblewrap(Engine):
    """bubblewrap: namespaces around the unpacked tree."""

    def __init__(self, runner, tree):
        super().__init__(runner, BUBBLEWRAP)
        self.start = starts.bubblewrap(runner, tree)


class Crun(Engine):
    """crun on bundles with the unpacked tree."""

    def __init__(self, runner, tree):
        super().__init__(runner, CRUN)
        self.start = [*starts.CRUN_COMMAND, "run", "--bundle", starts.bundle(runner, tree, "true"), "layerfs-{}"]
        self.idle = starts.bundle(runner, tree, *IDLE)
        self.running = []

    def begin(self, _):
        name = f"layerfs-idle-{len(self.running)}"
        self.running.append(name)
        self.runner.run([*starts.CRUN_COMMAND, "run", "--detach", "--bundle", self.idle, name])
        return name

    def inside(self, name):
        return [*starts.CRUN_COMMAND, "exec", name, "true"]

    def close(self):
        for name in self.running:
            with contextlib.suppress(Failed):
                self.runner.run([*starts.CRUN_COMMAND, "delete", "--force", name])
        self.running = []


class Keeper(Engine):
    """An engine that knows its containers: podman, and what has its commands."""

    def call(self, *arguments):
        return self.runner.run(self.command(*arguments), **self.env)

    def inside(self, container):
        return self.command("exec", container, "true")

    def begin(self, command):
        return self.call("run", "-d", *self.options, self.image, *command).strip()

    def pid(self, container):
        return int(self.call("inspect", "--format", "{{.State.Pid}}", container))

    def servers(self):
        """The processes that are there for its containers, but are not in them."""
        return [int(path.split("/")[2]) for path in glob.glob("/proc/[0-9]*") if self.serves(path)]

    def close(self):
        for choice, command in ((["-q"], ["stop", "-t", "0"]), (["-aq"], ["rm", "-f"])):
            containers = self.call("ps", *choice).split()
            if containers:
                self.call(*command, *containers)


class Podman(Keeper):
    """podman with crun and fuse-overlayfs, on the tree in its own storage."""

    options = ["--pull=never", *starting.CREATE_OPTIONS]

    def __init__(self, runner, layer):
        super().__init__(runner, PODMAN)
        self.place = runner.fresh(PODMAN_PLACE)
        self.engine = starting.Podman(runner, None, mount_program=peers.found("fuse-overlayfs"))
        self.image = self.call("import", "-q", layer).split()[-1]
        self.engine.known = self.place, self.image
        self.start = self.on(self.image)

    def command(self, *arguments):
        return self.engine.command(self.place, *arguments)

    def on(self, image, *options):
        return self.command("run", "--rm", *self.options, *options, image, "true")

    def load(self, image):
        """Has an image of scripts/images in its storage, and gives its name there."""
        other = starting.Podman(self.runner, f"{image}/oci", mount_program=self.engine.mount_program)
        other.prepare()
        return other.load(self.place)

    def serves(self, process):
        return self.place in text(f"{process}/cmdline")


class Layerfs(Keeper):
    """layerfs, on the image as it lies there."""

    options = []

    def __init__(self, runner, program, image):
        super().__init__(runner, LAYERFS)
        self.program, self.image = program, f"{image}/docker.tar"
        self.env = {"LAYERFS_ROOT": runner.fresh("store")}
        self.start, self.start_of_layout = self.on(self.image), self.on(f"{image}/oci")

    def command(self, *arguments):
        return [self.program, *arguments]

    def on(self, image, *options):
        return self.command("run", "--rm", *options, image, "true")

    def load(self, image):
        return f"{image}/docker.tar"

    def serves(self, process):
        with contextlib.suppress(OSError):
            return os.readlink(f"{process}/exe") == self.program
        return False


def text(path):
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
    return ""


def wait_for(what, true):
    for _ in range(TRIES):
        if true():
            return
        time.sleep(TRY_SECONDS)
    raise Failed(f"waited in vain for {what}")


def is_willing(pid):
    """Whether the program has come to where it handles SIGTERM."""
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", text(f"/proc/{pid}/status"), re.MULTILINE)
    return caught is not None and int(caught[1], 16) & TERM_BIT != 0
