"""Paths of objects."""

from __future__ import annotations

import pytest

from kmm.runtime.kinds import MODULE, SECRET, path_of


def test_each_object_has_its_path():
    assert path_of(SECRET, "n", "s") == "/api/v1/namespaces/n/secrets/s"
    assert path_of(MODULE) == "/apis/kmm.sigs.x-k8s.io/v1beta1/modules"


@pytest.mark.parametrize("name", ["../../kmm/secrets/pin", "..", ".", "a/b"])
def test_no_name_leads_to_another_object(name):
    for namespace, each in (("n", name), (name, "s")):
        with pytest.raises(ValueError, match="no name"):
            path_of(SECRET, namespace, each)
