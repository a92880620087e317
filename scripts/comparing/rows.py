"""What is measured, and what it must reach. A ratio is speed of layerfs / speed of the other."""

import glob
import os

import starting
from comparing import programs
from comparing.cases import Chown, Layers, Processes, Stall, Started, Work, slow
from comparing.figures import Bound, Row, at_least, at_most
from comparing.memory import PageCache, ServerMemory
from comparing.starts import BUBBLEWRAP, PODMAN, Known, NeverSeen
from comparing.systems import DISK, OVERLAY

FUSE_OVERLAY = "fuse-overlayfs 2"
COUNTS = (5, 50, 120)
PROCESSES = 4


class Section:
    """Cases that are compared with the same systems, in a table of their own."""

    def __init__(self, title, cases, starts=False):
        self.title, self.cases, self.starts = title, cases, starts


def reading():
    both = {DISK: 0.9, OVERLAY: 1.2}
    return [
        Work("stat, warm", "stat", "k/s", both, warm=True),
        Work("stat of absent names, warm", "negative", "k/s", both, warm=True),
        Work("find, warm", "find", "k/s", both, warm=True),
        Work("find + lstat, warm", "find-lstat", "k/s", both, warm=True),
        Work("open + read 4 KiB + close, warm", "open-read", "k/s", {DISK: 1.0, OVERLAY: 1.2, FUSE_OVERLAY: 6}, warm=True),
        Work("mmap of large files, each page, warm", "map-read", "MiB/s", {DISK: 0.9}, warm=True),
        Work("large files front to back, warm", "read-largest", "MiB/s", {DISK: 0.95}, warm=True),
        Work("find + lstat, cold", "find-lstat", "k/s", {OVERLAY: 1.5, FUSE_OVERLAY: 3}),
        Work("stat by path, cold", "stat", "k/s", {OVERLAY: 0.5, FUSE_OVERLAY: 1.2}),
        Work("open + read all, cold", "read-all", "k/s", {FUSE_OVERLAY: 2}),
        slow(Work("open + read all, disk cold", "read-all", "k/s", {DISK: 1.0}, disk_cold=True)),
        Work("large files front to back, cold", "read-largest", "MiB/s", {DISK: 0.3}),
        Work("large files front to back, disk cold", "read-largest", "MiB/s", {DISK: 1.0}, disk_cold=True),
    ]


def writing():
    half, twice = {OVERLAY: 0.5, FUSE_OVERLAY: 2}, {FUSE_OVERLAY: 2}
    return [
        Work("create + write 4 KiB + close", "create", "k/s", twice),
        Work("unlink", "unlink", "k/s", twice),
        Work("rename", "rename", "k/s", twice),
        Work("mkdir", "mkdir", "k/s", twice),
        Work("chmod of new files", "chmod", "k/s", twice),
        Work("write 4 KiB chunks", "write-4k", "MiB/s", twice),
        Work("write 1 MiB chunks", "write-1m", "MiB/s", {OVERLAY: 0.4, FUSE_OVERLAY: 2}),
        Work("append 100 bytes", "append", "k/s", half),
        Work("write 4 KiB at random", "write-random", "k/s", half),
        Work("write through mmap, then msync", "map-write", "MiB/s", twice),
    ]


def changing():
    """Changes of the image's own files: what others copy for them."""
    five = {OVERLAY: 5, FUSE_OVERLAY: 5}
    return [
        Work("first 4 KiB written into large files", "first-write", "k/s", five, changes=True),
        Stall(
            Row("first 4 KiB written into a file of 200 MiB", "ms", bounds=[at_most(1)]),
            Row("stat of others meanwhile, 99th percentile", "us"),
            Row("stat before, 99th percentile", "us"),
        ),
        slow(Work("chmod of all files of the image", "chmod-all", "k/s", five, changes=True)),
        slow(
            Chown(
                Row("chown of all files of the image", "k/s", five),
                Row("upper after that", "MiB", bounds=[at_most(40)]),
            )
        ),
    ]


def layered(what, workload, warm):
    rows = [Row(f"{what}, {COUNTS[0]} layers", "k/s")]
    near = Bound(f">= 0.9 of {COUNTS[0]} layers", lambda _, title: 0.9 * rows[0].median(title))
    rows += [Row(f"{what}, {count} layers", "k/s", bounds=[near]) for count in COUNTS[1:]]
    return Layers(workload, warm, COUNTS, *rows)


def many():
    """Many layers, many entries, many processes."""
    half = {OVERLAY: 0.5}

    def parallel(what, workload, warm):
        row = Row(f"{what}, {PROCESSES} processes", "x one", bounds=[at_least(1.7)])
        return Processes(row, workload, warm, PROCESSES)

    return [
        slow(layered("open + read 4 KiB, warm", "open-read", True)),
        layered("stat by path, cold", "stat", False),
        layered("find + lstat, cold", "find-lstat", False),
        Work("first lookup in a directory of 100,000", "stat-one", "k/s", half, "entries"),
        Work("readdir of 100,000 entries, cold", "find", "k/s", half, "entries"),
        # fuse-overlayfs takes seconds for it.
        slow(Work("create beside 100,000 entries", "create-beside", "k/s", half, "entries", changes=True)),
        parallel("open + read 4 KiB, warm", "open-read", True),
        parallel("open + read all, cold", "read-all", False),
    ]


def using():
    """Programs of the image, and programs on it."""
    link = Row("dynamic linking of a large library, warm", "ms", {DISK: 0.9})
    return [
        Started(Row("python3 -c pass, warm", "ms", {DISK: 0.9}), 20, ["/usr/bin/python3", "-c", "pass"]),
        Started(link, 20, linking),
        *programs.cases({OVERLAY: 0.8, FUSE_OVERLAY: 2}),
    ]


def linking(root):
    """Has the dynamic linker load the largest library of the image, and resolve all of it at once."""
    found = glob.glob(f"{root}/usr/local/lib/python3*/dist-packages/numpy.libs/*.so*")
    library = max(found, key=os.path.getsize)
    return ["/usr/bin/env", "LD_BIND_NOW=1", f"LD_PRELOAD={library[len(root) :]}", "/usr/bin/true"]


def memory():
    return [
        PageCache(Row("page cache after reading all once", "x data", bounds=[at_most(1.2)])),
        ServerMemory(
            Row("server, idle", "MiB", bounds=[at_most(6)]),
            Row("server, after 20,000 files", "MiB", bounds=[at_most(12)]),
            Row("private, of one more of the same", "MiB", bounds=[at_most(6)]),
        ),
    ]


def starts(runner, program, image):
    def beside(row, _):
        other = row.median(BUBBLEWRAP)
        return None if other is None else 2 * other + 5

    known = Row("true, image known", "ms", bounds=[at_most(10), Bound("<= 2 x bubblewrap + 5", beside)])
    forms = [("docker-archive", "docker.tar", "docker-archive"), ("OCI layout with gzip", "oci", "oci-archive")]
    never = [
        slow(
            NeverSeen(
                title,
                starting.Layerfs(runner, program, f"{image}/{name}"),
                starting.Podman(runner, f"{image}/oci", form),
                {PODMAN: 8},
            )
        )
        for title, name, form in forms
    ]
    return [Known(known), *never]


def sections(runner, program, image):
    return [
        Section("Reading", reading()),
        Section("Writing new files", writing()),
        Section("Changing files of the image", changing()),
        Section("Many layers, entries, processes", many()),
        Section("Programs", using()),
        Section("Memory", memory()),
        Section("Starting", starts(runner, program, image), starts=True),
    ]
