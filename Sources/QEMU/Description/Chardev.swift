/// A character device, however the command line makes it.
struct Chardev {
  var id: String
  /// `socket`, `file`, `stdio`, …
  var backend: String
  var parameters: OptionValue
  /// The option that makes it, verbatim.
  var option: String
  /// What uses it: `qmp`, `hmp`, `serial`, `device virtserialport`, …
  var consumers: [String] = []

  /// Path of the unix socket it listens on.
  var listeningPath: String? {
    backend == "socket" && parameters.isOn("server") ? unixPath : nil
  }

  var unixPath: String? {
    backend == "socket" && !parameters.isOn("abstract") ? parameters["path"] : nil
  }

  /// The old short form that `-serial`, `-monitor`, … take (`qemu_chr_parse_compat`); nil if QEMU
  /// would not take it.
  init?(legacy text: String, id: String, option: String) {
    self.id = id
    self.option = option
    var text = text
    if text.hasPrefix("mon:") {
      text.removeFirst("mon:".count)
      consumers.append("hmp")
    }
    func rest(_ prefix: String) -> String? {
      text.hasPrefix(prefix) ? String(text.dropFirst(prefix.count)) : nil
    }
    parameters = OptionValue("")
    switch text {
    case "null", "pty", "msmouse", "wctablet", "braille", "testdev", "stdio": backend = text
    case "con:": backend = "console"
    default:
      if text == "vc" || text.hasPrefix("vc:") {
        backend = "vc"
      } else if let path = rest("file:") {
        backend = "file"
        parameters.set("path", to: path)
      } else if let path = rest("pipe:") {
        backend = "pipe"
        parameters.set("path", to: path)
      } else if let path = rest("unix:") {
        backend = "socket"
        parameters = OptionValue(path, impliedKey: "path")
      } else if let address = ["tcp:", "telnet:", "tn3270:", "websocket:"].lazy.compactMap(rest).first {
        backend = "socket"
        parameters = OptionValue(address, impliedKey: "host")
      } else if let address = rest("udp:") {
        backend = "udp"
        parameters = OptionValue(address, impliedKey: "host")
      } else if text.hasPrefix("/dev/parport") || text.hasPrefix("/dev/ppi") {
        backend = "parallel"
        parameters.set("path", to: text)
      } else if text.hasPrefix("/dev/") {
        backend = "serial"
        parameters.set("path", to: text)
      } else {
        return nil
      }
    }
  }

  init(id: String, backend: String, parameters: OptionValue, option: String) {
    self.id = id
    self.backend = backend
    self.parameters = parameters
    self.option = option
  }
}
