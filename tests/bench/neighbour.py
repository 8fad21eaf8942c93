"""Somebody else who asks the API server for something small, again and again: how long it takes, the audit log says.

A process of its own, which shares nothing with who measures: `python neighbour.py KUBECONFIG`, until it is ended.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import sys
import time
from pathlib import Path

_REST_S = 0.005


def main(kubeconfig: str) -> None:
    config = json.loads(Path(kubeconfig).read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    connection = http.client.HTTPSConnection(
        cluster["server"].removeprefix("https://"), context=ssl.create_default_context(cadata=authority), timeout=60
    )
    while True:
        connection.request("GET", "/api/v1/namespaces/default", headers={"Authorization": f"Bearer {user['token']}"})
        connection.getresponse().read()
        time.sleep(_REST_S)


if __name__ == "__main__":
    main(sys.argv[1])
