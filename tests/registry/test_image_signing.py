"""Signing images, in the embedded registry and a real one, where another tool reads what was made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest
from image_signing.images import FOLDER
from registry.running import params
from signing.conftest import certificates, keys, signer, signer_of
from signing.golden import MODULE, golden

from kmm.contract import Access, Credential, Tls
from kmm.image_signing import image
from kmm.image_signing.image import Named
from kmm.oci import layers
from kmm.oci.address import Addresses, parse_networks
from kmm.oci.client import Client
from kmm.oci.reference import parse
from kmm.oci.session import Session

__all__ = ["certificates", "keys", "signer", "signer_of"]

SIGNED = MODULE + golden("self-sha256.signature")
PATH = f"/{FOLDER}/acme.ko"
LAYERS = [{"/base": b"base"}, {PATH: MODULE}]

pytestmark = pytest.mark.parametrize("registry", params("basic", "bearer"), indirect=True)


@pytest.fixture
def named(registry):
    """Name an image of the registry."""
    session = Session(Addresses(allowed=parse_networks(["127.0.0.0/8"])), environ={})
    credentials = (Credential(username=registry.user, password=registry.password),)
    access = Access(credentials=credentials, tls=Tls(insecure=not registry.ca_pem), ca_pem=registry.ca_pem or None)

    def name(text):
        client = Client(registry.host, access, session=session, deadline_s=120)
        return Named(client=client, reference=parse(f"{registry.host}/{text}"))

    yield name
    session.close()


def contents(named, text, *paths):
    found = named(text)
    manifest = found.client.manifest(found.reference).manifest
    openers = [lambda each=each: found.client.blob(found.reference.name, each) for each in manifest.layers]
    return layers.find(openers, paths)


@pytest.fixture
def copied(registry, tmp_path):
    """Have skopeo copy an image of a real registry, which verifies all of it; return its manifest.

    None where skopeo is not installed.
    """
    skopeo = None if registry.embedded else shutil.which("skopeo")
    (tmp_path / "ca.crt").write_text(registry.ca_pem)
    (tmp_path / "policy.json").write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))

    def copy(text):
        if skopeo is None:
            return None
        subprocess.run(
            [
                skopeo,
                *("--policy", tmp_path / "policy.json", "--tmpdir", tmp_path, "copy", "--quiet", "--all"),
                *("--src-creds", f"{registry.user}:{registry.password}", "--src-cert-dir", tmp_path),
                *(() if registry.ca_pem else ("--src-tls-verify=false",)),
                *(f"docker://{registry.host}/{text}", f"dir:{tmp_path / 'copy'}"),
            ],
            check=True,
            env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        )
        return json.loads((tmp_path / "copy/manifest.json").read_bytes())

    return copy


@pytest.mark.parametrize("docker", [False, True])
def test_an_image_is_signed_within_a_repository_and_into_another(
    registry, repository, named, signer, signer_of, copied, docker
):
    registry.push_image(f"{repository}:1", layers=LAYERS, docker=docker)
    for target in (f"{repository}:1-signed", f"{repository}-signed:1"):
        outcome = image.sign(named(f"{repository}:1"), named(target), [PATH], signer)
        assert contents(named, target, PATH, "/base") == {PATH: SIGNED, "/base": b"base"}
        assert image.sign(named(f"{repository}:1"), named(target), [PATH], signer).already
        if (manifest := copied(target)) is not None:
            assert f"sha256:{digest(manifest, named(target))}" == outcome.digest
    rotated = image.sign(named(f"{repository}:1"), named(target), [PATH], signer_of("issued"))
    assert not rotated.already
    assert contents(named, target, PATH) == {PATH: MODULE + golden("issued-sha256.signature")}


def digest(manifest, at):
    """Return the digest of what the registry has, which is what was copied."""
    found = at.client.manifest(at.reference)
    assert json.loads(found.data) == manifest
    return found.digest.partition(":")[2]


@pytest.mark.parametrize("docker", [False, True])
def test_an_index_is_signed(registry, repository, named, signer, copied, docker):
    digests = {
        architecture: registry.push_image(
            f"{repository}:{architecture}", layers=LAYERS, architecture=architecture, docker=docker
        )
        for architecture in ("amd64", "arm64")
    }
    digests["s390x"] = registry.push_image(f"{repository}:s", {"/other": b""}, architecture="s390x", docker=docker)
    registry.push_index(f"{repository}:all", digests, docker=docker)
    target = f"{repository}-signed:all"
    outcome = image.sign(named(f"{repository}:all"), named(target), [f"/{FOLDER}/*.ko"], signer)
    assert sorted(outcome.files) == ["linux/amd64", "linux/arm64"]
    at = named(target)
    index = at.client.manifest(at.reference)
    assert index.architectures == ("amd64", "arm64", "s390x")
    for architecture in digests:
        entry = index.manifest.choose(architecture)
        found = contents(named, f"{repository}-signed@{entry.digest}", PATH)
        assert found == ({} if architecture == "s390x" else {PATH: SIGNED})
    assert image.sign(named(f"{repository}:all"), at, [f"/{FOLDER}/*.ko"], signer).already
    if (manifest := copied(target)) is not None:
        assert json.loads(index.data) == manifest
