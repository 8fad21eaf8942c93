from __future__ import annotations

import copy

import pytest

from kmm.api.driver import merge


@pytest.mark.parametrize(
    ("defaults", "users", "merged"),
    [
        ({}, {}, {}),
        ({"selector": {"a": "b"}}, {}, {"selector": {"a": "b"}}),
        ({"selector": {"a": "b"}}, {"selector": {"c": "d"}}, {"selector": {"a": "b", "c": "d"}}),
        ({"selector": {"a": "b"}}, {"selector": {"a": "c"}}, {"selector": {"a": "c"}}),
        ({"selector": {"a": "b"}}, {"selector": {"a": ""}}, {"selector": {"a": ""}}),
        ({"selector": {"a": "b"}}, {"selector": None}, {"selector": {"a": "b"}}),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]}, {"tolerations": [{"key": "b"}]}),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": []}, {"tolerations": []}),
        (
            {"moduleLoader": {"container": {"containerImage": "a", "modprobe": {"moduleName": "m"}}}},
            {"moduleLoader": {"container": {"containerImage": "", "modprobe": {"dirName": "/x"}}}},
            {
                "moduleLoader": {
                    "container": {"containerImage": "a", "modprobe": {"moduleName": "m", "dirName": "/x"}}
                }
            },
        ),
        (
            {"moduleLoader": {"container": {"build": {"params": {"a": "b"}}}}},
            {"moduleLoader": {"container": {"build": {"params": {"a": ""}}}}},
            {"moduleLoader": {"container": {"build": {"params": {"a": ""}}}}},
        ),
        ({"moduleLoader": {"container": {}}}, {"moduleLoader": "wrong"}, {"moduleLoader": "wrong"}),
    ],
)
def test_what_the_user_sets_wins_and_the_rest_is_the_vendors(defaults, users, merged):
    before = copy.deepcopy((defaults, users))
    assert merge(defaults, users) == merged
    assert (defaults, users) == before
