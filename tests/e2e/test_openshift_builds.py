"""Builds of OpenShift's for real: the operator makes a Build, and buildah does what stands in it."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack

import openshift
import pytest
from apiserver.client import eventually
from e2e.build_controller import BuildController
from e2e.site import WITHIN_S, Site
from openshift import NEW, OLD
from world import NAMESPACE

from kmm.contract import INPUTS_ANNOTATION
from kmm.embedded.image import image
from kmm.embedded.program import Exit, Run

pytestmark = pytest.mark.e2e

DRIVER = "opt/driver"


@pytest.fixture(scope="module")
def site(tmp_path_factory, tools):
    async def nothing(run: Run) -> Exit:
        raise AssertionError(f"{run.pod['metadata']['name']} is a pod of ours")

    def prepare(found: Site) -> None:
        openshift.add_builds(found.api)
        openshift.add_image_streams(found.api)
        patch = {"status": {"nodeInfo": {"osImage": f"Red Hat Enterprise Linux CoreOS {OLD}"}}}
        assert found.api.patch("/api/v1/nodes/node/status", patch).code == 200

    folder = tmp_path_factory.mktemp("openshift")
    with ExitStack() as stack:
        found = Site(
            folder,
            stack,
            release=tools.kernel,
            busybox=tools.busybox,
            builder="",
            container=nothing,
            prepare=prepare,
        )
        found.controller = stack.enter_context(
            BuildController(found.api, NAMESPACE, folder / "builds", found.ca_file.parent, node=found.docker_config())
        )
        yield found


def builds(site, name):
    return [
        each
        for each in site.api.get(openshift.builds(NAMESPACE)).body["items"]
        if each["metadata"]["labels"]["kmm.node.kubernetes.io/module.name"] == name
    ]


def test_a_driver_is_built_in_the_toolkit_of_its_nodes_release_pushed_and_loaded(site):
    dockerfile = f"""
        ARG DTK_AUTO
        FROM ${{DTK_AUTO}} AS build
        ARG KERNEL_VERSION
        RUN cat /release >/built && echo " for $KERNEL_VERSION" >>/built
        FROM {site.host}/base/small:1
        COPY --from=build /built /{DRIVER}
        """
    site.apply("driver", dockerfile)
    eventually(lambda: site.kernel(site.release, "driver")["reason"] == "BaseImageMissing", "none yet", WITHIN_S)
    for release in (OLD, NEW):
        file = {"release": release.encode()}
        assert site.client.push("base/dtk", release, image([site.programs, file])).status == 201
    openshift.set_toolkits(site.api, {each: f"{site.host}/base/dtk:{each}" for each in (OLD, NEW)})
    said = site.loaded("driver")
    assert site.files("driver")[DRIVER].decode().split() == [OLD, "for", site.release]
    assert re.fullmatch("[0-9a-f]{64}", site.labels("driver")[INPUTS_ANNOTATION])
    assert said["digest"].startswith("sha256:")
    assert site.module("driver")["status"]["builder"] == "openshift-build"
    eventually(lambda: not builds(site, "driver"), "the Build is gone", WITHIN_S)


def test_secrets_are_where_run_looks_for_them_and_in_no_layer(site):
    site.secret("etc-pki-entitlement", **{"1.pem": "certificate", "1-key.pem": "open sesame"})
    site.apply(
        "entitled",
        f"""
        FROM {site.host}/base/small:1
        ARG WHAT
        RUN cat /run/secrets/etc-pki-entitlement/1.pem >/seen && echo "$WHAT" >>/seen
        """,
        secrets=[{"name": "etc-pki-entitlement"}],
        buildArgs=[{"name": "WHAT", "value": "'a b' `reboot`"}],
    )
    site.loaded("entitled")
    found = site.files("entitled")
    assert found["seen"] == b"certificate'a b' `reboot`\n"
    assert b"open sesame" not in b"".join(site.layers("entitled"))


def test_a_run_that_fails_says_why_without_what_its_secret_holds(site):
    site.secret("quoted", word="open barley")
    site.apply(
        "failing",
        f"""
        FROM {site.host}/base/small:1
        RUN echo no rule to make target: $(cat /run/secrets/quoted/word); exit 7
        """,
        secrets=[{"name": "quoted"}],
    )
    message = site.fails("failing")
    assert message.startswith("Docker build strategy has failed.: ")
    assert "no rule to make target: ***" in message
    assert "open barley" in site.controller.logs[builds(site, "failing")[0]["metadata"]["name"]], "it was said"
    eventually(lambda: site.condition("Ready", "failing").get("reason") == "BuildFailed", "Ready says so", WITHIN_S)
    for text in (json.dumps(site.module("failing")), json.dumps(site.events())):
        assert "open barley" not in text
    site.remove("failing")


def test_what_may_not_be_pushed_fails_and_says_so(site):
    site.apply("refused", "FROM scratch\nLABEL a=b", push="wrong")
    message = site.fails("refused")
    assert message.startswith("Failed to push the image to the registry.: ")
    assert "unauthorized" in message
    site.remove("refused")


def test_a_build_that_somebody_cancels_has_failed(site):
    site.apply("cancelled", f"FROM {site.host}/base/small:1\nRUN sleep 100000")
    (build,) = eventually(lambda: builds(site, "cancelled"), "it is there", WITHIN_S)
    path = f"{openshift.builds(NAMESPACE)}/{build['metadata']['name']}"
    eventually(lambda: site.api.get(path).body["status"]["phase"] == "Running", "it runs", WITHIN_S)
    assert site.api.patch(path, {"status": {"cancelled": True}}).code == 200
    assert "The build was cancelled by the user." in site.fails("cancelled")
    site.remove("cancelled")


def test_a_build_that_openshift_loses_has_failed(site):
    site.controller.lost.add("lost")
    site.apply("lost", "FROM scratch")
    assert "The pod for this build was deleted." in site.fails("lost")
    said = site.kernel(site.release, "lost")
    assert said["attempts"] == 1
    site.remove("lost")


def test_a_dockerfile_that_changes_ends_the_build_that_runs_and_begins_another(site):
    site.apply("changing", f"FROM {site.host}/base/small:1\nRUN sleep 100000")
    eventually(lambda: builds(site, "changing"), "it is there", WITHIN_S)
    path = f"/api/v1/namespaces/{NAMESPACE}/configmaps/changing-dockerfile"
    text = f"FROM {site.host}/base/small:1\nRUN echo done >/done"
    assert site.api.patch(path, {"data": {"dockerfile": text}}).code == 200
    site.loaded("changing")
    assert site.files("changing")["done"] == b"done\n"
