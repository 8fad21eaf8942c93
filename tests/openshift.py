"""What OpenShift adds to a cluster, as far as it is used: Builds and ImageStreams, with the fields that we know.

Any other field is refused where it is asked to be (`fieldValidation=Strict`), so that a misspelt one is noticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apiserver.client import Api, eventually
from apiserver.conftest import register
from apiserver.samples import DEFINITIONS

BUILDS, IMAGES = "/apis/build.openshift.io/v1", "/apis/image.openshift.io/v1"
STREAMS = f"{IMAGES}/namespaces/openshift/imagestreams"
STREAM = "driver-toolkit"
OLD, NEW = "416.94.202405291527-0", "417.94.202410211619-0"
TOOLKIT = "quay.io/openshift-release-dev/ocp-v4.0-art-dev:"
TEXT: dict[str, Any] = {"type": "string"}
FREE: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def record(**fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": fields}


def many(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


def texts() -> dict[str, Any]:
    return {"type": "object", "additionalProperties": TEXT}


NAMED = record(name=TEXT)
REFERENCE = record(kind=TEXT, name=TEXT, namespace=TEXT)
FLAG, COUNT = {"type": "boolean"}, {"type": "integer"}
VOLUME = record(
    name=TEXT,
    source=record(type={**TEXT, "enum": ["Secret", "ConfigMap"]}, secret=record(secretName=TEXT, optional=FLAG)),
    mounts=many(record(destinationPath=TEXT)),
)
BUILD = record(
    spec=record(
        serviceAccount=TEXT,
        source=record(type=TEXT, dockerfile=TEXT),
        strategy=record(
            type=TEXT,
            dockerStrategy=record(
                pullSecret=NAMED, buildArgs=many(record(name=TEXT, value=TEXT)), volumes=many(VOLUME)
            ),
        ),
        output=record(to=REFERENCE, pushSecret=NAMED, imageLabels=many(record(name=TEXT, value=TEXT))),
        resources=record(limits=texts(), requests=texts()),
        completionDeadlineSeconds=COUNT,
        nodeSelector=texts(),
        mountTrustedCA=FLAG,
    ),
    status=record(
        phase=TEXT,
        cancelled=FLAG,
        reason=TEXT,
        message=TEXT,
        logSnippet=TEXT,
        startTimestamp=TEXT,
        completionTimestamp=TEXT,
        output=FREE,
    ),
)
SEEN = record(created=TEXT, dockerImageReference=TEXT, image=TEXT, generation=COUNT)
IMAGE_STREAM = record(
    spec=record(tags=many({**record(name=TEXT), "properties": {"name": TEXT, "from": REFERENCE}})),
    status=record(dockerImageRepository=TEXT, tags=many(record(tag=TEXT, items=many(SEEN)))),
)


def definition(kind: str, group: str, schema: dict[str, Any]) -> dict[str, Any]:
    plural = f"{kind.lower()}s"
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            # Groups of others may only be defined by who says so.
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
        },
        "spec": {
            "group": group,
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "scope": "Namespaced",
            "versions": [version],
        },
    }


def add_builds(api: Api) -> None:
    register(api, definition("Build", "build.openshift.io", BUILD))


def add_image_streams(api: Api) -> None:
    register(api, definition("ImageStream", "image.openshift.io", IMAGE_STREAM))
    assert api.post("/api/v1/namespaces", {"metadata": {"name": "openshift"}}).code in (201, 409)


def remove(api: Api) -> None:
    """Make it plain Kubernetes again."""
    for name in ("builds.build.openshift.io", "imagestreams.image.openshift.io"):
        api.delete(f"{DEFINITIONS}/{name}")
    for path in (BUILDS, IMAGES):
        eventually(lambda path=path: api.get(path).code == 404, f"{path} is gone")


def set_toolkits(api: Api, images: Mapping[str, str]) -> None:
    """Let OpenShift list these toolkits, by release, and the last of them as `latest`."""
    tags = [{"name": name, "from": {"kind": "DockerImage", "name": image}} for name, image in images.items()]
    if images:
        tags.append({**tags[-1], "name": "latest"})
    body = {
        "apiVersion": "image.openshift.io/v1",
        "kind": "ImageStream",
        "metadata": {"name": STREAM},
        "spec": {"tags": tags},
    }
    if api.get(f"{STREAMS}/{STREAM}").code == 200:
        assert api.patch(f"{STREAMS}/{STREAM}", {"spec": {"tags": tags}}).code == 200
    else:
        answer = api.post(STREAMS, body)
        assert answer.code == 201, answer.body


def builds(namespace: str) -> str:
    return f"{BUILDS}/namespaces/{namespace}/builds"


def say(api: Api, build: Mapping[str, Any], phase: str, **status: Any) -> None:
    """Let OpenShift say how far a Build has come."""
    meta = build["metadata"]
    answer = api.patch(f"{builds(meta['namespace'])}/{meta['name']}", {"status": {"phase": phase, **status}})
    assert answer.code == 200, answer.body
