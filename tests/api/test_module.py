from __future__ import annotations

import copy
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmm.api.module import MAPPINGS_MOST, Module, compile_pattern, wrong_patterns
from kmm.api.schema import load

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


def changed(path: str, value: object) -> dict:
    """The valid Module with something else at `path` below the container (or below spec, with a leading /)."""
    manifest = copy.deepcopy(VALID)
    branch = manifest["spec"] if path.startswith("/") else manifest["spec"]["moduleLoader"]["container"]
    *way, last = [int(part) if part.isdigit() else part for part in path.strip("/").split(".")]
    for part in way:
        branch = branch.setdefault(part, {}) if isinstance(branch, dict) else branch[part]
    branch[last] = value
    return manifest


def errors(manifest: object) -> list[str]:
    return [
        f"{each.path}: {each.message}".removeprefix("spec.moduleLoader.container.")
        for each in load(Module, manifest)[1]
        if each.severity.value == "error"
    ]


def test_the_valid_module_is_valid():
    assert errors(VALID) == []


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        ("modprobe.moduleName", "-rf", '"-rf" must be a kernel module\'s name'),
        ("modprobe.moduleName", "a b", "must be a kernel module's name"),
        ("modprobe.moduleName", "$(reboot)", "must be a kernel module's name"),
        ("modprobe.moduleName", "", "needs moduleName, or rawArgs with both load and unload"),
        ("modprobe.dirName", "opt", "must be an absolute path"),
        ("modprobe.dirName", "/opt/../etc", 'without ".."'),
        ("modprobe.dirName", "/..", 'without ".."'),
        ("modprobe.dirName", "/a\0b", "must be an absolute path"),
        ("modprobe.firmwarePath", "/", 'not "/" itself'),
        ("build", {"dockerfileConfigMap": {}, "builder": "x" * 64}, "must have at most 63 characters"),
        ("containerImage", "x" * 5000, "must have at most 4,096 characters"),
        ("modprobe.firmwarePath", "//", 'not "/" itself'),
        ("modprobe.firmwarePath", "firmware", "must be an absolute path"),
        ("modprobe.firmwarePath", "/var/lib/firmware", "must not be where the node keeps its firmware"),
        ("modprobe.firmwarePath", "//var/lib//firmware/acme/", "must not be where the node keeps its firmware"),
        ("modprobe.parameters", ["it's"], "cannot be split into words: a quote is not closed"),
        ("modprobe.parameters", ["a\0b"], "NUL"),
        ("modprobe.args", {"load": []}, "must have at least 1 element"),
        ("modprobe.args", {"load": ['"']}, "cannot be split into words"),
        ("modprobe.rawArgs", {"load": ["x"]}, "cannot be set beside moduleName"),
        ("modprobe.modulesLoadingOrder", ["kmm_ci_a"], "must have at least 2 elements"),
        ("modprobe.modulesLoadingOrder", ["b", "kmm_ci_a"], 'must be the moduleName, "kmm_ci_a"'),
        ("modprobe.modulesLoadingOrder", ["kmm_ci_a", "b", "b"], '"b" is in the list twice'),
        ("modprobe.modulesLoadingOrder", ["kmm_ci_a", "b\nblacklist c"], "must be a kernel module's name"),
        ("modprobe", {}, "needs moduleName, or rawArgs"),
        ("modprobe", {"rawArgs": {"load": ["x"]}}, "needs moduleName, or rawArgs with both load and unload"),
        ("modprobe", None, "modprobe: is required (unless driver names"),
        ("inTreeModulesToRemove", ["-r"], "must be a kernel module's name"),
        ("inTreeModuleToRemove", "a;b", "must be a kernel module's name"),
        (
            "imagePullPolicy",
            "Allways",
            'must be Always, IfNotPresent or Never, not "Allways"; did you mean "Always"?',
        ),
        ("containerImage", "a:${KERNEL", "never closed"),
        ("build", {}, "build.dockerfileConfigMap: is required"),
        ("build", {"dockerfileConfigMap": {}, "buildArgs": [{"value": "x"}]}, "buildArgs[0].name: is required"),
        ("build", {"dockerfileConfigMap": {}, "buildArgs": [{"name": "x", "value": "${"}]}, "never closed"),
        ("sign", {"filesToSign": ["${x"]}, "sign.filesToSign[0]: "),
        ("sign", {"unsignedImage": "${x"}, "sign.unsignedImage: "),
        ("kernelMappings", [], "must have at least 1 element"),
        ("kernelMappings", None, "kernelMappings: is required (unless driver names"),
        ("kernelMappings", [{"regexp": "x", "containerImage": "a"}] * (MAPPINGS_MOST + 1), "at most 1,024 elements"),
        ("kernelMappings.0", {"containerImage": "a"}, "needs a literal"),
        ("kernelMappings.0", {"containerImage": "a", "literal": "", "regexp": ""}, "needs a literal"),
        ("kernelMappings.0", {"containerImage": "a", "literal": "a", "regexp": "b"}, "keep one of them"),
        ("kernelMappings.0", {"regexp": "x"}, "kernelMappings[0].containerImage: is required where"),
        (
            "kernelMappings",
            [{"regexp": "x" * 999, "containerImage": "a"}] * 66,
            "kernelMappings: has patterns that are too",
        ),
        ("modprobe.dirName", "/x" * 3000, "must have at most 4,096 characters"),
        ("kernelMappings.0.regexp", "x" * 1025, "must have at most 1,024 characters, not 1,025"),
        ("/devicePlugin", {}, "devicePlugin.container: is required (unless driver names"),
        ("/devicePlugin", {"container": {}}, "devicePlugin.container.image: is required (unless driver names"),
        ("/devicePlugin", {"container": {"image": ""}}, "devicePlugin.container.image: is required (unless driver"),
        ("/devicePlugin", "x", "devicePlugin: must be an object"),
        ("/devicePlugin", {"container": "x"}, "devicePlugin.container: must be an object"),
        ("/devicePlugin", {"container": {"image": "${x"}}, "devicePlugin.container.image: "),
        ("/selector", None, "spec.selector: is required"),
        ("/moduleLoader", None, "spec.moduleLoader: is required (unless driver names"),
        ("/moduleLoader", {"serviceAccountName": "x"}, "container: is required (unless"),
        ("/imageRepoSecret", {"name": "x" * 254}, "must have at most 253 characters"),
    ],
)
def test_what_cannot_work_is_one_error(path, value, error):
    (found,) = errors(changed(path, value))
    assert error in found


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("modprobe.dirName", "/"),
        ("modprobe.dirName", "/opt/..hidden/.x/"),
        ("modprobe.firmwarePath", "/firmware/"),
        ("modprobe.firmwarePath", "/var/lib/firmware-acme"),
        ("modprobe.parameters", ["a=1 b='2 3'", "$(reboot)", '";reboot;"']),
        ("modprobe", {"moduleName": "", "rawArgs": {"load": ["x"], "unload": ["y"]}}),
        ("modprobe.modulesLoadingOrder", ["kmm_ci_a", "b"]),
        ("containerImage", ""),
        ("imagePullPolicy", ""),
        ("registryTLS", {}),
        ("build", {"dockerfileConfigMap": {"name": ""}, "buildArgs": [{"name": "x", "value": ""}]}),
        ("sign", {}),
        ("version", "1.0"),
        ("kernelMappings.0", {"regexp": "(a+)+$", "literal": "", "containerImage": "a"}),
        ("/devicePlugin", {"container": {"image": "a", "env": [{"name": "A"}, {"name": "A", "value": "2"}]}}),
        ("/devicePlugin", {"container": {"image": "a"}, "initContainer": {"image": "b"}}),
        (
            "/moduleLoader",
            {
                "container": {
                    "kernelMappings": [{"literal": "6", "containerImage": "a"}],
                    "modprobe": {"moduleName": "x"},
                }
            },
        ),
        ("/selector", {}),
    ],
)
def test_what_the_go_operator_accepts_is_accepted(path, value):
    assert errors(changed(path, value)) == []


@given(st.text("a '\"\\\n$#", max_size=12))
def test_words_are_judged_as_shlex_would_split_them(text):
    try:
        shlex.split(text)
        splittable = True
    except ValueError:
        splittable = False
    assert (errors(changed("modprobe.parameters", [text])) == []) == splittable


def test_a_driver_may_bring_the_loader_and_the_device_plugin():
    manifest = {**VALID, "spec": {"selector": {}, "driver": "acme"}}
    assert errors(manifest) == []
    manifest["spec"]["moduleLoader"] = {"container": {"kernelMappings": [{"literal": "6"}]}}
    assert errors(manifest) == []
    manifest["spec"]["devicePlugin"] = {"params": {"a": 1}}
    assert errors(manifest) == []
    manifest["spec"]["devicePlugin"] = {"container": {"args": ["-v"]}}
    assert errors(manifest) == []


def test_a_catastrophic_pattern_takes_linear_time():
    pattern = compile_pattern("(a+)+$")
    assert not pattern.search("a" * 100_000 + "!"), "in exponential time this would never end"


@pytest.mark.parametrize("pattern", ["(", "(?=x)", "((a{100}){100}){100}"], ids=["broken", "not RE2's", "too large"])
def test_a_pattern_that_cannot_be_read_is_an_error_of_its_mapping_alone(pattern):
    manifest = changed("kernelMappings.0.regexp", pattern)
    container = manifest["spec"]["moduleLoader"]["container"]
    container["kernelMappings"].append({"regexp": "^6", "containerImage": "a"})
    assert errors(manifest) == []
    ((index, message),) = wrong_patterns(container)
    assert (index, message.startswith(f'"{pattern}" is not a regular expression of RE2: ')) == (0, True)


def test_patterns_that_are_too_large_together_are_not_compiled_one_by_one():
    container = {"kernelMappings": [{"regexp": "(" + "x" * 999, "containerImage": "a"}] * 66}
    assert list(wrong_patterns(container)) == []


def test_a_long_loading_order_is_judged_in_linear_time():
    order = ["kmm_ci_a", *(f"m{index}" for index in range(255))]
    assert errors(changed("modprobe.modulesLoadingOrder", order)) == []
    (error,) = errors(changed("modprobe.modulesLoadingOrder", [*order, "x"]))
    assert "at most 256" in error


def test_a_thousand_mappings_are_judged():
    mappings = [{"literal": f"6.1.{number}", "containerImage": f"a:{number}"} for number in range(MAPPINGS_MOST)]
    assert errors(changed("kernelMappings", mappings)) == []


@pytest.mark.parametrize("name", ["../../kmm/secrets/pin", "a/b", "..", ".", "A", "a b", "-a", "a\n", "a%2fb"])
@pytest.mark.parametrize(
    "where",
    [
        ("imageRepoSecret", "name"),
        ("moduleLoader", "serviceAccountName"),
        ("moduleLoader", "container", "sign", "certSecret", "name"),
        ("moduleLoader", "container", "build", "dockerfileConfigMap", "name"),
    ],
    ids=lambda where: where[-2],
)
def test_names_of_objects_are_no_paths_to_others(where, name):
    spec = {
        "selector": {"a": "b"},
        "imageRepoSecret": {"name": "push"},
        "moduleLoader": {
            "serviceAccountName": "loader",
            "container": {
                "modprobe": {"moduleName": "m"},
                "sign": {"certSecret": {"name": "cert"}, "keySecret": {"name": "key"}},
                "build": {"dockerfileConfigMap": {"name": "files"}},
                "kernelMappings": [{"regexp": ".", "containerImage": "a/b:1"}],
            },
        },
    }
    manifest = {"apiVersion": "kmm.sigs.x-k8s.io/v1beta1", "kind": "Module", "metadata": {"name": "m"}, "spec": spec}
    assert load(Module, manifest)[0] is not None
    *above, last = where
    parent = spec
    for key in above:
        parent = parent[key]
    parent[last] = name
    value, findings = load(Module, manifest)
    assert value is None
    assert [each.path for each in findings if each.severity == "error"] == [".".join(("spec", *where))]
