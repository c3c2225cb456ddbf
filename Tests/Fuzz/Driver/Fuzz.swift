// fuzz TARGET [LIBFUZZER OPTIONS] CORPUS…
//
// libFuzzer brings `main` and calls these two. Source: https://llvm.org/docs/LibFuzzer.html

import FuzzTargets
import Glibc

nonisolated(unsafe) private var target: FuzzTarget?

/// Takes the target's name out of the arguments before libFuzzer reads them.
@_cdecl("LLVMFuzzerInitialize")
public func initialize(_ count: UnsafeMutablePointer<CInt>, _ arguments: UnsafeMutablePointer<UnsafeMutableRawPointer>) -> CInt {
  let words = arguments.pointee.assumingMemoryBound(to: UnsafeMutablePointer<CChar>?.self)
  target = count.pointee > 1 ? words[1].flatMap { FuzzTarget(rawValue: String(cString: $0)) } : nil
  guard target != nil else {
    print("usage: fuzz TARGET [LIBFUZZER OPTIONS] CORPUS…")
    print("TARGET is one of", FuzzTarget.allCases.map(\.rawValue).joined(separator: ", "))
    exit(64)
  }
  for index in 1..<Int(count.pointee) { words[index] = words[index + 1] }
  count.pointee -= 1
  return 0
}

@_cdecl("LLVMFuzzerTestOneInput")
public func test(_ bytes: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
  if let violation = target?.violation(Array(UnsafeBufferPointer(start: bytes, count: size))) {
    fatalError(violation)
  }
  return 0
}
