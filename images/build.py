"""Build the container images with buildah: `python images/build.py [operator worker agent worker-cuda] [--archive FOLDER]`.

An image's tag is a hash of everything that it is made of, so what is there already is not built again. Where the base image cannot be pulled,
an image of the same name is made with debootstrap (root).
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BASE = "docker.io/library/debian:bookworm-slim"
REPOSITORY = os.environ.get("DRAM_IMAGE_REPOSITORY", "dram.test")
SHARED = (
    "operator",
    "workers",
    "pyproject.toml",
    "constraints.txt",
    "README.md",
    "LICENSE",
    "images/requirements.py",
    "images/sbom.py",
)
IMAGES = ("operator", "worker", "agent")
CUDA = "worker-cuda"
"""The worker's image for GPUs: several GiB, so it is built where it is asked for."""
PAUSE = 'FROM {base}\nUSER 65532:65532\nENTRYPOINT ["/bin/sleep", "infinity"]\n'


def storage() -> list[str]:
    """Flags that keep our images apart from the user's own."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dram" / "buildah"
    return ["--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", "overlay"]


def buildah(*arguments: str, quiet: bool = False) -> str:
    """Run buildah; its standard output is returned, its errors end the program with their text."""
    command = ["buildah", *storage(), *arguments]
    done = subprocess.run(command, cwd=ROOT, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode and not quiet:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-6000:]}")
    return "" if done.returncode else done.stdout


def exists(image: str) -> bool:
    """Whether an image is in the store."""
    return bool(buildah("images", "--quiet", image, quiet=True).strip())


def tag(name: str) -> str:
    """The image's name with the hash of its sources."""
    digest = hashlib.sha256(" ".join(_settings(name)).encode())
    for source in (*SHARED, f"images/{_folder(name)}"):
        path = ROOT / source
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts and ".egg-info" not in str(file):
                digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return f"{REPOSITORY}/{name}:{digest.hexdigest()[:12]}"


def _folder(name: str) -> str:
    return "worker" if name == CUDA else name


def _settings(name: str) -> list[str]:
    """What else a build depends on: the version, the accelerator, and the folder of wheels that torch's CPU build may come from."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    label = ["--label", f"org.opencontainers.image.version={version}"]
    if name == CUDA:
        return [*label, "--build-arg", "ACCELERATOR=cuda"]
    wheels = os.environ.get("UV_FIND_LINKS", "")
    return [
        *label,
        *(["--build-context", f"wheels={Path(wheels).resolve()}"] if wheels and Path(wheels).is_dir() else []),
    ]


def ensure_base() -> None:
    """Have the base image: pulled, or made by debootstrap under the same name."""
    if exists(BASE) or buildah("pull", "--quiet", BASE, quiet=True):
        return
    with tempfile.TemporaryDirectory(prefix="dram-base-") as folder:
        tree = Path(folder) / "tree"
        command = ["debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", str(tree)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        bundle = Path("/etc/ssl/certs/ca-certificates.crt")
        if bundle.exists():
            # The package registries may be reached through an authority that only this machine knows.
            shutil.copy(bundle, tree / "etc/ssl/certs/ca-certificates.crt")
        shutil.rmtree(tree / "var/cache/apt/archives", ignore_errors=True)
        container = buildah("from", "scratch").strip()
        buildah("copy", "--quiet", container, str(tree), "/")
        buildah(
            "config",
            "--env",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "--cmd",
            "bash",
            container,
        )
        buildah("commit", "--quiet", container, BASE)
        buildah("rm", container)


def build(name: str) -> str:
    """Build an image unless it is there; returns its full name."""
    image = tag(name)
    if not exists(image):
        ensure_base()
        sys.stderr.write(f"building {image}\n")
        file = str(ROOT / "images" / _folder(name) / "Dockerfile")
        how = ["--isolation", "chroot", "--network", "host", "--layers", "--pull-never"]
        buildah("bud", *how, *_settings(name), "--file", file, "--tag", image, str(ROOT))
        _forget_older(image)
    return image


def _forget_older(image: str) -> None:
    """Take the names from earlier builds; layers that the cache still uses stay."""
    repository = image.rsplit(":", 1)[0]
    names = buildah("images", "--format", "{{.Name}}:{{.Tag}}", "--filter", f"reference={repository}").split()
    for name in names:
        if name != image:
            buildah("rmi", name, quiet=True)


def build_pause() -> str:
    """The image that holds a pod's namespaces on the test node."""
    image = f"{REPOSITORY}/pause:1"
    if not exists(image):
        ensure_base()
        with tempfile.TemporaryDirectory(prefix="dram-pause-") as folder:
            file = Path(folder) / "Dockerfile"
            file.write_text(PAUSE.format(base=BASE))
            buildah("bud", "--isolation", "chroot", "--pull-never", "--file", str(file), "--tag", image, folder)
    return image


def archive(image: str, folder: Path) -> Path:
    """Write an image as a file that a container runtime can import; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{image.replace('/', '_').replace(':', '_')}.tar"
    if not file.exists():
        partial = file.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        buildah("push", "--quiet", image, f"docker-archive:{partial}:{image}")
        partial.rename(file)
    return file


def main() -> None:
    """Build what is named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="*", choices=[*IMAGES, CUDA, []], default=list(IMAGES))
    parser.add_argument("--archive", type=Path, help="also write every image as a file into this folder")
    given = parser.parse_args()
    for name in given.images:
        image = build(name)
        sys.stdout.write(f"{archive(image, given.archive) if given.archive else image}\n")


if __name__ == "__main__":
    main()
