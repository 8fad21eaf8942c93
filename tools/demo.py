"""`make demo`: what the product does so far, seen on real files; exits 1 unless all of it happened."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
KMM = Path(sys.executable).parent / "kmm"
MOST = 20

BROKEN = r"""apiVersion: kmm.sigs.x-k8s.io/v1beta1
kind: Module
metadata: {name: tired, namespace: drivers}
spec:
  selecter: {worker: "true"}
  moduleLoader:
    container:
      imagePullPolicy: allways
      modprobe:
        moduleName: acme nic
        parameters: ["mode='fast"]
      kernelMappings:
        - regexp: '(5\.14'
          containerImage: registry.example.com/acme:${KERNEL_VERSION
        - literal: 6.1
"""


def run(title: str, *command: str, ends_with: int, says: str, **more: str) -> bool:
    """Run a command as a user would, show it, and tell whether it ended and said what it should."""
    print(f"\n{title}\n$ {' '.join(command)}", flush=True)
    ran = subprocess.run(
        [str(KMM), *command[1:]], cwd=ROOT, text=True, capture_output=True, check=False, env=os.environ | more
    )
    lines = (ran.stdout + ran.stderr).splitlines()
    print("\n".join(lines[:MOST] + [f"… and {len(lines) - MOST} more lines"] * (len(lines) > MOST)))
    happened = ran.returncode == ends_with and says in ran.stdout
    if not happened:
        print(f"this should have ended with {ends_with} and said {says!r}; it ended with {ran.returncode}")
    return happened


def main() -> int:
    examples = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "examples").glob("*.yaml"))]
    with tempfile.TemporaryDirectory() as folder:
        broken = Path(folder) / "tired.yaml"
        broken.write_text(BROKEN)
        happened = [
            run(
                "Manifests that are right",
                "kmm",
                "validate",
                *examples,
                ends_with=0,
                says="Module drivers/kmm-ci-a: valid",
            ),
            run(
                "A Module by a tired administrator: everything that is wrong, at once",
                "kmm",
                "validate",
                str(broken),
                ends_with=1,
                says="did you mean",
            ),
            run(
                "What the operator would do with a Module, without a cluster",
                "kmm",
                "plan",
                "-f",
                "examples/prebuilt.yaml",
                ends_with=0,
                says="loads registry.example.com/drivers/kmm-ci-a:debian-6.1.0-18",
            ),
            run(
                "The plugins that are installed",
                "kmm",
                "plugins",
                ends_with=0,
                says="device-plugin renderer daemonset",
            ),
            run(
                "The same with broken ones beside them: each is refused, none stops another",
                "kmm",
                "plugins",
                ends_with=1,
                says="refused: UnknownHook",
                KMM_PLUGINS_ALLOW="*",
                PYTHONPATH=str(ROOT / "tests/broken"),
            ),
            run("The kinds, for kubectl apply -f -", "kmm", "crds", ends_with=0, says="CustomResourceDefinition"),
        ]
    print(f"\n{sum(happened)} of {len(happened)} parts happened as they should")
    return 0 if all(happened) else 1


if __name__ == "__main__":
    sys.exit(main())
