"""Objects are created, read, updated and deleted."""

from __future__ import annotations

import re

import pytest
from apiserver.client import TABLE, eventually
from apiserver.samples import a_daemon_set, a_module, jobs, sets


def test_what_is_created_can_be_read(api, maps):
    made = api.post(maps, {"metadata": {"name": "a"}, "data": {"k": "v"}})
    assert made.code == 201
    assert made.body["kind"] == "ConfigMap"
    meta = made.body["metadata"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", meta["creationTimestamp"])
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", meta["uid"])
    read = api.get(f"{maps}/a").body
    read["metadata"].pop("managedFields", None)
    made.body["metadata"].pop("managedFields", None)
    assert read == made.body


def test_what_exists_cannot_be_created(api, maps, namespace):
    api.post(maps, {"metadata": {"name": "a"}})
    answer = api.post(maps, {"metadata": {"name": "a"}})
    assert (answer.code, answer.body["reason"]) == (409, "AlreadyExists")
    assert answer.message == 'configmaps "a" already exists'
    assert answer.body["details"] == {"name": "a", "kind": "configmaps"}
    api.post(sets(namespace), a_daemon_set())
    answer = api.post(sets(namespace), a_daemon_set())
    assert answer.message == 'daemonsets.apps "d" already exists'
    assert answer.body["details"] == {"name": "d", "group": "apps", "kind": "daemonsets"}


def test_what_is_not_there_is_not_found(api, maps):
    for answer in (api.get(f"{maps}/a"), api.delete(f"{maps}/a"), api.patch(f"{maps}/a", {})):
        assert (answer.code, answer.body["reason"]) == (404, "NotFound")
        assert answer.message == 'configmaps "a" not found'
    assert api.put(f"{maps}/a", {"metadata": {"name": "a"}}).code == 404


def test_nothing_is_created_in_a_namespace_that_is_not_there(api):
    answer = api.post("/api/v1/namespaces/nowhere/configmaps", {"metadata": {"name": "a"}})
    assert (answer.code, answer.message) == (404, 'namespaces "nowhere" not found')


@pytest.mark.parametrize("name", ["A", "-a", "a_b", "a..b", "a" * 254])
def test_a_name_has_to_be_a_dns_name(api, maps, name):
    answer = api.post(maps, {"metadata": {"name": name}})
    assert (answer.code, answer.body["reason"]) == (422, "Invalid")
    assert answer.body["details"]["causes"][0]["field"] == "metadata.name"


def test_a_name_is_required(api, maps):
    answer = api.post(maps, {"metadata": {}})
    assert answer.code == 422
    assert answer.message == (
        'ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required'
    )


def test_a_name_can_be_generated(api, maps):
    names = {api.post(maps, {"metadata": {"generateName": "a-"}}).name for _ in range(3)}
    assert len(names) == 3
    assert all(re.fullmatch(r"a-[a-z0-9]{5}", name) for name in names)


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        ({"a b": "c"}, "name part must consist of alphanumeric characters"),
        ({"a": "b c"}, "a valid label must be an empty string or consist of alphanumeric characters"),
        ({"a": "b" * 64}, "must be no more than 63 bytes"),
    ],
)
def test_labels_are_checked(api, maps, labels, complaint):
    answer = api.post(maps, {"metadata": {"name": "a", "labels": labels}})
    assert answer.code == 422
    assert complaint in answer.message
    assert answer.body["details"]["causes"][0]["field"] == "metadata.labels"


def test_what_the_system_sets_is_not_the_clients_to_set(api, maps):
    meta = {
        "name": "a",
        "uid": "11111111-1111-1111-1111-111111111111",
        "creationTimestamp": "2001-01-01T00:00:00Z",
        "generation": 7,
        "deletionTimestamp": "2001-01-01T00:00:00Z",
    }
    made = api.post(maps, {"metadata": meta}).body["metadata"]
    assert made["uid"] != meta["uid"]
    assert made["creationTimestamp"] != meta["creationTimestamp"]
    assert "deletionTimestamp" not in made


def test_a_creation_has_no_version(api, maps):
    answer = api.post(maps, {"metadata": {"name": "a", "resourceVersion": "1"}})
    assert answer.code == 500
    assert "resourceVersion should not be set on objects to be created" in answer.message


def test_the_namespace_of_body_and_path_have_to_agree(api, maps):
    answer = api.post(maps, {"metadata": {"name": "a", "namespace": "default"}})
    assert answer.code == 400
    assert answer.message == ("the namespace of the provided object does not match the namespace sent on the request")


def test_the_name_of_body_and_path_have_to_agree(api, maps):
    made = api.post(maps, {"metadata": {"name": "a"}}).body
    answer = api.put(f"{maps}/a", {**made, "metadata": {**made["metadata"], "name": "b"}})
    assert answer.code == 400
    assert answer.message == "the name of the object (b) does not match the name on the URL (a)"


def test_an_update_of_an_older_version_is_a_conflict(api, maps):
    made = api.post(maps, {"metadata": {"name": "a"}}).body
    assert api.put(f"{maps}/a", {**made, "data": {"k": "1"}}).code == 200
    answer = api.put(f"{maps}/a", {**made, "data": {"k": "2"}})
    assert (answer.code, answer.body["reason"]) == (409, "Conflict")
    assert answer.message == (
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to '
        "the latest version and try again"
    )
    assert api.get(f"{maps}/a").body["data"] == {"k": "1"}


def test_an_update_without_a_version_overwrites_some_kinds(api, maps, modules, namespace):
    api.post(maps, {"metadata": {"name": "a"}})
    assert api.put(f"{maps}/a", {"metadata": {"name": "a"}, "data": {"k": "v"}}).code == 200
    for path, body in (
        (modules, a_module("a")),
        (f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases", {"metadata": {"name": "a"}}),
    ):
        assert api.post(path, body).code == 201
        answer = api.put(f"{path}/a", body)
        assert (answer.code, answer.body["reason"]) == (422, "Invalid")
        assert "metadata.resourceVersion: Invalid value: 0: must be specified for an update" in answer.message


def test_a_lease_is_made_by_an_update(api, namespace):
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    body = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "me", "renewTime": "2026-01-01T00:00:00.000000Z"}}
    answer = api.put(f"{leases}/l", body)
    assert answer.code == 201
    assert answer.body["spec"] == body["spec"]


def test_an_update_of_another_uid_is_a_conflict(api, maps):
    made = api.post(maps, {"metadata": {"name": "a"}}).body
    other = {**made["metadata"], "uid": "11111111-1111-1111-1111-111111111111"}
    answer = api.put(f"{maps}/a", {**made, "metadata": other})
    assert (answer.code, answer.body["reason"]) == (409, "Conflict")
    assert "UID in precondition: 11111111-1111-1111-1111-111111111111" in answer.message


def test_an_update_that_changes_nothing_is_no_new_version(api, maps):
    made = api.post(maps, {"metadata": {"name": "a"}, "data": {"k": "v"}})
    assert api.put(f"{maps}/a", made.body).version == made.version
    assert api.patch(f"{maps}/a", {"data": {"k": "v"}}).version == made.version


def test_versions_grow_over_all_kinds(api, maps, namespace):
    first = api.post(maps, {"metadata": {"name": "a"}})
    second = api.post(f"/api/v1/namespaces/{namespace}/secrets", {"metadata": {"name": "a"}})
    assert int(second.version) > int(first.version)


def test_the_generation_moves_with_the_specification_alone(api, namespace, modules):
    for path, body, change in (
        (f"{sets(namespace)}/d", a_daemon_set(), {"spec": {"revisionHistoryLimit": 3}}),
        (f"{modules}/m", a_module(), {"spec": {"selector": {"c": "d"}}}),
    ):
        made = api.post(path.rpartition("/")[0], body).body
        assert made["metadata"]["generation"] == 1
        assert api.patch(path, {"metadata": {"labels": {"x": "y"}}}).body["metadata"]["generation"] == 1
        status = {"status": {"observedGeneration": 1}}
        assert api.patch(f"{path}/status", status).body["metadata"]["generation"] == 1
        assert api.patch(path, change).body["metadata"]["generation"] == 2


def test_status_is_written_on_its_own_path_only(api, modules):
    made = api.post(modules, {**a_module(), "status": {"observedGeneration": 5}}).body
    assert "status" not in made
    path = f"{modules}/m"
    assert "status" not in api.patch(path, {"status": {"observedGeneration": 5}}).body
    answer = api.patch(f"{path}/status", {"status": {"observedGeneration": 5}, "spec": {"selector": {"x": "y"}}})
    assert answer.body["status"] == {"observedGeneration": 5}
    assert answer.body["spec"]["selector"] == {"a": "b"}
    full = {
        **answer.body,
        "status": {"observedGeneration": 6},
        "metadata": {**answer.body["metadata"], "labels": {"l": "m"}},
    }
    answer = api.put(f"{path}/status", full)
    assert answer.body["status"] == {"observedGeneration": 6}
    assert "labels" not in answer.body["metadata"], "a custom object's status has no say in its metadata"
    assert api.get(f"{path}/status").body["status"] == {"observedGeneration": 6}


def test_a_node_is_born_with_its_status(api, node):
    assert node()["status"]["nodeInfo"]["kernelVersion"] == "6.1.0"


def test_the_status_of_a_builtin_kind_leaves_its_specification(api, node):
    name = node()["metadata"]["name"]
    path = f"/api/v1/nodes/{name}/status"
    change = {"status": {"nodeInfo": {"kernelVersion": "6.2.0"}}, "spec": {"unschedulable": True}}
    answer = api.patch(path, change)
    assert answer.body["status"]["nodeInfo"]["kernelVersion"] == "6.2.0"
    assert "unschedulable" not in answer.body["spec"]


def test_a_dry_run_stores_nothing(api, maps):
    answer = api.post(maps, {"metadata": {"name": "a"}}, dryRun="All")
    assert (answer.code, answer.name) == (201, "a")
    assert api.get(f"{maps}/a").code == 404
    made = api.post(maps, {"metadata": {"name": "a"}})
    assert api.patch(f"{maps}/a", {"data": {"k": "v"}}, dryRun="All").body["data"] == {"k": "v"}
    assert api.delete(f"{maps}/a", dryRun="All").code == 200
    assert api.get(f"{maps}/a").version == made.version


def test_unknown_fields_are_judged_as_the_client_wants(api, modules, namespace):
    wrong = a_module("a", selektor={})
    wrong["spec"]["moduleLoader"]["container"]["modprobe"]["modulName"] = "x"
    answer = api.post(modules, wrong, fieldValidation="Strict")
    assert (answer.code, answer.body["reason"]) == (400, "BadRequest")
    for field in ('unknown field "spec.selektor"', 'unknown field "spec.moduleLoader.container.modprobe.modulName"'):
        assert field in answer.message
    assert api.post(modules, wrong, fieldValidation="Ignore").warnings == ()
    wrong["metadata"]["name"] = "b"
    answer = api.post(modules, wrong)
    assert answer.code == 201
    assert sorted(answer.warnings) == [
        '299 - "unknown field \\"spec.moduleLoader.container.modprobe.modulName\\""',
        '299 - "unknown field \\"spec.selektor\\""',
    ]
    assert "selektor" not in answer.body["spec"], "it is pruned"
    odd = a_daemon_set()
    odd["spec"]["template"]["spec"]["containers"][0]["imagee"] = "x"
    answer = api.post(sets(namespace), odd, fieldValidation="Strict")
    assert answer.code == 400
    assert 'unknown field "spec.template.spec.containers[0].imagee"' in answer.message
    assert api.post(modules, a_module("c"), fieldValidation="Perhaps").code in (400, 422)


def test_types_are_checked(api, namespace, maps):
    answer = api.post(maps, {"metadata": {"name": "a"}, "data": {"k": 1}})
    assert (answer.code, answer.body["reason"]) == (400, "BadRequest")
    wrong = a_daemon_set()
    wrong["spec"]["revisionHistoryLimit"] = "many"
    assert api.post(sets(namespace), wrong).code == 400
    assert api.post(maps, {"metadata": {"name": "a", "labels": {"a": 1}}}).code == 400


def test_the_kind_in_the_body_has_to_be_that_of_the_path(api, maps):
    assert api.post(maps, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}).code == 400
    assert api.post(maps, {"apiVersion": "v2", "kind": "ConfigMap", "metadata": {"name": "a"}}).code == 400


@pytest.mark.parametrize("body", [b"{", b"[]", b'"a"', b"\xff"])
def test_a_body_that_is_no_object_is_a_bad_request(api, maps, body):
    assert api.ask("POST", maps, body).code == 400


def test_a_media_type_that_is_not_known_is_refused(api, maps):
    answer = api.ask("POST", maps, b"a=b", kind="application/x-www-form-urlencoded")
    assert (answer.code, answer.body["reason"]) == (415, "UnsupportedMediaType")
    assert api.get(maps, accept="text/html").code == 406


def test_a_body_too_large_is_refused(api, maps):
    answer = api.post(maps, {"metadata": {"name": "a"}, "data": {"k": "x" * (3 * 1024 * 1024 + 1)}})
    assert answer.code == 413


def test_yaml_is_understood(api, maps):
    answer = api.ask("POST", maps, b"metadata: {name: a}\ndata: {k: 'on'}\n", kind="application/yaml")
    assert (answer.code, answer.body["data"]) == (201, {"k": "on"})


def test_what_is_said_in_plain_text_is_kept_as_a_secret(api, namespace):
    secrets = f"/api/v1/namespaces/{namespace}/secrets"
    made = api.post(secrets, {"metadata": {"name": "s"}, "stringData": {"k": "hush"}}).body
    assert (made["type"], made["data"]) == ("Opaque", {"k": "aHVzaA=="})
    assert "stringData" not in made
    answer = api.patch(f"{secrets}/s", {"type": "example.com/other"})
    assert answer.code == 422
    assert "field is immutable" in answer.message


def test_an_immutable_configmap_stays(api, maps):
    api.post(maps, {"metadata": {"name": "a"}, "data": {"k": "v"}, "immutable": True})
    answer = api.patch(f"{maps}/a", {"data": {"k": "w"}})
    assert answer.code == 422
    assert "data: Forbidden: field is immutable when `immutable` is set" in answer.message


def test_a_daemonset_has_to_select_its_own_pods(api, namespace):
    answer = api.post(sets(namespace), a_daemon_set(labels={"other": "label"}))
    assert answer.code == 422
    assert answer.body["details"]["causes"][0]["field"] == "spec.template.metadata.labels"
    assert "`selector` does not match template `labels`" in answer.message


def test_a_daemonsets_selector_is_for_ever(api, namespace):
    api.post(sets(namespace), a_daemon_set(labels={"app": "d", "more": "x"}))
    change = {"spec": {"selector": {"matchLabels": {"app": "d", "more": "x"}}}}
    answer = api.patch(f"{sets(namespace)}/d", change)
    assert answer.code == 422
    assert "spec.selector: Invalid value" in answer.message
    assert "field is immutable" in answer.message


def test_a_daemonsets_pods_are_always_restarted(api, namespace):
    wrong = a_daemon_set()
    wrong["spec"]["template"]["spec"]["restartPolicy"] = "Never"
    answer = api.post(sets(namespace), wrong)
    assert answer.code == 422
    assert (
        'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"' in answer.message
    )


def test_a_volume_that_is_mounted_has_to_be_there(api, namespace):
    wrong = a_daemon_set()
    wrong["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = [{"name": "v", "mountPath": "/v"}]
    answer = api.post(sets(namespace), wrong)
    assert answer.code == 422
    assert 'spec.template.spec.containers[0].volumeMounts[0].name: Not found: "v"' in answer.message


@pytest.mark.parametrize(
    ("volume", "mount", "field"),
    [
        (
            {"configMap": {"name": "c", "items": [{"key": "k", "path": "../x"}]}},
            {},
            "volumes[0].configMap.items[0].path",
        ),
        ({"hostPath": {"path": "/a/../b"}}, {}, "volumes[0].hostPath.path"),
        ({"emptyDir": {}}, {"subPath": "../x"}, "containers[0].volumeMounts.subPath"),
        ({"emptyDir": {}}, {"subPath": "/x"}, "containers[0].volumeMounts.subPath"),
    ],
)
def test_no_path_leads_out_of_a_volume(api, namespace, volume, mount, field):
    wrong = a_daemon_set()
    spec = wrong["spec"]["template"]["spec"]
    spec["volumes"] = [{"name": "v", **volume}]
    spec["containers"][0]["volumeMounts"] = [{"name": "v", "mountPath": "/v", **mount}]
    answer = api.post(sets(namespace), wrong)
    assert answer.code == 422
    assert answer.body["details"]["causes"][0]["field"] == f"spec.template.spec.{field}"


def test_names_in_a_pod_are_labels_and_keys_are_keys(api, namespace, maps):
    wrong = a_daemon_set()
    wrong["spec"]["template"]["spec"]["containers"][0]["name"] = "a/b"
    wrong["spec"]["template"]["spec"]["volumes"] = [{"name": "a.b", "emptyDir": {}}]
    answer = api.post(sets(namespace), wrong)
    assert {each["field"] for each in answer.body["details"]["causes"]} == {
        "spec.template.spec.containers[0].name",
        "spec.template.spec.volumes[0].name",
    }
    for key in ("a/b", "..", ""):
        answer = api.post(maps, {"metadata": {"name": "a"}, "data": {key: "v"}})
        assert answer.code == 422, key
        assert answer.body["details"]["causes"][0]["field"] == f"data[{key}]"


def test_defaults_are_written_into_a_daemonset(api, namespace):
    body = a_daemon_set()
    spec = body["spec"]["template"]["spec"]
    spec["containers"][0] |= {
        "image": "registry.example.com:5000/c",
        "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "volumeMounts": [{"name": "h", "mountPath": "/h"}],
        "securityContext": {"privileged": True},
    }
    spec["initContainers"] = [{"name": "i", "image": "registry.example.com/i@sha256:" + "0" * 64}]
    spec["serviceAccountName"] = "default"
    spec["volumes"] = [
        {"name": "h", "hostPath": {"path": "/h"}},
        {"name": "s", "secret": {"secretName": "s"}},
        {"name": "c", "configMap": {"name": "c"}},
        {"name": "e", "emptyDir": {}},
    ]
    made = api.post(sets(namespace), body).body
    container = {
        "imagePullPolicy": "Always",
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    }
    made["spec"]["template"]["metadata"].pop("creationTimestamp", None)
    assert made["spec"] == {
        "selector": {"matchLabels": {"app": "d"}},
        "revisionHistoryLimit": 10,
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
        "template": {
            "metadata": {"labels": {"app": "d"}},
            "spec": {
                "containers": [
                    {
                        **container,
                        "name": "c",
                        "image": "registry.example.com:5000/c",
                        "env": [
                            {
                                "name": "N",
                                "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}},
                            }
                        ],
                        "volumeMounts": [{"name": "h", "mountPath": "/h"}],
                        "securityContext": {"privileged": True},
                    }
                ],
                "initContainers": [
                    {
                        **container,
                        "name": "i",
                        "image": "registry.example.com/i@sha256:" + "0" * 64,
                        "imagePullPolicy": "IfNotPresent",
                    }
                ],
                "volumes": [
                    {"name": "h", "hostPath": {"path": "/h", "type": ""}},
                    {"name": "s", "secret": {"secretName": "s", "defaultMode": 420}},
                    {"name": "c", "configMap": {"name": "c", "defaultMode": 420}},
                    {"name": "e", "emptyDir": {}},
                ],
                "nodeSelector": {"lab": "none"},
                "serviceAccountName": "default",
                "serviceAccount": "default",
                "restartPolicy": "Always",
                "dnsPolicy": "ClusterFirst",
                "schedulerName": "default-scheduler",
                "terminationGracePeriodSeconds": 30,
                "securityContext": {},
            },
        },
    }
    assert made["metadata"]["annotations"] == {"deprecated.daemonset.template.generation": "1"}
    assert made["status"] == {
        "currentNumberScheduled": 0,
        "desiredNumberScheduled": 0,
        "numberMisscheduled": 0,
        "numberReady": 0,
    }


def test_defaults_are_written_into_a_job(api, namespace):
    body = {
        "metadata": {"name": "j"},
        "spec": {
            "suspend": True,
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "c:1"}]}},
        },
    }
    made = api.post(jobs(namespace), body).body
    uid = made["metadata"]["uid"]
    labels = {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": "j",
        "controller-uid": uid,
        "job-name": "j",
    }
    assert made["spec"]["template"]["metadata"]["labels"] == labels
    spec = {key: value for key, value in made["spec"].items() if key != "template"}
    assert spec == {
        "backoffLimit": 6,
        "completionMode": "NonIndexed",
        "completions": 1,
        "manualSelector": False,
        "parallelism": 1,
        "podReplacementPolicy": "TerminatingOrFailed",
        "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}},
        "suspend": True,
    }
    assert made["status"] == {}


def test_a_jobs_pods_end_and_its_template_is_for_ever(api, namespace):
    path = jobs(namespace)
    template = {"spec": {"containers": [{"name": "c", "image": "c:1"}]}}
    answer = api.post(path, {"metadata": {"name": "j"}, "spec": {"template": template}})
    assert answer.code == 422
    assert 'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"' in answer.message
    template["spec"]["restartPolicy"] = "Never"
    template["spec"]["nodeSelector"] = {"lab": "none"}
    assert api.post(path, {"metadata": {"name": "j"}, "spec": {"template": template}}).code == 201
    answer = api.patch(f"{path}/j", {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 7}}}})
    assert answer.code == 422
    assert "spec.template: Invalid value" in answer.message
    assert "field is immutable" in answer.message


def test_a_pod_needs_its_service_account(api, namespace):
    pod = {
        "metadata": {"name": "p"},
        "spec": {"serviceAccountName": "nobody", "containers": [{"name": "c", "image": "c:1"}]},
    }
    answer = api.post(f"/api/v1/namespaces/{namespace}/pods", pod)
    assert (answer.code, answer.body["reason"]) == (403, "Forbidden")
    assert answer.message == (
        f'pods "p" is forbidden: error looking up service account {namespace}/nobody: '
        'serviceaccount "nobody" not found'
    )


def test_most_of_a_pod_is_for_ever(api, namespace):
    pods = f"/api/v1/namespaces/{namespace}/pods"
    pod = {
        "metadata": {"name": "p"},
        "spec": {"nodeSelector": {"lab": "none"}, "containers": [{"name": "c", "image": "c:1"}]},
    }
    made = api.post(pods, pod).body
    assert made["status"]["phase"] == "Pending"
    assert made["spec"]["serviceAccountName"] == "default"
    assert api.patch(f"{pods}/p", {"metadata": {"labels": {"a": "b"}}}).code == 200
    answer = api.patch(f"{pods}/p", {"spec": {"nodeSelector": {"lab": "other"}}})
    assert answer.code == 422
    assert "spec: Forbidden: pod updates may not change fields other than" in answer.message


def test_a_deletion_says_what_it_deleted(api, maps, modules):
    made = api.post(maps, {"metadata": {"name": "a"}}).body
    answer = api.delete(f"{maps}/a")
    assert answer.code == 200
    assert answer.body["status"] == "Success"
    assert answer.body["details"] == {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]}
    assert api.get(f"{maps}/a").code == 404
    api.post(modules, a_module())
    assert api.delete(f"{modules}/m").body["details"]["group"] == "kmm.sigs.x-k8s.io"


def test_a_deletion_can_be_of_one_uid_or_version_alone(api, maps):
    made = api.post(maps, {"metadata": {"name": "a"}}).body["metadata"]
    other = "11111111-1111-1111-1111-111111111111"
    answer = api.delete(f"{maps}/a", {"preconditions": {"uid": other}})
    assert (answer.code, answer.body["reason"]) == (409, "Conflict")
    assert f"the UID in the precondition ({other}) does not match the UID in record ({made['uid']})" in answer.message
    answer = api.delete(f"{maps}/a", {"preconditions": {"resourceVersion": "1"}})
    assert answer.code == 409
    assert "the ResourceVersion in the precondition (1) does not match" in answer.message
    right = {"preconditions": {"uid": made["uid"], "resourceVersion": made["resourceVersion"]}}
    assert api.delete(f"{maps}/a", right).code == 200


def test_a_collection_can_be_deleted_by_label(api, maps):
    for name, value in (("a", "1"), ("b", "1"), ("c", "2")):
        api.post(maps, {"metadata": {"name": name, "labels": {"l": value}}})
    assert api.delete(maps, labelSelector="l=1").code == 200
    eventually(lambda: [each["metadata"]["name"] for each in api.get(maps, labelSelector="l").body["items"]] == ["c"])


def test_a_table_shows_what_kubectl_prints(api, maps, namespace, modules, node):
    api.post(maps, {"metadata": {"name": "a"}, "data": {"k": "v", "l": "w"}})
    said = api.get(f"{maps}/a", accept=TABLE).body
    assert said["kind"] == "Table"
    assert [(each["name"], each["priority"]) for each in said["columnDefinitions"]] == [
        ("Name", 0), ("Data", 0), ("Age", 0),
    ]  # fmt: skip
    assert said["rows"][0]["cells"][:2] == ["a", 2]
    assert said["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    api.post(modules, a_module())
    condition = {
        "type": "Ready",
        "status": "False",
        "reason": "Loading",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    assert api.patch(f"{modules}/m/status", {"status": {"conditions": [condition]}}).code == 200
    said = api.get(modules, accept=TABLE).body
    assert [each["name"] for each in said["columnDefinitions"]] == [
        "Name", "Ready", "Reason", "Nodes", "Desired", "Loaded", "Device-Plugins", "Version", "Age",
    ]  # fmt: skip
    cells = said["rows"][0]["cells"]
    assert cells[:8] == ["m", "False", "Loading", None, None, None, None, None]
    assert re.fullmatch(r"\d+s", cells[8])
    api.post(sets(namespace), a_daemon_set())
    said = api.get(sets(namespace), accept=TABLE).body
    shown = [each["name"] for each in said["columnDefinitions"] if each["priority"] == 0]
    assert shown == ["Name", "Desired", "Current", "Ready", "Up-to-date", "Available", "Node Selector", "Age"]
    assert said["rows"][0]["cells"][:7] == ["d", 0, 0, 0, 0, 0, "lab=none"]
    name = node()["metadata"]["name"]
    said = api.get(f"/api/v1/nodes/{name}", accept=TABLE, includeObject="None").body
    assert said["rows"][0]["cells"][:3] == [name, "Ready", "<none>"]
    assert "object" not in said["rows"][0] or said["rows"][0]["object"] is None
