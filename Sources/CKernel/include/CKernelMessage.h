#pragma once
#include <stddef.h>
#include <sys/types.h>

/// sendmsg(2) of bytes and, if `descriptor` is not negative, of that descriptor by SCM_RIGHTS,
/// with MSG_NOSIGNAL. In C because the CMSG_* macros do not import.
ssize_t ck_send(const void *bytes, size_t count, int descriptor, int socket);
