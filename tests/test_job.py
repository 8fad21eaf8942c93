from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmm.contract import BuildRequest, ModuleRef, Progress, SecretFiles, SignRequest, State
from kmm.embedded.volume import expanded
from kmm.job import (
    JobOptions,
    authorities_mount,
    build_sections,
    docker_config_mount,
    dockerfile_mount,
    job,
    job_options,
    literal,
    observe_job,
    placement,
    refuse_unknown,
    secret_files_mount,
    secret_mounts,
    sign_sections,
)

MODULE = ModuleRef(namespace="n", name="m")
KEYS = (
    *("kind", "status", "conditions", "type", "reason", "message", "phase", "containerStatuses", "state"),
    *("terminated", "waiting", "exitCode", "spec", "activeDeadlineSeconds"),
    *("podFailurePolicy", "rules", "onExitCodes", "values"),
)
WORDS = ("True", "False", "Failed", "Complete", "Job", "PodScheduled", "DisruptionTarget", "DeadlineExceeded", 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner | st.sampled_from(WORDS), max_size=5)
    ),
    max_leaves=30,
)


def build(**fields) -> BuildRequest:
    return BuildRequest(
        module=MODULE,
        kernel="6.1.0",
        architecture="arm64",
        dockerfile="FROM a",
        dockerfile_config_map="files",
        dockerfile_key="dockerfile",
        image="registry.example.com/a:1",
        **fields,
    )


def a_job(*conditions: tuple[str, str, str], **status) -> dict:
    made = [{"type": kind, "status": "True", "reason": why, "message": text} for kind, why, text in conditions]
    return {"kind": "Job", "spec": {"activeDeadlineSeconds": 60}, "status": {"conditions": made, **status}}


def ended(code: int, message: str = "", reason: str = "Error", name: str = "build") -> dict:
    state = {"terminated": {"exitCode": code, "message": message, "reason": reason}}
    return {"status": {"phase": "Failed", "containerStatuses": [{"name": name, "state": state}]}}


BACK_OFF = ("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")


@given(objects=st.lists(JSON), pods=st.lists(JSON))
def test_progress_is_read_from_any_json(objects, pods):
    assert isinstance(observe_job(objects, pods), Progress)


@given(status=JSON, pod=JSON)
def test_progress_is_read_from_a_job_and_a_pod_of_any_status(status, pod):
    assert isinstance(observe_job([{"kind": "Job", "status": status}], [{"status": pod}]), Progress)


def test_a_job_that_is_gone_or_not_begun_is_pending():
    assert observe_job([], []).state is State.PENDING
    assert observe_job([a_job()], []).state is State.PENDING
    assert observe_job([a_job(active=1)], [{"status": {"phase": "Pending"}}]).state is State.PENDING


def test_what_was_rendered_beside_the_job_is_not_taken_for_it():
    beside = {"kind": "ConfigMap", "status": {"conditions": [{"type": "Failed", "status": "True"}]}}
    assert observe_job([beside, a_job(("Complete", "", ""))], []).state is State.SUCCEEDED


def test_a_pod_that_runs_or_whose_end_is_not_counted_yet_is_running():
    for phase in ("Running", "Succeeded", "Failed"):
        assert observe_job([a_job(active=1)], [{"status": {"phase": phase}}]).state is State.RUNNING


def test_a_pod_whose_init_container_runs_is_running():
    status = {"phase": "Pending", "initContainerStatuses": [{"name": "build", "state": {"running": {}}}]}
    assert observe_job([a_job()], [{"status": status}]).state is State.RUNNING


def test_a_suspended_job_says_so():
    progress = observe_job([a_job(("Suspended", "JobSuspended", ""))], [])
    assert (progress.reason, progress.message) == ("JobSuspended", "the Job is suspended")


def test_a_job_succeeds_when_it_says_so_whatever_its_pods_say():
    assert observe_job([a_job(("Complete", "CompletionsReached", ""))], [ended(1)]).state is State.SUCCEEDED


def test_a_condition_that_does_not_hold_counts_for_nothing():
    one = a_job(BACK_OFF)
    one["status"]["conditions"][0]["status"] = "False"
    assert observe_job([one], []).state is State.PENDING


def test_why_it_failed_is_what_its_container_said_last():
    progress = observe_job([a_job(BACK_OFF)], [ended(2, "gcc: not found\n")])
    assert (progress.state, progress.reason) == (State.FAILED, "BackoffLimitExceeded")
    assert progress.message == "build ended with exit code 2: gcc: not found"


def test_a_container_that_was_killed_for_its_memory_says_so():
    (message,) = {observe_job([a_job(BACK_OFF)], [ended(137, reason="OOMKilled")]).message}
    assert message == "build used more memory than its resources.limits.memory"


def test_an_init_container_that_failed_is_named():
    pod = {"status": {"initContainerStatuses": ended(1, "no", name="fetch")["status"]["containerStatuses"]}}
    assert observe_job([a_job(BACK_OFF)], [pod]).message == "fetch ended with exit code 1: no"


def test_of_a_long_last_word_the_last_whole_lines_are_kept():
    lines = [f"line {number} " + "x" * 90 for number in range(40)]
    message = observe_job([a_job(BACK_OFF)], [ended(1, "\n".join(lines))]).message
    kept = message.removeprefix("build ended with exit code 1: ").split("\n")
    assert kept == lines[-len(kept) :]
    assert 1 < len(kept) < 10
    assert len(message) < 1024


def test_a_line_that_is_too_long_is_not_cut_since_a_secret_in_it_could_not_be_found_then():
    assert observe_job([a_job(BACK_OFF)], [ended(1, "x" * 2000)]).message.endswith("x" * 2000)


SECRET = "0123456789abcdef" * 150  # longer than what the kubelet keeps of a log, which it cuts at any byte
KEPT = 2048


@pytest.mark.parametrize("after", ["\n", "\ncurl: (22) 403\n", "\n" * 20])
@pytest.mark.parametrize("lost", [0, 1, 400])
def test_a_line_that_the_kubelet_has_cut_is_not_said_since_a_secret_in_it_could_not_be_found(after, lost):
    log = f"Authorization: Bearer {SECRET}{'.' * lost}{after}"[-KEPT:]
    message = observe_job([a_job(BACK_OFF)], [ended(1, log)]).message
    assert message == f"build ended with exit code 1: {after.strip()}".strip(": ")


def test_a_cut_in_the_middle_of_a_character_is_a_cut_too():
    log = ("ü" + "x" * (KEPT - 1)).encode()[-KEPT:].decode(errors="replace")
    assert observe_job([a_job(BACK_OFF)], [ended(1, log)]).message == "build ended with exit code 1"
    log = (f"{'ü' * 1024}\n").encode()[-KEPT:].decode(errors="ignore")
    assert len(log.encode()) < KEPT
    assert observe_job([a_job(BACK_OFF)], [ended(1, log)]).message == "build ended with exit code 1"


def test_what_the_kubelet_keeps_whole_is_said_whole():
    log = "first\n" + "x" * (KEPT - 20)
    assert observe_job([a_job(BACK_OFF)], [ended(1, log)]).message.endswith(log[6:])
    assert observe_job([a_job(BACK_OFF)], [ended(1, "first\nlast")]).message.endswith(": first\nlast")


def test_what_is_no_log_is_not_cut_by_the_kubelet():
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "x" * KEPT}
    assert observe_job([a_job()], [{"status": {"conditions": [condition]}}]).message.endswith("x" * KEPT)


@pytest.mark.parametrize("reason", ["no rule: $TOKEN", "x" * 5000, "two words", "", "é"])
def test_a_reason_that_is_no_word_is_not_repeated(reason):
    failed = ("Failed", reason, "it failed")
    found = observe_job([a_job(failed)], [])
    assert (found.reason, found.message) == ("Failed", "it failed")
    assert observe_job([a_job(("Suspended", reason, ""))], []).reason == ""
    waiting = {"name": "build", "state": {"waiting": {"reason": reason, "message": "why"}}}
    assert observe_job([a_job()], [{"status": {"containerStatuses": [waiting]}}]).reason == ""


def test_an_eviction_is_told():
    pod = {"status": {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}}
    message = observe_job([a_job(BACK_OFF)], [pod]).message
    assert message == "its pod was ended by the node: Evicted: The node was low on resource: memory."


def test_a_disruption_is_told():
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "message": "bye"}
    pod = {"status": {"phase": "Failed", "conditions": [condition]}}
    assert observe_job([a_job(BACK_OFF)], [pod]).message == "its pod was taken away: DeletionByTaintManager: bye"


def test_a_deadline_is_told_with_its_length_and_what_was_said_until_then():
    condition = ("Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
    message = observe_job([a_job(condition)], [ended(143, "compiling")]).message
    assert message == "it did not end within its activeDeadlineSeconds, 60; build ended with exit code 143: compiling"


def test_without_pods_the_jobs_own_condition_is_why():
    assert observe_job([a_job(BACK_OFF)], []).message == "Job has reached the specified backoff limit"
    assert observe_job([a_job(("Failed", "", ""))], []).message == "Failed"


def test_why_a_pod_does_not_start_is_told():
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
    pod = {"status": {"phase": "Pending", "containerStatuses": [{"name": "build", "state": waiting}]}}
    progress = observe_job([a_job(active=1)], [pod])
    assert (progress.state, progress.reason) == (State.PENDING, "ErrImagePull")
    assert progress.message == "build cannot be started: ErrImagePull: not found"


def test_a_pod_that_fits_on_no_node_is_told():
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    pod = {"status": {"phase": "Pending", "conditions": [condition]}}
    assert observe_job([a_job(active=1)], [pod]).message == "no node takes its pod: Unschedulable: 0/3 nodes"


def test_a_pod_that_is_about_to_start_says_nothing():
    waiting = {"waiting": {"reason": "ContainerCreating"}}
    pod = {"status": {"phase": "Pending", "containerStatuses": [{"state": waiting}]}}
    assert observe_job([a_job(active=1)], [pod]) == Progress(state=State.PENDING)


def test_a_job_runs_its_pod_once_and_not_for_ever():
    made = job({"containers": [{"name": "c"}], "volumes": [], "serviceAccountName": None}, 60)
    json.dumps(made)
    assert (made["apiVersion"], made["kind"]) == ("batch/v1", "Job")
    assert made["spec"] == {
        "backoffLimit": 0,
        "activeDeadlineSeconds": 60,
        "template": {
            "spec": {"restartPolicy": "Never", "enableServiceLinks": False, "containers": [{"name": "c"}]},
        },
    }


def test_a_job_whose_container_ends_with_a_final_code_keeps_that_whatever_becomes_of_its_pod():
    made = job({"containers": [{"name": "c"}]}, 60, final_codes=[3])
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [3]}}
    assert made["spec"]["podFailurePolicy"] == {"rules": [rule]}
    policy = ("Failed", "PodFailurePolicy", "Container c for pod n/p failed with exit code 3")
    found = observe_job([{**made, **a_job(policy)}], [])
    assert (found.final, found.message) == (True, policy[2])
    assert observe_job([a_job(policy)], [ended(3, "the PIN is wrong")]).message.endswith("the PIN is wrong")


def test_a_final_code_is_read_from_the_pod_where_the_api_server_knows_no_policies():
    made = {**a_job(BACK_OFF), "spec": job({}, 60, final_codes=[3])["spec"]}
    assert observe_job([made], [ended(3)]).final
    assert not observe_job([made], [ended(1)]).final
    assert not observe_job([a_job(BACK_OFF)], [ended(3)]).final, "no code of this Job is"


def test_what_is_said_does_not_depend_on_the_order_of_pods():
    pods = [ended(code) | {"metadata": {"name": f"p{code}"}} for code in (1, 2)]
    assert observe_job([a_job(BACK_OFF)], pods) == observe_job([a_job(BACK_OFF)], pods[::-1])


def test_a_build_runs_where_its_architecture_is_unless_the_user_wants_another():
    made = placement(build(node_selector={"pool": "build"}, push_secret="p"))
    assert made["nodeSelector"] == {"kubernetes.io/arch": "arm64", "pool": "build"}
    selector = {"kubernetes.io/arch": "amd64"}
    assert placement(build(node_selector=selector))["nodeSelector"] == selector
    assert made["imagePullSecrets"] == [{"name": "p"}]


def test_a_signature_runs_on_any_architecture():
    request = SignRequest(
        module=MODULE,
        kernel="6.1.0",
        unsigned_image="registry.example.com/a:u",
        image=None,
        dir_name="/opt",
        tolerations=({"operator": "Exists"},),
    )
    assert placement(request) == {
        "nodeSelector": {},
        "tolerations": [{"operator": "Exists"}],
        "imagePullSecrets": [],
    }


def test_each_secret_is_a_folder_of_its_own_however_long_its_name():
    mounted = secret_mounts((SecretFiles(name="a.b"), SecretFiles(name="s" * 253)))
    assert [each.mount["mountPath"] for each in mounted] == ["/run/secrets/a.b", "/run/secrets/" + "s" * 253]
    assert [each.volume["secret"] for each in mounted] == [{"secretName": "a.b"}, {"secretName": "s" * 253}]
    assert [each.volume["name"] for each in mounted] == [each.mount["name"] for each in mounted]
    assert all(len(each.volume["name"]) < 64 and each.mount["readOnly"] for each in mounted)
    assert len({each.volume["name"] for each in mounted}) == 2


@pytest.mark.parametrize("name", ["", "..", "../a", "a/b", "a..b", "A", "a b", "-a", "a\n", "s" * 254])
def test_what_no_secret_can_be_called_is_refused(name):
    with pytest.raises(ValueError, match="is the name of no Secret"):
        secret_mounts((SecretFiles(name=name),))
    with pytest.raises(ValueError, match="is the name of no Secret"):
        secret_files_mount("v", name, {}, "/d")


def test_keys_of_a_secret_are_files_for_the_pods_group_and_none_keeps_it_from_starting():
    mounted = secret_files_mount("v", "s", {"key": "file"}, "/d")
    items = [{"key": "key", "path": "file"}]
    assert mounted.volume == {
        "name": "v",
        "secret": {"secretName": "s", "items": items, "optional": True, "defaultMode": 0o440},
    }
    assert mounted.mount == {"name": "v", "mountPath": "/d", "readOnly": True}


def test_a_dockerfile_is_a_file_whatever_its_key_is_called():
    assert dockerfile_mount(build(), "/d").volume["configMap"] == {
        "name": "files",
        "items": [{"key": "dockerfile", "path": "Dockerfile"}],
    }


def test_a_docker_config_is_where_programs_look_for_it():
    mounted = docker_config_mount("p", "/d")
    assert mounted.volume["secret"]["items"] == [{"key": ".dockerconfigjson", "path": "config.json"}]
    assert mounted.mount["mountPath"] == "/d"


def test_authorities_that_are_not_there_keep_no_pod_from_starting():
    assert authorities_mount("ca", "/d").volume["configMap"] == {"name": "ca", "optional": True}


@given(st.text("$()AB ") | st.text())
def test_an_argument_is_in_the_container_what_it_was(argument):
    assert expanded(literal(argument), {"A": "1", "B": "2"}) == argument


def test_options_that_are_absent_are_as_before():
    before = JobOptions(deadline_s=5, resources={"limits": {"cpu": "1"}})
    assert job_options({}, before, "options") == before
    assert job_options({"resources": {}}, before, "options") == JobOptions(deadline_s=5)


def test_options_are_read():
    given_ = {
        "activeDeadlineSeconds": 7,
        "resources": {"limits": {"cpu": 2, "memory": "1.5Gi"}, "requests": {"cpu": "5m"}},
    }
    assert job_options(given_, JobOptions(), "options") == JobOptions(
        deadline_s=7, resources={"limits": {"cpu": "2", "memory": "1.5Gi"}, "requests": {"cpu": "5m"}}
    )


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"activeDeadlineSeconds": 0}, r"options.activeDeadlineSeconds: must be a whole number from 1 to 604800"),
        ({"activeDeadlineSeconds": True}, "activeDeadlineSeconds"),
        ({"activeDeadlineSeconds": "60"}, "activeDeadlineSeconds"),
        ({"activeDeadlineSeconds": 1 << 80}, "activeDeadlineSeconds"),
        ({"resources": None}, "options.resources: must be an object"),
        ({"resources": []}, "options.resources: must be an object"),
        ({"resources": {"limit": {}}}, r'options.resources: unknown "limit"; did you mean "limits"'),
        ({"resources": {"limits": "2Gi"}}, "options.resources.limits: must be an object"),
        ({"resources": {"limits": {"memory": "2 GB"}}}, "options.resources.limits.memory: must be a quantity"),
        ({"resources": {"limits": {"memory": True}}}, "must be a quantity"),
        ({"resources": {"limits": {"memory": float("inf")}}}, "must be a quantity"),
        ({"resources": {"limits": {"memory": "-1"}}}, "must be a quantity"),
        ({"resources": {"limits": {"memory": "1\n"}}}, "must be a quantity"),
    ],
)
def test_options_that_are_wrong_are_refused_by_name(wrong, says):
    with pytest.raises(ValueError, match=says):
        job_options(wrong, JobOptions(), "options")


def test_an_unknown_key_is_refused_with_the_nearest_one():
    with pytest.raises(ValueError, match=r'build.params: unknown "resource"; did you mean "resources"\? \(known'):
        refuse_unknown({"resource": 1}, ("resources",), "build.params")


def module(*mappings, **build):
    return {"spec": {"moduleLoader": {"container": {"build": build, "kernelMappings": [*mappings]}}}}


def test_the_build_sections_that_name_a_builder_are_found_where_they_are():
    mine, other, unnamed = {"builder": "mine", "params": {}}, {"builder": "other"}, {"params": {}}
    where = "spec.moduleLoader.container.kernelMappings"
    mappings = [{"build": mine}, {"build": other}, {"build": unnamed}, {}, "none"]
    assert list(build_sections(module(*mappings), "mine")) == [(f"{where}[0].build", mine)]
    found = dict(build_sections(module(*mappings, builder="mine"), "mine"))
    assert list(found) == ["spec.moduleLoader.container.build", *(f"{where}[{n}].build" for n in (0, 2, 3, 4))]


def test_the_sign_sections_that_name_a_signer_are_found_where_they_are():
    mine = {"signer": "mine"}
    container = {"sign": {"signer": "other"}, "kernelMappings": [{"sign": mine}, {"build": {"builder": "mine"}}]}
    found = sign_sections({"spec": {"moduleLoader": {"container": container}}}, "mine")
    assert list(found) == [("spec.moduleLoader.container.kernelMappings[0].sign", mine)]


@given(JSON)
def test_build_sections_are_looked_for_in_anything(spec):
    assert list(build_sections({"spec": spec}, "mine")) == []


def test_what_a_container_leaves_when_it_succeeds_is_told():
    ended = {"exitCode": 0, "message": "the certificate expired\n"}
    pod = {"status": {"containerStatuses": [{"name": "sign", "state": {"terminated": ended}}]}}
    found = observe_job([a_job(("Complete", "", ""))], [pod])
    assert (found.state, found.message) == (State.SUCCEEDED, "the certificate expired")
