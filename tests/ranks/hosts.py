"""Two "hosts": network namespaces joined by a cable (a veth pair), each with a host name and a boot of its own, and one home.

They share the kernel, so locks are seen between them as on NFSv4, and the test can signal any process by its pid.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@dataclass
class Host:
    """One machine. `run` is a command on it."""

    name: str
    address: str
    namespace: str
    folder: Path
    environment: dict[str, str]

    @property
    def cable(self) -> str:
        """The name of its network interface."""
        return "cable"

    def wrap(self, *command: str) -> list[str]:
        """A command on this host."""
        boot = self.folder / "boot_id"
        setting = f"hostname {self.name} && mount --bind {boot} /proc/sys/kernel/random/boot_id && exec \"$@\""
        return ["ip", "netns", "exec", self.namespace, "unshare", "--uts", "--mount", "sh", "-c", setting, "sh", *command]

    def fluxtui(self, *words: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        command = self.wrap(sys.executable, "-m", "fluxtui", *words)
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=seconds, check=False)

    def sent(self) -> int:
        """Bytes that have left by the cable."""
        shown = subprocess.run(
            ["ip", "netns", "exec", self.namespace, "cat", f"/sys/class/net/{self.cable}/statistics/tx_bytes"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return int(shown.stdout)

    def link(self, state: str) -> None:
        """`down`: the cable is pulled; `up`: it is in again."""
        ip("-n", self.namespace, "link", "set", self.cable, state)


@dataclass
class Hosts:
    """Both, and their taking down."""

    folder: Path
    home: Path
    environment: dict[str, str]
    all: list[Host] = field(default_factory=list)

    def __enter__(self) -> tuple[Host, Host]:
        tag = f"fx{os.getpid() % 100000}{uuid.uuid4().hex[:3]}"
        for number, letter in enumerate("ab", start=1):
            folder = self.folder / f"host-{letter}"
            folder.mkdir()
            (folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
            own = self.environment | {"FLUXTUI_HOME": str(self.home), "FLUXTUI_RUNTIME": str(folder / "runtime")}
            host = Host(f"host-{letter}", f"10.77.0.{number}", f"{tag}{letter}", folder, os.environ | own)
            ip("netns", "add", host.namespace)
            self.all.append(host)
            ip("-n", host.namespace, "link", "set", "lo", "up")
        first, second = self.all
        ip("link", "add", "cable", "netns", first.namespace, "type", "veth", "peer", "name", "cable", "netns", second.namespace)
        for host in self.all:
            ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "cable")
            host.link("up")
        return first, second

    def __exit__(self, *_: object) -> None:
        for host in self.all:
            subprocess.run(["ip", "netns", "del", host.namespace], check=False, capture_output=True)
