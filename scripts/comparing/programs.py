"""Programs as they are used, on a mount: what they do it with, and how they are called."""

import os
import subprocess
import zipfile

from comparing.cases import Case, Command, slow
from comparing.figures import Row
from starting import layers_of

MODULES = 600
PACKAGED_FILES = 600


def git_status(_, __, part, ___):
    # Without writing what it has found: the next one shall have as much to do.
    return ["/usr/bin/env", "GIT_OPTIONAL_LOCKS=0", "git", "-C", part, "status", "--short"]


def untar(bench, system, part, subject):
    bench.runner.run([*system.enter, "mkdir", f"{part}/bench"])
    return ["tar", "-xf", layers_of(subject.image)[0], "-C", f"{part}/bench"]


def pip(bench, _, part, __):
    flags = ["--quiet", "--no-index", "--no-deps", "--no-cache-dir", "--disable-pip-version-check"]
    return ["/usr/bin/python3", "-m", "pip", "install", *flags, "--target", f"{part}/bench", wheel(bench)]


def wheel(bench):
    """A package of Python with many modules."""
    path = f"{bench.runner.work}/many-1.0-py3-none-any.whl"
    if not os.path.exists(path):
        files = {f"many/module_{number:04}.py": f"NUMBER = {number}\n" for number in range(MODULES)}
        files["many-1.0.dist-info/METADATA"] = "Metadata-Version: 2.1\nName: many\nVersion: 1.0\n"
        files["many-1.0.dist-info/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        files["many-1.0.dist-info/RECORD"] = "".join(f"{name},,\n" for name in files)
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    return path


def deb(bench):
    """A package of Debian with many files."""
    path = f"{bench.runner.work}/many.deb"
    if not os.path.exists(path):
        tree = f"{bench.runner.work}/many-deb"
        os.makedirs(f"{tree}/DEBIAN")
        # In a directory that is there: dpkg makes others without any permission, which not every peer can do.
        os.makedirs(f"{tree}/opt")
        with open(f"{tree}/DEBIAN/control", "w", encoding="ascii") as file:
            file.write("Package: many\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody\nDescription: many files\n")
        for number in range(PACKAGED_FILES):
            with open(f"{tree}/opt/many-{number:04}", "w", encoding="ascii") as file:
                file.write(f"{number}\n" * 300)
        subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, path], stdout=subprocess.DEVNULL, check=True)
    return path


class Dpkg(Case):
    """The image's own dpkg installs a package in the image."""

    changes = True

    def measure(self, bench, system, subject):
        with system.mounted(subject) as root:
            bench.runner.run([*system.enter, "cp", deb(bench), f"{root}/usr/many.deb"])
            command = ["spawn", root, "1", "/usr/bin/dpkg", "--install", "/usr/many.deb"]
            _, seconds = bench.runner.run([*system.as_root(), bench.program, *command]).split()
        return [float(seconds) * 1e3]


def cases(ratios):
    return [
        Command(Row("git status of 20,000 files, warm", "ms", ratios), git_status, "many", warm=True),
        Command(Row("git status of 20,000 files, cold", "ms", ratios), git_status, "many"),
        Command(Row("tar -x of 3,000 files", "ms", ratios), untar, "layers-1"),
        slow(Command(Row("pip install of a wheel of 600 modules", "ms", ratios), pip, "many")),
        slow(Dpkg(Row("dpkg --install of 600 files", "ms", ratios))),
    ]
