import Glibc
public import SystemPackage

/// A file descriptor that is closed when its owner goes away, and that exactly one owner has.
public struct OwnedFD: ~Copyable, Sendable {
  public let raw: CInt

  /// Takes ownership of `raw`.
  public init(_ raw: CInt) { self.raw = raw }

  /// The same descriptor for swift-system's calls; borrowed, never to be closed by the caller.
  public var descriptor: FileDescriptor { FileDescriptor(rawValue: raw) }

  /// Gives the descriptor up without closing it.
  public consuming func release() -> CInt {
    let raw = self.raw
    discard self
    return raw
  }

  deinit { close(raw) }
}
