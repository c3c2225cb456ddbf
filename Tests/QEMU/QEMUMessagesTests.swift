import Testing

@testable import QEMU

@Suite struct QEMUMessagesTests {
  static let cases: [(text: String, complaint: String?)] = [
    ("", nil),
    ("\n \n", nil),
    ("qemu-system-x86_64: warning: TCG doesn't support requested feature: CPUID.01H:ECX.vmx [bit 5]\n", nil),
    ("warning: old\nqemu: -foo: info: x\n", nil),
    ("qemu-system-x86_64: -drive file=/x: Could not open '/x': No such file\n", "qemu-system-x86_64: -drive file=/x: Could not open '/x': No such file"),
    ("qemu: warning: old\nqemu: -device foo: 'foo' is not a valid device model name\nqemu: warning: more\n", "qemu: -device foo: 'foo' is not a valid device model name"),
    ("a\nb\nc\nd", "b / c / d"),
    ("qemu: the disk warning.img is gone", "qemu: the disk warning.img is gone"),
  ]

  @Test(arguments: cases) func whatCanBeTheReason(text: String, complaint: String?) { #expect(QEMUMessages.complaint(text) == complaint) }
}
