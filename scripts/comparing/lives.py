"""Kinds of measurements of the life of containers. Each gives a figure for each of its rows, of one engine at a time."""

import contextlib
import math
import os
import random
import shutil
import signal
import statistics
import subprocess
import time

from comparing.cases import Case
from comparing.engines import IDLE, WILLING, Engine, Keeper, is_willing, wait_for
from comparing.memory import memory_bytes
from comparing.systems import LAYERFS
from measuring import Failed

# Starts without any other, for their median.
ALONE = 5
# What is hung, not what is slow: many starts at once of the slowest take half a minute on a busy machine.
SECONDS_MAX = 120
# A list that waits for somebody.
LIST_SECONDS_MAX = 10


class Clock:
    """Times commands, as the user of the measurement."""

    def __init__(self, runner, large_image):
        self.runner, self.large_image = runner, large_image
        self.program = shutil.copy(f"{os.path.dirname(__file__)}/timed.py", f"{runner.work}/timed.py")

    def __call__(self, engine, command, *options, seconds_max=SECONDS_MAX):
        """How many milliseconds the command took, and what else was asked for."""
        timed = ["/usr/bin/python3", "-I", self.program, "--seconds", str(seconds_max), *options, *command]
        return [float(line) * 1e3 for line in self.runner.run(timed, **engine.env).split()]


class Life(Case):
    """A case of engines. `standing` has there what it needs while it is measured: at least what a first start makes."""

    subject_name = None
    engines = Engine

    def fits(self, system):
        return isinstance(system, self.engines)

    @contextlib.contextmanager
    def standing(self, clock, engine):
        clock(engine, engine.start)
        yield


class Start(Life):
    """A start, until it has ended; of layerfs from another form of the image as well."""

    @contextlib.contextmanager
    def standing(self, clock, engine):
        self.measure(clock, engine, None)
        yield

    def measure(self, clock, engine, _):
        figures = clock(engine, engine.start)
        if engine.title == LAYERFS:
            figures += clock(engine, engine.start_of_layout)
        return figures


class Exec(Life):
    """A program more in a container that runs."""

    def __init__(self, *rows):
        super().__init__(*rows)
        self.containers = {}

    def fits(self, system):
        return hasattr(system, "inside")

    @contextlib.contextmanager
    def standing(self, clock, engine):
        try:
            self.containers[engine.title] = engine.begin(IDLE)
            yield
        finally:
            engine.close()

    def measure(self, clock, engine, _):
        return clock(engine, engine.inside(self.containers[engine.title]))


class Stop(Life):
    """`stop` of what ends as soon as it is asked to."""

    engines = Keeper

    def measure(self, clock, engine, _):
        container = engine.begin(WILLING)
        pid = engine.pid(container)
        wait_for("a program that handles SIGTERM", lambda: is_willing(pid))
        whole, after = clock(engine, engine.command("stop", container), "--after", str(pid))
        engine.call("rm", container)
        return [after, whole]


class AtOnce(Life):
    """Many starts at the same time, beside one that is alone."""

    def __init__(self, count, *rows):
        super().__init__(*rows)
        self.count = count

    def measure(self, clock, engine, _):
        alone = statistics.median(clock(engine, engine.start)[0] for _ in range(ALONE))
        each = sorted(clock(engine, engine.start, "--at-once", str(self.count)))
        late = each[math.ceil(0.99 * len(each)) - 1]
        return [late / alone, late]


class Listing(Life):
    """`ps -a` with many containers: with nothing else going on, while what serves one of them is stopped, and while a
    start is stopped wherever it just is."""

    engines = Keeper

    def __init__(self, counts, *rows):
        super().__init__(*rows)
        self.counts, self.usual = counts, {}

    @contextlib.contextmanager
    def standing(self, clock, engine):
        clock(engine, engine.start)
        self.usual[engine.title] = clock(engine, engine.start)[0] / 1e3
        try:
            for _ in range(self.counts[engine.title]):
                engine.call("create", *engine.options, engine.image, *IDLE)
            yield
        finally:
            engine.close()

    def measure(self, clock, engine, _):
        kinds = zip(self.rows, (self.calm, self.frozen, self.midway))
        return [self.attempt(row, kind, clock, engine) for row, kind in kinds]

    def attempt(self, row, figure, clock, engine):
        """A figure, if there can be one: an engine may hang in one of the rows alone."""
        if engine.title in row.missing:
            return None
        try:
            return figure(clock, engine)
        except Failed as error:
            self.lack(engine, error, [row])
            return None

    def calm(self, clock, engine):
        return clock(engine, engine.command("ps", "-a"), seconds_max=LIST_SECONDS_MAX)[0]

    def frozen(self, clock, engine):
        container = engine.begin(IDLE)
        try:
            with stopped(engine.servers()):
                return self.calm(clock, engine)
        finally:
            engine.call("stop", "-t", "0", container)
            engine.call("rm", container)

    def midway(self, clock, engine):
        start = engine.runner.start(engine.start, subprocess.DEVNULL, subprocess.DEVNULL, engine.env)
        try:
            # Within a time in which it has hardly ended yet.
            time.sleep(random.uniform(0, self.usual[engine.title]))
            with stopped(engine.servers()):
                return self.calm(clock, engine)
        finally:
            finish(start)


def finish(start):
    """Waits for a start that was stopped for a while; only what others did meanwhile counts."""
    try:
        start.wait(SECONDS_MAX)
    except subprocess.TimeoutExpired:
        start.kill()
        start.wait()
        raise Failed("a start that was stopped for a while hangs") from None


@contextlib.contextmanager
def stopped(processes):
    """Has them stopped; nothing stays so."""
    try:
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


class Idle(Life):
    """What containers take that do nothing, of each process what it alone has: scaled where there are fewer."""

    engines = Keeper

    def __init__(self, whole, counts, *rows):
        super().__init__(*rows)
        self.whole, self.counts = whole, counts

    def measure(self, clock, engine, _):
        before, count = set(engine.servers()), self.counts[engine.title]
        try:
            containers = [engine.begin(IDLE) for _ in range(count)]
            servers = set(engine.servers()) - before
            programs = [engine.pid(container) for container in containers]
            return [private_mib(pids) * self.whole / count for pids in (servers, programs)]
        finally:
            engine.close()


def private_mib(pids):
    total = 0
    for pid in pids:
        # One may have been about to end.
        with contextlib.suppress(OSError):
            total += memory_bytes(pid, "Private_Clean", "Private_Dirty")
    return total / 2**20


class KeepId(Life):
    """A large image under the ids of who starts it: the first time, again, and without."""

    engines = Keeper
    OPTION = "--userns=keep-id"

    def __init__(self, *rows):
        super().__init__(*rows)
        self.known, self.first = {}, {}

    @contextlib.contextmanager
    def standing(self, clock, engine):
        name = self.known[engine.title] = engine.load(clock.large_image())
        engine.runner.run(engine.on(name), **engine.env)
        self.first[engine.title] = clock(engine, engine.on(name, self.OPTION))[0]
        yield

    def measure(self, clock, engine, _):
        name = self.known[engine.title]
        plain, again = [clock(engine, engine.on(name, *options))[0] for options in ([], [self.OPTION])]
        return [plain, self.first.pop(engine.title, None), again]
