#pragma once
// What happens in a new process between clone and exec. Everything is prepared by the parent: the stage makes
// raw system calls only, allocates nothing, and reports a failure as (stage, errno, index) over a pipe.
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum moult_stage {
  moult_stage_session = 1,
  moult_stage_descriptor = 2,
  moult_stage_working_directory = 3,
  moult_stage_bounding = 4,
  moult_stage_groups = 5,
  moult_stage_group_ids = 6,
  moult_stage_user_ids = 7,
  moult_stage_capabilities = 8,
  moult_stage_ambient = 9,
  moult_stage_no_new_privileges = 10,
  moult_stage_signals = 11,
  moult_stage_execute = 12,
};

/// A descriptor of the parent's and the number it has in the child; source -1 closes the number.
/// Sources lie above all numbers, so that no copy overwrites a source.
struct moult_descriptor {
  int source;
  int number;
};

struct moult_child {
  /// The program: a path, or if null `executable_descriptor`.
  const char *executable;
  int executable_descriptor;
  char *const *arguments;
  char *const *environment;
  /// Null: stays where the parent is.
  const char *working_directory;
  /// -1: the parent's.
  int umask;
  int new_session;
  /// Not to be the caller's child, but init's: see ProcessPlan.orphan.
  int orphan;
  /// Not 0: the caller's pid, with whose end the program is killed: see ProcessPlan.endsWithParent.
  pid_t parent;
  const struct moult_descriptor *descriptors;
  size_t descriptor_count;
  /// 0: identity and capabilities stay the parent's.
  int set_credentials;
  uid_t uid[3];  // real, effective, saved
  gid_t gid[3];
  const gid_t *groups;
  size_t group_count;
  uint64_t inheritable, bounding, ambient;
  int no_new_privileges;
  /// Bit n-1 stands for signal n.
  uint64_t ignored_signals;
  uint64_t signal_mask;
  /// The child starts when it can read a byte here, and ends silently at the end of file.
  int start_descriptor;
  /// The other end of the same pipe, which the child closes: only the parent may keep it open.
  int start_write_descriptor;
  /// Where it reports; closed by a successful exec.
  int report_descriptor;
};

struct moult_report {
  int32_t stage;
  int32_t error;
  int32_t index;
};

/// Starts the child. Returns its pid and in *pidfd a descriptor for it (close-on-exec), or -1 with errno set.
pid_t moult_spawn(const struct moult_child *child, int *pidfd);
