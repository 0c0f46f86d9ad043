"""The scripts of the page on several processes, run as the page says."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "examples" / "launch"
ACCURACY = r"accuracy 0\.9[5-9]\d, noise 0\.4"


def run(*command):
    """Run a script; return what it prints."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def needs(name):
    return pytest.mark.skipif(
        importlib.util.find_spec(name) is None, reason=f"{name} is not installed"
    )


def launched_by(name):
    """Return the path of a command that was installed beside the interpreter."""
    path = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    return path or pytest.skip(f"the command {name} is not there")


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--sharded"]])
def test_torchrun(more):
    command = [launched_by("torchrun"), "--nproc-per-node", "2", SCRIPTS / "train_torchrun.py"]
    assert re.fullmatch(rf"2 processes: {ACCURACY}\d\s*", run(*map(str, command), *more))


@pytest.mark.slow
@needs("accelerate")
def test_accelerate():
    command = [launched_by("accelerate"), "launch", "--multi_gpu", "--num_processes", "2"]
    assert re.search(
        f"2 processes: {ACCURACY}", run(*command, str(SCRIPTS / "train_accelerate.py"))
    )


@pytest.mark.slow
@needs("ray")
def test_ray_train():
    assert re.search(f"2 workers: {ACCURACY}", run(sys.executable, str(SCRIPTS / "train_ray.py")))


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [
        pytest.param("search_ray.py", marks=needs("ray")),
        pytest.param("search_dask.py", marks=needs("distributed")),
    ],
)
def test_a_search_on_workers(script):
    printed = run(sys.executable, str(SCRIPTS / script))
    assert "best: {'module__width': 50, 'noise_model': 's'}" in printed
    assert printed.count("[CV] END") == 8


@pytest.mark.slow
def test_gpus():
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip("fewer than two GPUs")
    command = [launched_by("torchrun"), "--nproc-per-node", "2", SCRIPTS / "train_torchrun.py"]
    assert re.search(f"2 processes: {ACCURACY}", run(*map(str, command)))


def test_the_page_shows_what_is_run():
    page = (SCRIPTS.parents[1] / "doc" / "user_guide" / "processes.rst").read_text("utf-8")
    assert {path.name for path in SCRIPTS.iterdir() if path.is_file()} == set(
        re.findall(r"examples/launch/([\w.]+)", page)
    )
