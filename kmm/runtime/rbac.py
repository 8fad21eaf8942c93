"""The rights that the operator needs, from what it watches, owns and writes, and no others."""

from __future__ import annotations

from typing import Any

from kmm.catalog import Catalog
from kmm.contract import Kind, Renderer
from kmm.core.loader_daemonset import DAEMON_SET
from kmm.runtime.kinds import CONFIG_MAP, EVENT, LEASE, MODULE, NAMESPACE, NODE, POD, SECRET, SERVICE_ACCOUNT

OPERATOR = "kmm-operator-controller-manager"
ACCOUNTS = (OPERATOR, "kmm-operator-module-loader", "kmm-operator-device-plugin")
_WATCH = ("get", "list", "watch")
_OWN = (*_WATCH, "create", "delete", "patch")


def rules(catalog: Catalog) -> list[dict[str, Any]]:
    """Return the rules for the whole cluster."""
    makes: list[Renderer[Any]] = [*catalog.builders.values(), *catalog.signers.values()]
    owned = [kind for each in makes for kind in each.owns]
    rendered = dict.fromkeys(owned)
    creating = dict.fromkeys((kind, below) for kind in owned for below in kind.creating)
    return [
        _rule(NODE, *_WATCH, "patch"),
        _rule(NAMESPACE, *_WATCH),
        _rule(MODULE, *_WATCH),
        _rule(MODULE, "patch", below="status"),
        # A dependent that blocks its owner's deletion may only be made by who may finalize the owner.
        _rule(MODULE, "update", below="finalizers"),
        _rule(DAEMON_SET, *_OWN),
        # Patched to take off the finalizer that the Go operator left.
        _rule(POD, *_WATCH, "patch"),
        *(_rule(kind, *_OWN) for kind in rendered if kind != DAEMON_SET),
        *(_rule(kind, "create", below=below) for kind, below in creating),
        *(
            {**_rule(each.listing.kind, *_WATCH), "resourceNames": [each.listing.name]}
            for each in catalog.base_images.values()
            if each.listing
        ),
        _rule(CONFIG_MAP, *_WATCH),
        _rule(SECRET, *_WATCH),
        _rule(SERVICE_ACCOUNT, *_WATCH),
        # Watched for what kubelets say of loaders that could not unload.
        _rule(EVENT, *_WATCH, "create", "patch"),
    ]


def manifests(catalog: Catalog, namespace: str) -> list[dict[str, Any]]:
    """Return service accounts, roles and bindings, ready to be applied."""
    rbac = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": OPERATOR, "namespace": namespace}
    api = {"apiVersion": f"{rbac}/v1"}
    here = {"name": OPERATOR, "namespace": namespace}
    return [
        *(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
            for name in ACCOUNTS
        ),
        {**api, "kind": "ClusterRole", "metadata": {"name": OPERATOR}, "rules": rules(catalog)},
        {
            **api,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": OPERATOR},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": OPERATOR},
            "subjects": [subject],
        },
        {**api, "kind": "Role", "metadata": here, "rules": [_rule(LEASE, "get", "create", "update")]},
        {
            **api,
            "kind": "RoleBinding",
            "metadata": here,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": OPERATOR},
            "subjects": [subject],
        },
    ]


def _rule(kind: Kind, *verbs: str, below: str = "") -> dict[str, Any]:
    group = kind.api_version.rpartition("/")[0]
    resource = f"{kind.plural}/{below}" if below else kind.plural
    return {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}
