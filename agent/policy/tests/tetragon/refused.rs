//! What cannot be said is refused, with its line.

use expect_test::expect;

use crate::{check, kprobe};

#[test]
fn what_cannot_be_said_is_refused_with_its_line() {
    check(
        &kprobe(
            "security_file_open",
            "file",
            "        - matchArgs: [{index: 0, operator: Mask, values: ['4']}]
          matchNamespaces: [{namespace: Pid, operator: NotIn, values: [host_ns]}]
          matchActions: [{action: NotifyEnforcer}, {action: Override, argError: -2}]
",
        ),
        &expect![[r#"
            policy file `t.yaml` has 4 mistakes; line 11, column 44: operator `Mask` of files has no counterpart here
              × operator `Mask` of files has no counterpart here
                ╭─[t.yaml:11:44]
             10 │       selectors:
             11 │         - matchArgs: [{index: 0, operator: Mask, values: ['4']}]
                ·                                            ──┬─
                ·                                              ╰── cannot be said in a policy
             12 │           matchNamespaces: [{namespace: Pid, operator: NotIn, values: [host_ns]}]
                ╰────
              help: known are `Prefix`, `Equal`, `Postfix`, `NotEqual`, `NotPrefix` or `NotPostfix`

              × `matchNamespaces` of a selector has no counterpart here
                ╭─[t.yaml:12:11]
             11 │         - matchArgs: [{index: 0, operator: Mask, values: ['4']}]
             12 │           matchNamespaces: [{namespace: Pid, operator: NotIn, values: [host_ns]}]
                ·           ───────┬───────
                ·                  ╰── cannot be said in a policy
             13 │           matchActions: [{action: NotifyEnforcer}, {action: Override, argError: -2}]
                ╰────
              help: take it out if the policy is right without it

              × `NotifyEnforcer` cannot be converted
                ╭─[t.yaml:13:35]
             12 │           matchNamespaces: [{namespace: Pid, operator: NotIn, values: [host_ns]}]
             13 │           matchActions: [{action: NotifyEnforcer}, {action: Override, argError: -2}]
                ·                                   ───────┬──────
                ·                                          ╰── here
                ╰────
              help: what can be is `Post`, `Sigkill` or `Override`

              × what is denied fails with EPERM
                ╭─[t.yaml:13:81]
             12 │           matchNamespaces: [{namespace: Pid, operator: NotIn, values: [host_ns]}]
             13 │           matchActions: [{action: NotifyEnforcer}, {action: Override, argError: -2}]
                ·                                                                                 ─┬
                ·                                                                                  ╰── cannot be said in a policy
                ╰────
              help: write `argError: -1`

        "#]],
    );
    check(
        &kprobe("sys_write", "int", "        - matchActions: [{action: Post}]\n"),
        &expect![[r#"
            policy file `t.yaml` has 1 mistake; line 7, column 13: `sys_write` has no counterpart here
              × `sys_write` has no counterpart here
               ╭─[t.yaml:7:13]
             6 │   kprobes:
             7 │     - call: sys_write
               ·             ────┬────
               ·                 ╰── cannot be said in a policy
             8 │       syscall: false
               ╰────
              help: known are `security_file_open`, `security_file_permission`, `security_mmap_file`,
                    `security_path_truncate`, `security_file_truncate`, `security_socket_connect`, `tcp_connect` or
                    `udp_sendmsg`

        "#]],
    );
    check(
        &kprobe("security_file_open", "file", "        - matchActions: [{action: Post}]\n"),
        &expect![[r#"
        policy file `t.yaml` has 1 mistake; line 11, column 11: every file of security_file_open cannot be watched
          × every file of security_file_open cannot be watched
            ╭─[t.yaml:11:11]
         10 │       selectors:
         11 │         - matchActions: [{action: Post}]
            ·           ▲
            ·           ╰── cannot be said in a policy
            ╰────
          help: name directories with `Prefix`, or files with `Equal`

    "#]],
    );
    check(
        &kprobe("security_file_open", "file", "        - matchArgs: [{index: 0, operator: Prefix, values: [/mod]}]\n"),
        &expect![[r#"
            policy file `t.yaml` has 1 mistake; line 11, column 61: this would watch `/`
              × this would watch `/`
                ╭─[t.yaml:11:61]
             10 │       selectors:
             11 │         - matchArgs: [{index: 0, operator: Prefix, values: [/mod]}]
                ·                                                             ──┬─
                ·                                                               ╰── cannot be said in a policy
                ╰────
              help: name a directory below it

        "#]],
    );
    check(
        "apiVersion: cilium.io/v1alpha1\nkind: TracingPolicy\nmetadata: {name: t}\nspec: {uprobes: [], tracepoints: []}\n",
        &expect![[r#"
            policy file `t.yaml` has 2 mistakes; line 4, column 8: `uprobes` of `spec` has no counterpart here
              × `uprobes` of `spec` has no counterpart here
               ╭─[t.yaml:4:8]
             3 │ metadata: {name: t}
             4 │ spec: {uprobes: [], tracepoints: []}
               ·        ───┬───
               ·           ╰── cannot be said in a policy
               ╰────
              help: if it is misspelt, write `kprobes`

              × `tracepoints` of `spec` has no counterpart here
               ╭─[t.yaml:4:21]
             3 │ metadata: {name: t}
             4 │ spec: {uprobes: [], tracepoints: []}
               ·                     ─────┬─────
               ·                          ╰── cannot be said in a policy
               ╰────
              help: take it out if the policy is right without it

        "#]],
    );
}

#[test]
fn what_no_list_says_is_refused() {
    check(
        &kprobe(
            "tcp_connect",
            "sock",
            "        - matchArgs: [{index: 0, operator: DPort, values: ['80']}, {index: 0, operator: DPort, values: ['443']}, {args: [1, 2], operator: DAddr, values: [10.0.0.1]}]
        - matchArgs: [{index: 0, operator: NotDPort, values: [\"80]\\n - exe: [x\"]}]
        - matchBinaries: [{operator: NotNotIn, values: [/bin/a]}, {operator: In, values: [/bin/b]}]
",
        ),
        &expect![[r#"
            policy file `t.yaml` has 4 mistakes; line 11, column 89: a second match by `DPort`: both must hold
              × a second match by `DPort`: both must hold
                ╭─[t.yaml:11:89]
             10 │       selectors:
             11 │         - matchArgs: [{index: 0, operator: DPort, values: ['80']}, {index: 0, operator: DPort, values: ['443']}, {args: [1, 2], operator: DAddr, values: [10.0.0.1]}]
                ·                                                                                         ──┬──
                ·                                                                                           ╰── cannot be said in a policy
             12 │         - matchArgs: [{index: 0, operator: NotDPort, values: ["80]\n - exe: [x"]}]
                ╰────

              × a match of several arguments, or of none
                ╭─[t.yaml:11:114]
             10 │       selectors:
             11 │         - matchArgs: [{index: 0, operator: DPort, values: ['80']}, {index: 0, operator: DPort, values: ['443']}, {args: [1, 2], operator: DAddr, values: [10.0.0.1]}]
                ·                                                                                                                  ┬
                ·                                                                                                                  ╰── cannot be said in a policy
             12 │         - matchArgs: [{index: 0, operator: NotDPort, values: ["80]\n - exe: [x"]}]
                ╰────
              help: name one argument by its `index`

              × `80]  - exe: [x` is neither a port nor a range of ports
                ╭─[t.yaml:12:63]
             11 │         - matchArgs: [{index: 0, operator: DPort, values: ['80']}, {index: 0, operator: DPort, values: ['443']}, {args: [1, 2], operator: DAddr, values: [10.0.0.1]}]
             12 │         - matchArgs: [{index: 0, operator: NotDPort, values: ["80]\n - exe: [x"]}]
                ·                                                               ────────┬────────
                ·                                                                       ╰── here
             13 │         - matchBinaries: [{operator: NotNotIn, values: [/bin/a]}, {operator: In, values: [/bin/b]}]
                ╰────

              × operator `NotNotIn` of binaries has no counterpart here
                ╭─[t.yaml:13:38]
             12 │         - matchArgs: [{index: 0, operator: NotDPort, values: ["80]\n - exe: [x"]}]
             13 │         - matchBinaries: [{operator: NotNotIn, values: [/bin/a]}, {operator: In, values: [/bin/b]}]
                ·                                      ────┬───
                ·                                          ╰── cannot be said in a policy
                ╰────

        "#]],
    );
    let udp = kprobe("udp_sendmsg", "sock", "        - matchArgs: [{index: 0, operator: SAddr, values: [10.0.0.1]}]\n");
    check(
        &udp,
        &expect![[r#"
        policy file `t.yaml` has 1 mistake; line 11, column 44: operator `SAddr` of a sock has no counterpart here
          × operator `SAddr` of a sock has no counterpart here
            ╭─[t.yaml:11:44]
         10 │       selectors:
         11 │         - matchArgs: [{index: 0, operator: SAddr, values: [10.0.0.1]}]
            ·                                            ──┬──
            ·                                              ╰── cannot be said in a policy
            ╰────

    "#]],
    );
    // Right as it stands, and wrong as a policy.
    let host_bits =
        kprobe("tcp_connect", "sock", "        - matchArgs: [{index: 0, operator: DAddr, values: [10.0.0.1/8]}]\n");
    check(
        &host_bits,
        &expect![[r#"
        policy file `t.yaml (converted)` has 1 mistake; line 17, column 16: `10.0.0.1/8` is not a network: it has bits set beyond the prefix
          × `10.0.0.1/8` is not a network: it has bits set beyond the prefix
            ╭─[t.yaml (converted):17:16]
         16 │         connect:
         17 │           to: ["10.0.0.1/8"]
            ·                ──────┬─────
            ·                      ╰── the network is `10.0.0.0/8`
         18 │           protocol: tcp
            ╰────
          help: write `10.0.0.0/8` for the network, `10.0.0.1` for the one address

    "#]],
    );
}
