"""Becomes another program, which gets a signal when its parent dies: launcher.py PARENT SIGNAL USER PROGRAM ARGUMENT …

This is a program because code between fork and exec crashes now and then in a process with gRPC's threads.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, signum: int, user: int, argv: list[str]) -> None:
    """Does that. ``user`` is a uid; -1 keeps the current one."""
    if user >= 0:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    if sys.platform == "linux":
        # After the change of user, which would clear it.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum)
        if os.getppid() != parent:  # the parent died before the request
            sys.exit(1)
    os.execv(argv[0], argv)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
