#!/usr/bin/python3
"""Looks at what the kernel takes for the size of a file of the mount, while threads that hardly get to run
change its owner to what that is already. Until its input ends; then it prints how often the size grew,
and what became smaller.

    told_sizes.py PATH
"""

import ctypes
import os
import select
import signal
import sys
import time

AT_EMPTY_PATH, AT_STATX_DONT_SYNC, STATX_SIZE = 0x1000, 0x4000, 0x200
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)


def known_size(fd):
    """Without asking the daemon."""
    answer = ctypes.create_string_buffer(256)
    flags = AT_EMPTY_PATH | AT_STATX_DONT_SYNC
    if libc.statx(fd, b"", flags, STATX_SIZE, answer):
        raise OSError(ctypes.get_errno(), "statx")
    return int.from_bytes(answer.raw[40:48], sys.byteorder)


def in_child(cpu, what):
    child = os.fork()
    if child:
        return child
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.sched_setaffinity(0, {cpu})
    what()


def hog():
    while True:
        pass


def give_away():
    fd = os.open(sys.argv[1], os.O_RDWR)
    about = os.fstat(fd)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    while True:
        os.fchown(fd, about.st_uid, about.st_gid)


cpu = max(os.sched_getaffinity(0))
children = [in_child(cpu, what) for what in (hog, give_away)]
try:
    fd = os.open(sys.argv[1], os.O_RDONLY)
    size, grown, smaller = known_size(fd), 0, []
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        now = known_size(fd)
        if now < size:
            smaller.append((size, now))
        grown += now > size
        size = now
        time.sleep(0.0001)
    print(grown, smaller)
finally:
    for child in children:
        os.kill(child, signal.SIGKILL)
