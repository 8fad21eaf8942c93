"""Offers one of each, and nothing is wrong with them."""

from kmm_daemonset import DaemonSet
from kmm_oci import Oci

from kmm.contract import Driver, Kind, Listing
from kmm.job import JOB, job, literal, observe_job, placement, secret_mounts
from kmm.oci.address import Addresses, parse_networks
from kmm.oci.session import Session


class Builder:
    name = "good"
    owns = (JOB,)
    requires = ()
    ignores = ("args", "base_tls", "builder_tag", "push_tls")

    def render(self, request):
        mounted = secret_mounts(request.secrets)
        container = {
            "name": "build",
            "image": "registry.example.com/builder:1",
            "args": [literal(f"--destination={request.image or ''}"), *self.flags(request)],
            "volumeMounts": [each.mount for each in mounted],
        }
        pod = {
            "containers": [container],
            **placement(request),
            "volumes": [each.volume for each in mounted],
        }
        return [job(pod, 60)]

    def flags(self, request):
        return []

    def observe(self, objects, pods):
        return observe_job(objects, pods)


class Signer(Builder):
    requires = ("key_secret",)
    ignores = ()

    def render(self, request):
        pod = {"containers": [{"name": "sign", "image": "registry.example.com/signer:1", **self.more(request)}]}
        volume = {"name": "key", "secret": {"secretName": request.key_secret}}
        return [job({**pod, **placement(request), "volumes": [volume]}, 60)]

    def more(self, request):
        return {"volumeMounts": [{"name": "key", "mountPath": "/run/secrets/key", "readOnly": True}]}


class Renderer:
    name = "good"
    owns = DaemonSet().owns
    requires = ()

    def render(self, request):
        return DaemonSet().render(request)

    def observe(self, objects, pods):
        return DaemonSet().observe(objects, pods)


class Registry(Oci):
    def __init__(self, name="good", hosts=("good.example.com",)):
        super().__init__(Session(Addresses(allowed=parse_networks(["127.0.0.0/8"]))), name, hosts)


class Toolkits:
    """Knows one image for each release, which an object named `toolkits` lists."""

    name = "good"
    argument = "GOOD"
    listing = Listing(
        kind=Kind(api_version="example.com/v1", kind="Toolkits", plural="toolkits"), namespace="good", name="toolkits"
    )
    release_file = "/etc/release"

    def images(self, listing):
        tags = (listing or {}).get("data")
        found = tags.items() if isinstance(tags, dict) else ()
        return {version: image for version, image in found if isinstance(image, str) and version and image}

    def os_version(self, os_image):
        return os_image.partition(" ")[2]

    def kernels(self, release):
        return release.decode(errors="replace").split()


MAPPING = {"regexp": ".", "containerImage": "registry.example.com/acme:${KERNEL_FULL_VERSION}"}
SPEC = {"moduleLoader": {"container": {"modprobe": {"moduleName": "acme"}, "kernelMappings": [MAPPING]}}}


def kmm_builders(settings):
    settings.only()
    return [Builder()]


def kmm_signers(settings):
    return [Signer()]


def kmm_device_plugins(settings):
    return [Renderer()]


def kmm_registries(settings):
    return [Registry()]


def kmm_drivers(settings):
    return [Driver(name="good", spec=SPEC)]


def kmm_base_images(settings):
    return [Toolkits()]
