#!/usr/bin/env python3
"""Rewrites a docker-archive with its layers compressed by a command: packed_archive.py COMMAND FROM TO

The command reads the standard input and writes the standard output of a shell.
"""

import io
import json
import subprocess
import sys
import tarfile


def main(command, source, target):
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        manifest = json.load(old.extractfile("manifest.json"))
        for image in manifest:
            add(new, image["Config"], old.extractfile(image["Config"]).read())
            for number, layer in enumerate(image["Layers"]):
                content = old.extractfile(layer).read()
                packed = subprocess.run(["bash", "-o", "pipefail", "-c", command], input=content,
                                        stdout=subprocess.PIPE, check=True)
                image["Layers"][number] = f"{number:03d}-layer.tar.packed"
                add(new, image["Layers"][number], packed.stdout)
        add(new, "manifest.json", json.dumps(manifest).encode())


def add(new, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    new.addfile(info, io.BytesIO(data))


if __name__ == "__main__":
    main(*sys.argv[1:])
