"""Free ports of this machine, for processes that talk to each other.

free_ports(2)    # [40001, 40002]
"""

import contextlib
import socket


def free_ports(count):
    """`count` numbers of ports that no process listens to now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
