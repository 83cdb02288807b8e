"""corosync's client libraries, by cffi in ABI mode: no compiler, no headers.

The declarations below are corosync's public headers (corosync/cpg.h, quorum.h, cmap.h, hdb and corotypes),
reduced to what is used; the sonames are those that stand for that ABI.  Nothing here decides anything."""

import functools
from typing import Any, NamedTuple

import cffi

from ringfence.core.errors import Unavailable

OK, LIBRARY, TRY_AGAIN, ACCESS = 1, 2, 6, 11
"""cs_error_t (corosync/corotypes.h).  LIBRARY: corosync is gone."""
ONE_NONBLOCKING = 4
"""CS_DISPATCH_ONE_NONBLOCKING"""
MODEL_V1 = 1
INITIAL_TOTEM_CONF = 1
AGREED = 2
"""CPG_TYPE_AGREED: one order for all.  (CPG_TYPE_SAFE is accepted and means the same.)"""
TRACK_CHANGES = 5
"""CS_TRACK_CURRENT | CS_TRACK_CHANGES_ONLY"""
QUORUM_SET = 1
"""corosync.conf names a quorum provider."""

ERRORS = {
    2: "library", 3: "version", 4: "init", 5: "timeout", 6: "try again", 7: "invalid parameter",
    8: "no memory", 9: "bad handle", 10: "busy", 11: "access", 12: "does not exist", 14: "exists",
    15: "no space", 16: "interrupted", 18: "no resources", 19: "not supported", 20: "bad operation",
    26: "too big", 29: "security",
}  # fmt: skip

_DECLARATIONS = """
    typedef uint64_t cpg_handle_t;
    typedef uint64_t quorum_handle_t;
    typedef uint64_t cmap_handle_t;

    struct cpg_address { uint32_t nodeid; uint32_t pid; uint32_t reason; };
    struct cpg_name { uint32_t length; char value[128]; };
    struct cpg_ring_id { uint32_t nodeid; uint64_t seq; };
    struct iovec { void *iov_base; size_t iov_len; };

    typedef void (*cpg_deliver_fn_t)(cpg_handle_t handle, const struct cpg_name *group,
        uint32_t nodeid, uint32_t pid, void *msg, size_t msg_len);
    typedef void (*cpg_confchg_fn_t)(cpg_handle_t handle, const struct cpg_name *group,
        const struct cpg_address *members, size_t members_entries,
        const struct cpg_address *left, size_t left_entries,
        const struct cpg_address *joined, size_t joined_entries);
    typedef void (*cpg_totem_confchg_fn_t)(cpg_handle_t handle, struct cpg_ring_id ring,
        uint32_t members_entries, const uint32_t *members);
    typedef struct {
        int model;
        cpg_deliver_fn_t deliver;
        cpg_confchg_fn_t confchg;
        cpg_totem_confchg_fn_t totem_confchg;
        unsigned int flags;
    } cpg_model_v1_data_t;

    int cpg_model_initialize(cpg_handle_t *handle, int model, cpg_model_v1_data_t *data, void *context);
    int cpg_finalize(cpg_handle_t handle);
    int cpg_fd_get(cpg_handle_t handle, int *fd);
    int cpg_dispatch(cpg_handle_t handle, int flags);
    int cpg_join(cpg_handle_t handle, const struct cpg_name *group);
    int cpg_leave(cpg_handle_t handle, const struct cpg_name *group);
    int cpg_mcast_joined(cpg_handle_t handle, int guarantee, const struct iovec *iovec, unsigned int count);
    int cpg_local_get(cpg_handle_t handle, unsigned int *nodeid);

    typedef void (*quorum_notification_fn_t)(quorum_handle_t handle, uint32_t quorate, uint64_t ring_seq,
        uint32_t view_entries, uint32_t *view);
    typedef struct { quorum_notification_fn_t notify; } quorum_callbacks_t;

    int quorum_initialize(quorum_handle_t *handle, quorum_callbacks_t *callbacks, uint32_t *type);
    int quorum_finalize(quorum_handle_t handle);
    int quorum_fd_get(quorum_handle_t handle, int *fd);
    int quorum_dispatch(quorum_handle_t handle, int flags);
    int quorum_getquorate(quorum_handle_t handle, int *quorate);
    int quorum_trackstart(quorum_handle_t handle, unsigned int flags);

    int cmap_initialize(cmap_handle_t *handle);
    int cmap_finalize(cmap_handle_t handle);
    int cmap_get_uint32(cmap_handle_t handle, const char *key, uint32_t *value);
"""
_SONAMES = {"libcpg.so.4": "libcpg4", "libquorum.so.5": "libquorum5", "libcmap.so.4": "libcmap4"}
"""With the Debian package that has it."""


class Library(NamedTuple):
    """cffi's objects, which have no types that mypy knows."""

    ffi: Any
    cpg: Any
    quorum: Any
    cmap: Any


@functools.cache
def library() -> Library:
    """Raises Unavailable, one line, if a library is missing."""
    ffi = cffi.FFI()
    ffi.cdef(_DECLARATIONS)
    return Library(ffi, *(_opened(ffi, soname) for soname in _SONAMES))


def _opened(ffi: Any, soname: str) -> Any:
    try:
        return ffi.dlopen(soname)
    except OSError:
        raise Unavailable(
            f"corosync's client library {soname} is not on this host",
            next=f"install it (Debian and Ubuntu: apt-get install corosync {_SONAMES[soname]})",
        ) from None


def error_name(code: int) -> str:
    return ERRORS.get(code, f"error {code}")
