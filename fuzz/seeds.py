#!/usr/bin/env python3
"""Writes what the fuzz targets start from into fuzz/seeds, a directory for each: small, and the same every time.

Files of seeds/TARGET that are called `found-*` once broke something; they are kept, not written.
"""

import bz2
import gzip
import hashlib
import json
import lzma
import os
import sys
import tarfile
import zlib

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "seeds")


def keep(target, name, data):
    path = os.path.join(OUT, target, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)


def entry(name, kind=b"0", data=b"", link="", pax=None, form=tarfile.PAX_FORMAT):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.mtime = kind, len(data), link, 0
    info.pax_headers = pax or {}
    blocks = info.tobuf(form, "utf-8", "surrogateescape")
    return blocks + data + b"\0" * (-len(data) % 512)


END = b"\0" * 1024


def tars():
    """Each kind of entry once, and the forms that readers differ about."""
    gnu = tarfile.GNU_FORMAT
    sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "holes", "GNU.sparse.realsize": "9000"}
    map_in_data = b"1\n8192\n5\n".ljust(512, b"\0") + b"hello"
    old = bytearray(entry("old", b"S", b"data!", form=gnu))
    old[386:410] = b"00000000000\0" + b"00000000005\0"
    old[483:495] = b"00000020000\0"
    blank = old[:148] + b" " * 8 + old[156:512]
    old[148:156] = b"%06o\0 " % sum(blank)
    return {
        "kinds": entry("d", b"5") + entry("d/f", data=b"content") + entry("d/l", b"1", link="d/f")
        + entry("s", b"2", link="d/../d") + entry("s/through", data=b"x") + entry("p", b"6") + entry("c", b"3") + entry("b", b"4"),
        "whiteouts": entry("a/.wh.x") + entry("a/x", b"5") + entry("a/.wh..wh..opq") + entry(".wh.y", b"1", link=".wh.y") + entry(".wh..wh.plnk/1"),
        "links": entry("f", b"1", link="later") + entry("c1", b"1", link="c2") + entry("c2", b"1", link="c1") + entry("later", data=b"x")
        + entry("below", b"1", link="not/here"),
        "loops": entry("a", b"2", link="b") + entry("b", b"2", link="a") + entry("a/x", data=b"x"),
        "duplicates": entry("x", data=b"1") + entry("x", b"5") + entry("x/y") + entry("x", data=b"2") + entry("./x/../../x/", b"5"),
        "pax": entry("p", data=b"x", pax={"mtime": "-1.5", "uid": "4294967294", "SCHILY.xattr.user.a": "b", "path": "long/" * 30 + "p"})
        + entry("l", b"2", pax={"linkpath": "q" * 200}),
        "global": b"".join([entry("pax", b"g", b"11 size=99\n"), entry("f", data=b"x")]),
        "gnu": entry("n" * 150, data=b"x", form=gnu) + entry("k", b"2", link="m" * 150, form=gnu),
        "sparse-1.0": entry("x", data=map_in_data, pax=sparse),
        "sparse-0.1": entry("x", data=b"hello", pax={"GNU.sparse.map": "0,2,8000,3", "GNU.sparse.size": "9000"}),
        "sparse-old": bytes(old),
    }


def deflate(data, level=6, strategy=zlib.Z_DEFAULT_STRATEGY):
    packer = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
    return packer.compress(data) + packer.flush()


def zstd(data):
    """A frame with a window of 1 MiB, of raw blocks."""
    pieces = [data[at:at + 1000] for at in range(0, len(data), 1000)]
    head = lambda number, piece: (len(piece) << 3 | (number == len(pieces) - 1)).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd\x00\x50" + b"".join(head(number, piece) + piece for number, piece in enumerate(pieces))


def oci():
    """Documents as fuzz_targets/manifest.rs takes them: blobs, then the index."""
    digest = lambda number: "sha256:" + str(number) * 64
    size = lambda number: int(f"9000000{number}")
    point = lambda number, media, **more: {"mediaType": media, "digest": digest(number), "size": size(number), **more}
    config = {
        "architecture": "amd64", "os": "linux", "created": "2024-01-01T00:00:00Z", "author": "x", "variant": "v1", "os.version": "1", "os.features": ["a"],
        "config": {
            "User": "1000:1000", "ExposedPorts": {"80/tcp": {}}, "Env": ["A=b", "PATH=/bin"], "Entrypoint": ["/e"], "Cmd": ["c"], "Volumes": {"/v": {}},
            "WorkingDir": "/w", "Labels": {"a": "b"}, "StopSignal": "SIGINT", "ArgsEscaped": True, "Memory": 1, "Healthcheck": {"Test": ["NONE"], "Interval": 1},
            "OnBuild": ["RUN x"], "Shell": ["/bin/sh"],
        },
        "rootfs": {"type": "layers", "diff_ids": [digest(0)]}, "history": [{"created_by": "x", "empty_layer": True}],
    }
    manifest = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": point(1, "application/vnd.oci.image.config.v1+json"), "layers": [point(0, "application/vnd.oci.image.layer.v1.tar")],
    }
    docker = {
        "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": point(1, "application/vnd.docker.container.image.v1+json"), "layers": [point(0, "application/vnd.docker.image.rootfs.diff.tar.gzip")],
    }
    name = {"annotations": {"org.opencontainers.image.ref.name": "latest"}}
    index = lambda *entries: {"schemaVersion": 2, "manifests": list(entries)}
    oci_manifest, oci_index = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
    platform = lambda arch: {"platform": {"os": "linux", "architecture": arch}}
    pack = lambda *documents: b"\0".join(document if isinstance(document, bytes) else json.dumps(document).encode() for document in documents)
    layer = b"layer"
    return {
        "one": pack(layer, config, manifest, index(point(2, oci_manifest, **name))),
        "docker": pack(layer, config, docker, index(point(2, docker["mediaType"], **name))),
        "nested": pack(layer, config, manifest, index(point(2, oci_manifest, **platform("amd64")), point(2, oci_manifest, **platform("arm64"))),
                       index(point(3, oci_index, **name))),
        "several": pack(layer, config, manifest, index(point(2, oci_manifest), point(2, oci_manifest, **name))),
    }


def docker_archives():
    hexed = lambda data: hashlib.sha256(data).hexdigest()
    layer = entry("f", data=b"content") + END
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hexed(layer)]}}).encode()
    manifest = lambda name, *layers: json.dumps([{"Config": name, "RepoTags": ["x:latest"], "Layers": list(layers)}]).encode()
    old = lambda kind, link="": entry("b" * 64 + "/layer.tar", kind, link=link)
    legacy = {"id": "b" * 64, "parent": "a" * 64, "os": "linux", "config": {"Cmd": ["x"]}, "container_config": {}}
    return {
        "plain": entry("config.json", data=config) + entry("l.tar", data=layer) + entry("manifest.json", data=manifest("config.json", "l.tar")) + END,
        "named": entry(hexed(config) + ".json", data=config) + entry("l.tar", data=layer) + entry("manifest.json", data=manifest(hexed(config) + ".json", "l.tar")) + END,
        "symlinked": entry("config.json", data=config) + entry("a" * 64 + "/layer.tar", data=layer) + old(b"2", "../" + "a" * 64 + "/layer.tar")
        + entry("manifest.json", data=manifest("config.json", "b" * 64 + "/layer.tar")) + END,
        "gzip": entry("config.json", data=config) + entry("l", data=gzip.compress(layer, mtime=0)) + entry("manifest.json", data=manifest("config.json", "l")) + END,
        "oldest": entry("a" * 64 + "/json", data=json.dumps({**legacy, "id": "a" * 64, "parent": ""}).encode()) + entry("a" * 64 + "/layer.tar", data=layer)
        + entry("b" * 64 + "/VERSION", data=b"1.0") + entry("b" * 64 + "/json", data=json.dumps(legacy).encode()) + old(b"1", "a" * 64 + "/layer.tar")
        + entry("repositories", data=json.dumps({"x": {"latest": "b" * 64}}).encode()) + END,
    }


def registry_files():
    """The first byte says which of both it is."""
    auth = {"auths": {"r.io:5000": {"auth": "bWU6eA=="}, "r.io/a": {"identitytoken": "t"}, "https://index.docker.io/v1/": {"username": "a", "password": "b"}}, "x": [1]}
    registries = """unqualified-search-registries = ["r.io"]
short-name-mode = "permissive"
credential-helpers = ["containers-auth.json"]
[aliases]
"a" = "r.io/a"
[[registry]]
prefix = "*.r.io"
insecure = true
[[registry]]
prefix = "docker.io/library"
location = "r.io:5000/hub"
blocked = false
[[registry.mirror]]
location = "m.io"
pull-from-mirror = "digest-only"
"""
    return {"auth": b"\0" + json.dumps(auth).encode(), "empty": b"\0", "registries": b"\1" + registries.encode()}


def tables():
    """As fuzz_targets/toc.rs takes them: the first byte says of which format, and these are the chunks that are there."""
    header, chunks = b"a header", [b"the first chunk", b"and the second"]
    name = lambda data: "sha256:" + hashlib.sha256(data).hexdigest()
    whole = b"".join(chunks)
    time = "2001-02-03T04:05:06Z"
    others = [
        {"name": "d/", "type": "dir", "mode": 0o755, "modtime": time, "xattrs": {"user.a": "Yg=="}},
        {"name": "d/l", "type": "hardlink", "linkName": "f"}, {"name": "s", "type": "symlink", "linkName": "d/../f", "uid": 1000, "gid": 1000},
        {"name": "c", "type": "char", "devMajor": 1, "devMinor": 3}, {"name": "b", "type": "block"}, {"name": "p", "type": "fifo"},
        {"name": "d/.wh.x", "type": "reg"}, {"name": "d/.wh..wh..opq", "type": "reg", "digest": name(b"")},
    ]
    document = lambda entries: json.dumps({"version": 1, "entries": entries}).encode()
    # Where each chunk begins: behind gzip members or zstd frames of one block that is copied.
    member = lambda data: 10 + 5 + len(data) + 8
    frame = lambda data: 12 + len(data)
    file = {"name": "f", "type": "reg", "size": len(whole), "digest": name(whole), "mode": 0o4755, "modtime": time}
    more = {"name": "f", "type": "chunk", "chunkOffset": len(chunks[0]), "chunkSize": len(chunks[1]), "chunkDigest": name(chunks[1])}
    first = {"chunkSize": len(chunks[0]), "chunkDigest": name(chunks[0])}
    gzipped = [{"offset": member(header)}, {"offset": member(header) + member(chunks[0])}]
    second = frame(header) + frame(chunks[0])
    framed = [{"offset": frame(header), "endOffset": second}, {"offset": second, "endOffset": second + frame(chunks[1])}]
    short = {"name": "z", "type": "reg", "size": len(chunks[0]) + 3, "digest": name(chunks[0] + b"\0\0\0")}
    zeros = {"name": "z", "type": "chunk", "chunkType": "zeros", "chunkOffset": len(chunks[0]), "chunkSize": 3}
    return {
        "estargz": b"\0" + document([{**file, **first, **gzipped[0]}, {**more, **gzipped[1]}, *others]),
        "estargz-empty": b"\0" + document(None),
        "zstd": b"\1" + document([{**file, **first, **framed[0]}, {**more, **framed[1]}, *others]),
        "zstd-zeros": b"\1" + document([{**short, **first, **framed[0]}, zeros]),
    }


def main():
    for target in os.listdir(OUT) if os.path.isdir(OUT) else []:
        for name in os.listdir(os.path.join(OUT, target)):
            if not name.startswith("found-"):
                os.unlink(os.path.join(OUT, target, name))
    archives = tars()
    for name, data in archives.items():
        keep("tar", name, data + END)
        # The first byte says that the rest is a blob, without the magic.
        keep("gzip", "blob-" + name, b"\0" + gzip.compress(data + END, mtime=0)[3:])
        # The first byte says that the blob has its own magic.
        for kind, pack in (("bzip2", bz2.compress), ("xz", lzma.compress), ("zstd", zstd)):
            if name in ("kinds", "links"):
                keep("compressed", f"{kind}-{name}", b"\x04" + pack(data + END))
    keep("compressed", "zstd-frames", b"\x04" + zstd(archives["pax"]) + b"\x50\x2a\x4d\x18\x02\0\0\0ab" + zstd(END))
    noise = b"".join(hashlib.sha256(bytes([number])).digest() for number in range(200))
    text = b"the same again and again, " * 500
    for name, stream in {
        "stored": deflate(noise, 0), "fixed": deflate(text, 9, zlib.Z_FIXED), "dynamic": deflate(noise + text), "empty": deflate(b""),
        "runs": deflate(b"\0" * 2_000_000), "far": deflate(noise + text + noise), "huffman": deflate(text, 6, zlib.Z_HUFFMAN_ONLY),
    }.items():
        keep("gzip", "stream-" + name, b"\x80" + stream)
    for name, data in {"nothing": b"", "root": b"\x40\x10\x05", "many": bytes(range(240))}.items():
        keep("index_view", name, data)
    for name, data in oci().items():
        keep("manifest", name, data)
    for name, data in docker_archives().items():
        keep("docker_archive", name, data)
    for name, data in registry_files().items():
        keep("registry_files", name, data)
    for name, data in tables().items():
        keep("toc", name, data)


if __name__ == "__main__":
    sys.exit(main())
