"""Why a loader could not load or unload: what modprobe and the kernel say, as a reason and what to do about it."""

from __future__ import annotations

import re
from functools import lru_cache

from kmm.core.reasons import Reason
from kmm.core.view import Pod

_LONGEST, _SEARCHED = 600, 2048  # characters
_MODULE_REFUSED = r"could not insert|can't load module"
_MODULE_KEPT = r"could not remove|can't unload"
_OTHER_KERNEL = "invalid module format|version magic|disagrees about version|wrong symbol version"
_NO_COMMAND = (
    r"executable file .{0,300}?not found|runtime exec failed.{0,600}?no such file|command not found|"
    r"sh: [\w ./:-]{1,200}: not found"
)
# The first that is found decides. The words differ between kernels, their modes, kmod and BusyBox.
_WORDS = tuple(
    (re.compile(words, re.IGNORECASE), reason, advice)
    for words, reason, advice in (
        (
            r"Required key not available|Key was rejected by service|Key has been revoked|Key has expired",
            Reason.KEY_REJECTED,
            (
                "the kernel does not trust the module's signature: enrol its certificate (MOK list, db) or sign with "
                "another"
            ),
        ),
        (
            rf"(?:{_MODULE_REFUSED}).{{0,600}}?: Bad message",
            Reason.KEY_REJECTED,
            "the module's signature is damaged: sign it after it was stripped, and change nothing of it afterwards",
        ),
        (
            rf"(?:{_MODULE_REFUSED}).{{0,600}}?: Package not installed",
            Reason.KEY_REJECTED,
            "the kernel does not know how the signature was made: sign with RSA and sha256",
        ),
        (
            r"Direct firmware load for|failed to load firmware|\bcp: (?!not found)",
            Reason.FIRMWARE_MISSING,
            (
                "firmware could not be had: check modprobe.firmwarePath, and that the node's kernel has the argument "
                "firmware_class.path=/var/lib/firmware"
            ),
        ),
        (
            rf"Module \S+ is in use|in use by|(?:{_MODULE_KEPT}).{{0,600}}?(?:busy|Resource temporarily unavailable)",
            Reason.MODULE_IN_USE,
            "the module is in use: stop what uses it, then it is unloaded",
        ),
        (
            rf"(?:Device or r|R)esource busy|(?:{_MODULE_REFUSED}).{{0,600}}?: File exists|exports duplicate symbol",
            Reason.DRIVER_CONFLICT,
            "another driver has what this one wants: list that one in inTreeModulesToRemove, or keep it from loading",
        ),
        (
            rf"(?:{_MODULE_REFUSED}).{{0,600}}?Exec format error|{_OTHER_KERNEL}",
            Reason.WRONG_FORMAT,
            "the module was built for another kernel or architecture: check the image of this kernel's mapping",
        ),
        (
            r"Exec format error",
            Reason.WRONG_FORMAT,
            "the image's programs are for another kernel or architecture than the node's: push the image for it",
        ),
        (
            r"Unknown symbol",
            Reason.UNKNOWN_SYMBOL,
            (
                "a module that this one needs is missing (run depmod in the image, or list modulesLoadingOrder), "
                "or it does not know a parameter"
            ),
        ),
        (
            rf"(?:{_MODULE_REFUSED}).{{0,600}}?No such device",
            Reason.NO_DEVICE,
            "the driver finds no device that it drives: select only nodes that have one",
        ),
        (
            _NO_COMMAND,
            Reason.COMMAND_MISSING,
            (
                "the image lacks a command: loading needs modprobe and sleep in it, and /bin/sh where it takes "
                "several steps"
            ),
        ),
        (
            r"Operation not permitted",
            Reason.LOCKED_DOWN,
            "the kernel is locked down or the pod may not load modules: sign the module, and allow SYS_MODULE there",
        ),
        (
            r"not found in directory|not found in modules\.dep|FATAL: Module \S+ not found",
            Reason.FILE_MISSING,
            (
                "the image has no such module for this kernel: check the kernel's mapping, modprobe.dirName and "
                "moduleName"
            ),
        ),
        (
            r"No such file",
            Reason.FILE_MISSING,
            "a file is missing: check modprobe.dirName, and that the image holds the module for this kernel",
        ),
    )
)
_PULL_WORDS = tuple(
    (re.compile(words, re.IGNORECASE), advice)
    for words, advice in (
        (
            r"no match for platform|no matching manifest|no image found in (?:manifest list|image index)",
            "the image is not there for the node's architecture: push it for that too",
        ),
        (
            r"is not present with pull policy",
            "imagePullPolicy is Never, and the node does not have the image",
        ),
        (
            r"unauthorized|authentication required|denied|forbidden|no basic auth",
            "the registry lets the node not have it: check spec.imageRepoSecret, and that the image exists",
        ),
        (r"x509|certificate", "the node does not trust the registry's certificate: its container runtime has to"),
        (
            r"no such host|dial tcp|timeout|connection refused|server misbehaving",
            "the node does not reach the registry: check its name, and the node's network and proxy",
        ),
        (
            r"not found|manifest unknown|name unknown|does not exist",
            "there is no such image: check containerImage of this kernel's mapping",
        ),
    )
)
_PULL_ADVICE = "the node cannot pull the image"

# What says why, and what only says that it goes on.
_FAILED = (
    "PostStartHookError",
    "PreStartHookError",
    "PreCreateHookError",
    "RunContainerError",
    "StartError",
    "CreateContainerError",
    "CreateContainerConfigError",
)
_AGAIN = "CrashLoopBackOff"
_PULLED_AGAIN = "ImagePullBackOff"
_NOT_PULLED = (
    "ErrImagePull",
    _PULLED_AGAIN,
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
)
_STILL_LOADED = (
    "stays loaded as it was, also where another loader takes over: stop what uses it, then `modprobe -r` on the "
    "node, or reboot it"
)

# The kubelet: `Exec lifecycle hook ([COMMAND]) … failed - error: ERROR, message: "WHAT IT PRINTED"`, quoted as Go
# does it, where ERROR is `command 'COMMAND' exited with CODE: STDERR` or the container runtime's.
_PRINTED = ', message: "'
_ERROR = " failed - error: "
_EXITED = re.compile(r"command '.*' exited with (\d+): ", re.DOTALL)
_ESCAPED = re.compile(r'\\(["\\nrt])')


def diagnose(pod: Pod) -> tuple[Reason, str] | None:
    """Return why a loader's pod does not get on, and what to do; None where nothing is wrong with it."""
    if pod.waiting_reason in _NOT_PULLED:
        advice = next((told for words, told in _PULL_WORDS if words.search(pod.waiting_message)), _PULL_ADVICE)
        return Reason.IMAGE_PULL_FAILED, f"{advice} ({pod.waiting_reason} on {pod.node}: {_end(pod.waiting_message)})"
    if pod.waiting_reason not in (*_FAILED, _AGAIN):
        return None
    # A crash loop says nothing itself; a script has left what it printed also where the kubelet says it.
    said = "" if pod.waiting_reason == _AGAIN else _said(pod.waiting_message)
    for text in (said, pod.termination_message):
        if found := _recognised(text):
            return found[0], f"{found[1]} ({pod.node}: {_end(text)})"
    left = said or pod.termination_message or pod.waiting_message
    return Reason.LOAD_FAILED, f"{pod.waiting_reason} on {pod.node}: {_end(left)}"


def diagnose_unload(pod: Pod, event: str = "") -> tuple[Reason, str] | None:
    """Return that a driver stays loaded whose loader was stopped, and what to do; None where nothing says so.

    `event`: what the kubelet said of a hook that failed, if it did.
    """
    if not pod.deleting or pod.waiting_reason:  # what waits to be run again has not loaded
        return None
    said = pod.termination_message or _said(event)
    found = _recognised(said)
    if found and found[0] is Reason.MODULE_IN_USE:
        return Reason.MODULE_IN_USE, f"the driver is in use and {_STILL_LOADED} ({pod.node}: {_end(said)})"
    if event:
        return Reason.UNLOAD_FAILED, f"the driver may be in use, and {_STILL_LOADED} ({pod.node}: {_end(said)})"
    return None


@lru_cache(maxsize=1024)
def _recognised(text: str) -> tuple[Reason, str] | None:
    """Return what the end of a text says, and what to do. It is the same on thousands of nodes, in every plan."""
    line = " ".join(text.split())[-_SEARCHED:]
    return next(((reason, advice) for words, reason, advice in _WORDS if words.search(line)), None)


def is_news(pod: Pod) -> bool:
    """Whether a pod says why it failed, and not only that it will be tried again."""
    return pod.waiting_reason not in (_AGAIN, _PULLED_AGAIN)


def _said(message: str) -> str:
    """Return what a hook said, of what the kubelet says: the command, maybe a long script, stands before it twice."""
    before, marked, quoted = message.rpartition(_PRINTED)
    if marked and (printed := _ESCAPED.sub(_unescaped, quoted.rstrip().removesuffix('"'))).strip():
        return printed
    error = (before if marked else message).rpartition(_ERROR)[2]
    exited = _EXITED.match(error)
    if exited is None:
        return error
    return error[exited.end() :].strip() or f"exited with {exited[1]}, and said nothing"


def _unescaped(found: re.Match[str]) -> str:
    return {"n": "\n", "r": "\r", "t": "\t"}.get(found[1], found[1])


def _end(text: str) -> str:
    """Return a text in one line; of a long one its end, which says why."""
    line = " ".join(text.split())
    return f"…{line[-_LONGEST:]}" if len(line) > _LONGEST else line
