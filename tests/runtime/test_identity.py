"""What things are called, end to end: labels, names, accounts, variables, metrics. Others depend on it."""

from __future__ import annotations

import dataclasses

import urllib3
from apiserver.client import eventually
from apiserver.samples import DEFINITIONS, a_definition, a_module, core, modules
from runtime.conftest import CONFIG, NAMESPACE

P = "kmm.node.kubernetes.io/"
DEVICE_PLUGIN = {"container": {"image": "registry.example.com/dp:1"}}
PRIVILEGED = {"pod-security.kubernetes.io/enforce": "privileged"}


def mapping(image, **more):
    return {
        "container": {
            "modprobe": {"moduleName": "m"},
            "kernelMappings": [{"regexp": ".*", "containerImage": image}],
            **more,
        }
    }


def pod_of(each):
    return each["spec"]["template"]["spec"]


def page(app, path):
    """Read one of the operator's own pages: metrics, else health."""
    endpoint = app._endpoints[0 if path == "/metrics" else 1]
    answer = urllib3.request("GET", f"http://{endpoint.address}{path}", timeout=10, retries=False)
    return answer.status, answer.data.decode()


def test_objects_are_found_by_the_labels_that_they_always_had(there):
    world = there(nodes=1, kernels=1, module=a_module(devicePlugin=DEVICE_PLUGIN))
    uid = world.module()["metadata"]["uid"]
    roles = {}
    for each in world.sets():
        meta = each["metadata"]
        roles[meta["labels"][f"{P}role"]] = each
        assert meta["labels"][f"{P}module.name"] == "m"
        assert meta["annotations"].keys() >= {f"{P}last-hash"}
        owner = meta["ownerReferences"][0]
        assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == ("Module", "m", uid, True)
        selector = each["spec"]["selector"]["matchLabels"]
        pods = world.pods(meta["labels"][f"{P}role"])
        assert pods
        for pod in pods:
            assert selector.items() <= pod["metadata"]["labels"].items()
    assert roles.keys() == {"module-loader", "device-plugin"}
    loader, plugin = roles["module-loader"], roles["device-plugin"]
    assert loader["metadata"]["labels"][f"{P}kernel-version.full"] == "6.0.0"
    assert loader["metadata"]["name"].startswith("m-")
    assert plugin["metadata"]["name"].startswith("m-device-plugin-")
    assert pod_of(loader)["nodeSelector"] == {"a": "b", f"{P}kernel-version.full": "6.0.0"}
    assert pod_of(plugin)["nodeSelector"] == {"a": "b", f"{P}{NAMESPACE}.m.ready": ""}


def test_kernels_that_would_share_a_label_are_told_apart(world):
    found = world(nodes=0)
    long = "6.1.0-" + "x" * 80
    kernels = {"plain": "6.1", "plus": "6.1+", "long": f"{long}1", "longer": f"{long}2"}
    for node, kernel in kernels.items():
        found.add_node(node, kernel)
    found.operator()
    found.api.post(modules(NAMESPACE), a_module())
    eventually(found.ready, "each is loaded")
    assert set(found.loaders()) == set(kernels.values())

    def label(node):
        return found.api.get(f"/api/v1/nodes/{node}").body["metadata"]["labels"][f"{P}kernel-version.full"]

    values = {node: label(node) for node in kernels}
    assert len(set(values.values())) == 4
    assert max(map(len, values.values())) <= 63
    for node, kernel in kernels.items():
        loader = found.loaders()[kernel]
        assert pod_of(loader)["nodeSelector"][f"{P}kernel-version.full"] == values[node]
        paths = [each["hostPath"]["path"] for each in pod_of(loader)["volumes"] if "hostPath" in each]
        assert f"/lib/modules/{kernel}" in paths, "there the kernel is verbatim"
        assert found.kernel(kernel)["nodes"] == 1
    found.change_kernel("plus", "6.2.0")
    eventually(lambda: label("plain") == "6.1", "it need not be told apart any more")
    eventually(lambda: set(found.loaders()) == {*kernels.values(), "6.2.0"} - {"6.1+"})
    eventually(lambda: all(f"{NAMESPACE}.m.ready" in found.labels(node) for node in kernels))


def test_a_mapping_is_found_with_the_plus_and_without_it(world):
    found = world(nodes=0)
    found.add_node("n0", "6.1.0-vendor+")
    found.operator()
    loader = mapping("unused")
    loader["container"]["kernelMappings"] = [
        {"literal": "6.1.0-vendor", "containerImage": "registry.example.com/${MOD_NAME}:${KERNEL_FULL_VERSION}"},
        {"regexp": ".*", "containerImage": "registry.example.com/m:other"},
    ]
    plugin = {"container": {"image": "registry.example.com/$MOD_NAMESPACE-dp:${MOD_NAME}"}}
    found.api.post(modules(NAMESPACE), a_module(moduleLoader=loader, devicePlugin=plugin))
    eventually(found.ready)
    images = {pod_of(each)["containers"][0]["image"] for each in found.sets()}
    assert images == {"registry.example.com/m:6.1.0-vendor", f"registry.example.com/{NAMESPACE}-dp:m"}


def test_a_variable_that_a_kernel_does_not_have_is_an_error_of_that_kernel(world):
    found = world(nodes=1, kernels=1)
    found.add_node("odd", "odd")
    found.add_node("longest", "6.2.0-" + "y" * 130)
    found.operator()
    loader = mapping("registry.example.com/m:$KERNEL_X.$KERNEL_Y.$KERNEL_Z-$KERNEL_FULL_VERSION")
    found.api.post(modules(NAMESPACE), a_module(moduleLoader=loader))
    eventually(lambda: found.kernel("6.0.0").get("reason") == "Loaded")
    eventually(lambda: found.kernel("odd").get("reason") == "MappingUnreadable")
    assert found.kernel("6.2.0-" + "y" * 130)["reason"] == "MappingUnreadable", "no tag is as long"
    assert set(found.loaders()) == {"6.0.0"}
    assert found.condition()["status"] == "False"
    eventually(lambda: "MappingUnreadable" in found.events())


def test_explicit_accounts_and_the_repositorys_secret_are_used(world):
    found = world(nodes=1, kernels=1)
    for name in ("my-loader", "my-plugin"):
        found.api.post(core(NAMESPACE, "serviceaccounts"), {"metadata": {"name": name}})
    found.operator()
    loader = {**mapping("registry.example.com/m:1"), "serviceAccountName": "my-loader"}
    plugin = {**DEVICE_PLUGIN, "serviceAccountName": "my-plugin"}
    found.api.post(
        modules(NAMESPACE),
        a_module(moduleLoader=loader, devicePlugin=plugin, imageRepoSecret={"name": "pull"}),
    )
    eventually(found.ready)
    specs = {each["metadata"]["labels"][f"{P}role"]: pod_of(each) for each in found.sets()}
    assert specs["module-loader"]["serviceAccountName"] == "my-loader"
    assert specs["device-plugin"]["serviceAccountName"] == "my-plugin"
    assert [each["imagePullSecrets"] for each in specs.values()] == [[{"name": "pull"}]] * 2
    assert {each["spec"]["serviceAccountName"] for each in found.pods()} == {"my-loader", "my-plugin"}


def test_namespaces_that_the_configuration_names_may_have_drivers(world):
    found = world()
    drivers = found.namespace()
    found.operator(config=dataclasses.replace(CONFIG, privileged_namespaces=(drivers,)))
    found.api.post(modules(drivers), a_module())
    eventually(lambda: found.ready("m", drivers))


def test_on_openshift_its_own_constraints_decide(world):
    found = world()
    definition = a_definition("SecurityContextConstraint", {"type": "object"})
    definition["spec"]["group"] = "security.openshift.io"
    name = definition["metadata"]["name"] = "securitycontextconstraints.security.openshift.io"

    def offered():
        return "security.openshift.io" in {each["name"] for each in found.api.get("/apis").body["groups"]}

    assert found.api.post(DEFINITIONS, definition).code == 201
    try:
        eventually(offered)
        drivers = found.namespace()
        found.operator()
        found.api.post(modules(drivers), a_module(devicePlugin=DEVICE_PLUGIN))
        eventually(lambda: found.ready("m", drivers))
        assert not [each for each in found.sets(drivers) if "serviceAccountName" in pod_of(each)]
    finally:
        found.api.delete(f"{DEFINITIONS}/{name}")
    eventually(lambda: not offered())


def test_the_older_label_goes_with_the_last_module_of_that_name(there):
    world = there(nodes=1, kernels=1)
    drivers = world.namespace(**PRIVILEGED)
    world.api.post(modules(drivers), a_module())
    both = {"kernel-version.full", "m.ready", f"{NAMESPACE}.m.ready", f"{drivers}.m.ready"}
    eventually(lambda: world.labels("n0") == both)
    world.api.delete(f"{modules(NAMESPACE)}/m")
    eventually(lambda: world.labels("n0") == both - {f"{NAMESPACE}.m.ready"})
    world.quiet()
    assert "m.ready" in world.labels("n0")
    world.api.delete(f"{modules(drivers)}/m")
    eventually(lambda: world.labels("n0") == {"kernel-version.full"})


def test_a_name_with_a_dot_gets_no_label_that_could_be_anothers(world):
    found = world(nodes=1, kernels=1)
    found.operator()
    assert found.api.post(modules(NAMESPACE), a_module("my.m", devicePlugin=DEVICE_PLUGIN)).code == 201
    eventually(lambda: found.ready("my.m"))
    wanted = {"kernel-version.full", f"{NAMESPACE}.my.m.ready", f"{NAMESPACE}.my.m.device-plugin-ready"}
    eventually(lambda: found.labels("n0") == wanted)
    found.api.delete(f"{modules(NAMESPACE)}/my.m")
    eventually(lambda: found.labels("n0") == {"kernel-version.full"})


def test_metrics_say_what_there_is_and_forget_what_is_gone(world):
    found = world()
    app = found.operator()

    def values():
        status, text = page(app, "/metrics")
        assert status == 200
        lines = (line.rpartition(" ") for line in text.splitlines() if line.startswith("kmm_"))
        return {name: float(value) for name, _, value in lines}

    def arguments():
        return {name for name in values() if name.startswith("kmm_modprobe_args")}

    loader = mapping("registry.example.com/m:1")
    loader["container"]["modprobe"]["parameters"] = ["debug=1", "mode=fast"]
    found.api.post(modules(NAMESPACE), a_module(moduleLoader=loader, devicePlugin=DEVICE_PLUGIN))
    found.api.post(modules(NAMESPACE), a_module("other"))
    eventually(lambda: found.ready() and found.ready("other"))
    now = values()
    assert now["kmm_module_num"] == 2
    assert now["kmm_device_plugin_num"] == 1
    assert {now[f"kmm_in_cluster_{each}_num"] for each in ("build", "sign")} == {0}
    assert now["kmm_preflight_num"] == 0

    def said(parameters):
        return f'kmm_modprobe_args{{modprobeArgs="{parameters}",name="m",namespace="{NAMESPACE}"}}'

    assert now[said("debug=1 mode=fast")] == 1
    loader["container"]["modprobe"]["parameters"] = ["debug=0"]
    found.api.patch(f"{modules(NAMESPACE)}/m", {"spec": {"moduleLoader": loader}})
    eventually(lambda: values().get(said("debug=0")) == 1)
    assert said("debug=1 mode=fast") not in values()
    for name in ("m", "other"):
        found.api.delete(f"{modules(NAMESPACE)}/{name}")
    eventually(lambda: (values()["kmm_module_num"], arguments()) == (0, set()))
    eventually(lambda: values()["kmm_device_plugin_num"] == 0)


def test_it_says_that_it_is_alive_and_ready_and_who_leads(there):
    world = there()
    app = world.apps[0]
    assert page(app, "/healthz") == (200, "ok\n")
    assert page(app, "/readyz")[0] == 200
    assert page(app, "/readyz")[1].endswith("ready\n")
    path = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/kmm.sigs.x-k8s.io"
    assert world.api.get(path).body["spec"]["holderIdentity"] == app.elector._identity
    app.stop()
    assert not world.api.get(path).body["spec"].get("holderIdentity"), "the next one need not wait"
