/// Whether a command of the guest's `tpm-crb` is under way. Source: TCG PC Client Platform TPM Profile, CRB control area,
/// `TPM_CRB_CTRL_START`; reading the register changes nothing.
enum TPMStart {
  static let question = "xp /1wx 0xfed4004c"
  /// - Parameter answer: `00000000fed4004c: 0x00000001`. What is not understood counts as one.
  static func isUnderWay(_ answer: String) -> Bool { answer.split(separator: ":").last.map { $0.filter { !$0.isWhitespace } } != "0x00000000" }
}
