"""Images and indexes, as they are pushed and found."""

from __future__ import annotations


def test_an_image_is_pushed_and_found(registry, repository):
    digest = registry.push_image(f"{repository}:1", {"/opt/x.ko": b"x" * 1000})
    found = registry.client().manifest(repository, "1")
    assert (found.status, found.headers["Docker-Content-Digest"]) == (200, digest)
    index = registry.push_index(f"{repository}:all", {"amd64": digest})
    assert registry.client().manifest(repository, "all").headers["Docker-Content-Digest"] == index
