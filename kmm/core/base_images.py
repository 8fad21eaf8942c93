"""The image that a driver is built in, where its Dockerfile leaves that to the operator.

It is the one for the operating system of the kernel's nodes; where that cannot be told of them, the one whose release
file names the kernel. All look-ups are by dictionary: what is in it was read once, for all Modules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache

from kmm.contract import BaseImages, BuildArg
from kmm.core.kernel import candidates
from kmm.core.rendered import RendererError
from kmm.core.view import Denied, KernelNodes, Listed, Missing, Present, Question, Unknown, View
from kmm.errors import SpecError

_NAMED = 10  # versions that a message names


class BaseImageMissingError(SpecError):
    """There is no base image for a kernel: a change of what lists them wakes us."""


class BaseImageUndecidedError(SpecError):
    """Which image it is cannot be said yet: nothing may be started. `questions`: what would tell."""

    def __init__(self, message: str, questions: Sequence[Question] = ()) -> None:
        super().__init__(message)
        self.questions = tuple(questions)


def uses(dockerfile: str, argument: str) -> bool:
    """Whether a Dockerfile uses a build argument, other than in a comment."""
    return argument in dockerfile and any(
        _word(argument).search(line) for line in dockerfile.splitlines() if not line.lstrip().startswith("#")
    )


def base_image_args(
    dockerfile: str,
    args: Sequence[BuildArg],
    kernel: str,
    nodes: KernelNodes,
    view: View,
    base_images: Mapping[str, Callable[[], BaseImages]],
) -> Iterator[BuildArg]:
    """Yield the arguments that stand for base images, as far as a Dockerfile uses them and the Module sets none.

    Raises BaseImageMissingError, BaseImageUndecidedError, and PluginError.
    """
    given = {arg.name for arg in args}
    for argument in sorted(base_images):
        if argument not in given and uses(dockerfile, argument):
            yield BuildArg(name=argument, value=_image(base_images[argument](), kernel, nodes, view))


def newest_first(versions: Mapping[str, str]) -> list[str]:
    """Return versions, those with the largest numbers first."""
    return sorted(versions, key=_order, reverse=True)


def _image(offer: BaseImages, kernel: str, nodes: KernelNodes, view: View) -> str:
    known = view.base_images.get(offer.argument, Unknown(message="it has not been asked"))
    if isinstance(known, Unknown):
        raise BaseImageUndecidedError(
            f"the Dockerfile uses {offer.argument}, and which images {offer.name} has is not known: {known.message}"
        )
    versions = sorted({each for os_image in nodes.os_images if (each := _os_version(offer, os_image))}, key=_order)
    # Several releases may have one kernel: then any of them will do, and the newest does longest.
    found = [known.by_version[each] for each in versions if each in known.by_version]
    if found:
        return found[-1]
    if not versions and offer.release_file:
        if by_kernel := next((known.by_kernel[each] for each in candidates(kernel) if each in known.by_kernel), ""):
            return by_kernel
        _ask_for_releases(offer, kernel, known, view)
    raise BaseImageMissingError(_missing(offer, kernel, nodes, versions, known))


def _ask_for_releases(offer: BaseImages, kernel: str, known: Listed, view: View) -> None:
    """Raise BaseImageUndecidedError while it is not known of each image for which kernels it is.

    They are large, and the first that is for the kernel ends it: one after the other is asked for, the newest first.
    Those that could not be read are asked for again once all others are known.
    """
    new: list[Question] = []
    again: list[Question] = []
    said = ""
    for image in known.unread:
        question = Question(image=image, access=view.access, files=(offer.release_file,))
        answer = view.answers.get(question)
        if isinstance(answer, Present) or (isinstance(answer, Missing) and question not in view.stale):
            continue  # it does not tell, and will not
        if isinstance(answer, Unknown | Denied):
            again.append(question)
            said = said or f": {answer.message}"
        else:
            new.append(question)
    if left := len(new) + len(again):
        raise BaseImageUndecidedError(
            f"the Dockerfile uses {offer.argument}, and which image of {offer.name} is for the kernel {kernel} is "
            f"looked for in {left} of them{said}",
            new[:1] or again,
        )


def _missing(offer: BaseImages, kernel: str, nodes: KernelNodes, versions: Sequence[str], known: Listed) -> str:
    if versions:
        wanted = f"{' and '.join(versions[-_NAMED:])}, which the nodes of the kernel {kernel} run"
    else:
        systems = " and ".join(f'"{each[:100]}"' for each in sorted(nodes.os_images)[:_NAMED]) or "nothing"
        wanted = f"the kernel {kernel}, whose nodes say that they run {systems}"
    names = newest_first(known.by_version)
    if not names:
        listing = offer.listing
        where = f": {listing.kind.kind} {listing.namespace}/{listing.name} is not there, or empty" if listing else ""
        return f"the Dockerfile uses {offer.argument}, and {offer.name} has no image at all{where}"
    more = f" and {len(names) - _NAMED} older ones" if len(names) > _NAMED else ""
    return (
        f"the Dockerfile uses {offer.argument}, and {offer.name} has no image for {wanted}; it has "
        f"{', '.join(each[:60] for each in names[:_NAMED])}{more}"
    )


def _os_version(offer: BaseImages, os_image: str) -> str:
    try:
        found = offer.os_version(os_image)
    except Exception as error:  # a plugin may raise anything, and must stop nobody else
        raise RendererError(f'"{offer.name}" could not read "{os_image[:100]}": {type(error).__name__}') from None
    if not isinstance(found, str):
        raise RendererError(f'"{offer.name}" made of "{os_image[:100]}" what is no text')
    return found


def _order(version: str) -> str:
    return re.sub(r"[0-9]+", lambda digits: digits[0].zfill(20), version)


@lru_cache(maxsize=64)
def _word(argument: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z0-9_]){re.escape(argument)}(?![A-Za-z0-9_])")
