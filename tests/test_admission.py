from __future__ import annotations

import copy

import pytest

from kmm.admission import admit, judge, line, printable, whole_spec
from kmm.catalog import Plugin, build_catalog
from kmm.contract import Driver, Finding, Kind, Progress, Severity, State
from kmm.errors import PluginError

VALID = {
    "apiVersion": "kmm.sigs.x-k8s.io/v1beta1",
    "kind": "Module",
    "metadata": {"name": "m", "namespace": "n"},
    "spec": {
        "selector": {"a": "b"},
        "moduleLoader": {
            "container": {
                "modprobe": {"moduleName": "kmm_ci_a"},
                "kernelMappings": [{"regexp": "^6", "containerImage": "registry.example.com/a"}],
            }
        },
    },
}
CONTAINER = ("spec", "moduleLoader", "container")


class Renderer:
    owns = (Kind(api_version="batch/v1", kind="Job", plural="jobs"),)

    def __init__(self, name, *requires):
        self.name, self.requires = name, requires

    def render(self, request):
        raise NotImplementedError(request)

    def observe(self, objects, pods):
        return Progress(state=State.PENDING if not (objects or pods) else State.RUNNING)


def catalog(**offers):
    return build_catalog([Plugin(name="acme", distribution="acme-kmm", version="1.0", **offers)])


def changed(*path, to):
    manifest = copy.deepcopy(VALID)
    branch = manifest
    for key in path[:-1]:
        branch = branch.setdefault(key, {}) if isinstance(branch, dict) else branch[key]
    branch[path[-1]] = to
    return manifest


def lines(manifest, offered=None, old=None):
    return [line(finding) for finding in judge(manifest, offered or catalog(), old).findings]


def test_a_valid_module_has_a_value_and_no_findings():
    judgement = judge(VALID, catalog())
    assert judgement.findings == ()
    assert judgement.value.spec.module_loader.container.modprobe.module_name == "kmm_ci_a"


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (None, "is not an object: a manifest begins with apiVersion and kind"),
        ([], "is not an object: a manifest begins with apiVersion and kind"),
        ({}, "kind: is required: one of Module, PreflightValidation, "),
        ({"kind": "Modul"}, 'kind: "Modul" is no kind of ours; did you mean "Module"?'),
        ({"kind": "Module"}, "apiVersion: must be kmm.sigs.x-k8s.io/v1beta1 for a Module"),
        (
            {"kind": "Module", "apiVersion": "kmm.sigs.x-k8s.io/v1"},
            'apiVersion: must be kmm.sigs.x-k8s.io/v1beta1 for a Module, not "kmm.sigs.x-k8s.io/v1"',
        ),
        ({**VALID, "metadata": None}, "metadata: is required"),
        ({**VALID, "metadata": {}}, "metadata.name: is required: every object has a name"),
        ({**VALID, "metadata": {"name": "A_b"}}, "metadata.name: must be lower-case letters"),
        ({**VALID, "metadata": {"name": "x" * 254}}, "metadata.name: must have at most 253 characters, not 254"),
        ({**VALID, "metadata": {"name": "m", "namespace": "n.n"}}, "metadata.namespace: must be at most 63"),
        ({**VALID, "metadata": {"name": 5}}, "metadata.name: must be a string, not a number: put it in quotes"),
        ({**VALID, "spec": None}, "spec: is required"),
        ({**VALID, "spec": []}, "spec: must be an object, not a list"),
    ],
)
def test_what_is_no_object_of_ours_is_told_so(manifest, said):
    assert lines(manifest)[0].startswith(said)


def test_a_cluster_scoped_kind_has_no_namespace():
    manifest = {
        "apiVersion": "kmm.sigs.x-k8s.io/v1beta1",
        "kind": "PreflightValidation",
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"kernelVersion": "6"},
    }
    assert lines(manifest) == ["metadata.namespace: must be absent: this kind belongs to no namespace"]


def test_what_the_api_server_keeps_in_metadata_and_status_is_not_the_users_to_answer_for():
    manifest = copy.deepcopy(VALID)
    manifest["metadata"] |= {
        "managedFields": [],
        "finalizers": [],
        "ownerReferences": [],
        "uid": "u",
        "generation": 3,
    }
    manifest["status"] = {"kernels": "nonsense"}
    assert lines(manifest) == []


# ── Labels ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("more", "room"),
    [
        ({}, 63 - len(".ready")),
        ({"devicePlugin": {"container": {"image": "a"}}}, 63 - len(".device-plugin-ready")),
    ],
)
def test_namespace_and_name_must_fit_into_the_labels_that_this_module_needs(more, room):
    fits, too_long = copy.deepcopy(VALID), copy.deepcopy(VALID)
    for manifest, length in ((fits, room - 2), (too_long, room - 1)):
        manifest["spec"] |= more
        manifest["metadata"] = {"name": "m" * length, "namespace": "n"}
    assert lines(fits) == []
    (said,) = lines(too_long)
    assert f"must have at most {room} characters, not {room + 1}" in said


def test_the_version_labels_take_more_room():
    manifest = changed(*CONTAINER, "version", to="1.0")
    manifest["metadata"]["name"] = "m" * 39
    assert lines(manifest) == []
    manifest["metadata"]["name"] = "m" * 40
    assert "at most 41 characters" in lines(manifest)[0]


# ── Advice ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (changed("spec", "selector", to={"a b": "c"}), 'spec.selector: no node can have the label "a b=c"'),
        (changed("spec", "selector", to={"a": "x" * 64}), "spec.selector: no node can have the label"),
        (changed(*CONTAINER, "version", to="1 0"), "version: is no possible value of a label"),
        (
            changed(*CONTAINER, "build", to={"dockerfileConfigMap": {}}),
            "kernelMappings[0].build.dockerfileConfigMap: names no ConfigMap",
        ),
        (changed(*CONTAINER, "sign", to={}), "kernelMappings[0].sign: has neither unsignedImage nor a build"),
        (changed("spec", "selectr", to={}), 'selectr: is not a known field; did you mean "selector"?'),
    ],
)
def test_what_is_accepted_but_cannot_work_is_a_warning(manifest, said):
    judgement = judge(manifest, catalog())
    assert judgement.errors == ()
    (finding,) = judgement.warnings
    assert said in line(finding)


# ── Plugins ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_the_chosen_signer_needs_is_an_error_where_it_is_installed():
    offered = catalog(signers=(Renderer("sign-file", "key_secret", "cert_secret"), Renderer("hsm")))
    manifest = changed(
        *CONTAINER, "sign", to={"unsignedImage": "a", "signer": "sign-file", "certSecret": {"name": "c"}}
    )
    where = "spec.moduleLoader.container.kernelMappings[0].sign"
    assert lines(manifest, offered) == [f'{where}.keySecret: is required by the signer "sign-file"']
    manifest = changed(*CONTAINER, "sign", to={"unsignedImage": "a", "signer": "hsm"})
    assert lines(manifest, offered) == []


def test_the_only_signer_is_the_one_that_will_be_chosen():
    offered = catalog(signers=(Renderer("sign-file", "key_secret"),))
    manifest = changed(*CONTAINER, "sign", to={"unsignedImage": "a", "keySecret": {"name": ""}})
    assert 'keySecret: is required by the signer "sign-file"' in lines(manifest, offered)[0]


def test_a_mapping_may_bring_what_the_container_lacks():
    offered = catalog(signers=(Renderer("sign-file", "key_secret"),))
    manifest = changed(*CONTAINER, "sign", to={"unsignedImage": "a"})
    manifest["spec"]["moduleLoader"]["container"]["kernelMappings"][0]["sign"] = {"keySecret": {"name": "k"}}
    assert lines(manifest, offered) == []


@pytest.mark.parametrize(
    ("path", "section", "said"),
    [
        ((*CONTAINER, "build"), {"dockerfileConfigMap": {"name": "d"}, "builder": "kanico"}, 'no builder "kanico"'),
        ((*CONTAINER, "sign"), {"unsignedImage": "a", "signer": "hms"}, 'no signer "hms"'),
        (
            ("spec", "devicePlugin"),
            {"container": {"image": "a"}, "renderer": "daemonst"},
            'no device-plugin renderer "daemonst"',
        ),
        (("spec", "driver"), "acmee", 'no driver "acmee"'),
    ],
)
def test_a_plugin_that_is_not_installed_here_is_a_warning(path, section, said):
    judgement = judge(changed(*path, to=section), catalog())
    assert judgement.errors == ()
    (finding,) = judgement.warnings
    assert said in finding.message
    assert finding.message.endswith("(not judged here)")


ACME = Driver(
    name="acme",
    spec={
        "selector": {"vendor": "acme"},
        "moduleLoader": {
            "container": {
                "modprobe": {"moduleName": "acme", "parameters": ["a=1"]},
                "kernelMappings": [{"regexp": "^6", "containerImage": "registry.example.com/acme"}],
            }
        },
    },
)


def test_a_drivers_defaults_are_merged_under_what_the_user_wrote():
    manifest = {**VALID, "spec": {"driver": "acme", "selector": {"mine": "x"}, "moduleLoader": {}}}
    judgement = judge(manifest, catalog(drivers=(ACME,)))
    assert judgement.findings == ()
    assert judgement.value.spec.selector == {"vendor": "acme", "mine": "x"}
    assert judgement.value.spec.module_loader.container.modprobe.module_name == "acme"
    assert judgement.value.spec.driver is None


def test_what_is_wrong_only_after_the_merge_says_so():
    manifest = {**VALID, "spec": {"driver": "empty", "selector": {}}}
    (said,) = lines(manifest, catalog(drivers=(Driver(name="empty", spec={}),)))
    assert said.startswith("spec.moduleLoader: is required")
    assert said.endswith('(once the driver "empty" is merged in)')


def test_a_driver_that_is_not_installed_is_an_error_when_it_is_needed():
    with pytest.raises(PluginError, match='no driver "acme"'):
        whole_spec({"driver": "acme"}, catalog())


def test_findings_of_plugins_are_added_and_they_judge_the_merged_module():
    seen = []

    def validate(module):
        seen.append(module)
        module["spec"].clear()  # a plugin that changes what it is given changes a copy
        return [Finding(path="spec.selector", message="wants vendor=acme", severity=Severity.WARNING)]

    manifest = {**VALID, "spec": {"driver": "acme", "selector": {}}}
    assert lines(manifest, catalog(drivers=(ACME,), validate_module=validate)) == ["spec.selector: wants vendor=acme"]
    assert len(seen) == 1
    assert ACME.spec["selector"] == {"vendor": "acme"}


@pytest.mark.parametrize("wrong", [lambda _: None, lambda _: ["no"], lambda _: 1 / 0])
def test_a_plugin_that_fails_to_judge_is_a_warning(wrong):
    judgement = judge(VALID, catalog(validate_module=wrong))
    assert judgement.errors == ()
    assert 'plugin "acme" could not judge this Module' in judgement.warnings[0].message


# ── AdmissionReview ───────────────────────────────────────────────────────────────────────────────────────────


def review(operation="CREATE", manifest=VALID, old=None, **more):
    request = {"uid": "u-1", "operation": operation, "object": manifest, "oldObject": old, **more}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def answer(*arguments, **more):
    said = admit(review(*arguments, **more), catalog())
    assert (said["apiVersion"], said["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    assert said["response"]["uid"] == "u-1"
    return said["response"]


def test_a_valid_object_is_allowed():
    assert answer() == {"uid": "u-1", "allowed": True}


def test_an_invalid_object_is_refused_with_every_error_and_its_path():
    manifest = changed(*CONTAINER, "modprobe", "moduleName", to="-x")
    manifest["spec"]["selector"] = None
    response = answer(manifest=manifest)
    assert response["allowed"] is False
    assert response["status"]["code"] == 422
    assert "spec.selector: is required" in response["status"]["message"]
    assert "spec.moduleLoader.container.modprobe.moduleName: " in response["status"]["message"]


def test_warnings_reach_the_user_and_refuse_nothing():
    response = answer(manifest=changed("spec", "selectr", to={}))
    assert response["allowed"] is True
    assert "did you mean" in response["warnings"][0]


def test_a_change_of_the_version_is_judged_by_the_old_object():
    new = changed(*CONTAINER, "version", to="1")
    assert "version is set or unset for the whole life" in answer("UPDATE", new, VALID)["status"]["message"]
    assert answer("UPDATE", new, changed(*CONTAINER, "version", to="2"))["allowed"] is True


def test_what_is_stored_already_stays_possible_to_finish_and_to_delete():
    bad = changed("spec", "selector", to=None)
    assert answer("DELETE", None, bad)["allowed"] is True
    assert answer("UPDATE", bad, bad)["allowed"] is True
    assert answer("UPDATE", bad, VALID, subResource="status")["allowed"] is True
    deleted = {**bad, "metadata": {**bad["metadata"], "deletionTimestamp": "2026-11-22T00:00:00Z"}}
    assert answer("UPDATE", deleted, VALID)["allowed"] is True
    assert answer("UPDATE", bad, VALID)["allowed"] is False


@pytest.mark.parametrize("junk", [{}, {"request": None}, {"request": []}, {"request": {"uid": None}}])
def test_a_review_without_a_request_is_refused_and_raises_nothing(junk):
    response = admit(junk, catalog())["response"]
    assert response["allowed"] is False
    assert response["status"]["code"] == 400


@pytest.mark.parametrize("manifest", [None, [], "x", 5, {"kind": ["Module"]}, {"kind": "Module", "spec": 5}])
def test_an_object_that_is_none_is_refused(manifest):
    assert answer(manifest=manifest)["allowed"] is False


def test_a_thousand_errors_are_told_in_a_bounded_message():
    manifest = changed(*CONTAINER, "kernelMappings", to=[{}] * 1000)
    message = answer(manifest=manifest)["status"]["message"]
    assert message.endswith("more")
    assert len(message) < 10_000


def test_nothing_that_a_terminal_obeys_is_printed():
    assert printable("a\x1b[31m\n\u202e\ud800é") == "a\\x1b[31m\\n\\u202e\\ud800é"
    manifest = changed("spec", "\x1b[31m", to=1)
    assert "\x1b" not in "".join(lines(manifest))
