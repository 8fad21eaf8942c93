"""The image of one kernel: exists, else built, else signed. Never guessed: unknown starts nothing.

State is in the cluster alone: the tasks (with their inputs' hash and the attempt's number), and the registry. Each
call looks at both and says what one step would bring it on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from kmm.contract import (
    CERTIFICATE_ANNOTATION,
    INPUTS_ANNOTATION,
    UNSIGNED_ANNOTATION,
    BaseImages,
    BuildRequest,
    Kind,
    Manifest,
    ModuleRef,
    Place,
    Renderer,
    SecretFiles,
    SignRequest,
    State,
    Tls,
)
from kmm.core import names
from kmm.core.actions import Action, Announce, Create, Delete, Probe
from kmm.core.base_images import base_image_args
from kmm.core.mapping import BuildInputs, KernelTarget, SignInputs
from kmm.core.place import is_kept, mark, namespace_of, place_of, secret_key
from kmm.core.reasons import Reason
from kmm.core.rendered import finished_task, kind_of, render, running
from kmm.core.view import Answer, Denied, KernelNodes, Missing, Present, Question, Subject, Task, Unknown, View
from kmm.errors import PluginError, SpecError
from kmm.oci import reference

BUILD, SIGN = "build", "sign"
_ARCHITECTURE = "kubernetes.io/arch"
BACK_OFF_S, BACK_OFF_MOST_S = 60.0, 3600.0


class Phase(StrEnum):
    """How far an image is."""

    READY = "Ready"
    WAITING = "Waiting"  # for an answer, or for a task
    BLOCKED = "Blocked"  # for a person, or for time


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageStep:
    """Where an image is, and what would bring it on."""

    phase: Phase
    reason: Reason
    message: str = ""
    actions: tuple[Action, ...] = ()
    wake_at_s: float | None = None
    digest: str = ""
    attempts: int = 0
    last_failure_s: float | None = None
    inputs: str = ""
    starts: int = 0  # Jobs that it starts now: slots that it takes
    queued: bool = False  # it waits for a slot, or would take one but for an answer that is too old
    alone: str = ""  # stands for the Secret that what it starts reads alone
    awaits: bool = False  # it waits until it may read such a one
    certificate: str = ""  # that the image is signed with, where it is known


@dataclass(frozen=True, slots=True, kw_only=True)
class Makers:
    """How the Module's images are made: chosen by name outside. Each raises PluginError where nothing fits.

    `base_images`: by the build argument that stands for them.
    """

    builder: Callable[[str | None], Renderer[BuildRequest]]
    signer: Callable[[str | None], Renderer[SignRequest]]
    base_images: Mapping[str, Callable[[], BaseImages]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One thing to make: from what, into which image, and how to render an attempt at it.

    `contents`: hash of what a build's image is made of, which is less than what its task is made of: it leaves out
    how registries are reached. `warning`: what the user should know of it, and may not expect. `unproven`: what is
    wrong where it has succeeded, and the registry does not show that. `namespace`: where it is made. `alone`: stands
    for the Secret that it reads alone; `alone_with`: its name.
    """

    type: str
    kernel: str
    image: str
    inputs: str
    renderer: str
    owns: tuple[Kind, ...]
    render: Callable[[], Sequence[Manifest]]
    namespace: str
    contents: str = ""
    warning: str = ""
    unproven: tuple[Reason, str] | None = None
    alone: str = ""
    alone_with: str = ""


def back_off_s(attempt: int) -> float:
    """Return how long after the failure of that attempt the next one is due."""
    return min(BACK_OFF_S * 2.0 ** min(attempt - 1, 16), BACK_OFF_MOST_S)


def kept_until_s(task: Task) -> float | None:
    """Return until when a task that has failed is kept, whoever wants it: it is what remembers when to try again."""
    if task.deleting or task.progress.state is not State.FAILED or task.finished_at_s is None:
        return None
    return task.finished_at_s + (BACK_OFF_MOST_S if task.progress.final else back_off_s(task.attempt))


def temporary_image(image: str, module: ModuleRef) -> str:
    """Return the name of what is built before it is signed: an unsigned image never has the final one.

    Raises SpecError where the tag becomes too long.
    """
    try:
        return str(reference.parse(image).with_suffix(f"-{module.namespace}_{module.name}_kmm_unsigned"))
    except reference.ReferenceError as error:
        raise SpecError(f"the temporary image {error}") from None


def image_step(
    subject: Subject,
    target: KernelTarget,
    nodes: KernelNodes,
    view: View,
    makers: Makers,
    now_s: float,
    *,
    proven: bool,
    loader: str = "",
    made_for: str = "",
) -> ImageStep:
    """Say where the image of a mapping with `build` or `sign` is, and what to do next.

    `proven`: a loader of this very image was made, so that, if none has failed to pull it, it need not be asked for.
    `loader`: the uid of whatever loader there is, which makes answers older than it worthless. `made_for`: another
    kernel of the Module that has an image of this name. Raises SpecError and PluginError for what is wrong with this
    kernel's mapping.
    """
    alone = _alone(target.sign, subject, view, makers) if target.sign else ""
    kept = {task.uid for task in view.tasks if is_kept(task, subject.ref, view.secrets)}
    # What is kept and over tells of its own Secret alone; where a loader is there, it is no reason to ask, either.
    tasks = [
        task
        for task in view.tasks
        if task.kernel == target.kernel
        and not (task.uid in kept and _is_over(task) and (proven or task.alone != alone))
    ]
    finished_tasks = [task for task in tasks if _is_over(task) and not task.deleting]
    last = _last(tasks, SIGN if target.sign else BUILD)
    if last is None or last.lacking or not _is_over(last):
        last = finished_tasks[0] if proven and finished_tasks else None
    evidence = last.uid if last else _pull_failure(subject, target, view)
    current = certificate(target.sign, subject, view, makers) if target.sign else ""
    if proven and not evidence:
        return ImageStep(phase=Phase.READY, reason=Reason.IMAGES_READY, certificate=current)
    question = Question(
        image=target.image,
        tls=target.tls,
        evidence=evidence or loader,
        access=view.access,
        annotations=target.sign is not None,  # the certificate that it is signed with
    )
    answer = view.answers.get(question)
    if isinstance(answer, Present):
        lacking = sorted(nodes.architectures - set(answer.architectures)) if answer.architectures else []
        if lacking:
            return ImageStep(
                phase=Phase.BLOCKED,
                reason=Reason.ARCHITECTURE_MISSING,
                message=f"{target.image} exists, but not for {', '.join(lacking)}",
                digest=answer.digest,
            )
        recorded = answer.annotations.get(CERTIFICATE_ANNOTATION, "")
        if not (recorded and current and recorded != current):
            # Finished tasks go only now: after an answer that was asked because of them.
            gone = [task for task in finished_tasks if task.uid not in kept] if last else []
            return ImageStep(
                phase=Phase.READY,
                reason=Reason.IMAGES_READY,
                digest=answer.digest,
                certificate=current,
                actions=tuple(
                    each for task in gone for each in (*_warned(task), *deletes(task, "the image is there"))
                ),
            )
        # The image is there, whatever becomes of this: it is loaded.
        try:
            step = _signed_again(subject, target, answer, view, makers, tasks, now_s)
        except (SpecError, PluginError) as error:
            step = ImageStep(phase=Phase.READY, reason=Reason.CERTIFICATE_CHANGED, message=str(error))
        return replace(step, phase=Phase.READY, digest=answer.digest, certificate=recorded)
    if not _is_missing(answer, target.image, view):
        return _unanswered(question, answer, target.image)
    if made_for:
        # Two pushers must not share a tag, and what is built for one kernel cannot be loaded on the other.
        raise SpecError(
            f"the image {target.image} is missing and is also that of the kernel {made_for}: name it by a variable "
            "that tells the two kernels apart"
        )
    step = _made(subject, target, nodes, view, makers, tasks, now_s)
    # Somebody may have pushed it since it was said to be missing.
    return _asking_first(step, question) if step.starts and question in view.stale else step


def _made(
    subject: Subject,
    target: KernelTarget,
    nodes: KernelNodes,
    view: View,
    makers: Makers,
    tasks: list[Task],
    now_s: float,
) -> ImageStep:
    """Bring the final image on by what its mapping has: a build, a signature, or both."""
    if target.sign is None:
        job = _build_job(subject, target, target.image, nodes, view, makers)
        return _replaced([job], subject, tasks, view) or _attempt(subject, job, tasks, view, now_s)
    if target.build is None:
        job = _sign_job(subject, target, *_unsigned(target.sign), view, makers)
        return _replaced([job], subject, tasks, view) or _attempt(subject, job, tasks, view, now_s)
    return _build_then_sign(subject, target, nodes, view, makers, tasks, now_s)


def _unsigned(sign: SignInputs) -> tuple[str, Tls]:
    if sign.unsigned_image is None:
        raise SpecError("sign has neither an unsignedImage nor a build beside it: there is nothing to sign")
    return sign.unsigned_image, sign.unsigned_tls


def _signed_again(
    subject: Subject,
    target: KernelTarget,
    final: Present,
    view: View,
    makers: Makers,
    tasks: list[Task],
    now_s: float,
) -> ImageStep:
    """Sign a final image that exists once more, since its certificate has changed; it is never built again.

    Where it was built here, from what was built then, which it tells: whatever the Module would build now.
    """
    if target.sign is None:  # pragma: no cover -- only asked for where there is one
        raise SpecError("there is no sign section")
    temporary = temporary_image(target.image, subject.ref) if target.build else None
    unsigned, tls = (temporary, target.tls) if temporary else _unsigned(target.sign)
    unproven = (
        Reason.CERTIFICATE_CHANGED,
        f"the sign succeeded, but {target.image} still says that it is signed with another certificate",
    )
    job = replace(_sign_job(subject, target, unsigned, tls, view, makers), unproven=unproven)
    if replaced := _replaced([job], subject, tasks, view):
        return replaced
    if temporary is None or tasks:
        return _attempt(subject, job, tasks, view, now_s)
    question = Question(image=temporary, tls=tls, access=view.access, annotations=True)
    answer = view.answers.get(question)
    signed_from = final.annotations.get(UNSIGNED_ANNOTATION)
    if isinstance(answer, Present) and signed_from in (None, answer.digest):
        return _attempt(subject, job, tasks, view, now_s)
    # Nor does a person begin with an answer that is too old.
    if question in view.stale:
        return _unanswered(question, None, temporary)
    if not isinstance(answer, Present) and not _is_missing(answer, temporary, view):
        return _unanswered(question, answer, temporary)
    return ImageStep(
        phase=Phase.READY,
        reason=Reason.CERTIFICATE_CHANGED,
        message=f"{target.image} is signed with another certificate, and {temporary} is no more what it was signed "
        "from: delete the image to have it built and signed again",
    )


def _build_then_sign(
    subject: Subject,
    target: KernelTarget,
    nodes: KernelNodes,
    view: View,
    makers: Makers,
    tasks: list[Task],
    now_s: float,
) -> ImageStep:
    """Sign what was built, and build it first where that is not there."""
    temporary = temporary_image(target.image, subject.ref)
    build = _build_job(subject, target, temporary, nodes, view, makers)
    sign = _sign_job(subject, target, temporary, target.tls, view, makers, made_from=build.contents)
    if replaced := _replaced([build, sign], subject, tasks, view):
        return replaced
    if any(task.job_type == SIGN for task in tasks):
        return _attempt(subject, sign, tasks, view, now_s)  # whatever becomes of it, it starts no build
    last = _last(tasks, BUILD)
    evidence = last.uid if last and last.progress.state is State.SUCCEEDED and not last.lacking else ""
    question = Question(image=temporary, tls=target.tls, evidence=evidence, access=view.access, annotations=True)
    answer = view.answers.get(question)
    if isinstance(answer, Present):
        # A builder need not record inputs: then its own success is the proof that this is what it made.
        recorded = answer.annotations.get(INPUTS_ANNOTATION, "")
        if recorded == build.contents or (evidence and not recorded):
            return _attempt(subject, sign, tasks, view, now_s)
    elif not _is_missing(answer, temporary, view):
        return _unanswered(question, answer, temporary)
    step = _attempt(subject, build, tasks, view, now_s)
    return _asking_first(step, question) if step.starts and question in view.stale else step


def _asking_first(step: ImageStep, question: Question) -> ImageStep:
    """Ask once more before a start from an answer that is too old: it keeps its place in the queue meanwhile."""
    asks = (Probe(question=question),)
    return replace(step, reason=Reason.CHECKING_IMAGE, actions=asks, starts=0, queued=True, alone="")


def _replaced(jobs: list[_Job], subject: Subject, tasks: list[Task], view: View) -> ImageStep | None:
    """Where what a task was made from has changed: delete it, then create. Two pushers must not share a tag.

    What reads a Secret alone is let end, and what has failed for good with it stays, until that changes.
    """
    current = {job.type: job.inputs for job in jobs}
    changed = [task for task in tasks if current.get(task.job_type) != task.inputs]
    outdated = [task for task in changed if not is_kept(task, subject.ref, view.secrets)]
    lasting = [task for task in changed if task not in outdated and not task.failed_for_good]
    if not outdated and not lasting:
        return None
    types = " and ".join(sorted({task.job_type for task in (*outdated, *lasting)}))
    again = f'once it has ended: it uses the Secret "{lasting[0].alone_with}"' if lasting else "again"
    return ImageStep(
        phase=Phase.WAITING,
        reason=Reason.BUILDING if jobs[0].type == BUILD else Reason.SIGNING,
        message=f"what the {types} was made from has changed: it is started {again}",
        actions=tuple(end for task in outdated for end in deletes(task, "its inputs have changed")),
        inputs=jobs[0].inputs,
    )


def _build_job(
    subject: Subject, target: KernelTarget, image: str, nodes: KernelNodes, view: View, makers: Makers
) -> _Job:
    build = target.build
    if build is None or subject.spec is None:  # pragma: no cover -- only asked for where there is one
        raise SpecError("there is no build section")
    if build.config_map is None:
        raise SpecError("build.dockerfileConfigMap names no ConfigMap")
    if build.config_map not in view.dockerfiles:
        raise InputMissingError(f'the ConfigMap "{build.config_map}", or the key dockerfile in it, does not exist')
    key, dockerfile = view.dockerfiles[build.config_map]
    push_secret = subject.spec.image_repo_secret.name if subject.spec.image_repo_secret else None
    used = [*build.secrets, *([push_secret] if push_secret else [])]
    digests = _secret_digests(used, view)
    builder = makers.builder(build.builder)
    based = tuple(base_image_args(dockerfile, build.args, target.kernel, nodes, view, makers.base_images))
    # It is built where it runs: who selects the nodes of a build selects what it builds for.
    chosen = build.selector.get(_ARCHITECTURE)
    architectures = (chosen,) if chosen else tuple(sorted(nodes.architectures)) or ("amd64",)
    request = BuildRequest(
        module=subject.ref,
        kernel=target.kernel,
        architecture=architectures[0],
        architectures=architectures if len(architectures) > 1 else (),
        dockerfile=dockerfile,
        dockerfile_config_map=build.config_map,
        dockerfile_key=key,
        image=image,
        args=(*build.args, *based),
        base_images=tuple(arg.value for arg in based),
        secrets=tuple(SecretFiles(name=name, keys=view.secrets[name].keys) for name in build.secrets),
        push_secret=push_secret,
        push_tls=target.tls,
        base_tls=build.base_tls,
        node_selector=build.selector,
        tolerations=subject.spec.tolerations,
        builder_tag=build.builder_tag,
        params=build.params,
    )
    contents = names.digest(
        BUILD,
        builder.name,
        request.dockerfile,
        [[arg.name, arg.value] for arg in request.args],
        {name: digests[name] for name in build.secrets},
        request.image,
        build.builder_tag,
        dict(build.params),
        request.architectures or request.architecture,
    )
    request = replace(request, inputs=contents)
    inputs = names.digest(
        contents,
        digests,
        dict(request.node_selector),
        [[tls.insecure, tls.skip_verify] for tls in (request.push_tls, request.base_tls)],
        [dict(each) for each in request.tolerations],
    )
    return _Job(
        type=BUILD,
        kernel=target.kernel,
        image=image,
        inputs=inputs,
        contents=contents,
        renderer=builder.name,
        owns=tuple(builder.owns),
        render=lambda: render(builder, request, subject.ref.namespace),
        namespace=subject.ref.namespace,
        warning=_of_arguments(build),
    )


def _of_arguments(build: BuildInputs) -> str:
    if not build.unused:
        return ""
    return f"the value that buildArgs give to {', '.join(build.unused)} is not used: the operator sets it"


def _sign_job(
    subject: Subject,
    target: KernelTarget,
    unsigned: str,
    unsigned_tls: Tls,
    view: View,
    makers: Makers,
    made_from: str = "",
) -> _Job:
    sign = target.sign
    if sign is None or subject.spec is None:  # pragma: no cover -- only asked for where there is one
        raise SpecError("there is no sign section")
    container = subject.spec.module_loader.container if subject.spec.module_loader else None
    modprobe = container.modprobe if container else None
    push_secret = subject.spec.image_repo_secret.name if subject.spec.image_repo_secret else None
    used = [name for name in (sign.key_secret, sign.cert_secret, push_secret) if name]
    digests = _secret_digests(used, view)
    signer = makers.signer(sign.signer)
    place = place_of(signer, subject.ref, sign.params)
    namespace = namespace_of(place, subject.ref, view.operator)
    sealed = _sealed(place, namespace, subject.ref, view)
    # Secrets of the Module's namespace are not there.
    elsewhere = namespace != subject.ref.namespace
    request = SignRequest(
        module=subject.ref,
        kernel=target.kernel,
        unsigned_image=unsigned,
        image=target.image,
        dir_name=modprobe.dir_name if modprobe else "/opt",
        files=sign.files,
        key_secret=sign.key_secret,
        cert_secret=sign.cert_secret,
        certificate=certificate(sign, subject, view, makers),
        push_secret=None if elsewhere else push_secret,
        pull_secrets=() if elsewhere else view.pull_secrets,
        push_tls=target.tls,
        unsigned_tls=unsigned_tls,
        node_selector=target.build.selector if target.build else {},
        tolerations=subject.spec.tolerations,
        params=sign.params,
    )
    inputs = names.digest(
        SIGN,
        signer.name,
        unsigned,
        made_from,
        target.image,
        list(sign.files),
        digests,
        request.dir_name,
        dict(request.node_selector),
        [[tls.insecure, tls.skip_verify] for tls in (request.push_tls, request.unsigned_tls)],
        dict(sign.params),
        [dict(each) for each in request.tolerations],
        list(request.pull_secrets),
        *([namespace, sealed] if sealed or elsewhere else []),
    )
    return _Job(
        type=SIGN,
        kernel=target.kernel,
        image=target.image,
        inputs=inputs,
        renderer=signer.name,
        owns=tuple(signer.owns),
        render=lambda: render(signer, request, namespace),
        namespace=namespace,
        alone=_alone(sign, subject, view, makers),
        alone_with=place.alone,
    )


def _sealed(place: Place, namespace: str, module: ModuleRef, view: View) -> dict[str, str]:
    """Return what stands for the contents of the Secrets of a place. Raises InputMissingError."""
    found = {name: view.secrets.get(secret_key(namespace, name, module)) for name in place.secrets}
    for name, facts in found.items():
        if facts is None:
            where = "" if namespace == module.namespace else f" in the namespace {namespace}"
            raise InputMissingError(f'the Secret "{name}" does not exist{where}')
    return {name: facts.sealed for name, facts in found.items() if facts}


def _attempt(subject: Subject, job: _Job, tasks: list[Task], view: View, now_s: float) -> ImageStep:
    """Start, wait for or repeat the task that makes `job`'s image."""
    if unknown := _unlisted(job, view):
        return unknown
    under_way = Reason.BUILDING if job.type == BUILD else Reason.SIGNING
    mine = sorted((task for task in tasks if task.job_type == job.type), key=lambda task: task.attempt)
    if not mine:
        return _start(subject, job, 1, view)
    last = mine[-1]
    final = last.failed_for_good
    if last.deleting:
        return ImageStep(phase=Phase.WAITING, reason=under_way, attempts=last.attempt - 1, inputs=job.inputs)
    cleaning = tuple(
        end
        for task in mine
        if task.attempt < last.attempt
        for end in deletes(task, "a later attempt has replaced it")
    )
    lacking = last.lacking and not (final and last.alone)  # it is not made whole, as it is not tried again
    if lacking or not _is_over(last):
        step = ImageStep(
            phase=Phase.WAITING,
            reason=under_way,
            message=last.progress.message,
            actions=cleaning,
            attempts=last.attempt - 1,
            inputs=job.inputs,
        )
        return _made_whole(step, subject, job, last, view) if lacking else step
    finished_at_s = last.finished_at_s or 0.0
    due_s = finished_at_s + back_off_s(last.attempt)
    if last.progress.state is State.SUCCEEDED:
        reason, message = job.unproven or (
            Reason.BUILT_BUT_NOT_FOUND,
            f"the {job.type} succeeded, but {job.image} is not in the registry",
        )
    else:
        reason = Reason.BUILD_FAILED if job.type == BUILD else Reason.SIGN_FAILED
        message = last.progress.message or last.progress.reason or f"the {job.type} failed without saying why"
    step = ImageStep(
        phase=Phase.BLOCKED,
        reason=reason,
        message=f"{message}; it is not tried again before {_what_changes(job)} changes" if final else message,
        actions=cleaning,
        wake_at_s=None if final else due_s,
        attempts=last.attempt,
        last_failure_s=finished_at_s,
        inputs=job.inputs,
    )
    if final or now_s < due_s:
        return step
    started = _start(subject, job, last.attempt + 1, view)
    return ImageStep(
        phase=started.phase,
        reason=started.reason,
        message=f"{message}; {started.message}".removesuffix("; "),
        actions=(*cleaning, *started.actions),
        attempts=last.attempt,
        last_failure_s=finished_at_s,
        inputs=job.inputs,
        starts=started.starts,
        queued=started.queued,
        alone=started.alone,
        awaits=started.awaits,
    )


def _unlisted(job: _Job, view: View) -> ImageStep | None:
    """Where it is not known which tasks there are: nothing is begun that may be under way already.

    That is so for tasks of the job's own kinds; and for those of others, where the last one that was begun for the
    kernel was another job.
    """
    noted = {each.get("kernelVersion"): each.get("inputsHash") for each in view.status.get("kernels") or ()}
    before = noted.get(job.kernel) or ""
    kinds = [kind for kind in view.unlisted if kind in job.owns or before not in ("", job.inputs)]
    if not kinds:
        return None
    return ImageStep(
        phase=Phase.WAITING,
        reason=Reason.TASKS_UNKNOWN,
        message=f"which {kinds[0].plural} there are is not known: {view.unlisted[kinds[0]]}",
        inputs=before,
    )


def _what_changes(job: _Job) -> str:
    """Return what is to change before what has failed for good is tried again."""
    return f'the Secret "{job.alone_with}"' if job.alone else "what it is made from"


def _start(subject: Subject, job: _Job, attempt: int, view: View) -> ImageStep:
    under_way = Reason.BUILDING if job.type == BUILD else Reason.SIGNING
    # A task is gone before its pods are: they push until they have ended.
    for pod in view.task_pods:
        if pod.job_type == job.type and names.is_label_of(pod.label, job.kernel):
            return ImageStep(
                phase=Phase.WAITING,
                reason=under_way,
                message=f"the pod {pod.name} of an earlier {job.type} has not ended yet"
                + (f" on the node {pod.node}" if pod.node else ""),
                attempts=attempt - 1,
                inputs=job.inputs,
            )
    if job.alone and (waits := _kept_out(job, attempt, view)):
        return waits
    if view.build_slots < 1:
        return ImageStep(
            phase=Phase.WAITING,
            reason=Reason.BUILD_QUEUED,
            message="as many builds and signatures run as may at once",
            inputs=job.inputs,
            queued=True,
        )
    creates = _creates(subject, job, attempt, view)
    if taken := _taken(creates, job, view):
        return taken
    started = Reason.BUILD_STARTED if job.type == BUILD else Reason.SIGN_STARTED
    again = f" (attempt {attempt})" if attempt > 1 else ""
    message = f"{job.renderer} makes {job.image} for the kernel {job.kernel}{again}; {job.warning}".removesuffix("; ")
    made = tuple(each.name for each in creates)
    say = Announce(reason=started, message=message, warning=bool(job.warning), made=made)
    return ImageStep(
        phase=Phase.WAITING,
        reason=under_way,
        actions=(*creates, say),
        attempts=attempt - 1,
        inputs=job.inputs,
        # It is started whole where one slot is free: to wait for several at once would be to wait for ever.
        starts=len(running([each.manifest for each in creates])),
        alone=job.alone,
    )


def _kept_out(job: _Job, attempt: int, view: View) -> ImageStep | None:
    """Where another task reads the Secret that this one is to read alone, or has failed for good with it: say so."""
    others = [task for task in (*view.tasks, *view.rivals) if task.alone == job.alone and task.keeps_others_out]
    if any(task.failed_for_good for task in others):
        return ImageStep(
            phase=Phase.BLOCKED,
            reason=Reason.SIGN_FAILED,
            message=f'another {job.type} has failed for good with what the Secret "{job.alone_with}" holds; '
            "it is not tried before that changes",
            attempts=attempt - 1,
            inputs=job.inputs,
            awaits=True,
        )
    if others or job.alone in view.using:
        return ImageStep(
            phase=Phase.WAITING,
            reason=Reason.BUILD_QUEUED,
            message=f'another {job.type} uses the Secret "{job.alone_with}", which one at a time may',
            attempts=attempt - 1,
            inputs=job.inputs,
            awaits=True,
        )
    return None


def _made_whole(step: ImageStep, subject: Subject, job: _Job, task: Task, view: View) -> ImageStep:
    """Create what is missing of an attempt: whoever made it may have died on the way."""
    creates = _creates(subject, job, task.attempt, view)
    there = {(each.kind, each.name) for each in (task, *task.beside)}
    if not there <= {(each.kind, each.name) for each in creates}:
        ends = deletes(task, "some of it is missing, and it would be made of other objects now")
        return replace(step, actions=tuple(ends))
    missing = tuple(each for each in creates if (each.kind, each.name) not in there)
    if taken := _taken(missing, job, view):
        return replace(taken, attempts=step.attempts)
    return replace(step, actions=(*step.actions, *missing))


def _creates(subject: Subject, job: _Job, attempt: int, view: View) -> tuple[Create, ...]:
    """Return the creates of all that makes an attempt; each can be made again without harm."""
    rendered = [(kind_of(manifest, job.owns), manifest) for manifest in job.render()]
    name = names.task_name(subject.ref.name, job.type, names.digest(subject.uid, job.inputs, job.kernel), attempt)
    labels = {
        names.MODULE_NAME: subject.ref.name,
        names.TARGET_KERNEL: names.kernel_label_values({*view.kernels, job.kernel})[job.kernel],
        names.JOB_TYPE: job.type,
    }
    annotations = {
        names.VERBATIM_KERNEL: job.kernel,
        names.INPUTS: job.inputs,
        names.ATTEMPT: str(attempt),
        names.PROVIDER: job.renderer,
    }
    if job.alone:
        labels[names.ALONE] = annotations[names.ALONE] = job.alone
        annotations[names.ALONE_WITH] = job.alone_with
    if len(rendered) > 1:
        annotations[names.OBJECTS] = str(len(rendered))
    return tuple(
        Create(
            kind=kind,
            manifest=finished_task(
                manifest, subject, f"{name}-{index}" if index else name, labels, annotations, job.namespace
            ),
            reason=f"{job.image} is missing",
        )
        for index, (kind, manifest) in enumerate(rendered)
    )


def _taken(creates: Iterable[Create], job: _Job, view: View) -> ImageStep | None:
    """Where a stranger's object has one of these names: nothing is touched."""
    name = next((each.name for each in creates if each.name in view.taken), "")
    if not name:
        return None
    return ImageStep(
        phase=Phase.BLOCKED,
        reason=Reason.NAME_TAKEN,
        message=f'an object named "{name}" exists that is not of this Module: delete it',
        inputs=job.inputs,
    )


class InputMissingError(SpecError):
    """Something that the task needs does not exist: a change of it wakes us."""


def _secret_digests(wanted: Iterable[str], view: View) -> dict[str, str]:
    digests = {}
    for name in wanted:
        if name not in view.secrets:
            raise InputMissingError(f'the Secret "{name}" does not exist')
        digests[name] = view.secrets[name].digest
    return digests


def certificate(sign: SignInputs, subject: Subject, view: View, makers: Makers) -> str:
    """Return the fingerprint of the certificate to sign with, or an empty text where it is not known."""
    place, namespace = _place(sign, subject, view, makers)
    name = secret_key(namespace, place.certificate, subject.ref) if place.certificate else sign.cert_secret or ""
    facts = view.secrets.get(name)
    return facts.certificate if facts else ""


def _alone(sign: SignInputs, subject: Subject, view: View, makers: Makers) -> str:
    """Return what stands for the Secret that a signature reads alone, or an empty text where it is not known."""
    place, namespace = _place(sign, subject, view, makers)
    facts = view.secrets.get(secret_key(namespace, place.alone, subject.ref)) if place.alone else None
    return mark(namespace, place.alone, facts) if facts else ""


def _place(sign: SignInputs, subject: Subject, view: View, makers: Makers) -> tuple[Place, str]:
    """Return where it is signed, and the namespace that this is in."""
    try:
        place = place_of(makers.signer(sign.signer), subject.ref, sign.params)
    except PluginError:
        place = Place()  # which is told where it is in the way
    return place, namespace_of(place, subject.ref, view.operator)


def learn(answers: Mapping[Question, Answer], question: Question, answer: Answer) -> dict[Question, Answer]:
    """Return what is known after an answer: that an image is there takes back every "missing" about it."""
    kept = {
        asked: known
        for asked, known in answers.items()
        if not (isinstance(answer, Present) and isinstance(known, Missing))
        or (asked.image, asked.tls) != (question.image, question.tls)
    }
    return {**kept, question: answer}


def _is_missing(answer: Answer | None, image: str, view: View) -> bool:
    if isinstance(answer, Denied):
        return answer.by_registry and reference.parse(image).host in view.operator.denied_means_missing
    return isinstance(answer, Missing)


def _unanswered(question: Question, answer: Answer | None, image: str) -> ImageStep:
    """Say that it is not known, and that it is wanted: when it is asked again, whoever asks decides."""
    asks = (Probe(question=question),)
    if isinstance(answer, Unknown):
        return ImageStep(
            phase=Phase.WAITING, reason=Reason.REGISTRY_UNAVAILABLE, message=answer.message, actions=asks
        )
    if isinstance(answer, Denied):
        return ImageStep(
            phase=Phase.BLOCKED,
            reason=Reason.REGISTRY_FORBIDDEN,
            message=f"{answer.message}; {image} may not exist yet: set deniedMeansMissing for its registry if a "
            "refusal means that there",
            actions=asks,
        )
    return ImageStep(phase=Phase.WAITING, reason=Reason.CHECKING_IMAGE, actions=asks)


def _warned(task: Task) -> Iterator[Action]:
    """Tell what a signature that succeeded has said, before its task goes."""
    if task.job_type == SIGN and task.progress.state is State.SUCCEEDED and task.progress.message:
        yield Announce(reason=Reason.SIGN_WARNING, message=task.progress.message, warning=True)


def _is_over(task: Task) -> bool:
    """Whether a task has ended, and it is known when: before that, when to try again is not known either."""
    return task.progress.state in (State.SUCCEEDED, State.FAILED) and task.finished_at_s is not None


def _pull_failure(subject: Subject, target: KernelTarget, view: View) -> str:
    """Return the uid of a loader that could not pull its image: a reason to ask whether it is still there."""
    failed = sorted(
        pod.uid
        for pod in view.pods
        if pod.module_uid == subject.uid
        and pod.kernel == target.kernel
        and pod.role == names.LOADER
        and not pod.deleting
        and pod.waiting_reason in ("ErrImagePull", "ImagePullBackOff")
    )
    return failed[0] if failed else ""


def _last(tasks: Iterable[Task], job_type: str) -> Task | None:
    return max(
        (task for task in tasks if task.job_type == job_type and not task.deleting),
        key=lambda task: task.attempt,
        default=None,
    )


def deletes(task: Task, reason: str) -> Iterator[Delete]:
    """Yield what ends a task: what was rendered beside it first, since the task itself is what tells of it."""
    for each in (*task.beside, task):
        if not each.deleting:
            yield Delete(kind=each.kind, name=each.name, uid=each.uid, reason=reason, namespace=each.namespace)
