"""The Helm chart: what it renders is valid, safe, and what the program and its rules are."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import subprocess
import sys
import tarfile
from base64 import b64decode, b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import trustme
import yaml

from exporter import __version__
from exporter.settings import LEAVES, Settings, load
from tests.support.exporters import clean_environment
from tests.support.http_client import Client
from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.support.programs import program
from tests.support.servers import running
from tests.support.waiting import eventually

CHART = ROOT / "config" / "helm" / "bullmq-exporter"
REFERENCE = ROOT / "config" / "exporter.yml"
RULES = ROOT / "config" / "prometheus" / "rules"
DASHBOARDS = ROOT / "dashboards"

Values = Mapping[str, Any]
SECRETS = sorted(path for path, leaf in LEAVES.items() if leaf.secret)
URL = "redis://:secret-within-the-url@valkey:6379"
# Long enough for every one of them, and quoted by YAML.
POSTGRES_URL = "postgres://exporter:secret-within-the-url@database:5432/archive"
URLS = {"redis.url": URL, "postgres.url": POSTGRES_URL}
HIDDEN = {path: URLS.get(path, f"0: secret of {path}") for path in SECRETS}
DIRECTORY = "/run/secrets/bullmq-exporter"


def merged(*parts: Values) -> dict[str, Any]:
    """Values as Helm merges them: mappings by their keys, all else as the last one says."""
    result: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result


def secrets(source: Any, *paths: str) -> dict[str, Any]:
    """`secrets` with a source for each of the settings."""
    parts = [path.split(".") for path in paths]
    each = [{section: {name: source(f"{section}.{name}")}} for section, name in parts]
    return {"secrets": merged(*each)}


def by_value(path: str) -> dict[str, str]:
    return {"value": HIDDEN[path]}


def existing(path: str) -> dict[str, str]:
    return {"existingSecret": "of-the-user", "key": path}


LEAST: Values = {"config": {"redis": {"host": "valkey"}}}
# A Sentinel's password goes without a URL, and the other way round.
SETTABLE = [path for path in SECRETS if path not in URLS and not path.startswith("postgres.")]
SENTINELS: Values = {
    "config": {
        "redis": {"sentinels": ["sentinel:26379"], "sentinel_master": "mymaster"},
        "metrics": {"user": "prometheus"},
    }
}
TARGETS: Values = {
    "config": {
        "targets": [
            {"name": "eu", "redis": {"host": "eu", "password_file": f"{DIRECTORY}/eu"}},
            {"name": "us", "redis": {"url_file": f"{DIRECTORY}/us"}, "prefix": ["mail"]},
        ],
        "api": {"keys": [{"name": "grafana", "key_file": f"{DIRECTORY}/grafana"}]},
    },
    "secrets": {
        "files": {
            "eu": {"existingSecret": "redis-eu", "key": "password"},
            "us": {"value": URL},
            "grafana": {"value": "a-key-of-grafana-0123456789"},
        }
    },
}
POSTGRES: Values = merged(
    secrets(by_value, "postgres.password"),
    {
        "config": {"postgres": {"host": "database", "database": "archive", "user": "exporter"}},
        "networkPolicy": {"enabled": True, "egress": [{"ports": [{"port": 5432}, {"port": 53}]}]},
    },
)
MONITORING: Values = {
    "serviceMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "dashboards": {"enabled": True},
}
EVERYTHING = merged(
    secrets(existing, *SETTABLE),
    SENTINELS,
    MONITORING,
    {
        "config": {
            "metrics": {
                "listen": "[::]:9000",
                "tls_cert": f"{DIRECTORY}/tls.crt",
                "tls_key": f"{DIRECTORY}/tls.key",
            },
            "api": {"redact": ["password", "*token*"]},
        },
        "secrets": {
            "files": {
                "tls.crt": {"existingSecret": "tls", "key": "tls.crt"},
                "tls.key": {"existingSecret": "tls", "key": "tls.key"},
            }
        },
        "links": {"dashboards": "https://grafana.example.com"},
        "limits": {"failed_jobs": "20 * bullmq:queue"},
        "serviceMonitor": {
            "labels": {"release": "monitoring"},
            "interval": "15s",
            "scrapeTimeout": "10s",
            "relabelings": [{"targetLabel": "team", "replacement": "mail"}],
            "metricRelabelings": [
                {"action": "drop", "sourceLabels": ["__name__"], "regex": "python_.*"}
            ],
            "tlsConfig": {"serverName": "exporter", "ca": {"secret": {"name": "tls", "key": "ca"}}},
        },
        "prometheusRule": {"labels": {"release": "monitoring"}},
        "dashboards": {"namespace": "monitoring"},
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "annotations": {"cert-manager.io/cluster-issuer": "letsencrypt"},
            "host": "jobs.example.com",
            "tls": [{"secretName": "jobs-tls", "hosts": ["jobs.example.com"]}],
        },
        "persistence": {"enabled": True, "storageClassName": "fast", "annotations": {"a": "b"}},
        "networkPolicy": {
            "enabled": True,
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
            "apiFrom": [{"podSelector": {"matchLabels": {"app": "ingress"}}}],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 6379}]}],
        },
        "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
        "image": {
            "repository": "registry.example.com/bullmq-exporter",
            "digest": f"sha256:{0:064}",
        },
        "imagePullSecrets": [{"name": "registry"}],
        "extraEnv": [{"name": "EXPORTER_LOG_FORMAT", "value": "json"}],
        "extraVolumes": [{"name": "authority", "configMap": {"name": "authority"}}],
        "extraVolumeMounts": [{"name": "authority", "mountPath": "/authority"}],
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "mail"},
        "serviceAccountName": "exporter",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "monitoring", "operator": "Exists"}],
        "affinity": {
            "nodeAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 1,
                        "preference": {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
                    }
                ]
            }
        },
        "priorityClassName": "monitoring",
        "fullnameOverride": "queues",
    },
)
CASES: Mapping[str, Values] = {
    "least": LEAST,
    "secrets-by-value": merged(SENTINELS, MONITORING, secrets(by_value, *SETTABLE)),
    "existing-secrets": merged(SENTINELS, MONITORING, secrets(existing, *SETTABLE)),
    "postgres": POSTGRES,
    "postgres-url": secrets(by_value, "postgres.url"),
    "url": merged(secrets(by_value, "redis.url"), {"persistence": {"enabled": True}}),
    "targets": TARGETS,
    "everything": EVERYTHING,
}
each_case = pytest.mark.parametrize("values", CASES.values(), ids=CASES)


@pytest.fixture(scope="session")
def certificate() -> dict[str, str]:
    made = trustme.CA().issue_cert("exporter")
    chain = "".join(blob.bytes().decode() for blob in made.cert_chain_pems)
    return {"tls.crt": chain, "tls.key": made.private_key_pem.bytes().decode()}


@pytest.fixture(scope="session")
def others(certificate: dict[str, str]) -> dict[str, dict[str, str]]:
    """The Secrets that are there before the chart is installed."""
    return {"of-the-user": HIDDEN, "redis-eu": {"password": "secret-of-eu"}, "tls": certificate}


class Rendered:
    """What Helm makes of the chart, in the namespace `queues` as the release `demo`."""

    def __init__(self, values: Values, chart: Path = CHART) -> None:
        with helm.Chart.load(chart) as loaded:
            texts = loaded.render(dict(values), name="demo", namespace="queues")
        self.notes = texts.pop("bullmq-exporter/templates/NOTES.txt")
        self.texts = texts
        self.manifests: list[dict[str, Any]] = [
            manifest
            for text in texts.values()
            for manifest in yaml.load_all(text, yaml.CSafeLoader)  # a tenth of the time
            if manifest is not None
        ]

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [manifest for manifest in self.manifests if manifest["kind"] == kind]

    def one(self, kind: str) -> dict[str, Any]:
        [manifest] = self.all(kind)
        return manifest

    @property
    def template(self) -> dict[str, Any]:
        return dict(self.one("Deployment")["spec"]["template"])

    @property
    def pod(self) -> dict[str, Any]:
        return dict(self.template["spec"])

    @property
    def container(self) -> dict[str, Any]:
        [container] = self.pod["containers"]
        return dict(container)

    @property
    def ports(self) -> dict[str, int]:
        return {port["name"]: port["containerPort"] for port in self.container["ports"]}

    @property
    def secrets(self) -> dict[str, dict[str, str]]:
        return {
            manifest["metadata"]["name"]: {
                key: b64decode(value).decode() for key, value in manifest["data"].items()
            }
            for manifest in self.all("Secret")
        }

    @property
    def groups(self) -> list[dict[str, Any]]:
        return list(self.one("PrometheusRule")["spec"]["groups"])


class Container:
    """The container's files laid under a directory as a kubelet does, and how it is started."""

    def __init__(self, rendered: Rendered, others: dict[str, dict[str, str]], root: Path) -> None:
        known_secrets = others | rendered.secrets
        config_maps = {
            manifest["metadata"]["name"]: manifest["data"] for manifest in rendered.all("ConfigMap")
        }
        config_maps["authority"] = {}
        volumes = {volume["name"]: volume for volume in rendered.pod["volumes"]}
        mounts = {
            mount["mountPath"]: volumes[mount["name"]]
            for mount in rendered.container["volumeMounts"]
        }
        self._root, self._paths = root, list(mounts)
        for path, volume in mounts.items():
            directory = Path(self.here(path))
            directory.mkdir(parents=True)
            if "configMap" in volume:
                for name, text in config_maps[volume["configMap"]["name"]].items():
                    (directory / name).write_text(self.here(text))
            for source in volume.get("projected", {}).get("sources", []):
                for item in source["secret"]["items"]:
                    secret = known_secrets[source["secret"]["name"]]
                    (directory / item["path"]).write_text(secret[item["key"]])
        self.arguments = [self.here(argument) for argument in rendered.container["args"]]
        self.environment = {
            variable["name"]: variable["value"] for variable in rendered.container.get("env", [])
        }

    def here(self, text: str) -> str:
        """With the paths in the container as they are on this machine."""
        for path in self._paths:
            text = text.replace(path, f"{self._root}{path}")
        return text

    @property
    def settings(self) -> Settings:
        [argument] = self.arguments
        return load({}, self.environment, Path(argument.removeprefix("--config=")))


def refusal(values: Values) -> str:
    with pytest.raises(helm.HelmError) as caught:
        Rendered(values)
    return str(caught.value)


# What Helm and Kubernetes say of it


def test_the_chart_has_the_version_of_the_program() -> None:
    metadata = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert metadata["version"] == metadata["appVersion"] == __version__
    assert Rendered(LEAST).container["image"] == f"bullmq-exporter:{__version__}"
    built = re.findall(r"bullmq-exporter:(\S+)", (CHART / "README.md").read_text())
    assert set(built) == {__version__}


@each_case
def test_helm_has_nothing_to_complain_about(values: Values) -> None:
    found = helm.lint(CHART, dict(values), strict=True)
    assert [message for message in found["messages"] if message["severity"] > 1] == []
    assert found["errors"] == []


def supported_versions() -> tuple[str, str]:
    metadata = yaml.safe_load((CHART / "Chart.yaml").read_text())
    oldest = re.fullmatch(r">=(\d+\.\d+)\.0-0", metadata["kubeVersion"])
    assert oldest
    return oldest[1], kubernetes_validate.latest_version()


@each_case
def test_kubernetes_takes_every_manifest(values: Values) -> None:
    for manifest in Rendered(values).manifests:
        if manifest["apiVersion"].startswith("monitoring.coreos.com/"):
            continue
        for version in supported_versions():
            # Another version's schemas stand in for those that it does not have.
            assert kubernetes_validate.validate(manifest, version, strict=True) == version[:4]


def test_the_prometheus_operator_takes_its_manifests() -> None:
    # Here, for it takes two seconds.
    models = importlib.import_module("cloudcoil.models.prometheus_operator.v1")
    for name in ("existing-secrets", "everything"):
        rendered = Rendered(CASES[name])
        for kind in ("ServiceMonitor", "PrometheusRule"):
            manifest = rendered.one(kind)
            taken = getattr(models, kind).model_validate(manifest)
            # What it does not know is dropped, as the operator does.
            assert taken.model_dump(mode="json", by_alias=True, exclude_unset=True) == manifest


@each_case
def test_the_manifests_find_each_other(values: Values, others: dict[str, dict[str, str]]) -> None:
    rendered = Rendered(values)
    labels = rendered.template["metadata"]["labels"].items()
    service = rendered.one("Service")
    assert rendered.one("Deployment")["spec"]["selector"]["matchLabels"].items() <= labels
    assert service["spec"]["selector"].items() <= labels
    ports = {port["name"]: port for port in service["spec"]["ports"]}
    assert {name: port["targetPort"] for name, port in ports.items()} == {
        "metrics": "metrics",
        "api": "api",
    }
    assert {name: port["port"] for name, port in ports.items()} == rendered.ports
    for ingress in rendered.all("Ingress"):
        [rule] = ingress["spec"]["rules"]
        [path] = rule["http"]["paths"]
        backend = {"name": service["metadata"]["name"], "port": {"name": "api"}}
        assert path["backend"]["service"] == backend
    for policy in rendered.all("NetworkPolicy"):
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels
        opened = [rule["ports"] for rule in policy["spec"]["ingress"]]
        assert opened == [[{"port": name}] for name in ports]
    known_secrets = rendered.secrets | others
    for monitor in rendered.all("ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        assert wanted <= service["metadata"]["labels"].items()
        [endpoint] = monitor["spec"]["endpoints"]
        assert endpoint["port"] == "metrics"
        login = [endpoint["basicAuth"][part] for part in ("username", "password")]
        given = [known_secrets[part["name"]][part["key"]] for part in login]
        assert given == ["prometheus", HIDDEN["metrics.password"]]
    claims = {claim["metadata"]["name"] for claim in rendered.all("PersistentVolumeClaim")}
    assert claims == {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in rendered.pod["volumes"]
        if "persistentVolumeClaim" in volume
    }


@each_case
def test_a_restricted_namespace_lets_the_pod_in(values: Values) -> None:
    """By Kubernetes' Pod Security Standards, and with what they leave open closed."""
    rendered = Rendered(values)
    pod, container = rendered.pod, rendered.container
    of_pod, of_container = pod["securityContext"], container["securityContext"]
    assert (of_pod["runAsUser"], of_pod["runAsGroup"], of_pod["fsGroup"]) == (65532,) * 3
    assert of_pod["runAsNonRoot"] is True
    assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert of_container == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    kinds = {kind for volume in pod["volumes"] for kind in volume.keys() - {"name"}}
    assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "projected"}


# Values


def in_schema(schema: Any, whole: Any) -> Any:
    """The names that a schema allows, as deep as it allows no others."""
    if "$ref" in schema:
        schema = whole["definitions"][schema["$ref"].rpartition("/")[2]]
    if schema.get("additionalProperties", True) is not False:
        return None
    return {name: in_schema(inner, whole) for name, inner in schema["properties"].items()}


def test_the_schema_allows_what_stands_in_the_values_and_nothing_else() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(allowed: Any, given: Any, at: str) -> None:
        if allowed is None or given == {}:
            return
        assert allowed.keys() == given.keys(), at
        for name, inner in allowed.items():
            compare(inner, given[name], f"{at}.{name}")

    allowed = in_schema(schema, schema)
    del allowed["global"]
    compare(allowed, values, "values")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "where are the queues? Set config.redis.host, or config.postgres.host"),
        ({"replicaCount": 2}, "additional properties 'replicaCount' not allowed"),
        ({"image": {"tga": "1"}}, "at '/image': additional properties 'tga' not allowed"),
        ({"ingress": {"enabled": "yes"}}, "at '/ingress/enabled': got string, want boolean"),
        ({"secrets": {"redis": {"passwort": {}}}}, "additional properties 'passwort' not allowed"),
        ({"secrets": {"api": {"key": {"value": 1}}}}, "at '/secrets/api/key/value': got number"),
        ({"secrets": {"api": {"key": {"existingSecret": "a"}}}}, "'key' required"),
        ({"secrets": {"files": {"../a": {"value": "b"}}}}, "'../a' does not match pattern"),
        ({"config": {"metrics": {"listen": "9538"}}}, "at '/config/metrics/listen': '9538' does"),
        ({"config": {"api": {"listen": ":0"}}}, "at '/config/api/listen': ':0' does not match"),
        ({"config": {"metrics": None}}, "at '/config': missing property 'metrics'"),
        ({"links": {"jobs": "jobs.example.com"}}, "at '/links/jobs': 'jobs.example.com' does not"),
        ({"service": {"type": "Ingress"}}, "must be one of 'ClusterIP', 'NodePort', 'LoadBal"),
        (merged(LEAST, {"ingress": {"enabled": True}}), "ingress.host: under which name"),
        (
            merged(LEAST, {"secrets": {"api": {"key": by_value("api.key") | existing("api.key")}}}),
            "secrets.api.key: set value or existingSecret, not both",
        ),
        (
            merged(TARGETS, secrets(existing, "redis.password")),
            "secrets.redis.password: cannot be combined with config.targets; use secrets.files",
        ),
        (
            merged(LEAST, secrets(existing, "api.key"), {"config": {"api": {"key_file": "/a"}}}),
            "config.api.key_file and secrets.api.key: set one of the two",
        ),
        (
            merged(LEAST, MONITORING, {"config": {"metrics": {"user": "a"}}}),
            "config.metrics.user goes together with secrets.metrics.password",
        ),
    ],
)
def test_what_is_wrong_in_the_values_is_reported(values: Values, expected: str) -> None:
    assert expected in refusal(values)


def examples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.+?)```", (CHART / "README.md").read_text(), re.DOTALL)


def assert_the_exporter_takes(values: Values, root: Path) -> None:
    """With whatever is in the Secrets that they name."""
    others: dict[str, dict[str, str]] = {}
    somewhere = {"targets", "postgres"} & values.get("config", {}).keys()
    rendered = Rendered(values if somewhere else merged(LEAST, values))
    for volume in rendered.pod["volumes"]:
        for source in volume.get("projected", {}).get("sources", []):
            for item in source["secret"]["items"]:
                secret = others.setdefault(source["secret"]["name"], {})
                is_url = item["key"] == "url"
                secret[item["key"]] = POSTGRES_URL if is_url else "long-enough-for-a-key"
    assert Container(rendered, others, root).settings


def test_the_examples_of_the_readme_work(tmp_path: Path) -> None:
    for number, example in enumerate(examples("yaml")):
        assert_the_exporter_takes(yaml.safe_load(example), tmp_path / str(number))
    [commands] = examples("sh")
    words = shlex.split(commands.replace("\\\n", " "))
    flags = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
    assert_the_exporter_takes(helm.parse_set_string(",".join(flags)), tmp_path / "flags")


# Settings and secrets


@each_case
def test_the_exporter_takes_the_settings_as_they_are_given_to_it(
    values: Values, others: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    rendered = Rendered(values)
    settings = Container(rendered, others, tmp_path).settings
    assert rendered.ports == {
        "metrics": settings.metrics.listen.port,
        "api": settings.api.listen.port,
    }
    state = settings.events.state_file
    assert state == tmp_path / "var/lib/bullmq-exporter/state"


@pytest.mark.parametrize("source", [by_value, existing])
def test_every_secret_reaches_the_exporter(
    source: Any, others: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    values = merged(SENTINELS, secrets(source, *SETTABLE))
    settings = Container(Rendered(values), others, tmp_path / "all").settings
    found = {
        "redis.password": settings.redis.password,
        "redis.sentinel_password": settings.redis.sentinel_password,
        "metrics.password": settings.metrics.password,
        "api.key": settings.api.key,
        "api.jwt_secret": settings.api.jwt_secret,
    }
    assert {path: secret and secret.get_secret_value() for path, secret in found.items()} == {
        path: HIDDEN[path] for path in SETTABLE
    }
    # So that a password that changes is taken over.
    assert settings.redis.password_file == tmp_path / f"all{DIRECTORY}/redis.password"
    by_url = Container(Rendered(secrets(source, "redis.url")), others, tmp_path / "url").settings
    assert by_url.redis.password
    assert by_url.redis.password.get_secret_value() == "secret-within-the-url"


@pytest.mark.parametrize("source", [by_value, existing])
def test_the_secrets_of_postgres_reach_the_exporter(
    source: Any, others: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    values = merged(POSTGRES, {"secrets": {"postgres": {"password": None}}})
    values = merged(values, secrets(source, "postgres.password"))
    settings = Container(Rendered(values), others, tmp_path / "all").settings
    assert settings.in_postgres
    assert settings.postgres.password
    assert settings.postgres.password.get_secret_value() == HIDDEN["postgres.password"]
    assert settings.postgres.password_file == tmp_path / f"all{DIRECTORY}/postgres.password"
    by_url = Container(Rendered(secrets(source, "postgres.url")), others, tmp_path / "url").settings
    assert by_url.postgres.password
    assert by_url.postgres.password.get_secret_value() == "secret-within-the-url"
    assert (by_url.postgres.host, by_url.postgres.database) == ("database", "archive")


def test_the_secrets_of_targets_and_lists_reach_the_exporter(
    others: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    settings = Container(Rendered(TARGETS), others, tmp_path).settings
    passwords = [target.redis.password for target in settings.targets]
    assert [password and password.get_secret_value() for password in passwords] == [
        "secret-of-eu",
        "secret-within-the-url",
    ]
    assert settings.api.keys[0].key.get_secret_value() == "a-key-of-grafana-0123456789"


def test_every_setting_can_be_given_and_arrives_as_it_is(tmp_path: Path) -> None:
    config = yaml.safe_load(REFERENCE.read_text())
    settings = Container(Rendered({"config": config}), {}, tmp_path).settings
    assert settings == load({}, {}, REFERENCE)
    # What Helm could make something else of.
    odd = {
        "queues": ["1e3", "007", "yes", "null", "{{ .Values }}", "a,b", "#x"],
        "max_queues": 1_000_000_000,
        "poll_interval": 0.1,
        "redis": {"host": "valkey"},
        "events": {"enabled": False, "wait_buckets": [0.001, 1e7]},
    }
    settings = Container(Rendered({"config": odd}), {}, tmp_path / "odd").settings
    assert list(settings.queues) == odd["queues"]
    assert (settings.max_queues, settings.poll_interval) == (1_000_000_000, 0.1)
    assert settings.events.wait_buckets == (0.001, 1e7)
    assert settings.events.enabled is False


def test_what_is_not_given_is_as_the_program_has_it(tmp_path: Path) -> None:
    settings = Container(Rendered(LEAST), {}, tmp_path).settings
    own = {"redis.host": "valkey", "events.state_file": settings.events.state_file}
    defaults = load({}, {})
    for path, value in own.items():
        section, name = path.split(".")
        changed = getattr(defaults, section).model_copy(update={name: value})
        defaults = defaults.model_copy(update={section: changed})
    assert settings == defaults


def test_no_secret_stands_outside_of_secrets() -> None:
    values = merged(CASES["secrets-by-value"], {"ingress": {"enabled": True, "host": "a.example"}})
    for rendered, hidden in (
        (Rendered(values), {HIDDEN[path] for path in SETTABLE}),
        (Rendered(secrets(by_value, "redis.url")), {URL}),
        (Rendered(TARGETS), {URL, "a-key-of-grafana-0123456789"}),
    ):
        held = {value for data in rendered.secrets.values() for value in data.values()}
        assert held - {"prometheus"} == hidden
        output = rendered.notes + "".join(
            json.dumps(manifest, ensure_ascii=False)
            for manifest in rendered.manifests
            if manifest["kind"] != "Secret"
        )
        for secret in hidden:
            assert secret not in output
            assert b64encode(secret.encode()).decode() not in output
            assert json.dumps(secret) not in output


@pytest.mark.parametrize(
    ("path", "config"),
    [
        *((path, {path.split(".")[0]: {path.split(".")[1]: HIDDEN[path]}}) for path in SECRETS),
        ("targets.0.redis.url", {"targets": [{"name": "a", "redis": {"url": URL}}]}),
        ("targets.1.redis.password", {"targets": [{}, {"redis": {"password": HIDDEN["api.key"]}}]}),
        ("api.keys.0.key", {"api": {"keys": [{"name": "a", "key": HIDDEN["api.key"]}]}}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_secret_in_the_config_is_refused_and_not_repeated(path: str, config: Values) -> None:
    message = refusal(merged(LEAST, {"config": config}))
    assert f"config.{path}: everybody may read a ConfigMap" in message
    assert (f"set secrets.{path}" if path in SECRETS else "use secrets.files") in message
    assert "secret of" not in message
    assert URL not in message


def test_the_pod_is_replaced_when_its_settings_or_secrets_change() -> None:
    before = merged(LEAST, secrets(by_value, "api.key"))

    def checksums(changed: Values) -> dict[str, str]:
        return dict(Rendered(merged(before, changed)).template["metadata"]["annotations"])

    unchanged = checksums({})
    assert checksums({"dashboards": {"enabled": True}}) == unchanged
    for name, changed in (
        ("config", {"config": {"poll_interval": 2}}),
        ("secret", {"secrets": {"api": {"key": {"value": "another-key-0123456789"}}}}),
    ):
        differing = {key for key, sum_ in checksums(changed).items() if unchanged[key] != sum_}
        assert differing == {f"checksum/{name}"}


def test_there_are_never_two_exporters_at_once() -> None:
    deployment = Rendered(EVERYTHING).one("Deployment")["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})


def test_the_state_is_on_the_volume_that_one_asks_for() -> None:
    def state(values: Values) -> Any:
        rendered = Rendered(merged(LEAST, values))
        [volume] = [each for each in rendered.pod["volumes"] if each["name"] == "state"]
        return {kind: it for kind, it in volume.items() if kind != "name"}, rendered

    assert state({})[0] == {"emptyDir": {}}
    volume, rendered = state({"persistence": {"enabled": True}})
    name = rendered.one("PersistentVolumeClaim")["metadata"]["name"]
    assert volume == {"persistentVolumeClaim": {"claimName": name}}
    volume, rendered = state({"persistence": {"enabled": True, "existingClaim": "mine"}})
    assert volume == {"persistentVolumeClaim": {"claimName": "mine"}}
    assert rendered.all("PersistentVolumeClaim") == []


# Monitoring


def originals() -> list[dict[str, Any]]:
    file = ROOT / "config" / "kubernetes" / "prometheus-rule.yml"
    return list(yaml.load(file.read_text(), yaml.CSafeLoader)["spec"]["groups"])


def rules(values: Values) -> list[dict[str, Any]]:
    return Rendered(merged(LEAST, MONITORING, values)).groups


def limits() -> dict[str, str]:
    [group] = yaml.safe_load((RULES / "limits.yml").read_text())["groups"]
    named = {rule["record"].removeprefix("bullmq:limit:"): rule["expr"] for rule in group["rules"]}
    return {name: expr for name, expr in named.items() if ":" not in name}


def test_the_rules_are_those_of_the_project() -> None:
    assert rules({}) == originals()


def test_links_and_limits_are_put_in_and_nothing_else_changes(tmp_path: Path) -> None:
    own = {name: f"({expr}) * 2" for name, expr in limits().items()}
    links = {
        "jobs": "https://jobs.example.com",
        "dashboards": "https://grafana.example.com/sub",
        "runbooks": "https://example.com/'runbooks'",
    }
    given = {name: f"{url}/" for name, url in links.items()}
    groups = rules({"links": given, "limits": own})
    expected = originals()
    for rule in expected[0]["rules"]:
        if rule["record"] == "bullmq:links":
            rule["labels"] = links
        elif rule["record"].startswith("bullmq:limit:"):
            rule["expr"] = own[rule["record"].removeprefix("bullmq:limit:")]
    assert groups == expected
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": groups}))
    command = [program("promtool", "prometheus"), "check", "rules", str(file)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_alerts_lead_to_the_ingress_where_there_is_one() -> None:
    def link(values: Values) -> str:
        [labels] = [
            rule["labels"] for rule in rules(values)[0]["rules"] if rule["record"] == "bullmq:links"
        ]
        return str(labels["jobs"])

    ingress = {"ingress": {"enabled": True, "host": "jobs.example.com"}}
    assert link(ingress) == "http://jobs.example.com"
    with_tls = merged(ingress, {"ingress": {"tls": [{"hosts": ["jobs.example.com"]}]}})
    assert link(with_tls) == "https://jobs.example.com"
    elsewhere = {"links": {"jobs": "https://elsewhere.example.com"}}
    assert link(merged(with_tls, elsewhere)) == "https://elsewhere.example.com"


def test_a_limit_that_does_not_exist_is_refused_with_those_that_do() -> None:
    message = refusal(merged(LEAST, MONITORING, {"limits": {"failed_job": "20 * bullmq:queue"}}))
    assert f"limits.failed_job: no such limit; there are {', '.join(limits())}" in message


@pytest.mark.parametrize("name", limits())
def test_a_limit_that_would_silence_its_alert_is_refused(name: str) -> None:
    message = refusal(merged(LEAST, MONITORING, {"limits": {name: "20"}}))
    assert f"limits.{name}: it has to hold " in message


def test_the_series_go_on_when_the_pod_is_replaced() -> None:
    [endpoint] = Rendered(EVERYTHING).one("ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["relabelings"] == [
        {"action": "labeldrop", "regex": "pod"},
        {"action": "replace", "targetLabel": "instance", "replacement": "queues/queues"},
        *EVERYTHING["serviceMonitor"]["relabelings"],
    ]


def test_with_a_certificate_the_metrics_port_is_asked_by_https() -> None:
    for values, schemes in (
        (LEAST, ("HTTP", "HTTP", None)),
        (EVERYTHING, ("HTTPS",) * 2 + ("https",)),
    ):
        rendered = Rendered(merged(MONITORING, values))
        probes = [rendered.container[f"{kind}Probe"] for kind in ("liveness", "readiness")]
        [endpoint] = rendered.one("ServiceMonitor")["spec"]["endpoints"]
        asked = [*(probe["httpGet"]["scheme"] for probe in probes), endpoint.get("scheme")]
        assert asked == list(schemes)


def test_grafana_gets_every_dashboard_as_it_is() -> None:
    found: dict[str, str] = {}
    for manifest in Rendered(merged(LEAST, MONITORING)).all("ConfigMap"):
        if manifest["metadata"]["labels"].get("grafana_dashboard") == "1":
            assert manifest["metadata"]["annotations"] == {"grafana_folder": "BullMQ"}
            found |= manifest["data"]
    assert found == {file.name: file.read_text() for file in DASHBOARDS.glob("*.json")}


# What a user does with it


def test_the_package_holds_what_the_chart_links_to(tmp_path: Path) -> None:
    package = Path(helm.package(CHART, destination=tmp_path))
    with tarfile.open(package) as archive:
        assert all(member.isfile() for member in archive)
    assert Rendered(EVERYTHING, package).texts == Rendered(EVERYTHING).texts


def test_what_is_printed_after_the_installation_is_right() -> None:
    assert "It rejects every request: no credential is configured." in Rendered(LEAST).notes
    notes = Rendered(CASES["secrets-by-value"]).notes
    assert "rejects every request" not in notes
    assert (
        "kubectl -n queues get secret demo-bullmq-exporter"
        " -o go-template='{{index .data \"api.key\" | base64decode}}'" in notes
    )
    assert "kubectl -n queues port-forward svc/demo-bullmq-exporter 9539:9539" in notes
    notes = Rendered(EVERYTHING).notes
    assert "get secret of-the-user" in notes
    assert "https://jobs.example.com" in notes


def test_the_container_answers_its_probes_and_lets_in_who_has_the_key(tmp_path: Path) -> None:
    password, key = HIDDEN["redis.password"], HIDDEN["api.key"]
    with running("valkey", tmp_path, "--requirepass", password) as server:
        values = merged(
            secrets(by_value, "redis.password", "api.key", "metrics.password"),
            {
                "config": {
                    "poll_interval": 0.2,
                    "redis": {"host": "127.0.0.1", "port": server.port},
                    "metrics": {"listen": f"127.0.0.1:{free_port()}", "user": "prometheus"},
                    "api": {"listen": f"127.0.0.1:{free_port()}"},
                }
            },
        )
        rendered = Rendered(values)
        container = Container(rendered, {}, tmp_path / "root")
        environment = clean_environment(**container.environment)
        command = [sys.executable, "-m", "exporter", *container.arguments]
        ports = {name: Client(f"http://127.0.0.1:{port}") for name, port in rendered.ports.items()}

        def probe(kind: str) -> int:
            asked = rendered.container[f"{kind}Probe"]["httpGet"]
            return ports[asked["port"]].get(asked["path"]).status

        process = subprocess.Popen(command, env=environment)
        try:
            eventually(lambda: probe("readiness") == 200)
            assert probe("liveness") == 200
            assert ports["api"].get("/v1/jobs/queues", X_API_KEY=key).status == 200
            assert ports["api"].get("/v1/jobs/queues", X_API_KEY=f"{key}?").status == 401
            [command_line] = re.findall("exec .+ -- bullmq-exporter (.+)", rendered.notes)
            check = [*command[:3], *shlex.split(container.here(command_line))]
            checked = subprocess.run(
                check, env=environment, capture_output=True, text=True, check=False
            )
            assert checked.returncode == 1, checked.stderr
            assert "answers; 0 queues" in checked.stdout
            assert "no BullMQ queue found" in checked.stdout
            eventually(Path(container.here("/var/lib/bullmq-exporter/state")).is_file)
            server.stop()
            eventually(lambda: probe("readiness") == 503)
            assert probe("liveness") == 200
            # Not ready, and still to be asked by Prometheus and by people.
            assert rendered.one("Service")["spec"]["publishNotReadyAddresses"] is True
            login = b64encode(f"prometheus:{HIDDEN['metrics.password']}".encode()).decode()
            page = ports["metrics"].get("/metrics", Authorization=f"Basic {login}")
            assert "\nbullmq_up 0.0\n" in page.text
        finally:
            process.terminate()
            process.wait()
