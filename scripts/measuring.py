"""What the scripts that measure share: a directory of their own, in which commands run as an ordinary user."""

import atexit
import os
import platform
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
USER = "layerfs-test"
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
# What fits on a hung command, not on a slow one: podman takes half a minute to load the image on a small machine.
COMMAND_SECONDS_MAX = 600
# Of one that was asked to end.
ENDING_SECONDS_MAX = 5
# What the directories of podman's storage are called: they hold files of subordinate ids.
PODMAN_PLACE = "podman"


class Failed(Exception):
    """A command that did not do what it should."""


# Of a new filesystem; only what is written to it takes place.
FILESYSTEM_BYTES = 32 << 30
UMOUNT_TRIES = 100


class Runner:
    """Runs commands as the user of this measurement, in a directory of its own: on request on a new ext4, so that what was
    removed before does not matter (without a journal ext4 looks for an inode that was not removed lately, one by one)."""

    def __init__(self, as_root, new_filesystem=False):
        own = pwd.getpwuid(os.geteuid())
        self.user = own if as_root or os.geteuid() != 0 else pwd.getpwnam(USER)
        self.switches = self.user.pw_uid != own.pw_uid
        self.work = tempfile.mkdtemp(prefix="layerfs-measure.", dir="/var/tmp")
        self.count, self.env = 0, {}
        atexit.register(self.close)
        if new_filesystem:
            self.make_filesystem()
        os.chmod(self.work, 0o755)
        self.home = self.fresh("home")
        self.env = {
            "HOME": self.home,
            "USER": self.user.pw_name,
            "PATH": PATH,
            "LANG": "C.UTF-8",
            "XDG_RUNTIME_DIR": self.fresh("run"),
            "TMPDIR": self.fresh("tmp"),
        }

    def make_filesystem(self):
        image = f"{self.work}.ext4"
        try:
            with open(image, "wb") as file:
                file.truncate(FILESYSTEM_BYTES)
            # Nothing of it is left to be written later.
            subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", image], check=True)
            # Else all would be in the page cache twice.
            attach = ["losetup", "--find", "--show", "--direct-io=on", image]
            device = subprocess.run(attach, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
            try:
                subprocess.run(["mount", device, self.work], check=True)
            finally:
                # It goes when it is not mounted any more, and so does the file that has no name then.
                subprocess.run(["losetup", "--detach", device], check=False)
        finally:
            os.remove(image)

    def fresh(self, name):
        """A new directory that belongs to the user."""
        self.count += 1
        path = f"{self.work}/{self.count}-{name}"
        os.mkdir(path, 0o700)
        if self.switches:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)
        return path

    def start(self, arguments, stdout, stderr, env, stdin=subprocess.DEVNULL):
        who = {}
        if self.switches:
            groups = os.getgrouplist(self.user.pw_name, self.user.pw_gid)
            who = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": groups}
        return subprocess.Popen(
            arguments, stdin=stdin, stdout=stdout, stderr=stderr, env={**self.env, **env}, cwd="/", **who
        )

    def run(self, arguments, **env):
        """Runs a command to its end and gives what it wrote. Output goes to files: servers may keep them open."""
        with tempfile.TemporaryFile(dir=self.work) as out, tempfile.TemporaryFile(dir=self.work) as err:
            process = self.start(arguments, out, err, env)
            self.finish(arguments, process, err)
            out.seek(0)
            return out.read().decode()

    def until_output(self, arguments, **env):
        """Runs a command and gives the moment of the first byte that it writes."""
        with tempfile.TemporaryFile(dir=self.work) as err:
            process = self.start(arguments, subprocess.PIPE, err, env)
            first = process.stdout.read(1)
            moment = time.monotonic()
            process.stdout.read()
            process.stdout.close()
            self.finish(arguments, process, err)
            if not first:
                raise Failed(f"{' '.join(arguments)}: no output")
            return moment

    def finish(self, arguments, process, err):
        try:
            code = process.wait(COMMAND_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise Failed(f"{' '.join(arguments)}: hangs") from None
        except BaseException:
            # Who measures was told to end.
            self.end(process)
            raise
        if code != 0:
            err.seek(0)
            said = " ".join(err.read().decode(errors="replace").replace("|", "/").split())
            raise Failed(f"{arguments[0]}: exit code {code}: {said or 'no message'}")

    def end(self, process):
        process.terminate()
        try:
            process.wait(ENDING_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def remove(self, path):
        """Removes a tree that may hold directories without write permission and files of subordinate ids."""
        if os.geteuid() != 0:
            if path.endswith(PODMAN_PLACE) and shutil.which("podman"):
                subprocess.run(["podman", "unshare", "rm", "-rf", path], env=self.env, check=False)
            subprocess.run(["chmod", "-R", "u+rwX", path], stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(path, ignore_errors=True)

    def close(self):
        with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
            points = [line.split(" ")[4] for line in mounts]
        for point in reversed([point for point in points if point.startswith(self.work + "/")]):
            program = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-uz"]
            subprocess.run([*program, point], check=False)
        # While podman still has its home and its own processes.
        for name in os.listdir(self.work):
            if name.endswith(PODMAN_PLACE):
                self.remove(f"{self.work}/{name}")
        self.end_pause()
        if os.path.ismount(self.work):
            self.unmount()
        self.remove(self.work)
        if os.path.lexists(self.work):
            print(f"measure: left behind: {self.work}", file=sys.stderr)

    def unmount(self):
        """Servers that have lost their mounts may take a moment to end."""
        for _ in range(UMOUNT_TRIES):
            if subprocess.run(["umount", self.work], stderr=subprocess.DEVNULL, check=False).returncode == 0:
                return
            time.sleep(0.1)
        subprocess.run(["umount", "-l", self.work], check=False)

    def end_pause(self):
        """Ends the process by which rootless podman keeps its namespaces."""
        try:
            with open(f"{self.env['XDG_RUNTIME_DIR']}/libpod/tmp/pause.pid", encoding="utf-8") as file:
                os.kill(int(file.read()), signal.SIGKILL)
        except (OSError, KeyError, ValueError):
            pass


def version(*arguments):
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        return (done.stdout or done.stderr).strip().splitlines()[0]
    except (OSError, IndexError):
        return f"no {arguments[0]}"


def hardware(place):
    """On what, in words."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    where = version("findmnt", "-n", "-o", "FSTYPE", "-T", place)
    if os.path.ismount(place):
        where = f"a new {where} on a loop device"
    return f"{os.cpu_count()} processors ({model}), {memory:.1f} GiB, Linux {platform.release()}, {where}"


def built(*more):
    """The program as it is shipped; `more` is built with it."""
    root = os.path.dirname(HERE)
    cargo = shutil.which("cargo") or os.path.expanduser("~/.cargo/bin/cargo")
    subprocess.run([cargo, "build", "--release", "--quiet", *more], cwd=root, check=True)
    return f"{root}/target/release/layerfs"
