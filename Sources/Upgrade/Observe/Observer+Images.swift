import Kernel
import QEMU

/// Whether the images that nodes have open are those at their paths.
///
/// The kernel does not tell which descriptor is which node's: that all the files are open says nothing about who has
/// which. Two of a VM's images could have been put in each other's place, or an overlay in its base's.
extension Observer {
  /// How often a size that does not fit is asked for again. The guest may write while it is.
  private static let attempts = 10

  /// Paths at which another file lies than the one that the node has open. Files that take equally many bytes are not
  /// told apart by this, unless the VM only reads the one and writes to the other.
  static func displacedImages(
    _ live: LiveMachine, monitor: QMPConnection, absolute: (String) -> String, descriptors: [OpenDescriptor]
  ) throws(Failure) -> Set<String> {
    var displaced: Set<String> = []
    let openToRead = Set(descriptors.filter { !$0.isWritable }.map(\.status.identity))
    var nodes = live.graph.fileNodes.map { (path: absolute($0.file), node: $0) }
    let written = Set(nodes.filter { !$0.node.isReadOnly }.map(\.path))
    for path in Set(nodes.map(\.path)).subtracting(written) {
      guard let status = try Files.statusIfPresent(path), !openToRead.contains(status.identity) else { continue }
      displaced.insert(path)
    }
    // One image has no other that could be in its place.
    if Set(nodes.map(\.path)).count < 2 { return displaced }

    var doubtful = Set(nodes.map(\.path))
    var before = try allocated(doubtful)
    for attempt in 0..<attempts {
      if attempt > 0 {
        before = try allocated(doubtful)
        nodes = try LiveMachine.queryFileNodes(monitor).map { (path: absolute($0.file), node: $0) }
      }
      let after = try allocated(doubtful)
      doubtful = Set(
        nodes.compactMap { path, node in
          guard doubtful.contains(path), let bytes = node.allocated, let first = before[path], let last = after[path] else { return nil }
          return min(first, last) <= bytes && bytes <= max(first, last) ? nil : path
        })
      if doubtful.isEmpty { break }
    }
    return displaced.union(doubtful)
  }

  private static func allocated(_ paths: Set<String>) throws(Failure) -> [String: Int64] {
    var sizes: [String: Int64] = [:]
    for path in paths { sizes[path] = try Files.allocatedBytesIfPresent(path) }
    return sizes
  }
}
