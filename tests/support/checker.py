#!/usr/bin/env python3
"""What a container is to a program in it, against the defaults of the OCI runtime specification for Linux and of podman.

    checker.py outside                what a container inherits or must not share, as JSON
    checker.py inside JSON            says what differs, one line each, and fails if anything does

Inside, it looks at process 1, which should be a shell that waits for it. JSON is of `outside`, with `single`, whether the
container has one id only, and `terminal`.
"""
import errno
import json
import os
import resource
import stat
import sys

NAMESPACES = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"]
INERT = {"nosuid", "nodev", "noexec"}
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx"}
MASKED = [
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/interrupts", "/sys/firmware", "/sys/fs/selinux", "/sys/dev/block",
    "/sys/devices/virtual/powercap",
]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
CAPABILITIES = "00000000800405fb"

problems = []


def expect(what, found, wanted):
    if found != wanted:
        problems.append(f"{what}: {found!r} and not {wanted!r}")


def limits():
    names = sorted(name for name in dir(resource) if name.startswith("RLIMIT_"))
    return {name: list(resource.getrlimit(getattr(resource, name))) for name in names}


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def outside():
    print(json.dumps({
        "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES + ["time"]},
        "limits": limits(),
        "oom_score_adj": read("/proc/self/oom_score_adj").strip(),
        "user_namespace": os.geteuid() != 0,
        "filters": int(dict(line.split(":", 1) for line in read("/proc/self/status").splitlines()).get("Seccomp_filters", "0")),
        "coredump_filter": read("/proc/self/coredump_filter").strip(),
        "scheduling": [os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)],
        "cgroup2": any(line.split()[1:3] == ["/sys/fs/cgroup", "cgroup2"] for line in read("/proc/mounts").splitlines()),
    }))


def propagation():
    """Optional fields of each mount: whom it shares with, or gets from."""
    lines = read("/proc/self/mountinfo").splitlines()
    return sorted({field for line in lines for field in line.split(" - ")[0].split()[6:]})


def mounts():
    """Of each place the mount on top: type, attributes of the mount, and of the filesystem."""
    found = {}
    for line in read("/proc/self/mountinfo").splitlines():
        mount, filesystem = line.split(" - ")
        kind, _, options = filesystem.split(" ", 2)
        found[mount.split()[4]] = (kind, set(mount.split()[5].split(",")), set(options.split(",")))
    return found


def check_mount(found, path, kind, wanted, options=(), absent=()):
    if path not in found:
        problems.append(f"{path}: nothing is mounted")
        return
    has_kind, attributes, has_options = found[path]
    expect(f"{path}: type", has_kind, kind)
    expect(f"{path}: missing", sorted((set(wanted) - attributes) | (set(options) - has_options)), [])
    expect(f"{path}: too much", sorted(set(absent) & (attributes | has_options)), [])


GENERATED = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/run/.containerenv"]


def check_mounts(said):
    found = mounts()
    expect("mounts that are shared", propagation(), [])
    known = {"/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup", "/dev/console", "/checker.py"}
    known |= set(MASKED) | set(READ_ONLY) | set(GENERATED) | {f"/dev/{name}" for name in DEVICES}
    expect("more mounts", sorted(set(found) - known), [])
    places = [line.split()[4] for line in read("/proc/self/mountinfo").splitlines()]
    expect("mounted twice", sorted({place for place in places if places.count(place) > 1}), [])
    check_mount(found, "/", "fuse.layerfs", {"rw", "nodev"}, absent={"nosuid", "noexec"})
    check_mount(found, "/proc", "proc", INERT | {"rw"})
    check_mount(found, "/dev", "tmpfs", {"rw", "nosuid"}, {"mode=755", "size=65536k"}, {"relatime", "noatime", "nodev"})
    check_mount(found, "/dev/pts", "devpts", {"rw", "nosuid", "noexec"}, {"mode=620", "ptmxmode=666"}, {"nodev"})
    check_mount(found, "/dev/shm", "tmpfs", INERT | {"rw"}, {"size=65536k"})
    expect("/dev/shm: mode", oct(os.stat("/dev/shm").st_mode & 0o7777), "0o1777")
    check_mount(found, "/dev/mqueue", "mqueue", INERT | {"rw"})
    check_mount(found, "/sys", "sysfs", INERT | {"ro"})
    if said["cgroup2"]:
        check_mount(found, "/sys/fs/cgroup", "cgroup2", INERT | {"ro"})
    for path in GENERATED:
        check_mount(found, path, "tmpfs", INERT | {"rw"})
    for path in READ_ONLY:
        if os.path.exists(path):
            check_mount(found, path, "proc", INERT | {"ro"})
            expect(f"{path}: may be written", os.access(path, os.W_OK), False)


def check_devices(said):
    for name, numbers in DEVICES.items():
        device = os.stat(f"/dev/{name}")
        expect(f"/dev/{name}: kind", stat.S_ISCHR(device.st_mode), True)
        # The node is the host's; what is written goes to the device all the same.
        kind = mounts().get(f"/dev/{name}", ("none",))[0]
        check_mount(mounts(), f"/dev/{name}", kind, {"ro", "nosuid", "noexec"}, absent={"nodev"})
        expect(f"/dev/{name}", (os.major(device.st_rdev), os.minor(device.st_rdev)), numbers)
        expect(f"/dev/{name}: mode", oct(device.st_mode & 0o666), "0o666")
    for name, target in LINKS.items():
        expect(f"/dev/{name}", os.readlink(f"/dev/{name}"), target)
    expect("/dev/console: there", os.path.exists("/dev/console"), said["terminal"])
    known = set(DEVICES) | set(LINKS) | {"core", "console", "mqueue", "pts", "shm"}
    expect("/dev: more", sorted(set(os.listdir("/dev")) - known), [])
    # An instance of its own has no terminals of others.
    expect("/dev/pts", sorted(os.listdir("/dev/pts")), ["0", "ptmx"] if said["terminal"] else ["ptmx"])
    # The mount's own gid= is told as the host has it.
    terminal = os.fstat(os.openpty()[1])
    expect("a terminal: group", terminal.st_gid, 0 if said["single"] else 5)
    expect("a terminal: mode", oct(terminal.st_mode & 0o777), "0o620")
    with open("/dev/zero", "rb", buffering=0) as zero, open("/dev/urandom", "rb", buffering=0) as random:
        expect("/dev/zero: bytes", zero.read(4), bytes(4))
        expect("/dev/urandom: bytes", len(random.read(4)), 4)
    try:
        os.write(os.open("/dev/full", os.O_WRONLY), b"x")
        problems.append("/dev/full: takes bytes")
    except OSError as error:
        expect("/dev/full", error.errno, errno.ENOSPC)
    if said["terminal"]:
        expect("terminal", [os.ttyname(fd) for fd in (0, 1, 2)], ["/dev/pts/0"] * 3)
        expect("/dev/console: device", os.stat("/dev/console").st_rdev, os.stat("/dev/pts/0").st_rdev)
        os.close(os.open("/dev/tty", os.O_RDWR))
    else:
        expect("standard input", os.readlink("/proc/1/fd/0"), "/dev/null")
        try:
            os.open("/dev/tty", os.O_RDWR)
            problems.append("/dev/tty: there is a controlling terminal")
        except OSError as error:
            expect("/dev/tty", error.errno, errno.ENXIO)


def check_masks():
    for path in MASKED:
        if not os.path.exists(path):
            continue
        if os.path.isdir(path):
            expect(f"{path}: shows", os.listdir(path), [])
            expect(f"{path}: may be written", os.access(path, os.W_OK), False)
        else:
            device = os.stat(path)
            expect(f"{path}: is", (stat.S_ISCHR(device.st_mode), device.st_rdev), (True, os.makedev(1, 3)))


def check_process(said):
    status = dict(line.split(":\t", 1) for line in read("/proc/1/status").splitlines())
    for name in ["CapPrm", "CapEff", "CapBnd"]:
        expect(name, status[name], CAPABILITIES)
    for name in ["CapInh", "CapAmb", "SigBlk"]:
        expect(name, int(status[name], 16), 0)
    # 32 and 33 are the C library's own, which posix_spawn(3) leaves ignored.
    expect("SigIgn", int(status["SigIgn"], 16) & ~(0b11 << 31), 0)
    expect("Seccomp", status["Seccomp"], "2")
    expect("Seccomp_filters", int(status["Seccomp_filters"]) - said["filters"], 1)
    # Where nobody may change them, they stay the caller's.
    callers = {"0", "65534"} if said["single"] else set()
    expect("Groups", sorted(set(status["Groups"].split()) - callers), [])
    expect("NSpid", status["NSpid"].split(), ["1"])
    expect("core dumps", (status["CoreDumping"], read("/proc/1/coredump_filter").strip()), ("0", said["coredump_filter"]))
    expect("scheduling", (os.sched_getscheduler(1), os.getpriority(os.PRIO_PROCESS, 1)), tuple(said["scheduling"]))
    expect("control groups", sorted({line.split(":", 2)[2] for line in read("/proc/1/cgroup").splitlines() if line.startswith("0::")}), ["/"])
    expect("NoNewPrivs", status["NoNewPrivs"], "1" if said["single"] else "0")
    expect("Umask", status["Umask"], "0022")
    expect("Uid", status["Uid"].split(), ["0"] * 4)
    expect("Gid", status["Gid"].split(), ["0"] * 4)
    expect("TracerPid", status["TracerPid"], "0")
    expect("session and process group", (os.getsid(1), os.getpgid(1)), (1, 1))
    expect("personality", int(read("/proc/1/personality"), 16), 0)
    expect("descriptors", sorted(os.listdir("/proc/1/fd")), ["0", "1", "2"])
    expect("oom_score_adj", read("/proc/1/oom_score_adj").strip(), said["oom_score_adj"])
    expect("limits", limits(), said["limits"])
    for name in NAMESPACES:
        own = os.readlink(f"/proc/1/ns/{name}") != said["namespaces"][name]
        expect(f"a {name} namespace of its own", own, name != "user" or said["user_namespace"])
    expect("time namespace", os.readlink("/proc/1/ns/time"), said["namespaces"]["time"])
    expect("host name", os.uname().nodename, os.environ["HOSTNAME"])
    expect("network devices", os.listdir("/sys/class/net"), ["lo"])
    expect("lo: up", int(read("/sys/class/net/lo/flags"), 16) & 1, 1)
    expect("container", os.environ.get("container"), "layerfs")
    expect("home", os.environ.get("HOME"), "/root")
    expect("path", os.environ.get("PATH", "").split(":")[0:2], ["/usr/local/sbin", "/usr/local/bin"])
    expect("variables", sorted(set(os.environ) - {"HOME", "PATH", "HOSTNAME", "container", "TERM", "PWD", "LANG", "LC_CTYPE", "OLDPWD", "SHLVL", "_"}), [])
    expect("ids", [bool(read(f"/proc/1/{kind}_map").strip()) for kind in ("uid", "gid")], [True, True])
    expect("working directory", os.readlink("/proc/1/cwd"), "/")


def inside(said):
    check_mounts(said)
    check_devices(said)
    check_masks()
    check_process(said)
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    if sys.argv[1] == "outside":
        outside()
    else:
        inside(json.loads(sys.argv[2]))
