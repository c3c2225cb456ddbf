import Kernel
import Sandbox

extension KeptRuntime {
  /// What puts the kept files where the old version had them: nothing for those that still lie there.
  ///
  /// A file that was replaced is covered; one whose name is gone needs its directory covered, because a
  /// mount point cannot be made in a directory of the host.
  var mounts: [MountOperation] { [] }
}
