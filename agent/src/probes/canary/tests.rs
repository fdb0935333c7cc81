//! What the canary judges of what it is told of itself.

use super::*;
use crate::event::Namespaces;

/// This process as the kernel programs would tell of it.
fn own_task() -> Task {
    let namespace = |name: &str| {
        let meta = fs::metadata(format!("/proc/self/ns/{name}")).unwrap();
        u32::try_from(meta.ino()).unwrap()
    };
    let pid = std::process::id();
    Task {
        pid,
        tid: pid,
        ppid: rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs()),
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        start_boot_ns: Procfs::default().look(pid, 0).unwrap().start_boot_ns,
        namespaces: Namespaces { mnt: namespace("mnt"), net: namespace("net"), pid: namespace("pid") },
        ..Task::default()
    }
}

/// What the programs tell of the canary's open, changed by `lie`, and what is found wrong with it.
#[track_caller]
fn check(lie: impl FnOnce(&mut FileOpen, &mut Task), expect: Option<&str>) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let directory = std::env::temp_dir().join(format!("plumbline-canary-{}-{number}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let proof = Arc::new(Proof::default());
    let canary = Canary::new(&directory, Arc::clone(&proof)).unwrap();
    let meta = fs::metadata(canary.path()).unwrap();
    let dev = rustix::fs::major(meta.dev()) << 20 | rustix::fs::minor(meta.dev());
    let key = FileKey { dev, ino: meta.ino(), generation: 0 };
    canary.enrolled(key).unwrap();
    let mut open = FileOpen {
        path: canary.path().as_os_str().as_encoded_bytes().to_vec(),
        path_truncated: false,
        known_as: None,
        key,
        watched: NO_DIRECTORY,
        flags: 0,
        inode_mode: meta.mode(),
        size_bytes: meta.len(),
        links: 1,
        received: false,
        denied_by: None,
    };
    let mut task = own_task();
    lie(&mut open, &mut task);
    let event = Event { boot_ns: 1, origin: None, task: Some(task), what: What::FileOpen(open) };
    assert!(proof.takes(&event), "the canary's own event makes no record");
    let wrong = proof.wrong.lock().unwrap().get(&program::FILE_OPEN).cloned();
    assert_eq!(wrong.as_deref(), expect);
    assert_eq!(proof.seen.load(Ordering::Relaxed), 1 << program::FILE_OPEN);
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn its_own_question_is_compared_and_makes_no_record() {
    let (proof, directory) = (Arc::new(Proof::default()), tempfile::tempdir().unwrap());
    let canary = Canary::new(directory.path(), Arc::clone(&proof)).unwrap();
    canary.enrolled(NO_DIRECTORY).unwrap();
    proof.names_expected.store(ASKED | ANSWERED, Ordering::Relaxed);
    let told = |direction, server, bytes: &[u8]| {
        let what = What::Dns(DnsMessage {
            direction,
            protocol: crate::event::Protocol::Udp,
            server,
            net_ns: crate::event::NetNs::default(),
            bytes: bytes.to_vec(),
            total_bytes: u32::try_from(bytes.len()).unwrap(),
        });
        proof.takes(&Event { boot_ns: 1, origin: None, task: Some(own_task()), what })
    };
    let wrong = || proof.wrong.lock().unwrap().get(&program::DNS).cloned();
    let is_proven = || proof.seen.load(Ordering::Relaxed) & 1 << program::DNS != 0;
    let resolver = SocketAddr::from(([127, 0, 0, 53], DNS_PORT));
    assert!(!told(Direction::Sent, resolver, QUESTION), "this daemon's resolver is not the canary");
    assert!(told(Direction::Sent, NAME_SERVER, QUESTION) && !is_proven());
    assert!(told(Direction::Received, NAME_SERVER, ANSWER) && is_proven() && wrong().is_none());
    assert!(told(Direction::Received, NAME_SERVER, &ANSWER[1..]));
    assert_eq!(wrong().as_deref(), Some("the length of the message is told as 31, and is 32"));
}

#[test]
fn what_is_told_rightly_is_not_wrong() {
    check(|_, _| {}, None);
}

#[test]
fn a_field_that_is_told_wrongly_is_named_with_both_values() {
    check(|open, _| open.size_bytes = 7, Some("the size is told as 7, and is 4096"));
    check(|open, _| open.inode_mode = 0, Some("the mode is told as 0, and is 33152"));
    check(|open, _| open.path = b"/canary/x".to_vec(), Some("the path is told as /canary/x"));
    check(|_, task| task.uid = u32::MAX, Some(&format!("the uid is told as {}, and is {}", u32::MAX, own_task().uid)));
    check(|_, task| task.start_boot_ns = 1, Some("the start of the process is told as 1 ns"));
}
