"""The programs that layerfs is compared with: found, or built."""

import os
import re
import shutil
import subprocess
import sys

FUSE_OVERLAYFS = "2.0.0"
# What Debian calls them.
PACKAGES = {"fuse-overlayfs": "fuse-overlayfs", "bwrap": "bubblewrap", "crun": "crun", "podman": "podman"}


def say(text):
    print(f"compare: {text}", file=sys.stderr)


def found(program):
    """The path of a program of the distribution; without it its column stays empty."""
    path = shutil.which(program)
    if path is None:
        package = PACKAGES[program]
        say(f"no {program}, so nothing is compared with it: install the package {package}, or run scripts/install")
    return path


def current_fuse_overlayfs():
    """fuse-overlayfs as its authors release it now, which Debian does not have yet: built once, then kept."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    root = f"{cache}/layerfs-compare/fuse-overlayfs-{FUSE_OVERLAYFS}"
    program = f"{root}/bin/fuse-overlayfs"
    if os.path.exists(program):
        return program
    say(f"building fuse-overlayfs {FUSE_OVERLAYFS} into {root}")
    cargo = shutil.which("cargo") or os.path.expanduser("~/.cargo/bin/cargo")
    install = ["install", "--quiet", "--locked", "--version", FUSE_OVERLAYFS, "--root", root, "fuse-overlayfs"]
    if subprocess.run([cargo, *install], check=False).returncode != 0:
        say(f"fuse-overlayfs {FUSE_OVERLAYFS} cannot be built, so nothing is compared with it")
        return None
    return program


def fuse_overlayfs_programs(given):
    """Those that were given, else Debian's and the current one, each with its version."""
    programs = given or [path for path in (found("fuse-overlayfs"), current_fuse_overlayfs()) if path]
    return [(path, version_of(path)) for path in programs]


def version_of(program):
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"fuse-overlayfs\D*([\d.]+)", said)[1]
