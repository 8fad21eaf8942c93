"""From a Module and a kernel to what is to be loaded there: the first mapping that fits, merged with the defaults."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import re2

from kmm.api.module import (
    Build,
    KernelMapping,
    LocalObjectReference,
    ModuleLoaderContainer,
    Sign,
    TLSOptions,
    compile_pattern,
)
from kmm.contract import BuildArg, ModuleRef, Tls
from kmm.core.kernel import candidates, expand
from kmm.errors import SpecError
from kmm.oci import reference

INJECTED_ARGS = ("KERNEL_VERSION", "KERNEL_FULL_VERSION", "MOD_NAME", "MOD_NAMESPACE")
"""The build arguments that every build gets, whatever the user's of these names say."""

# What `uname -r` says and a path may hold: printable ASCII but for / and :, which a mount path cannot have.
_A_PATH = re.compile(r"[!-.0-9;-~]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildInputs:
    """How to build, merged and with its variables replaced. `unused`: the user's arguments that ours win over."""

    config_map: str | None
    args: tuple[BuildArg, ...]
    unused: tuple[str, ...] = ()
    secrets: tuple[str, ...]
    base_tls: Tls
    selector: Mapping[str, str]
    builder: str | None
    builder_tag: str | None
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInputs:
    """How to sign, merged and with its variables replaced."""

    unsigned_image: str | None
    unsigned_tls: Tls
    cert_secret: str | None
    key_secret: str | None
    files: tuple[str, ...]
    signer: str | None
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTarget:
    """What is to be loaded on the nodes of one kernel."""

    kernel: str
    image: str
    tls: Tls
    in_tree_modules: tuple[str, ...]
    build: BuildInputs | None
    sign: SignInputs | None


def resolve(container: ModuleLoaderContainer, module: ModuleRef, kernel: str) -> KernelTarget | None:
    """Return what `container` wants for `kernel`, or None where no mapping fits: a normal state.

    Raises SpecError where the mapping that would decide cannot be read, for this kernel only.
    """
    if not _A_PATH.fullmatch(kernel) or kernel in (".", ".."):
        raise SpecError(f'the kernel "{kernel[:80]}" cannot be the name of a folder below /lib/modules')
    mapping = find(container, kernel)
    if mapping is None:
        return None
    template = mapping.container_image or container.container_image
    if template is None:
        raise SpecError("neither the kernel mapping nor the container has a containerImage")
    image = _image(template, module, kernel)
    made = mapping.build or container.build or mapping.sign or container.sign
    if made and reference.parse(image).digest:
        raise SpecError(f"the image {image[:200]} is named by its digest, so it can neither be built nor signed")
    return KernelTarget(
        kernel=kernel,
        image=image,
        tls=_tls(mapping.registry_tls or container.registry_tls),
        in_tree_modules=_in_tree(mapping) or _in_tree(container),
        build=_build(container.build, mapping.build, module, kernel),
        sign=_sign(container.sign, mapping.sign, module, kernel),
    )


def find(container: ModuleLoaderContainer, kernel: str) -> KernelMapping | None:
    """Return the first mapping that fits: a literal is compared whole, a regexp is searched.

    A regexp that cannot be read fits nothing and stops nothing behind it, but where nothing else fits, the
    answer is not known. Raises SpecError then.
    """
    unreadable: SpecError | None = None
    for mapping in container.kernel_mappings:
        if mapping.literal is not None:
            if mapping.literal in candidates(kernel):
                return mapping
        elif mapping.regexp is not None:
            try:
                if any(compile_pattern(mapping.regexp).search(each) for each in candidates(kernel)):
                    return mapping
            except re2.error:
                unreadable = unreadable or SpecError(f'the regexp "{mapping.regexp[:80]}" cannot be read')
    if unreadable is not None:
        raise unreadable
    return None


def _image(template: str, module: ModuleRef, kernel: str) -> str:
    image = expand(template, module, kernel, in_image=True)
    try:
        reference.parse(image)
    except reference.ReferenceError as error:
        raise SpecError(f"the image {error}") from None
    return image


def _tls(options: TLSOptions | None) -> Tls:
    return Tls(insecure=options.insecure, skip_verify=options.insecure_skip_tls_verify) if options else Tls()


def _in_tree(of: KernelMapping | ModuleLoaderContainer) -> tuple[str, ...]:
    older = (of.in_tree_module_to_remove,) if of.in_tree_module_to_remove else ()
    return of.in_tree_modules_to_remove or older


def _name(reference_to: LocalObjectReference | None) -> str | None:
    return reference_to.name if reference_to else None


def merge_builds(default: Build | None, own: Build | None) -> Build | None:
    """Merge the container's and the mapping's build sections; what the mapping sets wins.

    Arguments are overridden by name with their order kept, Secrets are put together without repeats. Unlike the
    Go operator, which drops them, the mapping's TLS, kanikoParams, selector, builder and params count too.
    """
    if default is None or own is None:
        return own or default
    args = {arg.name: arg for arg in (*default.build_args, *own.build_args)}
    return dataclasses.replace(
        default,
        dockerfile_config_map=own.dockerfile_config_map
        if own.dockerfile_config_map.name
        else default.dockerfile_config_map,
        build_args=tuple(args.values()),
        secrets=tuple(dict.fromkeys((*default.secrets, *own.secrets))),
        base_image_registry_tls=own.base_image_registry_tls or default.base_image_registry_tls,
        kaniko_params=own.kaniko_params or default.kaniko_params,
        selector=own.selector or default.selector,
        builder=own.builder or default.builder,
        params=own.params or default.params,
    )


def merge_signs(default: Sign | None, own: Sign | None) -> Sign | None:
    """Merge the container's and the mapping's sign sections; what the mapping sets wins, files are appended."""
    if default is None or own is None:
        return own or default
    return dataclasses.replace(
        default,
        cert_secret=own.cert_secret if _name(own.cert_secret) else default.cert_secret,
        key_secret=own.key_secret if _name(own.key_secret) else default.key_secret,
        unsigned_image=own.unsigned_image or default.unsigned_image,
        unsigned_image_registry_tls=own.unsigned_image_registry_tls or default.unsigned_image_registry_tls,
        files_to_sign=(*default.files_to_sign, *own.files_to_sign),
        signer=own.signer or default.signer,
        params=own.params or default.params,
    )


def _build(default: Build | None, own: Build | None, module: ModuleRef, kernel: str) -> BuildInputs | None:
    build = merge_builds(default, own)
    if build is None:
        return None
    # Ours are always right: a user's of the same name would build for another kernel than the tag says.
    values = (kernel, kernel, module.name, module.namespace)
    injected = dict(zip(INJECTED_ARGS, values, strict=True))
    users = {arg.name: expand(arg.value, module, kernel) for arg in build.build_args}
    return BuildInputs(
        config_map=build.dockerfile_config_map.name,
        args=tuple(BuildArg(name=name, value=value) for name, value in (users | injected).items()),
        unused=tuple(name for name in INJECTED_ARGS if name in users),
        secrets=tuple(secret.name for secret in build.secrets if secret.name),
        base_tls=_tls(build.base_image_registry_tls),
        selector=build.selector,
        builder=build.builder,
        builder_tag=build.kaniko_params.tag if build.kaniko_params else None,
        params=build.params,
    )


def _sign(default: Sign | None, own: Sign | None, module: ModuleRef, kernel: str) -> SignInputs | None:
    sign = merge_signs(default, own)
    if sign is None:
        return None
    return SignInputs(
        unsigned_image=None if sign.unsigned_image is None else _image(sign.unsigned_image, module, kernel),
        unsigned_tls=_tls(sign.unsigned_image_registry_tls),
        cert_secret=_name(sign.cert_secret),
        key_secret=_name(sign.key_secret),
        files=tuple(expand(path, module, kernel) for path in sign.files_to_sign),
        signer=sign.signer,
        params=sign.params,
    )
