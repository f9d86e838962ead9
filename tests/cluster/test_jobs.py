"""`ray job submit` to a head with token authentication: exit codes, lines, stops, no secrets.

The working directory is a checkout as far as a job needs it; the run is in a bucket.
"""

import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import boto3
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydistill.files.folder import Folder
from tests.helpers.job_server import JobServer, can_make_machines, job_server

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.server, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
CANARY = "canaryQ7x/0aZ9secret"
RUN = """
run_dir = "{run_dir}"
[pairs]
input = ["data/pairs"]
shard_rows = 512
[judged]
input = ["data/judged.parquet"]
relevant_at = 0.75
[teachers.own]
scores = "data/scores.parquet"
[trees]
enabled = false
[ngrams]
word_dim = 0
[cluster.prices]
cpu_hour = 0.5
"""


@dataclass
class Jobs:
    """A head, the package of the working directory on it, and the run's bucket."""

    server: JobServer
    package: str
    bucket: str
    working_dir: Path
    refused: subprocess.CompletedProcess[str]  # the submission that brought the package

    def start(self, *stages: str, options: tuple[str, ...] = ()) -> str:
        """Submit stages, one after the other, as one job."""
        config = f"{self.bucket}/config/cloud.toml"
        commands = [
            shlex.join(["python", "-m", f"jobs.{stage}", "--config", config, *options])
            for stage in stages
        ]
        return self.server.submit(" && ".join(commands), package=self.package)

    def leases(self) -> list[str]:
        return [name for name in Folder(f"{self.bucket}/run/_leases").files() if "json" in name]


def scores_of(raw: Path) -> pa.Table:
    """A score of each text, by its length: a teacher that costs nothing."""
    files = [*sorted((raw / "pairs").glob("*.parquet")), raw / "judged.parquet"]
    texts = pa.concat_tables([pq.read_table(file, columns=["query", "title"]) for file in files])
    score = [len(title) % 10 / 10 for title in texts["title"].to_pylist()]
    return texts.append_column("score", pa.array(score, pa.float32()))


@pytest.fixture(scope="module")
def working_dir(raw_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("jobs", "raydistill"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(raw_files, folder / "data")
    pq.write_table(scores_of(raw_files), folder / "data" / "scores.parquet")
    (folder / "relative.toml").write_text(RUN.format(run_dir="runs/relevance"))
    return folder


def submit(
    server: JobServer, folder: Path, *command: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`ray job submit`, with the token of the head unless `environment` says otherwise."""
    ray = str(Path(sys.executable).with_name("ray"))
    return subprocess.run(
        [ray, "job", "submit", "--address", server.url, "--working-dir", ".", "--", *command],
        cwd=folder, env={**server.environment, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.fixture(scope="module")
def jobs(s3: str, working_dir: Path) -> Iterator[Jobs]:
    bucket = f"{s3}/jobs"
    client = boto3.client("s3")
    client.put_object(
        Bucket="bucket", Key="jobs/config/cloud.toml",
        Body=RUN.format(run_dir=f"{bucket}/run").encode(),
    )  # fmt: skip
    with job_server(environment={"AWS_SECRET_ACCESS_KEY": CANARY}) as server:
        command = ("python", "-m", "jobs.distill", "--config", "relative.toml")
        refused = submit(server, working_dir, *command)
        (job,) = [one for one in server.ask("api/jobs/") if "relative" in one["entrypoint"]]
        package = job["runtime_env"]["working_dir"]
        yield Jobs(server, package, bucket, working_dir, refused)


def test_without_the_token_nothing_is_submitted(jobs: Jobs, tmp_path: Path) -> None:
    num_jobs = len(jobs.server.ask("api/jobs/"))
    none = {"HOME": str(tmp_path), "RAY_AUTH_TOKEN_PATH": "", "RAY_AUTH_MODE": "disabled"}
    said = submit(jobs.server, jobs.working_dir, "python", "-m", "jobs.label", **none)
    assert said.returncode == 1
    assert "Missing authentication token" in said.stdout.strip().splitlines()[-3]
    assert len(jobs.server.ask("api/jobs/")) == num_jobs


def test_a_run_folder_in_the_package_is_refused_and_the_line_comes_through(jobs: Jobs) -> None:
    """Ray's command gives 1 for any exit code of the driver, and names that code."""
    assert jobs.refused.returncode == 1
    assert "failed with exit code 2" in jobs.refused.stdout
    (job,) = [one for one in jobs.server.ask("api/jobs/") if "relative" in one["entrypoint"]]
    last = jobs.server.log(job["submission_id"]).strip().splitlines()[-1]
    assert last.startswith("raydistill: error: run_dir = 'runs/relevance' would be ")
    assert '"s3://bucket/relevance"' in last and 'cluster.shared_paths = ["/mnt/efs"]' in last
    assert last in jobs.refused.stdout


def test_a_run_through_jobs(jobs: Jobs, tmp_path: Path) -> None:
    """Stopped, resumed, labeled, and submitted again; the plan; a local run on the one machine."""
    server = jobs.server
    stopped = jobs.start("prepare")
    until_s = time.monotonic() + 150
    while not jobs.leases():
        assert time.monotonic() < until_s, server.log(stopped)
        time.sleep(0.1)
    server.stop_job(stopped)
    assert server.wait(stopped)["status"] == "STOPPED"
    last = server.log(stopped).strip().splitlines()[-1]
    assert last == "raydistill: stopped by SIGTERM; run the same command to resume"
    assert jobs.leases() == []

    labeled = jobs.start("prepare", "label")
    assert server.wait(labeled)["status"] == "SUCCEEDED", server.log(labeled)
    line = [line for line in server.log(labeled).splitlines() if " shards  " in line][-1]
    assert " left  " not in line and " USD  own, " in line and " actors" in line
    assert "\r" not in server.log(labeled)

    again, plan = jobs.start("label"), jobs.start("distill", options=("--dry-run",))
    local = jobs.start("prepare", options=("--set", f"run_dir={tmp_path}/run"))
    assert server.wait(again)["driver_exit_code"] == 0
    last = server.log(again).strip().splitlines()[-1]
    assert last == f"label: nothing left to do in {jobs.bucket}/run"
    assert server.wait(plan)["driver_exit_code"] == 0
    said = server.log(plan)
    assert f"writes to {jobs.bucket}/run" in said
    assert f"label     complete  {jobs.bucket}/run/logits/own-" in said
    assert f"train     to do     {jobs.bucket}/run/student/" in said
    assert "asks for 1 worker of one core" in said
    assert server.wait(local)["driver_exit_code"] == 0, server.log(local)
    assert (tmp_path / "run" / "pairs" / "_SUCCESS.json").exists()


def test_no_secret_is_written_anywhere(jobs: Jobs, tmp_path: Path) -> None:
    """Of the run, of Ray's logs, and of what Ray tells of its jobs."""
    told = json.dumps(jobs.server.ask("api/jobs/"))
    assert "jobs.label" in told and CANARY not in told
    client = boto3.client("s3")
    keys = [
        one["Key"] for one in client.list_objects_v2(Bucket="bucket", Prefix="jobs/")["Contents"]
    ]
    assert any(key.endswith("run.toml") for key in keys)
    for key in keys:
        assert CANARY.encode() not in client.get_object(Bucket="bucket", Key=key)["Body"].read(), (
            key
        )
    logs = [*jobs.server.temp_dir.rglob("logs/**/*"), *jobs.server.temp_dir.glob("*.log")]
    files = [path for path in logs if path.is_file()]
    assert any(path.name.startswith("job-driver-") for path in files)
    secrets = (CANARY.encode(), jobs.server.token.encode())
    assert [p for p in files if any(secret in p.read_bytes() for secret in secrets)] == []


def test_processes_show_no_secret(jobs: Jobs) -> None:
    head = psutil.Process(jobs.server.head.process.pid)
    shown = []
    for one in head.children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended, or is a zombie
            shown.append(" ".join(one.cmdline()))
    secrets = (CANARY, jobs.server.token)
    assert len(shown) > 3
    assert not any(secret in line for line in shown for secret in secrets)


def test_a_second_machine_sees_the_run_folder_or_is_named(jobs: Jobs, tmp_path: Path) -> None:
    """The last test of the head: a machine that has another disk at that place joins it."""
    if not can_make_machines():
        pytest.skip("no right to make namespaces (unshare)")
    server, mount = jobs.server, tmp_path / "mount"
    mount.mkdir()
    server.add_machine("machine-2", without=mount)

    run = ("--set", f"run_dir={mount}/run")
    refused = jobs.start("prepare", options=run)
    shared = ("--set", f"cluster.shared_paths=['{mount}']")
    held = server.hold(num_cpus=4, package=jobs.package)  # the head's: the other one has 2
    taken = jobs.start("prepare", options=(*run, *shared))
    code = server.wait(refused)["driver_exit_code"]
    assert code == 2, server.log(refused)
    last = server.log(refused).strip().splitlines()[-1]
    assert f"run_dir = '{mount}/run' is on one machine, but machine-2 works too" in last
    code = server.wait(taken)["driver_exit_code"]
    assert code == 2, server.log(taken)
    server.stop_job(held)
    last = server.log(taken).strip().splitlines()[-1]
    assert last.startswith(f"raydistill: error: the machine machine-2 does not see {mount}/run/")
