/// What was written by the formats that exist. Never to be changed: journals like these lie on hosts.
enum JournalSamples {
  /// Version 0: the record alone in `record.json`, the journal without lengths and checksums. A held upgrade.
  static let version0Record = #"""
{"hasResumed":true,"holds":true,"id":"20261121-132815-5a88","kept":{"binary":"/usr/bin/qemu-system-x86_64","directory":"/var/lib/moult/kept/20261121-132815-5a88","files":[{"original":{"device":65024,"inode":16236555},"path":"/usr/bin/qemu-system-x86_64"}]},"key":"vm1-1","memory":"shared","monitor":"/run/vm1/qmp.sock","new":{"process":{"pid":3381,"startTime":1274350},"version":{"major":10,"micro":2,"minor":0,"package":"Debian 1:10.0.2+ds-2+deb13u1~bpo12+1"}},"newBinary":"/usr/bin/qemu-system-x86_64","newRoot":"/opt/trees/10.0","old":{"pid":3233,"startTime":1274073},"oldBinary":"/usr/bin/qemu-system-x86_64","oldVersion":{"major":7,"micro":22,"minor":2,"package":"Debian 1:7.2+dfsg-7+deb12u18+b3"},"pauseMilliseconds":4.185,"settings":{"capabilities":{"auto-converge":false,"background-snapshot":false,"block":false,"compress":false,"dirty-bitmaps":false,"events":false,"late-block-activate":false,"multifd":false,"pause-before-switchover":false,"postcopy-blocktime":false,"postcopy-preempt":false,"postcopy-ram":false,"rdma-pin-all":false,"release-ram":false,"return-path":false,"validate-uuid":false,"x-colo":false,"x-ignore-shared":false,"xbzrle":false,"zero-blocks":false,"zero-copy-send":false},"parameters":{"downtime-limit":300,"max-bandwidth":134217728,"tls-creds":""}},"spawned":{"pid":3381,"startTime":1274350},"staged":{"/run/.moult-20261121-132815-5a88-vm1":{"device":65024,"inode":1196069},"/run/shared/.moult-20261121-132815-5a88/vm1.serial":{"device":65024,"inode":1196070}},"stages":[{"carried":[],"directory":"/run/vm1","kind":"exclusive","names":["qemu.pid","qmp.sock"],"path":"/run/.moult-20261121-132815-5a88-vm1"},{"carried":["other"],"directory":"/run/shared","kind":"shared","names":["vm1.serial"],"path":"/run/shared/.moult-20261121-132815-5a88"}],"state":"probation","vm":"vm1"}
"""#

  static let version0Journal = #"""
{"us":17799,"step":"lock","phase":"done"}
{"us":17847,"step":"keep","phase":"begin"}
{"us":208345,"step":"keep","phase":"done"}
{"us":208431,"step":"stage","phase":"begin"}
{"us":208900,"step":"stage","phase":"done"}
{"us":208918,"step":"launch","phase":"begin"}
{"us":307694,"step":"launch","phase":"done"}
{"us":307754,"step":"compare","phase":"begin"}
{"us":314020,"step":"compare","phase":"done"}
{"us":314138,"step":"migrate","phase":"begin"}
{"us":319705,"step":"migrate","phase":"done"}
{"us":319738,"step":"pause","phase":"begin"}
{"us":319808,"step":"pause","phase":"done"}
{"us":319813,"step":"switch","phase":"begin"}
{"us":323302,"step":"switch","phase":"done"}
{"us":323319,"step":"exchange","phase":"begin"}
{"us":323395,"step":"exchange","phase":"done"}
{"us":323457,"step":"verify","phase":"begin"}
{"us":323485,"step":"verify","phase":"done"}
{"us":323488,"step":"resume","phase":"begin"}
{"us":323835,"step":"resume","phase":"done"}
{"us":323857,"step":"retire","phase":"begin"}
{"us":344096,"step":"retire","phase":"done"}

"""#

  /// Version 1: the same upgrade.
  static let version1 = #"""
1 1254 519b04ef {"record":{"hasResumed":false,"holds":true,"id":"20261121-132815-5a88","key":"vm1-1","memory":"shared","monitor":"/run/vm1/qmp.sock","newBinary":"/usr/bin/qemu-system-x86_64","newRoot":"/opt/trees/10.0","old":{"pid":3233,"startTime":1274073},"oldBinary":"/usr/bin/qemu-system-x86_64","oldVersion":{"major":7,"micro":22,"minor":2,"package":"Debian 1:7.2+dfsg-7+deb12u18+b3"},"settings":{"capabilities":{"auto-converge":false,"background-snapshot":false,"block":false,"compress":false,"dirty-bitmaps":false,"events":false,"late-block-activate":false,"multifd":false,"pause-before-switchover":false,"postcopy-blocktime":false,"postcopy-preempt":false,"postcopy-ram":false,"rdma-pin-all":false,"release-ram":false,"return-path":false,"validate-uuid":false,"x-colo":false,"x-ignore-shared":false,"xbzrle":false,"zero-blocks":false,"zero-copy-send":false},"parameters":{"downtime-limit":300,"max-bandwidth":134217728,"tls-creds":""}},"staged":{},"stages":[{"carried":[],"directory":"/run/vm1","kind":"exclusive","names":["qemu.pid","qmp.sock"],"path":"/run/.moult-20261121-132815-5a88-vm1"},{"carried":["other"],"directory":"/run/shared","kind":"shared","names":["vm1.serial"],"path":"/run/shared/.moult-20261121-132815-5a88"}],"state":"under-way","vm":"vm1"}}
1 41 8426912c {"us":17799,"step":"lock","phase":"done"}
1 42 bdd71492 {"us":17847,"step":"keep","phase":"begin"}
1 42 7871af3a {"us":208345,"step":"keep","phase":"done"}
1 44 323c4b47 {"us":208431,"step":"stage","phase":"begin"}
1 43 478bfbe9 {"us":208900,"step":"stage","phase":"done"}
1 45 b5e4731a {"us":208918,"step":"launch","phase":"begin"}
1 44 54edb427 {"us":307694,"step":"launch","phase":"done"}
1 46 b4a4bfa2 {"us":307754,"step":"compare","phase":"begin"}
1 45 f5912c11 {"us":314020,"step":"compare","phase":"done"}
1 46 38a9a62c {"us":314138,"step":"migrate","phase":"begin"}
1 45 081326e3 {"us":319705,"step":"migrate","phase":"done"}
1 44 185d888b {"us":319738,"step":"pause","phase":"begin"}
1 43 f1bd04d4 {"us":319808,"step":"pause","phase":"done"}
1 45 47815f14 {"us":319813,"step":"switch","phase":"begin"}
1 44 fbae6577 {"us":323302,"step":"switch","phase":"done"}
1 47 2df68833 {"us":323319,"step":"exchange","phase":"begin"}
1 46 86918c13 {"us":323395,"step":"exchange","phase":"done"}
1 45 7f29bc9f {"us":323457,"step":"verify","phase":"begin"}
1 44 2735eed0 {"us":323485,"step":"verify","phase":"done"}
1 45 31bc3428 {"us":323488,"step":"resume","phase":"begin"}
1 44 c3d46a21 {"us":323835,"step":"resume","phase":"done"}
1 45 718efae8 {"us":323857,"step":"retire","phase":"begin"}
1 1819 00271224 {"record":{"hasResumed":true,"holds":true,"id":"20261121-132815-5a88","kept":{"binary":"/usr/bin/qemu-system-x86_64","directory":"/var/lib/moult/kept/20261121-132815-5a88","files":[{"original":{"device":65024,"inode":16236555},"path":"/usr/bin/qemu-system-x86_64"}]},"key":"vm1-1","memory":"shared","monitor":"/run/vm1/qmp.sock","new":{"process":{"pid":3381,"startTime":1274350},"version":{"major":10,"micro":2,"minor":0,"package":"Debian 1:10.0.2+ds-2+deb13u1~bpo12+1"}},"newBinary":"/usr/bin/qemu-system-x86_64","newRoot":"/opt/trees/10.0","old":{"pid":3233,"startTime":1274073},"oldBinary":"/usr/bin/qemu-system-x86_64","oldVersion":{"major":7,"micro":22,"minor":2,"package":"Debian 1:7.2+dfsg-7+deb12u18+b3"},"pauseMilliseconds":4.185,"settings":{"capabilities":{"auto-converge":false,"background-snapshot":false,"block":false,"compress":false,"dirty-bitmaps":false,"events":false,"late-block-activate":false,"multifd":false,"pause-before-switchover":false,"postcopy-blocktime":false,"postcopy-preempt":false,"postcopy-ram":false,"rdma-pin-all":false,"release-ram":false,"return-path":false,"validate-uuid":false,"x-colo":false,"x-ignore-shared":false,"xbzrle":false,"zero-blocks":false,"zero-copy-send":false},"parameters":{"downtime-limit":300,"max-bandwidth":134217728,"tls-creds":""}},"spawned":{"pid":3381,"startTime":1274350},"staged":{"/run/.moult-20261121-132815-5a88-vm1":{"device":65024,"inode":1196069},"/run/shared/.moult-20261121-132815-5a88/vm1.serial":{"device":65024,"inode":1196070}},"stages":[{"carried":[],"directory":"/run/vm1","kind":"exclusive","names":["qemu.pid","qmp.sock"],"path":"/run/.moult-20261121-132815-5a88-vm1"},{"carried":["other"],"directory":"/run/shared","kind":"shared","names":["vm1.serial"],"path":"/run/shared/.moult-20261121-132815-5a88"}],"state":"probation","vm":"vm1"}}
1 44 0659b757 {"us":344096,"step":"retire","phase":"done"}

"""#
}
