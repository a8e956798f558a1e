"""A real SLURM of one node in a folder: munge, controller and node daemon, no accounting database.

Nothing outside the folder is written, so it does not meet a SLURM that the machine may have. The
node claims more processors and memory than there may be, and GPUs that are /dev/null and /dev/zero:
what is tested is who is allowed how much, not how fast it is. Memory is measured every other second
and a job above its limit killed, which on real clusters control groups do.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo", "scontrol")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=100000,bf_interval=2,defer_batch
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
MinJobAge=3600
KillWait=5
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 Boards=1 SocketsPerBoard=1 CoresPerSocket=4 \
ThreadsPerCore=1 RealMemory=16000 Gres=gpu:a100:2 State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=10
PartitionName=gpu Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10
PartitionName=scavenge Nodes={host} MaxTime=INFINITE State=UP PriorityTier=1
"""


def why_not() -> str:
    """Return why no SLURM can be started here; empty where it can."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path=PATH)]
    if missing:
        return f"no {', '.join(missing)}. Remedy: apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "SLURM starts jobs of users as root only"
    return ""


@contextmanager
def running_slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Start a cluster whose files lie in `folder`; yields the environment of its commands.

    Raises:
        RuntimeError: a daemon did not answer within half a minute; its log is told.
    """
    _write_files(folder)
    environment = {**os.environ, "PATH": f"{_write_srun(folder)}:{PATH}"}
    environment["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        _start_munge(folder, environment)
        for daemon in ("slurmctld", "slurmd"):
            subprocess.run([daemon], env=environment, check=True, cwd=folder)
        _wait_for(lambda: "idle" in ask(environment, "sinfo", "-h", "-o", "%T"), folder)
        yield environment
    finally:
        _stop(folder, environment)


def ask(environment: dict[str, str], *command: str) -> str:
    """Return what a command of SLURM prints; empty where it fails."""
    done = subprocess.run(command, env=environment, text=True, capture_output=True)
    return done.stdout if done.returncode == 0 else ""


def _write_files(folder: Path) -> None:
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    controller_port, node_port = _free_ports(2)
    host = socket.gethostname().partition(".")[0]
    text = CONFIGURATION.format(
        folder=folder, host=host, controller_port=controller_port, node_port=node_port
    )
    (folder / "slurm.conf").write_text(text)
    (folder / "gres.conf").write_text(
        f"NodeName={host} Name=gpu Type=a100 File=/dev/null\n"
        f"NodeName={host} Name=gpu Type=a100 File=/dev/zero\n"
    )


def _write_srun(folder: Path) -> Path:
    """Write an `srun` that knows this cluster; returns its folder.

    Inside a job the executor plugin forgets every variable of SLURM, SLURM_CONF among them, which
    no cluster needs whose configuration lies in /etc.
    """
    script = folder / "bin" / "srun"
    script.parent.mkdir()
    program = shutil.which("srun", path=PATH)
    script.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {program} "$@"\n')
    script.chmod(0o755)
    return script.parent


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _start_munge(folder: Path, environment: dict[str, str]) -> None:
    files = {
        "key-file": "munge.key",
        "socket": "munge.socket",
        "pid-file": "munged.pid",
        "log-file": "munged.log",
        "seed-file": "munged.seed",
    }
    options = [f"--{option}={folder / name}" for option, name in files.items()]
    # Root and a temporary folder are what --force allows; no other machine takes part.
    subprocess.run(["munged", "--force", *options], env=environment, check=True)
    _wait_for((folder / "munge.socket").exists, folder)


def _wait_for(ready: Callable[[], bool], folder: Path) -> None:
    for _ in range(300):
        if ready():
            return
        time.sleep(0.1)
    logs = [f"{log.name}:\n{log.read_text()[-2000:]}" for log in sorted(folder.glob("*.log"))]
    raise RuntimeError("SLURM did not start.\n" + "\n".join(logs))


def _stop(folder: Path, environment: dict[str, str]) -> None:
    """End the jobs, then the daemons that were started here, each by its own id."""
    subprocess.run(["scancel", "--user=root", "--full"], env=environment, capture_output=True)
    for name in ("slurmd", "slurmctld", "munged"):
        file = folder / f"{name}.pid"
        if file.exists() and file.read_text().strip():
            with_id = ["kill", file.read_text().strip()]
            subprocess.run(with_id, capture_output=True)
