/// A QEMU command line: the program and its options in order, without loss.
///
/// `argv` gives back exactly the words it was made from, whatever they were. What is not understood
/// stays where it was, and ``MachineDescription`` reports it.
///
/// (Inside a module that imports this one, Swift's own type is `Swift.CommandLine`.)
public struct CommandLine: Sendable, Hashable {
  /// `argv[0]`, empty if argv was empty.
  public var program: String
  public var options: [CommandOption]
  private var isEmpty = false

  /// Splits `argv` (its first word is the program) as QEMU does: one or two dashes, the value in the
  /// next word if the option takes one, and any other word is a disk image.
  public init(argv: [String]) {
    program = argv.first ?? ""
    isEmpty = argv.isEmpty
    options = []
    var index = 1
    while index < argv.count {
      let word = argv[index]
      index += 1
      guard word.utf8.first == UInt8(ascii: "-") else {
        options.append(CommandOption(image: word))
        continue
      }
      let dashes = word.utf8.starts(with: "--".utf8) ? 2 : 1
      let name = String(word.dropFirst(dashes))
      let next = index < argv.count ? argv[index] : nil
      let takesValue: Bool
      if let info = OptionInfo.of(name) {
        takesValue = info.takesValue
      } else {
        // A guess, so that the report shows the value too. It blocks the upgrade either way.
        takesValue = next.map { $0.utf8.first != UInt8(ascii: "-") } ?? false
      }
      options.append(
        CommandOption(dashes: dashes, name: name, value: takesValue ? next : nil))
      if takesValue, next != nil { index += 1 }
    }
  }

  /// The words, program first.
  public var argv: [String] { isEmpty ? [] : [program] + options.flatMap(\.words) }
}

/// One option of a command line, or the disk image that stands alone.
public struct CommandOption: Sendable, Hashable {
  /// How many dashes it was written with: 1 or 2; 0 for a disk image that stands alone.
  public var dashes: Int
  /// Without dashes: `netdev`. Empty for a disk image that stands alone.
  public var name: String
  /// The next word, if the option takes one and there is one.
  public var value: String?

  public init(dashes: Int = 1, name: String, value: String? = nil) {
    self.dashes = dashes
    self.name = name
    self.value = value
  }

  /// A word that belongs to no option: the first hard disk's image.
  public init(image: String) {
    self.init(dashes: 0, name: "", value: image)
  }

  /// Options whose value QEMU reads as JSON if it starts with `{`, in one version or another: those of all that
  /// 5.2, 7.2, 10.0 and 11.1 have whose error for `{"` is one of JSON's.
  private static let jsonOptions: Set<String> = [
    "audiodev", "blockdev", "compat", "device", "display", "incoming", "netdev", "object",
  ]

  public var isImage: Bool { dashes == 0 }
  /// What QEMU's option table says; nil for an image or an option no QEMU has.
  public var info: OptionInfo? { isImage ? nil : OptionInfo.of(name) }
  /// True if the command line ended before the value that this option needs.
  public var lacksValue: Bool { value == nil && (info?.takesValue ?? false) }

  /// The option as words of argv.
  public var words: [String] {
    let head = isImage ? [] : [String(repeating: "-", count: dashes) + name]
    return head + (value.map { [$0] } ?? [])
  }

  /// As the user wrote it, for messages: `-netdev user,id=net0`.
  public var text: String { words.joined(separator: " ") }

  /// The value with its keys, by the option's own implied first key. Empty if there is no value.
  public var parameters: OptionValue {
    OptionValue(
      value ?? "", impliedKey: info?.impliedKey, mayBeJSON: Self.jsonOptions.contains(name))
  }
}
