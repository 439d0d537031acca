"""HTTP for tests, without a library between the test and the bytes."""

from __future__ import annotations

import gzip
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        body = self.body
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        return body.decode()


class Client:
    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        self.url = url
        self.headers = dict(headers or {})

    def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, timeout: float = 60
    ) -> Answer:
        merged = self.headers | dict(headers or {})
        request = urllib.request.Request(self.url + path, headers=merged, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return Answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())

    def is_hung_up_on(self, path: str, headers: Mapping[str, str]) -> bool:
        """Whether the server ends the connection after its answer, which urllib always asks for."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        with closing(connection):
            connection.request("GET", path, headers=dict(headers))
            response = connection.getresponse()
            response.read()
            return response.will_close

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, {k.replace("_", "-"): v for k, v in headers.items()})

    def without_credentials(self) -> Client:
        return Client(self.url)

    def families(self) -> dict[str, Metric]:
        """`/metrics`, parsed, by the family's name."""
        page = self.get("/metrics")
        assert page.status == 200
        return {family.name: family for family in text_string_to_metric_families(page.text)}

    def samples(self, metric: str, /, **labels: str) -> dict[tuple[str, ...], float]:
        """The samples of a metric that have these labels, by the values of the other labels."""
        found = {}
        for family in self.families().values():
            for sample in family.samples:
                if sample.name == metric and labels.items() <= sample.labels.items():
                    rest = sorted(sample.labels.items() - labels.items())
                    found[tuple(value for _, value in rest)] = sample.value
        return found

    def value(self, metric: str, /, **labels: str) -> float | None:
        """The one sample with exactly these labels, None where there is none."""
        return self.samples(metric, **labels).get(())
