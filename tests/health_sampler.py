"""A program that asks a server whether it is alive, again and again, and tells how long it waited.

    python health_sampler.py PORT PID

Waits are told as the smaller of two clocks: the wall's, and the processor time that the server used
meanwhile. What other programs of the machine take from the server is in the first, not the second.
For each line that comes in, the longest wait since the one before goes out.
"""

import json
import select
import socket
import sys
import time

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
PAUSE_S = 0.002


def main(port: int, pid: int) -> None:
    clock = (~pid << 3) | 2  # the processor time of all threads of that process
    connection = socket.create_connection(("127.0.0.1", port))
    longest, wall, asked = 0.0, 0.0, 0
    while True:
        began, used = time.monotonic(), time.clock_gettime(clock)
        connection.sendall(REQUEST)
        assert b" 200 " in connection.recv(4096)[:16]
        took, used = time.monotonic() - began, time.clock_gettime(clock) - used
        longest, wall, asked = max(longest, min(took, used)), max(wall, took), asked + 1
        if select.select([sys.stdin], [], [], PAUSE_S)[0]:
            if not sys.stdin.readline():
                return
            sys.stdout.write(json.dumps({"wait_s": longest, "wall_s": wall, "asked": asked}) + "\n")
            sys.stdout.flush()
            longest, wall, asked = 0.0, 0.0, 0


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
