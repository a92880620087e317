#!/usr/bin/env python3
"""Rewrites a docker-archive so that its layers are gzip, as several builders write them: gzip-docker-archive.py FROM TO"""

import gzip
import io
import json
import sys
import tarfile


def main(source, target):
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        manifest = json.load(old.extractfile("manifest.json"))
        for image in manifest:
            copy(old, new, image["Config"], image["Config"], lambda data: data)
            names = []
            for number, layer in enumerate(image["Layers"]):
                names.append(f"{number:03d}-layer.tar.gz")
                copy(old, new, layer, names[-1], lambda data: gzip.compress(data, 6, mtime=0))
            image["Layers"] = names
        write(new, "manifest.json", json.dumps(manifest).encode())


def copy(old, new, name, new_name, change):
    # extractfile follows the links by which several names share one layer.
    write(new, new_name, change(old.extractfile(name).read()))


def write(new, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    new.addfile(info, io.BytesIO(data))


if __name__ == "__main__":
    main(*sys.argv[1:])
