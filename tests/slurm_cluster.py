"""A private SLURM cluster in one folder: munge, MariaDB, slurmdbd, slurmctld and four nodes.

The tests in `tests/slurm` start one and share it. All of its sockets, state, logs and pid files are
in the folder, and its ports are on the loopback interface, so no service of the machine is changed.
Only Debian's packages are installed, if they are missing: by root, or by sudo without a password.

`python -m tests.slurm_cluster up DIR` starts a cluster and prints the line that makes the `sbatch`
of a shell use it; `python -m tests.slurm_cluster down DIR` stops it.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.other_users import reaching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NODES, CPUS = 4, 4
PACKAGES = {
    "slurmctld": "slurm-wlm",
    "slurmdbd": "slurmdbd",
    "munged": "munge",
    "mariadbd": "mariadb-server",
}
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
_DAEMONS = ("slurmctld", "slurmd", "slurmdbd", "mariadbd", "munged")
# policy-rc.d keeps Debian from starting the services that it installs
_INSTALL = """
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap "rm -f $policy" EXIT
    printf '#!/bin/sh\\nexit 101\\n' > $policy
    chmod 755 $policy
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -q install -y --no-install-recommends "$@"
"""


class ClusterError(RuntimeError):
    """The cluster cannot be started here; the message says why."""


def install_packages() -> None:
    """Install Debian's packages for SLURM if they are missing.

    Raises:
        ClusterError: packages are missing and cannot be installed.
    """
    missing = [
        package for program, package in PACKAGES.items() if not shutil.which(program, path=_PATH)
    ]
    if not missing:
        return
    install = f"apt-get install {' '.join(missing)}"
    if shutil.which("apt-get") is None:
        raise ClusterError(f"packages are missing, and this is no Debian: {install}")
    root = _root_prefix()
    if root is None:
        raise ClusterError(f"packages are missing: run {install} as root, or allow sudo -n")
    command = [*root, "sh", "-c", _INSTALL, "install", *missing]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        raise ClusterError(f"{install}: {done.stderr.strip()[-500:]}")


def _root_prefix() -> list[str] | None:
    """Return the words before a command that root shall run: none, or sudo's; None if nobody may."""
    if os.getuid() == 0:
        return []
    sudo = ["sudo", "-n"]
    if shutil.which("sudo") and not subprocess.run([*sudo, "true"], capture_output=True).returncode:
        return sudo
    return None


@dataclass(frozen=True)
class Cluster:
    """The cluster in a folder."""

    folder: Path

    @property
    def conf(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def env(self) -> Path:
        """The file that a shell sources to use this cluster."""
        return self.folder / "env"

    def run(self, *args: str, timeout: float = 60) -> str:
        """Run one of SLURM's programs on this cluster and return its output."""
        settings = ("SLURM_", "SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_")
        env = {k: v for k, v in os.environ.items() if not k.startswith(settings)}
        env |= {"SLURM_CONF": str(self.conf), "PATH": _PATH}
        done = subprocess.run(args, env=env, capture_output=True, text=True, timeout=timeout)
        if done.returncode:
            raise ClusterError(f"{' '.join(args)}: {done.stderr.strip()}")
        return done.stdout

    @contextmanager
    def failed(self, node: str) -> Iterator[None]:
        """Take a node down, with its jobs; at the end of the block, resume it."""
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        try:
            yield
        finally:
            with suppress(ClusterError):  # it has resumed by itself
                self.run("scontrol", "update", f"nodename={node}", "state=resume")

    # -- up ----------------------------------------------------------------------------------------

    def up(self) -> None:
        """Start the cluster with an empty state.

        Raises:
            ClusterError: a daemon does not start; its log is in ``log/``.
        """
        if self.folder.exists() and any(self.folder.iterdir()) and not self.conf.exists():
            raise ClusterError(
                f"{self.folder} is not empty and holds no cluster: name another folder"
            )
        install_packages()
        self.down()
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("log", "state", "spool", "munge", "db"):
            (self.folder / name).mkdir(parents=True)
        self._write_configuration()
        self._start_munge()
        self._start_database()
        self._start("slurmdbd")
        self._wait("slurmdbd", lambda: self.run("sacctmgr", "-n", "show", "cluster"))
        self.run("sacctmgr", "-i", "add", "cluster", "mtftest")
        self._add_limits()
        self._start("slurmctld", "-c", "-i")
        self._start_nodes()
        self._wait("slurmctld", lambda: self.run("scontrol", "ping"))
        self._wait("nodes", self._all_idle)
        self.env.write_text(f"export SLURM_CONF={shlex.quote(str(self.conf))}\n")

    def _start_nodes(self) -> None:
        for number in range(1, NODES + 1):
            self._start("slurmd", "-N", f"n{number}")

    def restart_nodes(self) -> None:
        """Start the nodes' daemons anew; jobs see what has been mounted since their first start.

        They may have a mount namespace of their own, see ``tests.other_users.reaching``.
        """
        for file in self.folder.glob("slurmd-n*.pid"):
            with suppress(ProcessLookupError):
                os.kill(int(file.read_text()), signal.SIGKILL)
            file.unlink()
        self._start_nodes()
        self._wait("nodes", self._all_idle)

    def _add_limits(self) -> None:
        """Add a QOS ``few`` with at most three queued jobs per user, and add the current user."""
        change = ("sacctmgr", "-i")
        self.run(*change, "add", "qos", "few", "MaxSubmitJobsPerUser=3")
        self.run(*change, "modify", "cluster", "mtftest", "set", "qos=normal,few")
        if _user() != "root":  # root is a user already
            self.run(*change, "add", "user", _user(), "account=root")

    def _all_idle(self) -> None:
        idle = self.run("sinfo", "-h", "-N", "-p", "low", "-t", "idle", "-o", "%N").split()
        if len(idle) != NODES:
            raise ClusterError(f"{len(idle)} of {NODES} nodes are idle")

    def _write_configuration(self) -> None:
        ports = _free_ports(NODES + 3)
        key = self.folder / "munge" / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        host = socket.gethostname().split(".")[0]
        values = {
            "dir": self.folder,
            "host": host,
            "ctld": ports[0],
            "dbd": ports[1],
            "sql": ports[2],
            "user": _user(),
        }
        nodes = "".join(
            f"NodeName=n{i} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS}"
            f" RealMemory=8000 State=UNKNOWN\n"
            for i, port in enumerate(ports[3:], 1)
        )
        self.conf.write_text(_SLURM_CONF.format(**values) + nodes + _PARTITIONS)
        dbd = self.folder / "slurmdbd.conf"
        dbd.write_text(_SLURMDBD_CONF.format(**values))
        dbd.chmod(0o600)
        (self.folder / "sql.port").write_text(str(ports[2]))

    def _start(self, program: str, *args: str) -> None:
        env = {**os.environ, "SLURM_CONF": str(self.conf), "PATH": _PATH}
        # jobs of other users start this interpreter
        reach = reaching(sys.executable) if program == "slurmd" else []
        done = subprocess.run(
            [*reach, program, *args], env=env, capture_output=True, text=True, timeout=60
        )
        if done.returncode:
            raise ClusterError(f"{program}: {done.stderr.strip()} (see {self.folder / 'log'})")

    def _start_munge(self) -> None:
        d = self.folder
        self._start(
            "munged",
            "--force",
            f"--key-file={d}/munge/key",
            f"--socket={d}/munge/sock",
            f"--pid-file={d}/munged.pid",
            f"--log-file={d}/log/munged.log",
            f"--seed-file={d}/munge/seed",
            "--num-threads=2",
        )

    def _start_database(self) -> None:
        d, port = self.folder, (self.folder / "sql.port").read_text()
        user = [f"--user={_user()}"]
        self._start(
            "mariadb-install-db",
            "--no-defaults",
            *user,
            f"--datadir={d}/db",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
        )
        (d / "init.sql").write_text(_SQL)
        names = {"datadir": "db", "socket": "db/sock", "pid-file": "mariadbd.pid"}
        names["init-file"] = "init.sql"
        paths = [f"--{option}={d}/{name}" for option, name in names.items()]
        with (d / "log" / "mariadb.log").open("wb") as log:
            subprocess.Popen(
                ["mariadbd", "--no-defaults", *user, *paths, *_MARIADB.split(), f"--port={port}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PATH": _PATH},
            )
        ask = f"mariadb --no-defaults -uslurm -pslurm -h127.0.0.1 -P{port} slurm_acct_db -e".split()
        self._wait("MariaDB", lambda: self.run(*ask, "select 1"))

    def _wait(self, what: str, ready: Callable[[], object], seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                ready()
            except ClusterError as e:
                if time.monotonic() > end:
                    raise ClusterError(f"{what} did not start within {seconds:g} s: {e}") from e
                time.sleep(0.1)
            else:
                return

    # -- down --------------------------------------------------------------------------------------

    def down(self) -> None:
        """Kill all daemons and jobs of this folder; nothing needs an orderly stop."""
        end = time.monotonic() + 10
        while (pids := self._pids()) and time.monotonic() < end:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        self.env.unlink(missing_ok=True)

    def _pids(self) -> list[int]:
        """Return the pids of the daemons of this folder, of step daemons, and of their jobs."""
        processes = {}
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                try:
                    words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
                    parent = int((process / "stat").read_text().rpartition(") ")[2].split()[1])
                    env = (process / "environ").read_bytes().decode(errors="replace")
                except (OSError, IndexError, ValueError):
                    continue
                processes[int(process.name)] = (words, parent, env)
        conf = f"SLURM_CONF={self.conf}"
        own = {
            pid
            for pid, (words, _, env) in processes.items()
            if Path(words[0].rstrip(":")).name.startswith((*_DAEMONS, "slurmstepd"))
            and (conf in env.split("\0") or any(str(self.folder) + "/" in w for w in words))
        }
        steps = {p for p in own if "slurmstepd" in processes[p][0][0]}
        while more := {p for p, (_, parent, _) in processes.items() if parent in steps} - steps:
            steps |= more
        return sorted(own | steps)


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


_SLURM_CONF = """\
ClusterName=mtftest
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={dir}/munge/sock,cred_expire=10
CredType=cred/munge
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool/%n
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/slurmd-%n.pid
SlurmctldLogFile={dir}/log/slurmctld.log
SlurmdLogFile={dir}/log/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1,sched_min_interval=0
MpiDefault=none
ReturnToService=2
SlurmctldPort={ctld}
SlurmctldTimeout=10
SlurmdTimeout=30
InactiveLimit=0
JobRequeue=1
KillWait=3
MaxArraySize=1001
MaxJobCount=20000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=5
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageEnforce=limits,qos
AccountingStorageHost=127.0.0.1
AccountingStoragePass={dir}/munge/sock
AccountingStoragePort={dbd}
"""
_PARTITIONS = """\
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=6
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""
_SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={dir}/munge/sock,cred_expire=10
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser={user}
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
LogFile={dir}/log/slurmdbd.log
PidFile={dir}/slurmdbd.pid
"""
_MARIADB = """
--bind-address=127.0.0.1 --innodb-flush-log-at-trx-commit=0 --innodb-flush-method=nosync
--innodb-buffer-pool-size=64M --innodb-log-file-size=64M --skip-name-resolve
--innodb-lock-wait-timeout=900
"""
_SQL = """\
CREATE DATABASE IF NOT EXISTS slurm_acct_db;
CREATE USER IF NOT EXISTS 'slurm'@'127.0.0.1' IDENTIFIED BY 'slurm';
GRANT ALL ON slurm_acct_db.* TO 'slurm'@'127.0.0.1';
CREATE USER IF NOT EXISTS 'slurm'@'localhost' IDENTIFIED BY 'slurm';
GRANT ALL ON slurm_acct_db.* TO 'slurm'@'localhost';
"""


def main() -> None:
    """Start or stop the cluster in a folder."""
    match sys.argv[1:]:
        case ["up", folder]:
            cluster = Cluster(Path(folder).absolute())
            cluster.up()
            print(f". {shlex.quote(str(cluster.env))}")
        case ["down", folder]:
            Cluster(Path(folder).absolute()).down()
        case _:
            sys.exit("usage: python -m tests.slurm_cluster up|down DIR")


if __name__ == "__main__":
    try:
        main()
    except ClusterError as e:
        sys.exit(str(e))
