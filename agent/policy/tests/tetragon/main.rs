//! Tetragon's policies, taken as they are.

use expect_test::{Expect, expect};
use plumbline_policy::{PolicySet, import_tetragon};

mod refused;

/// The policy that the product was asked for with, its indentation restored.
const SAMPLE: &str = include_str!("../vllm-runtime-watch.yaml");

/// What becomes of a TracingPolicy, which is then read as a policy, or what is wrong with it.
fn check(text: &str, expect: &Expect) {
    let seen = match import_tetragon("t.yaml", text) {
        Ok(policy) => {
            PolicySet::from_documents([("t.yaml", policy.as_str())])
                .unwrap_or_else(|mistakes| panic!("{mistakes:?}\n{policy}"));
            policy
        }
        Err(mistakes) => {
            let mut drawn = format!("{mistakes}\n");
            mistakes.render(&mut drawn).expect("writing into a string");
            drawn
        }
    };
    expect.assert_eq(&seen);
}

/// One kprobe with these selectors.
fn kprobe(call: &str, kind: &str, selectors: &str) -> String {
    format!(
        "apiVersion: cilium.io/v1alpha1\nkind: TracingPolicy\nmetadata: {{name: t}}\nspec:\n  podSelector: {{matchLabels: {{app: vllm}}}}\n  kprobes:\n    - call: {call}\n      syscall: false\n      args: [{{index: 0, type: {kind}}}]\n      selectors:\n{selectors}"
    )
}

#[test]
fn the_sample_is_a_policy() {
    check(
        SAMPLE,
        &expect![[r##"
        # Converted from the Tetragon TracingPolicy `vllm-runtime-watch` by `plumbline policy import`.
        apiVersion: plumbline/v1
        kind: Policy
        metadata:
          name: vllm-runtime-watch
        spec:
          mode: monitor
          subject:
            podLabels: {"app": ["vllm"]}
          rules:
            - name: security-file-open
              severity: low
              effect: audit
              message: "{comm} (pid {pid}, {exe}): {access} of {path}"
              match:
                file:
                  watch: ["/models", "/root/.cache/huggingface"]
                  access: [open]
            - name: tcp-connect
              severity: low
              effect: audit
              message: "{comm} (pid {pid}, {exe}) connects to {address} port {port} ({protocol})"
              match:
                connect:
                  notTo: ["10.0.0.0/8", "127.0.0.0/8"]
                  protocol: tcp
    "##]],
    );
    let set = PolicySet::from_documents([("sample.yaml", SAMPLE)]).unwrap();
    assert_eq!(set.policies()[0].name(), "vllm-runtime-watch");
}

#[test]
fn operators_on_files() {
    check(
        &kprobe(
            "security_file_open",
            "file",
            "        - matchArgs:
            - {index: 0, operator: Prefix, values: [/models/, /etc/pass]}
            - {index: 0, operator: Postfix, values: [.pt]}
            - {index: 0, operator: NotEqual, values: ['/models/[a].pt']}
            - {index: 0, operator: NotPrefix, values: [/models/public/]}
          matchBinaries: [{operator: NotIn, values: [/usr/bin/vllm], followChildren: true}]
          matchActions: [{action: Post, rateLimit: 1m}]
        - matchArgs: [{index: 0, operator: Equal, values: [/etc/shadow]}]
          matchBinaries: [{operator: In, values: [/usr/bin/cat]}]
          matchActions: [{action: Sigkill}]
        - matchArgs: [{index: 0, operator: Prefix, values: [/models/]}]
          matchActions: [{action: Override, argError: -1}]
",
        ),
        &expect![[r##"
            # Converted from the Tetragon TracingPolicy `t` by `plumbline policy import`.
            apiVersion: plumbline/v1
            kind: Policy
            metadata:
              name: t
            spec:
              mode: enforce
              subject:
                podLabels: {"app": ["vllm"]}
              rules:
                - name: security-file-open
                  severity: low
                  effect: audit
                  message: "{comm} (pid {pid}, {exe}): {access} of {path}"
                  match:
                    file:
                      watch: ["/models", "/etc"]
                      access: [open]
                      path: ["/models/**/*.pt", "/etc/pass*.pt", "/etc/pass*/**/*.pt"]
                  except:
                    - path: ["/models/\\[a\\].pt"]
                    - path: ["/models/public/**/*"]
                    - exe: ["/usr/bin/vllm"]
                    - descendantsOf: {exe: ["/usr/bin/vllm"]}
                  throttle:
                    every: "1m"
                - name: security-file-open-2
                  severity: high
                  effect: kill
                  message: "{comm} (pid {pid}, {exe}): {access} of {path}"
                  subject:
                    - exe: ["/usr/bin/cat"]
                  match:
                    file:
                      watch: ["/etc"]
                      access: [open]
                      path: ["/etc/shadow"]
                - name: security-file-open-3
                  severity: high
                  effect: deny
                  message: "{comm} (pid {pid}, {exe}): {access} of {path}"
                  match:
                    file:
                      watch: ["/models"]
                      access: [open]
        "##]],
    );
}

#[test]
fn operators_on_sockets() {
    check(
        &kprobe(
            "tcp_connect",
            "sock",
            "        - matchArgs:
            - {index: 0, operator: DAddr, values: [203.0.113.0/24, '2001:db8::/32']}
            - {index: 0, operator: DPort, values: [443, '8000:8002']}
            - {index: 0, operator: SAddr, values: [10.0.0.0/8]}
        - matchArgs: [{index: 0, operator: NotDAddr, values: [127.0.0.1]}]
          matchActions: [{action: Override, argError: -1}]
",
        ),
        &expect![[r##"
            # Converted from the Tetragon TracingPolicy `t` by `plumbline policy import`.
            apiVersion: plumbline/v1
            kind: Policy
            metadata:
              name: t
            spec:
              mode: enforce
              subject:
                podLabels: {"app": ["vllm"]}
              rules:
                - name: tcp-connect
                  severity: low
                  effect: audit
                  message: "{comm} (pid {pid}, {exe}) connects to {address} port {port} ({protocol})"
                  match:
                    connect:
                      from: ["10.0.0.0/8"]
                      to: ["203.0.113.0/24", "2001:db8::/32"]
                      port: [443, 8000-8002]
                      protocol: tcp
                - name: tcp-connect-2
                  severity: high
                  effect: deny
                  message: "{comm} (pid {pid}, {exe}) connects to {address} port {port} ({protocol})"
                  match:
                    connect:
                      notTo: ["127.0.0.1"]
                      protocol: tcp
        "##]],
    );
}

#[test]
fn a_sockaddr_is_the_destination() {
    check(
        &kprobe(
            "security_socket_connect",
            "sockaddr",
            "        - matchArgs: [{index: 0, operator: SAddr, values: [169.254.169.254]}, {index: 0, operator: SPort, values: ['80', '8000:8999']}]
          matchActions: [{action: Post, rateLimit: '5'}]
        - matchArgs: [{index: 0, operator: NotSPort, values: ['1:1023']}, {index: 0, operator: NotSAddr, values: [10.0.0.1]}]
        - matchBinaries: [{operator: In, values: [/usr/bin/curl]}]
",
        ),
        &expect![[r##"
            # Converted from the Tetragon TracingPolicy `t` by `plumbline policy import`.
            apiVersion: plumbline/v1
            kind: Policy
            metadata:
              name: t
            spec:
              mode: monitor
              subject:
                podLabels: {"app": ["vllm"]}
              rules:
                - name: security-socket-connect
                  severity: low
                  effect: audit
                  message: "{comm} (pid {pid}, {exe}) connects to {address} port {port} ({protocol})"
                  match:
                    connect:
                      to: ["169.254.169.254"]
                      port: [80, 8000-8999]
                      protocol: [tcp, udp]
                  throttle:
                    every: "5s"
                - name: security-socket-connect-2
                  severity: low
                  effect: audit
                  message: "{comm} (pid {pid}, {exe}) connects to {address} port {port} ({protocol})"
                  match:
                    connect:
                      notTo: ["10.0.0.1"]
                      protocol: [tcp, udp]
                  except:
                    - port: [1-1023]
                - name: security-socket-connect-3
                  severity: low
                  effect: audit
                  message: "{comm} (pid {pid}, {exe}) connects to {address} port {port} ({protocol})"
                  subject:
                    - exe: ["/usr/bin/curl"]
                  match:
                    connect:
                      to: [0.0.0.0/0, "::/0"]
                      protocol: [tcp, udp]
        "##]],
    );
}

#[test]
fn what_ends_in_components_is_matched_by_components() {
    check(
        &kprobe(
            "security_file_open",
            "file",
            "        - matchArgs: [{index: 0, operator: Prefix, values: [/etc/, '/data/[x]/']}, {index: 0, operator: Postfix, values: [/passwd]}]
          matchBinaries: [{operator: NotPostfix, values: [/bin/bash]}]
",
        ),
        &expect![[r##"
            # Converted from the Tetragon TracingPolicy `t` by `plumbline policy import`.
            apiVersion: plumbline/v1
            kind: Policy
            metadata:
              name: t
            spec:
              mode: monitor
              subject:
                podLabels: {"app": ["vllm"]}
              rules:
                - name: security-file-open
                  severity: low
                  effect: audit
                  message: "{comm} (pid {pid}, {exe}): {access} of {path}"
                  match:
                    file:
                      watch: ["/etc", "/data/\\[x\\]"]
                      access: [open]
                      path: ["/etc/**/passwd", "/data/\\[x\\]/**/passwd"]
                  except:
                    - exe: ["/**/bin/bash"]
        "##]],
    );
}

#[test]
fn hooks_of_the_security_module_and_namespaces() {
    check(
        "apiVersion: cilium.io/v1alpha1
kind: TracingPolicyNamespaced
metadata: {name: Own.Name, namespace: serving}
spec:
  options: [{name: policy-mode, value: monitor}]
  lsmhooks:
    - hook: file_permission
      args: [{index: 0, type: file}, {index: 1, type: int}]
      message: reads {weights}
      selectors:
        - matchArgs: [{index: 0, operator: Prefix, values: [/models/]}, {index: 1, operator: Equal, values: ['4']}]
          matchActions: [{action: Post}]
",
        &expect![[r##"
            # Converted from the Tetragon TracingPolicy `Own.Name` by `plumbline policy import`.
            apiVersion: plumbline/v1
            kind: Policy
            metadata:
              name: own-name
            spec:
              mode: monitor
              subject:
                namespace: "serving"
              rules:
                - name: security-file-permission
                  severity: low
                  effect: audit
                  message: "reads {{weights}}"
                  match:
                    file:
                      watch: ["/models"]
                      access: [read]
        "##]],
    );
}
