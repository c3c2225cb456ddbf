import Testing

@testable import QEMU

@Suite struct JSONValueTests {
  @Test(arguments: [
    ("{}", JSONValue.object([:])), (" [ ] ", .array([])), ("null", .null), ("true", .bool(true)), ("-7", .integer(-7)),
    ("9223372036854775807", .integer(.max)), ("18446744073709551615", .number(18446744073709551616)),
    ("1.5e3", .number(1500)), ("\"\"", .string("")), (#""a\"\\\/\b\f\n\r\t""#, .string("a\"\\/\u{8}\u{c}\n\r\t")),
    (#""\u00e9 \ud83d\ude00 \ud83d x \udc00""#, .string("é 😀 \u{fffd} x \u{fffd}")), ("\"é😀\"", .string("é😀")),
    (
      #"{"timestamp": {"seconds": 1795262170, "microseconds": 12}, "event": "STOP", "data": [1, {"a": false}]}"# + "\r",
      ["timestamp": ["seconds": 1795262170, "microseconds": 12], "event": "STOP", "data": [1, ["a": false]]] as JSONValue
    ),
  ])
  func `reads`(_ text: String, _ value: JSONValue) throws {
    #expect(try JSONValue(parsing: text.utf8) == value)
    #expect(try JSONValue(parsing: value.text().utf8) == value)
  }

  @Test(arguments: [
    "", " ", "{", "[1,]", "{\"a\":1,}", "{\"a\"}", "{a:1}", "[1 2]", "\"a", "\"\n\"", #""\x""#, #""\u12""#, #""\u+123""#, "tru",
    "nul", "+1", ".5", "1.", "1e", "--1", "1 2", "{} x", String(repeating: "[", count: 2000),
  ])
  func `refuses`(_ text: String) { #expect(throws: JSONValue.SyntaxError.self) { try JSONValue(parsing: text.utf8) } }

  @Test func `prints equal values alike`() {
    let value: JSONValue = ["b": ["x/y", .null, .number(.infinity)], "a": "q\"\u{1}"]
    #expect(value.text() == #"{"a":"q\"\u0001","b":["x/y",null,null]}"#)
  }
}
