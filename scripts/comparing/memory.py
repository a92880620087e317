"""What a mount takes of the machine's memory: pages of files, and the server's own."""

import copy
import os
import re
import shutil
import subprocess

from comparing.cases import Case
from comparing.subjects import data_bytes
from comparing.systems import DISK, FuseOverlay, Layerfs
from measuring import Failed


class PageCache(Case):
    """What is in the page cache when everything was read once: of the mount, and of what lies below it."""

    def measure(self, bench, system, subject):
        counter = shutil.copy(f"{os.path.dirname(__file__)}/cached.py", f"{bench.runner.work}/cached.py")
        tree = f"{subject.place}/{subject.lowers[0]}/{subject.part}"
        with bench.mounted(system, subject, disk_cold=True) as part:
            bench.rate(system, "read-all", part, subject.paths)
            pages = bench.runner.run([*system.enter, "/usr/bin/python3", counter, part])
            if isinstance(system, Layerfs):
                pages += counted(["/usr/bin/python3", counter, subject.image, system.root])
            elif system.title != DISK:
                pages += counted(["/usr/bin/python3", counter, tree])
        return [sum(map(int, pages.split())) / data_bytes(subject)]


def counted(command):
    """What of files that the user cannot write, whose pages the kernel would not tell him, is in the page cache."""
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


class ServerMemory(Case):
    """Of a server that has nothing to do, of one that has shown many files, and of a second one beside it."""

    subject_name = "many"

    def fits(self, system):
        return isinstance(system, (FuseOverlay, Layerfs))

    def measure(self, bench, system, subject):
        with bench.mounted(system, subject) as part:
            server = system.server()
            if server is None:
                raise Failed("its server is not found")
            idle = memory_bytes(server, "Rss")
            bench.rate(system, "find-lstat", part, subject.paths)
            walked = memory_bytes(server, "Rss")
            further = further_bytes(system, subject)
        return [idle / 2**20, walked / 2**20, further / 2**20]


def further_bytes(system, subject):
    """What one more mount of the same, in the same store, has for itself alone."""
    second = copy.copy(system)
    with second.mounted(subject):
        return memory_bytes(second.server(), "Private_Clean", "Private_Dirty")


def memory_bytes(pid, *names):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        found = dict(re.findall(r"^(\w+): +(\d+) kB$", file.read(), re.MULTILINE))
    return sum(int(found[name]) << 10 for name in names)
