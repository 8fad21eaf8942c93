"""Builders, signers and a device-plugin renderer: what each of them does wrongly it is called after."""

import time

import good

from kmm.contract import Place, Progress
from kmm.job import observe_job


class Raises(good.Builder):
    name = "what-is-asked-is-rendered"

    def render(self, request):
        if request.image is None:
            raise NotImplementedError("where would it go?")
        return super().render(request)


class Unordered(good.Builder):
    name = "equal-requests-are-rendered-equally"

    def flags(self, request):
        return list({f"--flag-{number}" for number in range(20)})


class Timed(good.Builder):
    name = "it-asks-for-nothing-but-its-request"

    def flags(self, request):
        return ["--old"] if time.time() < 0 else []


class Meddles(good.Builder):
    name = "requests-are-left-as-they-were"

    def render(self, request):
        request.node_selector["kubernetes.io/os"] = "linux"
        return super().render(request)


class Bytes(good.Builder):
    name = "json-can-write-it"

    def flags(self, request):
        return [b"--bytes"]


class Strays(good.Builder):
    name = "only-owned-kinds-are-rendered"

    def render(self, request):
        return [*super().render(request), {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}}]


class LongNames(good.Builder):
    name = "names-are-within-their-limits"

    def render(self, request):
        (job,) = super().render(request)
        pod = job["spec"]["template"]["spec"]
        for each in (*pod.get("volumes", ()), *pod["containers"][0]["volumeMounts"]):
            each["name"] = request.secrets[int(each["name"].removeprefix("secret-"))].name
        return [job]


class Usurps(good.Builder):
    name = "what-is-the-cores-is-left-to-it"

    def render(self, request):
        (job,) = super().render(request)
        return [{**job, "metadata": {"labels": {"kmm.node.kubernetes.io/module.name": "another"}}}]


class Licensed(good.Builder):
    name = "secrets-are-named-and-not-made"

    def render(self, request):
        (job,) = super().render(request)
        job["spec"]["template"]["spec"]["imagePullSecrets"] = [{"name": "acme-license"}]
        return [job]


class Exposes(good.Signer):
    name = "keys-are-in-no-argument-and-no-environment"

    def more(self, request):
        reference = {"name": request.key_secret, "key": "key"}
        return {"env": [{"name": "KEY", "valueFrom": {"secretKeyRef": reference}}], "args": ["--key=$(KEY)"]}


class Trusting(good.Builder):
    name = "observe-answers-whatever-is-seen"

    def observe(self, objects, pods):
        for pod in pods:
            for each in pod["status"].get("containerStatuses", ()):
                each["state"].get("terminated")
        return observe_job(objects, pods)


class Taciturn(good.Builder):
    name = "a-failure-says-why"

    def observe(self, objects, pods):
        return Progress(state=observe_job(objects, pods).state, message="it failed")


class Modest(good.Builder):
    name = "what-it-ignores-changes-nothing"
    ignores = (*good.Builder.ignores, "node_selector")


class Silent(good.Builder):
    name = "nothing-is-ignored-in-silence"
    ignores = ()

    def flags(self, request):
        return [f"{request.args} {request.base_tls} {request.builder_tag}"]


class Misspelt(good.Builder):
    name = "an-api-server-takes-it"

    def render(self, request):
        (job,) = super().render(request)
        job["spec"]["template"]["spec"]["containers"][0]["enviroment"] = []
        return [job]


class Dated(good.Builder):
    name = "a-modules-life-runs-with-it"

    def render(self, request):
        if not request.kernel.startswith("6.1."):
            raise ValueError("kernels of another year")
        return super().render(request)


class Owner(good.Renderer):
    name = "what-is-the-cores-is-left-to-it"

    def render(self, request):
        (made,) = super().render(request)
        return [{**made, "metadata": {"ownerReferences": []}}]


def kmm_builders(settings):
    settings.only()
    return [
        Raises(),
        Unordered(),
        Timed(),
        Meddles(),
        Bytes(),
        Strays(),
        LongNames(),
        Usurps(),
        Licensed(),
        Trusting(),
        Taciturn(),
        Modest(),
        Silent(),
        Misspelt(),
        Dated(),
    ]


class Misplaced(good.Signer):
    name = "where-it-works-is-said-as-it-is-done"

    def place(self, module, params):
        return Place(secrets=("push",))


def kmm_signers(settings):
    return [Exposes(), Misplaced()]


def kmm_device_plugins(settings):
    return [Owner()]
