#!/usr/bin/env python3
"""Writes the diffIDs that the zstd layers of an OCI layout really have into its config: true_diff_ids.py LAYOUT

skopeo up to 1.9 changes tars while it makes zstd:chunked of them: it cuts off padding and fills holes.
"""

import hashlib
import json
import pathlib
import subprocess
import sys


def main(layout):
    layout = pathlib.Path(layout)

    def blob(digest):
        return layout / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def replace(descriptor, document):
        data = json.dumps(document).encode()
        descriptor["digest"] = "sha256:" + hashlib.sha256(data).hexdigest()
        descriptor["size"] = len(data)
        blob(descriptor["digest"]).write_bytes(data)

    index = json.loads((layout / "index.json").read_bytes())
    manifest = json.loads(blob(index["manifests"][0]["digest"]).read_bytes())
    config = json.loads(blob(manifest["config"]["digest"]).read_bytes())
    config["rootfs"]["diff_ids"] = [
        "sha256:" + hashlib.sha256(subprocess.check_output(["zstd", "-dcq", blob(layer["digest"])])).hexdigest()
        for layer in manifest["layers"]
    ]
    replace(manifest["config"], config)
    replace(index["manifests"][0], manifest)
    (layout / "index.json").write_text(json.dumps(index))


if __name__ == "__main__":
    main(*sys.argv[1:])
