import Kernel
import Testing

@testable import Sandbox

@Suite struct ProfileTests {
  @Test func everyKey() throws {
    let profile = try Profile(
      toml: """
        [namespaces]
        network = true
        [filesystem]
        read-only = ["/usr"]
        hidden = ["/root"]
        private-tmp = true
        [privileges]
        no-new-privileges = false
        capabilities = ["CAP_CHOWN", "net_admin"]
        """, path: "p.toml")
    #expect(profile.capabilities == 1 | 1 << 12)
    #expect(!profile.noNewPrivileges)
    #expect(
      profile.sandbox
        == SandboxPlan(
          namespaces: .all,
          operations: [.tmpfs(target: "/tmp", options: "mode=1777"), .hide(path: "/root"), .readOnly(path: "/usr")],
          targetResolution: .inRoot))
  }

  @Test func theInstalledDefaultIsValid() throws {
    let directory = Paths.parent(#filePath) + "/../../profiles"
    let profile = try Profile.load("default", from: ["/nowhere", directory])
    #expect(profile.sandbox.namespaces == [.mount, .ipc, .uts])
    #expect(profile.noNewPrivileges)
  }

  @Test(arguments: [
    ("[namespaces]\nnetwrok = true\n", "read profile p.toml:2: netwrok: unknown key"),
    ("\n\n[file]\n", "read profile p.toml:3: file: unknown key"),
    ("network = true", "read profile p.toml:1: network: unknown key"),
    ("[filesystem]\n# hidden\nhidden = [\"etc\"]", "read profile p.toml:3: etc: must be an absolute path, and not /"),
    ("[filesystem]\nhidden = [\"/\"]", "read profile p.toml:2: /: must be an absolute path, and not /"),
    ("[filesystem]\nprivate-tmp = 1", "read profile p.toml:2: private-tmp: must be true or false"),
    ("[privileges]\ncapabilities = [\"fly\"]", "read profile p.toml:2: fly: there is no such capability"),
  ])
  func mistakesNameTheLine(toml: String, message: String) {
    #expect { try Profile(toml: toml, path: "p.toml") } throws: { "\($0)" == message }
  }

  @Test func brokenTOMLNamesTheLine() {
    #expect {
      try Profile(toml: "[filesystem]\nhidden = [", path: "p.toml")
    } throws: { "\($0)".hasPrefix("read profile p.toml:2: ") }
  }

  @Test func aMissingProfileNamesWhereItWasLookedFor() {
    #expect { try Profile.load("x", from: ["/no/a", "/no/b"]) } throws: {
      "\($0)" == "find profile x: not in /no/a, /no/b"
    }
  }

  @Test func restrictionsOnlyTakeAway() {
    var profile = Profile()
    profile.capabilities = 0b0111
    let credentials = Credentials(
      user: Identities(0), group: Identities(0), supplementaryGroups: [],
      capabilities: CapabilitySets(inheritable: 0b0011, bounding: 0b1110, ambient: 0b0010), noNewPrivileges: false)
    let result = profile.restrict(credentials)
    #expect(result.capabilities.bounding == 0b0110)
    #expect(result.capabilities.inheritable == 0b0010)
    #expect(result.capabilities.ambient == 0b0010)
    #expect(result.noNewPrivileges)
  }

  @Test func aTreePlanHasItsDevicesOnce() {
    let plan = SandboxPlan.tree("/srv/t", devices: ["/dev/kvm", "/dev/null"], files: [.proc(target: "/p")])
    let devices = plan.operations.filter { if case .device = $0 { true } else { false } }
    #expect(devices.count == SandboxPlan.standardDevices.count + 1)
    #expect(plan.operations.last == .proc(target: "/p"))
    #expect(plan.targetResolution == .inRoot && SandboxPlan().targetResolution == .noSymlinks)
  }

  @Test func programsAreFoundAsAShellFindsThem() throws {
    #expect(try Launching.find("/a/b", path: nil) == "/a/b")
    #expect(try Launching.find("sh", path: "/nowhere:/bin") == "/bin/sh")
    #expect { try Launching.find("passwd", path: "/etc") } throws: { ($0 as? Failure)?.errno == .permissionDenied }
    #expect { try Launching.find("no-such", path: "/bin") } throws: { ($0 as? Failure)?.errno == .noSuchFileOrDirectory }
  }
}
