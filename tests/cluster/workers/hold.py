#!/usr/bin/python3
"""Holds the threads of a daemon that answer FUSE requests, each as its next system call returns,
which is when it has got a request and not answered it. Then, told so by the end of stdin, kills
the daemon with SIGKILL, and lets go of the threads only by ending itself.

    hold.py PID
"""

import ctypes
import os
import signal
import sys
import threading
from pathlib import Path

PTRACE_SYSCALL, PTRACE_SEIZE, PTRACE_INTERRUPT = 24, 0x4206, 0x4207
WALL = 0x40000000

pid = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request, thread):
    if libc.ptrace(request, thread, None, None) < 0:
        sys.exit(f"ptrace: {os.strerror(ctypes.get_errno())}")


def kill():
    sys.stdin.read()
    os.kill(pid, signal.SIGKILL)
    os._exit(0)


stops = {}
for task in Path(f"/proc/{pid}/task").iterdir():
    if (task / "comm").read_text().startswith("fuse"):
        ptrace(PTRACE_SEIZE, int(task.name))
        ptrace(PTRACE_INTERRUPT, int(task.name))
        stops[int(task.name)] = 0
while min(stops.values()) < 2:
    thread, status = os.waitpid(-1, WALL)
    if not os.WIFSTOPPED(status):
        sys.exit(f"thread {thread} ended")
    stops[thread] += 1
    if stops[thread] < 3:  # interrupted, then at the call's begin, then at its end
        ptrace(PTRACE_SYSCALL, thread)
threading.Thread(target=kill).start()
print("armed", flush=True)
while True:
    thread, status = os.waitpid(-1, WALL)
    if os.WIFSTOPPED(status):
        stops[thread] += 1
        if stops[thread] < 3:
            ptrace(PTRACE_SYSCALL, thread)
