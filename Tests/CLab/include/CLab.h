#pragma once
// What Swift cannot call: prctl(2), and ptrace(2) for a command that stops at each write(2) to one file and at each
// ptrace(2) of its own, before and after it.
//
// Whoever starts a command is its tracer: all calls for it must come from the same thread.
#include <stddef.h>
#include <sys/types.h>

/// Starts a command in a process group of its own, stopped before its first instruction; both outputs are
/// appended to the files. Returns its pid, or -1 with errno set. It is killed if this process ends first.
pid_t lab_trace_start(char *const argv[], const char *output, const char *errors);

/// Lets it run to its next write(2) to `path` or its next ptrace(2), and stops it before the kernel has done anything
/// of that. Of a ptrace(2), *request is what it asks for; else it is -1.
/// Returns how many bytes it is about to write, the first of them in `buffer`; 0 if it has ended instead,
/// with what wait(2) says in *status; -1 with errno set.
/// *others is the number of its other system calls meanwhile, but for writes to its standard streams.
ssize_t lab_trace_next(pid_t pid, const char *path, char *buffer, size_t room, long *request, long *others, int *status);

/// Lets the kernel do that call, and stops it before anything else. Returns what the call returned.
long lab_trace_finish(pid_t pid);

/// Lets it go on by itself. From now on it is a child like any other.
int lab_trace_release(pid_t pid);

/// Whether processes below this one that have lost their parent become its children instead of init's. Returns 0,
/// or -1 with errno set. prctl(2), PR_SET_CHILD_SUBREAPER.
int lab_adopt_orphans(int whether);
