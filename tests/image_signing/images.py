"""Images in a registry of this process, their modules, and what signing made of them."""

from __future__ import annotations

import gzip
import io
import json
import tarfile

from oci.test_layers import tar

from kmm.oci import layers, manifest
from kmm.oci.reference import parse

FOLDER = "opt/lib/modules/6.1.0"


def packed(*entries):
    """Make a layer as builders push it: see oci.test_layers.tar."""
    return gzip.compress(tar(*entries), mtime=0)


def pulled(served, name):
    """Return the manifest (or index) of an image as JSON."""
    return json.loads(served.client().manifest(served.reference(name)).data)


def configuration(served, name):
    """Return the configuration of an image as JSON."""
    return json.loads(blob(served, name, pulled(served, name)["config"]))


def blob(served, name, entry):
    """Return a blob that a manifest names."""
    descriptor = manifest.Descriptor(media_type="", digest=entry["digest"], size=entry["size"])
    with served.client().blob(parse(f"{served.registry.host}/{name}").name, descriptor) as stream:
        return b"".join(stream)


def top(served, name):
    """Return the entries of the topmost layer, and the contents of the files, by path."""
    with tarfile.open(fileobj=io.BytesIO(blob(served, name, pulled(served, name)["layers"][-1]))) as archive:
        found = {each.name: each for each in archive.getmembers()}
        return found, {name: archive.extractfile(each).read() for name, each in found.items() if each.isreg()}


def contents(served, name, *paths):
    """Return the files of an image that are at these paths."""
    client = served.client()
    image = client.manifest(served.reference(name))
    repository = served.reference(name).name
    openers = [lambda each=each: client.blob(repository, each) for each in image.manifest.layers]
    return layers.find(openers, paths)
