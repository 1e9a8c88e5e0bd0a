"""What a person gets wrong on the command line is answered with a sentence that names it, and never with a traceback."""

import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from dram_operator.cli import main
from tests.operator.cli.test_fleet import options

EXAMPLES = Path(__file__).parents[3] / "examples"
NOBODY = "http://127.0.0.1:1"
DIGEST = "0" * 64
REPOSITORY = ("--repository", "s3://releases", "--endpoint", NOBODY)


@pytest.fixture
def key(tmp_path: Path) -> str:
    """A signing key in a file."""
    assert CliRunner().invoke(main, ["agent", "new-key", str(tmp_path / "k.pem")]).exit_code == 0
    return str(tmp_path / "k.pem")


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        (
            ("run", "-f", str(EXAMPLES / "minimal" / "job.yaml"), "--workdir", "/proc/none"),
            "/proc/none: No such file or directory",
        ),
        (("release", "sign", DIGEST, "--key", "KEY", "--root", "/none", *REPOSITORY), "/none: No such file"),
        (("release", "sign", DIGEST, "--key", "/none", "--root", "KEY", *REPOSITORY), "/none is no readable private"),
        (
            ("keys", "init", "--keys", "x", "--repository", "s3://r", "--endpoint", "s3.example.com"),
            "no address of an S3",
        ),
        (
            ("keys", "init", "--keys", "x", "--repository", "s3://a b", "--endpoint", NOBODY),
            'Invalid bucket name "a b"',
        ),
    ],
)
def test_what_cannot_be_used_is_named(arguments: tuple[str, ...], want: str, key: str) -> None:
    given = [key if word == "KEY" else word for word in arguments]
    result = CliRunner(env={"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}).invoke(main, given)
    assert (result.exit_code, want in result.output) == (4, True), result.output


def test_a_profile_that_is_not_there_is_named() -> None:
    runner = CliRunner(env={"AWS_PROFILE": "nobody", "AWS_CONFIG_FILE": "/none"})
    result = runner.invoke(main, ["keys", "init", "--keys", "x", *REPOSITORY])
    assert (result.exit_code, "profile (nobody) could not be found" in result.output) == (4, True), result.output


@pytest.mark.parametrize(
    ("wrong", "want"),
    [(("--listen", "here"), "'here' is not HOST:PORT"), (("--channel", "ab"), "is not NAMESPACE/NAME")],
)
def test_a_fleet_says_which_word_has_not_the_form(wrong: tuple[str, str], want: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["fleet", *options(tmp_path), *wrong])
    assert (result.exit_code, want in result.output) == (2, True), result.output


def test_an_address_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = CliRunner().invoke(main, ["fleet", *options(tmp_path, port)])
    assert (result.exit_code, f"('127.0.0.1', {port})" in result.output) == (4, True), result.output


@pytest.mark.parametrize("command", ["agent", "gateway"])
@pytest.mark.parametrize(("content", "want"), [(b"\xff\xfe", "can't decode byte"), (b"listen: here", "listen: ")])
def test_settings_of_devices_that_cannot_be_read_are_named(
    command: str, content: bytes, want: str, tmp_path: Path
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_bytes(content)
    result = CliRunner().invoke(main, [command, "--config", str(file)])
    assert (result.exit_code, f"{file}" in result.output, want in result.output) == (2, True, True), result.output
