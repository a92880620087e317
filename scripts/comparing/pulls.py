"""What scripts/compare-lazy and scripts/compare-pull share: a registry with an image like those of data science, a slow line
to it, and those who pull."""

import argparse
import atexit
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import starting
from measuring import HERE, PODMAN_PLACE, USER, Failed

TOOLS = os.environ.get("LAYERFS_TEST_TOOLS", "/var/cache/layerfs-test-tools")
REGISTRY = f"{TOOLS}/bin/docker-registry"
PROXY = f"{os.path.dirname(HERE)}/tests/support/slow_proxy.py"
NAME = "science:1"
# What is run on it, and what a user waits for.
PROGRAM = ["python3", "-c", "import pandas; print(pandas.__version__)"]
# Until somebody listens, or has ended.
TRIES, TRY_SECONDS, ENDING_SECONDS_MAX = 500, 0.02, 5
# The line writes down what it has counted ten times a second.
COUNTED_SECONDS = 0.3
INDEX_LINE = re.compile(r"^index (sha256:[0-9a-f]{64})$", re.MULTILINE)
# Of what a command said before it failed, the end is what tells why.
REASON_LENGTH_MAX = 240


def program(runner):
    """The program to measure, where the user can read it. It is not built here: what is measured is what was built."""
    path = os.environ.get("LAYERFS_BIN", f"{os.path.dirname(HERE)}/target/release/layerfs")
    if not os.access(path, os.X_OK):
        sys.exit(f"compare: no {path}: cargo build --release, or name another one with LAYERFS_BIN")
    return shutil.copy(path, f"{runner.work}/layerfs")


def science():
    """The OCI layout of the image; made, the first time, in some ten minutes."""
    made = subprocess.run([f"{HERE}/real-images", "science"], stdout=subprocess.PIPE, text=True, check=True)
    return f"{made.stdout.strip()}/oci"


def layers_bytes(layout):
    return sum(os.path.getsize(layer) for layer in starting.layers_of(layout))


def reason(error):
    return f"... {str(error)[-REASON_LENGTH_MAX:]}"


def who(runner):
    return "root" if runner.user.pw_uid == 0 else f"the ordinary user {runner.user.pw_name}"


def parse(about):
    """The options, which are the same for both."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=int(os.environ.get("RUNS", "3")), help="rounds (default: $RUNS, else 3)")
    parser.add_argument("--root", action="store_true", help="do all work as root")
    parser.add_argument(
        "--write", metavar="DIR", nargs="?", const=f"{os.path.dirname(HERE)}/docs", help="into lazy.md in it, too"
    )
    options = parser.parse_args()
    if options.n < 1:
        parser.error("at least one round is needed")
    if os.geteuid() != 0:
        parser.error(f"needs root, to work as {USER} and to make the image")
    return options


def stop_on_signals():
    """Ends all that was started, by what is registered for the end; another ^C does not disturb that."""

    def stop(*_):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        sys.exit(1)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


class Service:
    """A program that runs as long as this one."""

    def __init__(self, command, output, **options):
        # Not ended by the ^C that is meant for this one, but when this one is killed.
        command = ["setpriv", "--pdeathsig", "TERM", *command]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, start_new_session=True, **options
        )
        atexit.register(self.close)

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(ENDING_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Registry(Service):
    """docker-registry on this machine."""

    def __init__(self, runner):
        if not os.path.exists(REGISTRY):
            sys.exit(f"compare: no {REGISTRY}: scripts/install puts it there")
        with contextlib.closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        place = f"{runner.work}/registry"
        os.mkdir(place)
        config = f"{place}/config.yml"
        with open(config, "w", encoding="ascii") as file:
            file.write(
                "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
                f"storage: {{filesystem: {{rootdirectory: {place}/files}}}}\nhttp: {{addr: '127.0.0.1:{self.port}'}}\n"
            )
        with open(f"{place}/log", "wb") as log:
            env = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
            super().__init__([REGISTRY, "serve", config], log, stderr=log, env=env)
        for _ in range(TRIES):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(TRY_SECONDS)
        raise Failed("docker-registry does not listen")

    def name(self):
        return f"127.0.0.1:{self.port}/{NAME}"


def at_once():
    """What makes a program run whenever it has something to do, where that is allowed: a line does not wait for processors."""
    chrt = ["chrt", "--rr", "1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return chrt if subprocess.run([*chrt, "true"], check=False, **quiet).returncode == 0 else []


class Line(Service):
    """A slow line to a registry."""

    def __init__(self, runner, port, mbit, delay_ms):
        self.count = f"{runner.work}/count"
        options = ["--mbit", str(mbit), "--delay-ms", str(delay_ms), "--count", self.count]
        command = [*at_once(), sys.executable, PROXY, "0", str(port), *options]
        super().__init__(command, subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline() or 0)
        if self.port == 0:
            raise Failed(f"{PROXY} does not listen")

    def name(self):
        return f"127.0.0.1:{self.port}/{NAME}"

    def received(self):
        """The bytes that came over it from the registry."""
        time.sleep(COUNTED_SECONDS)
        with open(self.count, encoding="ascii") as file:
            words = file.read().split()
        return int(words[words.index("down") + 1])


class Layerfs:
    """layerfs, with a store of its own for each image that it gets."""

    def __init__(self, runner, binary):
        self.runner, self.binary = runner, binary

    @contextlib.contextmanager
    def store(self):
        root = self.runner.fresh("root")
        try:
            yield root
        finally:
            self.runner.remove(root)

    def run(self, root, *arguments):
        return self.runner.run([self.binary, *arguments], LAYERFS_ROOT=root)

    def first_output(self, root, *arguments):
        return self.runner.until_output([self.binary, *arguments, *PROGRAM], LAYERFS_ROOT=root)

    def pull(self, root, name):
        self.run(root, "pull", "--quiet", name)

    def push_with_index(self, layout, name):
        """Puts the image there with what was built of its layers, and gives the digest of that."""
        with self.store() as root:
            said = self.run(root, "push", "--with-index", layout, f"docker://{name}", "--tls-verify=false")
        found = INDEX_LINE.search(said)
        if found is None:
            raise Failed(f"layerfs push --with-index did not say which index it pushed: {said}")
        return found[1]


class Podman:
    """podman, with storage of its own for each image that it gets."""

    def __init__(self, runner):
        self.runner, self.engine = runner, starting.Podman(runner, None)

    @contextlib.contextmanager
    def storage(self):
        place = self.runner.fresh(PODMAN_PLACE)
        try:
            yield place
        finally:
            self.runner.remove(place)

    def pull(self, place, name):
        policy = f"{place}/policy.json"
        with open(policy, "w", encoding="ascii") as file:
            file.write('{"default": [{"type": "insecureAcceptAnything"}]}')
        options = ["--quiet", "--tls-verify=false", "--signature-policy", policy]
        self.runner.run(self.engine.command(place, "pull", *options, name))

    def first_output(self, place, name):
        return self.runner.until_output(
            self.engine.command(place, "run", *starting.RUN_OPTIONS, "--pull=never", name, *PROGRAM)
        )

    def version(self, program_version):
        """With what it mounts by."""
        return f"{program_version} ({self.engine.backend()})"


def fill(layout, name):
    """Has skopeo put the image there as it is."""
    copy = ["skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]
    subprocess.run([*copy, f"oci:{layout}:latest", f"docker://{name}"], check=True)
