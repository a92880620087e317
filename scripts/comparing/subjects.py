"""What is mounted: images, and the same unpacked, for those who cannot read images.

Those that are made up have plain layers: others get files that are unpacked already, too.
"""

import io
import os
import shutil
import tarfile

from layout import Layout

MTIME = 1704067200
FILE_BYTES = 2048
# So few that a repository of them has few objects.
CONTENTS = 50
FILES_PER_DIRECTORY = 100
MANY_FILES = 20_000
LAYERED_FILES = 3000
ENTRIES = 100_000
LARGE_FILES, LARGE_MIB = 2, 200


class Subject:
    """A tree, as directories, topmost last, and as an image. `part` is where in it the work is done."""

    def __init__(self, place, lowers, image, paths, part="."):
        self.place, self.lowers, self.image, self.paths, self.part = place, lowers, image, paths, part


class Subjects:
    """All that there are, each made when it is needed."""

    def __init__(self, runner, image):
        self.runner, self.debian_image = runner, image
        self.made = {}

    def get(self, name):
        if name not in self.made:
            kind, _, number = name.partition("-")
            make = getattr(self, kind)
            self.made[name] = make(int(number)) if number else make()
        return self.made[name]

    def debian(self):
        """Real programs and libraries. Nearly all of it: other parts have files so odd that some peers fail at them."""
        place = f"{self.runner.fresh('debian')}/bundle"
        rootless = [] if self.runner.user.pw_uid == 0 else ["--rootless"]
        self.runner.run(["umoci", "unpack", *rootless, "--image", f"{self.debian_image}/oci:latest", place])
        paths = self.listed([f"{place}/rootfs/usr"])
        # On the same filesystem as the others' tree.
        image = shutil.copy(f"{self.debian_image}/docker.tar", place)
        return Subject(place, ["rootfs"], image, paths, "usr")

    def many(self):
        """A repository of git with small files, and beside them large ones, of which it does not know."""
        place = self.runner.fresh("many")
        tree = f"{place}/0"
        self.files(tree, range(MANY_FILES))
        # Nothing of it may go on in the background.
        git = ["git", "-C", tree, "-c", "user.name=layerfs", "-c", "user.email=layerfs", "-c", "gc.auto=0"]
        self.runner.run([*git, "init", "--quiet"])
        # What differs between filesystems shall not make it read all files again.
        for setting in ("core.checkStat=minimal", "core.trustctime=false", "core.fileMode=false"):
            self.runner.run([*git, "config", *setting.split("=")])
        self.runner.run([*git, "add", "--all"])
        self.runner.run([*git, "commit", "--quiet", "--message=all"])
        with open(f"{tree}/.git/info/exclude", "a", encoding="ascii") as file:
            file.write("large-*\n")
        for number in range(LARGE_FILES):
            self.file(f"{tree}/large-{number}", os.urandom(1 << 20) * LARGE_MIB)
        return self.packed(place, 1)

    def layers(self, count):
        """Files spread over layers, so that each directory has something of each."""
        place = self.runner.fresh(f"layers-{count}")
        for number in range(count):
            self.files(f"{place}/{number}", range(number, LAYERED_FILES, count))
        return self.packed(place, count)

    def entries(self):
        """One large directory."""
        place = self.runner.fresh("entries")
        tree = self.directory(f"{place}/0")
        for number in range(ENTRIES):
            self.file(f"{tree}/entry-{number:06}", b"")
        return self.packed(place, 1)

    def files(self, tree, numbers):
        self.directory(tree)
        for number in numbers:
            directory = f"{tree}/dir-{number // FILES_PER_DIRECTORY:04}"
            if not os.path.isdir(directory):
                self.directory(directory)
            self.file(f"{directory}/file-{number:06}", f"{number % CONTENTS:06}\n".encode() * (FILE_BYTES // 7))

    def directory(self, path):
        os.mkdir(path)
        os.chown(path, self.runner.user.pw_uid, self.runner.user.pw_gid)
        return path

    def file(self, path, content):
        with open(path, "wb") as file:
            file.write(content)
        os.chown(path, self.runner.user.pw_uid, self.runner.user.pw_gid)
        os.utime(path, (MTIME, MTIME))

    def packed(self, place, count):
        layout = Layout(f"{place}/image")
        for number in range(count):
            layout.add_layer(tar_of(f"{place}/{number}"), gzipped=False)
        layout.finish()
        lowers = [str(number) for number in range(count)]
        return Subject(place, lowers, layout.path, self.listed([f"{place}/{lower}" for lower in lowers]))

    def listed(self, trees):
        """The objects of the trees, as the workloads want them, in a file."""
        lines = set()
        for tree in trees:
            for directory, dirs, files in os.walk(tree):
                dirs[:] = [name for name in dirs if name != ".git"]
                for full in (f"{directory}/{name}" for name in dirs + files):
                    if "\n" in full or not full.isascii():
                        continue
                    # What the user cannot read is of no use to a workload.
                    is_file = os.path.isfile(full) and not os.path.islink(full) and os.stat(full).st_mode & 0o400
                    lines.add(f"{'f' if is_file else '-'} {os.path.relpath(full, tree)}\n")
        path = f"{self.runner.fresh('list')}/paths"
        with open(path, "w", encoding="ascii") as file:
            file.writelines(sorted(lines, key=lambda line: line[2:]))
        return path


def tar_of(tree):
    def owned_by_root(info):
        info.uid = info.gid = 0
        info.uname = info.gname = "root"
        return info

    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(tree, arcname=".", filter=owned_by_root)
    return tar.getvalue()


def data_bytes(subject):
    """The size of all files in the part where the work is done."""
    root = f"{subject.place}/{subject.lowers[0]}/{subject.part}"
    with open(subject.paths, encoding="ascii") as paths:
        files = [line[2:-1] for line in paths if line.startswith("f ")]
    return sum(os.stat(f"{root}/{file}").st_size for file in files)
