"""The operator's rights are those that its plugins need."""

from __future__ import annotations

from kmm.catalog import Plugin, build_catalog
from kmm.contract import Kind, Progress, State
from kmm.loader import load_catalog
from kmm.runtime.rbac import rules


class Renderer:
    requires = ()

    def __init__(self, name, kind):
        self.name, self.owns = name, (kind,)

    def render(self, request):
        return []

    def observe(self, objects, pods):
        return Progress(state=State.PENDING)


def granted(catalog, group) -> dict[str, list[str]]:
    return {rule["resources"][0]: rule["verbs"] for rule in rules(catalog) if rule["apiGroups"] == [group]}


def test_what_openshift_asks_of_whoever_makes_builds_is_granted():
    found = granted(load_catalog(), "build.openshift.io")
    assert found["builds/docker"] == ["create"]
    assert found["builds"] == ["get", "list", "watch", "create", "delete", "patch"]
    assert granted(load_catalog(), "kmm.sigs.x-k8s.io")["modules/finalizers"] == ["update"]


def test_one_kind_is_watched_once_whatever_rights_its_makers_name():
    plain = Kind(api_version="example.com/v1", kind="Build", plural="builds")
    asking = Kind(api_version="example.com/v1", kind="Build", plural="builds", creating=("docker",))
    builders = (Renderer("a", plain), Renderer("b", asking))
    catalog = build_catalog([Plugin(name="p", distribution="p", version="1", builders=builders)])
    assert plain == asking
    assert granted(catalog, "example.com") == {
        "builds": ["get", "list", "watch", "create", "delete", "patch"],
        "builds/docker": ["create"],
    }
