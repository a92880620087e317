#!/usr/bin/env python3
"""Makes a docker-archive with one layer.

    archive.py DIR OUT                     the layer is the tree DIR
    archive.py --devices DIR OUT           the same, and in /nodes a disk, the memory, and /dev/zero
    archive.py --files COUNT EACH OUT      the layer has COUNT files of a few bytes, EACH in a directory
"""

import hashlib
import io
import json
import sys
import tarfile
import tempfile

def member(name, kind=tarfile.REGTYPE, size=0):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mtime = kind, size, 1_000_000_000
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    return info


def many_files(layer, count, each):
    for number in range(count):
        directory = f"many/{number // each:05}"
        if number % each == 0:
            layer.addfile(member(directory, tarfile.DIRTYPE))
        text = b"%d\n" % number
        layer.addfile(member(f"{directory}/file-{number:07}", size=len(text)), io.BytesIO(text))


def devices(layer):
    nodes = {"sda": (tarfile.BLKTYPE, 8, 0), "mem": (tarfile.CHRTYPE, 1, 1), "zero": (tarfile.CHRTYPE, 1, 5)}
    for name, (kind, major, minor) in nodes.items():
        node = member(f"nodes/{name}", kind)
        node.devmajor, node.devminor, node.mode = major, minor, 0o666
        layer.addfile(node)


def main():
    with_devices = sys.argv[1] == "--devices"
    words = sys.argv[2:] if with_devices else sys.argv[1:]
    source, out = words if len(words) == 2 else (None, words[3])
    with tempfile.TemporaryFile(dir=out.rsplit("/", 1)[0]) as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as layer:
            if source is None:
                many_files(layer, int(words[1]), int(words[2]))
            else:
                layer.add(source, arcname=".")
            if with_devices:
                devices(layer)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
        file.seek(0)
        config = json.dumps({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }).encode()
        name = hashlib.sha256(config).hexdigest()
        manifest = [{"Config": f"{name}.json", "RepoTags": ["test:latest"], "Layers": [f"{digest}/layer.tar"]}]
        manifest = json.dumps(manifest).encode()
        with tarfile.open(out, "w") as archive:
            archive.addfile(member(f"{name}.json", size=len(config)), io.BytesIO(config))
            archive.addfile(member(f"{digest}/layer.tar", size=size), file)
            archive.addfile(member("manifest.json", size=len(manifest)), io.BytesIO(manifest))


if __name__ == "__main__":
    main()
