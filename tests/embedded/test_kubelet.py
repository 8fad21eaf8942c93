"""Pods live on nodes, with the states, words and events of the real kubelet."""

from __future__ import annotations

import asyncio
import base64
import sys
import threading
import time

import pytest
from apiserver.client import eventually
from apiserver.samples import a_daemon_set, core, sets
from embedded.conftest import QUICK

from kmm.embedded.kubelet import PullError
from kmm.embedded.program import Exit, idle, process

PODS = core("default", "pods")


def a_pod(name="p", *, node="n1", container=None, **spec):
    return {
        "metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "c:1", **(container or {})}], **spec},
    }


def hook(name, *command):
    return {"lifecycle": {name: {"exec": {"command": list(command)}}}}


def state(api, name="p"):
    statuses = api.get(f"{PODS}/{name}").body["status"].get("containerStatuses") or [{"state": {}}]
    return statuses[0]


def states(api, start, name="p"):
    """Yield each state that the container of a pod comes to, as a watch tells it."""
    seen = None
    with api.watch(PODS, resourceVersion=start, fieldSelector=f"metadata.name={name}") as events:
        for event in events:
            for each in event["object"]["status"].get("containerStatuses", ()):
                kind, said = next(iter(each["state"].items()))
                now = (kind, said.get("reason", ""), each["restartCount"], each["ready"])
                if now != seen:
                    seen = now
                    yield now, each


def reasons(api, name="p"):
    events = api.get(core("default", "events"), fieldSelector=f"involvedObject.name={name}").body["items"]
    return {(each["type"], each["reason"], each["message"]) for each in events}


def run(api, start, wanted):
    """Return the states until the wanted one."""
    found = []
    for now, status in states(api, start):
        found.append((now, status))
        if now[:2] == wanted:
            return found
    raise AssertionError(found)


def test_a_pod_comes_to_run(start):
    _, api = start()
    version = api.get(PODS).version
    api.post(PODS, a_pod())
    assert [now for now, _ in run(api, version, ("running", ""))] == [
        ("waiting", "ContainerCreating", 0, False),
        ("running", "", 0, True),
    ]
    status = api.get(f"{PODS}/p").body["status"]
    assert status["phase"] == "Running"
    assert {each["type"]: each["status"] for each in status["conditions"]} == {
        "PodReadyToStartContainers": "True", "Initialized": "True", "Ready": "True", "ContainersReady": "True",
        "PodScheduled": "True",
    }  # fmt: skip
    eventually(
        lambda: (
            {
                ("Normal", "Pulling", 'Pulling image "c:1"'),
                ("Normal", "Created", "Container created"),
                ("Normal", "Started", "Container started"),
            }
            <= reasons(api)
        )
    )


def test_a_failing_load_says_why_before_it_backs_off(start):
    async def program(run):
        if run.hook == "postStart":
            return Exit(code=1, output="modprobe: ERROR: could not insert 'm': Key was rejected by service\n")
        return await idle(run)

    _, api = start(program=program)
    version = api.get(PODS).version
    api.post(PODS, a_pod(container=hook("postStart", "modprobe", "-v", "m")))
    found = run(api, version, ("waiting", "CrashLoopBackOff"))
    assert [now for now, _ in found] == [
        ("waiting", "ContainerCreating", 0, False),
        ("waiting", "PostStartHookError", 0, False),
        ("waiting", "PostStartHookError", 1, False),
        ("waiting", "CrashLoopBackOff", 1, False),
    ]
    uid = api.get(f"{PODS}/p").body["metadata"]["uid"]
    where = f'Container "c" in Pod "p_default({uid})" failed'
    said = "modprobe: ERROR: could not insert 'm': Key was rejected by service\n"
    quoted = said.replace("\n", "\\n")
    assert found[1][1]["state"]["waiting"]["message"] == (
        f"Exec lifecycle hook ([modprobe -v m]) for {where} - error: command 'modprobe -v m' exited with 1: {said}, "
        f'message: "{quoted}"'
    )
    assert found[1][1]["lastState"]["terminated"]["exitCode"] == 143
    assert found[3][1]["state"]["waiting"]["message"] == (
        f"back-off 0.1s restarting failed container=c pod=p_default({uid})"
    )
    eventually(
        lambda: (
            {
                ("Warning", "FailedPostStartHook", "PostStartHook failed"),
                ("Normal", "Killing", "FailedPostStartHook"),
                ("Warning", "BackOff", f"Back-off restarting failed container c in pod p_default({uid})"),
            }
            <= reasons(api)
        )
    )
    assert api.get(f"{PODS}/p").body["status"]["phase"] == "Running", (
        "as the real one says of a container that crashed"
    )


def test_pre_stop_runs_also_after_a_failed_post_start(start):
    ran = []

    async def program(run):
        if run.hook:
            ran.append(run.hook)
            return Exit(code=int(run.hook == "postStart"))
        return await idle(run)

    _, api = start(program=program)
    lifecycle = {"lifecycle": {**hook("postStart", "a")["lifecycle"], **hook("preStop", "b")["lifecycle"]}}
    api.post(PODS, a_pod(container=lifecycle))
    eventually(lambda: ran[:2] == ["postStart", "preStop"])


def test_a_pod_is_not_ready_while_its_hook_runs(start):
    go = threading.Event()

    def program(run):
        if run.hook == "postStart":
            go.wait(30)
            return Exit()
        return idle(run)

    _, api = start(program=program)
    api.post(PODS, a_pod(container=hook("postStart", "load")))
    eventually(lambda: "Started" in {reason for _, reason, _ in reasons(api)})
    assert state(api)["state"] == {"waiting": {"reason": "ContainerCreating"}}
    go.set()
    eventually(lambda: state(api)["ready"])


def test_unloading_runs_in_the_grace_period_and_then_the_pod_is_gone(start):
    ran = []

    def program(run):
        if run.hook == "preStop":
            ran.append(run.argv)
            return Exit()
        return idle(run)

    _, api = start(program=program)
    api.post(PODS, a_pod(container=hook("preStop", "modprobe", "-r", "m")))
    eventually(lambda: state(api).get("ready"))
    version = api.get(PODS).version
    api.delete(f"{PODS}/p")
    with api.watch(PODS, resourceVersion=version) as events:
        told = []
        for event in events:
            told.append(event)
            if event["type"] == "DELETED":
                break
    assert ran == [("modprobe", "-r", "m")]
    assert told[0]["type"] == "MODIFIED"
    assert told[0]["object"]["metadata"]["deletionTimestamp"]
    assert told[0]["object"]["status"]["containerStatuses"][0]["ready"], "until it has stopped"
    ended = told[-1]["object"]["status"]
    assert ended["phase"] == "Failed"
    assert ended["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 143
    eventually(lambda: ("Normal", "Killing", "Stopping container c") in reasons(api))


def test_a_failing_unload_is_told_and_stops_nothing(start):
    async def program(run):
        if run.hook == "preStop":
            return Exit(code=1, output="modprobe: FATAL: Module m is in use.")
        return await idle(run)

    _, api = start(program=program)
    api.post(PODS, a_pod(container=hook("preStop", "modprobe", "-r", "m")))
    eventually(lambda: state(api).get("ready"))
    api.delete(f"{PODS}/p")
    eventually(lambda: api.get(f"{PODS}/p").code == 404)
    assert ("Warning", "FailedPreStopHook", "PreStopHook failed") in reasons(api)


def test_what_does_not_stop_is_killed_when_its_time_is_over(start):
    async def program(run):
        await run.stopped.wait()
        await asyncio.sleep(3600)
        return Exit()

    _, api = start(program=program)
    api.post(PODS, a_pod(terminationGracePeriodSeconds=1))
    eventually(lambda: state(api).get("ready"))
    version = api.get(PODS).version
    api.delete(f"{PODS}/p")
    with api.watch(PODS, resourceVersion=version) as events:
        last = next(event for event in events if event["type"] == "DELETED")
    assert last["object"]["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 137


def test_a_container_that_ends_is_started_again(start):
    codes = iter([3, 0])  # how it ends the first times

    async def program(run):
        code = next(codes, None)
        return await idle(run) if code is None else Exit(code=code)

    _, api = start(program=program)
    api.post(PODS, a_pod())
    eventually(lambda: state(api).get("ready") and state(api)["restartCount"] == 2)
    assert state(api)["lastState"]["terminated"]["reason"] == "Completed"
    assert state(api)["lastState"]["terminated"]["exitCode"] == 0


@pytest.mark.parametrize(
    ("policy", "left", "code", "message"),
    [
        ("File", "", 1, None),
        ("File", "of the file", 1, "of the file"),
        ("FallbackToLogsOnError", "", 1, "of the log"),
        ("FallbackToLogsOnError", "of the file", 1, "of the file"),
        ("FallbackToLogsOnError", "", 0, None),
    ],
)
def test_a_termination_message_comes_from_file_or_log(start, policy, left, code, message):
    async def program(run):
        run.mounts["/dev/termination-log"].write_text(left)
        return Exit(code=code, output="of the log\n")

    _, api = start(program=program)
    api.post(PODS, a_pod(container={"terminationMessagePolicy": policy}, restartPolicy="Never"))
    phase = eventually(
        lambda: found if (found := api.get(f"{PODS}/p").body["status"]["phase"]) in ("Succeeded", "Failed") else None
    )
    assert phase == ("Failed" if code else "Succeeded")
    ended = state(api)["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (code, "Error" if code else "Completed")
    assert ended.get("message") == message


def test_only_the_end_of_a_long_log_is_kept(start):
    async def program(_):
        return Exit(code=1, output="".join(f"line {number} {'x' * 40}\n" for number in range(500)))

    _, api = start(program=program)
    api.post(PODS, a_pod(container={"terminationMessagePolicy": "FallbackToLogsOnError"}, restartPolicy="Never"))
    eventually(lambda: "terminated" in state(api)["state"])
    message = state(api)["state"]["terminated"]["message"]
    assert len(message) <= 2048
    assert message.endswith("x")
    assert "line 499" in message


def test_an_image_that_is_not_there_is_asked_for_again(start):
    there = threading.Event()

    async def pull(image, _pod):
        if not there.is_set():
            raise PullError(f"failed to resolve image: {image}: not found")

    _, api = start(pull=pull)
    version = api.get(PODS).version
    api.post(PODS, a_pod())
    found = run(api, version, ("waiting", "ImagePullBackOff"))
    assert [now[:2] for now, _ in found] == [
        ("waiting", "ContainerCreating"), ("waiting", "ErrImagePull"), ("waiting", "ImagePullBackOff"),
    ]  # fmt: skip
    assert found[1][1]["state"]["waiting"]["message"] == "failed to resolve image: c:1: not found"
    assert found[2][1]["state"]["waiting"]["message"] == (
        'Back-off pulling image "c:1": ErrImagePull: failed to resolve image: c:1: not found'
    )
    there.set()
    eventually(lambda: state(api)["ready"])
    assert {("Warning", "Failed", "Error: ErrImagePull"), ("Normal", "BackOff", 'Back-off pulling image "c:1"')} <= (
        reasons(api)
    )


def test_a_volume_that_is_not_there_is_waited_for(start):
    _, api = start()
    volumes = [{"name": "v", "secret": {"secretName": "s"}}, {"name": "w", "configMap": {"name": "c"}}]
    api.post(PODS, a_pod(volumes=volumes))
    failed = ("Warning", "FailedMount", 'MountVolume.SetUp failed for volume "v" : secret "s" not found')
    eventually(lambda: failed in reasons(api))
    assert state(api)["state"] == {"waiting": {"reason": "ContainerCreating"}}
    api.post(core("default", "secrets"), {"metadata": {"name": "s"}})
    failed = ("Warning", "FailedMount", 'MountVolume.SetUp failed for volume "w" : configmap "c" not found')
    eventually(lambda: failed in reasons(api))
    api.post(core("default", "configmaps"), {"metadata": {"name": "c"}})
    eventually(lambda: state(api)["ready"])


def test_the_modules_of_another_kernel_are_not_on_a_node(start):
    _, api = start()
    for name, kernel in (("own", "6.1.0"), ("other", "6.2.0")):
        volume = {"name": "m", "hostPath": {"path": f"/lib/modules/{kernel}", "type": "Directory"}}
        api.post(PODS, a_pod(name, volumes=[volume]))
    eventually(lambda: state(api, "own")["ready"])
    words = "hostPath type check failed: /lib/modules/6.2.0 is not a directory"
    eventually(lambda: any(words in message for _, _, message in reasons(api, "other")))


def test_a_variable_from_a_secret_that_is_not_there_is_waited_for(start):
    _, api = start()
    env = [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    api.post(PODS, a_pod(container={"env": env}))
    eventually(
        lambda: (
            state(api)["state"]
            == {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s" not found'}}
        )
    )
    api.post(core("default", "secrets"), {"metadata": {"name": "s"}, "data": {}})
    eventually(lambda: state(api)["state"]["waiting"]["message"] == "couldn't find key k in Secret default/s")
    api.patch(core("default", "secrets") + "/s", {"data": {"k": "dg=="}})
    eventually(lambda: state(api)["ready"])


def test_init_containers_come_first(start):
    order = []

    async def program(run):
        order.append(run.container["name"])
        return await idle(run)

    _, api = start(program=program)
    init = [{"name": "first", "image": "c:1"}, {"name": "second", "image": "c:1"}]
    api.post(PODS, a_pod(initContainers=init))
    eventually(lambda: state(api)["ready"] and len(order) == 3)
    assert order == ["first", "second", "c"]
    statuses = api.get(f"{PODS}/p").body["status"]["initContainerStatuses"]
    assert [each["state"]["terminated"]["reason"] for each in statuses] == ["Completed", "Completed"]


SCRIPT = """
import os, pathlib, sys
assert sys.argv[1:3] == ["--name", "n1"], sys.argv
print("cert:", pathlib.Path(sys.argv[3]).read_text())
print("dockerfile:", pathlib.Path(os.environ["WHERE"]).read_text())
print("token:", os.environ["TOKEN"], "from:", os.environ["FROM"])
pathlib.Path(sys.argv[4]).write_text("all is well")
print("to the log", file=sys.stderr)
sys.exit(3)
"""


def test_a_real_process_gets_what_the_pod_says(start):
    _, api = start(program=process)
    secret = {"metadata": {"name": "s"}, "data": {"cert": base64.b64encode(b"CERT").decode(), "token": "aHVzaA=="}}
    api.post(core("default", "secrets"), secret)
    api.post(core("default", "configmaps"), {"metadata": {"name": "c"}, "data": {"dockerfile": "FROM x"}})
    container = {
        "command": [sys.executable, "-c", SCRIPT],
        "args": ["--name", "$(NODE)", "/run/keys/cert", "/dev/termination-log"],
        "env": [
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "WHERE", "value": "/src/Dockerfile"},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "token"}}},
        ],
        "envFrom": [{"prefix": "F", "configMapRef": {"name": "d"}}],
        "volumeMounts": [{"name": "keys", "mountPath": "/run/keys"}, {"name": "work", "mountPath": "/src"}],
    }
    api.post(core("default", "configmaps"), {"metadata": {"name": "d"}, "data": {"ROM": "map"}})
    volumes = [
        {"name": "keys", "secret": {"secretName": "s"}},
        {"name": "work", "configMap": {"name": "c", "items": [{"key": "dockerfile", "path": "Dockerfile"}]}},
    ]
    api.post(PODS, a_pod(container=container, volumes=volumes, restartPolicy="Never"))
    eventually(lambda: "terminated" in state(api)["state"])
    ended = state(api)["state"]["terminated"]
    assert (ended["exitCode"], ended["message"]) == (3, "all is well")


def test_what_volumes_hold_has_the_modes_that_the_pod_asks_for(start):
    _, api = start(program=process)
    api.post(core("default", "secrets"), {"metadata": {"name": "s"}, "data": {"a": "YQ==", "b": "Yg=="}})
    items = [{"key": "a", "path": "a"}, {"key": "b", "path": "b", "mode": 0o400}]
    volumes = [
        {"name": "plain", "secret": {"secretName": "s"}},
        {"name": "asked", "secret": {"secretName": "s", "defaultMode": 0o444, "items": items}},
        {"name": "empty", "emptyDir": {}},
    ]
    mounts = [{"name": each["name"], "mountPath": f"/{each['name']}"} for each in volumes]
    container = {
        "command": ["sh", "-c", "stat -L -c %a /plain/a /asked/a /asked/b /empty >/dev/termination-log"],
        "volumeMounts": mounts,
    }
    first = {"name": "first", "image": "c:1", **container}
    api.post(PODS, a_pod(container=container, initContainers=[first], volumes=volumes, restartPolicy="Never"))
    eventually(lambda: "terminated" in state(api)["state"])
    assert state(api)["state"]["terminated"]["message"].split() == ["644", "444", "400", "777"]


def test_a_real_process_that_cannot_start_says_so(start):
    _, api = start(program=process)
    api.post(PODS, a_pod(container={"command": ["/no/such/program"]}, restartPolicy="Never"))
    eventually(lambda: "terminated" in state(api)["state"])
    ended = state(api)["state"]["terminated"]
    assert ended["exitCode"] == 128
    assert "failed to start container" in ended["message"]


def test_a_real_process_is_asked_to_end_and_then_killed(start, tmp_path):
    _, api = start(program=process)
    started = tmp_path / "started"
    stubborn = f"import signal, time, pathlib; signal.signal(signal.SIGTERM, signal.SIG_IGN); pathlib.Path({str(started)!r}).touch(); time.sleep(3600)"  # noqa: E501
    api.post(PODS, a_pod(container={"command": [sys.executable, "-c", stubborn]}, terminationGracePeriodSeconds=1))
    eventually(started.exists)
    api.delete(f"{PODS}/p")
    eventually(lambda: api.get(f"{PODS}/p").code == 404)


def test_what_a_plugin_mounts_stays_in_its_folder(start, tmp_path):
    """User strings are hostile: a key or a path must not write elsewhere."""
    cluster, api = start(program=process)
    api.post(core("default", "configmaps"), {"metadata": {"name": "c"}, "data": {"k": "v"}})
    for number, (volume, mount) in enumerate(
        (
            ({"configMap": {"name": "c", "items": [{"key": "k", "path": "../../../escaped"}]}}, {}),
            ({"configMap": {"name": "c"}}, {"subPath": "../../../escaped"}),
        )
    ):
        container = {
            "command": ["true"],
            "volumeMounts": [{"name": "v", "mountPath": "/v", **mount}],
        }
        answer = api.post(
            PODS, a_pod(f"p{number}", container=container, volumes=[{"name": "v", **volume}], restartPolicy="Never")
        )
        assert answer.code == 422, answer.body
        assert "must not contain '..'" in answer.message
    assert not list(tmp_path.rglob("escaped"))
    assert not list(cluster.folder.rglob("escaped"))


def test_a_node_that_is_cut_off_keeps_its_pods_and_says_nothing(start):
    cluster, api = start()
    cluster.add_node("n2", "6.1.0")
    api.post(sets("default"), a_daemon_set(nodes={"kubernetes.io/os": "linux"}))
    eventually(lambda: api.get(f"{sets('default')}/d").body["status"].get("numberAvailable") == 2)
    cluster.reach("n2", reachable=False)
    pod = next(each for each in api.get(PODS).body["items"] if each["spec"]["nodeName"] == "n2")
    name = pod["metadata"]["name"]
    api.delete(f"{PODS}/{name}")
    other = next(each for each in api.get(PODS).body["items"] if each["spec"]["nodeName"] == "n1")
    api.delete(f"{PODS}/{other['metadata']['name']}")
    eventually(lambda: api.get(f"{PODS}/{other['metadata']['name']}").code == 404)
    assert "deletionTimestamp" in api.get(f"{PODS}/{name}").body["metadata"], "nobody there has heard of it"
    cluster.reach("n2", reachable=True)
    eventually(lambda: api.get(f"{PODS}/{name}").code == 404)
    eventually(lambda: api.get(f"{sets('default')}/d").body["status"].get("numberAvailable") == 2)


def test_a_pod_of_a_node_that_is_cut_off_is_not_ready(start):
    cluster, api = start()
    api.post(PODS, a_pod())
    eventually(lambda: state(api)["ready"])

    def ready():
        conditions = api.get(f"{PODS}/p").body["status"]["conditions"]
        return next(each["status"] for each in conditions if each["type"] == "Ready")

    cluster.reach("n1", reachable=False)
    eventually(lambda: ready() == "False")
    node = api.get("/api/v1/nodes/n1").body
    assert node["status"]["conditions"][0]["status"] == "Unknown"
    assert {each["key"] for each in node["spec"]["taints"]} == {"node.kubernetes.io/unreachable"}
    cluster.reach("n1", reachable=True)
    eventually(lambda: ready() == "True")


def test_what_ended_while_a_node_was_cut_off_is_not_run_again(start):
    ran = []

    async def program(run):
        ran.append(run.container["name"])
        await gate.wait()
        return Exit()

    gate = asyncio.Event()
    cluster, api = start(program=program)
    api.post(PODS, a_pod(restartPolicy="Never"))
    eventually(lambda: ran)
    cluster.reach("n1", reachable=False)
    cluster.call(gate.set)
    api.delete(f"{PODS}/p")
    cluster.reach("n1", reachable=True)
    eventually(lambda: api.get(f"{PODS}/p").code == 404)
    assert ran == ["c"]


def test_a_grace_period_can_be_shortened(start):
    async def program(_):
        await asyncio.sleep(3600)
        return Exit()

    _, api = start(program=program)
    api.post(PODS, a_pod(terminationGracePeriodSeconds=3600))
    eventually(lambda: state(api)["ready"])
    api.delete(f"{PODS}/p")
    assert api.get(f"{PODS}/p").body["metadata"]["deletionGracePeriodSeconds"] == 3600
    api.delete(f"{PODS}/p", {"gracePeriodSeconds": 1})
    eventually(lambda: api.get(f"{PODS}/p").code == 404)


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_program_that_raises_could_not_be_started(start, asynchronous):
    async def raises(_):
        raise RuntimeError("no such luck")

    _, api = start(program=raises if asynchronous else lambda _: 1 / 0)
    api.post(PODS, a_pod(restartPolicy="Never"))
    eventually(lambda: "terminated" in state(api)["state"])
    ended = state(api)["state"]["terminated"]
    assert ended["exitCode"] == 128
    assert "failed to start container" in ended["message"]


@pytest.mark.parametrize("returned", [None, 1, Exit(code="1")])
def test_a_program_has_to_say_how_it_ended(start, returned):
    async def program(_):
        return returned

    _, api = start(program=program)
    api.post(PODS, a_pod(restartPolicy="Never"))
    eventually(lambda: "terminated" in state(api)["state"])
    assert "not an Exit" in state(api)["state"]["terminated"]["message"]


def test_a_real_process_needs_a_command(start):
    _, api = start(program=process)
    api.post(PODS, a_pod(restartPolicy="Never"))
    eventually(lambda: "terminated" in state(api)["state"])
    assert "no command specified" in state(api)["state"]["terminated"]["message"]


def test_plain_functions_may_be_many(start):
    def program(run):
        while not run.stopped.is_set():
            time.sleep(0.01)
        return Exit(code=143)

    cluster, api = start(program=program)
    for number in range(60):
        api.post(PODS, a_pod(f"p{number}"))
    eventually(lambda: all(state(api, f"p{number}").get("ready") for number in range(60)))
    cluster.__exit__(None, None, None)
    eventually(lambda: not [each for each in threading.enumerate() if each.name == "kmm-c"], "no thread is left")


def test_at_most_so_many_pods_are_unavailable_while_they_are_replaced(start):
    async def program(run):
        if run.hook == "postStart":
            await asyncio.sleep(0.2)
        return await idle(run) if not run.hook else Exit()

    cluster, api = start(program=program)
    for number in range(2, 5):
        cluster.add_node(f"n{number}", "6.1.0")
    body = a_daemon_set(nodes={"kubernetes.io/os": "linux"})
    body["spec"]["template"]["spec"]["containers"][0] |= hook("postStart", "load")
    api.post(sets("default"), body)
    path = f"{sets('default')}/d"
    eventually(lambda: api.get(path).body["status"].get("numberAvailable") == 4)
    version = api.get(sets("default")).version
    api.patch(path, {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 5}}}})
    least = 4
    with api.watch(sets("default"), resourceVersion=version) as events:
        for event in events:
            status = event["object"]["status"]
            least = min(least, status.get("numberAvailable", 0))
            if status["observedGeneration"] == 2 and (
                status.get("updatedNumberScheduled"), status.get("numberAvailable")
            ) == (4, 4):  # fmt: skip
                break
    assert least == 3


def test_the_paces_are_the_real_kubelets_unless_said_otherwise():
    assert [QUICK.__class__().after(failures) for failures in range(1, 8)] == [10, 20, 40, 80, 160, 300, 300]
