"""OpenShift's security context constraints as data, and whether one of them admits a pod.

Only what decides whether a pod comes to be: what a constraint fills in by itself is no business of ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

ANY = "*"
# As OpenShift 4.11 and later have them.
PRIVILEGED: dict[str, Any] = {
    "metadata": {"name": "privileged"},
    "allowHostDirVolumePlugin": True,
    "allowHostIPC": True,
    "allowHostNetwork": True,
    "allowHostPID": True,
    "allowHostPorts": True,
    "allowPrivilegeEscalation": True,
    "allowPrivilegedContainer": True,
    "allowedCapabilities": [ANY],
    "requiredDropCapabilities": None,
    "runAsUser": {"type": "RunAsAny"},
    "seLinuxContext": {"type": "RunAsAny"},
    "seccompProfiles": [ANY],
    "volumes": [ANY],
}
RESTRICTED_V2: dict[str, Any] = {
    "metadata": {"name": "restricted-v2"},
    "allowHostDirVolumePlugin": False,
    "allowHostIPC": False,
    "allowHostNetwork": False,
    "allowHostPID": False,
    "allowHostPorts": False,
    "allowPrivilegeEscalation": False,
    "allowPrivilegedContainer": False,
    "allowedCapabilities": ["NET_BIND_SERVICE"],
    "requiredDropCapabilities": ["ALL"],
    "runAsUser": {"type": "MustRunAsRange"},
    "seLinuxContext": {"type": "MustRunAs"},
    "seccompProfiles": ["runtime/default"],
    "volumes": [
        *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"),
    ],
}
_PROFILES = {"RuntimeDefault": "runtime/default", "Unconfined": "unconfined"}


def refusals(pod: Mapping[str, Any], constraint: Mapping[str, Any]) -> set[str]:
    """Return why a constraint does not admit a pod's specification, in the words of its fields."""
    found = set(_of_pod(pod, constraint))
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        asked = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
        found |= set(_of_container(asked, constraint))
    return found


def _of_pod(pod: Mapping[str, Any], constraint: Mapping[str, Any]) -> Iterator[str]:
    for field, allowed in (
        ("hostIPC", "allowHostIPC"),
        ("hostNetwork", "allowHostNetwork"),
        ("hostPID", "allowHostPID"),
    ):
        if pod.get(field) and not constraint.get(allowed):
            yield allowed
    for volume in pod.get("volumes", ()):
        (kind,) = volume.keys() - {"name"}
        if ANY not in constraint["volumes"] and kind not in constraint["volumes"]:
            yield f"volumes: {kind}"


def _of_container(asked: Mapping[str, Any], constraint: Mapping[str, Any]) -> Iterator[str]:
    if asked.get("privileged") and not constraint.get("allowPrivilegedContainer"):
        yield "allowPrivilegedContainer"
    if asked.get("allowPrivilegeEscalation") and not constraint.get("allowPrivilegeEscalation", True):
        yield "allowPrivilegeEscalation"
    allowed = constraint.get("allowedCapabilities") or []
    for capability in (asked.get("capabilities") or {}).get("add") or ():
        if ANY not in allowed and capability not in allowed:
            yield f"allowedCapabilities: {capability}"
    user = asked.get("runAsUser")
    how = constraint["runAsUser"]
    if user is not None and how["type"] == "MustRunAsRange":
        # The namespace's range, which nobody knows beforehand, unless the constraint has one of its own.
        low, high = how.get("uidRangeMin", 1_000_650_000), how.get("uidRangeMax", 1_000_659_999)
        if not low <= user <= high:
            yield f"runAsUser: {user}"
    if how["type"] == "MustRunAsNonRoot" and not (user or asked.get("runAsNonRoot")):
        yield "runAsUser: 0"
    if asked.get("seLinuxOptions") and constraint["seLinuxContext"]["type"] == "MustRunAs":
        given = constraint["seLinuxContext"].get("seLinuxOptions") or {}
        if asked["seLinuxOptions"].get("type") not in (None, given.get("type", "container_t")):
            yield "seLinuxContext"
    profile = (asked.get("seccompProfile") or {}).get("type")
    profiles = constraint.get("seccompProfiles") or []
    if profile and ANY not in profiles and _PROFILES.get(profile, profile) not in profiles:
        yield f"seccompProfiles: {profile}"
