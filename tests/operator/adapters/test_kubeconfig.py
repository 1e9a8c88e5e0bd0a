"""A kubeconfig that cannot be used says why, and short-lived credentials are renewed."""

import asyncio
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from dram_operator.adapters.kubeconfig import connect
from dram_operator.cli import main

EXPIRED = "2020-01-01T00:00:00Z"
VERSION = "client.authentication.k8s.io/v1"


def kubeconfig(user: dict[str, Any]) -> str:
    """A kubeconfig of one user, as text."""
    cluster = {"server": "https://127.0.0.1:1"}
    return yaml.safe_dump(
        {
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "tv"}}],
            "current-context": "here",
        }
    )


def plugin(command: str, *arguments: str) -> dict[str, Any]:
    """A user whose credentials come from a program."""
    given = {"apiVersion": VERSION, "command": command, "args": list(arguments), "interactiveMode": "Never"}
    return {"exec": given}


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (None, "there is no file "),
        ("", " is not in the form of one"),
        ("[1, 2]", " is not in the form of one"),
        ("a: [b", "expected ',' or ']'"),
        ("clusters: []", "Expected key current-context"),
        ("\xff\xfe", "can't decode byte"),
        (kubeconfig({"client-certificate": "/none.crt", "client-key": "/none.key"}), "/none.crt"),
        (kubeconfig({"client-certificate-data": "x", "client-key-data": "x"}), "base64"),
        (kubeconfig({"tokenFile": "/none"}), "No such file or directory: '/none'"),
        (kubeconfig(plugin("no-such-plugin")), "the context here has no credentials: log in again"),
        (kubeconfig(plugin("false")), "the context here has no credentials: log in again"),
        (kubeconfig(plugin("echo", "no JSON")), "the context here has no credentials: log in again"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_says_why(tmp_path: Path, text: str | None, want: str) -> None:
    file = tmp_path / "config"
    if text is not None:
        file.write_text(text, encoding="latin-1")
    result = CliRunner().invoke(main, ["get", "--kubeconfig", str(file)])
    assert (result.exit_code, want in result.output) == (4, True), result.output
    assert "--kubeconfig" in result.output, "the remedy"


def test_the_environment_names_several_files_and_an_empty_one_names_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config"
    file.write_text(kubeconfig({"token": "t"}))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/none:{file}")
    assert namespace_of(None) == "tv"
    monkeypatch.setenv("KUBECONFIG", "")
    (tmp_path / ".kube").mkdir()
    file.rename(tmp_path / ".kube" / "config")
    assert namespace_of(None) == "tv"


def test_a_plugins_token_is_renewed_when_it_has_expired(tmp_path: Path) -> None:
    program, file = tmp_path / "plugin", tmp_path / "config"
    answer = f'{{"apiVersion":"{VERSION}","kind":"ExecCredential","status":{{"token":"t%d","expirationTimestamp":"{EXPIRED}"}}}}'
    program.write_text(f"#!/bin/sh\necho >> {tmp_path}/asked\nprintf '{answer}' $(wc -l < {tmp_path}/asked)\n")
    program.chmod(stat.S_IRWXU)
    file.write_text(kubeconfig(plugin(str(program))))

    async def tokens() -> list[str | None]:
        api, _ = await connect(file, None)
        try:
            return [(await api.credentials()).token for _ in range(2)]
        finally:
            await api.close()

    assert asyncio.run(tokens()) == ["t2", "t3"]


def namespace_of(file: Path | None) -> str:
    async def look() -> str:
        api, namespace = await connect(file, None)
        await api.close()
        return namespace

    return asyncio.run(look())
