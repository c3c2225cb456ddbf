/// The words by which a client learns all that an NBD server tells of all its exports, without opening one.
public struct NBDInquiry: Sendable, NBDDialogue {
  public struct Export: Sendable, Hashable {
    public var name: String
    /// In words, for people; nil for none.
    public var description: String?
    /// `NBD_FLAG_…`: the transmission flags.
    public var flags: UInt16
    /// Bytes.
    public var size: UInt64
    /// Kinds of metadata that it tells: `base:allocation`, `qemu:dirty-bitmap:NAME`, …
    public var contexts: [String]

    public var isWritable: Bool { flags & 1 << 1 == 0 }
    /// See ``NBDHandshake/Export/servesSeveral``.
    public var servesSeveral: Bool { flags & 1 << 8 != 0 }

    public init(name: String, description: String? = nil, flags: UInt16 = 0, size: UInt64 = 0, contexts: [String] = []) {
      (self.name, self.description, self.flags, self.size, self.contexts) = (name, description, flags, size, contexts)
    }
  }

  private enum Stage { case structured, list, info, contexts }

  private let most: Int
  private var frames = NBDFrames()
  private var stage = Stage.structured
  private var exports: [Export] = []
  private var isInformed = false
  private var current = 0

  /// - Parameter most: exports that it can have.
  public init(most: Int) { self.most = most }

  public mutating func hear(_ bytes: [UInt8]) -> (answer: [UInt8], outcome: NBDOutcome<[Export]>) {
    frames.hear(bytes)
    var answer: [UInt8] = []
    while let frame = frames.next() {
      switch frame {
      case .broken(let why): return (answer, .refused(why))
      // QEMU lists contexts to those only who have asked for structured replies.
      case .greeting: answer += NBDFrames.hello + NBDFrames.option(NBDFrames.structuredReply)
      case .reply(NBDFrames.acknowledged, _):
        switch stage {
        case .structured:
          stage = .list
          answer += NBDFrames.option(NBDFrames.list)
        case .info where !isInformed:
          return (answer + NBDFrames.option(NBDFrames.abort), .refused("it tells nothing of the export \(exports[current].name)"))
        case .info:
          stage = .contexts
          answer += NBDFrames.option(NBDFrames.listMetaContext, NBDFrames.counted(exports[current].name) + NBDFrames.bytes(0))
        case .list, .contexts:
          if stage == .contexts { current += 1 }
          if current == exports.count { return (answer + NBDFrames.option(NBDFrames.abort), .found(exports)) }
          (stage, isInformed) = (.info, false)
          answer += NBDFrames.option(NBDFrames.info, NBDFrames.counted(exports[current].name) + [0, 0])
        }
      case .reply(let type, let data):
        if let why = take(type, data) { return (answer + NBDFrames.option(NBDFrames.abort), .refused(why)) }
      }
    }
    return (answer, .waiting)
  }

  /// Takes in a reply that is not the last one to its question.
  /// - Returns: why there is nothing more to ask.
  private mutating func take(_ type: UInt32, _ data: [UInt8]) -> String? {
    func text(_ bytes: ArraySlice<UInt8>) -> String? {
      let text = String(decoding: bytes, as: UTF8.self)
      return text.utf8.elementsEqual(bytes) ? text : nil
    }
    switch (stage, type) {
    case (.list, NBDFrames.server):
      guard data.count >= 4, case let length = Int(NBDFrames.number(data[0..<4])), data.count >= 4 + length,
        let name = text(data[4..<4 + length]), let description = text(data[(4 + length)...])
      else { return "its answer is not understood" }
      if exports.count == most { return "it offers more than the \(most) of QEMU's" }
      exports.append(Export(name: name, description: description.isEmpty ? nil : description))
    case (.info, NBDFrames.information):
      if let (flags, size) = NBDFrames.export(data) { (exports[current].flags, exports[current].size, isInformed) = (flags, size, true) }
    case (.contexts, NBDFrames.metaContext):
      guard data.count >= 4, let name = text(data[4...]) else { return "its answer is not understood" }
      exports[current].contexts.append(name)
    default: return type & 0x8000_0000 != 0 ? NBDFrames.reason(type) : "its answer is not understood"
    }
    return nil
  }
}
