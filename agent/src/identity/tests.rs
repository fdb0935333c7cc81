//! Lineage and cgroups, told as short histories.

use std::io;

use super::*;
use crate::event::{Connect, ConnectHow, Exec, Exit, FileKey, FileOpen, Fork, NetNs, Protocol};

/// A `/proc` that knows what it is told.
#[derive(Default)]
struct Told(HashMap<u32, Seen>);

impl Processes for Told {
    fn look(&self, pid: u32, start_boot_ns: u64) -> Option<Seen> {
        self.0.get(&pid).filter(|seen| start_boot_ns == 0 || seen.start_boot_ns == start_boot_ns).cloned()
    }

    fn pod(&self, uid: &str, _: Option<&str>) -> Option<Pod> {
        let pod = || Pod {
            namespace: "serving".into(),
            name: "vllm-0".into(),
            container: None,
            image: None,
            labels: pod::Labels::default(),
        };
        (uid == "known").then(pod)
    }

    fn view(&self, _: u32, _: u32) -> Option<dns::resolvers::View> {
        None
    }

    fn read_below(&self, _: u32, _: dns::resolvers::View, _: &'static str) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::Other.into())
    }

    fn cgroup(&self, id: u64) -> Option<Cgroup> {
        (id == 77).then(|| Cgroup { path: b"/found-by-id".to_vec(), ..Cgroup::default() })
    }
}

fn task(pid: u32, ppid: u32, start_boot_ns: u64) -> Task {
    Task { pid, tid: pid, ppid, start_boot_ns, comm: format!("p{pid}").into_bytes(), ..Task::default() }
}

fn event(boot_ns: u64, task: Task, what: What) -> Event {
    Event { boot_ns, origin: None, task: Some(task), what }
}

fn exec(path: &str) -> What {
    What::Exec(Exec { exe: path.as_bytes().to_vec(), ..Exec::default() })
}

fn lineage(identity: &Identity) -> String {
    let name = |process: &Process| process.exe.as_deref().map_or("?".into(), String::from_utf8_lossy).into_owned();
    std::iter::once(&identity.process).chain(&identity.ancestors).map(name).collect::<Vec<_>>().join(" < ")
}

#[test]
fn a_child_that_is_gone_before_anybody_looked_still_has_its_lineage() {
    let (mut world, proc) = (World::default(), Told::default());
    world.identify(&event(10, task(1, 0, 0), exec("/sbin/init")), &proc);
    world.identify(&event(20, task(1, 0, 0), What::Fork(Fork { child_pid: 2, child_start_boot_ns: 20 })), &proc);
    world.identify(&event(21, task(2, 1, 20), exec("/bin/sh")), &proc);
    world.identify(&event(22, task(2, 1, 20), What::Fork(Fork { child_pid: 3, child_start_boot_ns: 22 })), &proc);
    let identity = world.identify(&event(23, task(3, 2, 22), exec("/bin/cat")), &proc).unwrap();
    assert_eq!(lineage(&identity), "/bin/cat < /bin/sh < /sbin/init");
}

#[test]
fn a_number_used_again_is_another_process() {
    let (mut world, proc) = (World::default(), Told::default());
    world.identify(&event(10, task(7, 0, 10), exec("/old")), &proc);
    world.identify(&event(11, task(7, 0, 10), What::Exit(Exit { code: 0 })), &proc);
    let identity = world.identify(&event(20, task(7, 0, 20), What::Exit(Exit { code: 0 })), &proc).unwrap();
    assert_eq!(lineage(&identity), "?");
}

#[test]
fn a_younger_parent_is_no_parent() {
    let (mut world, proc) = (World::default(), Told::default());
    world.identify(&event(50, task(2, 0, 50), exec("/late")), &proc);
    let identity = world.identify(&event(60, task(3, 2, 20), exec("/early")), &proc).unwrap();
    assert_eq!(lineage(&identity), "/early");
}

#[test]
fn the_dead_are_kept_for_a_while_and_then_leave() {
    let (mut world, proc) = (World::default(), Told::default());
    world.identify(&event(10, task(7, 0, 10), exec("/x")), &proc);
    world.identify(&event(11, task(7, 0, 10), What::Exit(Exit { code: 0 })), &proc);
    world.identify(&event(12, task(8, 0, 12), exec("/y")), &proc);
    assert_eq!(world.len(), 2);
    world.identify(&event(12 + KEEP_DEAD_NS, task(8, 0, 12), exec("/y")), &proc);
    assert_eq!(world.len(), 1);
}

#[test]
fn a_process_that_moved_to_another_cgroup_is_looked_at_again() {
    let (mut world, mut proc) = (World::default(), Told::default());
    let cgroup = |path: &str| Cgroup { path: path.as_bytes().to_vec(), ..Cgroup::default() };
    let seen = |path| Seen { start_boot_ns: 10, cgroup: Some(cgroup(path)), ..Seen::default() };
    proc.0.insert(7, seen("/before"));
    let in_cgroup = |cgroup_id| Task { cgroup_id, ..task(7, 0, 10) };
    world.identify(&event(10, in_cgroup(1), exec("/x")), &proc);
    proc.0.insert(7, seen("/after"));
    let same = world.identify(&event(11, in_cgroup(1), What::Exit(Exit { code: 0 })), &proc).unwrap();
    assert_eq!(same.process.cgroup, Some(cgroup("/before")));
    let moved = world.identify(&event(12, in_cgroup(2), What::Exit(Exit { code: 0 })), &proc).unwrap();
    assert_eq!(moved.process.cgroup, Some(cgroup("/after")));
}

#[test]
fn a_process_that_is_gone_is_placed_by_the_cgroup_that_the_kernel_named() {
    let (mut world, proc) = (World::default(), Told::default());
    let task = Task { cgroup_id: 77, ..task(7, 0, 10) };
    let identity = world.identify(&event(10, task, exec("/x")), &proc).unwrap();
    assert_eq!(identity.process.cgroup.unwrap().path, b"/found-by-id");
}

#[test]
fn a_process_that_a_finding_names_is_known_or_looked_up() {
    let (mut world, mut proc) = (World::default(), Told::default());
    world.identify(&event(10, task(7, 0, 10), exec("/bin/engine")), &proc);
    proc.0.insert(8, Seen { start_boot_ns: 5, exe: Some(b"/bin/late".to_vec()), ..Seen::default() });
    let found = |pid| {
        let process = Some(FoundProcess { pid, name: "engine".to_owned() });
        let low = plumbline_policy::Severity::Low;
        What::Finding(Finding { process, ..Finding::new("gpu.xid", low, "GPU-1".to_owned(), String::new()) })
    };
    let mut who = |pid| {
        let event = Event { task: None, ..event(20, Task::default(), found(pid)) };
        world.identify(&event, &proc).map(|identity| lineage(&identity))
    };
    assert_eq!(
        [who(7).as_deref(), who(8).as_deref(), who(9).as_deref()],
        [Some("/bin/engine"), Some("/bin/late"), None]
    );
}

#[test]
fn the_table_has_a_size() {
    let (mut world, proc) = (World::default(), Told::default());
    for pid in 1..=u32::try_from(MAX_PROCESSES).unwrap() + 10 {
        world.identify(&event(u64::from(pid), task(pid, 0, u64::from(pid)), exec("/x")), &proc);
    }
    assert_eq!(world.len(), MAX_PROCESSES);
}

/// Who has read what, as a connection of `by` would tell it.
fn has_read(world: &mut World, proc: &Told, by: Task) -> Vec<String> {
    let connect = Connect {
        protocol: Protocol::Tcp,
        address: std::net::IpAddr::from([203, 0, 113, 7]),
        port: 443,
        how: ConnectHow::Begin,
        denied_by: None,
        source: None,
        net_ns: NetNs::default(),
    };
    let identity = world.identify(&event(1_000, by, What::Connect(connect)), proc).unwrap();
    let told = |taken: &Taken| {
        let path = String::from_utf8_lossy(taken.path.as_deref().unwrap_or(b"?")).into_owned();
        format!("{path} by {}", taken.reader.pid)
    };
    identity.has_read.files.iter().map(told).collect()
}

fn open(path: &str, flags: u32) -> What {
    What::FileOpen(FileOpen {
        path: path.as_bytes().to_vec(),
        path_truncated: false,
        known_as: None,
        key: FileKey { dev: 1, ino: 2, generation: 3 },
        watched: FileKey { dev: 1, ino: 1, generation: 0 },
        flags,
        inode_mode: 0o100_644,
        size_bytes: 10,
        links: 1,
        received: false,
        denied_by: None,
    })
}

fn fork(pid: u32, start_boot_ns: u64) -> What {
    What::Fork(Fork { child_pid: pid, child_start_boot_ns: start_boot_ns })
}

/// A shell (2) below pid 1, started by it, and its children 3 and 4; all times are whole ticks.
fn shell_with_two_children() -> (World, Told) {
    let (mut world, proc) = (World::default(), Told::default());
    let tick = 10_000_000;
    world.identify(&event(1, task(1, 0, 0), exec("/sbin/init")), &proc);
    world.identify(&event(2, task(1, 0, 0), fork(2, tick)), &proc);
    world.identify(&event(3, task(2, 1, tick), fork(3, 2 * tick)), &proc);
    world.identify(&event(4, task(2, 1, tick), fork(4, 3 * tick)), &proc);
    (world, proc)
}

#[test]
fn what_one_process_reads_its_whole_tree_has_read() {
    let (mut world, proc) = shell_with_two_children();
    world.identify(&event(5, task(3, 2, 20_000_000), open("/models/m", 0)), &proc);
    // The other end of a pipe, although it was forked before the read.
    assert_eq!(has_read(&mut world, &proc, task(4, 2, 30_000_000)), ["/models/m by 3"]);
    assert_eq!(has_read(&mut world, &proc, task(2, 1, 10_000_000)), ["/models/m by 3"]);
}

#[test]
fn a_reader_that_is_gone_and_a_parent_that_is_gone_change_nothing() {
    let (mut world, proc) = shell_with_two_children();
    world.identify(&event(5, task(3, 2, 20_000_000), open("/models/m", 0)), &proc);
    world.identify(&event(6, task(3, 2, 20_000_000), What::Exit(Exit { code: 0 })), &proc);
    world.identify(&event(7, task(2, 1, 10_000_000), What::Exit(Exit { code: 0 })), &proc);
    // An orphan is a child of pid 1 now.
    assert_eq!(has_read(&mut world, &proc, task(4, 1, 30_000_000)), ["/models/m by 3"]);
}

#[test]
fn another_tree_has_read_nothing() {
    let (mut world, proc) = shell_with_two_children();
    world.identify(&event(5, task(3, 2, 20_000_000), open("/models/m", 0)), &proc);
    world.identify(&event(6, task(1, 0, 0), fork(9, 40_000_000)), &proc);
    assert!(has_read(&mut world, &proc, task(9, 1, 40_000_000)).is_empty());
    assert!(has_read(&mut world, &proc, task(1, 0, 0)).is_empty());
}

#[test]
fn who_only_writes_has_read_nothing() {
    let (mut world, proc) = shell_with_two_children();
    world.identify(&event(5, task(3, 2, 20_000_000), open("/models/m", 1)), &proc);
    assert!(has_read(&mut world, &proc, task(3, 2, 20_000_000)).is_empty());
}

#[test]
fn who_moves_to_another_cgroup_takes_along_what_it_has_read_and_tells_nobody_there() {
    let (mut world, mut proc) = shell_with_two_children();
    let inside = |path: &str| Some(Cgroup { path: path.as_bytes().to_vec(), ..Cgroup::default() });
    for (pid, start_boot_ns, path) in [(3, 20_000_000, "/a"), (4, 30_000_000, "/b")] {
        proc.0.insert(pid, Seen { ppid: 2, start_boot_ns, cgroup: inside(path), ..Seen::default() });
    }
    let in_cgroup = |pid, start_boot_ns, cgroup_id| Task { cgroup_id, ..task(pid, 2, start_boot_ns) };
    for (pid, start_boot_ns) in [(3, 20_000_000), (4, 30_000_000)] {
        proc.0.insert(2, Seen { start_boot_ns: 10_000_000, cgroup: inside("/"), ..Seen::default() });
        // Known by the kernel's word that it has a cgroup; then in its own.
        world.processes.get_mut(&pid).unwrap().cgroup = inside("/");
        world.identify(&event(5, in_cgroup(pid, start_boot_ns, u64::from(pid)), exec("/bin/x")), &proc);
    }
    world.identify(&event(6, in_cgroup(3, 20_000_000, 3), open("/models/m", 0)), &proc);
    assert_eq!(has_read(&mut world, &proc, in_cgroup(3, 20_000_000, 3)), ["/models/m by 3"]);
    assert!(has_read(&mut world, &proc, in_cgroup(4, 30_000_000, 4)).is_empty());
    // And once more: what it has read goes with it.
    proc.0.insert(3, Seen { ppid: 2, start_boot_ns: 20_000_000, cgroup: inside("/c"), ..Seen::default() });
    assert_eq!(has_read(&mut world, &proc, in_cgroup(3, 20_000_000, 5)), ["/models/m by 3"]);
}

#[test]
fn who_has_moved_still_knows_what_is_read_where_it_came_from_and_not_the_other_way() {
    let shell = Tree::of(2, 0);
    let moved = shell.branch(3, 0);
    let mut readings = Readings::default();
    readings.took(&moved, taken(1, 1), std::iter::empty);
    assert_eq!(readings.of(&shell).files.len(), 0);
    readings.took(&shell, taken(2, 2), std::iter::empty);
    let seen: Vec<u64> = readings.of(&moved).files.iter().map(|taken| taken.key.ino).collect();
    assert_eq!(seen, [2, 1]);
    // Moving about for ever makes no longer chain, and does not shake anything off.
    let far = (10..100).fold(moved, |tree, pid| tree.branch(pid, 0));
    assert_eq!(readings.of(&far).files.len(), 2);
}

fn taken(ino: u64, last_boot_ns: u64) -> Taken {
    let mut taken = Taken::of(&open("/models/m", 0), Who::default(), last_boot_ns).unwrap();
    taken.key.ino = ino;
    taken
}

#[test]
fn a_second_reader_does_not_hide_the_one_that_took_all() {
    let mut readings = Readings::default();
    let tree = Tree::of(2, 0);
    let by = |pid, bytes_read, last_boot_ns| Taken {
        reader: Who { pid, ..Who::default() },
        bytes_read,
        ..taken(1, last_boot_ns)
    };
    readings.took(&tree, by(7, None, 1), std::iter::empty);
    readings.took(&tree, by(7, Some(1_000_000), 2), std::iter::empty);
    readings.took(&tree, by(8, None, 3), std::iter::empty);
    readings.took(&tree, by(8, Some(10), 4), std::iter::empty);
    let has_read = readings.of(&tree);
    let [kept] = &has_read.files[..] else { panic!("{has_read:?}") };
    assert_eq!((kept.reader.pid, kept.bytes_read, kept.last_boot_ns), (7, Some(1_000_000), 4));
}

#[test]
fn a_path_without_its_front_is_no_path() {
    let What::FileOpen(open) = open("tail/m", 0) else { unreachable!() };
    let cut = What::FileOpen(FileOpen { path_truncated: true, ..open });
    assert_eq!(Taken::of(&cut, Who::default(), 1).unwrap().path, None);
}

#[test]
fn trees_and_their_files_are_bounded_and_what_is_forgotten_is_counted() {
    let mut readings = Readings::default();
    let trees: Vec<Tree> = (0..=u32::try_from(tree::MAX_TREES).unwrap()).map(|pid| Tree::of(pid, 0)).collect();
    for (number, tree) in (0..).zip(&trees) {
        // The first is dead when room is made, the others live: the dead one suffices.
        readings.took(tree, taken(1, number), || trees[1..].iter());
    }
    assert_eq!((readings.of(&trees[0]).files.len(), readings.take_forgotten()), (0, 0));
    readings.took(&Tree::of(9_999, 0), taken(1, 9_999), || trees[1..].iter());
    assert_eq!(readings.take_forgotten(), 64);
    assert_eq!((readings.of(&trees[64]).files.len(), readings.of(&trees[65]).files.len()), (0, 1));

    // A stream of files from one directory does not push out the only one of another.
    let tree = Tree::of(1, 0);
    let mut readings = Readings::default();
    readings.took(
        &tree,
        Taken { watched: FileKey { dev: 9, ino: 9, generation: 0 }, ..taken(99, 0) },
        std::iter::empty,
    );
    (1..40).for_each(|ino| readings.took(&tree, taken(ino, ino), std::iter::empty));
    let has_read = readings.of(&tree);
    assert_eq!((has_read.files.len(), has_read.left_out), (tree::MAX_FILES, 24));
    assert!(has_read.files.iter().any(|taken| taken.key.ino == 99));
}

#[test]
fn what_was_lost_of_processes_is_made_up_for() {
    let (mut world, mut proc) = (World::default(), Told::default());
    let seen = |exe: &str, start_boot_ns| Seen { start_boot_ns, exe: Some(exe.into()), ..Seen::default() };
    for (pid, path) in [(1, "/sbin/init"), (2, "/bin/sh"), (3, "/bin/gone")] {
        world.identify(&event(10, task(pid, u32::from(pid != 1), pid.into()), exec(path)), &proc);
    }
    // An exec of 2, the fork of 4 and the exit of 3 were lost; 5 began after the look.
    proc.0.insert(1, seen("/sbin/init", 1));
    proc.0.insert(2, seen("/usr/bin/vllm", 2));
    proc.0.insert(4, seen("/bin/late", 4));
    world.identify(&event(101, task(5, 1, 101), exec("/bin/newer")), &proc);
    let alive = [task(1, 0, 1), task(2, 1, 2), task(4, 2, 4)];
    world.heal(100, &alive, &proc);
    let identity = world.identify(&event(102, task(4, 2, 4), What::Exit(Exit { code: 0 })), &proc).unwrap();
    assert_eq!(lineage(&identity), "/bin/late < /usr/bin/vllm < /sbin/init");
    // What has ended is remembered for a while, and then it is not.
    assert!(world.processes.contains_key(&3));
    world.identify(&event(101 + KEEP_DEAD_NS, task(1, 0, 1), exec("/sbin/init")), &proc);
    assert!(!world.processes.contains_key(&3) && world.processes.contains_key(&5) && world.processes.contains_key(&2));
}
