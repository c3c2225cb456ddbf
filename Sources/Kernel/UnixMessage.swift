import CKernel
import Glibc
import SystemPackage

/// Bytes and a descriptor over a unix socket. Source: unix(7), sendmsg(2).
public enum UnixMessage {
  /// Sends all of `bytes` on a blocking stream socket; `descriptor` goes with the first of them
  /// (SCM_RIGHTS) and stays the caller's. A peer that is gone is an error, never a SIGPIPE.
  public static func send(_ bytes: [UInt8], descriptor: CInt? = nil, to socket: CInt) throws(Failure) {
    var sent = 0
    while sent < bytes.count {
      let count = bytes[sent...].withUnsafeBytes {
        ck_send($0.baseAddress, $0.count, sent == 0 ? descriptor ?? -1 : -1, socket)
      }
      if count < 0 {
        let error = Errno(rawValue: errno)
        if error == .interrupted { continue }
        throw Failure(step: "send to", subject: "socket \(socket)", errno: error)
      }
      sent += count
    }
  }
}
