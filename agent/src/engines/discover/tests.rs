//! Discovery on made-up `/proc` trees: what is an engine, and where it listens.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

/// Two heads and a listening, an established and a listening-on-all socket, as a kernel prints them.
const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 101 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F90 0100007F:A2C4 01 00000000:00000000 00:00000000 00000000  1000        0 102 1 0000000000000000 20 4 30 10 -1
   2: 00000000:4650 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 103 1 0000000000000000 100 0 0 10 0
   3: 0502000A:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 104 1 0000000000000000 100 0 0 10 0
";
const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:1F40 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 201 1 0000000000000000 100 0 0 10 0
   1: 0000000000000000FFFF00000100007F:1F41 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 202 1 0000000000000000 100 0 0 10 0
";

#[cfg(target_endian = "little")]
#[test]
fn listening_sockets_are_read_from_the_kernels_tables() {
    let read = |table: &str| -> Vec<String> {
        table.lines().filter_map(listening_socket).map(|(inode, address)| format!("{inode} {address}")).collect()
    };
    assert_eq!(read(TCP), ["101 127.0.0.1:8080", "103 0.0.0.0:18000", "104 10.0.2.5:5000"]);
    assert_eq!(read(TCP6), ["201 [::]:8000", "202 [::ffff:127.0.0.1]:8001"]);
}

/// `(pid, command line, socket inodes, network namespace)`.
type Process<'a> = (u32, &'a str, &'a [u64], u32);

const POD: &str = "0000000a-0000-4000-8000-00000000000a";
const CONTAINER: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A `/proc` of our own, where we are in network namespace 1; processes of namespace 3 are in a pod, those of 4 in a container, those of
/// 0 keep theirs to themselves.
fn check(processes: &[Process<'_>], expect: &[&str]) {
    let root = tempfile::tempdir().expect("a temporary folder");
    let (proc, logs) = (root.path().join("proc"), root.path().join("log"));
    fs::create_dir_all(logs.join(format!("pods/serving_chat-0_{POD}"))).expect("a folder");
    let own = (std::process::id(), "plumbline", &[][..], 1);
    for (pid, command_line, inodes, network) in processes.iter().copied().chain([own]) {
        let folder = proc.join(pid.to_string());
        ["fd", "ns", "net"].iter().for_each(|name| fs::create_dir_all(folder.join(name)).expect("a folder"));
        fs::write(folder.join("cmdline"), command_line.replace(' ', "\0") + "\0").expect("a file");
        fs::write(folder.join("net/tcp"), TCP).expect("a file");
        fs::write(folder.join("net/tcp6"), TCP6).expect("a file");
        let cgroup = match network {
            3 => format!("0::/kubepods/besteffort/pod{POD}/{CONTAINER}\n"),
            4 => format!("0::/system.slice/docker-{CONTAINER}.scope\n"),
            _ => "0::/\n".to_owned(),
        };
        fs::write(folder.join("cgroup"), cgroup).expect("a file");
        symlink("/dev/null", folder.join("fd/0")).expect("a link");
        for (index, inode) in inodes.iter().enumerate() {
            symlink(format!("socket:[{inode}]"), folder.join(format!("fd/{}", index + 3))).expect("a link");
        }
        if network != 0 {
            symlink(format!("net:[{network}]"), folder.join("ns/net")).expect("a link");
        }
    }
    symlink(std::process::id().to_string(), proc.join("self")).expect("a link");
    let found = look(&proc, &logs);
    let candidates = found.candidates.iter().map(|candidate| {
        let Candidate { pid, access, model, dialect, .. } = candidate;
        let (pid, name) = (pid.expect("a process"), candidate.name(dialect.expect("a dialect")));
        let access = access.to_string().replace(&*proc.to_string_lossy(), "/proc");
        format!("{pid} {name} {access} {}", model.as_deref().unwrap_or("-"))
    });
    let hidden = found.hidden.iter().map(|pid| format!("{pid} hidden"));
    assert_eq!(candidates.chain(hidden).collect::<Vec<_>>(), expect);
}

#[test]
fn a_process_that_is_no_engine_is_none() {
    check(
        &[
            (1, "/sbin/init", &[101], 1),
            (2, "/usr/bin/vim llama-server", &[101], 1),
            (3, "grep -r vllm serve", &[103], 1),
            (4, "python -m vllm.entrypointsx", &[103], 1),
            (5, "", &[101], 1),
        ],
        &[],
    );
}

#[cfg(target_endian = "little")]
#[test]
fn engines_are_found_where_their_command_line_says() {
    check(
        &[
            (10, "/opt/bin/llama-server -m /models/SmolLM2-135M.Q4_1.gguf --metrics", &[101, 102], 1),
            (11, "/venv/bin/python3 /venv/bin/vllm serve tiny-llama --port 18000", &[103, 104], 1),
            (12, "python -m vllm.entrypoints.openai.api_server --model org/model", &[104, 201], 1),
        ],
        &[
            "10 llamacpp-8080 http://127.0.0.1:8080/metrics SmolLM2-135M.Q4_1",
            "11 vllm-18000 http://127.0.0.1:18000/metrics -",
            "12 vllm-8000 http://[::1]:8000/metrics model",
        ],
    );
}

#[cfg(target_endian = "little")]
#[test]
fn a_single_port_is_taken_and_of_several_unknown_ones_none() {
    check(
        &[
            (10, "llama-server --alias=chat -m x.gguf", &[104], 1),
            (11, "vllm serve m --port 9", &[103, 201], 1),
            (12, "vllm serve m --port nonsense", &[101, 103], 1),
            (13, "vllm serve m", &[], 1),
        ],
        &["10 llamacpp-5000 http://10.0.2.5:5000/metrics chat"],
    );
}

#[cfg(target_endian = "little")]
#[test]
fn workers_that_share_a_socket_are_one_engine() {
    check(
        &[(11, "vllm serve m --port=18000", &[103], 1), (12, "vllm serve m --port=18000", &[103], 1)],
        &["11 vllm-18000 http://127.0.0.1:18000/metrics -"],
    );
}

#[cfg(target_endian = "little")]
#[test]
fn engines_of_other_networks_are_called_after_their_pod_or_container_and_one_address_may_be_many() {
    check(
        &[
            (10, "vllm serve m", &[201], 1),
            (11, "vllm serve m", &[201], 2),
            (12, "vllm serve m", &[201], 3),
            (13, "vllm serve m", &[201], 3),
            (14, "llama-server -m x.gguf", &[101], 4),
        ],
        &[
            "10 vllm-8000 http://[::1]:8000/metrics -",
            "11 net-2.vllm-8000 http://[::1]:8000/metrics in net:[2] -",
            "12 chat-0.vllm-8000 http://[::1]:8000/metrics in net:[3] -",
            "14 001122334455.llamacpp-8080 http://127.0.0.1:8080/metrics in net:[4] x",
        ],
    );
}

#[test]
fn an_engine_whose_network_may_not_be_seen_is_named_and_not_guessed_at() {
    check(&[(10, "llama-server -m x.gguf", &[101], 0)], &["10 hidden"]);
}

/// `llama-server` and what follows, in a `/proc` of our own: what it is reached by. `make` puts what it likes below the process's folder.
fn check_socket(command_lines: &[&str], make: impl Fn(&Path), expect: &[&str]) {
    let root = tempfile::tempdir().expect("a temporary folder");
    for (pid, command_line) in (10..).zip(command_lines) {
        let folder = root.path().join(pid.to_string());
        ["ns", "cwd", "root/run"].iter().for_each(|name| fs::create_dir_all(folder.join(name)).expect("a folder"));
        symlink("net:[1]", folder.join("ns/net")).expect("a link");
        fs::write(folder.join("cmdline"), command_line.replace(' ', "\0")).expect("a file");
        make(&folder);
    }
    fs::create_dir_all(root.path().join("self/ns")).expect("a folder");
    symlink("net:[1]", root.path().join("self/ns/net")).expect("a link");
    let found = look(root.path(), root.path());
    let names: Vec<String> =
        found.candidates.iter().map(|found| found.name(found.dialect.expect("a dialect"))).collect();
    assert_eq!(names, expect);
}

fn socket(path: PathBuf) {
    drop(std::os::unix::net::UnixListener::bind(path).expect("a socket"));
}

#[test]
fn an_engine_on_a_unix_socket_is_reached_as_it_sees_the_path() {
    check_socket(
        &["vllm serve m --uds /run/vllm.sock"],
        |folder| socket(folder.join("root/run/vllm.sock")),
        &["vllm-vllm"],
    );
    check_socket(&["llama-server --host chat.sock"], |folder| socket(folder.join("cwd/chat.sock")), &["llamacpp-chat"]);
    check_socket(&["llama-server --host chat.sock"], |_| {}, &[]);
    check_socket(&["llama-server --host 0.0.0.0"], |_| {}, &[]);
    check_socket(
        &["llama-server --host /run/x.sock"],
        |folder| drop(fs::write(folder.join("root/run/x.sock"), "")),
        &[],
    );
}

/// In a container's root, where a link may point at a socket of the host's.
#[test]
fn a_link_leads_no_further_than_the_engines_own_root() {
    let outside = tempfile::tempdir().expect("a temporary folder");
    socket(outside.path().join("host.sock"));
    let link = |to: PathBuf| move |folder: &Path| symlink(&to, folder.join("root/run/x.sock")).expect("a link");
    check_socket(&["llama-server --host /run/x.sock"], link(outside.path().join("host.sock")), &[]);
    check_socket(
        &["llama-server --host /run/x.sock"],
        link(
            Path::new("../../../../../../..")
                .join(outside.path().strip_prefix("/").expect("absolute"))
                .join("host.sock"),
        ),
        &[],
    );
    check_socket(&["llama-server --host /run/x.sock"], link("/proc/self/root/run/x.sock".into()), &[]);
}

#[test]
fn a_wrapper_and_its_child_on_one_unix_socket_are_one_engine() {
    let line = "llama-server --host /run/x.sock";
    let shared = tempfile::tempdir().expect("a temporary folder");
    socket(shared.path().join("x.sock"));
    let share =
        |folder: &Path| fs::hard_link(shared.path().join("x.sock"), folder.join("root/run/x.sock")).expect("a link");
    check_socket(&[line, line], share, &["llamacpp-x"]);
}

#[test]
fn an_address_of_a_network_namespace_is_found_in_its_own_tables() {
    let root = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir_all(root.path().join("10/net")).expect("a folder");
    let trie = "Local:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.0.0\n        /24 link UNICAST\n     |-- 10.0.0.7\n        /32 host LOCAL\n     |-- 10.0.0.255\n        /32 link BROADCAST\n";
    fs::write(root.path().join("10/net/fib_trie"), trie).expect("a file");
    fs::write(root.path().join("10/net/if_inet6"), "fd000000000000000000000000000007 02 40 00 80 eth0\n")
        .expect("a file");
    let network = root.path().join("10/ns/net");
    let has: Vec<bool> = ["10.0.0.7", "10.0.0.255", "10.0.0.0", "10.0.0.70", "fd00::7", "fd00::8"]
        .iter()
        .map(|ip| has_address(&network, ip.parse().expect("an address")))
        .collect();
    assert_eq!(has, [true, false, false, false, true, false]);
}

#[test]
fn a_pod_in_which_an_engine_was_found_needs_no_annotation() {
    let page =
        |uid: &str, url: &str| Page { pod_uid: uid.to_owned(), pod: "a".to_owned(), port: 8000, url: url.to_owned() };
    let pages =
        [page("u", "http://10.0.0.1:8000/metrics"), page(POD, "http://10.0.0.2:8000/metrics"), page("v", "nonsense")];
    let found = Found { pods: [POD.to_owned()].into(), ..Found::default() };
    let said: Vec<String> = Candidate::annotated(&pages, &found)
        .iter()
        .map(|candidate| format!("{} {}", candidate.name(DIALECTS[0]), candidate.access))
        .collect();
    assert_eq!(said, ["a.dynamo-8000 http://10.0.0.1:8000/metrics"]);
}

#[test]
fn no_more_engines_are_looked_at_than_a_node_has() {
    let processes: Vec<Process<'_>> =
        (0..300_u32).map(|number| (number + 1000, "vllm serve m", &[201][..], number + 5)).collect();
    let root = tempfile::tempdir().expect("a temporary folder");
    for (pid, command_line, _, network) in processes {
        let folder = root.path().join(pid.to_string());
        ["fd", "ns", "net"].iter().for_each(|name| fs::create_dir_all(folder.join(name)).expect("a folder"));
        fs::write(folder.join("cmdline"), command_line.replace(' ', "\0")).expect("a file");
        fs::write(folder.join("net/tcp6"), TCP6).expect("a file");
        symlink("socket:[201]", folder.join("fd/3")).expect("a link");
        symlink(format!("net:[{network}]"), folder.join("ns/net")).expect("a link");
    }
    let found = look(root.path(), root.path());
    assert_eq!((found.candidates.len(), found.left_out), (MAX_CANDIDATES, 300 - MAX_CANDIDATES));
}

#[test]
fn a_folder_that_is_no_proc_has_no_engines() {
    assert_eq!(look(Path::new("/nonexistent"), Path::new("/nonexistent")), Found::default());
}

proptest! {
    #[test]
    fn no_line_of_a_table_is_too_broken(line in "[ 0-9A-F:.ü]{0,120}") {
        let _ = listening_socket(&line);
        let _ = socket_address(&line);
    }

    #[test]
    fn no_command_line_is_too_broken(bytes: Vec<u8>) {
        let arguments = arguments(&bytes);
        for dialect in DIALECTS {
            let _ = is_run_by(&dialect.process, &arguments);
            let _ = model(&dialect.process, &arguments);
            let _ = page_address(&dialect.process, &arguments, &[]);
            let _ = socket_path(&dialect.process, &arguments);
        }
    }
}
