"""The operator's configuration: one frozen value from a YAML file and `KMM_*` variables, which win.

Unknown keys and variables are refused, with the nearest known one. An image may bring defaults, in a file of the same
form.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmm import NAMESPACE
from kmm.api.driver import merge
from kmm.api.manifest import ManifestError, documents, read_limited
from kmm.api.schema import Items, Number, Part, Text, entries, flag, free, load, number, part, schema, text, texts
from kmm.contract import Settings, nearest
from kmm.errors import ConfigError

CONFIG_VARIABLE = "KMM_CONFIG"
DEFAULTS_VARIABLE = "KMM_DEFAULTS"
# Read elsewhere, and known to the Go operator's manifests.
_OTHER_VARIABLES = (CONFIG_VARIABLE, DEFAULTS_VARIABLE, "KMM_MANAGED")
# What Kubernetes sets in every pod for each Service of its namespace, one named kmm-… among them.
_OF_A_SERVICE = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginsConfig:
    """Which plugins may run, and what they are told."""

    allow: tuple[str, ...] = texts(
        "Distributions whose plugins may be imported beside the operator's own (* for all): they run with the "
        "operator's rights"
    )
    options: Mapping[str, Mapping[str, Any]] = free("Options of each plugin, by its name")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryConfig:
    """What is so of one registry only."""

    denied_means_missing: bool = flag(
        "Whether a refusal of this registry, though credentials were tried, means that the image does not exist, so "
        "that it is built"
    )
    ca_file: str | None = text("A PEM file of authorities that are trusted for this registry beside all others")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The operator's configuration. The last two come from the environment only, as the Go operator's do."""

    plugins: PluginsConfig = part(
        PluginsConfig, "Which plugins may run, and what they are told", default=PluginsConfig()
    )
    privileged_namespaces: tuple[str, ...] = texts(
        "Namespaces in which loaders and device plugins may be rendered on plain Kubernetes, beside the operator's "
        "own and those labelled pod-security.kubernetes.io/enforce=privileged"
    )
    max_unavailable: str | None = text(
        "How many loaders of one kernel may be replaced at once: a number or a percentage", default="1"
    )
    builder: str | None = text(
        "The builder of Modules that name none; where it is absent too, openshift-build in clusters that have "
        "OpenShift's builds, and buildah in others. Whether it has them is asked until the API server answers, and "
        "then no more: restart the operator where they are switched on or off later"
    )
    signer: str | None = text("The signer of Modules that name none")
    max_builds: int = number(
        "How many builds and signatures may run at once, of all Modules: others wait for their turn; 0 starts none",
        default=5,
    )
    device_plugin: str | None = text("The device-plugin renderer of Modules that name none", default="daemonset")
    metrics_address: str = text("Where metrics are served", default="127.0.0.1:8080")
    health_address: str = text("Where health is served", default=":8081")
    lease_duration_seconds: int = number(
        "After how many seconds without a word of it another operator leads, at least 3", default=15
    )
    registries: Mapping[str, RegistryConfig] = entries(
        RegistryConfig, "What is so of one registry only, by its host, with the port where images name one"
    )
    ca_file: str | None = text(
        "A PEM file of authorities that are trusted for every registry beside the system's, such as the bundle that "
        "OpenShift injects into a ConfigMap"
    )
    pull_secret_file: str | None = text(
        "A docker config file with the cluster's own credentials, used after a Module's, and only where TLS is used "
        "and checked"
    )
    operator_namespace: str | None = None
    images: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def namespace(self) -> str:
        """The namespace that the operator runs in, and has its lease in."""
        return self.operator_namespace or NAMESPACE

    def settings_of(self, plugin: str) -> Settings:
        """Return what the plugin of that name may know."""
        return Settings(
            options=self.plugins.options.get(plugin, {}),
            operator_namespace=self.operator_namespace,
            images=self.images,
        )


def read_config(environ: Mapping[str, str], path: Path | None = None) -> Config:
    """Return the configuration of the file at `path` (else `$KMM_CONFIG`, else none) and of `environ`.

    What neither says is as in the file `$KMM_DEFAULTS`, if there is that variable.
    Raises ConfigError, naming the file, the key and what would be right.
    """
    if path is None and environ.get(CONFIG_VARIABLE):
        path = Path(environ[CONFIG_VARIABLE])
    raw = _read(path) if path else {}
    _add_variables(raw, environ)
    source = str(path) if path else "the environment"
    if defaults := environ.get(DEFAULTS_VARIABLE):
        raw = merge(_read(Path(defaults)), raw, Config)
        source += f" and {defaults}"
    config, findings = load(Config, raw)
    for finding in findings:
        raise ConfigError(f"{source}: {finding.path}: {finding.message}")
    if config is None:  # pragma: no cover -- no value, but no finding that says why
        raise ConfigError(f"{source}: cannot be read")
    for plugin, options in config.plugins.options.items():
        if not isinstance(options, Mapping):
            raise ConfigError(f"{source}: plugins.options.{plugin}: must be an object")
    images = {
        name.removeprefix("RELATED_IMAGES_").lower().replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith("RELATED_IMAGES_") and value
    }
    return dataclasses.replace(config, operator_namespace=environ.get("OPERATOR_NAMESPACE") or None, images=images)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            found = documents(read_limited(stream))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ManifestError as error:
        raise ConfigError(f"{path}: {error}".replace("manifest", "configuration")) from None
    if len(found) > 1 or not isinstance(found[0].value, dict):
        raise ConfigError(f'{path}: must be one object, such as "plugins: {{allow: [acme-kmm]}}"')
    return dict(found[0].value)


def variables() -> dict[str, tuple[str, ...]]:
    """Return the environment variable of each key that can be set by one: `KMM_PLUGINS_ALLOW` and so on."""
    return {"KMM_" + "_".join(map(_snake, path)).upper(): path for path in _leaves(Config)}


def _snake(key: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key)


def _leaves(what: type, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, field in schema(what).by_key.items():
        if isinstance(field, Part) and isinstance(field.what, type):
            yield from _leaves(field.what, (*path, key))
        elif isinstance(field, Items | Text | Number):
            yield (*path, key)


def _lists() -> set[tuple[str, ...]]:
    """Return the keys that hold several words."""
    return {path for path in _leaves(Config) if isinstance(_field(path), Items)}


def _field(path: tuple[str, ...]) -> Any:
    what: Any = Config
    for key in path[:-1]:
        what = schema(what).by_key[key].what
    return schema(what).by_key[path[-1]]


def _add_variables(raw: dict[str, Any], environ: Mapping[str, str]) -> None:
    known = variables()
    for name, value in environ.items():
        if not name.startswith("KMM_") or name in _OTHER_VARIABLES or _OF_A_SERVICE.search(name) or not value:
            continue
        if name not in known:
            raise ConfigError(f"the environment variable {name} is unknown{nearest(name, known)}")
        *way, key = known[name]
        branch = raw
        for part_ in way:
            below = branch.get(part_)
            if below is not None and not isinstance(below, dict):
                return  # which is wrong, and is told so
            branch[part_] = dict(below or {})
            branch = branch[part_]
        words = [word.strip() for word in value.split(",") if word.strip()]
        branch[key] = words if known[name] in _lists() else int(value) if value.isdecimal() else value
