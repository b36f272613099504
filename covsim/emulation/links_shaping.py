"""The commands of `tc` that make one interface carry so many bits per second, shared fairly or as TCP shares.

Fair: htb with a class for each of 256 flows, told apart by the node's port, and deficit round robin between them: what
a max-min fair simulation assumes. Plain: one tbf, whose queue the flows fight for; over some seconds the faster of two
transfers took up to twice the other's share. Both hold the sum to the rate.
"""

from __future__ import annotations

_MTU = 1500
_FRAME = _MTU + 14  # with its Ethernet header: what tc charges
_FLOWS = 256
_BURST_S = 0.005  # what may be made up for when the kernel's timer is late: on a shared machine it is
_QUEUE_S = 0.1
_FLOW_QUEUE = 1 << 20  # bytes; a sender on this machine is held back by its own socket long before
_NODE_PORT = {"up": 34, "down": 36}  # offset of the node's TCP port in a frame: source on the way up, else destination
_SHARED = "1:fff"
_NOWHERE = 0xFFE


class Shaper:
    """The way in which all interfaces of a run are shaped.

    Args:
        fair: whether flows of one interface get equal shares.
    """

    def __init__(self, fair: bool) -> None:
        self.fair = fair

    def begin(self, device: str, way: str, bits_per_s: float) -> list[str]:
        """Lines for `tc -batch` that shape an interface that is not shaped yet.

        Args:
            device: its name.
            way: "up" if the node sends there, "down" if the store does.
            bits_per_s: headers of Ethernet, IP and TCP included.
        """
        if not self.fair:
            return [f"qdisc replace dev {device} root {_tbf(bits_per_s)}"]
        lines = [
            f"qdisc add dev {device} root handle 1: htb default 0",  # what is not IP (ARP) passes by
            f"class add dev {device} parent 1: classid {_SHARED} {_htb(bits_per_s)}",
            f"class add dev {device} parent 1: classid 1:ffe htb rate 8bit ceil 8bit quantum {_FRAME}",
            f"qdisc add dev {device} parent 1:ffe bfifo limit 1",
        ]
        for flow in range(1, _FLOWS + 1):
            # Next to nothing of its own: all comes from what is shared, in turns of one frame.
            lines.append(
                f"class add dev {device} parent {_SHARED} classid 1:{flow:x} htb rate 8bit ceil 32gbit "
                f"burst {_FRAME} cburst {_FRAME} quantum {_FRAME}"
            )
            lines.append(f"qdisc add dev {device} parent 1:{flow:x} bfifo limit {_FLOW_QUEUE}")
        return [*lines, _filter(device, 2, _class_of_port(_NODE_PORT[way]))]

    def change(self, device: str, bits_per_s: float) -> list[str]:
        """Lines that give it another rate; what waits in its queues stays there."""
        if not self.fair:
            return [f"qdisc change dev {device} root {_tbf(bits_per_s)}"]
        return [f"class change dev {device} parent 1: classid {_SHARED} {_htb(bits_per_s)}"]

    def cut(self, device: str) -> list[str]:
        """Lines that let nothing pass.

        The sender's own kernel refuses the packet, so TCP tries again every half second (TCP_RESOURCE_PROBE_INTERVAL)
        and does not back off. Setting the interface down would stall transfers as well, but take the route with it,
        and what the store sends then would leave the machine by its default route.
        """
        if not self.fair:
            return [f"qdisc replace dev {device} root bfifo limit 1"]
        return [_filter(device, 1, [(0x06, 0, 0, _class(_NOWHERE))])]

    def restore(self, device: str, way: str, bits_per_s: float) -> list[str]:
        """Lines that undo a cut."""
        if not self.fair:
            return self.begin(device, way, bits_per_s)
        return [f"filter del dev {device} parent 1: protocol ip prio 1"]


def segment_bytes(bits_per_s: float) -> int:
    """The most that a sender hands over at once: a millisecond's worth, so that turns stay short."""
    return min(65536, max(_MTU, int(bits_per_s / 8 * 0.001)))


def _htb(bits_per_s: float) -> str:
    burst = _burst(bits_per_s)
    rate = max(8, round(bits_per_s))
    return f"htb rate {rate}bit ceil {rate}bit burst {burst} cburst {burst} quantum {_FRAME}"


def _tbf(bits_per_s: float) -> str:
    limit = max(16 * _FRAME, round(bits_per_s / 8 * _QUEUE_S))
    return f"tbf rate {max(8, round(bits_per_s))}bit burst {_burst(bits_per_s)} limit {limit}"


def _burst(bits_per_s: float) -> int:
    return max(_FRAME, round(bits_per_s / 8 * _BURST_S))


def _class(minor: int) -> int:
    return (1 << 16) | minor


def _class_of_port(offset: int) -> list[tuple[int, int, int, int]]:
    """The class of a frame's flow: a process's connections get every other port, so its lowest bit says nothing."""
    return [(0x28, 0, 0, offset), (0x74, 0, 0, 1), (0x54, 0, 0, _FLOWS - 1), (0x04, 0, 0, _class(1)), (0x16, 0, 0, 0)]


def _filter(device: str, priority: int, program: list[tuple[int, int, int, int]]) -> str:
    """A filter of classic BPF instructions (code, jump if true, jump if false, value) that returns the class."""
    code = ",".join(" ".join(map(str, instruction)) for instruction in program)
    return f'filter add dev {device} parent 1: protocol ip prio {priority} bpf bytecode "{len(program)},{code}"'
