"""Why a loader could not load: what modprobe and the kernel say, as a reason and what to do about it."""

from __future__ import annotations

import re

from kmm.core.reasons import Reason
from kmm.core.view import Pod

_LONGEST = 600
# The first that is found decides. The words differ between kernel versions and lockdown modes.
_WORDS = (
    (
        re.compile(r"Required key not available|Key was rejected by service|Bad message", re.IGNORECASE),
        Reason.KEY_REJECTED,
        "the kernel does not trust the module's signature: enrol its certificate (MOK list, db) or sign with another",
    ),
    (
        re.compile(r"Module (\S+) is in use|in use by|Device or resource busy", re.IGNORECASE),
        Reason.MODULE_IN_USE,
        "the module is in use: stop what uses it, then it is unloaded",
    ),
    (
        re.compile(r"Exec format error|invalid module format|version magic|disagrees about version", re.IGNORECASE),
        Reason.WRONG_FORMAT,
        "the module was built for another kernel or architecture: check the image of this kernel's mapping",
    ),
    (
        re.compile(r"Unknown symbol", re.IGNORECASE),
        Reason.UNKNOWN_SYMBOL,
        "a module that this one needs is missing: run depmod in the image, or list modulesLoadingOrder",
    ),
    (
        re.compile(r"Operation not permitted", re.IGNORECASE),
        Reason.LOCKED_DOWN,
        "the kernel is locked down or the pod may not load modules: sign the module, and allow SYS_MODULE there",
    ),
    (
        re.compile(r"No such file|not found in directory|FATAL: Module \S+ not found", re.IGNORECASE),
        Reason.FILE_MISSING,
        "a file is missing: check dirName and firmwarePath, and that the image holds the module for this kernel",
    ),
)


# What says why, and what only says that it goes on.
_FAILED = (
    "PostStartHookError",
    "RunContainerError",
    "StartError",
    "CreateContainerError",
    "CreateContainerConfigError",
)
_AGAIN = "CrashLoopBackOff"
_NOT_PULLED = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")


def diagnose(pod: Pod) -> tuple[Reason, str] | None:
    """Return why a loader's pod does not get on, and what to do; None where nothing is wrong with it."""
    # The kubelet writes the command, maybe a long script, before what it said: so the end counts when it is cut.
    said = " ".join(pod.waiting_message.split())
    shown = f"…{said[-_LONGEST:]}" if len(said) > _LONGEST else said
    if pod.waiting_reason in _NOT_PULLED:
        return Reason.IMAGE_PULL_FAILED, f"{pod.waiting_reason} on {pod.node}: {shown}"
    if pod.waiting_reason not in (*_FAILED, _AGAIN):
        return None
    for words, reason, advice in _WORDS:
        if words.search(said):
            return reason, f"{advice} ({pod.node}: {shown})"
    return Reason.LOAD_FAILED, f"{pod.waiting_reason} on {pod.node}: {shown}"


def is_news(pod: Pod) -> bool:
    """Whether a pod says why it failed, and not only that it will be tried again."""
    return pod.waiting_reason not in (_AGAIN, "ImagePullBackOff")
