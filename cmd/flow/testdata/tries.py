# What the attackers of testdata/abuse share. An attempt that succeeds prints DID.
import ctypes, errno, os, signal, socket, sys

libc = ctypes.CDLL(None, use_errno=True)


def refused(what, f):
    try:
        got = f()
    except (OSError, ValueError, OverflowError):
        return False
    print("DID", what, repr(got)[:200], flush=True)
    return True


def call(nr, *args):
    got = libc.syscall(ctypes.c_long(nr), *[a if isinstance(a, bytes) else ctypes.c_long(a) for a in args])
    if got == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return got


def child(what, f):
    """Runs f in a process of its own, which may be killed for it."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            got = f()
        except (OSError, ValueError):
            os._exit(0)
        os._exit(7)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 7:
        print("DID", what, flush=True)


def read(path, n=4096):
    with open(path, "rb") as f:
        return f.read(n)


def write(path, what=b""):
    fd = os.open(path, os.O_WRONLY)
    if what:
        os.write(fd, what)
    os.close(fd)
