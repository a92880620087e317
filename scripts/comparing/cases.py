"""Kinds of measurements. Each gives figures for some rows of the tables, of one filesystem at a time."""

import contextlib
import os

from comparing.figures import Row
from comparing.systems import DISK, Mounted
from measuring import Failed


# Of what a command said before it failed, the end is what tells why.
REASON_LENGTH_MAX = 240


class Bench:
    """What all cases need."""

    def __init__(self, runner, program, subjects):
        self.runner, self.program, self.subjects = runner, program, subjects

    @contextlib.contextmanager
    def mounted(self, system, subject, disk_cold=False):
        """A fresh mount; gives the directory where the work is done."""
        with system.mounted(subject) as root:
            os.sync()
            if disk_cold:
                with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
                    file.write("3\n")
            yield f"{root}/{subject.part}"

    def work(self, system, *arguments):
        return self.runner.run([*system.enter, self.program, *arguments])

    def rate(self, system, *arguments):
        count, seconds = self.work(system, *arguments).split()
        return int(count) / float(seconds)


class Case:
    """A measurement: `measure` gives a figure for each row, none where it cannot have one."""

    subject_name = "debian"
    # Whether the subject's own files change, so that it cannot be done on the disk.
    changes = False
    slow = False

    def __init__(self, *rows):
        self.rows = rows

    def fits(self, system):
        return isinstance(system, Mounted) or (system.title == DISK and not self.changes)

    def record(self, bench, system):
        """Does it once more. What a peer cannot do is said, and not tried again."""
        if all(system.title in row.missing for row in self.rows):
            return
        try:
            subject = bench.subjects.get(self.subject_name) if self.subject_name else None
            values = self.measure(bench, system, subject)
        except Failed as error:
            self.lack(system, error, self.rows)
            return
        for row, value in zip(self.rows, values):
            row.add(system.title, value)

    def lack(self, system, error, rows):
        """Says why there are no figures of it in these rows."""
        for row in rows:
            row.missing[system.title] = f"... {str(error)[-REASON_LENGTH_MAX:]}"


def slow(case):
    """A case that takes too long for a glance."""
    case.slow = True
    return case


class Work(Case):
    """A workload on files, as how much of it is done in a second."""

    def __init__(self, title, workload, unit, ratios, subject="debian", warm=False, disk_cold=False, changes=False):
        super().__init__(Row(title, unit, ratios))
        self.arguments = [*(["--warm"] if warm else []), workload]
        self.disk_cold, self.subject_name, self.changes = disk_cold, subject, changes

    def measure(self, bench, system, subject):
        with bench.mounted(system, subject, self.disk_cold) as part:
            rate = bench.rate(system, *self.arguments, part, subject.paths)
        return [as_unit(rate, self.rows[0].unit)]


class Chown(Case):
    """All files change their owner; afterwards the size of the writable layer is looked at."""

    changes = True

    def measure(self, bench, system, subject):
        with bench.mounted(system, subject) as part:
            rate = bench.rate(system, "chown-all", part, subject.paths)
            return [as_unit(rate, "k/s"), disk_bytes(system.upper) / 2**20]


class Stall(Case):
    """The first write into a large file, and how long others wait for a stat meanwhile."""

    subject_name, changes = "many", True

    def measure(self, bench, system, subject):
        with bench.mounted(system, subject) as part:
            lines = bench.work(system, "stall", part, subject.paths).splitlines()
        seconds = {name: float(value) for name, value in map(str.split, lines)}
        return [seconds["write"] * 1e3, seconds["during"] * 1e6, seconds["idle"] * 1e6]


class Layers(Case):
    """One workload on images of a few and of many layers, in turn."""

    def __init__(self, workload, warm, counts, *rows):
        super().__init__(*rows)
        self.arguments = [*(["--warm"] if warm else []), workload]
        self.counts = counts
        self.subject_name = None

    def fits(self, system):
        return isinstance(system, Mounted)

    def measure(self, bench, system, _):
        rates = []
        for count in self.counts:
            subject = bench.subjects.get(f"layers-{count}")
            with bench.mounted(system, subject) as part:
                rates.append(as_unit(bench.rate(system, *self.arguments, part, subject.paths), "k/s"))
        return rates


class Processes(Case):
    """How much more several processes do than one."""

    def __init__(self, row, workload, warm, count):
        super().__init__(row)
        self.warm, self.workload, self.count = ["--warm"] if warm else [], workload, count

    def measure(self, bench, system, subject):
        rates = []
        for count in (1, self.count):
            with bench.mounted(system, subject) as part:
                arguments = [*self.warm, "processes", str(count), self.workload, part, subject.paths]
                rates.append(bench.rate(system, *arguments))
        return [rates[1] / rates[0]]


class Started(Case):
    """A program of the tree, run in it again and again. Its command may depend on what is in the tree."""

    def __init__(self, row, count, command):
        super().__init__(row)
        self.count, self.command = count, command

    def measure(self, bench, system, subject):
        with system.mounted(subject) as root:
            tree = f"{subject.place}/{subject.lowers[0]}"
            command = self.command(tree) if callable(self.command) else self.command
            arguments = [bench.program, "--warm", "spawn", root, str(self.count), *command]
            count, seconds = bench.runner.run([*system.as_root(), *arguments]).split()
        return [float(seconds) / int(count) * 1e3]


class Command(Case):
    """A program of the host, which works on a directory of the tree."""

    def __init__(self, row, command, subject, warm=False):
        super().__init__(row)
        self.command, self.subject_name = command, subject
        self.warm = ["--warm"] if warm else []

    def measure(self, bench, system, subject):
        with bench.mounted(system, subject) as part:
            command = self.command(bench, system, part, subject)
            _, seconds = bench.work(system, *self.warm, "spawn", "/", "1", *command).split()
        return [float(seconds) * 1e3]


def as_unit(rate, unit):
    return rate / 1000 if unit == "k/s" else rate


def disk_bytes(tree):
    """What is taken on the disk."""
    total = 0
    for directory, dirs, files in os.walk(tree):
        total += sum(os.lstat(f"{directory}/{name}").st_blocks * 512 for name in dirs + files)
    return total
