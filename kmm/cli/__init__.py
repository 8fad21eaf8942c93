"""The command line: one file a command. Exit codes: 0 all is well, 1 something was found, 2 wrong use."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kmm import NAMESPACE, __version__
from kmm.errors import ConfigError

if TYPE_CHECKING:
    from kmm.catalog import Catalog
    from kmm.cli.material import Pair

app = typer.Typer(
    help=__doc__ and "Kernel module management: check manifests and plugins, print what a cluster needs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="Configuration file (YAML); $KMM_CONFIG where it is not given."),
]
KeyOption = Annotated[
    str,
    typer.Option("--key", metavar="FILE|URI", help="The private key: PEM or DER, or a token's: pkcs11:token=..."),
]
CertOption = Annotated[
    Path | None,
    typer.Option("--cert", metavar="FILE", help="Its certificate: PEM or DER; a token may keep it beside the key."),
]


def catalog_of(config: Path | None) -> Catalog:
    """Return the catalog of the installed plugins that the configuration allows. Raises ConfigError."""
    from kmm.config import read_config
    from kmm.loader import load_catalog

    read = read_config(os.environ, config)
    return load_catalog(read.plugins.allow, read.settings_of, options=read.plugins.options.keys())


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        print(f"kmm {__version__}")
        raise typer.Exit


@app.command("validate")
def _validate(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="YAML or JSON; - for standard input.")],
    config: ConfigOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Let a warning fail too.")] = False,
) -> None:
    """Check manifests: what is wrong, and where.

    Exit code 0: all are valid. 1: something is wrong. 2: the command or the configuration is.
    """
    from kmm.cli.validate import validate

    raise typer.Exit(validate(files, catalog_of(config), strict=strict))


@app.command("plan")
def _plan(
    files: Annotated[
        list[str], typer.Option("-f", metavar="FILE", help="Modules, and what they refer to; - for stdin.")
    ],
    more: Annotated[list[str] | None, typer.Argument(metavar="[FILE]...", help="More of them.")] = None,
    nodes: Annotated[
        str | None, typer.Option("--nodes", metavar="FILE", help="What `kubectl get nodes -o json` prints.")
    ] = None,
    images: Annotated[
        str | None, typer.Option("--images", metavar="FILE", help="Images that exist, one a line.")
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="table, yaml or json.")] = "table",
    config: ConfigOption = None,
) -> None:
    """Print what the operator would do.

    No cluster is needed. An image that --images does not name counts as missing where a mapping builds or signs it.
    Exit code 1: a Module is wrong. 2: the command or a file is.
    """
    from kmm.cli.plan import plan

    raise typer.Exit(plan([*files, *(more or [])], nodes, images, output, catalog_of(config)))


@app.command("run")
def _run(
    kubeconfig: Annotated[
        Path | None,
        typer.Option("--kubeconfig", help="Which cluster; $KUBECONFIG or the cluster this runs in, else."),
    ] = None,
    config: ConfigOption = None,
    log_level: Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")] = "info",
) -> None:
    """Run the operator: load kernel modules on the nodes of a cluster, until it is told to stop.

    Exit code 1: the lease was lost, and another one may lead. 2: the command or the configuration is wrong.
    """
    from kmm.cli.run import run

    run(str(kubeconfig or ""), str(config or ""), log_level)


@app.command("demo")
def _demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running, to look around, until Ctrl-C.")] = False,
    svg: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Write the screen as a picture.")] = None,
    plugins: Annotated[
        Path | None,
        typer.Option(
            "--plugins", metavar="DIR", help="Where acme-kmm is, of the examples: its driver takes part then."
        ),
    ] = None,
) -> None:
    """Show the whole life of Modules, in a cluster and a registry of its own.

    Nothing is touched outside of them. Exit code 1: something that should have happened has not.
    """
    from kmm.cli.demo import demo

    raise typer.Exit(demo(keep=keep, svg=svg, plugins=plugins))


@app.command("status")
def _status(
    module: Annotated[str | None, typer.Argument(metavar="[MODULE]", help="Only this one.")] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Only Modules of this namespace; of all, else.")
    ] = None,
    operator_namespace: Annotated[
        str | None,
        typer.Option(
            "--operator-namespace", "-N", help="Where the operator runs; $OPERATOR_NAMESPACE, or found, else."
        ),
    ] = None,
    kubeconfig: Annotated[
        Path | None,
        typer.Option("--kubeconfig", help="Which cluster; $KUBECONFIG or the cluster this runs in, else."),
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Print again on each change, until Ctrl-C.")] = False,
) -> None:
    """Print how the Modules of a cluster are, and what to do.

    Exit code 0: all are ready, and an operator leads; or Ctrl-C ended --watch. 1: something is not ready.
    2: the command is wrong, or the cluster cannot be asked.
    """
    from kmm.cli.status import status

    raise typer.Exit(status(module, namespace, operator_namespace, kubeconfig, output, watch=watch))


@app.command("plugins")
def _plugins(
    config: ConfigOption = None,
    only_check: Annotated[
        bool, typer.Option("--check", help="Print only what is wrong, and what to do: for builds of images.")
    ] = False,
) -> None:
    """List plugins and what they offer.

    Exit code 1 where one was refused: because something is wrong with it, or because plugins.allow does not list it.
    2: the command or the configuration is wrong.
    """
    from kmm.cli.plugins import check, plugins

    raise typer.Exit((check if only_check else plugins)(catalog_of(config)))


@app.command("conformance")
def _conformance(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Plugins, as `kmm plugins` calls them.")],
    config: ConfigOption = None,
    cluster: Annotated[
        Path | None,
        typer.Option(
            "--cluster", metavar="KUBECONFIG", help="Whose API server judges what is rendered; an embedded one, else."
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write what was found as JSON.")
    ] = None,
    more: Annotated[
        list[str] | None, typer.Option("--pytest", metavar="ARGUMENT", help="For pytest, such as -x; several times.")
    ] = None,
) -> None:
    """Ask installed plugins whether they keep the contract, rule by rule.

    A plugin is run to be asked, whatever plugins.allow says. Exit code 0: every rule holds. 1: one is broken. 2: the
    command is wrong, or there is no such plugin.
    """
    from kmm.cli.conformance import conformance

    conformance(names, config, cluster, report, more or [])


@app.command("new-plugin")
def _new_plugin(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What Modules will call it, such as acme.")],
    kind: Annotated[
        str, typer.Option("--kind", help="builder, signer, registry, device-plugin, driver or base-images.")
    ],
    directory: Annotated[
        Path | None, typer.Option("--directory", metavar="DIR", help="Where to write it; NAME-kmm here, else.")
    ] = None,
) -> None:
    """Write the package of a plugin, to go on from: it passes its tests, and `kmm conformance`, as it stands.

    No file is overwritten. Exit code 2: the command is wrong, or a file is there already; then nothing was written.
    """
    from kmm.cli.new_plugin import new_plugin

    raise typer.Exit(new_plugin(name, kind, directory))


@app.command("crds")
def _crds(
    output: Annotated[str, typer.Option("--output", "-o", help="yaml or json.")] = "yaml",
    kinds: Annotated[list[str] | None, typer.Argument(metavar="[KIND]...", help="Only these kinds.")] = None,
) -> None:
    """Print the definitions of all kinds.

    They are CustomResourceDefinitions, for `kubectl apply -f -`.
    """
    from kmm.cli.crds import crds

    raise typer.Exit(crds(output, kinds or []))


@app.command("sign-module")
def _sign_module(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Kernel modules: .ko, .ko.xz, .ko.gz, .ko.zst.")
    ],
    key: KeyOption,
    cert: CertOption = None,
    hash_name: Annotated[str, typer.Option("--hash", help="sha224, sha256, sha384 or sha512.")] = "sha256",
    passphrase_file: Annotated[
        Path | None,
        typer.Option(
            "--passphrase-file",
            metavar="FILE",
            help="The passphrase of an encrypted key, or a PIN; $KBUILD_SIGN_PIN, or the terminal, else.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write the only module; in place, else."),
    ] = None,
) -> None:
    """Sign kernel modules, as the kernel's sign-file does, byte for byte.

    Signatures that they have are replaced. Exit code 1: a module could not be signed, and is as it was. 2: the
    command is wrong, or the key and certificate cannot be used; then nothing was signed. 3: likewise, as a token has
    refused the PIN, or would be locked by one more that is wrong: do not repeat it as it is.
    """
    with _signing():
        from kmm.cli.sign_module import sign_module

        pair = _pair(key, cert, hash_name, passphrase_file)
    raise typer.Exit(sign_module(files, pair, output))


@app.command("sign-image")
def _sign_image(
    unsigned: Annotated[str, typer.Argument(metavar="UNSIGNED", help="The image whose modules are signed.")],
    key: KeyOption,
    cert: CertOption = None,
    signed: Annotated[
        str | None, typer.Argument(metavar="[SIGNED]", help="What the signed image is pushed as.")
    ] = None,
    hash_name: Annotated[str, typer.Option("--hash", help="sha224, sha256, sha384 or sha512.")] = "sha256",
    passphrase_file: Annotated[
        Path | None,
        typer.Option(
            "--passphrase-file",
            metavar="FILE",
            help="The passphrase of an encrypted key, or a PIN; $KBUILD_SIGN_PIN, or the terminal, else.",
        ),
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option(
            "--file", metavar="PATH", help="A module in the image: an absolute path, or a pattern with * or **."
        ),
    ] = None,
    directory: Annotated[
        str, typer.Option("--dir-name", help="Without --file: every module in lib/modules below it.")
    ] = "/opt",
    kernel: Annotated[
        str | None, typer.Option("--kernel", help="Without --file: only the modules of this kernel.")
    ] = None,
    docker_config: Annotated[
        list[Path] | None,
        typer.Option(
            "--docker-config",
            metavar="PATH",
            help="Credentials, as docker keeps them; $REGISTRY_AUTH_FILE, or docker's own, else.",
        ),
    ] = None,
    authorities: Annotated[
        list[Path] | None, typer.Option("--ca", metavar="PATH", help="PEM files of authorities to trust as well.")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="SIGNED: plain HTTP.")] = False,
    skip_verify: Annotated[
        bool, typer.Option("--insecure-skip-tls-verify", help="SIGNED: any certificate will do.")
    ] = False,
    unsigned_insecure: Annotated[bool, typer.Option("--unsigned-insecure", help="UNSIGNED: plain HTTP.")] = False,
    unsigned_skip_verify: Annotated[
        bool, typer.Option("--unsigned-insecure-skip-tls-verify", help="UNSIGNED: any certificate will do.")
    ] = False,
    no_push: Annotated[bool, typer.Option("--no-push", help="Only try whether it can be signed.")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="For all of it.")] = 3600,
    limit_gib: Annotated[
        int, typer.Option("--modules-limit", metavar="GIB", min=1, help="All modules together, unpacked.")
    ] = 4,
    warnings_file: Annotated[
        Path | None,
        typer.Option("--warnings-file", metavar="FILE", help="Gets what kernels may not take, before it is pushed."),
    ] = None,
) -> None:
    """Sign the kernel modules inside an image, and push one layer with them.

    All other layers are used as they are. What is signed so already is left alone. Exit code 1: it could not be
    signed. 2: the command is wrong, or the key and certificate cannot be used; then nothing was pushed. 3: likewise,
    as a token has refused the PIN, or would be locked by one more that is wrong: do not repeat it as it is.
    """
    if (signed is None) != no_push:
        raise ConfigError("name what the signed image is pushed as, or give --no-push")
    with _signing():
        from kmm.cli.sign_image import Registries, docker_configs, files_of, sign_image
        from kmm.contract import Tls

        pair = _pair(key, cert, hash_name, passphrase_file)
    registries = Registries(
        tls=Tls(insecure=insecure, skip_verify=skip_verify),
        unsigned_tls=Tls(insecure=unsigned_insecure, skip_verify=unsigned_skip_verify),
        docker_configs=docker_configs(os.environ) if docker_config is None else docker_config,
        authorities=authorities or (),
        deadline_s=timeout_s,
    )
    wanted = files or files_of(directory, kernel)
    raise typer.Exit(sign_image(unsigned, signed, wanted, registries, pair, warnings_file, limit=limit_gib * 1024**3))


@app.command("verify-module")
def _verify_module(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Kernel modules: .ko, .ko.xz, .ko.gz, .ko.zst.")
    ],
    cert: Annotated[
        Path | None, typer.Option("--cert", metavar="FILE", help="The certificate to verify with: PEM or DER.")
    ] = None,
) -> None:
    """Print who signed kernel modules, with what hash, and whether that verifies.

    Exit code 1: a module is not signed, or does not verify. 2: the command or the certificate is wrong.
    """
    with _signing():
        from kmm.cli.verify_module import verify_module

    raise typer.Exit(verify_module(files, cert))


@app.command("check-keys")
def _check_keys(
    secrets: Annotated[
        list[str],
        typer.Argument(metavar="SECRET...", help="The Secrets of certSecret and keySecret, or the one that is both."),
    ],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="The Module's namespace.")],
    kubeconfig: Annotated[
        Path | None,
        typer.Option("--kubeconfig", help="Which cluster; $KUBECONFIG or the cluster this runs in, else."),
    ] = None,
) -> None:
    """Check that the key and the certificate in Secrets can sign modules.

    Nothing secret is printed. Exit code 0: they can, maybe with warnings. 1: they cannot. 2: the command is wrong, or
    the Secrets cannot be read.
    """
    with _signing():
        from kmm.cli.check_keys import check_keys

    raise typer.Exit(check_keys(secrets, namespace, kubeconfig))


def _pair(key: str, cert: Path | None, hash_name: str, passphrase_file: Path | None) -> Pair:
    """Return what is signed with. Raises ConfigError."""
    from kmm.cli.material import Pair
    from kmm.signing.source import scheme_of

    if cert is None and not scheme_of(key):
        raise ConfigError("--cert is missing: only a key that is in no file may have its certificate beside it")
    return Pair(key=key, certificate=cert, hash_name=hash_name, passphrase=passphrase_file)


@contextmanager
def _signing() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"signing needs {error.name}, which is not installed: pip install 'kmm-operator[signing]'"
        ) from None


_manifests = typer.Typer(help="Print what a cluster needs beside the definitions.", no_args_is_help=True)
app.add_typer(_manifests, name="manifests")


@_manifests.callback()
def _all_manifests() -> None:
    """Print what a cluster needs beside the definitions."""


@_manifests.command("rbac")
def _rbac(
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="The namespace that the operator runs in.")
    ] = NAMESPACE,
    output: Annotated[str, typer.Option("--output", "-o", help="yaml or json.")] = "yaml",
    config: ConfigOption = None,
) -> None:
    """Print the operator's service accounts, and the rights that it needs and no more."""
    from kmm.cli.manifests import rbac

    raise typer.Exit(rbac(namespace, output, catalog_of(config)))


def main() -> None:
    """Run the command line: what goes wrong is one line on standard error, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a letter is no error
    try:
        app()
        sys.stdout.flush()
    except ConfigError as error:
        from kmm.admission import printable

        print(printable(f"kmm: {error}"), file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # Whoever read our output has seen enough. Nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        print(f"kmm: cannot write: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(2)
