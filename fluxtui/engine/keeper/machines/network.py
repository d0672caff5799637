"""What a keeper must know of the network between machines: the address it is met at, the interface, whether a host answers."""

from __future__ import annotations

import array
import errno
import fcntl
import ipaddress
import socket
import struct
from contextlib import suppress
from pathlib import Path

from fluxtui.persist.errors import FluxTUIError, UsageError

_SIOCGIFADDR = 0x8915  # netdevice(7): the first IPv4 address of an interface
_NOWHERE = "192.0.2.1"  # RFC 5737: nobody's; a datagram socket connected to it sends nothing, and tells the way out
_CUT = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.ETIMEDOUT})


class NoAddressError(FluxTUIError):
    """This machine has no address at which another could meet it."""


def split_rendezvous(text: str) -> tuple[str, int]:
    """`HOST`, `HOST:PORT` or `[IPv6]:PORT` as host and port; port 0 where none is named. Raises `UsageError`."""
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not host or not (port.isdigit() or not port) or int(port or 0) > 65535:
        raise UsageError(f"[hardware] rendezvous is {text!r}; write HOST or HOST:PORT of the machine that is node 0.")
    return host, int(port or 0)


def own_address() -> str:
    """The address at which other machines reach this one: its name's, that of the way out, or the only one that it has.

    Raises `NoAddressError`.
    """
    with suppress(OSError):
        for *_, found in socket.getaddrinfo(socket.gethostname(), 0, type=socket.SOCK_STREAM):
            if not ipaddress.ip_address(str(found[0]).partition("%")[0]).is_loopback:
                return str(found[0])
    with suppress(OSError):
        return _source_for(_NOWHERE)
    own = {address for _, name in socket.if_nameindex() if name != "lo" and (address := _ipv4_of(name))}
    if len(own) == 1:
        return own.pop()
    raise NoAddressError(
        f"{socket.gethostname()} has no address that other machines could reach: set hardware.rendezvous to the address of node 0"
    )


def interface_of(address: str) -> str:
    """The interface by which a host is reached from here (gloo and NCCL bind to one); empty where the system does not say."""
    with suppress(OSError):
        own = _source_for(address)
        for _, name in socket.if_nameindex():
            if own in (_ipv4_of(name), *_ipv6_of(name)):
                return name
    return ""


def free_port() -> int:
    """A port that nobody listens on, on any address of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def why_unreachable(address: str, port: int, seconds: float) -> str:
    """Why the way to a host is cut, in words; empty where it answers, be it by refusing. Waits that long at most."""
    try:
        socket.create_connection((address, port), seconds).close()
    except TimeoutError:
        return f"no answer within {seconds:.0f} s"
    except socket.gaierror as error:
        return f"its name is not known here ({error.strerror})"
    except OSError as error:
        return (error.strerror or str(error)).lower() if error.errno in _CUT else ""
    return ""


def _source_for(address: str) -> str:
    family, kind, protocol, _, target = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(target)
        return str(probe.getsockname()[0])


def _ipv4_of(name: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        answer = array.array("B", struct.pack("256s", name.encode()[:15]))
        fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, answer)
        return socket.inet_ntoa(answer[20:24].tobytes())
    return ""


def _ipv6_of(name: str) -> list[str]:
    with suppress(OSError):
        rows = [line.split() for line in Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines()]
        return [str(ipaddress.IPv6Address(bytes.fromhex(row[0]))) for row in rows if len(row) == 6 and row[5] == name]
    return []
