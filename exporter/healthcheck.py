"""`python -m exporter.healthcheck`: whether an exporter on this machine answers, for an image's
HEALTHCHECK; exits 0 or 1.

It asks the metrics port for `/-/healthy`, as the environment names it
(`EXPORTER_METRICS_LISTEN`, `EXPORTER_METRICS_TLS_CERT`). Settings are not loaded: that would take
0.5 s of CPU each time, this takes 0.1.
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys

# Less than the timeout of the Dockerfile's HEALTHCHECK, so that the reason can be printed.
TIMEOUT = 4


def main() -> None:
    """Print the answer, or why there is none."""
    host, _, port = os.environ.get("EXPORTER_METRICS_LISTEN", ":9538").rpartition(":")
    host = host.strip("[] ")
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 - listens on all; one of them is asked
        host = "localhost"
    connection: http.client.HTTPConnection
    if os.environ.get("EXPORTER_METRICS_TLS_CERT"):
        # A certificate is made for a name under which others reach it.
        context = ssl._create_unverified_context()  # noqa: S323
        connection = http.client.HTTPSConnection(host, int(port), timeout=TIMEOUT, context=context)
    else:
        connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT)
    try:
        connection.request("GET", "/-/healthy")
        answer = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"{host}:{port}: {error}")
    print(answer.read(100).decode(errors="replace").strip())
    sys.exit(answer.status != http.HTTPStatus.OK)


if __name__ == "__main__":
    main()
