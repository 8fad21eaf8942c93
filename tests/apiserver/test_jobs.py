"""Jobs run pods until they succeeded, or failed too often."""

from __future__ import annotations

from apiserver.client import eventually
from apiserver.samples import a_job, core, jobs


def conditions(api, namespace):
    status = api.get(f"{jobs(namespace)}/j").body["status"]
    return {each["type"]: each for each in status.get("conditions", ()) if each["status"] == "True"}


def test_a_job_completes(api, namespace, node):
    node()
    api.post(jobs(namespace), a_job(nodes={"lab": node.lab}))
    found = eventually(lambda: conditions(api, namespace) if "Complete" in conditions(api, namespace) else None)
    assert found["Complete"]["reason"] == "CompletionsReached"
    assert found["Complete"]["message"] == "Reached expected number of succeeded pods"
    assert "SuccessCriteriaMet" in found
    status = api.get(f"{jobs(namespace)}/j").body["status"]
    assert status["succeeded"] == 1
    assert status["startTime"]
    assert status["completionTime"]
    assert "active" not in status
    assert status["ready"] == 0
    pod = api.get(core(namespace, "pods"), labelSelector="job-name=j").body["items"][0]
    assert pod["status"]["phase"] == "Succeeded"
    assert pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] == "j"
    assert pod["metadata"]["ownerReferences"][0]["kind"] == "Job"


def test_a_job_fails_when_its_pod_did(api, namespace, node):
    node()
    api.post(jobs(namespace), a_job(nodes={"lab": node.lab}, outcome="fail", backoffLimit=0))
    found = eventually(lambda: conditions(api, namespace) if "Failed" in conditions(api, namespace) else None)
    assert found["Failed"]["reason"] == "BackoffLimitExceeded"
    assert found["Failed"]["message"] == "Job has reached the specified backoff limit"
    assert "FailureTarget" in found
    status = api.get(f"{jobs(namespace)}/j").body["status"]
    assert status["failed"] == 1
    assert "completionTime" not in status
    pods = api.get(core(namespace, "pods"), labelSelector="job-name=j").body["items"]
    assert [each["status"]["phase"] for each in pods] == ["Failed"], "it stays, to be looked at"


def test_a_job_fails_at_once_where_its_policy_names_the_exit_code(api, namespace, node):
    node()
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]}}
    body = a_job(nodes={"lab": node.lab}, outcome="fail", backoffLimit=3, podFailurePolicy={"rules": [rule]})
    body["spec"]["template"]["spec"]["restartPolicy"] = "Never"
    assert api.post(jobs(namespace), body).code == 201
    found = eventually(lambda: conditions(api, namespace) if "Failed" in conditions(api, namespace) else None)
    assert found["Failed"]["reason"] == "PodFailurePolicy"
    assert "failed with exit code 1 matching FailJob rule at index 0" in found["Failed"]["message"]
    assert api.get(f"{jobs(namespace)}/j").body["status"]["failed"] == 1


def test_a_pod_that_is_deleted_has_failed(api, namespace, node):
    node()
    api.post(jobs(namespace), a_job(nodes={"lab": node.lab}, outcome="run", backoffLimit=0))
    pods = core(namespace, "pods")

    def running():
        found = api.get(pods, labelSelector="job-name=j").body["items"]
        return found[0]["metadata"] if found and found[0]["status"]["phase"] == "Running" else None

    meta = eventually(running)
    assert meta["finalizers"] == ["batch.kubernetes.io/job-tracking"]
    api.delete(f"{pods}/{meta['name']}", {"gracePeriodSeconds": 1})
    found = eventually(lambda: conditions(api, namespace) if "Failed" in conditions(api, namespace) else None)
    assert found["Failed"]["reason"] == "BackoffLimitExceeded"
    assert api.get(f"{jobs(namespace)}/j").body["status"]["failed"] == 1
    eventually(lambda: not api.get(pods).body["items"], "it is counted, and may go")


def test_a_failed_pod_that_is_gone_stays_counted(api, namespace, node):
    node()
    api.post(jobs(namespace), a_job(nodes={"lab": node.lab}, outcome="fail", backoffLimit=1))
    pods = core(namespace, "pods")
    seen = set()

    def over():
        for each in api.get(pods, labelSelector="job-name=j").body["items"]:
            seen.add(each["metadata"]["uid"])
            if each["status"]["phase"] == "Failed":
                api.delete(f"{pods}/{each['metadata']['name']}")
        return "Failed" in conditions(api, namespace)

    eventually(over, within_s=90)
    assert len(seen) == 2
    assert api.get(f"{jobs(namespace)}/j").body["status"]["failed"] == 2


def test_a_job_has_a_deadline(api, namespace, node):
    api.post(jobs(namespace), a_job(activeDeadlineSeconds=1))
    found = eventually(lambda: conditions(api, namespace) if "Failed" in conditions(api, namespace) else None)
    assert found["Failed"]["reason"] == "DeadlineExceeded"
    eventually(lambda: not api.get(core(namespace, "pods")).body["items"])


def test_a_suspended_job_waits(api, namespace, node):
    node()
    api.post(jobs(namespace), a_job(nodes={"lab": node.lab}, suspend=True))
    eventually(lambda: "Suspended" in conditions(api, namespace))
    assert not api.get(core(namespace, "pods")).body["items"]
    api.patch(f"{jobs(namespace)}/j", {"spec": {"suspend": False}})
    eventually(lambda: "Complete" in conditions(api, namespace))


def test_a_finished_job_goes_when_its_time_is_over(api, namespace, node):
    node()
    api.post(jobs(namespace), a_job(nodes={"lab": node.lab}, ttlSecondsAfterFinished=0))
    eventually(lambda: api.get(f"{jobs(namespace)}/j").code == 404)
    eventually(lambda: not api.get(core(namespace, "pods")).body["items"])


def test_it_tells_of_itself_in_events(api, namespace, node):
    node()
    made = api.post(jobs(namespace), a_job(nodes={"lab": node.lab})).body
    selector = f"involvedObject.uid={made['metadata']['uid']}"

    def reasons():
        return {each["reason"] for each in api.get(core(namespace, "events"), fieldSelector=selector).body["items"]}

    eventually(lambda: {"SuccessfulCreate", "Completed"} <= reasons())
