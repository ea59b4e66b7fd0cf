"""What is shipped to run it elsewhere is at least well formed, and agrees with swapper."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from swapper.config import parse_config

ROOT = Path(__file__).parents[2]
INSTRUCTIONS = {
    "ARG",
    "FROM",
    "RUN",
    "COPY",
    "ENV",
    "USER",
    "VOLUME",
    "EXPOSE",
    "STOPSIGNAL",
    "HEALTHCHECK",
    "ENTRYPOINT",
    "CMD",
}


def manifest(kind):
    documents = yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text())
    return next(document for document in documents if document["kind"] == kind)


def test_the_manifests_configuration_is_one(tmp_path):
    (tmp_path / "key").write_text("secret")
    text = manifest("ConfigMap")["data"]["config.yaml"]
    text = text.replace("/run/secrets/swapper/api-key", str(tmp_path / "key"))
    config = parse_config(text, "config.yaml", tmp_path, {})
    assert config.listen[0].port == manifest("Service")["spec"]["ports"][0]["port"]
    assert [key.key for key in config.api_keys] == ["secret"]


def test_its_probes_are_answered_without_a_key(serve):
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    swapper = serve("models: {a: {engine: echo}}\napi_keys: [secret]")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert swapper.get(container[probe]["httpGet"]["path"]).status_code == 200
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


def test_a_containerfile_of_instructions():
    text = re.sub(r"\\\n", "", (ROOT / "Containerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert {line.split()[0] for line in lines} <= INSTRUCTIONS
    assert lines[-2:] == [
        'ENTRYPOINT ["tini", "--", "swapper"]',
        'CMD ["serve", "--config", "/etc/swapper/config.yaml"]',
    ]
