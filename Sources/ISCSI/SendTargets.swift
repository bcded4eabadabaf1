/// What SendTargets tells an initiator (RFC 7143 §13.3 and Appendix C): targets that it may log in to, with every
/// portal.
struct SendTargets: Sendable {
  private let configuration: TargetConfiguration
  private let portals: [Portal]
  private let isVisible: Bool
  private let isDiscovery: Bool

  init(configuration: TargetConfiguration, localPortal: String, initiatorName: ISCSIName, isDiscovery: Bool) {
    self.configuration = configuration
    self.isDiscovery = isDiscovery
    portals =
      configuration.portals.isEmpty
      ? [Portal(address: localPortal, portalGroupTag: configuration.portalGroupTag)] : configuration.portals
    isVisible = configuration.access.decide(initiatorName: initiatorName) != .denied
  }

  /// Adds the answer to SendTargets=`value`. A target that does not exist and one that is not for this initiator are
  /// left out alike.
  func answer(_ value: String, _ answers: inout TextKeys) {
    switch value {
    case "All" where isDiscovery, "" where !isDiscovery:
      list(&answers)
    case "All", "":
      answers.append("SendTargets", TextValue.reject)  // Appendix C: All is for discovery, nothing is not
    default:
      if ISCSIName(value) == configuration.targetName { list(&answers) }
    }
  }

  private func list(_ answers: inout TextKeys) {
    guard isVisible else { return }
    answers.append("TargetName", configuration.targetName.text)
    for portal in portals { answers.append("TargetAddress", "\(portal.address),\(portal.portalGroupTag)") }
  }
}
