#!/usr/bin/env bash
# An image in every form that podman, buildah and skopeo write, and what umoci makes of it: forms.sh OUT, as root.
# Prints the forms; `expected` is the tree.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$1 archive=$1/archive.tar
mkdir -p "$out/tree/etc" "$out/tree/bin"
storage=(--root "$out/storage" --runroot "$out/run" --storage-driver vfs)
export BUILDAH_ISOLATION=chroot
engine() { podman "${storage[@]}" --cgroup-manager cgroupfs "$@" >/dev/null; }
form() { echo "$1"; }

# Two layers: a tree with links and odd modes, and one that changes and deletes.
printf 'root:x:0:0::/:/bin/sh\n' >"$out/tree/etc/passwd"
seq 100000 >"$out/tree/bin/large"
ln "$out/tree/bin/large" "$out/tree/bin/linked"
ln -s ../bin/large "$out/tree/etc/soft"
install -m 4711 -o 1000 -g 50 /dev/null "$out/tree/bin/setuid"
mkdir "$out/tree/gone" && touch "$out/tree/gone/file"
python3 "$here/archive.py" "$out/tree" "$archive"
engine load -q -i "$archive"
id=$(podman "${storage[@]}" images -q --no-trunc)
container=$(buildah "${storage[@]}" from --pull-never "$id")
mounted=$(buildah "${storage[@]}" mount "$container")
rm -r "$mounted/gone"
chmod 700 "$mounted/etc"
echo more >"$mounted/etc/more"
buildah "${storage[@]}" config --env A=b --entrypoint '["/bin/sh"]' --cmd x --user 1000:50 --port 80 --volume /v --workingdir /w --label a=b \
  --stop-signal SIGINT --author somebody --annotation c=d --shell '/bin/sh -c' "$container" 2>/dev/null
id=$(buildah "${storage[@]}" commit -q --rm "$container" first:one)
engine tag "$id" second:two
for format in docker-archive oci-archive oci-dir; do
  engine save -q --format "$format" -o "$out/podman-$format" first:one
  form "podman-$format"
done
engine save -q --format docker-archive --uncompressed -o "$out/podman-plain" first:one
form podman-plain
engine save -q -m -o "$out/podman-several" first:one second:two
form podman-several:second:two
for format in oci docker; do
  for transport in oci oci-archive docker-archive; do
    # Each takes only manifests of its own kind.
    case $format-$transport in oci-docker-archive | docker-oci*) continue ;; esac
    buildah "${storage[@]}" push -q --format "$format" "$id" "$transport:$out/buildah-$format-$transport:name:tag" >/dev/null
    form "buildah-$format-$transport"
  done
done
rm "$archive"
mv "$out/podman-plain" "$archive"
ln "$archive" "$out/podman-plain"
copy() { skopeo copy -q --insecure-policy "$@"; }
copy "docker-archive:$archive" "oci:$out/skopeo-oci:tag"
form skopeo-oci:tag
copy --dest-oci-accept-uncompressed-layers "docker-archive:$archive" "oci:$out/skopeo-plain:tag"
form skopeo-plain
copy --format oci "docker-archive:$archive" "oci-archive:$out/skopeo-archive:tag"
form skopeo-archive
copy --additional-tag third:three "docker-archive:$archive" "docker-archive:$out/skopeo-tags:first:one"
form skopeo-tags:third:three
# Several images in one layout: the same under two names, and another.
copy "docker-archive:$archive" "oci:$out/skopeo-oci:other"
form skopeo-oci:other
copy "docker-archive:$archive" "dir:$out/skopeo-dir"
umoci unpack --image "$out/skopeo-oci:tag" "$out/bundle" >/dev/null
mv "$out/bundle/rootfs" "$out/expected"
rm -rf "$out/storage" "$out/run"
