import QEMU
import Testing

@Suite struct CommandLineTests {
  static let roundTrips: [[String]] = [
    [],
    [""],
    ["qemu-system-x86_64"],
    ["qemu", "-m"],
    ["qemu", "-"],
    ["qemu", "--", "-S"],
    ["qemu", "---S"],
    ["qemu", "disk.img", "-S", "--enable-kvm", "-M", "q35"],
    ["qemu", "-name", "-S", "-serial", ""],
    ["qemu", "-unknown", "parameter", "-unknown", "-S"],
    ["qemu", "-device", #"{"driver":"e1000"}"#, "-name", "a,,b"],
  ]

  @Test(arguments: roundTrips) func printsBackWhatItWasMadeFrom(argv: [String]) {
    #expect(CommandLine(argv: argv).argv == argv)
  }

  @Test func aValueMayLookLikeAnOption() {
    let line = CommandLine(argv: ["qemu", "-name", "-S", "-S"])
    #expect(line.options.map(\.name) == ["name", "S"])
    #expect(line.options[0].value == "-S")
  }

  @Test func oneAndTwoDashesAreTheSameOption() {
    let line = CommandLine(argv: ["qemu", "--enable-kvm", "-enable-kvm", "---enable-kvm"])
    #expect(line.options.map(\.name) == ["enable-kvm", "enable-kvm", "-enable-kvm"])
    #expect(line.options.map { $0.info != nil } == [true, true, false])
  }

  @Test func aLoneWordIsADiskImage() {
    let line = CommandLine(argv: ["qemu", "-S", "linux.img", "-m", "1G"])
    #expect(line.options.map(\.isImage) == [false, true, false])
    #expect(line.options[1].value == "linux.img")
  }

  @Test func anUnknownOptionTakesTheNextWordUnlessThatIsAnOption() {
    let line = CommandLine(argv: ["qemu", "-foo", "bar", "-baz", "-S"])
    #expect(line.options.map(\.text) == ["-foo bar", "-baz", "-S"])
  }

  @Test func anOptionAtTheEndMayLackItsValue() {
    let line = CommandLine(argv: ["qemu", "-m"])
    #expect(line.options[0].lacksValue)
  }
}
