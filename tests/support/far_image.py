#!/usr/bin/env python3
"""Makes an OCI layout of an image that does not compress, so that whoever reads one file of it needs little of the rest.

    far_image.py DIR        DIR/oci, tag `latest`, and DIR/files: what is in it

Two layers, each with eight files of 2 MiB, called lower/0 to lower/7 and upper/0 to upper/7; the same each time.
"""

import gzip
import hashlib
import io
import json
import os
import random
import sys
import tarfile

FILES, FILE_BYTES = 8, 2 << 20
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def layer(place, name):
    """The tar of a layer; its files are in `place` afterwards, too."""
    noise, tar = random.Random(name), io.BytesIO()
    os.makedirs(f"{place}/files/{name}")
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        directory = tarfile.TarInfo(name)
        directory.type, directory.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(directory)
        for number in range(FILES):
            content = noise.randbytes(FILE_BYTES)
            with open(f"{place}/files/{name}/{number}", "wb") as file:
                file.write(content)
            info = tarfile.TarInfo(f"{name}/{number}")
            info.size = FILE_BYTES
            archive.addfile(info, io.BytesIO(content))
    return tar.getvalue()


def main():
    place = sys.argv[1]
    blobs = f"{place}/oci/blobs/sha256"
    os.makedirs(blobs)

    def put(content, media_type):
        digest = hashlib.sha256(content).hexdigest()
        with open(f"{blobs}/{digest}", "wb") as file:
            file.write(content)
        return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": f"sha256:{digest}", "size": len(content)}

    def document(value, media_type):
        return put(json.dumps(value).encode(), media_type)

    tars = [layer(place, name) for name in ("lower", "upper")]
    layers = [put(gzip.compress(tar, 1, mtime=0), "layer.v1.tar+gzip") for tar in tars]
    diff_ids = [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars]
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    machine = {"architecture": MACHINES[os.uname().machine], "os": "linux"}
    config = document({**machine, "config": {}, "rootfs": rootfs}, "config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}
    manifest = document({**manifest, "config": config, "layers": layers}, "manifest.v1+json")
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    for name, value in {
        "index.json": {"schemaVersion": 2, "manifests": [manifest]},
        "oci-layout": {"imageLayoutVersion": "1.0.0"},
    }.items():
        with open(f"{place}/oci/{name}", "w", encoding="utf-8") as file:
            json.dump(value, file)


if __name__ == "__main__":
    main()
