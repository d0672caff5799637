"""What keepers know of the network between machines, on this one's loopback."""

from __future__ import annotations

import socket

import pytest

from fluxtui.engine.keeper.machines import network
from fluxtui.engine.keeper.spawn import Place, _meeting
from fluxtui.persist.errors import UsageError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("node-0", ("node-0", 0)),
        ("10.0.0.1:29500", ("10.0.0.1", 29500)),
        ("[fd00::1]:29500", ("fd00::1", 29500)),
        ("fd00::1", ("fd00::1", 0)),
    ],
)
def test_a_rendezvous_is_a_host_and_perhaps_a_port(text: str, found: tuple[str, int]) -> None:
    assert network.split_rendezvous(text) == found


@pytest.mark.parametrize("text", [":29500", "host:port", "host:70000"])
def test_what_is_no_rendezvous_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(UsageError, match="HOST or HOST:PORT"):
        network.split_rendezvous(text)


def test_ranks_bind_to_the_interface_by_which_they_meet_unless_the_user_chose_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    found = _meeting(Place(1, 2, 4, "127.0.0.1", 29500), 2)
    assert found["GLOO_SOCKET_IFNAME"] == "lo"
    assert "NCCL_SOCKET_IFNAME" not in found, "the environment's own stays"
    assert (found["WORLD_SIZE"], found["LOCAL_WORLD_SIZE"], found["GROUP_RANK"]) == ("4", "2", "1")


def test_a_host_that_refuses_is_reached_and_a_name_that_nobody_knows_is_not() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.listen()
        assert network.why_unreachable("127.0.0.1", port, 1.0) == ""
    assert network.why_unreachable("127.0.0.1", port, 1.0) == "", "refused by a host that answers"
    assert "not known here" in network.why_unreachable("no-such-host.invalid", 1, 1.0)
