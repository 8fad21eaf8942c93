from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from kmm.admission import admit, judge, line, printable
from kmm.catalog import Plugin, build_catalog
from kmm.contract import Driver, Finding, Kind, Progress, Severity, State
from kmm.errors import PluginError
from kmm.loader import load_catalog

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
BUILD = {"dockerfileConfigMap": {"name": "files"}}


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
        ({**VALID, "metadata": {"name": "A_b"}}, 'metadata.name: "A_b" must be lower-case letters'),
        ({**VALID, "metadata": {"name": "x" * 254}}, "metadata.name: must have at most 253 characters, not 254"),
        ({**VALID, "metadata": {"name": "m", "namespace": "n.n"}}, 'metadata.namespace: "n.n" must be at most 63'),
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
        (changed("spec", "selector", to={"a b": "c"}), 'spec.selector: nothing can have the label "a b=c"'),
        (changed("spec", "selector", to={"a": "x" * 64}), "spec.selector: nothing can have the label"),
        (changed(*CONTAINER, "version", to="1 0"), "version: is no possible value of a label"),
        (
            changed(*CONTAINER, "build", to={"dockerfileConfigMap": {}}),
            "kernelMappings[0].build.dockerfileConfigMap: names no ConfigMap",
        ),
        (
            changed(*CONTAINER, "build", to=BUILD | {"buildArgs": [{"name": "A"}, {"name": "KERNEL_VERSION"}]}),
            "spec.moduleLoader.container.build.buildArgs[1]: is set by the operator",
        ),
        (
            changed(*CONTAINER, "kernelMappings", 0, "build", to=BUILD | {"buildArgs": [{"name": "MOD_NAME"}]}),
            "kernelMappings[0].build.buildArgs[0]: is set by the operator",
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
    where = "spec.moduleLoader.container.sign"
    assert lines(manifest, offered) == [f'{where}.keySecret: is required by the signer "sign-file"']
    manifest = changed(*CONTAINER, "sign", to={"unsignedImage": "a", "signer": "hsm"})
    assert lines(manifest, offered) == []


def test_the_only_signer_is_the_one_that_will_be_chosen():
    offered = catalog(signers=(Renderer("sign-file", "key_secret"),))
    manifest = changed(*CONTAINER, "sign", to={"unsignedImage": "a", "keySecret": {"name": ""}})
    assert 'keySecret: is required by the signer "sign-file"' in lines(manifest, offered)[0]


def test_of_several_signers_the_configuration_may_choose_one_that_needs_less():
    offered = catalog(signers=(Renderer("sign-file", "key_secret"), Renderer("hsm")))
    assert lines(changed(*CONTAINER, "sign", to={"unsignedImage": "a"}), offered) == []


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
    assert finding.message.endswith("could be checked here" if path[-1] == "driver" else "could not be checked here")


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


def test_one_thing_of_the_device_plugin_that_a_driver_brings_may_be_set():
    driver = replace(ACME, spec={**ACME.spec, "devicePlugin": {"container": {"image": "registry.example.com/a"}}})
    manifest = {**VALID, "spec": {"driver": "acme", "selector": {}, "devicePlugin": {"params": {"functions": 4}}}}
    judgement = judge(manifest, catalog(drivers=(driver,)))
    assert judgement.findings == ()
    assert judgement.value.spec.device_plugin.container.image == "registry.example.com/a"
    assert judgement.value.spec.device_plugin.params == {"functions": 4}
    (said,) = lines(manifest, catalog(drivers=(ACME,)))
    assert said.startswith("spec.devicePlugin.container: is required")
    assert said.endswith('(once the driver "acme" is merged in)')


def test_what_is_wrong_only_after_the_merge_says_so():
    manifest = {**VALID, "spec": {"driver": "empty", "selector": {}}}
    (said,) = lines(manifest, catalog(drivers=(Driver(name="empty", spec={}),)))
    assert said.startswith("spec.moduleLoader: is required")
    assert said.endswith('(once the driver "empty" is merged in)')


def test_a_driver_that_is_not_installed_is_an_error_when_it_is_needed():
    with pytest.raises(PluginError, match='no driver "acme"'):
        catalog().whole_spec({"driver": "acme"})


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


class Unspeakable(BaseException):
    def __str__(self):
        raise RuntimeError


def leaves(_):
    raise SystemExit(0)


def unspeakable(_):
    raise Unspeakable


@pytest.mark.parametrize(
    "wrong",
    [
        lambda _: None,
        lambda _: ["no"],
        lambda _: 1 / 0,
        lambda _: [Finding(path=None, message=5)],
        lambda _: [Finding(path="spec", message="bad", severity="error")],
        leaves,
        unspeakable,
    ],
)
def test_a_plugin_that_fails_to_judge_is_a_warning(wrong):
    judgement = judge(VALID, catalog(validate_module=wrong))
    assert judgement.errors == ()
    assert 'plugin "acme" could not judge this Module' in judgement.warnings[0].message


def test_a_plugin_sees_which_driver_a_module_is_of():
    seen = []
    manifest = {**VALID, "spec": {"driver": "acme", "selector": {}}}
    judge(
        manifest, catalog(drivers=(ACME,), validate_module=lambda module: seen.append(module["spec"]["driver"]) or [])
    )
    assert seen == ["acme"]


def test_a_change_of_version_through_a_driver_is_seen_too():
    versioned = Driver(name="versioned", spec={"moduleLoader": {"container": {"version": "1"}}})
    new = {**VALID, "spec": {**VALID["spec"], "driver": "versioned"}}
    offered = catalog(drivers=(versioned,))
    assert [line(each) for each in judge(new, offered).errors] == []
    (error,) = judge(new, offered, VALID).errors
    assert error.path == "spec.moduleLoader.container.version"


def test_our_own_renderer_can_be_named():
    offered = load_catalog()
    manifest = changed("spec", "devicePlugin", to={"container": {"image": "a"}, "renderer": "daemonset"})
    assert lines(manifest, offered) == []


@pytest.mark.parametrize(
    ("requires", "more", "said"),
    [
        (("push_secret",), {}, ['spec.imageRepoSecret: is required by the builder "b"']),
        (("push_secret",), {"imageRepoSecret": {"name": "s"}}, []),
        (("dockerfile", "image", "kernel", "architecture", "dockerfile_config_map"), {}, []),
        (("params", "node_selector"), {}, ["build.params: is required by", "build.selector: is required by"]),
    ],
)
def test_what_a_renderer_requires_is_looked_for_where_a_module_says_it(requires, more, said):
    manifest = changed(*CONTAINER, "build", to={"dockerfileConfigMap": {"name": "d"}})
    manifest["spec"] |= more
    found = lines(manifest, catalog(builders=(Renderer("b", *requires),)))
    assert len(found) == len(said)
    assert all(expected in line for line, expected in zip(found, said, strict=True))


def test_what_only_the_container_says_is_told_once():
    manifest = changed(*CONTAINER, "build", to={"dockerfileConfigMap": {"name": "d"}, "builder": "x" * 63})
    manifest["spec"]["moduleLoader"]["container"]["kernelMappings"] *= 1000
    assert len(lines(manifest)) == 1


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (
            (*CONTAINER, "containerImage"),
            "a:${KERNEL_VERSON}",
            "${KERNEL_VERSON} is no variable and stands for nothing; did",
        ),
        ((*CONTAINER, "containerImage"), "https://a/b", "has a registry that is no host name"),
        ((*CONTAINER, "containerImage"), "a b", "names no repository"),
        ((*CONTAINER, "kernelMappings", 0, "containerImage"), "Registry.example/Upper:1", "names no repository"),
        (("spec", "selector"), {"worker": None}, 'selector.worker: is empty, so the API server drops it: write ""'),
        (
            ("spec", "moduleName"),
            "x",
            "is not a known field here; it belongs in spec.moduleLoader.container.modprobe",
        ),
    ],
)
def test_likely_slips_are_warned_about(path, value, said):
    judgement = judge(changed(*path, to=value), catalog())
    assert judgement.errors == ()
    assert any(said in line(each) for each in judgement.warnings)


def test_what_has_an_error_is_not_warned_about_too():
    assert [each.severity for each in judge(changed("spec", "driver", to=5), catalog()).findings] == [Severity.ERROR]
    assert len(lines(changed(*CONTAINER, "build", to={"dockerfileConfigMap": "cm"}))) == 1


def test_a_pattern_that_cannot_be_read_refuses_but_what_is_stored_is_still_worked_with():
    mappings = [{"regexp": "(", "containerImage": "a"}, {"regexp": "^6", "containerImage": "a"}]
    judgement = judge(changed(*CONTAINER, "kernelMappings", to=mappings), catalog())
    (error,) = judgement.errors
    assert error.path == "spec.moduleLoader.container.kernelMappings[0].regexp"
    assert error.message == '"(" is not a regular expression of RE2: missing ): ('
    assert judgement.usable
    assert len(judgement.value.spec.module_loader.container.kernel_mappings) == 2
    worse = changed(*CONTAINER, "modprobe", to={})
    assert not judge(worse, catalog()).usable


def test_a_generated_name_counts_with_what_is_appended_to_it():
    manifest = {**VALID, "metadata": {"generateName": "m" * 51, "namespace": "n"}}
    assert "must have at most 57 characters, not 58" in lines(manifest)[0]
    assert lines({**VALID, "metadata": {"generateName": "m-"}}) == []
    assert "metadata.generateName" in lines({**VALID, "metadata": {"generateName": "M-"}})[0]


def managed(**spec):
    return {
        "apiVersion": "hub.kmm.sigs.x-k8s.io/v1beta1",
        "kind": "ManagedClusterModule",
        "metadata": {"name": "m"},
        "spec": {"selector": {"a": "b"}, "moduleSpec": VALID["spec"], "spokeNamespace": "n", **spec},
    }


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (managed(spokeNamespace="NOT_a namespace/../"), "spec.spokeNamespace: "),
        ({**managed(), "metadata": {"name": "a" * 60}}, "metadata.name: is too long"),
        (managed(moduleSpec={**VALID["spec"], "driver": "nonesuch"}), 'spec.moduleSpec.driver: no driver "nonesuch"'),
        (managed(selector={"-bad": "*"}), "spec.selector: nothing can have the label"),
        (managed(moduleSpec={}), "spec.moduleSpec.selector: is required"),
    ],
)
def test_a_managed_cluster_module_is_judged_as_the_module_that_it_becomes(manifest, said):
    assert lines(managed()) == []
    assert lines(manifest)[0].startswith(said)


def test_a_hostile_object_costs_no_more_to_explain_than_to_read():
    manifest = changed("spec", "selector", to={f"a {index}": "b" for index in range(50_000)})
    manifest["spec"] |= {f"unknown{index}": index for index in range(50_000)}
    findings = judge(manifest, catalog()).findings
    assert len(findings) == 101
    assert "more" in findings[-1].message


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


@pytest.mark.parametrize(
    "junk",
    [
        [],
        None,
        "x",
        {},
        {"request": None},
        {"request": {"uid": "u", "operation": ["CREATE"]}},
        {"request": []},
        {"request": {"uid": None}},
    ],
)
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
