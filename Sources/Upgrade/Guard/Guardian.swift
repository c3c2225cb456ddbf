import Glibc
public import Kernel
import QEMU

/// The process that outlives a killed moult: it waits for moult's end, and brings the upgrade to one if moult
/// did not.
///
/// It is moult itself, run again from the file that runs (whatever has become of its name), an orphan in a session
/// of its own. From moult it has copies of what recovery needs and only moult had: the VM's lock, which is
/// therefore held without a gap, and the connections to both QEMUs. It touches none of them while moult lives.
public enum Guardian {
  /// The subcommand that starts it; not for users.
  public static let command = "guard"

  /// The numbers of what it inherits.
  enum Descriptor {
    /// A stream socket; moult's end closes when moult ends.
    static let channel: CInt = 3
    static let lock: CInt = 4
    /// Not there if moult is recovering.
    static let oldMonitor: CInt = 5
    /// A pidfd of moult.
    static let moult: CInt = 6
  }

  /// What moult and guardian say to each other: a byte each.
  enum Word {
    static let ready = UInt8(ascii: "R")
    /// Comes with a descriptor: the connection to the new QEMU.
    static let newMonitor = UInt8(ascii: "M")
    /// Comes with a descriptor that must stay open: moult's end of a connection.
    static let kept = UInt8(ascii: "K")
    /// moult has ended the upgrade in its own way.
    static let dismissed = UInt8(ascii: "D")
  }

  /// Watches until moult is gone or does not need it any more.
  public static func watch(key: String, state: StateDirectory = StateDirectory()) throws(Failure) {
    for number in [Descriptor.channel, Descriptor.lock, Descriptor.moult] {
      try valueOrErrno("start the guardian of", key, hint: "moult starts it by itself") { fcntl(number, F_SETFD, FD_CLOEXEC) }
    }
    var monitors: [Side: DescriptorBox] = [:]
    if fcntl(Descriptor.oldMonitor, F_SETFD, FD_CLOEXEC) == 0 { monitors[.old] = DescriptorBox(OwnedFD(Descriptor.oldMonitor)) }
    // Whatever ends moult by a signal to a whole group or session must not end its guardian, too.
    for number in [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE, SIGTSTP, SIGTTIN, SIGTTOU, SIGXFSZ, SIGUSR1, SIGUSR2, SIGALRM] {
      signal(number, SIG_IGN)
    }
    // When memory is short, moult goes first; where root may not say so, chance decides.
    do throws(Failure) { try OOMScore.apply(-1000, to: getpid()) } catch where error.errno == .permissionDenied {}
    let reactor = Reactor()
    let channel = GuardianChannel()
    var hasEnded = false
    reactor.add(Descriptor.channel) { () throws(Failure) in
      // What moult still had to say is read when it has ended.
      if !channel.hear() { reactor.remove(Descriptor.channel) }
    }
    reactor.add(Descriptor.moult) { () throws(Failure) in
      hasEnded = true
      reactor.remove(Descriptor.moult)
    }
    // What is read once is in memory: the program's pages and those of its libraries.
    _ = try state.contents(key)
    do throws(Failure) { try UnixMessage.send([Word.ready], to: Descriptor.channel) } catch where error.errno == .brokenPipe { /* moult is gone already. */ }
    _ = try reactor.wait(seconds: nil, step: "watch", subject: key) { () throws(Failure) -> Bool? in
      channel.isDismissed || hasEnded ? true : nil
    }
    if hasEnded { while channel.hear() {} }
    if channel.isDismissed { return }
    monitors[.new] = channel.newMonitor
    _ = try Takeover(state: state, reactor: reactor).end(key, lock: OwnedFD(Descriptor.lock), monitors: monitors, isGuarded: false)
  }
}

/// What the guardian has heard from moult.
private final class GuardianChannel {
  var isDismissed = false
  var newMonitor: DescriptorBox?
  private var kept: [DescriptorBox] = []

  /// Takes one word. Returns false when there will be no more: moult has closed its end, or dismissed its guardian.
  func hear() -> Bool {
    if isDismissed { return false }
    do throws(Failure) {
      let (bytes, descriptors) = try UnixSocket.receive(over: Guardian.Descriptor.channel, limit: 1)
      if let descriptor = descriptors.first.map({ DescriptorBox(OwnedFD($0)) }) {
        if bytes.first == Guardian.Word.kept { kept.append(descriptor) } else { newMonitor = descriptor }
      }
      if bytes.first == Guardian.Word.dismissed { isDismissed = true }
      return !bytes.isEmpty && !isDismissed
    } catch {
      return false  // It ended without having read that we are ready (ECONNRESET).
    }
  }
}
