"""OCI layouts of images that are made up."""

import gzip
import hashlib
import json
import os

LAYER = "application/vnd.oci.image.layer.v1.tar"


class Layout:
    """A layout of one image, which gets its layers one after the other, base first."""

    def __init__(self, path):
        self.path = path
        self.layers, self.diff_ids = [], []
        os.makedirs(f"{path}/blobs/sha256")

    def add(self, content, **more):
        digest = hashlib.sha256(content).hexdigest()
        with open(f"{self.path}/blobs/sha256/{digest}", "wb") as file:
            file.write(content)
        return {"digest": f"sha256:{digest}", "size": len(content), **more}

    def add_layer(self, tar, gzipped):
        self.diff_ids.append(f"sha256:{hashlib.sha256(tar).hexdigest()}")
        if gzipped:
            self.layers.append(self.add(gzip.compress(tar, 1, mtime=0), mediaType=f"{LAYER}+gzip"))
        else:
            self.layers.append(self.add(tar, mediaType=LAYER))

    def finish(self):
        """Makes an image of the layers."""
        machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
        rootfs = {"type": "layers", "diff_ids": self.diff_ids}
        config = {"architecture": machine, "os": "linux", "config": {}, "rootfs": rootfs}
        config = self.add(json.dumps(config).encode(), mediaType="application/vnd.oci.image.config.v1+json")
        manifest = {"schemaVersion": 2, "config": config, "layers": self.layers}
        manifest = self.add(json.dumps(manifest).encode(), mediaType="application/vnd.oci.image.manifest.v1+json")
        self.write("index.json", {"schemaVersion": 2, "manifests": [manifest]})
        self.write("oci-layout", {"imageLayoutVersion": "1.0.0"})

    def write(self, name, document):
        with open(f"{self.path}/{name}", "w", encoding="utf-8") as file:
            json.dump(document, file)
