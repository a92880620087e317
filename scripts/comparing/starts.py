"""How long a program takes to start: layerfs on the image, others on the unpacked tree or on what they load."""

import json

import starting
from comparing.cases import Case
from comparing.figures import Row
from comparing.systems import LAYERFS
from measuring import PODMAN_PLACE

BUBBLEWRAP, CRUN, PODMAN = "bubblewrap", "crun", "podman"
CRUN_COMMAND = ["crun", "--cgroup-manager", "disabled"]
# Runs whose mean is one figure, those of podman among them.
RUNS = 5


class Starter:
    """Something that starts programs. `command` is made when it is needed first, and `env` goes with it."""

    version = None

    def __init__(self, runner, title, command):
        self.runner, self.title, self.make = runner, title, command
        self.made, self.env = None, {}

    def command(self, tree):
        self.made = self.made or self.make(self.runner, tree)
        return self.made


class LayerfsStarter(Starter):
    """`layerfs run`, with a store of its own."""

    def __init__(self, runner, program, image):
        super().__init__(runner, LAYERFS, lambda *_: [program, "run", "--rm", f"{image}/docker.tar", "true"])
        self.env = {"LAYERFS_ROOT": runner.fresh("store")}


def bubblewrap(_, tree):
    return ["bwrap", "--unshare-all", "--ro-bind", tree, "/", "--proc", "/proc", "--dev", "/dev", "true"]


def crun(runner, tree):
    return [*CRUN_COMMAND, "run", "--bundle", bundle(runner, tree, "true"), "layerfs-compare"]


def bundle(runner, tree, *arguments):
    """A directory from which crun starts a program on the tree."""
    place = runner.fresh("crun")
    rootless = ["--rootless"] if runner.user.pw_uid != 0 else []
    runner.run(["env", "-C", place, "crun", "spec", *rootless])
    with open(f"{place}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    config["root"] = {"path": tree, "readonly": True}
    config["process"].update(terminal=False, args=arguments)
    # Its default limits may be above ours.
    config["process"].pop("rlimits", None)
    with open(f"{place}/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    return place


def podman(runner, tree):
    engine = starting.Podman(runner, None)
    return engine.command(runner.fresh(PODMAN_PLACE), "run", *starting.RUN_OPTIONS, "--rootfs", tree, "true")


class Known(Case):
    """`true`, on what was started before."""

    def fits(self, system):
        return isinstance(system, Starter)

    def measure(self, bench, system, subject):
        command = system.command(f"{subject.place}/{subject.lowers[0]}")
        text = bench.runner.run([bench.program, "--warm", "spawn", "/", str(RUNS), *command], **system.env)
        count, seconds = text.split()
        return [float(seconds) / int(count) * 1e3]


class NeverSeen(Case):
    """From an image that was never seen until the first output of a program on it."""

    subject_name = None

    def __init__(self, form, layerfs, podman_engine, ratios):
        super().__init__(Row(f"python3 until its first output, {form} never seen", "ms", ratios))
        self.layerfs, self.podman = layerfs, podman_engine

    def fits(self, system):
        return system.title in (LAYERFS, PODMAN) and isinstance(system, Starter)

    def measure(self, bench, system, _):
        if system.title == PODMAN:
            return [self.podman.new() * 1e3]
        return [self.layerfs.new(self.layerfs.start) * 1e3]
