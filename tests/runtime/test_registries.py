"""The operator beside an embedded cluster and an embedded registry: what it asks, and what comes of the answer."""

from __future__ import annotations

import base64
import dataclasses
import json
import logging

import pytest
from apiserver.client import eventually
from apiserver.samples import a_module, core, modules
from runtime.conftest import ALONE, CONFIG, NAMESPACE

from kmm.config import PluginsConfig, RegistryConfig
from kmm.embedded.registry import Registry
from kmm.loader import load_catalog
from kmm.runtime.probes import Patience

IMPATIENT = dataclasses.replace(ALONE, patience=Patience(retry_s=0.05, retry_most_s=0.3))
PASSWORD = "the-registrys-own-secret"

pytestmark = pytest.mark.embedded_only("its registry is asked by names that only this process knows")


@pytest.fixture
def registry(tmp_path):
    with Registry(auth="bearer", users={"robot": PASSWORD}, folder=tmp_path / "registry") as made:
        yield made


@pytest.fixture
def there(world, registry):
    """A cluster with a Dockerfile, and an operator that trusts the registry."""

    def make(**more):
        options = {"oci": {"allowAddresses": ["127.0.0.0/8"]}}
        config = dataclasses.replace(
            CONFIG, ca_file=str(registry.ca_file), plugins=PluginsConfig(options=options), **more
        )
        found = world(nodes=2, kernels=2, catalog=load_catalog(settings_of=config.settings_of))
        found.api.post(core(NAMESPACE, "configmaps"), {"metadata": {"name": "d"}, "data": {"dockerfile": "FROM x"}})
        found.operator(IMPATIENT, config=config)
        return found

    return make


def a_build(registry, name="m", image="team/driver:${KERNEL_FULL_VERSION}", **spec):
    """Return a Module whose images would be built where they are missing, by a builder that nobody has."""
    found = a_module(name, **spec)
    container = found["spec"]["moduleLoader"]["container"]
    container["kernelMappings"] = [{"regexp": ".", "containerImage": f"{registry.host}/{image}"}]
    container["build"] = {"dockerfileConfigMap": {"name": "d"}, "builder": "nonesuch"}
    return found


def secret(registry, name="pull", password=PASSWORD):
    text = registry.docker_config("robot", password)
    return {
        "metadata": {"name": name},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": base64.b64encode(text.encode()).decode()},
    }


def kernels(world, name="m"):
    return {each["kernelVersion"]: each for each in world.module(name).get("status", {}).get("kernels", ())}


def reasons(world, name="m"):
    return {kernel: each["reason"] for kernel, each in kernels(world, name).items()}


WITH_SECRET = {"imageRepoSecret": {"name": "pull"}}


def test_an_image_that_exists_is_loaded_and_one_that_is_missing_is_to_be_built(there, registry):
    digest = registry.push_image("team/driver:6.0.0", {"/a": b"a"})
    world = there()
    world.api.post(core(NAMESPACE, "secrets"), secret(registry))
    world.api.post(modules(NAMESPACE), a_build(registry, **WITH_SECRET))
    eventually(lambda: set(world.loaders()) == {"6.0.0"})
    eventually(lambda: reasons(world).get("6.1.0") == "PluginMissing", "it is missing, and nothing can build it")
    eventually(lambda: kernels(world)["6.0.0"].get("digest") == digest)
    asked = [each for each in registry.log if each.kind == "manifest"]
    assert [each.method for each in asked if each.status == 200] == ["HEAD"]


def test_what_runs_is_not_asked_for_again_not_after_a_restart_either(there, registry):
    for kernel in ("6.0.0", "6.1.0"):
        registry.push_image(f"team/driver:{kernel}", {"/a": b"a"})
    world = there()
    world.api.post(core(NAMESPACE, "secrets"), secret(registry))
    world.api.post(modules(NAMESPACE), a_build(registry, **WITH_SECRET))
    eventually(world.ready)
    world.quiet()
    asked = len(registry.log)
    world.apps[0].stop()
    world.operator(IMPATIENT, config=world.apps[0]._config)
    world.quiet()
    assert world.ready()
    assert len(registry.log) == asked


def test_while_a_registry_is_away_nothing_starts_and_what_runs_stays(there, registry):
    registry.push_image("team/driver:6.0.0", {"/a": b"a"})
    world = there()
    world.api.post(core(NAMESPACE, "secrets"), secret(registry))
    world.api.post(modules(NAMESPACE), a_build(registry, **WITH_SECRET))
    eventually(lambda: set(world.loaders()) == {"6.0.0"})
    uid = world.loaders()["6.0.0"]["metadata"]["uid"]
    with registry.down():
        world.cluster.change_kernel("n1", "6.5.0")
        eventually(lambda: reasons(world).get("6.5.0") == "RegistryUnavailable")
        said = kernels(world)["6.5.0"]["message"]
        assert registry.host in said
        assert ", since 20" in said
        assert world.loaders()["6.0.0"]["metadata"]["uid"] == uid
        assert set(world.loaders()) == {"6.0.0"}
        assert registry.host in world.condition("ImagesReady")["message"]
    eventually(lambda: reasons(world).get("6.5.0") == "PluginMissing", "it is asked as soon as it is back")
    assert world.loaders()["6.0.0"]["metadata"]["uid"] == uid


def test_refused_credentials_are_told_and_tried_at_once_when_the_secret_changes(there, registry):
    registry.push_image("team/driver:6.0.0", {"/a": b"a"})
    registry.push_image("team/driver:6.1.0", {"/a": b"a"})
    world = there()
    world.api.post(modules(NAMESPACE), a_build(registry, **WITH_SECRET))
    eventually(lambda: set(reasons(world).values()) == {"RegistryForbidden"})
    assert 'imageRepoSecret "pull" does not exist' in kernels(world)["6.0.0"]["message"]
    world.api.post(core(NAMESPACE, "secrets"), secret(registry, password="wr0ng-secret"))
    eventually(lambda: registry.host in kernels(world)["6.0.0"]["message"], "the registry refuses it")
    assert not world.loaders()
    world.api.patch(f"{core(NAMESPACE, 'secrets')}/pull", secret(registry))
    eventually(world.ready)


def test_a_service_accounts_pull_secrets_serve_too(there, registry):
    registry.push_image("team/driver:6.0.0", {"/a": b"a"})
    world = there()
    world.api.post(core(NAMESPACE, "secrets"), secret(registry, "of-account"))
    world.api.post(modules(NAMESPACE), a_build(registry))
    eventually(lambda: set(reasons(world).values()) == {"RegistryForbidden"})
    accounts = f"{core(NAMESPACE, 'serviceaccounts')}/kmm-operator-module-loader"
    world.api.patch(accounts, {"imagePullSecrets": [{"name": "of-account"}, {"name": "none"}]})
    eventually(lambda: set(world.loaders()) == {"6.0.0"})


def test_the_clusters_credentials_are_the_last_and_only_shown_to_whom_is_checked(there, registry, tmp_path):
    registry.push_image("team/driver:6.0.0", {"/a": b"a"})
    path = tmp_path / "cluster.json"
    path.write_text(registry.docker_config("robot"))
    world = there(pull_secret_file=str(path))
    careless = a_build(registry, "careless")
    careless["spec"]["moduleLoader"]["container"]["registryTLS"] = {"insecureSkipTLSVerify": True}
    world.api.post(modules(NAMESPACE), careless)
    eventually(lambda: set(reasons(world, "careless").values()) == {"RegistryForbidden"})
    assert not [each for each in registry.log if each.user]
    world.api.post(modules(NAMESPACE), a_build(registry))
    eventually(lambda: reasons(world).get("6.1.0") == "PluginMissing")
    assert [each for each in registry.log if each.user]


def test_a_dockerfile_that_comes_later_or_changes_is_noticed(there, registry):
    world = there()
    world.api.post(core(NAMESPACE, "secrets"), secret(registry))
    module = a_build(registry, **WITH_SECRET)
    module["spec"]["moduleLoader"]["container"]["build"]["dockerfileConfigMap"]["name"] = "later"
    world.api.post(modules(NAMESPACE), module)
    eventually(lambda: set(reasons(world).values()) == {"InputMissing"})
    body = {"metadata": {"name": "later"}, "data": {"nothing": "useful"}}
    world.api.post(core(NAMESPACE, "configmaps"), body)
    world.quiet()
    assert set(reasons(world).values()) == {"InputMissing"}
    world.api.patch(f"{core(NAMESPACE, 'configmaps')}/later", {"data": {"Dockerfile": "FROM x"}})
    eventually(lambda: set(reasons(world).values()) == {"PluginMissing"})


def test_where_a_refusal_means_that_it_is_missing_the_configuration_says_so(there, registry):
    world = there(registries={registry.host: RegistryConfig(denied_means_missing=True)})
    world.api.post(modules(NAMESPACE), a_build(registry))
    eventually(lambda: set(reasons(world).values()) == {"PluginMissing"})


def test_no_credential_is_in_anything_that_is_told(there, registry, caplog):
    caplog.set_level(logging.DEBUG)
    registry.push_image("team/driver:6.0.0", {"/a": b"a"})
    world = there()
    wrong = "wr0ng-secret"
    world.api.post(core(NAMESPACE, "secrets"), secret(registry, password=wrong))
    world.api.post(modules(NAMESPACE), a_build(registry, **WITH_SECRET))
    eventually(lambda: registry.host in kernels(world).get("6.0.0", {}).get("message", ""))
    world.api.patch(f"{core(NAMESPACE, 'secrets')}/pull", secret(registry))
    eventually(lambda: set(world.loaders()) == {"6.0.0"})
    world.quiet()
    told = [caplog.text, json.dumps(world.module()), world.apps[0].metrics.text().decode()]
    told += [json.dumps(world.api.get(core(NAMESPACE, kind)).body) for kind in ("events", "pods")]
    told.append(json.dumps(world.sets()))
    for text in told:
        for hidden in (PASSWORD, wrong, registry.docker_config("robot"), *_encoded(registry, wrong)):
            assert hidden not in text


def _encoded(registry, wrong):
    return [base64.b64encode(f"robot:{each}".encode()).decode() for each in (PASSWORD, wrong)]
