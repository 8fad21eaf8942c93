"""Asks OpenShift's internal registry about images, with the operator's own account where a Module's is not enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kmm.contract import Access, Credential, ImageInfo, Registry, Settings, SettingsError
from kmm.oci.inspection import inspect
from kmm.oci.session import Session

_SERVICE = "image-registry.openshift-image-registry.svc"
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# The registry asks for a name and ignores it.
_NAME = "serviceaccount"


@dataclass(frozen=True, slots=True)
class OpenShift:
    """Serves the internal registry's names. `token_file`, `ca_file`: read for each question, since both rotate."""

    session: Session
    token_file: Path
    ca_file: Path
    name: str = "openshift"
    hosts: tuple[str, ...] = (_SERVICE, f"{_SERVICE}.cluster.local")

    def inspect(
        self, image: str, access: Access, deadline_s: float, files: Sequence[str] = (), annotations: bool = False
    ) -> ImageInfo | None:
        """Return what is known of `image`. The operator's token is shown only over checked TLS, and last."""
        if not (access.tls.insecure or access.tls.skip_verify):
            token = _read(self.token_file).strip()
            own = (Credential(username=_NAME, password=token),) if token else ()
            trusted = "\n".join(filter(None, (access.ca_pem, _read(self.ca_file))))
            access = replace(access, credentials=(*access.credentials, *own), ca_pem=trusted or None)
        return inspect(image, access, self.session, deadline_s, files, annotations=annotations)


def kmm_registries(settings: Settings) -> Sequence[Registry]:
    """Offer it. Options `tokenFile`, `caFile`: other files than those that OpenShift mounts; `hosts`: other names."""
    options = settings.only("tokenFile", "caFile", "hosts")
    files = {key: options.get(key, str(_ACCOUNT / name)) for key, name in _FILES.items()}
    for key, path in files.items():
        if not isinstance(path, str) or not path.startswith("/"):
            raise SettingsError(f"{key}: must be an absolute path")
    made = OpenShift(Session(), Path(files["tokenFile"]), Path(files["caFile"]))
    hosts = options.get("hosts", list(made.hosts))
    if not isinstance(hosts, list) or not hosts or not all(isinstance(each, str) for each in hosts):
        raise SettingsError(f'hosts: must be a list of names, such as ["{_SERVICE}"]')
    return [replace(made, hosts=tuple(hosts))]


_FILES = {"tokenFile": "token", "caFile": "service-ca.crt"}


def _read(path: Path) -> str:
    """Return a file's text, or none where it is not there: it is then asked without."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
