import Lab
import Testing

extension EndToEnd {
  /// The process that answers a new QEMU in the place of a back end.
  @Suite struct StandIns {
    @Test func `it answers the new QEMU only, says what it did not answer, and stays as long as that may need it`() throws {
      let outcome = try run(["python3", "-c", Self.script, Lab.paths.moult])
      #expect(outcome.code == 0 && outcome.stdout == "done\n", "\(outcome)")
    }

    /// Speaks to it as moult, as the new QEMU, and as somebody else. What is asked is what a TPM can do (swtpm_ioctls(3)).
    private static let script = """
      import os, socket, struct, subprocess, sys
      name = "\\0moult-e2e-stand-in-%d" % os.getpid()
      listener = socket.socket(socket.AF_UNIX)
      listener.bind(name)
      listener.listen(4)
      ours, theirs = socket.socketpair()
      def inherit():
          kept = [os.dup2(end.fileno(), number, False) for end, number in ((theirs, 200), (listener, 201))]
          for number, end in enumerate(kept, 3): os.dup2(end, number)
      process = subprocess.Popen([sys.argv[1], "stand-in", "--", "tpm-2.0", "e2e"], close_fds=False, preexec_fn=inherit)
      theirs.close()
      ours.send(struct.pack("i", os.getpid()))
      def connect():
          connection = socket.socket(socket.AF_UNIX)
          connection.settimeout(20)
          connection.connect(name)
          return connection
      stranger = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1].replace('@', chr(0))); s.settimeout(20); sys.exit(len(s.recv(1)))"
      assert subprocess.run([sys.executable, "-c", stranger, "@" + name[1:]]).returncode == 0, "a stranger was answered"
      question = struct.pack(">I", 1)
      bad = connect()
      bad.send(struct.pack(">I", 99))
      assert bad.recv(1) == b"", "an unknown command was answered"
      ours.settimeout(20)
      assert b"command 99" in ours.recv(4096), "moult was not told"
      good = connect()
      good.send(question)
      assert len(good.recv(64)) == 8
      ours.close()
      good.send(question)
      assert len(good.recv(64)) == 8, "it ended with moult"
      assert process.poll() is None
      good.close()
      assert process.wait(20) == 0
      print("done")
      """
  }
}
