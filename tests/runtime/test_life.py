"""The life of Modules and nodes, end to end."""

from __future__ import annotations

import dataclasses
import threading
from datetime import UTC, datetime, timedelta

import pytest
from apiserver.client import eventually
from apiserver.samples import a_module, a_node, core, modules
from runtime.conftest import NAMESPACE, QUICK

from kmm.catalog import Plugin, build_catalog
from kmm.contract import Driver, Progress, State
from kmm.contract import Kind as KubernetesKind
from kmm.embedded.fault import Fault, Kind
from kmm.embedded.program import Exit, idle
from kmm.loader import load_catalog

P = "kmm.node.kubernetes.io/"
DEVICE_PLUGIN = {"container": {"image": "registry.example.com/dp:1"}}


def mapping(**more):
    return {
        "container": {
            "modprobe": {"moduleName": "m"},
            "kernelMappings": [{"regexp": ".*", "containerImage": "registry.example.com/m:1"}],
            **more,
        }
    }


def test_a_module_comes_to_be_loaded_everywhere(there):
    world = there(module=a_module(devicePlugin=DEVICE_PLUGIN))
    assert set(world.loaders()) == {"6.0.0", "6.1.0"}
    for node in ("n0", "n1", "n2"):
        eventually(
            lambda node=node: (
                world.labels(node)
                >= {f"{NAMESPACE}.m.ready", "m.ready", f"{NAMESPACE}.m.device-plugin-ready", "m.device-plugin-ready"}
            )
        )
    status = world.module()["status"]
    assert status["moduleLoader"] == {"nodesMatchingSelectorNumber": 3, "desiredNumber": 3, "availableNumber": 3}
    assert status["devicePlugin"]["availableNumber"] == 3
    assert [(each["kernelVersion"], each["nodes"], each["reason"]) for each in status["kernels"]] == [
        ("6.0.0", 2, "Loaded"),
        ("6.1.0", 1, "Loaded"),
    ]
    assert status["observedGeneration"] == 1


def test_a_quiet_reconcile_asks_for_nothing(there):
    world = there(module=a_module(devicePlugin=DEVICE_PLUGIN))
    world.quiet()
    before = world.mark()
    app = world.apps[0]
    for number in range(3):
        app.controller.queue.add(("NodeKernel", "", f"n{number}"), 0)
    app.controller.queue.add(("Module", NAMESPACE, "m"))
    # A heartbeat: what changes of a node is nothing that we use.
    conditions = world.api.get("/api/v1/nodes/n0").body["status"]["conditions"]
    conditions[0]["lastHeartbeatTime"] = "2026-01-01T00:00:00Z"
    assert world.api.patch("/api/v1/nodes/n0/status", {"status": {"conditions": conditions}}).code == 200
    world.quiet()
    assert not world.asked(before)


def test_few_requests_bring_a_module_to_be_ready(world):
    found = world(nodes=6, kernels=3)
    found.operator()
    found.quiet()
    before = found.mark()
    found.api.post(modules(NAMESPACE), a_module(devicePlugin=DEVICE_PLUGIN))
    eventually(found.ready)
    found.quiet()
    asked = found.asked(before)
    print("from creation to ready:", dict(asked))
    assert asked["create", "daemonsets"] == 4
    assert asked["create", "events"] + asked["patch", "events"] <= 2
    assert asked["patch", "nodes"] <= 2 * 6
    assert (asked["list", "events"], asked["watch", "events"]) == (1, 1), "of its namespace"
    assert set(asked) <= {
        ("create", "daemonsets"), ("patch", "modules"), ("patch", "nodes"), ("create", "events"), ("patch", "events"),
        ("list", "events"), ("watch", "events"),
    }  # fmt: skip


def test_a_node_that_comes_back_with_another_kernel_gets_its_loader(there):
    world = there()
    world.change_kernel("n0", "6.9.0")
    eventually(lambda: "6.9.0" in world.loaders())
    eventually(lambda: world.loaders()["6.9.0"]["status"].get("numberAvailable") == 1)
    node = world.api.get("/api/v1/nodes/n0").body["metadata"]["labels"]
    assert node[f"{P}kernel-version.full"] == "6.9.0"
    eventually(lambda: f"{NAMESPACE}.m.ready" in world.labels("n0"))
    world.change_kernel("n2", "6.9.0")
    eventually(lambda: set(world.loaders()) == {"6.1.0", "6.9.0"}, "nobody runs 6.0.0 any more")


def test_nodes_join_leave_and_are_relabelled(there):
    world = there()
    world.add_node("late", "6.1.0")
    eventually(lambda: f"{NAMESPACE}.m.ready" in world.labels("late"))
    world.api.patch("/api/v1/nodes/late", {"metadata": {"labels": {"a": "c"}}})
    eventually(lambda: world.labels("late") == {"kernel-version.full"}, "it is not targeted any more")
    world.api.delete("/api/v1/nodes/n1")
    eventually(lambda: set(world.loaders()) == {"6.0.0"}, "6.1.0 runs on no targeted node")
    eventually(lambda: world.module()["status"]["moduleLoader"]["availableNumber"] == 2)


def test_a_cordoned_node_keeps_its_driver(there):
    world = there()
    world.api.patch("/api/v1/nodes/n1", {"spec": {"unschedulable": True}})
    eventually(lambda: "taints" in world.api.get("/api/v1/nodes/n1").body["spec"])
    world.quiet()
    assert f"{NAMESPACE}.m.ready" in world.labels("n1")
    assert set(world.loaders()) == {"6.0.0", "6.1.0"}


def test_a_node_that_is_cut_off_keeps_its_labels(there):
    world = there(module=a_module(devicePlugin=DEVICE_PLUGIN))
    eventually(lambda: f"{NAMESPACE}.m.device-plugin-ready" in world.labels("n1"))
    before = world.labels("n1")
    world.reach("n1", reachable=False)
    eventually(lambda: "taints" in world.api.get("/api/v1/nodes/n1").body["spec"])
    world.quiet()
    assert world.labels("n1") == before
    world.reach("n1", reachable=True)
    world.quiet()
    assert world.labels("n1") == before


def test_a_taint_that_is_not_tolerated_takes_the_driver_away(there):
    world = there()
    world.api.patch("/api/v1/nodes/n1", {"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}})
    eventually(lambda: set(world.loaders()) == {"6.0.0"})
    tolerations = [{"key": "k", "operator": "Exists"}]
    world.api.patch(f"{modules(NAMESPACE)}/m", {"spec": {"tolerations": tolerations}})
    eventually(lambda: set(world.loaders()) == {"6.0.0", "6.1.0"})


def test_a_module_that_changes_is_followed(there):
    world = there()
    uids = {kernel: each["metadata"]["uid"] for kernel, each in world.loaders().items()}
    changed = mapping()
    changed["container"]["kernelMappings"] = [
        {"literal": "6.0.0", "containerImage": "registry.example.com/m:2"},
        {"literal": "6.1.0", "containerImage": "registry.example.com/m:1"},
    ]
    world.api.patch(f"{modules(NAMESPACE)}/m", {"spec": {"moduleLoader": changed}})

    def image(kernel):
        return world.loaders()[kernel]["spec"]["template"]["spec"]["containers"][0]["image"]

    eventually(lambda: image("6.0.0") == "registry.example.com/m:2")
    assert image("6.1.0") == "registry.example.com/m:1"
    assert {kernel: each["metadata"]["uid"] for kernel, each in world.loaders().items()} == uids, (
        "patched, not made anew"
    )
    eventually(lambda: world.module()["status"]["observedGeneration"] == 2)
    changed["container"]["kernelMappings"].pop()
    world.api.patch(f"{modules(NAMESPACE)}/m", {"spec": {"moduleLoader": changed}})
    eventually(lambda: set(world.loaders()) == {"6.0.0"}, "6.1.0 lost its mapping")
    eventually(lambda: "NoMapping" in world.reasons())


def test_a_module_that_is_deleted_leaves_nothing(there):
    world = there(module=a_module(devicePlugin=DEVICE_PLUGIN))
    world.api.delete(f"{modules(NAMESPACE)}/m")
    eventually(lambda: not world.sets())
    eventually(lambda: not world.api.get(core(NAMESPACE, "pods")).body["items"])
    for node in ("n0", "n1", "n2"):
        eventually(lambda node=node: world.labels(node) == {"kernel-version.full"})
    world.quiet()


def test_a_module_of_the_same_name_is_another_one(there):
    world = there()
    first = world.module()["metadata"]["uid"]
    world.api.delete(f"{modules(NAMESPACE)}/m")
    world.api.post(modules(NAMESPACE), a_module())
    eventually(
        lambda: (
            {each["metadata"]["ownerReferences"][0]["uid"] for each in world.sets()}
            == {world.module()["metadata"]["uid"]}
        )
    )
    assert world.module()["metadata"]["uid"] != first
    eventually(world.ready)
    eventually(lambda: all(f"{NAMESPACE}.m.ready" in world.labels(node) for node in ("n0", "n1", "n2")))


@pytest.mark.embedded_only("kwok runs no hooks")
def test_the_device_plugin_comes_after_the_driver_and_goes_while_it_unloads(world):
    hold = {}

    def program(run):
        if run.hook == "postStart":
            hold["load"].wait(90)
            return Exit()
        if run.hook == "preStop":
            hold["unloading"].set()
            hold["unload"].wait(90)
            return Exit()
        return idle(run)

    hold |= {name: threading.Event() for name in ("load", "unloading", "unload")}
    found = world(nodes=1, kernels=1, program=program)
    found.operator()
    found.api.post(modules(NAMESPACE), a_module(devicePlugin=DEVICE_PLUGIN))
    eventually(lambda: len(found.sets()) == 2)

    def plugin_pods():
        selector = f"{P}role=device-plugin"
        return found.api.get(core(NAMESPACE, "pods"), labelSelector=selector).body["items"]

    found.quiet()
    assert not plugin_pods(), "not before it is loaded"
    hold["load"].set()
    eventually(plugin_pods)
    eventually(found.ready)
    found.api.patch("/api/v1/nodes/n0", {"metadata": {"labels": {"a": "c"}}})
    assert hold["unloading"].wait(90)
    eventually(lambda: f"{NAMESPACE}.m.ready" not in found.labels("n0"), "at once")
    eventually(lambda: not [each for each in plugin_pods() if "deletionTimestamp" not in each["metadata"]])
    assert found.api.get(core(NAMESPACE, "pods"), labelSelector=f"{P}role=module-loader").body["items"], (
        "it unloads yet"
    )
    hold["unload"].set()
    eventually(lambda: not found.api.get(core(NAMESPACE, "pods")).body["items"])


def test_two_modules_share_a_node(there):
    world = there()
    world.api.post(modules(NAMESPACE), a_module("other"))
    eventually(lambda: world.ready("other"))
    eventually(lambda: world.labels("n0") >= {f"{NAMESPACE}.m.ready", f"{NAMESPACE}.other.ready"})
    world.api.delete(f"{modules(NAMESPACE)}/other")
    eventually(lambda: f"{NAMESPACE}.other.ready" not in world.labels("n0"))
    assert f"{NAMESPACE}.m.ready" in world.labels("n0")


def test_what_is_not_so_any_more_is_told_at_once_however_lately_the_node_was_written(world):
    found = world(nodes=1, kernels=1)
    first = found.operator()
    for name in ("a", "b"):
        found.api.post(modules(NAMESPACE), a_module(name))
    eventually(lambda: found.labels("n0") >= {f"{NAMESPACE}.a.ready", f"{NAMESPACE}.b.ready"})
    first.stop()
    rests = dataclasses.replace(QUICK, pace=dataclasses.replace(QUICK.pace, node_every_s=3600))
    found.operator(rests)
    for name in ("a", "b"):
        found.api.delete(f"{modules(NAMESPACE)}/{name}")
        eventually(lambda label=f"{NAMESPACE}.{name}.ready": label not in found.labels("n0"), name)


def test_nothing_is_kept_of_nodes_that_have_gone(world):
    found = world(nodes=2)
    written = found.operator().controller._written
    eventually(lambda: len(written) == 2, "both have got their label")
    for name in ("n0", "n1"):
        found.api.delete(f"/api/v1/nodes/{name}")
    eventually(lambda: not written)


def test_what_somebody_edits_is_brought_back(there):
    world = there()
    name = world.loaders()["6.0.0"]["metadata"]["name"]
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{name}"
    patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "evil.example.com/x:1"}]
    assert world.api.patch(path, patch, "json").code == 200

    def image():
        return world.api.get(path).body["spec"]["template"]["spec"]["containers"][0]["image"]

    eventually(lambda: image() == "registry.example.com/m:1")
    eventually(lambda: "DriftReverted" in world.events())
    world.quiet()


def test_an_edited_note_of_its_kernel_reloads_no_driver(there):
    world = there()
    before = world.loaders()["6.0.0"]["metadata"]
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{before['name']}"
    for value in ("6.1.0", "9.9.9", None):
        assert world.api.patch(path, {"metadata": {"annotations": {f"{P}kernel": value}}}).code == 200
        eventually(lambda: world.api.get(path).body["metadata"]["annotations"].get(f"{P}kernel") == "6.0.0")
    after = world.api.get(path).body["metadata"]
    assert (after["uid"], after["generation"]) == (before["uid"], before["generation"])


def test_a_pattern_that_cannot_be_read_stops_its_own_mapping_alone(world):
    found = world(nodes=2, kernels=2)
    found.operator()
    module = a_module()
    mappings = [
        {"regexp": "(", "containerImage": "registry.example.com/x:1"},
        {"literal": "6.0.0", "containerImage": "registry.example.com/m:1"},
    ]
    module["spec"]["moduleLoader"]["container"]["kernelMappings"] = mappings
    assert found.api.post(modules(NAMESPACE), module).code == 201
    eventually(lambda: set(found.loaders()) == {"6.0.0"})

    def reasons():
        return {each["kernelVersion"]: each["reason"] for each in found.module()["status"]["kernels"]}

    eventually(lambda: reasons() == {"6.0.0": "Loaded", "6.1.0": "MappingUnreadable"})


def test_what_somebody_deletes_is_made_again(there):
    world = there()
    for each in world.sets():
        world.api.delete(f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{each['metadata']['name']}")
    eventually(lambda: set(world.loaders()) == {"6.0.0", "6.1.0"})
    eventually(world.ready)


def test_a_strangers_object_of_our_name_is_not_touched(there):
    world = there()
    mine = world.loaders()["6.0.0"]
    name = mine["metadata"]["name"]
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets"
    stranger = {
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"x": "y"}},
            "template": {
                "metadata": {"labels": {"x": "y"}},
                "spec": {"nodeSelector": {"none": "x"}, "containers": [{"name": "c", "image": "c"}]},
            },
        },
    }
    world.api.patch(f"{modules(NAMESPACE)}/m", {"spec": {"selector": {"none": "x"}}})
    eventually(lambda: not world.sets())
    made = world.api.post(path, stranger)
    assert made.code == 201, made.body
    world.api.patch(f"{modules(NAMESPACE)}/m", {"spec": {"selector": {"none": None, "a": "b"}}})
    eventually(lambda: "NameTaken" in world.reasons())
    assert world.api.get(f"{path}/{name}").body["metadata"]["uid"] == made.body["metadata"]["uid"]
    assert "6.1.0" in world.loaders(), "the other kernel goes on"
    world.api.delete(f"{path}/{name}")
    eventually(lambda: set(world.loaders()) == {"6.0.0", "6.1.0"}, "and it is looked at again")


def test_namespaces_have_to_allow_privileged_pods(world):
    found = world()
    found.operator()
    drivers = found.namespace()
    found.api.post(modules(drivers), a_module())
    eventually(lambda: found.condition("Ready", "m", drivers).get("reason") == "NamespaceNotPrivileged")
    assert not found.sets(drivers)
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}
    found.api.patch(f"/api/v1/namespaces/{drivers}", label)
    eventually(lambda: found.ready("m", drivers))
    spec = found.loaders(drivers)["6.0.0"]["spec"]["template"]["spec"]
    assert "serviceAccountName" not in spec, "that namespace's own default"


def test_in_our_namespace_our_service_accounts_are_used(there):
    world = there(module=a_module(devicePlugin=DEVICE_PLUGIN))
    accounts = {each["spec"]["template"]["spec"]["serviceAccountName"] for each in world.sets()}
    assert accounts == {"kmm-operator-module-loader", "kmm-operator-device-plugin"}


@pytest.mark.embedded_only("kwok runs no hooks")
def test_why_a_load_fails_is_said_and_forgotten_when_it_works(world):
    broken = {"key": True}

    async def program(run):
        if run.hook == "postStart" and broken["key"]:
            return Exit(code=1, output="modprobe: ERROR: could not insert 'm': Required key not available\n")
        return await idle(run)

    found = world(nodes=1, kernels=1, program=program)
    found.operator()
    found.api.post(modules(NAMESPACE), a_module())
    eventually(
        lambda: [each["reason"] for each in found.module().get("status", {}).get("kernels", ())] == ["KeyRejected"]
    )
    said = found.module()["status"]["kernels"][0]["message"]
    assert "enrol its certificate" in said
    eventually(lambda: "KeyRejected" in found.events())
    assert found.labels("n0") == {"kernel-version.full"}
    broken["key"] = False
    eventually(found.ready)


def test_a_module_that_is_wrong_is_told_so_and_keeps_what_runs(there):
    world = there()
    wrong = mapping()
    wrong["container"]["kernelMappings"] = [{"regexp": "(", "containerImage": "registry.example.com/m:1"}]
    world.api.patch(f"{modules(NAMESPACE)}/m", {"spec": {"moduleLoader": wrong}})
    eventually(lambda: world.condition().get("reason") not in ("AllReady", None))
    world.quiet()
    assert set(world.loaders()) == {"6.0.0", "6.1.0"}
    world.api.patch(f"{modules(NAMESPACE)}/m", {"spec": {"moduleLoader": mapping()}})
    eventually(world.ready)


def test_labels_that_name_no_module_go(world):
    found = world()
    stale = {f"{P}gone.m.ready": "", f"{P}m.device-plugin-ready": "", f"{P}version-module.gone.m": "1"}
    found.api.patch("/api/v1/nodes/n0", {"metadata": {"labels": stale}})
    found.operator()
    eventually(lambda: found.labels("n0") == {"kernel-version.full", "version-module.gone.m"})


def test_an_image_to_be_built_is_asked_for_first(world):
    """No registry plugin yet: unknown, so that nothing starts, and the condition says so."""
    found = world()
    found.operator()
    found.api.post(core(NAMESPACE, "configmaps"), {"metadata": {"name": "d"}, "data": {"dockerfile": "FROM scratch"}})
    built = mapping(build={"dockerfileConfigMap": {"name": "d"}})
    found.api.post(modules(NAMESPACE), a_module(moduleLoader=built))
    eventually(
        lambda: (
            {each["reason"] for each in found.module().get("status", {}).get("kernels", ())}
            == {"RegistryUnavailable"}
        )
    )
    assert not found.sets()


def test_the_go_operators_daemonsets_are_taken_over_without_reloading(world):
    found = world(nodes=2, kernels=1)
    app = found.operator()
    found.api.post(modules(NAMESPACE), a_module())
    eventually(found.ready)
    ours = found.loaders()["6.0.0"]
    app.stop()
    # As the Go operator leaves it: another name, its annotations none of ours, its finalizer on the pods.
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets"
    theirs = {
        "metadata": {
            "generateName": "m-",
            "labels": ours["metadata"]["labels"],
            "ownerReferences": ours["metadata"]["ownerReferences"],
        },
        "spec": ours["spec"],
    }
    theirs["spec"]["template"]["metadata"]["finalizers"] = [f"{P}node-labeler"]
    found.api.delete(f"{path}/{ours['metadata']['name']}", {"propagationPolicy": "Background"})
    eventually(lambda: not found.api.get(core(NAMESPACE, "pods")).body["items"])
    made = found.api.post(path, theirs)
    assert made.code == 201, made.body
    eventually(lambda: found.api.get(f"{path}/{made.name}").body["status"].get("numberAvailable") == 2)
    pods = {each["metadata"]["uid"] for each in found.api.get(core(NAMESPACE, "pods")).body["items"]}
    found.operator()
    eventually(
        lambda: f"{P}last-hash" in found.api.get(f"{path}/{made.name}").body["metadata"].get("annotations", {})
    )
    found.quiet()
    assert [each["metadata"]["name"] for each in found.sets()] == [made.name]
    assert {each["metadata"]["uid"] for each in found.api.get(core(NAMESPACE, "pods")).body["items"]} == pods
    found.api.delete(f"{modules(NAMESPACE)}/m")
    eventually(lambda: not found.api.get(core(NAMESPACE, "pods")).body["items"], "their finalizer does not hold them")


def test_a_daemonset_whose_label_was_taken_is_found_again(there):
    world = there()
    name = world.loaders()["6.0.0"]["metadata"]["name"]
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{name}"
    app = world.apps[0]
    before = world.api.get(path).body["metadata"]
    assert world.api.patch(path, {"metadata": {"labels": None}}).code == 200
    eventually(
        lambda: world.api.get(path).body["metadata"].get("labels") == before["labels"], "its labels are brought back"
    )
    eventually(lambda: app.cluster.daemon_sets.get(NAMESPACE, name), "it is seen again")
    after = world.api.get(path).body["metadata"]
    assert (after["uid"], after["generation"]) == (before["uid"], before["generation"])
    role = {f"{P}role": "device-plugin"}
    assert world.api.patch(path, {"metadata": {"labels": role}}).code == 200
    eventually(lambda: world.api.get(path).body["metadata"]["labels"] == before["labels"], "and so is one alone")
    after = world.api.get(path).body["metadata"]
    assert (after["uid"], after["generation"]) == (before["uid"], before["generation"]), "it was not made anew"
    edit = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "evil.example.com/x:1"}]
    assert world.api.patch(path, edit, "json").code == 200
    eventually(
        lambda: (
            world.api.get(path).body["spec"]["template"]["spec"]["containers"][0]["image"]
            == "registry.example.com/m:1"
        )
    )


def test_pods_that_the_go_operator_holds_are_released_after_their_module(there):
    world = there()
    for pod in world.api.get(core(NAMESPACE, "pods")).body["items"]:
        path = f"{core(NAMESPACE, 'pods')}/{pod['metadata']['name']}"
        assert (
            world.api.patch(path, {"metadata": {"finalizers": [f"{P}node-labeler", "example.com/other"]}}).code == 200
        )
    world.api.delete(f"{modules(NAMESPACE)}/m")

    def left():
        return [each["metadata"]["finalizers"] for each in world.api.get(core(NAMESPACE, "pods")).body["items"]]

    eventually(lambda: left() == [["example.com/other"]] * 3, "only the other one is left")
    for pod in world.api.get(core(NAMESPACE, "pods")).body["items"]:
        world.api.patch(f"{core(NAMESPACE, 'pods')}/{pod['metadata']['name']}", {"metadata": {"finalizers": None}})


@pytest.mark.embedded_only("only the embedded server refuses what it should not")
def test_what_the_api_server_refuses_is_told(world):
    found = world()
    found.cluster.faults.add(
        Fault(
            kind=Kind.REFUSE, verbs=("create",), resource="daemonsets", user="operator", code=403, times=None, skip=1
        )
    )
    found.operator()
    found.api.post(modules(NAMESPACE), a_module())
    eventually(lambda: len(found.loaders()) == 1, "one kernel does not stop the other")
    eventually(lambda: found.module().get("status", {}).get("observedGeneration") == 1, "the status is written")
    eventually(lambda: "WriteRefused" in found.events())
    found.cluster.faults.clear()
    eventually(found.ready)


class _Builder:
    name = "strange"
    owns = (KubernetesKind(api_version="build.example.com/v1", kind="Build", plural="builds"),)
    requires = ()

    def render(self, request):
        return []

    def observe(self, objects, pods):
        return Progress(state=State.RUNNING)


def test_a_kind_that_the_cluster_does_not_have_stops_nobody(world):
    plugin = Plugin(name="strange", distribution="strange", version="1", builders=(_Builder(),))
    found = world(catalog=build_catalog([*load_catalog().plugins, plugin]))
    found.operator()
    found.api.post(modules(NAMESPACE), a_module())
    eventually(found.ready)


def test_a_vendors_driver_says_what_the_module_does_not(world):
    plugin = Plugin(
        name="acme",
        distribution="acme",
        version="1",
        drivers=(Driver(name="acme", spec={"moduleLoader": mapping()}),),
    )
    found = world(catalog=build_catalog([*load_catalog().plugins, plugin]))
    found.operator()
    module = a_module()
    module["spec"] = {"driver": "acme", "selector": {"a": "b"}}
    assert found.api.post(modules(NAMESPACE), module).code == 201
    eventually(found.ready)
    assert set(found.loaders()) == {"6.0.0", "6.1.0"}


def test_a_plugin_that_is_not_installed_is_told_and_the_driver_is_loaded(world):
    found = world()
    found.operator()
    found.api.post(modules(NAMESPACE), a_module(devicePlugin={**DEVICE_PLUGIN, "renderer": "nobody"}))
    eventually(lambda: found.condition("PluginsAvailable").get("reason") == "PluginMissing")
    assert "nobody" in found.condition()["message"]
    eventually(lambda: found.condition("Loaded").get("status") == "True")


def test_a_module_may_select_by_what_another_one_has_loaded(there):
    world = there()
    dependent = a_module("dependent", selector={f"{P}{NAMESPACE}.m.ready": ""})
    assert world.api.post(modules(NAMESPACE), dependent).code == 201
    eventually(lambda: world.ready("dependent"))
    world.add_node("late", "6.0.0")
    eventually(lambda: f"{NAMESPACE}.dependent.ready" in world.labels("late"))


def test_conditions_of_others_are_kept(there):
    world = there()
    path = f"{modules(NAMESPACE)}/m/status"
    condition = {
        "type": "Vendor",
        "status": "True",
        "reason": "Fine",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    conditions = [*world.module()["status"]["conditions"], condition]
    assert world.api.patch(path, {"status": {"conditions": conditions}}).code == 200
    world.change_kernel("n0", "6.4.0")
    eventually(lambda: "6.4.0" in {each["kernelVersion"] for each in world.module()["status"]["kernels"]})
    assert world.condition("Vendor")["reason"] == "Fine"


def test_a_module_that_no_node_is_for_is_ready(world):
    found = world()
    found.operator()
    found.api.post(modules(NAMESPACE), a_module(selector={"none": "x"}, devicePlugin=DEVICE_PLUGIN))
    eventually(lambda: found.condition().get("reason") == "NoNodes")
    assert found.ready()
    assert found.module()["status"]["moduleLoader"]["nodesMatchingSelectorNumber"] == 0


def test_a_tainted_node_gets_the_driver_that_tolerates_it(world):
    found = world(nodes=1)
    taint = {"key": "k", "value": "v", "effect": "NoSchedule"}
    found.add_node("tainted", "6.1.0", taints=[taint])
    found.operator()
    found.api.post(modules(NAMESPACE), a_module("intolerant"))
    tolerant = a_module("tolerant", tolerations=[{**taint, "operator": "Equal"}], devicePlugin=DEVICE_PLUGIN)
    found.api.post(modules(NAMESPACE), tolerant)
    wanted = {f"{NAMESPACE}.tolerant.ready", f"{NAMESPACE}.tolerant.device-plugin-ready"}
    eventually(lambda: found.labels("tainted") >= wanted)
    eventually(lambda: found.ready("tolerant"))
    eventually(lambda: found.ready("intolerant"))
    assert f"{NAMESPACE}.intolerant.ready" not in found.labels("tainted")
    assert found.module("tolerant")["status"]["moduleLoader"]["availableNumber"] == 2
    assert found.module("intolerant")["status"]["moduleLoader"]["nodesMatchingSelectorNumber"] == 1


def test_a_device_plugin_that_is_not_wanted_any_more_goes(there):
    world = there(module=a_module(devicePlugin=DEVICE_PLUGIN))
    loaders = {each["metadata"]["uid"] for each in world.loaders().values()}
    world.api.patch(f"{modules(NAMESPACE)}/m", {"spec": {"devicePlugin": None}})
    eventually(lambda: {each["metadata"]["uid"] for each in world.sets()} == loaders, "the loaders alone are left")
    eventually(lambda: not world.pods("device-plugin"))
    for node in ("n0", "n1", "n2"):
        eventually(lambda node=node: world.labels(node) == {"kernel-version.full", "m.ready", f"{NAMESPACE}.m.ready"})
    eventually(lambda: "devicePlugin" not in world.module()["status"])
    eventually(lambda: world.condition("DevicePluginReady").get("reason") == "NoDevicePlugin")


def stopped_and_left(world, change=lambda body: body):
    """Let a DaemonSet stand in place of ours, as an operator before this one may have left it."""
    world.stop()
    ours = world.loaders()["6.0.0"]
    # Of two of one second neither is the older one, and the names decide.
    made = datetime.fromisoformat(ours["metadata"]["creationTimestamp"])
    eventually(lambda: datetime.now(UTC) - made >= timedelta(seconds=1))
    body = {
        "metadata": {
            "generateName": "m-",
            **{key: ours["metadata"][key] for key in ("labels", "ownerReferences")},
        },
        "spec": ours["spec"],
    }
    change(body)
    made = world.api.post(f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets", body)
    assert made.code == 201, made.body
    return ours["metadata"], made.body["metadata"]


def test_of_two_loaders_for_the_same_nodes_one_stays(there):
    world = there(nodes=2, kernels=1)
    ours, other = stopped_and_left(world)
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets"
    eventually(lambda: world.api.get(f"{path}/{other['name']}").body["status"].get("numberAvailable") == 2)
    pods = {
        each["metadata"]["uid"]
        for each in world.pods("module-loader")
        if each["metadata"]["ownerReferences"][0]["uid"] == ours["uid"]
    }
    world.operator()
    eventually(lambda: [each["metadata"]["uid"] for each in world.sets()] == [ours["uid"]], "the oldest stays")
    eventually(lambda: {each["metadata"]["uid"] for each in world.pods("module-loader")} == pods, "with its pods")
    eventually(world.ready)
    eventually(lambda: world.module()["status"]["moduleLoader"]["availableNumber"] == 2)


def test_a_loader_that_selects_its_pods_otherwise_is_made_anew_and_that_is_told(there):
    world = there(nodes=2, kernels=1)
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets"

    def otherwise(body):
        body["spec"]["selector"]["matchLabels"]["of"] = "old"
        body["spec"]["template"]["metadata"]["labels"]["of"] = "old"

    ours, other = stopped_and_left(world, otherwise)
    world.api.delete(f"{path}/{ours['name']}", {"propagationPolicy": "Background"})
    eventually(lambda: [each["metadata"]["uid"] for each in world.sets()] == [other["uid"]])
    world.operator()
    eventually(lambda: [each["metadata"]["name"] for each in world.sets()] == [ours["name"]])
    eventually(lambda: "SelectorChanged" in world.events())
    eventually(world.ready)


def test_what_looks_like_ours_but_is_no_modules_is_not_touched(there):
    world = there()
    ours = world.loaders()["6.1.0"]
    body = {
        "metadata": {"name": "like-ours", "labels": ours["metadata"]["labels"]},
        "spec": {
            **ours["spec"],
            "template": {
                **ours["spec"]["template"],
                "spec": {**ours["spec"]["template"]["spec"], "nodeSelector": {"none": "x"}},
            },
        },
    }
    made = world.api.post(f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets", body)
    assert made.code == 201, made.body
    world.change_kernel("n1", "6.0.0")
    eventually(lambda: ours["metadata"]["uid"] not in {each["metadata"]["uid"] for each in world.sets()})
    world.api.delete(f"{modules(NAMESPACE)}/m")
    eventually(lambda: [each["metadata"]["uid"] for each in world.sets()] == [made.body["metadata"]["uid"]])


def test_nothing_is_made_for_a_module_on_its_way_out(there):
    world = there()
    path = f"{modules(NAMESPACE)}/m"
    assert world.api.patch(path, {"metadata": {"finalizers": ["example.com/hold"]}}).code == 200
    world.api.delete(path)
    world.quiet()
    before = world.mark()
    world.change_kernel("n0", "6.9.0")
    world.add_node("late", "6.8.0")
    eventually(lambda: world.labels("late") == {"kernel-version.full"})
    world.quiet()
    assert set(world.loaders()) == {"6.0.0", "6.1.0"}
    assert ("create", "daemonsets") not in world.asked(before)
    world.api.patch(path, {"metadata": {"finalizers": None}})
    eventually(lambda: not world.sets())


def test_a_module_with_a_version_is_not_rolled_out(world):
    found = world()
    found.operator()
    container = {**mapping()["container"], "version": "1.0"}
    answer = found.api.post(modules(NAMESPACE), a_module(moduleLoader={"container": container}))
    assert answer.code == 201, answer.body
    eventually(lambda: found.condition().get("reason") == "VersionUnsupported")
    found.quiet()
    assert not found.sets()


def test_an_event_that_comes_again_is_counted(there):
    world = there(nodes=1, kernels=1)
    name = world.loaders()["6.0.0"]["metadata"]["name"]
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{name}"

    def drift(count):
        edit = [{"op": "replace", "path": "/spec/template/spec/priorityClassName", "value": ""}]
        assert world.api.patch(path, edit, "json").code == 200
        eventually(lambda: world.events().get("DriftReverted", {}).get("count") == count)

    drift(1)
    drift(2)
    drift(3)
    about = world.events()["DriftReverted"]["involvedObject"]
    assert (about["kind"], about["name"], about["uid"]) == ("Module", "m", world.module()["metadata"]["uid"])
    of_drift = [
        each for each in world.api.get(core(NAMESPACE, "events")).body["items"] if each["reason"] == "DriftReverted"
    ]
    assert len(of_drift) == 1


def test_a_status_of_very_many_kernels_is_bounded(world):
    found = world(nodes=0)
    for number in range(105):
        body = a_node(f"n{number}", {"a": "b"}, f"6.{number}.0")  # all at once, since nothing runs on them
        assert found.api.post("/api/v1/nodes", body).code == 201
    found.operator()
    none = {"container": {**mapping()["container"], "kernelMappings": [{"literal": "none", "containerImage": "r/m"}]}}
    found.api.post(modules(NAMESPACE), a_module(moduleLoader=none))
    eventually(lambda: found.module().get("status", {}).get("kernelsNotShown") == 5)
    status = found.module()["status"]
    assert len(status["kernels"]) == 100
    assert status["moduleLoader"] == {"nodesMatchingSelectorNumber": 105, "desiredNumber": 0, "availableNumber": 0}
    assert found.reasons() == {"NoMapping"}
    assert not found.sets()
    found.api.delete("/api/v1/nodes/n104")
    eventually(lambda: found.module()["status"].get("kernelsNotShown") == 4)
